"""The studies of rewards and learners, on figures that are made up."""

import sys
from pathlib import Path

import numpy as np
import pytest

from nos_tf.controller.learners import Evolution, RandomSearch
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.space import SearchSpace
from nos_tf.tasks.child import Child, Outcome

sys.path.append(str(Path(__file__).parents[2] / 'benchmarks'))

import learner_study
import outcomes
import reward_tables


def test_a_hopeless_rule_has_the_mean_so_far_and_takes_the_seconds_so_far():
    gains = np.array([[1.0, -2.5, -1.9], [0.0, 3.0, -3.0], [-1.0, 3.0, 3.0]])
    assert reward_tables.suite_reward(gains).tolist() == [0.0, -2.5, -2.45]
    assert reward_tables.spent(gains, np.array([[1.0] * 3, [10.0] * 3, [100.0] * 3])) == pytest.approx(
        (111 + 1 + 11) / 3
    )


def test_gains_are_in_units_of_the_spread_of_the_panel():
    logs = np.array([[0.0, 0.2, -0.4, 5.0, -9.0], [1.0, 1.2, 0.6, 6.0, -8.0]])
    gains = reward_tables.gains_of(logs, logs[:, [0]], [0, 1, 2])
    spread = np.std([0.0, 0.2, -0.4], ddof=1)
    assert gains[0] == pytest.approx([0.0, 0.2 / spread, -0.4 / spread, 5 / spread, -3.0])
    np.testing.assert_allclose(gains[1], gains[0])


def test_a_reward_that_is_the_held_out_gain_cannot_be_beaten_and_noise_can():
    random = np.random.default_rng(0)
    gains = random.standard_normal(60)
    better = gains > 0
    truth = reward_tables.judge(gains[None] * 3 + 7, gains[None], better, 1.0)
    noise = reward_tables.judge(random.standard_normal((3, 60)), gains[None], better, 1.0)
    assert truth.first == pytest.approx(np.sort(gains)[-5:].mean()) and truth.spearman == pytest.approx(1.0)
    assert noise.first < 0.6 * truth.first and abs(noise.spearman) < 0.4
    low, high = np.percentile(truth.drawn, [2.5, 97.5])
    assert low < truth.first < high
    rows = reward_tables.table({'paper': noise, 'truth': truth}, 'paper')
    assert rows[0][2] == '' and rows[1][2].startswith(f'{truth.first - noise.first:+.2f} (+')


def test_halves_of_the_held_out_seeds_judge_each_other():
    random = np.random.default_rng(0)
    worth = random.standard_normal(60)
    ceilings = [
        reward_tables.halves(worth + noise * random.standard_normal((4, 60)), worth > 0).spearman for noise in (0.1, 2)
    ]
    assert 0.9 < ceilings[0] <= 1.0 and ceilings[1] < 0.6


def test_random_rules_differ_by_more_than_a_factor_and_may_train():
    space, child = SearchSpace(iterations=1, language=2), Child(refine=True)
    rules = outcomes.random_rules(space, child, 50, 0)
    assert len({child.form_of(rule)[0] for rule in rules}) == 50
    assert rules == outcomes.random_rules(space, child, 50, 0) != outcomes.random_rules(space, child, 50, 1)


class World(learner_study.World):
    """Rewards by the share of tokens that are those of a rule."""

    def __init__(self):
        self.space = SearchSpace(operands=('g', 'm', 'adam'), unaries=('x', 'sign', 'exp'), binaries=('+', '*'))
        self.wanted = set(learner_study.CHILD.form_of(UpdateRule.parse('sign(adam) * exp(g)'))[0].tokens)
        self.asked: list[UpdateRule] = []

    def worth(self, form):
        return len(self.wanted & set(form.tokens)) / len(self.wanted)

    def outcomes(self, forms):
        self.asked += forms
        return [Outcome(self.worth(form), 0.1, (self.worth(form),), 1.0) for form in forms]

    def margin(self, form):
        return self.worth(form) - 1.0


@pytest.mark.parametrize('learner', [Evolution(batch_size=4, population=20), RandomSearch(batch_size=4)], ids=repr)
def test_a_learner_plays_until_its_incumbent_is_good_enough(learner):
    rows = list(learner_study.play(world := World(), learner, 0))
    assert [float(row['margin']) >= 0 for row in rows] == [False] * (len(rows) - 1) + [True]
    assert rows[-1]['trained'] == len(set(world.asked)) <= rows[-1]['sampled'] == 4 * len(rows) > 8
    again = list(learner_study.play(World(), learner, 0))
    assert again == rows


def test_who_is_not_done_counts_as_done_at_the_end():
    rows = [{'trained': '3010', 'is_done': 'True'}, {'trained': '40', 'is_done': 'True'}]
    assert [learner_study.trained_until_done(row) for row in rows] == [3000, 40]
    assert learner_study.trained_until_done({'trained': '9', 'is_done': 'False'}) == 3000
    fast, slow, never = np.full(5, 100.0), np.full(5, 400.0), np.full(5, 3000.0)
    assert learner_study.ratio(fast, slow) == '0.25 (0.25 to 0.25)'
    assert learner_study.ratio(fast, never) == '< 0.03 (0.03 to 0.03)'
    assert learner_study.ratio(never, fast).startswith('> 30.00') and not learner_study.ratio(never, never)


def test_one_that_never_is_ends(monkeypatch):
    monkeypatch.setattr(learner_study, 'MOST', 30)
    monkeypatch.setattr(World, 'margin', lambda *_: -1.0)
    rows = list(learner_study.play(World(), RandomSearch(batch_size=4), 0))
    assert 30 <= rows[-1]['trained'] < 34 and float(rows[-1]['margin']) < 0
    monkeypatch.setattr(learner_study, 'MOST_SAMPLED', 12)
    assert len(list(learner_study.play(World(), RandomSearch(batch_size=4), 0))) == 3
