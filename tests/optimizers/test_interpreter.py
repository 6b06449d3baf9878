"""One meaning, three programs: the Keras optimizer, the interpreter and the oracle train alike with any rule."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from nos_tf.dsl.primitives import RuleConstants
from nos_tf.dsl.rule import UpdateRule
from nos_tf.optimizers import interpreter
from nos_tf.optimizers.nos_optimizer import NOSOptimizer
from nos_tf.optimizers.semantics import Draws
from tests.optimizers import oracle
from tests.rules import OPERANDS, UNARIES, random_rules

SHAPES = ((3, 4), ())
P = 13
STEPS = 3
LEARNING_RATE = 0.0625  # exact in float32, in which Keras keeps it
SEED = 99
DEPTH = 3


def problem(seed):
    """Weights [P] and gradients [STEPS, P] of random signs and scales 10^-2..10^1, which tell wrong constants apart."""
    random = np.random.default_rng(seed)
    weights = random.standard_normal(P) * 10 ** random.uniform(-1, 0.5, P)
    gradients = random.choice([-1.0, 1.0], [STEPS, P]) * 10 ** random.uniform(-2, 1, [STEPS, P])
    return weights, gradients


def split(flat):
    sizes = [int(np.prod(shape)) for shape in SHAPES]
    return [part.reshape(shape) for part, shape in zip(np.split(flat, np.cumsum(sizes)[:-1]), SHAPES, strict=True)]


def train_with_keras(rule, weights, gradients, **constants):
    variables = [keras.Variable(part, dtype='float64') for part in split(weights)]
    optimizer = NOSOptimizer(rule, LEARNING_RATE, seed=SEED, **constants)
    trajectory = []
    for gradient in gradients:
        optimizer.apply([tf.constant(part) for part in split(gradient)], variables)
        trajectory.append(np.concatenate([np.ravel(variable.numpy()) for variable in variables]))
    return np.array(trajectory)


@functools.cache
def traced_update(constants, depth):
    @tf.function(autograph=False)
    def update(token_ids, state, gradient, learning_rate, seed):
        return interpreter.update(token_ids, state, gradient, learning_rate, seed=seed, constants=constants)

    return update


def train_with_interpreter(rule, weights, gradients, constants=RuleConstants(), depth=DEPTH):  # noqa: B008 - frozen
    update = traced_update(constants, depth)
    token_ids = tf.constant(rule.canonical().padded_ids(depth))
    learning_rate = tf.constant(LEARNING_RATE, 'float64')
    state, trajectory = interpreter.initial_state(tf.constant(weights)), []
    for gradient in gradients:
        state = update(token_ids, state, tf.constant(gradient), learning_rate, tf.constant(SEED))
        trajectory.append(state.weights.numpy())
    assert state.step == len(gradients)
    return np.array(trajectory)


@functools.cache
def draws(step):
    return Draws(tf.constant(SEED), tf.constant(step), tf.range(P))


@functools.cache
def keep(step, operand, unary):
    """The mask of `unary(operand)` at a step, as the package draws it; its node spelled out here once more."""
    operand_id = 15 + int(operand[1:]) if operand in ('t1', 't2', 't3') else OPERANDS.index(operand)
    return draws(step).keep(1 + 11 * operand_id + UNARIES.index(unary), float(unary[5:-1])).numpy()


@functools.cache
def normal(step):
    return draws(step).normal(0, 'float64').numpy()


def train_with_oracle(rule, weights, gradients, **arguments):
    """Random numbers belong to nodes of the canonical form; a deterministic rule is run as it is written."""
    tokens = rule.canonical().tokens if rule.is_stochastic else rule.tokens
    return oracle.train(tokens, weights, gradients, LEARNING_RATE, keep=keep, normal=normal, **arguments)


def is_well_conditioned(rule, weights, gradients, expected):
    """Whether 10^-12 more or less in the weights and averages leaves the result within 10^-6."""
    nudge = 1 + 1e-12 * np.random.default_rng(5).choice([-1.0, 1.0], P)
    nudged = train_with_oracle(rule, weights, gradients, nudge=nudge)
    return np.allclose(nudged, expected, rtol=1e-6, atol=0, equal_nan=True)


@pytest.mark.filterwarnings('ignore:.*reads no gradient')
def test_three_programs_agree_on_random_rules():
    compared = skipped = stochastic = 0
    for number, tokens in enumerate(random_rules(240, seed=21)):
        rule = UpdateRule(tokens)
        weights, gradients = problem(number)
        expected = train_with_oracle(rule, weights, gradients)
        if not is_well_conditioned(rule, weights, gradients, expected):
            skipped += 1
            continue
        np.testing.assert_allclose(train_with_keras(rule, weights, gradients), expected, rtol=1e-9, err_msg=str(tokens))
        np.testing.assert_allclose(
            train_with_interpreter(rule, weights, gradients), expected, rtol=1e-9, err_msg=str(tokens)
        )
        compared += 1
        stochastic += rule.is_stochastic
    assert compared >= 200
    assert skipped <= 0.1 * (compared + skipped)
    assert stochastic > 40
    assert traced_update(RuleConstants(), DEPTH).experimental_get_tracing_count() == 1


def test_every_constant_reaches_both_programs():
    constants = {'beta_1': 0.5, 'beta_2': 0.75, 'beta_3': 0.25, 'epsilon': 0.125, 'noise_stddev': 3.0}
    weights, gradients = problem(77)
    for text in ('adam * gamma', 'rmsprop + noise', 'log(m) / v', 'g / gamma'):
        rule = UpdateRule.parse(text)
        expected = train_with_oracle(
            rule, weights, gradients, betas={'m': 0.5, 'v': 0.75, 'gamma': 0.25}, epsilon=0.125, noise_stddev=3.0
        )
        np.testing.assert_allclose(train_with_keras(rule, weights, gradients, **constants), expected, rtol=1e-9)
        result = train_with_interpreter(rule, weights, gradients, RuleConstants(**constants), depth=1)
        np.testing.assert_allclose(result, expected, rtol=1e-9)


def test_padding_changes_no_bit():
    """A rule of one iteration in graphs of depth one and three."""
    weights, gradients = problem(3)
    state = interpreter.initial_state(tf.constant(weights))
    results = []
    for depth in (1, 3):
        ids = tf.constant(UpdateRule.parse('drop(m, 0.5) * exp(g)').padded_ids(depth))
        results.append(
            interpreter.update(
                ids, state, tf.constant(gradients[0]), tf.constant(0.5, 'float64'), seed=tf.constant(1),
                constants=RuleConstants(),
            )
        )  # fmt: skip
    np.testing.assert_array_equal(results[0].weights, results[1].weights)
    assert not np.array_equal(results[0].weights, weights)


@pytest.mark.parametrize('text', ['g', 'noise'])
def test_state_after_one_update_by_hand(text):
    weights, gradient = tf.constant([1.0, 2.0]), tf.constant([0.5, -2.0])
    state = interpreter.update(
        tf.constant(UpdateRule.parse(text).token_ids),
        interpreter.initial_state(weights),
        gradient,
        tf.constant(0.5),
        seed=tf.constant(4),
        constants=RuleConstants(),
    )
    m, v, gamma = (slot.numpy() for slot in state.slots)
    np.testing.assert_allclose(m, [0.05, -0.2], rtol=1e-6)
    np.testing.assert_allclose(v, [0.00025, 0.004], rtol=1e-6)
    np.testing.assert_allclose(gamma, [0.000125, -0.008], rtol=1e-6)
    assert state.step == 1
    if text == 'g':
        np.testing.assert_array_equal(state.weights, [0.75, 3.0])
    else:
        moved = state.weights.numpy() - weights.numpy()
        assert (np.abs(moved) > 0).all()
        assert (np.abs(moved) < 0.03).all()
