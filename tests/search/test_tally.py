"""The account of a search, against numbers counted by hand."""

import json
import math

import pytest

from nos_tf.search.tally import Tally
from tests.rows import make_row, make_rows


def test_an_empty_tally_divides_by_nothing():
    tally = Tally()
    assert (tally.children, tally.hits, tally.hit_rate, tally.best, tally.best_rule) == (0, 0, 0.0, None, '')
    assert (tally.equal_function_rate, tally.rejected_rate) == (0.0, 0.0)
    assert math.isnan(tally.recent_mean)


def test_hits_are_children_whose_program_came_before():
    tally = Tally.of(make_rows([0.1] * 6, ['g', 'm', 'g * 1', 'm', 'g', 'adam']))  # g * 1 is the program g
    assert (tally.children, tally.hits, tally.hit_rate) == (6, 3, 0.5)


def test_equal_functions_are_new_programs_that_compute_what_an_earlier_one_does():
    rules = [
        'sign(exp(g))',
        '1',
        'g',
        'sign(exp(g))',
        'sign(exp(m))',
        'g * 1',
        'drop(g, 0.1)',
        'drop(sign(v), 0.1)',
        '1',
    ]
    tally = Tally.of(make_rows([0.1] * 9, rules))
    assert (tally.hits, tally.equal_functions, tally.equal_function_rate) == (3, 2, pytest.approx(2 / 9))
    assert (tally.merged, tally.rejected, tally.rejected_rate) == (0, 0, 0)


def test_what_was_not_trained_counts_once_a_program():
    rows = [
        make_row(0.1, '1', 0, 'rejected: reads no gradient'),
        make_row(0.1, '1', 1, 'rejected: reads no gradient'),
        make_row(0.5, 'g', 2),
        make_row(0.5, 'exp(log(exp(g)))', 3, 'equal to g g exp x left'),
        make_row(0.5, 'exp(log(exp(g)))', 4, 'equal to g g exp x left'),
        make_row(0.1, 'm', 5, 'quarantined: its workers died 5 times'),
        make_row(0.1, 'm', 6, 'quarantined: its workers died 5 times'),
    ]
    tally = Tally.of(rows)
    assert (tally.hits, tally.rejected, tally.merged, tally.rejected_rate) == (3, 1, 1, pytest.approx(1 / 7))
    assert tally.quarantined == tally.summary()['quarantined'] == 1


def test_the_best_is_the_first_of_equals():
    tally = Tally.of(make_rows([0.2, 0.8, 0.5, 0.8], ['g', 'm', 'v', 'adam']))
    assert tally.best.id == 1 and tally.best_rule == 'm'
    tally.add(make_row(0.9, 'g * exp(sign(g) * sign(m))', 4))
    assert tally.best.id == 4 and tally.best_rule == 'g * exp(sign(g) * sign(m))'


def test_recent_is_the_last_hundred():
    tally = Tally.of(make_rows([0.0] * 50))
    assert tally.recent_mean == 0.0
    for row in make_rows([1.0] * 75):
        tally.add(row)
    assert tally.recent_mean == 0.75


@pytest.mark.parametrize(
    'rewards, first, last',
    [
        ([0.3], 0.3, 0.3),
        ([0.1, 0.5], 0.1, 0.5),
        ([0.1, 0.9, 0.5], 0.1, 0.5),
        ([0.0] * 75 + [1.0] * 75, 0.0, 1.0),  # halves of 150
        ([0.0] * 100 + [0.5] * 300 + [1.0] * 100, 0.0, 1.0),
        ([0.0] * 99 + [1.0] * 302, 0.01, 1.0),
    ],
)
def test_the_first_and_the_last_hundred_or_halves(rewards, first, last):
    summary = Tally.of(make_rows(rewards)).summary()
    assert summary['mean_reward_first_100'] == pytest.approx(first)
    assert summary['mean_reward_last_100'] == pytest.approx(last)


def test_the_summary_is_json_without_loss():
    summary = Tally.of(make_rows([0.25, 0.75, 0.5], ['g', 'm', 'g'])).summary()
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary == {
        'children': 3,
        'window': 1,
        'distinct_rules': 2,
        'hits': 1,
        'hit_rate': pytest.approx(1 / 3),
        'equal_functions': 0,
        'equal_function_rate': 0.0,
        'merged': 0,
        'rejected': 0,
        'rejected_rate': 0.0,
        'quarantined': 0,
        'best_rule': 'm',
        'best_rule_tokens': 'm m x x left',
        'best_reward': 0.75,
        'mean_reward_first_100': 0.25,
        'mean_reward_last_100': 0.5,
    }
