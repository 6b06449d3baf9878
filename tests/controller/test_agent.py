"""What an agent is given is checked before it learns; uniform choice knows its own probabilities."""

import re

import numpy as np
import pytest

from nos_tf.controller.agent import UniformAgent, checked_batch
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.space import SearchSpace

SPACE = SearchSpace(operands=('g', 'm'), unaries=('x', 'exp'), binaries=('+', '*'))


def test_uniform_choice_knows_the_probability_of_any_legal_rule():
    space = SearchSpace(operands=('g', 'm'), unaries=('x',), binaries=('+', '*'), iterations=2, reuse_temporaries=True)
    agent = UniformAgent(space, 0)
    samples = agent.propose(2000, 0)
    rules = np.unique(samples.choices, axis=0)
    assert len(rules) == space.size
    assert np.exp(agent.log_prob(rules)).sum() == pytest.approx(1)
    np.testing.assert_array_equal(agent.log_prob(samples.choices), samples.log_probs)


@pytest.mark.parametrize(
    'choices, rewards, log_probs, message',
    [
        (np.zeros([2, 4]), [0, 1], [0, 0], r'expected choices \[B, 5\]'),
        (np.zeros([3, 5]), [0, 1], [0, 0], r'not choices \(3, 5\), rewards \(2,\)'),
        (np.zeros([2, 5]), [0, 1], [0], 'expected'),
        (np.zeros([0, 5]), [], [], 'B >= 1'),
    ],
)
def test_what_is_not_a_batch_is_refused(choices, rewards, log_probs, message):
    with pytest.raises(ValueError, match=message):
        checked_batch(SPACE, choices, rewards, log_probs)


@pytest.mark.parametrize(
    'reward, log_prob, message',
    [
        (np.nan, 0, 'the reward of g * exp(m) is nan: must be finite'),
        (np.inf, 0, 'the reward of g * exp(m) is inf: must be finite'),
        (1, -np.inf, 'the log-probability of g * exp(m) is -inf: must be finite'),
    ],
)
def test_the_rule_whose_reward_is_not_finite_is_named(reward, log_prob, message):
    choices = [SPACE.encode(UpdateRule.parse(text)) for text in ('g m x x +', 'g m x exp *', 'm m x x +')]
    with pytest.raises(ValueError, match=f'^{re.escape(message)}'):
        checked_batch(SPACE, np.array(choices), [0.5, reward, 0.5], [-3, log_prob, -3])
