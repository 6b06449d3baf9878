"""Each primitive on tensors is that of the tables and of the oracle; random numbers are good and reproducible."""

import math

import numpy as np
import pytest
import tensorflow as tf

from nos_tf.dsl import equivalence, expression, primitives
from nos_tf.dsl.primitives import BINARY, NUMPY, OPERAND, UNARY, Inputs, RuleConstants
from nos_tf.dsl.rule import UpdateRule
from nos_tf.optimizers import semantics
from nos_tf.optimizers.semantics import KERAS, Draw, Draws
from tests.optimizers import oracle
from tests.rules import BINARIES, OPERANDS, RANDOM, UNARIES, random_rules

CONSTANTS = RuleConstants()
NOISE_NODE = 0  # for good
EDGES = np.array([
    0.0, -0.0, 5e-324, -5e-324, 1e-40, -1e-40, 1e-30, -1e-30, 1e-8, -1e-8, 9e-9, 1e-5, 1e-4, 2e-4, 1e-3, -3e-3, 0.5,
    1.0, -1.0, 3.25, -40.0, 709.0, 1e30, -1e30, 1e200, math.inf, -math.inf, math.nan,
])  # fmt: skip
NORMAL_EDGES = EDGES[(EDGES == 0) | ~(np.abs(EDGES) < 1e-300)]  # kernels may flush a denormal, which times inf is NaN
ELEMENTS = 100_000


def draws_of(elements, seed=7, step=1):
    return Draws(tf.constant(seed), tf.constant(step), tf.range(elements))


def edge_inputs():
    """Every pair of edge values as (g, m), and their permutations as the others."""
    g, m = (array.ravel() for array in np.meshgrid(NORMAL_EDGES, NORMAL_EDGES))
    w, v, gamma = m[::-1].copy(), np.abs(g[::-1]), np.roll(g, 5)
    draws = draws_of(len(g))
    return {'g': g, 'w': w, 'm': m, 'v': v, 'gamma': gamma, 'normal': draws.normal(0, 'float64').numpy()}, draws


def inputs_of(leaves, draw=None):
    """What a rule reads, of arrays or tensors by name."""
    return Inputs(leaves['g'], leaves['w'], {name: leaves[name] for name in ('m', 'v', 'gamma')}, CONSTANTS, draw)


def tensor_inputs(leaves, draws, dtype='float64', node=NOISE_NODE):
    return inputs_of({name: tf.constant(value, dtype) for name, value in leaves.items()}, Draw(draws, node))


def evaluate(tokens, inputs):
    """The value of a rule on tensors, as NOSOptimizer computes it but for its short cuts."""
    tree = expression.from_tokens(tokens)
    return expression.evaluate(tree, KERAS, inputs, inputs.draw.draws.of_nodes(tree))


@pytest.mark.parametrize('token', OPERANDS)
def test_operand(token):
    leaves, draws = edge_inputs()
    with np.errstate(all='ignore'):
        expected = oracle.operand_value(token, leaves)
        defined = OPERAND[token].compute(NUMPY, inputs_of(leaves, equivalence.Draws(leaves['normal'])))
    value = OPERAND[token].compute(KERAS, tensor_inputs(leaves, draws)).numpy()
    np.testing.assert_allclose(value, expected, rtol=1e-14)
    np.testing.assert_allclose(defined, expected, rtol=1e-14)


@pytest.mark.parametrize('token', UNARIES)
def test_unary(token):
    draws, node = draws_of(len(EDGES)), 42
    uniform = draws.bits(node).numpy() / 2**24
    probability = {'drop(0.1)': 0.1, 'drop(0.3)': 0.3, 'drop(0.5)': 0.5}.get(token)
    keep = None if probability is None else uniform >= probability
    with np.errstate(all='ignore'):
        expected = oracle.unary_value(token, EDGES.copy(), keep)
        leaves = dict.fromkeys(('g', 'w', 'm', 'v', 'gamma'), EDGES)
        defined = UNARY[token].compute(NUMPY, inputs_of(leaves, equivalence.Draws(None, uniform)), EDGES)
    value = UNARY[token].compute(KERAS, tensor_inputs(leaves, draws, node=node), tf.constant(EDGES)).numpy()
    np.testing.assert_allclose(value, expected, rtol=1e-14, atol=1e-300)
    np.testing.assert_allclose(defined, expected, rtol=1e-14)
    assert keep is None or 0 < keep.sum() < len(EDGES)


@pytest.mark.parametrize('token', BINARIES)
def test_binary(token):
    leaves, draws = edge_inputs()
    x, y = leaves['g'], leaves['m']
    with np.errstate(all='ignore'):
        expected = oracle.binary_value(token, x, y)
        defined = BINARY[token].compute(NUMPY, inputs_of(leaves), x, y)
    value = BINARY[token].compute(KERAS, tensor_inputs(leaves, draws), tf.constant(x), tf.constant(y)).numpy()
    np.testing.assert_allclose(value, expected, rtol=1e-14)
    np.testing.assert_allclose(defined, expected, rtol=1e-14)


@pytest.mark.parametrize('mode', ['eager', 'graph', 'xla'])
@pytest.mark.parametrize('dtype', ['float16', 'bfloat16', 'float32', 'float64'])
def test_sign_in_every_type_and_mode(dtype, mode):
    function = semantics.sign if mode == 'eager' else tf.function(semantics.sign, jit_compile=mode == 'xla')
    x = tf.constant([0.0, -0.0, 1e-3, -1e-3, 7.0, -7.0, math.inf, -math.inf, math.nan], dtype)
    np.testing.assert_array_equal(tf.cast(function(x), 'float64').numpy(), [0, 0, 1, -1, 1, -1, 1, -1, math.nan])


def test_sign_of_float32_denormals_is_zero_wherever_they_stand():
    x = np.full([37], 1e-39, np.float32)
    np.testing.assert_array_equal(semantics.sign(tf.constant(x)), np.zeros(37))
    np.testing.assert_array_equal(semantics.sign(tf.constant(-x)), np.zeros(37))


def test_running_averages_by_hand():
    gradients = [2.0, -1.0, 0.5]
    expected = {'m': (0.2, 0.08, 0.122), 'v': (0.004, 0.004996, 0.005241004), 'gamma': (0.008, 0.006992, 0.007110008)}
    corrected = {'m': 0.122 / 0.271, 'v': 0.005241004 / 0.002997001, 'gamma': 0.007110008 / 0.002997001}
    for slot, values in expected.items():
        average = tf.constant(0.0, 'float64')
        for gradient, value in zip(gradients, values, strict=True):
            average = semantics.update_average(slot, average, tf.constant(gradient, 'float64'), CONSTANTS)
            np.testing.assert_allclose(average, value, rtol=1e-12)
        correction = semantics.bias_correction(slot, tf.constant(3), CONSTANTS, 'float64')
        np.testing.assert_allclose(average * correction, corrected[slot], rtol=1e-12)


def test_bias_correction_is_exact_in_float32():
    """1 - 0.999^1 in float32 would be wrong by 6e-5."""
    for step, expected in ((1, 1000.0), (2, 1 / 0.001999), (10, 1 / (1 - 0.999**10)), (10**6, 1.0)):
        value = semantics.bias_correction('v', tf.constant(step), CONSTANTS, 'float32')
        np.testing.assert_allclose(value, expected, rtol=2e-7)


def test_each_decay_is_its_own():
    constants = RuleConstants(0.5, 0.25, 0.0)
    one = tf.constant(1.0, 'float64')
    assert [float(semantics.update_average(slot, 2 * one, 3 * one, constants)) for slot in ('m', 'v', 'gamma')] == [
        2.5, 7.25, 27.0,
    ]  # fmt: skip
    corrections = [
        semantics.bias_correction(slot, tf.constant(2), constants, 'float64') for slot in ('m', 'v', 'gamma')
    ]
    np.testing.assert_allclose(corrections, [4 / 3, 16 / 15, 1.0], rtol=1e-12)


def test_canonical_rules_are_bit_identical():
    """300 deterministic rules on random and on awkward numbers, in the type in which children train."""
    random = np.random.default_rng(11)
    leaves = {
        name: random.standard_normal(96) * 10.0 ** random.integers(-6, 2, 96) for name in ('g', 'w', 'm', 'gamma')
    }
    leaves['v'] = random.random(96) * 10.0 ** random.integers(-6, 2, 96)
    awkward = [0.0, -0.0, 1e-30, -1e-39, 1e-3, -1e-4, 1e-5, 1.0, -1.0, 3e38, math.inf, -math.inf, math.nan]
    for values in leaves.values():
        values[: len(awkward)] = random.permutation(awkward)
    leaves['v'] = np.abs(leaves['v'])
    inputs = tensor_inputs(leaves, draws_of(96), 'float32')
    compared = 0
    for tokens in random_rules(600, seed=12, stochastic=False):
        canonical = UpdateRule(tokens).canonical().tokens
        if canonical != tokens:
            np.testing.assert_array_equal(evaluate(canonical, inputs), evaluate(tokens, inputs), str(tokens))
            compared += 1
    assert compared >= 300


def test_evaluate_agrees_with_the_oracle():
    random = np.random.default_rng(13)
    leaves = {name: random.standard_normal(40) for name in ('g', 'w', 'm', 'gamma')}
    leaves['v'] = random.random(40) + 0.1
    draws = draws_of(40)
    leaves['normal'] = draws.normal(0, 'float64').numpy()
    inputs = tensor_inputs(leaves, draws)
    for tokens in random_rules(200, seed=14):
        tokens = UpdateRule(tokens).canonical().tokens
        with np.errstate(all='ignore'):
            expected = oracle.evaluate(tokens, leaves, lambda operand, unary: mask(draws, operand, unary))
        np.testing.assert_allclose(evaluate(tokens, inputs), expected, rtol=1e-9, atol=1e-15)


def mask(draws, operand, unary):
    """The mask of `unary(operand)`, by the ids of its tokens."""
    operand_id = 15 + int(operand[1:]) if operand in ('t1', 't2', 't3') else OPERANDS.index(operand)
    node = 1 + operand_id * len(UNARIES) + UNARIES.index(unary)
    return draws.keep(node, float(unary[5:-1])).numpy()


def test_a_graph_that_is_told_the_rule_computes_what_it_does():
    """`run` picks by ids what `evaluate` knows beforehand; also with ids that leave gaps, as a later version has."""
    random = np.random.default_rng(15)
    leaves = {name: random.standard_normal(40) for name in ('g', 'w', 'm', 'gamma')}
    inputs = tensor_inputs({**leaves, 'v': random.random(40) + 0.1}, draws_of(40))

    @tf.function(autograph=False)
    def run(ids):
        return semantics.run(tf.unstack(ids), inputs, inputs.draw.draws, tf.switch_case)

    for tokens in random_rules(60, seed=16):
        rule = UpdateRule(tokens).canonical()
        found = run(rule.padded_ids(3)).numpy()
        np.testing.assert_allclose(found, evaluate(rule.tokens, inputs), rtol=1e-12, err_msg=str(rule))
    assert [int(semantics._place(tf.constant(id), [0, 1, 5, 64])) for id in (0, 1, 5, 64)] == [0, 1, 2, 3]


# Random numbers. Bounds are five standard errors; everything is seeded, so that a test passes always or never.


@pytest.mark.parametrize('probability', [0.1, 0.3, 0.5])
def test_drop_rate(probability):
    kept = draws_of(ELEMENTS).keep(5, probability).numpy().mean()
    assert abs(kept - (1 - probability)) < 5 * math.sqrt(probability * (1 - probability) / ELEMENTS)


def test_drop_neither_rescales_nor_touches_what_it_keeps():
    x = tf.random.stateless_normal([1000], [1, 2])
    ones = {name: np.ones(1000) for name in ('g', 'w', 'm', 'v', 'gamma')}
    dropped = UNARY['drop(0.3)'].compute(KERAS, tensor_inputs(ones, draws_of(1000), 'float32', node=3), x).numpy()
    kept = dropped != 0
    assert 600 < kept.sum() < 800
    np.testing.assert_array_equal(dropped[kept], x.numpy()[kept])


@pytest.mark.parametrize('dtype', ['float16', 'float32', 'float64'])
def test_noise_is_normal(dtype):
    normal = draws_of(ELEMENTS).normal(0, dtype)
    assert normal.dtype == dtype
    x = normal.numpy().astype('float64')
    root = math.sqrt(ELEMENTS)
    assert abs(x.mean()) < 5 / root
    assert abs(x.var() - 1) < 5 * math.sqrt(2) / root
    assert abs((x**3).mean()) < 5 * math.sqrt(15) / root
    assert abs((x**4).mean() - 3) < 5 * math.sqrt(96) / root
    assert 4 < np.abs(x).max() < 6


def test_noise_has_its_deviation():
    ones = {name: np.ones(ELEMENTS) for name in ('g', 'w', 'm', 'v', 'gamma')}
    noise = OPERAND['noise'].compute(KERAS, tensor_inputs(ones, draws_of(ELEMENTS))).numpy()
    assert noise.std() == pytest.approx(0.01, rel=0.02)


def test_bits_are_uniform():
    bits = draws_of(ELEMENTS).bits(9).numpy()
    assert 0 <= bits.min() < 2000
    assert 2**24 - 2000 < bits.max() < 2**24
    counts = np.bincount(bits >> 16, minlength=256)
    assert ((counts - ELEMENTS / 256) ** 2 / (ELEMENTS / 256)).sum() < 255 + 5 * math.sqrt(2 * 255)
    for bit in range(24):
        assert abs((bits >> bit & 1).mean() - 0.5) < 5 * 0.5 / math.sqrt(ELEMENTS)


def test_draws_are_independent_of_each_other():
    """Between seeds, steps, nodes, and elements near and far: the correlations of numbers that share nothing."""
    some = draws_of(ELEMENTS)
    streams = [
        some.bits(1),
        some.bits(2),
        some.bits(3),
        some.bits(0),
        some.bits(~0),
        draws_of(ELEMENTS, step=2).bits(1),
        draws_of(ELEMENTS, step=3).bits(1),
        draws_of(ELEMENTS, seed=8).bits(1),
        draws_of(ELEMENTS, seed=-7).bits(1),
        draws_of(ELEMENTS, seed=1, step=7).bits(1),  # seed and step do not trade places
        *(np.roll(some.bits(1), lag) for lag in (1, 2, 3, 16, 1024)),
    ]
    correlations = np.corrcoef(np.array(streams, float))
    np.fill_diagonal(correlations, 0)
    assert np.abs(correlations).max() < 5 / math.sqrt(ELEMENTS)


def test_masks_are_fresh_at_each_step():
    steps = np.array([draws_of(1000, step=step).keep(4, 0.5).numpy() for step in range(1, 21)])
    agreement = [(a == b).mean() for i, a in enumerate(steps) for b in steps[:i]]
    assert 0.4 < min(agreement) <= max(agreement) < 0.6
    assert (steps.mean(axis=0) > 0.1).all(), 'some element is dropped at every step'


def test_same_bits_in_every_mode():
    def bits(seed, step):
        return Draws(seed, step, tf.range(1000)).bits(6)

    arguments = tf.constant(-5), tf.constant(12)
    eager = bits(*arguments).numpy()
    np.testing.assert_array_equal(tf.function(bits)(*arguments), eager)
    np.testing.assert_array_equal(tf.function(bits, jit_compile=True)(*arguments), eager)


def test_bits_never_change():
    """What was trained with a seed can be trained again: the hash, written a second time, and some of its values."""
    for seed, step, node in ((0, 1, 1), (-3, 1000, ~0), (2**31 - 1, 7, 200)):
        bits = draws_of(1000, seed, step).bits(node)
        np.testing.assert_array_equal(bits, oracle.random_bits(seed, step, node, 1000))
    assert draws_of(4, seed=99).bits(7).numpy().tolist() == [11871187, 3118438, 16679881, 15040146]


def test_draws_are_those_of_the_oracle():
    draws, expected = draws_of(1000, seed=5, step=3), oracle.draws(5, 1000)
    np.testing.assert_allclose(draws.normal(NOISE_NODE, 'float64'), expected['normal'](3), rtol=1e-12)
    for operand, unary in (('g', 'drop(0.1)'), ('rmsprop', 'drop(0.3)'), ('t2', 'drop(0.5)')):
        np.testing.assert_array_equal(mask(draws, operand, unary), expected['keep'](3, operand, unary))


def test_random_tokens_are_what_the_tests_call_random():
    assert set(RANDOM) == {row.token for row in (*primitives.OPERANDS, *primitives.UNARIES) if row.is_random}
