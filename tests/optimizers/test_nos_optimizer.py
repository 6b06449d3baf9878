"""NOSOptimizer walks as the trusted optimizers do, keeps what its rule reads, and refuses what it cannot use."""

import math
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from nos_tf.dsl.rule import UpdateRule
from nos_tf.optimizers.nos_optimizer import AddSign, NOSOptimizer, PowerSign, optimizer_class
from tests.optimizers.training import fit, network

STEPS = 20


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


def test_a_model_learns():
    losses = fit(network(NOSOptimizer('g * exp(sign(g)*sign(m))', learning_rate=0.02)), epochs=12)['loss']
    assert losses[-1] < 0.3 * losses[0]


def test_a_rule_is_text_or_a_rule():
    rule = UpdateRule.parse('g * m')
    assert NOSOptimizer(rule).rule is rule
    assert NOSOptimizer('g * m').rule == NOSOptimizer('g m x x *').rule == rule
    with pytest.raises(TypeError, match='from a string, not from 3'):
        NOSOptimizer(3)
    with pytest.raises(ValueError, match=r"character 1 \('t'\)"):
        NOSOptimizer('tiger')


@pytest.mark.parametrize(
    ('rule', 'error', 'message'),
    [
        (
            'g * tiger',
            ValueError,
            r"at character 5 \('t'\): expected an operand \(g, g\^2, .*restart\), a function \(exp, ",
        ),
        ('g m x x', ValueError, r'^4 tokens \(g m x x\): a rule has 5 for each iteration'),
        ('g m x x * t3 g x x +', ValueError, r"^token 6 \(iteration 2\) is 't3': choose from g, g\^2, .*, t1$"),
        ('exp((g)', ValueError, r"'exp\(\(g\)' at its end: expected '\)'"),
        ('clip(x, -1)', ValueError, r"'clip\(x, -1\)' at character 6 \('x'\): expected an operand \(g, "),
        ('clip(m, -1)', ValueError, r"'clip\(m, -1\)' at character 9 \('-'\): clip takes 1e-5, 1e-4, 1e-3$"),
        ('drop(m, 1.5)', ValueError, r"'drop\(m, 1.5\)' at character 9 \('1'\): drop takes 0\.1, 0\.3, 0\.5$"),
        ('', ValueError, 'an empty text is no rule: write tokens, an infix expression or the name of a known rule'),
        ('(' * 10_000, ValueError, r"\(\.\.\.' at character 65 \('\('\): nested deeper than 64 levels$"),
        ("__import__('os')", ValueError, r'"__import__\(\'os\'\)" at character 12 \("\'"\)'),
        (3, TypeError, r'^a rule is read from a string, not from 3 \(int\)$'),
        (None, TypeError, r'^a rule is read from a string, not from None \(NoneType\)$'),
        (b'g', TypeError, r"^a rule is read from a string, not from b'g' \(bytes\)$"),
    ],
    ids=lambda value: repr(value)[:16] if not isinstance(value, type) else '',
)
def test_refuses_rules(rule, error, message):
    """What was read, where, and what is allowed: the same words, whoever is asked."""
    for make in (UpdateRule.parse, NOSOptimizer, lambda rule: optimizer_class(rule, 'RefusedOfTests')):
        with pytest.raises(error, match=message) as refusal:
            make(rule)
        assert type(refusal.value) is error
    assert keras.saving.get_registered_object('nos_tf>RefusedOfTests') is None


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        *(
            ({beta: value}, rf'^{beta} = {value}: must be a number in \[0, 1\)$')
            for beta in ('beta_1', 'beta_2', 'beta_3')
            for value in (1.0, 1.5, -0.5, math.nan, math.inf, None)
        ),
        *(
            ({name: value}, rf'^{name} = {value}: must be a number in \[0, inf\)$')
            for name in ('epsilon', 'noise_stddev')
            for value in (-1.0, math.nan, math.inf)
        ),
        ({'beta_3': 'x'}, "^beta_3 = 'x': must be a number"),
        ({'seed': 2**31}, 'seed = 2147483648: must be an int32 or None'),
        ({'seed': 0.5}, r'seed = 0\.5'),
        ({'seed': True}, 'seed = True'),
        ({'momentum': 0.9}, 'momentum'),
    ],
)
def test_refuses_hyper_parameters(arguments, message):
    for make in (lambda **k: NOSOptimizer('g', **k), PowerSign):
        with pytest.raises(ValueError, match=message):
            make(**arguments)


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
    for blind in ('1', 'noise', '1 - 1e-1*w', 'drop(1, 0.5)', 'g g x x + 1 g -x x left'):
        with pytest.warns(UserWarning, match='reads no gradient'):
            NOSOptimizer(blind)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        NOSOptimizer('g + 1e-3*w')
