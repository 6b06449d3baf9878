"""Given rules come first, once each, and what learns from them is the learner itself."""

from pathlib import Path

import gin
import numpy as np
import pytest

import nos_tf.search.search  # noqa: F401 (gin then knows SearchSpace)
from nos_tf.controller.learners import Evolution, Reinforce, WarmStart
from nos_tf.controller.warm_start import WarmAgent
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.space import SearchSpace

SPACE = SearchSpace()
RULES = ('sgd', 'adam', 'powersign', 'm * exp(v)')


def proposed(learner, space, batches, batch=3):
    """Rules and log-probabilities of each batch, with made-up rewards."""
    seen = []
    for iteration in range(batches):
        choices, log_probs = learner.propose(batch, iteration)
        learner.update(choices, choices.mean(axis=1), log_probs)
        seen.append(([space.rule(rule) for rule in choices], log_probs))
    return seen


@pytest.mark.parametrize(
    'space',
    [
        SPACE,
        SearchSpace(iterations=2, distinct_operands=True, no_final_addition=True, reuse_temporaries=True),
    ],
)
def test_given_rules_come_first_and_once(space):
    learner = WarmStart(learner=Evolution(population=5), rules=RULES).start(space, 0)
    assert isinstance(learner, WarmAgent)
    batches = proposed(learner, space, 4)
    rules = [rule.canonical() for batch, _ in batches for rule in batch]
    expected = [rule for rule in map(UpdateRule.parse, RULES) if rule.iterations <= space.iterations]
    assert rules[: len(expected)] == [rule.canonical() for rule in expected]
    assert len(expected) >= 3
    assert not set(rules[: len(expected)]) <= set(rules[len(expected) :])
    assert batches[0][1] == pytest.approx([-np.log(space.size)] * 3, rel=0.1)


@pytest.mark.parametrize(('file', 'spelled'), [('space_1.gin', 4), ('space_2.gin', 1), ('space_3.gin', 0)])
def test_the_usual_rules_in_the_spaces_at_hand(file, spelled):
    """Spaces without `left` spell no rule that is shorter than they are."""
    gin.add_config_file_search_path(str(Path(__file__).parents[2]))
    try:
        gin.parse_config_files_and_bindings([f'gin/{file}'], [])
        space = gin.get_configurable('SearchSpace')()
    finally:
        gin.clear_config()
    warm = WarmStart(learner=Evolution())
    if not spelled:
        with pytest.raises(ValueError, match='WarmStart.rules: the space can spell none of'):
            warm.start(space, 0)
        return
    agent = warm.start(space, 0)
    rules = [space.rule(choices).canonical() for choices in agent._choices]
    assert len(rules) == spelled
    assert set(rules) <= {UpdateRule.parse(name).canonical() for name in warm.rules}


def test_a_left_in_any_iteration_reads_what_the_space_allows():
    space = SearchSpace(iterations=3, distinct_operands=True, reuse_temporaries=True)
    agent = WarmStart(learner=Evolution(), rules='powersign').start(space, 0)
    (choices,) = agent._choices
    assert space.rule(choices).canonical() == UpdateRule.parse('powersign').canonical()


def test_rules_that_the_space_cannot_spell_are_left_out():
    space = SearchSpace(operands=('g', 'm'), unaries=('x', 'exp'))
    learner = WarmStart(learner=Evolution(population=5), rules=('adam', 'm * exp(g)', 'powersign')).start(space, 0)
    ((rules, _),) = proposed(learner, space, 1)
    assert rules[0].canonical() == UpdateRule.parse('m * exp(g)').canonical()
    assert len(rules) == 3


def test_the_learner_learns_from_them():
    learner = WarmStart(learner=Reinforce(units=4, learning_rate=0.05), rules=['adam', 'sgd']).start(SPACE, 0)
    before = learner.state()
    choices, log_probs = learner.propose(2, 0)
    learner.update(choices, np.array([1.0, 0.0]), log_probs)
    policy = learner._agent.policy
    after = policy.log_prob(choices).numpy()
    learner.restore(before)
    assert after[0] - after[1] > np.subtract(*policy.log_prob(choices).numpy())


def test_it_continues_where_it_was():
    make = WarmStart(learner=Evolution(population=4), rules=RULES)
    learner = make.start(SPACE, 0)
    proposed(learner, SPACE, 1)
    other = make.start(SPACE, 0)
    other.restore(learner.state())
    for iteration in (1, 2):
        assert other.propose(3, iteration).choices.tobytes() == learner.propose(3, iteration).choices.tobytes()
    with pytest.raises(ValueError, match='no given rules'):
        other.restore(learner._agent.state())


def test_mistakes_are_named():
    with pytest.raises(ValueError, match='WarmStart.learner = .*: write @Name'):
        WarmStart(learner=Evolution)
    with pytest.raises(ValueError, match="WarmStart.rules has 'adamm'"):
        WarmStart(learner=Evolution(), rules=['adamm'])
    assert WarmStart(learner=Evolution(batch_size=7)).batch_size == 7
