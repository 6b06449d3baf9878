"""All that the Keras base class offers works with NOSOptimizer, as it does with the optimizers that people trust.

Most tests give one feature to three pairs of optimizers, ours and a trusted one, and hold the two walks together.
"""

import json
import os
import subprocess
import sys
import textwrap
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.optimizers import schedules

from nos_tf.optimizers.nos_optimizer import NOSOptimizer, PowerSign, optimizer_class

STEPS = 6
RANDOM_RULE = 'drop(m, 0.5) * exp(1e-3*w) + noise'
DROP = 'drop(g, 0.5)'  # at rate 1, its mask can be read from the weights
DECAYS = {'beta_1': 1 - 2**-3, 'beta_2': 1 - 2**-10, 'epsilon': 0.0}  # float32, which Keras rounds to, holds them

RandomClass = optimizer_class(RANDOM_RULE, name='RandomClassOfFeatures', learning_rate=0.02)


@keras.saving.register_keras_serializable('tests')
class TensorFlowsPowerSign(keras.optimizers.Optimizer):
    """The kernel of TensorFlow 1's PowerSign below the Keras base class."""

    def build(self, variables):
        if not self.built:
            super().build(variables)
            self.averages = self.add_optimizer_variables(variables, 'm')

    def update_step(self, gradient, variable, learning_rate):
        m = self.averages[self._get_variable_index(variable)].value
        numbers = {'lr': learning_rate, 'logbase': 1.0, 'sign_decay': 1.0, 'beta': 0.9}
        numbers = {name: tf.cast(number, variable.dtype) for name, number in numbers.items()}
        tf.raw_ops.ResourceApplyPowerSign(var=variable.handle, m=m.handle, grad=gradient, **numbers)


PAIRS = {
    'sgd': (lambda lr, **k: NOSOptimizer('g', lr, **k), keras.optimizers.SGD),
    'adam': (
        lambda lr, **k: NOSOptimizer('adam', lr, **DECAYS, **k),
        lambda lr, **k: keras.optimizers.Adam(lr, **DECAYS, **k),
    ),
    'powersign': (PowerSign, TensorFlowsPowerSign),
}
of_each_pair = pytest.mark.parametrize('pair', PAIRS)


def gradients(steps=STEPS):
    """For two variables; random signs and scales 10^-2..10^1."""
    random = np.random.default_rng(0)
    values = random.choice([-1.0, 1.0], [steps, 14]) * 10 ** random.uniform(-2, 1, [steps, 14])
    return [(row[:8], row[8:].reshape(2, 3)) for row in values]


def start():
    return [
        keras.Variable(np.linspace(-2, 3, 8), dtype='float64', name='kernel'),
        keras.Variable(np.linspace(1, -1, 6).reshape(2, 3), dtype='float64', name='bias'),
    ]


def flat(arrays):
    return np.concatenate([np.ravel(array) for array in arrays])


def walk(optimizer, grads=None, variables=None):
    """All weights after each call of `apply`, and at last as `finalize_variable_values` leaves them."""
    variables = variables or start()
    trajectory = [flat(variables)]
    for pieces in grads or gradients():
        optimizer.apply([None if piece is None else tf.constant(piece) for piece in pieces], variables)
        trajectory.append(flat(variables))
    optimizer.finalize_variable_values(variables)
    return np.array([*trajectory, flat(variables)])


@cache
def plain_walk(pair):
    """Without any feature."""
    return walk(PAIRS[pair][0](0.0625))


def assert_same_walk(a, b, rtol=1e-9):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


def network(optimizer, jit_compile=False, **arguments):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input([4]), keras.layers.Dense(8, activation='tanh'), keras.layers.Dense(1)])
    model.compile(optimizer=optimizer, loss='mse', jit_compile=jit_compile, **arguments)
    return model


def data():
    x = np.random.default_rng(1).standard_normal([64, 4]).astype('float32')
    return x, x[:, :1] * 0.5 - x[:, 1:2]


def fit(model, epochs=1, **arguments):
    x, y = data()
    return model.fit(x, y, batch_size=16, epochs=epochs, shuffle=False, verbose=0, **arguments).history


def assert_same_state(a, b):
    """Weights and slots of two models, bit for bit."""
    for x, y in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_array_equal(x, y)
    for x, y in zip(a.optimizer.variables, b.optimizer.variables, strict=True):
        np.testing.assert_array_equal(x.numpy(), y.numpy())


# One feature, two optimizers.

FEATURES = {
    'weight_decay': {'weight_decay': 0.5},
    'clipnorm': {'clipnorm': 1.0},
    'clipvalue': {'clipvalue': 0.25},
    'global_clipnorm': {'global_clipnorm': 1.0},
    'ema': {'use_ema': True, 'ema_momentum': 0.75},
    'ema_overwrite': {'use_ema': True, 'ema_momentum': 0.5, 'ema_overwrite_frequency': 3},
    'accumulation': {'gradient_accumulation_steps': 3},
    'accumulation_of_clipped': {'gradient_accumulation_steps': 2, 'clipnorm': 1.0, 'weight_decay': 0.1},
    'all': {
        'weight_decay': 0.25, 'global_clipnorm': 2.0, 'use_ema': True, 'ema_overwrite_frequency': 2,
        'gradient_accumulation_steps': 2, 'loss_scale_factor': 8.0,
    },
}  # fmt: skip


@of_each_pair
@pytest.mark.parametrize('feature', FEATURES)
def test_an_argument_of_keras_does_what_it_does_to_trusted_optimizers(feature, pair):
    ours, trusted = PAIRS[pair]
    walked = walk(ours(0.0625, **FEATURES[feature]))
    assert_same_walk(walked, walk(trusted(0.0625, **FEATURES[feature])))
    if (pair, feature) not in {('adam', 'clipnorm'), ('adam', 'global_clipnorm')}:
        assert np.abs(walked - plain_walk(pair)).max() > 1e-2


@of_each_pair
def test_a_loss_scale_factor_cancels(pair):
    scaled = PAIRS[pair][0](0.0625, loss_scale_factor=8.0)
    assert float(scaled.scale_loss(tf.constant(2.0))) == 16.0
    large = [[8.0 * piece for piece in pieces] for pieces in gradients()]
    np.testing.assert_array_equal(walk(scaled, large), plain_walk(pair))


SCHEDULES = {
    'exponential': lambda: schedules.ExponentialDecay(0.125, decay_steps=3, decay_rate=0.5, staircase=True),
    'cosine': lambda: schedules.CosineDecay(0.0, 10, warmup_target=0.25, warmup_steps=4),
    'piecewise': lambda: schedules.PiecewiseConstantDecay([2, 5], [0.25, 0.125, 0.0625]),
    'callable': lambda: lambda: 0.125,
}


@of_each_pair
@pytest.mark.parametrize('schedule', SCHEDULES)
def test_learning_rate_schedules(schedule, pair):
    ours, trusted = PAIRS[pair]
    assert_same_walk(walk(ours(SCHEDULES[schedule]())), walk(trusted(SCHEDULES[schedule]())))


def test_a_schedule_reads_the_number_of_steps():
    """By hand: the rates 1/2, 1/2, 1/4, 1/4 of a gradient of one."""
    schedule = schedules.ExponentialDecay(0.5, decay_steps=2, decay_rate=0.5, staircase=True)
    variable = keras.Variable([0.0])
    walked = walk(NOSOptimizer('g', schedule), [[np.ones(1, 'float32')]] * 4, [variable])
    np.testing.assert_array_equal(walked.ravel(), [0.0, -0.5, -1.0, -1.25, -1.5, -1.5])


@of_each_pair
@pytest.mark.parametrize('how', ['by_name', 'by_variable'])
def test_variables_excluded_from_weight_decay(how, pair):
    walks = []
    for make in PAIRS[pair]:
        variables, optimizer = start(), make(0.0625, weight_decay=0.5)
        excluded = {'var_names': ['bias']} if how == 'by_name' else {'var_list': variables[1:]}
        optimizer.exclude_from_weight_decay(**excluded)
        walks.append(walk(optimizer, variables=variables))
    assert_same_walk(*walks)
    plain = plain_walk(pair)
    assert np.abs(walks[0] - plain)[:, :8].max() > 0.01
    np.testing.assert_array_equal(walks[0][:, 8:], plain[:, 8:])


def test_weight_decay_is_decoupled():
    """By hand: w - λ c w - λ e^{sign(g) sign(m)} g, at λ = c = 1/2."""
    walked = walk(PowerSign(0.5, weight_decay=0.5), [[np.array([2.0])]], [keras.Variable([4.0], dtype='float64')])
    np.testing.assert_allclose(walked[1], 4.0 - 0.25 * 4.0 - 0.5 * np.e * 2.0)


def test_ema_by_hand():
    """Weights -1, -2, -3; averages -1, -1.5, -2.25: the first is the weight itself; the second overwrites."""
    ones = [[np.ones(1, 'float32')]] * 2
    average = NOSOptimizer('g', 1.0, use_ema=True, ema_momentum=0.5)
    np.testing.assert_array_equal(walk(average, ones, [keras.Variable([0.0])]).ravel(), [0, -1, -2, -1.5])
    every_second = NOSOptimizer('g', 1.0, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2)
    walked = walk(every_second, ones * 2, [keras.Variable([0.0])])
    np.testing.assert_array_equal(walked.ravel(), [0, -1, -1.5, -2.5, -2.75, -2.75])


def test_fit_ends_with_the_averaged_weights():
    models = [network(make(0.0625, use_ema=True, ema_momentum=0.75)) for make in PAIRS['powersign']]
    for model in models:
        fit(model)
    assert_same_walk(*[flat(model.get_weights()) for model in models], rtol=1e-5)
    average = flat([v.numpy() for v in models[0].optimizer._model_variables_moving_average])
    np.testing.assert_array_equal(flat(models[0].get_weights()), average)


@pytest.mark.parametrize('rule', ['adam_powersign', RANDOM_RULE])
def test_accumulated_gradients_are_their_mean_at_once(rule):
    """Slots, bias correction and masks count updates, not micro-steps."""
    accumulating = NOSOptimizer(rule, 0.0625, seed=7, gradient_accumulation_steps=3)
    micro = walk(accumulating)
    means = [[np.mean(pieces, axis=0) for pieces in zip(*gradients()[i : i + 3])] for i in range(0, STEPS, 3)]  # noqa: B905
    at_once = walk(NOSOptimizer(rule, 0.0625, seed=7), means)
    assert_same_walk(micro[:-1:3], at_once[:-1], rtol=1e-12)
    np.testing.assert_array_equal(micro[1], micro[0])
    assert int(accumulating.iterations) == 2


def test_constraints_hold_after_each_update():
    variable = keras.Variable([0.5, 1.0])
    variable.constraint = keras.constraints.NonNeg()
    walked = walk(PowerSign(0.5), [[np.array([4.0, -1.0], 'float32')]], [variable])
    np.testing.assert_allclose(walked[1], [0.0, 1.0 + 0.5 * np.e], rtol=1e-6)


# Scaled losses and mixed precision.


def test_loss_scale_optimizer_skips_what_is_not_finite():
    """Neither weights, nor slots, nor the step, and so the next draws, know of a skipped step."""
    finite, broken = gradients(3), [np.full(8, np.inf), np.ones([2, 3])]
    inner, plain = [NOSOptimizer(RANDOM_RULE, 0.0625, seed=7) for _ in range(2)]
    scaled = keras.optimizers.LossScaleOptimizer(inner, initial_scale=16.0)
    walked = walk(scaled, [[16 * g for g in finite[0]], broken, *[[8 * g for g in pieces] for pieces in finite[1:]]])
    np.testing.assert_array_equal(walked[1], walked[2])
    np.testing.assert_array_equal(np.delete(walked, 2, axis=0), walk(plain, finite))
    for a, b in zip(inner.variables, plain.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert float(scaled.dynamic_scale) == 8.0
    assert np.isfinite(walked).all() and int(scaled.iterations) == 3


def test_loss_scale_optimizer_survives_its_config():
    config = keras.optimizers.serialize(keras.optimizers.LossScaleOptimizer(RandomClass(seed=5)))
    restored = keras.optimizers.deserialize(config)
    assert type(restored.inner_optimizer) is RandomClass
    assert restored.inner_optimizer.seed == 5


@pytest.fixture(params=['mixed_float16', 'mixed_bfloat16'])
def mixed_policy(request):
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy('float32')


def test_mixed_precision(mixed_policy):
    weights = []
    for make in (*PAIRS['powersign'], lambda lr: RandomClass(lr, seed=2)):
        model = network(make(2**-6))
        wrapped = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        assert wrapped == (mixed_policy == 'mixed_float16')
        losses = fit(model, epochs=6)['loss']
        assert np.isfinite(losses).all() and losses[-1] < losses[0]
        floating = [v for v in model.variables + model.optimizer.variables if 'int' not in v.dtype]
        assert {variable.dtype for variable in floating} == {'float32'}
        assert model.layers[0].compute_dtype == mixed_policy.removeprefix('mixed_')
        weights.append(flat(model.get_weights()))
    np.testing.assert_allclose(weights[0], weights[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_variables_of_half_precision(dtype):
    variable = keras.Variable([1.0, -2.0], dtype=dtype)
    optimizer = NOSOptimizer('powersign', 0.125)
    for _ in range(2):
        optimizer.apply([tf.constant([0.5, -0.25], dtype)], [variable])
    expected = np.array([1.0, -2.0]) - 2 * 0.125 * np.e * np.array([0.5, -0.25])
    np.testing.assert_allclose(keras.ops.cast(variable, 'float32'), expected, rtol=0.02)
    assert {v.dtype for v in optimizer.variables[2:]} == {dtype}


# Interrupted and continued.

INTERRUPTED = {
    'powersign': lambda: PowerSign(0.02, weight_decay=0.01),
    'random_all': lambda: NOSOptimizer(
        RANDOM_RULE, 0.02, seed=4, gradient_accumulation_steps=3, use_ema=True, ema_overwrite_frequency=2
    ),
    'random_scaled': lambda: keras.optimizers.LossScaleOptimizer(RandomClass(seed=4)),
}


@pytest.mark.parametrize('name', INTERRUPTED)
def test_a_saved_model_continues_bit_for_bit(name, tmp_path):
    """Four batches an epoch: it is saved between two micro-steps where gradients accumulate."""
    model = network(INTERRUPTED[name]())
    fit(model)
    model.save(tmp_path / 'model.keras')
    restored = keras.saving.load_model(tmp_path / 'model.keras')
    assert_same_state(restored, model)
    assert fit(model, epochs=2) == fit(restored, epochs=2)
    assert_same_state(restored, model)


@pytest.mark.parametrize('name', INTERRUPTED)
def test_a_tensorflow_checkpoint_continues_bit_for_bit(name, tmp_path):
    """The seed is a hyper-parameter: the checkpoint holds variables, so the optimizer is made with the same seed."""
    model, restored = network(INTERRUPTED[name]()), network(INTERRUPTED[name]())
    fit(model)
    path = tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(str(tmp_path / 'checkpoint'))
    restored.optimizer.build(restored.trainable_variables)
    status = tf.train.Checkpoint(model=restored, optimizer=restored.optimizer).restore(path)
    status.assert_existing_objects_matched()
    assert_same_state(restored, model)
    assert fit(model, epochs=2) == fit(restored, epochs=2)
    assert_same_state(restored, model)


# Gradients that are sparse or missing.


def embedding_step(optimizer, layer, densify):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(tf.constant([1, 4, 1])) ** 2)
    gradient = tape.gradient(loss, layer.trainable_variables[0].value)
    assert isinstance(gradient, tf.IndexedSlices)
    optimizer.apply([tf.convert_to_tensor(gradient) if densify else gradient], layer.trainable_variables)


@pytest.mark.parametrize(
    'arguments',
    [
        {'weight_decay': 0.5, 'use_ema': True},
        {'clipnorm': 1.0},
        {'global_clipnorm': 1.0},
        {'clipvalue': 0.5},
        {'loss_scale_factor': 2.0},
        {'gradient_accumulation_steps': 2, 'clipnorm': 1.0},
        {'inner': True},
    ],
)
@pytest.mark.parametrize('rule', ['adam_powersign', RANDOM_RULE])
def test_sparse_gradients_are_dense_ones(rule, arguments):
    """Keras alone takes the norm of repeated rows before it adds them, and cannot divide by a scale."""
    arguments, weights = dict(arguments), []
    inner = arguments.pop('inner', False)
    for densify in (False, True):
        layer = keras.layers.Embedding(6, 2, embeddings_initializer='ones')
        layer.build()
        optimizer = NOSOptimizer(rule, 0.25, seed=1, **arguments)
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=2.0) if inner else optimizer
        optimizer.build(layer.trainable_variables)
        step = tf.function(embedding_step)
        for _ in range(2):
            embedding_step(optimizer, layer, densify)
            step(optimizer, layer, densify)
        weights.append(layer.get_weights()[0])
    np.testing.assert_allclose(*weights, rtol=1e-6)
    assert (np.abs(weights[0][[1, 4]] - 1) > 0.05).all()


def test_sparse_gradients_without_a_shape_have_that_of_the_variable():
    variable = keras.Variable(np.zeros([3, 1], 'float32'))
    PowerSign(0.5).apply([tf.IndexedSlices(tf.constant([[1.0], [1.0]]), tf.constant([2, 2]))], [variable])
    np.testing.assert_allclose(variable.numpy(), [[0.0], [0.0], [-np.e]], rtol=1e-6)


def test_wrong_numbers_of_gradients_are_refused_by_keras():
    with pytest.raises(ValueError, match='must already be built'):
        PowerSign().apply([tf.ones(8)])
    optimizer = PowerSign()
    optimizer.build(start())
    with pytest.raises(ValueError, match='Received a list of 1 gradients'):
        optimizer.apply([tf.ones(8)])


@of_each_pair
def test_a_missing_gradient_leaves_its_variable_and_warns(pair):
    grads = [(g, None) if i % 3 == 1 else (g, h) for i, (g, h) in enumerate(gradients())]
    walks = []
    for make in PAIRS[pair]:
        with pytest.warns(UserWarning, match=r"Gradients do not exist for variables \['bias'\]"):
            walks.append(walk(make(0.0625), grads))
    assert_same_walk(*walks)
    np.testing.assert_array_equal(walks[0][1, 8:], walks[0][2, 8:])
    assert (walks[0][1, :8] != walks[0][2, :8]).all()
    with pytest.raises(ValueError, match='No gradients provided'):
        PAIRS[pair][0](0.5).apply([None, None], start())


def test_a_missing_gradient_leaves_the_masks_of_the_others():
    whole = walk(NOSOptimizer(DROP, 1.0, seed=2))
    without = [(np.zeros(8), h) if i == 1 else (None, h) for i, (_, h) in enumerate(gradients())]
    with pytest.warns(UserWarning, match='Gradients do not exist'):
        part = walk(NOSOptimizer(DROP, 1.0, seed=2), without, variables=start())
    np.testing.assert_array_equal(part[:, 8:], whole[:, 8:])


def test_a_layer_can_be_frozen_midway():
    """The slots of a frozen layer wait, those of the other move on."""
    optimizer = NOSOptimizer(RANDOM_RULE, 0.02, seed=4)
    model = network(optimizer)
    fit(model)
    first, second = (layer.get_weights() for layer in model.layers)
    slots = [v.numpy() for v in optimizer._slots['m']]
    model.layers[0].trainable = False
    model.compile(optimizer=optimizer, loss='mse', jit_compile=False)
    fit(model)
    for a, b in zip(first, model.layers[0].get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert all((a != b).any() for a, b in zip(second, model.layers[1].get_weights(), strict=True))
    moved = [(a != b.numpy()).any() for a, b in zip(slots, optimizer._slots['m'], strict=True)]
    assert moved == [False, False, True, True]
    assert int(optimizer.iterations) == 8


def test_frozen_layers_have_no_slots():
    model = network(PowerSign(0.02))
    model.layers[0].trainable = False
    before = model.layers[0].get_weights()
    fit(model)
    assert [tuple(v.shape) for v in model.optimizer.variables[2:]] == [(8, 1), (1,)]
    for a, b in zip(before, model.layers[0].get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# Eager, traced, compiled, by hand.


@pytest.mark.parametrize('rule', ['adam_powersign', RANDOM_RULE])
def test_same_trajectory_eager_traced_and_compiled(rule):
    histories, weights = [], []
    for how in ({}, {'jit_compile': True}, {'run_eagerly': True}):
        model = network(NOSOptimizer(rule, 0.02, seed=5), **how)
        histories.append(fit(model, epochs=3)['loss'])
        weights.append(flat(model.get_weights()))
    for k in (1, 2):
        np.testing.assert_allclose(weights[k], weights[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(histories[k], histories[0], rtol=1e-4)


def test_same_masks_eager_traced_and_compiled():
    """Halves of gradients of one: exact, so that the weights tell every mask of three steps."""

    def train(wrap):
        variables, optimizer = start(), NOSOptimizer('drop(g, 0.5) * drop(1, 0.3) + sign(noise)', 0.5, seed=17)
        for variable in variables:
            variable.assign(keras.ops.zeros(variable.shape))
        optimizer.build(variables)
        step = wrap(lambda: optimizer.apply([tf.ones(v.shape, 'float64') for v in variables], variables))
        for _ in range(3):
            step()
        return flat(variables)

    eager = train(lambda function: function)
    assert len(np.unique(eager)) > 3
    np.testing.assert_array_equal(train(tf.function), eager)
    np.testing.assert_array_equal(train(lambda f: tf.function(f, jit_compile=True)), eager)


@pytest.mark.parametrize(
    ('make', 'method'),
    [(lambda: PowerSign(0.02), 'apply_gradients'), (lambda: RandomClass(seed=6), 'apply')],
    ids=['apply_gradients', 'apply'],
)
def test_a_loop_by_hand_is_fit(make, method):
    fitted, looped = network(make()), network(make())
    fit(fitted)
    looped.optimizer.build(looped.trainable_variables)
    step = tf.function(by_hand)
    for x, y in tf.data.Dataset.from_tensor_slices(data()).batch(16):
        step(looped, method, x, y)
    np.testing.assert_allclose(flat(looped.get_weights()), flat(fitted.get_weights()), rtol=1e-4, atol=1e-6)
    assert int(looped.optimizer.iterations) == 4


def by_hand(model, method, x, y):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
    grads = tape.gradient(loss, model.trainable_variables)
    if method == 'apply':
        model.optimizer.apply(grads, model.trainable_variables)
    else:
        model.optimizer.apply_gradients(zip(grads, model.trainable_variables, strict=True))


def test_apply_without_variables_takes_those_it_was_built_with():
    variables, optimizer = start(), PowerSign(0.0625)
    optimizer.build(variables)
    for pieces in gradients():
        optimizer.apply([tf.constant(piece) for piece in pieces])
    np.testing.assert_array_equal(flat(variables), plain_walk('powersign')[-1])


DISTRIBUTED = """
    import json
    import keras, numpy as np, tensorflow as tf
    from nos_tf.optimizers.nos_optimizer import NOSOptimizer, PowerSign

    cpu = tf.config.list_physical_devices('CPU')[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    mirrored = tf.distribute.MirroredStrategy(['CPU:0', 'CPU:1'])
    assert mirrored.num_replicas_in_sync == 2
    x = np.random.default_rng(1).standard_normal([64, 4]).astype('float32')
    y = x[:, :1] * 0.5 - x[:, 1:2]
    MAKE = {
        'powersign': lambda: PowerSign(0.02, weight_decay=0.1, use_ema=True),
        'random': lambda: NOSOptimizer('drop(m, 0.5) * exp(1e-3*w) + noise', 0.02, seed=3),
    }

    def network(make):
        keras.utils.set_random_seed(3)
        model = keras.Sequential([keras.Input([4]), keras.layers.Dense(1)])
        model.compile(optimizer=make(), loss='mse', jit_compile=False)
        return model

    def fit(strategy, make):
        with strategy.scope():
            model = network(make)
        model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
        return model

    def loop(strategy, make):
        with strategy.scope():
            model = network(make)
            model.optimizer.build(model.trainable_variables)
        batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(16, drop_remainder=True).repeat(2)

        def replica(x, y):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum((model(x, training=True) - y) ** 2) / 16
            gradients = tape.gradient(loss, model.trainable_variables)
            model.optimizer.apply_gradients(zip(gradients, model.trainable_variables))

        @tf.function
        def step(batch):
            strategy.run(replica, args=batch)

        for batch in strategy.experimental_distribute_dataset(batches):
            step(batch)
        model.optimizer.finalize_variable_values(model.trainable_variables)
        return model

    answer = {}
    one = tf.distribute.get_strategy()
    for name, make in MAKE.items():
        for how, train, strategy in (('one', fit, one), ('fit', fit, mirrored), ('loop', loop, mirrored)):
            model = train(strategy, make)
            steps = int(tf.convert_to_tensor(model.optimizer.iterations))
            answer[f'{name} {how}'] = [steps, *np.concatenate([w.ravel() for w in model.get_weights()]).tolist()]
    print(json.dumps(answer))
"""


@pytest.fixture(scope='module')
def distributed():
    """Weights, after the number of steps, from a process of its own: it may hold but one MirroredStrategy."""
    done = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(DISTRIBUTED)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, 'CUDA_VISIBLE_DEVICES': ''},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize('how', ['fit', 'loop'])
@pytest.mark.parametrize('name', ['powersign', 'random'])
def test_two_replicas_train_as_one(distributed, name, how):
    one, two = distributed[f'{name} one'], distributed[f'{name} {how}']
    assert two[0] == 8
    np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-5)


# Callbacks.


def test_learning_rate_scheduler():
    """Sixteen steps of sign(g), by 2^-6, 2^-7, 2^-8 and 2^-9, four each."""
    model = network(NOSOptimizer('signsgd', 2.0**-6))
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate if epoch == 0 else rate / 2)
    history = fit(model, epochs=4, callbacks=[scheduler])
    assert history['learning_rate'] == [2.0**-6, 2.0**-7, 2.0**-8, 2.0**-9]
    before = flat(network(NOSOptimizer('g')).get_weights())
    multiples = (flat(model.get_weights()) - before) * 2**9
    np.testing.assert_allclose(multiples, np.round(multiples), atol=1e-3)
    assert np.abs(multiples).max() <= 4 * (8 + 4 + 2 + 1) + 1e-3


def test_reduce_lr_on_plateau():
    plateau = keras.callbacks.ReduceLROnPlateau(monitor='loss', factor=0.5, patience=1, min_delta=1e9, min_lr=0.01)
    model = network(PowerSign(0.0625))
    history = fit(model, epochs=5, callbacks=[plateau])
    assert history['learning_rate'] == [0.0625, 0.0625, 0.03125, 0.015625, pytest.approx(0.01)]
    assert float(model.optimizer.learning_rate) == pytest.approx(0.01)


def test_tensorboard_logs_the_rate_of_a_schedule(tmp_path):
    schedule = schedules.ExponentialDecay(0.5, decay_steps=4, decay_rate=0.5, staircase=True)
    fit(network(PowerSign(schedule)), epochs=2, callbacks=[keras.callbacks.TensorBoard(tmp_path, write_graph=False)])
    logged = {}
    for path in (tmp_path / 'train').glob('*.v2'):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                logged[value.tag, event.step] = tf.make_ndarray(value.tensor)
    assert logged['epoch_learning_rate', 0] == 0.25
    assert logged['epoch_learning_rate', 1] == 0.125
    assert logged['epoch_loss', 1] > 0


# Memory.

SLOTS_OF_TABLE_1 = {
    '(exp(sign(g) * sign(m)) + clip(g, 1e-4)) * g': 1,
    'clip(m, 1e-4) * exp(v)': 2,
    'm * exp(v)': 2,
    'g * exp(sign(g) * sign(m))': 1,
    'drop(g, 0.3) * exp(sign(g) * sign(m))': 1,
    'm * exp(g^2)': 1,
    'drop(m, 0.1) / (exp(g^2) + eps)': 1,
    'drop(g, 0.1) * exp(sign(g) * sign(m))': 1,
    'clip(rmsprop, 1e-5) + drop(m, 0.3)': 2,
    'adam * exp(sign(g) * sign(m))': 2,
    'adam * exp(m)': 2,
    'g + drop(m, 0.3)': 1,
    'drop(m, 0.1) * exp(g^3)': 1,
    'g - clip(g^2, 1e-4)': 0,
    'exp(g) - exp(m)': 1,
    'drop(m, 0.3) * exp(1e-3*w)': 1,
}


def slot_bytes(optimizer):
    optimizer.build([keras.Variable(np.zeros([100, 10], 'float32')), keras.Variable(np.zeros(24, 'float32'))])
    return sum(variable.numpy().nbytes for variable in optimizer.variables[2:])


@pytest.mark.parametrize('rule', SLOTS_OF_TABLE_1)
def test_the_slots_of_table_1_take_what_the_rule_reads(rule):
    """Of 1,024 float32 weights; Adam's two slots take 8 KiB."""
    assert slot_bytes(NOSOptimizer(rule)) == 4096 * SLOTS_OF_TABLE_1[rule]
    assert slot_bytes(keras.optimizers.Adam()) == 8192
