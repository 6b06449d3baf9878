"""Differences by seed, against statistics by hand and by SciPy."""

import math

import numpy as np
import pytest
from scipy import stats

from nos_tf.compare.paired import Difference, half_width


def test_half_width_by_hand():
    # Student's t for 97.5%: 12.7062 at 1 degree of freedom, 4.30265 at 2; standard deviations 0.1 * sqrt(2) and 1
    assert half_width(np.array([0.5, 0.7])) == pytest.approx(12.7062 * 0.1, rel=1e-5)
    assert half_width(np.array([1.0, 2.0, 3.0])) == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)
    assert half_width(np.array([0.5] * 4)) == 0
    assert math.isnan(half_width(np.array([0.5])))


@pytest.mark.parametrize('n', [2, 5, 30])
def test_half_width_is_the_interval_of_scipy(n):
    values = np.random.default_rng(n).normal(0.7, 0.05, n)
    low, high = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert half_width(values) == pytest.approx((high - low) / 2)


@pytest.mark.parametrize('n', [2, 5, 30])
def test_a_difference_is_the_paired_test_of_scipy(n):
    ours, theirs = np.random.default_rng(n).normal(0.7, 0.05, (2, n))
    found, expected = Difference.of(ours, theirs), stats.ttest_rel(ours, theirs)
    low, high = expected.confidence_interval(0.95)
    assert found == pytest.approx((ours.mean() - theirs.mean(), (high - low) / 2, expected.pvalue))


def test_what_a_seed_does_to_both_cancels():
    found = Difference.of([0.5, 0.7, 0.95], [0.25, 0.45, 0.7])
    assert found.mean == pytest.approx(0.25) and found.half_width < 1e-12


def test_equal_differences_have_no_spread_to_test_against():
    for ours, theirs, mean in (
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([2.0, 3.0], [1.0, 2.0], 1.0),
        ([0.3, 0.4], [0.1, 0.2], 0.2),
    ):
        found = Difference.of(ours, theirs)
        assert found.mean == pytest.approx(mean) and found.half_width < 1e-12 and math.isnan(found.p)


def test_one_pair_has_no_interval():
    mean, *rest = Difference.of([0.75], [0.5])
    assert mean == 0.25 and all(map(math.isnan, rest))


@pytest.mark.parametrize(('ours', 'theirs'), [([], []), ([1.0], [1.0, 2.0]), ([1.0, 2.0], [1.0])])
def test_what_is_not_in_pairs_is_refused(ours, theirs):
    with pytest.raises(ValueError, match=f'{len(ours)} and {len(theirs)} values are not pairs'):
        Difference.of(ours, theirs)
