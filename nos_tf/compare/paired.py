"""Differences between optimizers that trained on the same seeds: what a seed does to both of them cancels."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


class Difference(NamedTuple):
    """The difference of one optimizer to another, over the seeds that both have."""

    mean: float
    half_width: float  # of the interval by Student's t
    p: float  # of the paired t-test, two-sided; NaN where all differences are the same

    @classmethod
    def of(cls, ours: Sequence[float] | np.ndarray, theirs: Sequence[float] | np.ndarray) -> 'Difference':
        """Ours minus theirs, by seed; a single pair has neither interval nor test: NaN.

        Raises:
            ValueError: they are not as many, or none.

        >>> Difference.of((0.6, 0.7, 0.8), (0.5, 0.65, 0.65))
        Difference(mean=0.1, half_width=0.124..., p=0.0741...)
        """
        if len(ours) != len(theirs) or not len(ours):
            raise ValueError(f'{len(ours)} and {len(theirs)} values are not pairs')
        differences = np.subtract(ours, theirs)
        return cls(float(differences.mean()), half_width(differences), _p(differences))


def holm(ps: Mapping[str, float]) -> dict[str, float]:
    """Returns p-values corrected for how many there are (Holm 1979); NaN, of what has no test, stays and counts.

    >>> holm({'a': 0.01, 'b': 0.04, 'c': 0.03})
    {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    ranked = sorted((name for name in ps if not math.isnan(ps[name])), key=ps.__getitem__)
    corrected, largest = dict.fromkeys(ps, math.nan), 0.0
    for rank, name in enumerate(ranked):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[name]))
        corrected[name] = largest
    return corrected


def half_width(values: np.ndarray) -> float:
    """Half of the confidence interval of the mean, by Student's t; NaN for a single value."""
    n = len(values)
    if n < 2:
        return math.nan
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * values.std(ddof=1) / math.sqrt(n))


def _p(differences: np.ndarray) -> float:
    n = len(differences)
    if n < 2 or np.allclose(differences, differences[0], atol=1e-12):  # without a spread there is no test
        return math.nan
    error = differences.std(ddof=1) / math.sqrt(n)
    return float(2 * stats.t.sf(abs(differences.mean()) / error, n - 1))
