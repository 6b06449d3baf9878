"""Scores on fresh seeds, against statistics by hand and by SciPy."""

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from nos_tf.dsl.rule import UpdateRule
from nos_tf.evaluation.jobs import Job
from nos_tf.search.rescore import Score, rescore
from nos_tf.store.results import best_rules
from nos_tf.tasks.child import Outcome
from tests.rows import make_row, make_rows

SEEDS = [7, 8, 9]
REWARDS = {'g': [0.5, 0.6, 0.7], 'm': [0.4, 0.6, 0.65], 'adam': [0.8, 0.7, 0.9], 'g * exp(m)': [0.9, 0.7, 0.95]}
RATES = {'g': [0.1, 0.1, 0.01], 'm': [1.0, 0.1, 0.01], 'adam': [0.1, 1.0, 1.0], 'g * exp(m)': [0.1] * 3}


def canonical(rule):
    return UpdateRule.parse(rule).canonical()


def look_up(jobs):
    """Known outcomes, for every job that is asked and no other."""
    known = {
        Job(canonical(rule), seed): Outcome(reward, rate, (), 0.0)
        for rule in REWARDS
        for seed, reward, rate in zip(SEEDS, REWARDS[rule], RATES[rule], strict=True)
    }
    assert len(jobs) == len(set(jobs))
    return {job: known[job] for job in jobs}


def scores_of(candidates, baselines=('sgd', 'momentum', 'adam')):
    return rescore({canonical(rule): reward for rule, reward in candidates.items()}, baselines, SEEDS, look_up)


def test_the_highest_mean_is_first_and_every_number_is_right():
    scores = scores_of({'g * exp(m)': 0.99})
    assert [(score.name, score.rule) for score in scores] == [
        ('', 'g * exp(m)'),
        ('adam', 'adam'),
        ('sgd', 'g'),
        ('momentum', 'm'),
    ]
    assert [score.mean for score in scores] == pytest.approx([0.85, 0.8, 0.6, 0.55])
    assert [score.search_reward for score in scores] == [0.99, None, None, None]
    assert [list(score.rewards) for score in scores] == [REWARDS[score.rule] for score in scores]
    assert [score.half_width for score in scores] == pytest.approx(
        [stats.sem(REWARDS[score.rule]) * stats.t.ppf(0.975, 2) for score in scores]
    )


def test_differences_to_the_best_baseline_are_paired_by_seed():
    winner, adam, sgd, _ = scores_of({'g * exp(m)': 0.99})
    pairs = [0.1, 0.0, 0.05]  # seed by seed: less spread than the interval of either mean
    assert winner.difference == pytest.approx(np.mean(pairs))
    assert winner.difference_half_width == pytest.approx(stats.sem(pairs) * stats.t.ppf(0.975, 2))
    assert (adam.difference, adam.difference_half_width) == (0, 0)
    assert sgd.difference == pytest.approx(-0.2)


def test_the_learning_rate_is_the_most_frequent_and_the_smaller_of_equals():
    rates = {score.rule: score.learning_rate for score in scores_of({'g * exp(m)': 0.99})}
    assert rates == {'g * exp(m)': 0.1, 'adam': 1.0, 'g': 0.1, 'm': 0.01}


def test_a_candidate_that_is_a_baseline_is_one_score_with_both_marks():
    scores = scores_of({'adam': 0.97, 'g * exp(m)': 0.95})
    assert len(scores) == 4
    (adam,) = (score for score in scores if score.rule == 'adam')
    assert (adam.name, adam.search_reward) == ('adam', 0.97)


def test_without_baselines_there_is_nothing_to_compare_with():
    (score,) = scores_of({'g': 0.5}, baselines=())
    assert score.difference is None and score.difference_half_width is None
    assert score.mean == pytest.approx(0.6)
    assert scores_of({}, baselines=()) == []


def test_scores_are_json_without_loss():
    scores = scores_of({'g * exp(m)': 0.99}) + scores_of({'g': 0.5}, baselines=())
    text = json.dumps([dataclasses.asdict(score) for score in scores], allow_nan=False)
    read = [Score(**{**fields, 'rewards': tuple(fields['rewards'])}) for fields in json.loads(text)]
    assert read == scores


def test_best_rules_are_distinct_programs_and_the_first_of_equals():
    rows = make_rows([0.3, 0.9, 0.9, 0.3, 0.9, 0.1], ['g', 'm', 'adam', 'g * 1', 'm', 'v'])
    assert list(best_rules(rows, 3).items()) == [(canonical('m'), 0.9), (canonical('adam'), 0.9), (canonical('g'), 0.3)]
    assert len(best_rules(rows, 10)) == 4
    assert best_rules(rows, 0) == {} and best_rules([], 5) == {}


def test_a_program_that_took_over_an_outcome_is_not_another_best_rule():
    rows = [make_row(0.9, 'g'), make_row(0.9, 'exp(log(g))', 1, 'equal to g g x x left'), make_row(0.5, 'm', 2)]
    assert list(best_rules(rows, 2)) == [canonical('g'), canonical('m')]
    multiples = [
        make_row(0.9, 'v + v', 0, 'equal to v v x x left'),
        make_row(0.9, 'v * -1', 1, 'equal to v v x x left'),
    ]
    assert list(best_rules([*multiples, *rows], 3)) == [canonical('v + v'), canonical('g'), canonical('m')]
