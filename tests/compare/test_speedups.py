"""Speed-ups from curves: known answers, and a null control that reads 1."""

import math

import numpy as np
import pytest
from scipy import stats

from nos_tf.compare.speedups import (
    RESAMPLES,
    SpeedUp,
    geometric_mean,
    interquartile_mean,
    p_value,
    passages,
    profile,
    speed_up,
)

STEPS = np.arange(1, 41) * 5
TARGET = 19  # at 100 steps


def curves(random, seeds, slowness=1.0):
    """Losses that fall exponentially, and differ by seed and by measure."""
    of_seed, of_measure = random.normal(size=(seeds, 1)), random.normal(size=(seeds, len(STEPS)))
    return (0.3 + np.exp(-STEPS / (100 * slowness))) * np.exp(0.05 * of_seed + 0.02 * of_measure)


def test_the_reference_against_itself_reads_one_and_its_interval_is_honest():
    random = np.random.default_rng(1)
    found = [speed_up(curves(random, 8), curves(random, 8), STEPS, TARGET) for _ in range(40)]
    values = np.array([one.value for one in found])
    assert abs(values.mean()) < 3 * values.std() / math.sqrt(40)
    covered = np.mean([one.estimate.low <= 1 <= one.estimate.high for one in found])
    assert covered > 0.85
    assert geometric_mean(found).low <= 1 <= geometric_mean(found).high


def test_one_that_needs_three_quarters_of_the_updates_is_a_third_faster():
    random = np.random.default_rng(2)
    found = [speed_up(curves(random, 8), curves(random, 8, 0.75), STEPS, TARGET) for _ in range(15)]
    assert np.mean([one.value for one in found]) == pytest.approx(math.log(4 / 3), abs=0.04)
    assert found[0].reached == 1 and p_value(found) < 1e-6
    exact = (np.exp(-STEPS / (100 * slowness))[None] for slowness in (1, 0.5))
    once = speed_up(*exact, STEPS, TARGET)
    assert once.estimate.value == pytest.approx(2, rel=0.05)
    assert math.isnan(once.estimate.low) and math.isnan(p_value([once])) and str(once.estimate) == '2.00'


def test_one_that_never_gets_there_counts_as_if_it_did_at_the_end():
    random = np.random.default_rng(3)
    never = speed_up(curves(random, 6), np.full((6, 40), 9.0), STEPS, TARGET)
    assert never.reached == 0 and never.estimate.value == pytest.approx(0.5, rel=0.1)


def test_three_measures_in_a_row_count_and_one_does_not():
    losses = np.array([[4.0, 1.0, 4.0, 2.0, 1.5, 1.0], [4.0, 3.0, 3.0, 3.0, 3.0, 1.0], [1.0, 1.0, 1.0, 9.0, 9.0, 9.0]])
    steps = np.arange(10, 70, 10)
    assert passages(losses, steps, np.full(3, 2.5)) == pytest.approx([37.5, np.inf, 10])
    assert passages(losses, steps, np.full(3, 2.5), 1) == pytest.approx([15, 52.5, 10])


def test_curves_that_are_no_pairs_are_refused():
    with pytest.raises(ValueError, match=r'^curves of shape \(2, 40\) and \(3, 40\) at 40 steps are no pairs'):
        speed_up(np.ones((2, 40)), np.ones((3, 40)), STEPS, TARGET)


def test_means_over_tasks():
    random = np.random.default_rng(4)
    tasks = [SpeedUp(value, value + 0.1 * random.normal(size=RESAMPLES), 1.0, 9) for value in (0.0, 0.1, 0.3, 2.0)]
    mean, middle = geometric_mean(tasks), interquartile_mean(tasks)
    assert mean.value == pytest.approx(math.exp(0.6)) and middle.value == pytest.approx(math.exp(0.2))
    assert math.log(mean.high / mean.value) == pytest.approx(1.96 * 0.1 / 2, rel=0.1)
    few = [SpeedUp(0.2, 0.2 + 0.1 * random.normal(size=RESAMPLES), 1.0, 3)]  # widened by t of two degrees of freedom
    assert p_value(few) == pytest.approx(2 * stats.t.sf(2 * stats.t.ppf(0.975, 2) / 1.96, 2), rel=0.15)


def test_a_profile_is_the_share_of_tasks_within_a_factor_of_the_best():
    times = {'a': [10.0, 40.0, 5.0, math.inf], 'b': [20.0, 10.0, math.inf, math.inf]}
    found = profile(times, np.array([1.0, 2.0, 4.0]))
    assert list(found['a']) == pytest.approx([2 / 4, 2 / 4, 3 / 4])
    assert list(found['b']) == pytest.approx([1 / 4, 2 / 4, 2 / 4])
