"""The policy writes legal rules only, with the probabilities it says, and every derivative of it is finite."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from nos_tf.controller import policy as policies
from nos_tf.controller import trpo
from nos_tf.controller.policy import Policy
from nos_tf.dsl.space import SearchSpace

CONSTRAINTS = ('distinct_operands', 'no_final_addition', 'reuse_temporaries')
COMBINATIONS = [
    dict(zip(CONSTRAINTS, switches, strict=True)) for switches in itertools.product([False, True], repeat=3)
]


def small_space(iterations=1, **constraints):
    return SearchSpace(
        operands=('g', 'm'), unaries=('x', 'sign'), binaries=('+', '*'), iterations=iterations, **constraints
    )


def decided_policy(space, seed=0, units=4, dtype='float64'):
    """A policy with weights 25 times as large, so that its choices are far from uniform."""
    policy = Policy(space, seed=seed, units=units, dtype=dtype)
    for variable in policy.trainable_variables:
        variable.assign(variable * 25)
    return policy


def all_strings(space):
    return np.array(list(itertools.product(*(range(len(bank)) for bank in space.choices))), np.int32)


def is_legal(tokens, distinct_operands, no_final_addition, reuse_temporaries):
    """The constraints of Section 4.1, read off the tokens."""
    groups = [tokens[i : i + 5] for i in range(0, len(tokens), 5)]
    repeats = any(op1 == op2 for op1, op2, *_ in groups)
    forgets = any(not {'t1', 't2'} & {op1, op2} for op1, op2, *_ in groups[1:])
    return not (
        (distinct_operands and repeats) or (no_final_addition and tokens[-1] == '+') or (reuse_temporaries and forgets)
    )


@pytest.fixture
def eagerly():
    """Runs without tracing, which costs more than it saves for a graph that is used once."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize('constraints', COMBINATIONS)
def test_probability_is_one_over_the_legal_strings_and_zero_elsewhere(constraints, eagerly):
    space = small_space(2, **constraints)
    strings = all_strings(space)
    legal = np.array([is_legal([b[i] for b, i in zip(space.choices, s, strict=True)], **constraints) for s in strings])
    probabilities = np.exp(decided_policy(space).log_prob(strings))
    assert legal.sum() == space.size
    assert probabilities[legal].sum() == pytest.approx(1, abs=1e-12)
    assert (probabilities[legal] > 0).all()
    assert (probabilities[~legal] == 0).all()


@pytest.mark.parametrize(
    'iterations, constraints',
    [
        (iterations, constraints)
        for iterations, constraints in itertools.product([1, 2, 3], COMBINATIONS)
        if iterations > 1 or not constraints['reuse_temporaries']  # there is nothing to reuse in the first iteration
    ],
)
def test_ten_thousand_samples_are_legal_and_know_their_probability(iterations, constraints, eagerly):
    space = small_space(iterations, **constraints)
    policy = decided_policy(space, dtype='float32')
    choices, log_probs = policy.sample(tf.constant(10_000), tf.constant([1, 2]))
    rules = {tuple(row) for row in choices.numpy().tolist()}
    assert len(rules) > min(20, space.size // 2)
    assert all(is_legal([b[i] for b, i in zip(space.choices, r, strict=True)], **constraints) for r in rules)
    np.testing.assert_allclose(log_probs[:500], policy.log_prob(choices[:500]), rtol=1e-5, atol=1e-5)


def test_samples_follow_the_probabilities():
    space = small_space()
    policy = decided_policy(space)
    strings = all_strings(space)
    expected = np.exp(policy.log_prob(strings))
    choices, _ = policy.sample(20_000, np.array([7, -3], np.int32))
    drawn = np.ravel_multi_index(choices.numpy().T, [len(bank) for bank in space.choices])
    frequency = np.bincount(drawn, minlength=len(strings)) / len(drawn)
    deviations = (frequency - expected) / np.sqrt(expected * (1 - expected) / len(drawn))
    assert expected.max() > 5 / len(strings)
    assert np.abs(deviations).max() < 4.5


def test_logits_are_those_of_an_lstm_that_reads_the_choices():
    space = small_space(distinct_operands=True)
    policy = decided_policy(space)
    strings = all_strings(space)
    W, U, b = (x.numpy() for x in policy.cell.trainable_variables)

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    x = h = c = np.zeros([len(strings), 4])
    logits = policy.logits(strings).numpy()
    for step, head in enumerate(policy.heads):
        i, f, candidate, o = np.split(x @ W + h @ U + b, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(candidate)
        h = sigmoid(o) * np.tanh(c)
        expected = h @ head.kernel.numpy() + head.bias.numpy()
        if step == 1:
            expected[np.arange(len(strings)), strings[:, 0]] = policies.FORBIDDEN
        np.testing.assert_allclose(logits[:, step], expected, rtol=1e-12)
        if step < 4:
            x = policy.embeddings[step].embeddings.numpy()[strings[:, step]]


def test_entropy_and_kl_average_to_those_of_the_distribution_over_rules():
    space = small_space(distinct_operands=True)
    old, new = decided_policy(space, seed=0), decided_policy(space, seed=1)
    strings = np.array([s for s in all_strings(space) if s[0] != s[1]])
    log_p, log_q = old.log_prob(strings).numpy(), new.log_prob(strings).numpy()
    old_logits, new_logits = old.logits(strings), new.logits(strings)
    entropies = [policies.entropy(row[None]) for row in old_logits]
    kls = [policies.kl_divergence(p[None], q[None]) for p, q in zip(old_logits, new_logits, strict=True)]
    p = np.exp(log_p)
    assert p @ entropies == pytest.approx(-p @ log_p, rel=1e-12)
    assert p @ kls == pytest.approx(p @ (log_p - log_q), rel=1e-12)
    assert old.entropy(strings).numpy() == pytest.approx(np.mean(entropies), rel=1e-12)
    assert new.kl(strings, old_logits).numpy() == pytest.approx(np.mean(kls), rel=1e-12)
    assert old.kl(strings, old_logits).numpy() == 0


@pytest.mark.parametrize('dtype', ['float32', 'float64'])
def test_derivatives_behind_masks_are_finite(dtype):
    space = small_space(distinct_operands=True, no_final_addition=True)
    policy = decided_policy(space, dtype=dtype)
    strings = np.array([s for s in all_strings(space) if s[0] != s[1] and s[4] == 1])
    shapes = [v.shape for v in policy.trainable_variables]
    theta = trpo.flatten(policy.trainable_variables)
    old = policy.logits(strings) + 0.1

    def functions(theta):
        logits = policy.logits_at(trpo.unflatten(theta, shapes), strings)
        log_probs = tf.reduce_sum(policies.log_prob(logits, strings))
        return log_probs, policies.entropy(logits), policies.kl_divergence(old, logits)

    for index in range(3):
        with tf.GradientTape() as outer:
            outer.watch(theta)
            with tf.GradientTape() as inner:
                inner.watch(theta)
                value = functions(theta)[index]
            first = inner.gradient(value, theta)
            product = tf.reduce_sum(first * tf.cos(tf.range(len(theta), dtype=dtype)))
        second = outer.gradient(product, theta)
        for derivative in (value, first, second):
            assert np.isfinite(derivative).all()
        assert np.abs(second).max() > 0


def test_initial_weights_are_uniform_seeded_and_all_different():
    space = small_space()
    weights = [v.numpy() for v in Policy(space, seed=3, units=150).trainable_variables]
    again = [v.numpy() for v in Policy(space, seed=3, units=150).trainable_variables]
    other = [v.numpy() for v in Policy(space, seed=4, units=150).trainable_variables]
    assert all(a.tobytes() == b.tobytes() for a, b in zip(weights, again, strict=True))
    assert not any((a == b).mean() > 0.01 for a, b in zip(weights, other, strict=True))
    everything = np.concatenate([w.ravel() for w in weights])
    assert len(everything) == 2 * 150 * 600 + 600 + 5 * (150 * 2 + 2) + 4 * 2 * 150
    assert len(np.unique(everything)) > 0.95 * len(everything)  # float32 draws collide now and then
    assert -0.08 <= everything.min() < -0.0799
    assert 0.0799 < everything.max() <= 0.08
    bias = weights[2]
    assert bias.shape == (600,)
    assert np.abs(bias).max() <= 0.08
    assert everything.std() == pytest.approx(0.08 / np.sqrt(3), rel=0.01)


def test_samples_are_a_function_of_weights_and_seed_and_trace_once():
    policy = Policy(small_space(), units=4)
    first, first_log_probs = policy.sample(50, np.array([1, 2], np.int32))
    again, again_log_probs = policy.sample(tf.constant(50), tf.constant([1, 2]))
    other, _ = policy.sample(tf.constant(50), tf.constant([2, 2]))
    policy.sample(tf.constant(3), tf.constant([2, 2]))
    assert first.dtype == tf.int32
    assert first.shape == (50, 5)
    assert (first.numpy() == again.numpy()).all()
    assert first_log_probs.numpy().tobytes() == again_log_probs.numpy().tobytes()
    assert (first.numpy() != other.numpy()).mean() > 0.3
    assert policy.sample.experimental_get_tracing_count() == 1
