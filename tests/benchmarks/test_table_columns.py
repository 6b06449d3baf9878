"""Outcomes survive as columns bit for bit, however a graph rounds, and what is no share is refused."""

import sys
from pathlib import Path

import numpy as np
import pytest

from nos_tf.evaluation.table import UNTRAINED
from nos_tf.tasks.child import Outcome

sys.path.append(str(Path(__file__).parents[2] / 'benchmarks' / 'tabular'))

from table_columns import accuracies, columns_of

RATES = (0.01, 0.1, 1.0)


def told(count, images=500):
    """As TensorFlow's optimized graphs do it: times the reciprocal."""
    return float(np.float32(count) * (np.float32(1) / np.float32(images)))


OUTCOMES = [
    Outcome(told(322), 0.1, (told(50), told(499), told(0)), 0.25),
    Outcome(told(500), 1.0, (None, told(3), told(500)), 0.5),
]


def test_outcomes_come_back_bit_for_bit():
    assert told(322) != float(np.float32(322) / np.float32(500)), 'shows nothing about rounding'
    columns = columns_of([OUTCOMES[0], None, OUTCOMES[1]], RATES, 500)
    words = accuracies(OUTCOMES, 500)
    assert [columns.outcome(i, RATES, words) for i in range(3)] == [OUTCOMES[0], None, OUTCOMES[1]]
    assert columns.right.tolist() == [322, UNTRAINED, 500]
    assert columns.sweep.tolist() == [[50, 499, 0], [UNTRAINED] * 3, [UNTRAINED, 3, 500]]
    assert columns.winner.tolist() == [1, 0, 2]


def test_accuracies_that_nobody_had_are_quotients():
    words = accuracies(OUTCOMES, 500)
    assert words.dtype == np.float32 and len(words) == 501
    others = [k for k in range(501) if k not in (322, 50, 499, 0, 500, 3)]
    np.testing.assert_array_equal(words[others], np.float32(others) / np.float32(500))


@pytest.mark.parametrize('reward', [0.5001, 1.002, -0.002, 0.644])
def test_what_is_no_share_of_the_images_is_refused(reward):
    with pytest.raises(ValueError, match=f'{reward!r} is no share of 500 validation images'):
        accuracies([Outcome(reward, 0.1, (), 0.0)], 500)


def test_one_count_told_as_two_accuracies_is_refused():
    other = float(np.float32(322) / np.float32(500))
    with pytest.raises(ValueError, match='no share'):
        accuracies([OUTCOMES[0], OUTCOMES[0]._replace(reward=other)], 500)


@pytest.mark.parametrize('images', [0, 32768])
def test_a_validation_set_has_a_size_that_is_counted(images):
    with pytest.raises(ValueError, match='validation images'):
        accuracies([], images)
