"""A large variable runs in one compiled kernel, small ones in one vector: the same numbers as one by one."""

import copy
import pickle
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from nos_tf.dsl.primitives import RuleConstants
from nos_tf.dsl.rule import UpdateRule
from nos_tf.optimizers import kernel, nos_optimizer
from nos_tf.optimizers.kernel import COMPILED_FROM, JOINED_BELOW, Elements, Kernel, Scalars
from nos_tf.optimizers.nos_optimizer import NOSOptimizer

RULES = ('powersign', 'adam', 'drop(m, 0.3) * exp(1e-3*w)', 'sign(v) + noise * exp(gamma)')
SHAPES = [(3,), (COMPILED_FROM // 128, 128), (2, 5), (), (7,), (JOINED_BELOW - 1,), (JOINED_BELOW, 1)]


def train(rule, shapes, steps=5, trace=True, dtype='float64', **arguments):
    """The weights after some steps of gradients with random signs and sizes."""
    random = np.random.default_rng(0)
    optimizer = NOSOptimizer(rule, 0.1, seed=5, **arguments)
    variables = [keras.Variable(random.normal(size=shape), dtype=dtype) for shape in shapes]
    optimizer.build(variables)

    def apply(gradients):
        optimizer.apply(gradients, variables)

    apply = tf.function(apply, autograph=False) if trace else apply
    for _ in range(steps):
        gradients = [tf.constant(random.normal(size=shape) * 10 ** random.uniform(-2, 0), dtype) for shape in shapes]
        apply(gradients)
    return [variable.numpy() for variable in variables]


@pytest.fixture
def one_by_one(monkeypatch):
    """Turns compiling and joining off, when called."""
    return lambda: monkeypatch.setattr(kernel, 'is_ours_to_arrange', lambda: False)


@pytest.mark.parametrize('rule', RULES)
@pytest.mark.parametrize('trace', [True, False])
def test_compiled_and_joined_variables_walk_as_each_by_itself(rule, trace, one_by_one):
    fast = train(rule, SHAPES, trace=trace)
    one_by_one()
    for mine, alone in zip(fast, train(rule, SHAPES, trace=trace), strict=True):
        np.testing.assert_allclose(mine, alone, rtol=1e-12, atol=1e-14)


def test_sign_decay_reaches_every_kernel(one_by_one):
    decay = keras.optimizers.schedules.CosineDecay(1.0, 4)
    fast = train('powersign', SHAPES, sign_decay=decay)
    one_by_one()
    for mine, alone in zip(fast, train('powersign', SHAPES, sign_decay=decay), strict=True):
        np.testing.assert_allclose(mine, alone, rtol=1e-7)  # the schedule itself is a float32, compiled or not


def test_more_small_variables_than_one_vector_takes(one_by_one):
    shapes = [(i % 4 + 1,) for i in range(2 * nos_optimizer.JOINED + 1)]
    fast = train('adam', shapes)
    one_by_one()
    for mine, alone in zip(fast, train('adam', shapes), strict=True):
        np.testing.assert_allclose(mine, alone, rtol=1e-12)


def test_small_variables_of_several_types_are_joined_by_type():
    optimizer = NOSOptimizer('sign(g)', 0.5)
    variables = [keras.Variable(np.ones(2), dtype=dtype) for dtype in ('float32', 'float64', 'float32', 'float64')]
    optimizer.apply([tf.constant([1.0, -1.0], v.dtype) for v in variables], variables)
    for variable in variables:
        np.testing.assert_array_equal(variable.numpy(), [0.5, 1.5])


def compiled_by(optimizer):
    return optimizer._kernel._compiled


def step_of(rule, variables, **arguments):
    optimizer = NOSOptimizer(rule, 0.1, **arguments)
    optimizer.apply([tf.ones(variable.shape, variable.dtype) for variable in variables], variables)
    return optimizer


def zeros(*shape):
    return keras.Variable(np.zeros(shape, 'float32'))


@pytest.mark.parametrize(('size', 'compiles'), [(COMPILED_FROM - 1, 0), (COMPILED_FROM, 1)])
def test_only_large_variables_are_compiled(size, compiles):
    assert len(compiled_by(step_of('powersign', [zeros(size)]))) == compiles


def test_a_shape_is_compiled_once_whatever_the_step_and_many_shapes_warn_of_nothing(caplog):
    variables = [zeros(COMPILED_FROM + i // 2) for i in range(12)]
    optimizer = step_of('m', variables)
    for _ in range(2):
        optimizer.apply([2 * tf.ones(variable.shape) for variable in variables], variables)
    assert len(compiled_by(optimizer)) == 6
    assert caplog.records == []


def test_a_copy_or_a_pickle_compiles_for_itself():
    optimizer = step_of('powersign', [zeros(COMPILED_FROM)])
    for kernel_ in (copy.deepcopy(optimizer._kernel), pickle.loads(pickle.dumps(optimizer._kernel))):
        assert (kernel_.expression, kernel_.constants) == (optimizer._kernel.expression, optimizer._kernel.constants)
        assert kernel_._compiled == {}


@pytest.mark.parametrize('shapes', [[(2, 3)], [(2, 3), (6,)], [(COMPILED_FROM,)]])
@pytest.mark.parametrize('given', [(3, 2), (1,), (7,), ()])
def test_a_gradient_of_another_shape_is_refused(shapes, given):
    variables = [zeros(*shape) for shape in shapes]
    gradients = [tf.ones(given), *(tf.ones(shape) for shape in shapes[1:])]
    with pytest.raises(ValueError, match=rf'gradient of .* has shape {re.escape(str(given))}: must be that of it'):
        NOSOptimizer('m').apply(gradients, variables)


@pytest.mark.parametrize('neighbours', [0, 1])
@pytest.mark.parametrize('shape', [None, [None]])
def test_a_gradient_of_unknown_shape(shape, neighbours):
    variables = [zeros(3) for _ in range(1 + neighbours)]
    optimizer = NOSOptimizer('m', 1.0)
    optimizer.build(variables)

    @tf.function(input_signature=[tf.TensorSpec(shape)])
    def step(gradient):
        optimizer.apply([gradient] * len(variables), variables)

    step(tf.ones(3))
    for variable in variables:
        np.testing.assert_allclose(variable.numpy(), -1, rtol=1e-6)
    with pytest.raises(tf.errors.InvalidArgumentError):
        step(tf.ones(4))


def test_an_update_step_of_a_subclass_reaches_every_variable():
    class Frozen(NOSOptimizer):
        def update_step(self, gradient, variable, learning_rate):
            super().update_step(0.0 * gradient, variable, learning_rate)

    variables = [zeros(3), zeros(4), zeros(JOINED_BELOW), zeros(COMPILED_FROM)]
    Frozen('g').apply([tf.ones(variable.shape) for variable in variables], variables)
    assert all((variable.numpy() == 0).all() for variable in variables)


def test_a_variable_given_twice_is_updated_twice():
    v, other = zeros(3), zeros(2)
    NOSOptimizer('m', 1.0).apply([tf.ones(3), tf.ones(2), 2 * tf.ones(3)], [v, other, v])
    np.testing.assert_allclose(v.numpy(), -1.0 - (0.9 * 0.1 + 0.1 * 2) / 0.1, rtol=1e-6)


def test_float32_differs_by_rounding_alone(one_by_one):
    rules = ('powersign', 'adam', 'm * exp(v)', 'log(g) + rmsprop', 'clip(g, 1e-4) / exp(m)')
    fast = [train(rule, SHAPES, dtype='float32') for rule in rules]
    one_by_one()
    for mine, rule in zip(fast, rules, strict=True):
        for large, alone in zip(mine, train(rule, SHAPES, dtype='float32'), strict=True):
            np.testing.assert_allclose(large, alone, rtol=2e-5, atol=2e-6)


def test_small_variables_cost_the_operations_of_one():
    """100 vectors of 4, joined, against one: the graph grows by reading, cutting and writing each, not by its rule."""

    def operations(count):
        optimizer = NOSOptimizer('powersign')
        variables = [keras.Variable(np.ones(4, 'float32')) for _ in range(count)]
        optimizer.build(variables)
        step = tf.function(lambda: optimizer.apply([tf.ones(4)] * count, variables), autograph=False)
        graph = step.get_concrete_function().graph
        return sum(operation.type in ('Sign', 'Round') for operation in graph.get_operations())

    assert operations(100) == -(-100 // nos_optimizer.JOINED) * operations(1)


def test_step_by_hand():
    """At step 1 the averages are (1 - β) g^k, the corrected ones g^k: powersign takes λ e g."""
    g = tf.constant([0.5, -2.0, 0.0], 'float64')
    of_rule = Kernel(UpdateRule.parse('powersign').canonical().expression, RuleConstants())
    elements = Elements(g, {'m': tf.zeros(3, 'float64')}, weights=None, positions=None)
    delta, averages = of_rule(elements, Scalars(0.25, step=1, seed=0, sign_decay=None))
    np.testing.assert_allclose(delta, 0.25 * np.e * g.numpy(), rtol=1e-12)
    np.testing.assert_allclose(averages['m'], 0.1 * g.numpy(), rtol=1e-12)


def test_strategies_place_operations_themselves():
    assert kernel.is_ours_to_arrange()
    with tf.distribute.OneDeviceStrategy('/cpu:0').scope():
        assert not kernel.is_ours_to_arrange()
