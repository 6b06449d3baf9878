"""Scaled losses, mixed precision and variables of half precision."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from nos_tf.dsl.rule import UpdateRule
from nos_tf.optimizers import kernel
from nos_tf.optimizers.nos_optimizer import NOSOptimizer
from tests.optimizers import oracle
from tests.optimizers.training import (
    OURS,
    RANDOM_RULE,
    RandomClass,
    TensorFlowsPowerSign,
    fit,
    flat,
    gradients,
    network,
    walk,
)


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


@pytest.mark.parametrize('clip', [{'clipnorm': 0.5}, {'global_clipnorm': 0.5}, {'clipvalue': 0.5}])
@pytest.mark.parametrize('size', [2.0**-13, 2.0**10])
@pytest.mark.parametrize('accumulated', [{}, {'gradient_accumulation_steps': 2}])
def test_gradients_of_half_precision_are_clipped_in_single(clip, size, accumulated):
    """In float16 the square of the one is 0, and that of the other infinite."""
    steps = {}
    for dtype in ('float16', 'float32'):
        variables = [keras.Variable(np.zeros(shape), dtype=dtype) for shape in ((4,), (2, 3))]
        optimizer = NOSOptimizer('g', 1.0, **clip, **accumulated)
        optimizer.build(variables)
        for _ in range(2):
            optimizer.apply([ops.full(v.shape, size, dtype) for v in variables], variables)
        steps[dtype] = flat([v.numpy() for v in variables]).astype('float32')
    assert np.abs(steps['float32']).max() > 0
    np.testing.assert_allclose(steps['float16'], steps['float32'], rtol=2e-3)


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
    for make in (TensorFlowsPowerSign, *OURS.values()):
        model = network(make(2**-6))
        wrapped = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        assert wrapped == (mixed_policy == 'mixed_float16')
        losses = fit(model, epochs=3)['loss']
        assert np.isfinite(losses).all() and losses[-1] < losses[0]
        floating = [v for v in model.variables + model.optimizer.variables if 'int' not in v.dtype]
        assert {variable.dtype for variable in floating} == {'float32'}
        assert model.layers[0].compute_dtype == mixed_policy.removeprefix('mixed_')
        weights.append(flat(model.get_weights()))
    np.testing.assert_allclose(weights[1], weights[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(weights[2], weights[1])
    np.testing.assert_array_equal(weights[4], weights[3])


NARROW = {'float16': 2.0**-11, 'bfloat16': 2.0**-8}  # half of the distance from 1 to the next number
SIZES = [0.0, 1e-7, 1e-5, 1e-3, 0.1, 1.0, 30.0, 200.0, 1e4]
RULES = ['adam', 'rmsprop', 'adam_powersign', 'g / m', 'm / (v + 1e-3*w)', 'powersign', 'log(g) + exp(adam)', 'g + m']


def rounded(values, dtype):
    """The values of a narrow type, as float64."""
    return np.asarray(ops.cast(ops.convert_to_tensor(values, dtype), 'float32'), 'float64')


@pytest.mark.parametrize('dtype', NARROW)
@pytest.mark.parametrize('rule', RULES)
def test_variables_of_half_precision_are_updated_as_exactly_as_they_can_be(rule, dtype):
    """Each update is the oracle's, rounded once, for gradients from 0 to 1e4; in one variable, and in joined ones."""
    steps, rate = 4, 2.0**-10
    sizes = np.array([*SIZES, *(-size for size in SIZES)])
    given = [rounded(sizes * factor, dtype) for factor in (1.0, 0.5, -0.25, 1.0)]
    variables = [keras.Variable(np.full(shape, 0.5), dtype=dtype) for shape in ([18], [2, 9])]
    optimizer = NOSOptimizer(rule, rate)
    tokens = UpdateRule.parse(rule).canonical().tokens
    before = np.full(18, 0.5)
    exact = oracle.train(tokens, before, np.array(given), rate)
    deltas = np.diff(exact, axis=0, prepend=before[None])
    for step in range(steps):
        gradients = [ops.reshape(ops.convert_to_tensor(given[step], dtype), v.shape) for v in variables]
        optimizer.apply(gradients, variables)
        for variable in variables:
            after = rounded(ops.reshape(variable, [-1]), dtype)
            fits = np.abs(deltas[step]) < 6e4
            assert np.isfinite(after[fits]).all()
            expected = before + deltas[step]
            error = NARROW[dtype] * (np.abs(expected) + np.abs(deltas[step])) + 2e-4 * np.abs(deltas[step]) + 2.0**-24
            assert (np.abs(after - expected)[fits] <= error[fits]).all(), (after, expected)
        before = after
    assert {v.dtype for v in optimizer.variables[1:]} == {'float32'}
    assert {v.dtype for v in variables} == {dtype}


@pytest.mark.parametrize('dtype', NARROW)
def test_slow_averages_of_half_precision_do_not_stand_still(dtype):
    """In bfloat16, .999 x is x: an average of a constant would stay at nearly nothing."""
    variable, optimizer = keras.Variable(np.zeros(3), dtype=dtype), NOSOptimizer('v', 1.0)
    step = tf.function(lambda: optimizer.apply([tf.fill([3], tf.constant(0.5, dtype))], [variable]))
    for _ in range(500):
        step()
    (average,) = (v for v in optimizer.variables if v.path.endswith('_v'))
    np.testing.assert_allclose(average.numpy(), 0.25 * (1 - 0.999**500), rtol=1e-4)


@pytest.mark.parametrize('dtype', NARROW)
def test_a_large_variable_of_half_precision_is_updated_alike(dtype):
    """By the compiled kernel, which reads the weights too."""
    shape, weights = [kernel.COMPILED_FROM], []
    for kind in (dtype, 'float32'):
        variable, optimizer = keras.Variable(np.full(shape, 0.5), dtype=kind), NOSOptimizer('adam + 1e-1*w', 2.0**-6)
        for gradient in (1e-7, 0.0, 1e-3):
            optimizer.apply([tf.fill(shape, tf.constant(gradient, dtype))], [variable])
        weights.append(np.asarray(ops.cast(variable, 'float32')))
    np.testing.assert_allclose(*weights, rtol=4 * NARROW[dtype])


@pytest.mark.parametrize('arguments', [{'use_ema': True}, {'gradient_accumulation_steps': 2}, {'clipnorm': 1.0}])
@pytest.mark.parametrize('dtype', NARROW)
def test_half_precision_goes_with_what_keras_does_beside(dtype, arguments):
    variable, optimizer = keras.Variable(np.ones(3), dtype=dtype), NOSOptimizer('adam', 0.125, **arguments)
    for _ in range(2):
        optimizer.apply([tf.constant([0.5, -0.25, 0.0], dtype)], [variable])
    updates = 1 if 'gradient_accumulation_steps' in arguments else 2
    expected = 1 - 0.125 * updates * np.array([1.0, -1.0, 0.0])
    np.testing.assert_allclose(ops.cast(variable, 'float32'), expected, rtol=0.02)


def test_a_pure_float16_model_trains(request):
    request.addfinalizer(lambda: keras.config.set_dtype_policy('float32'))
    keras.config.set_dtype_policy('float16')
    for rule in ('adam', 'rmsprop', 'adam_powersign'):
        model = network(NOSOptimizer(rule, 2**-6))
        losses = fit(model, epochs=3)['loss']
        assert {v.dtype for v in model.trainable_variables} == {'float16'}
        assert np.isfinite(losses).all() and losses[-1] < losses[0]


@pytest.mark.parametrize('rule', ['rmsprop', 'gamma / v'])
def test_the_slots_of_a_float16_do_not_overflow(rule):
    variable, optimizer = keras.Variable(np.ones(8), dtype='float16'), NOSOptimizer(rule, 2.0**-10)
    optimizer.build([variable])
    step = tf.function(lambda: optimizer.apply([tf.fill([8], tf.constant(200.0, 'float16'))], [variable]))
    for _ in range(100):  # the sum of their cubes is 8e8, where float16 ends at 65504
        step()
    for kept in [*optimizer.variables[2:], variable]:
        assert np.isfinite(kept.numpy()).all(), kept.path
