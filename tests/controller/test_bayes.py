"""Bayesian optimisation over what rules do: it tries what is new and promising, and remembers what it should."""

import numpy as np
import pytest
from sklearn.gaussian_process.kernels import Matern, WhiteKernel

from nos_tf.controller.agent import UniformAgent
from nos_tf.controller.bayes import KERNEL, BayesianAgent
from nos_tf.dsl.embedding import embedding
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.space import SearchSpace

SPACE = SearchSpace()
TWO = SearchSpace(distinct_operands=True, iterations=2, no_final_addition=True, reuse_temporaries=True)
GOAL = embedding(UpdateRule.parse('sign(m) + clip(1e-1*w, 1e-3)'))


def likeness(space, choices):
    """A landscape: how much a rule is like the goal in what it does, from 0 to 1."""
    return np.array([abs(embedding(space.rule(rule)) @ GOAL) / len(GOAL) for rule in choices])


def agent(space=SPACE, **changes):
    return BayesianAgent(space, 0, **{'initial': 10, 'candidates': 60, 'parents': 3, 'memory': 200, **changes})


def trained(learner, batches, space=SPACE, batch=5):
    """The rewards of each batch."""
    rewards = []
    for iteration in range(batches):
        choices, log_probs = learner.propose(batch, iteration)
        rewards.append(likeness(space, choices))
        learner.update(choices, rewards[-1], log_probs)
    return np.array(rewards)


@pytest.mark.parametrize('space', [SPACE, TWO])
def test_it_finds_in_a_hundred_samples_what_random_search_does_not_in_a_thousand(space):
    rewards = trained(agent(space), 20, space)
    random = likeness(space, UniformAgent(space, 1).propose(1000, 0).choices)
    assert rewards.max() > random.max() - 1e-5
    assert rewards[10:].mean() > random.mean() + 3 * random.std() / np.sqrt(50)


def test_the_first_rules_are_uniform():
    learner, uniform = agent(initial=10), UniformAgent(SPACE, 0)
    for iteration in (0, 1):
        choices, log_probs = learner.propose(5, iteration)
        assert set(map(tuple, choices)) <= set(map(tuple, uniform.propose(60, iteration).choices))
        learner.update(choices, likeness(SPACE, choices), log_probs)
    later = learner.propose(5, 2).choices
    assert not set(map(tuple, later)) <= set(map(tuple, uniform.propose(60, 2).choices))


def test_no_function_is_tried_twice():
    learner = agent(initial=5)
    trained(learner, 1)
    before = learner.state()['choices']
    later = [learner.propose(5, iteration).choices for iteration in range(1, 4)]
    for proposed in later:
        points = [embedding(SPACE.rule(rule)).tobytes() for rule in np.concatenate([before, proposed])]
        assert len(set(points[len(before) :])) == 5
        assert not set(points[: len(before)]) & set(points[len(before) :])


def test_a_space_that_is_exhausted_goes_on():
    space = SearchSpace(operands=('g', 'm'), unaries=('x',), binaries=('+', 'left'))
    learner = agent(space, initial=3)
    trained(learner, 4, space)
    choices, log_probs = learner.propose(5, 9)
    assert choices.shape == (5, 5)
    assert np.exp(log_probs) == pytest.approx([1 / 8] * 5)


def test_probabilities_are_those_of_uniform_tokens():
    learner = agent(TWO, initial=5)
    trained(learner, 2, TWO)
    choices, log_probs = learner.propose(5, 2)
    np.testing.assert_array_equal(log_probs, UniformAgent(TWO, 9).log_prob(choices))


def test_rewards_that_are_all_equal():
    learner = agent(initial=5)
    for iteration in range(3):
        choices, log_probs = learner.propose(5, iteration)
        learner.update(choices, np.full(5, 0.1), log_probs)
    assert len(learner.propose(5, 3).choices) == 5


def test_it_remembers_the_best_and_the_last():
    learner = agent(memory=10)
    choices, log_probs = UniformAgent(SPACE, 0).propose(30, 0)
    rewards = np.arange(30) % 17 / 17
    learner.update(choices, rewards, log_probs)
    known = learner._remembered()
    assert sorted(known[5:]) == [25, 26, 27, 28, 29]
    assert set(known[:5]) == {16, 15, 14, 13, 12}


@pytest.mark.parametrize('memory', [200, 30])
def test_the_kernel_depends_on_no_more_than_the_rules(memory):
    """A learner that was restored fits at once what another fitted step by step, also when it forgets."""
    steady, restored = agent(initial=5, memory=memory), agent(initial=5, memory=memory)
    trained(steady, 9)
    restored.restore(steady.state())
    expected = steady.propose(5, 9)
    assert restored.propose(5, 9).choices.tobytes() == expected.choices.tobytes()
    assert restored._kernel == steady._kernel != KERNEL


def test_what_is_drawn_is_the_function_without_the_noise_of_rewards():
    learner = agent(initial=5)
    choices, log_probs = UniformAgent(SPACE, 0).propose(40, 0)
    noise = np.random.default_rng(0).normal(size=40)
    learner.update(choices, likeness(SPACE, choices) + noise, log_probs)
    learner._kernel, learner._fitted = Matern(16.0, nu=1.5) + WhiteKernel(0.5), 40
    _, covariance = learner._model().predict(learner._points, return_cov=True)
    assert np.diag(covariance).max() < 0.5 * learner._rewards.var()


def test_a_state_of_another_space_is_refused():
    learner = agent(TWO)
    trained(learner, 1, TWO)
    with pytest.raises(ValueError, match='another learner or space'):
        agent().restore(learner.state())
    with pytest.raises(ValueError, match='another learner or space'):
        agent().restore({})
