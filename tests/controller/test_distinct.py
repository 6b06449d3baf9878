"""A distinct learner proposes no update twice, as long as its agent has others."""

import numpy as np
import pytest

from nos_tf.controller.distinct import DistinctAgent
from nos_tf.controller.learners import Distinct, Evolution, RandomSearch
from nos_tf.dsl.space import SearchSpace

SMALL = SearchSpace(operands=('g', 'm', 'adam'), unaries=('x', '-x', 'sign'), binaries=('+', '*', 'left'))


def updates(agent, batches, count=5):
    """What was proposed in some batches, as updates; all rewards are alike."""
    found = []
    for iteration in range(batches):
        choices, log_probs = agent.propose(count, iteration)
        agent.update(choices, np.zeros(count), log_probs)
        found += [SMALL.rule(choice).direction()[0] for choice in choices]
    return found


@pytest.mark.parametrize('learner', [RandomSearch(), Evolution(population=10, tournament=3)], ids=repr)
def test_no_update_is_proposed_twice(learner):
    plain, distinct = (updates(each.start(SMALL, 0), 8) for each in (learner, Distinct(learner=learner)))
    assert len(set(plain)) < len(set(distinct)) == len(distinct) == 40


def test_a_batch_is_filled_where_nothing_is_new():
    space = SearchSpace(operands=('g', 'm'), unaries=('x',), binaries=('left',))
    agent = Distinct(learner=RandomSearch()).start(space, 0)
    for iteration in range(3):
        choices, log_probs = agent.propose(5, iteration)
        assert len(choices) == len(log_probs) == 5
        metrics = agent.update(choices, np.zeros(5), log_probs)
    assert metrics['new'] == 0.0


def test_log_probabilities_stay_with_their_rules():
    agent = Distinct(learner=RandomSearch()).start(SMALL, 0)
    first = agent.propose(5, 0)
    agent.update(first.choices, np.zeros(5), first.log_probs)
    choices, log_probs = agent.propose(5, 1)
    np.testing.assert_array_equal(log_probs, agent._agent.log_prob(choices))


def test_rewards_that_are_looked_at_again_reach_the_agent():
    agent = Distinct(learner=Evolution(population=4)).start(SMALL, 0)
    choices, log_probs = agent.propose(4, 0)
    agent.update(choices, np.zeros(4), log_probs)
    agent.revise(lambda rule: 2.0)
    assert agent.state()['rewards'].tolist() == [2.0] * 4
    Distinct(learner=RandomSearch()).start(SMALL, 0).revise(lambda rule: 2.0)  # which does not look again


def test_what_is_no_learner_is_refused():
    with pytest.raises(ValueError, match=r'^Distinct.learner = .*: write @Name\(\)'):
        Distinct(learner=Evolution)
    with pytest.raises(ValueError, match='and nothing seen'):
        Distinct(learner=RandomSearch()).start(SMALL, 0).restore({})
    assert isinstance(Distinct(learner=RandomSearch()).start(SMALL, 0), DistinctAgent)
