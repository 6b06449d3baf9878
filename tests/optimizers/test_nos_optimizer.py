"""NOSOptimizer walks as the trusted optimizers do, and is a Keras optimizer in every respect."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from nos_tf.dsl.rule import UpdateRule
from nos_tf.optimizers.nos_optimizer import AddSign, NOSOptimizer, PowerSign, optimizer_class
from tests.optimizers import oracle

STEPS = 20
RANDOM_RULE = 'drop(m, 0.5) * exp(1e-3*w) + noise'


def gradients(size=16, seed=0, dtype='float32'):
    """Random signs and scales 10^-2..10^1: wrong constants move the weights by more than 2.7e-6."""
    random = np.random.default_rng(seed)
    values = random.choice([-1.0, 1.0], [STEPS, size]) * 10 ** random.uniform(-2, 1, [STEPS, size])
    return values.astype(dtype)


def start(size=16, dtype='float32'):
    return np.linspace(-2, 3, size).astype(dtype)


def walk(optimizer, dtype='float32', rates=None):
    """The weights after each of twenty updates."""
    variable = keras.Variable(start(dtype=dtype), dtype=dtype)
    trajectory = []
    for step, gradient in enumerate(gradients(dtype=dtype)):
        if rates is not None:
            optimizer.learning_rate = rates[step]
        optimizer.apply([tf.constant(gradient)], [variable])
        trajectory.append(variable.numpy())
    return np.array(trajectory)


def walk_raw(operation, **arguments):
    variable, m = tf.Variable(start()), tf.Variable(np.zeros(16, np.float32))
    trajectory = []
    for gradient in gradients():
        operation(var=variable.handle, m=m.handle, grad=tf.constant(gradient), **arguments)
        trajectory.append(variable.numpy())
    return np.array(trajectory)


def assert_same_walk(a, b, rtol=1e-6):
    """Relative to the largest weight of a step: a weight near zero has lost digits to cancellation."""
    assert np.abs(b[-1] - b[0]).max() > 0.1
    np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


def test_powersign_is_tensorflows():
    expected = walk_raw(tf.raw_ops.ResourceApplyPowerSign, lr=0.1, logbase=1.0, sign_decay=1.0, beta=0.9)
    assert_same_walk(walk(PowerSign(0.1)), expected)
    assert_same_walk(walk(NOSOptimizer('g * exp(sign(g) * sign(m))', 0.1)), expected)


def test_addsign_is_tensorflows():
    expected = walk_raw(tf.raw_ops.ResourceApplyAddSign, lr=0.1, alpha=1.0, sign_decay=1.0, beta=0.9)
    assert_same_walk(walk(AddSign(0.1)), expected)


def test_beta_1_of_powersign_is_tensorflows():
    expected = walk_raw(tf.raw_ops.ResourceApplyPowerSign, lr=0.1, logbase=1.0, sign_decay=1.0, beta=0.5)
    assert_same_walk(walk(PowerSign(0.1, beta_1=0.5)), expected)
    assert np.abs(walk(PowerSign(0.1)) - expected).max() > 0.1


def test_sgd_is_keras():
    assert_same_walk(walk(NOSOptimizer('sgd', 0.05)), walk(keras.optimizers.SGD(0.05)))


def test_momentum_is_keras_at_a_corrected_rate():
    """Keras sums where the paper averages: equal under λ_t = λ (1 - β^t) / (1 - β)."""
    rates = [0.01 * (1 - 0.9**t) / (1 - 0.9) for t in range(1, STEPS + 1)]
    assert_same_walk(walk(NOSOptimizer('momentum', 0.01), rates=rates), walk(keras.optimizers.SGD(0.01, momentum=0.9)))


def test_adam_is_keras():
    """In float64, at decays that float32 holds, to which Keras rounds: 1 - 0.999^t would differ in the fifth digit.

    Without ε, which Keras adds before it corrects v.
    """
    decays = {'beta_1': 1 - 2**-3, 'beta_2': 1 - 2**-10, 'epsilon': 0.0}
    ours = walk(NOSOptimizer('adam', 0.0625, **decays), 'float64')
    assert_same_walk(ours, walk(keras.optimizers.Adam(0.0625, **decays), 'float64'), rtol=1e-9)


@pytest.mark.parametrize(
    'name', ['sgd', 'momentum', 'adam', 'rmsprop', 'signsgd', 'signum', 'addsign', 'powersign', 'adam_powersign']
)
def test_float32_is_as_exact_as_it_can_be(name):
    rule = UpdateRule.parse(name)
    expected = oracle.train(rule.tokens, start(dtype='float64'), gradients().astype('float64'), 0.0625)
    assert_same_walk(walk(NOSOptimizer(rule, 0.0625)), expected)


def network(optimizer, seed=3):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input([4]), keras.layers.Dense(8, activation='tanh'), keras.layers.Dense(1)])
    model.compile(optimizer=optimizer, loss='mse', jit_compile=False)
    return model


def data():
    x = np.random.default_rng(1).standard_normal([64, 4]).astype('float32')
    return x, x[:, :1] * 0.5 - x[:, 1:2]


def fit(model, epochs):
    x, y = data()
    return model.fit(x, y, batch_size=16, epochs=epochs, shuffle=False, verbose=0).history['loss']


def assert_same_weights(a, b):
    for x, y in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_model_learns():
    losses = fit(network(NOSOptimizer('g * exp(sign(g)*sign(m))', learning_rate=0.02)), epochs=12)
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize('make', [lambda: NOSOptimizer(RANDOM_RULE, 0.03), lambda: PowerSign(0.02)])
def test_training_continues_bit_for_bit_after_a_restore(make, tmp_path):
    model = network(make())
    fit(model, epochs=2)
    model.save(tmp_path / 'model.keras')
    restored = keras.saving.load_model(tmp_path / 'model.keras')
    assert type(restored.optimizer) is type(model.optimizer)
    assert restored.optimizer.get_config() == model.optimizer.get_config()
    assert_same_weights(restored, model)
    before = restored.get_weights()[0]
    fit(model, epochs=2)
    fit(restored, epochs=2)
    assert_same_weights(restored, model)
    assert not np.array_equal(restored.get_weights()[0], before)
    for a, b in zip(model.optimizer.variables, restored.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_config_round_trip():
    optimizer = NOSOptimizer(
        'adam * exp(m)', 0.25, 0.8, 0.99, 0.995, 1e-6, 0.5, seed=5, weight_decay=0.125, clipnorm=2.0, name='mine'
    )
    config = optimizer.get_config()
    assert config['rule'] == 'adam m x exp *'
    expected = {
        'learning_rate': 0.25, 'beta_1': 0.8, 'beta_2': 0.99, 'beta_3': 0.995, 'epsilon': 1e-6, 'noise_stddev': 0.5,
        'seed': 5, 'weight_decay': 0.125, 'clipnorm': 2.0, 'name': 'mine',
    }  # fmt: skip
    assert {key: config[key] for key in expected} == expected
    assert NOSOptimizer.from_config(config).get_config() == config
    restored = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(restored) is NOSOptimizer
    assert restored.get_config() == config
    assert restored.rule == UpdateRule.parse('adam * exp(m)')


def test_learning_rate_schedule_survives_the_config():
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 100)
    restored = NOSOptimizer.from_config(NOSOptimizer('g', schedule).get_config())
    assert restored.get_config()['learning_rate']['config']['decay_steps'] == 100


def test_a_rule_is_text_or_a_rule():
    rule = UpdateRule.parse('g * m')
    assert NOSOptimizer(rule).rule is rule
    assert NOSOptimizer('g * m').rule == NOSOptimizer('g m x x *').rule == rule
    with pytest.raises(TypeError, match='from a string, not from 3'):
        NOSOptimizer(3)
    with pytest.raises(ValueError, match=r"character 1 \('l'\)"):
        NOSOptimizer('lion')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'beta_1': 1.0}, r'beta_1 = 1\.0: must be a number in \[0, 1\)'),
        ({'beta_2': -0.5}, r'beta_2 = -0\.5'),
        ({'beta_3': 'x'}, "beta_3 = 'x'"),
        ({'epsilon': float('nan')}, 'epsilon = nan'),
        ({'noise_stddev': -1.0}, r'noise_stddev = -1\.0: must be a number in \[0, inf\)'),
        ({'seed': 2**31}, 'seed = 2147483648: must be an int32 or None'),
        ({'seed': 0.5}, r'seed = 0\.5'),
        ({'seed': True}, 'seed = True'),
        ({'momentum': 0.9}, 'momentum'),
    ],
)
def test_refuses_hyper_parameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        NOSOptimizer('g', **arguments)


@pytest.mark.parametrize(
    ('rule', 'slots'),
    [
        ('g', ()),
        ('powersign', ('m',)),
        ('rmsprop', ('v',)),
        ('adam', ('m', 'v')),
        ('m * gamma', ('m', 'gamma')),
        ('g adam x x left', ()),
    ],
)
def test_keeps_the_slots_that_the_rule_reads_and_no_others(rule, slots):
    optimizer = NOSOptimizer(rule)
    variables = [keras.Variable(np.ones(3)), keras.Variable(np.ones([2, 2]))]
    optimizer.build(variables)
    kept = optimizer.variables[2:]  # after iterations and learning rate
    assert [tuple(slot.shape) for slot in kept] == [(3,), (2, 2)] * len(slots)
    assert all(slot in variable.path for slot, variable in zip(np.repeat(slots, 2), kept, strict=True))


def test_warns_of_a_rule_that_reads_no_gradient():
    with pytest.warns(
        UserWarning, match=r'the rule 1e-3\*w reads no gradient: it does not learn from the loss'
    ) as seen:
        NOSOptimizer('1e-3*w')
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        NOSOptimizer('g + 1e-3*w')


def apply_once(optimizer, values, gradient=None):
    variables = [keras.Variable(value) for value in values]
    optimizer.apply([tf.ones_like(v.value) if gradient is None else gradient for v in variables], variables)
    return [variable.numpy() for variable in variables]


def test_a_seed_fixes_the_draws():
    zeros = [np.zeros(200, 'float32')]

    def dropped(seed):
        return apply_once(NOSOptimizer('drop(g, 0.5)', 1.0, seed=seed), zeros)[0]

    np.testing.assert_array_equal(dropped(1), dropped(1))
    assert 0.3 < (dropped(1) == dropped(2)).mean() < 0.7
    assert set(np.unique(dropped(1))) == {-1.0, 0.0}


def test_no_seed_is_one_that_can_be_read():
    first, second = NOSOptimizer('noise + g'), NOSOptimizer('noise + g')
    assert first.seed != second.seed
    assert first.get_config()['seed'] == first.seed
    zeros = [np.zeros(9, 'float32')]
    np.testing.assert_array_equal(
        apply_once(first, zeros), apply_once(NOSOptimizer('noise + g', seed=first.get_config()['seed']), zeros)
    )


def test_variables_and_steps_draw_their_own_numbers():
    variables = [keras.Variable(np.zeros([20, 20], 'float32')) for _ in range(2)]
    optimizer = NOSOptimizer('drop(g, 0.5)', 1.0, seed=0)
    masks, before = [], [0.0, 0.0]
    for _ in range(2):
        optimizer.apply([tf.ones([20, 20])] * 2, variables)
        masks += [(v.numpy() - b).ravel() for v, b in zip(variables, before, strict=True)]
        before = [v.numpy() for v in variables]
    correlations = np.corrcoef(masks) - np.eye(4)
    assert np.abs(correlations).max() < 5 / 20


@pytest.mark.filterwarnings('ignore:.*reads no gradient')
def test_equal_sub_expressions_draw_the_same_numbers_others_their_own():
    zeros = [np.zeros(400, 'float32')]
    for text in ('drop(g, 0.5) - drop(g, 0.5)', 'noise - noise', 'drop(g * m, 0.1) - drop(m * g, 0.1)'):
        np.testing.assert_array_equal(apply_once(NOSOptimizer(f'{text} + 0.1 * w', 1.0, seed=0), zeros)[0], zeros[0])
    both = apply_once(NOSOptimizer('drop(g, 0.5) + drop(1, 0.5)', 1.0, seed=0), zeros)[0]
    np.testing.assert_allclose([(both == -k).mean() for k in range(3)], [0.25, 0.5, 0.25], atol=0.12)


def test_same_masks_eager_traced_and_compiled():
    def train(wrap):
        variables = [keras.Variable(np.zeros(40, 'float32')), keras.Variable(np.zeros([5, 8], 'float32'))]
        optimizer = NOSOptimizer('drop(m, 0.5) * exp(drop(g, 0.3))', 0.5, seed=17)
        optimizer.build(variables)
        step = wrap(lambda: optimizer.apply([tf.fill([40], 0.25), tf.fill([5, 8], -0.5)], variables))
        for _ in range(3):
            step()
        return np.concatenate([variable.numpy().ravel() for variable in variables])

    eager = train(lambda function: function)
    assert len(np.unique(eager)) > 10
    np.testing.assert_allclose(train(tf.function), eager, rtol=1e-6)
    np.testing.assert_allclose(train(lambda f: tf.function(f, jit_compile=True)), eager, rtol=1e-6)


def test_sparse_gradients_are_dense_ones():
    """The gradient of an Embedding is a tf.IndexedSlices, here with a repeated row."""

    def train(densify):
        layer = keras.layers.Embedding(6, 2, embeddings_initializer='ones')
        layer.build()
        optimizer = NOSOptimizer('m * exp(g) + drop(g, 0.5)', 0.5, seed=1)
        for _ in range(2):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(layer(tf.constant([1, 4, 1])) ** 2)
            gradient = tape.gradient(loss, layer.trainable_variables[0].value)
            assert isinstance(gradient, tf.IndexedSlices)
            optimizer.apply([tf.convert_to_tensor(gradient) if densify else gradient], layer.trainable_variables)
        return layer.get_weights()[0]

    np.testing.assert_array_equal(train(densify=False), train(densify=True))
    assert (train(densify=False)[[0, 2, 3, 5]] == 1).all()
    assert (train(densify=False)[[1, 4]] != 1).all()


def test_accumulated_gradients_make_one_step_of_the_rule():
    """Two gradients, one update: the bias correction counts updates."""
    variable, other = keras.Variable([1.0, -2.0]), keras.Variable([1.0, -2.0])
    accumulating, plain = NOSOptimizer('adam', 0.1, gradient_accumulation_steps=2), NOSOptimizer('adam', 0.1)
    for first, second in (([0.5, 1.0], [1.5, -3.0]), ([0.1, 0.2], [0.3, 4.0])):
        accumulating.apply([tf.constant(first)], [variable])
        accumulating.apply([tf.constant(second)], [variable])
        plain.apply([(tf.constant(first) + tf.constant(second)) / 2], [other])
    np.testing.assert_allclose(variable.numpy(), other.numpy(), rtol=1e-6)


def test_the_arguments_of_keras_work():
    decayed = apply_once(NOSOptimizer('sgd', 0.5, weight_decay=0.5), [np.array([2.0, -4.0], 'float32')])[0]
    np.testing.assert_allclose(decayed, [1.0, -3.5], rtol=1e-6)  # w - 0.5 * 0.5 w - 0.5 * 1
    clipped = apply_once(NOSOptimizer('sgd', 1.0, clipvalue=0.25), [np.zeros(2, 'float32')])[0]
    np.testing.assert_allclose(clipped, [-0.25, -0.25])


def test_class_of_a_rule():
    cls = optimizer_class('m * exp(g^2)', name='FirstOfTests', learning_rate=0.5)
    assert issubclass(cls, NOSOptimizer)
    assert cls.__name__ == 'FirstOfTests'
    assert 'm * exp(g^2)' in cls.__doc__
    optimizer = cls(beta_1=0.5, seed=3)
    assert optimizer.rule == UpdateRule.parse('m * exp(g^2)')
    assert optimizer.learning_rate == 0.5
    config = optimizer.get_config()
    assert 'rule' not in config
    assert cls.from_config(config).get_config() == config
    restored = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(restored) is cls
    assert restored.get_config() == config
    assert keras.saving.get_registered_object('nos_tf>FirstOfTests') is cls
    assert cls.__module__ == __name__
    assert optimizer_class('m g^2 x exp *', name='FirstOfTests', learning_rate=0.5) is cls
    with pytest.raises(ValueError, match='taken'):
        optimizer_class('m g^2 x exp *', name='FirstOfTests', learning_rate=0.25)


def test_class_walks_as_its_rule():
    cls = optimizer_class('adam_powersign', name='SecondOfTests')
    np.testing.assert_array_equal(walk(cls(0.25)), walk(NOSOptimizer('adam * exp(sign(g) * sign(m))', 0.25)))


@pytest.mark.parametrize(
    ('rule', 'name', 'message'),
    [
        ('g', 'PowerSign', r'the name PowerSign is taken by .* rule g \* exp\(sign\(g\) \* sign\(m\)\)'),
        ('g', 'NOSOptimizer', 'the name NOSOptimizer is taken by'),
        ('g', 'two words', "'two words' is no name of a class"),
        ('g', '1st', "'1st' is no name"),
        ('g', '', "'' is no name"),
        ('lion', 'Lion', r"character 1 \('l'\)"),
    ],
)
def test_refuses_classes(rule, name, message):
    with pytest.raises(ValueError, match=message):
        optimizer_class(rule, name)


def test_the_classes_of_the_paper():
    assert (PowerSign.__name__, AddSign.__name__) == ('PowerSign', 'AddSign')
    assert PowerSign().rule == UpdateRule.parse('g * exp(sign(g) * sign(m))')
    assert AddSign().rule == UpdateRule.parse('(1 + sign(g) * sign(m)) * g')
    assert float(PowerSign().learning_rate) == pytest.approx(0.01)
