"""Evolution keeps the last rules, lets the best of a few have children, and changes one token of them."""

import numpy as np
import pytest

from nos_tf.controller.evolution import EvolutionAgent
from nos_tf.dsl.space import SearchSpace

SPACE = SearchSpace(distinct_operands=True, iterations=2, no_final_addition=True, reuse_temporaries=True)


def filled(population=20, tournament=5, space=SPACE, rewards=None, **settings):
    """An agent whose population is complete, and its rules."""
    agent = EvolutionAgent(space, 0, population=population, tournament=tournament, **settings)
    choices, log_probs = agent.propose(population, 0)
    agent.update(choices, np.linspace(0, 1, population) if rewards is None else rewards, log_probs)
    return agent, choices


def test_the_first_rules_are_uniform_and_the_rest_descend():
    agent = EvolutionAgent(SPACE, 0, population=8, tournament=8)
    first, log_probs = agent.propose(7, 0)
    assert np.exp(-log_probs.mean()) == pytest.approx(SPACE.size, rel=0.5)
    agent.update(first, np.zeros(7), log_probs)
    assert agent.propose(7, 1).log_probs.mean() < -15  # still uniform: one is missing
    agent.update(first[:1], np.zeros(1), log_probs[:1])
    assert agent.propose(7, 2).log_probs.mean() > -10


def test_children_differ_from_a_parent_by_one_token_and_what_that_made_illegal():
    agent, parents = filled()
    children, _ = agent.propose(2000, 1)
    differences = (children[:, None] != parents).sum(axis=2).min(axis=1)
    assert set(differences) <= {1, 2}
    assert (differences == 1).mean() > 0.8
    for child in children[:300]:
        assert SPACE.encode(SPACE.rule(child)) == tuple(child)  # legal
    assert len({tuple(child) for child in children}) > 200


def test_every_token_changes_as_often():
    agent, parents = filled(population=1, space=SearchSpace(iterations=2))
    children, _ = agent.propose(4000, 1)
    only = (children != parents[0]).sum(axis=1) == 1
    changed = (children[only] != parents[0]).mean(axis=0)
    assert (changed > 0.03).all()


def test_the_best_of_a_tournament_is_the_parent():
    agent, parents = filled(population=10, tournament=200)
    children, _ = agent.propose(100, 1)
    assert ((children != parents[-1]).sum(axis=1) <= 2).all()
    drawn, parents = filled(population=10, tournament=1)
    children, _ = drawn.propose(300, 1)
    nearest = (children[:, None] != parents).sum(axis=2).argmin(axis=1)
    assert (np.bincount(nearest, minlength=10) > 10).all()


def test_the_oldest_leaves_however_good_it_was():
    agent, first = filled(population=5, tournament=100, rewards=np.array([9.0, 0, 0, 0, 0]))
    later = np.roll(first, 1, axis=0)
    agent.update(later[:1], np.array([1.0]), np.zeros(1))
    assert agent.state()['rewards'].tolist() == [1, 0, 0, 0, 0]
    np.testing.assert_array_equal(agent.state()['choices'][0], later[0])


def test_log_probabilities_are_those_of_the_mutation():
    space = SearchSpace(operands=('g', 'm'), unaries=('x',), binaries=('+', '*', '-'))
    agent, _ = filled(population=1, space=space)
    children, log_probs = agent.propose(4000, 1)
    rules, counts = np.unique(children, axis=0, return_counts=True)
    by_rule = {tuple(c): p for c, p in zip(children, np.exp(log_probs), strict=True)}
    for rule, count in zip(rules, counts, strict=True):
        assert count / 4000 == pytest.approx(by_rule[tuple(rule)], abs=0.03)


def test_a_child_drifts_until_its_update_is_another():
    space = SearchSpace(operands=('g', 'm', 'adam'), unaries=('x', '-x'), binaries=('+', 'left'), iterations=2)
    drifting, parents = filled(population=1, space=space, drift=True)
    plain, _ = filled(population=1, space=space)

    def does_something(agent):
        children, _ = agent.propose(200, 1)
        own = space.rule(parents[0]).direction()[0]
        return np.mean([space.rule(child).direction()[0] != own for child in children])

    assert does_something(plain) < 0.9 and does_something(drifting) > 0.99


def test_two_parents_lend_one_child_their_beginning_and_end():
    agent, parents = filled(population=2, tournament=1, crossover=1.0, space=SearchSpace(iterations=2))
    children, _ = agent.propose(500, 1)
    assert not (parents[0] == parents[1]).any()
    from_first = children == parents[0]
    mixed = from_first.any(1) & (children == parents[1]).any(1)
    assert mixed.mean() > 0.3
    changes = np.abs(np.diff(from_first[mixed].astype(int), axis=1)).sum(1)
    assert np.mean(changes <= 3) == 1.0  # one seam, and one mutation beside it


def test_crossing_keeps_to_what_is_legal():
    agent, _ = filled(crossover=1.0)
    for child in agent.propose(300, 1).choices:
        assert SPACE.encode(SPACE.rule(child)) == tuple(child)


def test_a_space_of_one_rule():
    agent, rules = filled(space=SearchSpace(operands=('g',), unaries=('x',), binaries=('left',)))
    np.testing.assert_array_equal(agent.propose(3, 1).choices, rules[:3])


def test_a_state_of_another_population_is_refused():
    agent, _ = filled()
    with pytest.raises(ValueError, match='another learner or space'):
        agent.restore(filled(population=19)[0].state())
