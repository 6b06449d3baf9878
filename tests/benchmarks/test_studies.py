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


GOOD = frozenset(learner_study.CHILD.form_of(UpdateRule.parse('sign(adam) * exp(g)'))[0].tokens)


class Known:
    """A queue: the reward of a rule is the share of its tokens that are those of a good one."""

    running = 0

    def __init__(self):
        self.trained = set()

    def put(self, job):
        self.trained.add(job)

    def shared(self, rule):
        return learner_study.CHILD.form_of(rule)[0]

    def known(self, job):
        worth = len(GOOD & set(self.shared(job.program).tokens)) / len(GOOD)
        return Outcome(worth, 0.1, (worth,), 1.0)

    def train(self, jobs, _):
        self.trained |= set(jobs)
        return {job: self.known(job) for job in jobs}


SPACE = SearchSpace(operands=('g', 'm', 'adam'), unaries=('x', 'sign', 'exp'), binaries=('+', '*'))


@pytest.fixture(autouse=True)
def hard(monkeypatch):
    """The bar is the good rule itself."""
    monkeypatch.setattr(learner_study, 'KNOWN', UpdateRule.parse('sign(adam) * exp(g)'))
    monkeypatch.setattr(learner_study, 'MARGIN', 0.0)
    monkeypatch.setattr(learner_study, 'ENOUGH', 9)


def played(learner):
    """A search by a learner: its rows, and its queue."""
    queue = Known()
    return list(learner_study.play(learner_study.World(queue, SPACE), learner, 0)), queue


@pytest.mark.parametrize('learner', [Evolution(batch_size=4, population=20), RandomSearch(batch_size=4)], ids=repr)
def test_a_learner_plays_until_its_incumbent_is_good_enough(learner):
    rows, queue = played(learner)
    enough = [float(row['margin']) >= 0 and row['trained'] >= 9 for row in rows]
    assert enough == [row['is_last'] for row in rows] == [False] * (len(rows) - 1) + [True]
    own = {(queue.shared(job.program), job.seed) for job in queue.trained if job.seed not in learner_study.FRESH}
    assert rows[-1]['trained'] == len(own) and rows[-1]['sampled'] == 4 * len(rows) > 8
    assert played(learner)[0] == rows


def test_who_is_not_there_counts_as_there_at_the_end():
    rows = [{'trained': '40', 'margin': '-0.1'}, {'trained': '60', 'margin': '0.3'}, {'trained': '70', 'margin': '-1'}]
    assert [learner_study.trained_until(rows, bar, 3000) for bar in (-0.2, 0.0, 1.0)] == [40, 60, 3000]
    assert learner_study.told([rows, rows], 50) == '+0.30 ± 0.00'
    fast, slow, never = np.full(5, 100.0), np.full(5, 400.0), np.full(5, 3000.0)
    assert learner_study.ratio(fast, slow, 3000) == '0.25 (0.25 to 0.25)'
    assert learner_study.ratio(fast, never, 3000) == '< 0.03 (0.03 to 0.03)'
    assert learner_study.ratio(never, fast, 3000).startswith('> 30.00')
    assert not learner_study.ratio(never, never, 3000)


def test_one_that_is_never_there_ends(monkeypatch):
    monkeypatch.setattr(learner_study, 'MARGIN', -1.0)  # a bar that no rule is over
    monkeypatch.setattr(learner_study, 'MOST', 30)
    rows, _ = played(RandomSearch(batch_size=4))
    assert rows[-1]['trained'] >= 30 and float(rows[-1]['margin']) < 0
    monkeypatch.setattr(learner_study, 'MOST_SAMPLED', 12)
    assert len(played(RandomSearch(batch_size=4))[0]) == 3
