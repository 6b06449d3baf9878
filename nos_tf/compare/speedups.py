"""How many times faster an optimizer reaches the loss of a reference, read from curves of several seeds.

First passage is biased: the target is a loss that the reference has reached by luck, too, and a reference held against
its own target comes out ahead of itself on other seeds. So the seeds are halved, many times over: one half of the
reference's curves sets the target, and on the other half, which has not seen it, both are timed. Were the reference
its own contender, either would be ahead as often.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import stats

from nos_tf.compare.paired import CONFIDENCE

IN_A_ROW = 3  # measures below the target, for it to count as reached
SPLITS = 20  # of the seeds in halves
RESAMPLES = 1000
FEWEST = 3  # seeds of an interval


class Estimate(NamedTuple):
    """A speed-up with its 95% interval, by a bootstrap over seeds; bounds are NaN for fewer than three."""

    value: float
    low: float
    high: float

    @classmethod
    def of_logs(cls, value: float, resampled: np.ndarray) -> 'Estimate':
        """Returns the estimate of a logarithm, given what it was when seeds were drawn again.

        Quantiles of these would miss the value itself where seeds are few: of fewer seeds, passages come later.
        """
        half = stats.norm.ppf((1 + CONFIDENCE) / 2) * np.std(resampled, ddof=1)
        return cls(*(float(np.exp(x)) for x in (value, value - half, value + half)))

    def __str__(self) -> str:
        return f'{self.value:.2f}' if np.isnan(self.low) else f'{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]'


class SpeedUp(NamedTuple):
    """How many times faster than a reference an optimizer is on a task, as logarithms."""

    value: float
    resampled: np.ndarray  # [RESAMPLES], of seeds that were drawn again; all NaN for fewer than three
    reached: float  # share of the halves in which the optimizer reached the target
    seeds: int

    @property
    def estimate(self) -> Estimate:
        """It with its interval."""
        return Estimate.of_logs(self.value, self.resampled)


def speed_up(
    reference: np.ndarray, curves: np.ndarray, steps: np.ndarray, target: int, in_a_row: int = IN_A_ROW, draw: int = 0
) -> SpeedUp:
    """Returns how many times fewer updates an optimizer needs to the loss of a reference.

    Both are censored where their curves end, so that one which never gets there counts as if it did then.

    Args:
        reference: its loss, the lower the better, [seeds, measures].
        curves: likewise of the optimizer, on the same seeds.
        steps: updates before each measure, ascending.
        target: index of the measure whose mean is to be reached.
        in_a_row: measures below the target, for it to count as reached.
        draw: seed of the halves and the bootstrap; another on each task, whose seeds have nothing in common.

    Raises:
        ValueError: they are not as many seeds, or not as long.
    """
    if reference.shape != curves.shape or reference.shape[1] != len(steps):
        raise ValueError(f'curves of shape {reference.shape} and {curves.shape} at {len(steps)} steps are no pairs')
    random, seeds = np.random.default_rng(draw), len(reference)

    def log_ratios(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _log_ratios(reference, curves, steps, target, counts, _halves(seeds, random), in_a_row)

    value, reached = log_ratios(np.ones((1, seeds)))
    if seeds < FEWEST:
        return SpeedUp(float(value[0]), np.full(RESAMPLES, np.nan), float(reached[0]), seeds)
    drawn = random.multinomial(seeds, np.full(seeds, 1 / seeds), 2 * RESAMPLES)
    drawn = drawn[(drawn > 0).sum(1) > 1][:RESAMPLES].astype(float)  # a single one cannot be halved
    resampled, _ = log_ratios(drawn)
    resampled = value[0] + _widening(seeds) * (resampled - value[0])
    return SpeedUp(float(value[0]), resampled, float(reached[0]), seeds)


def _widening(seeds: int) -> float:
    """Returns by how much the bootstrap of few seeds is too narrow (Hesterberg 2015): Student's t, and n - 1 for n."""
    return _of_student(seeds) * float(np.sqrt(seeds / (seeds - 1)))


def _of_student(seeds: int) -> float:
    """Returns how many times as wide as a normal distribution's an interval by Student's t is."""
    tail = (1 + CONFIDENCE) / 2
    return float(stats.t.ppf(tail, seeds - 1) / stats.norm.ppf(tail))


def _halves(seeds: int, random: np.random.Generator) -> np.ndarray:
    """Returns which seeds set the target, bool [2 * SPLITS, seeds]: both halves in turn; a single seed does both."""
    if seeds == 1:
        return np.ones((1, 1), bool)
    first = np.array([random.permutation(seeds) < seeds // 2 for _ in range(SPLITS)])
    return np.concatenate([first, ~first])


def _log_ratios(
    reference: np.ndarray,
    curves: np.ndarray,
    steps: np.ndarray,
    target: int,
    counts: np.ndarray,
    halves: np.ndarray,
    in_a_row: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean over halves of log(time of the reference / time of the other), and how often that got there.

    Args:
        reference: as of `speed_up`, as the others.
        curves: of the other.
        steps: before each measure.
        target: index.
        counts: how often each seed is there, [R, seeds]; a half that has none of them is left out.
        halves: as of `_halves`.
        in_a_row: measures.

    Returns:
        both float [R].
    """
    setting = counts[:, None] * halves  # [R, H, seeds]
    timed = counts[:, None] * (~halves if halves.shape[1] > 1 else halves)
    is_there = setting.any(-1) & timed.any(-1)
    with np.errstate(invalid='ignore'):
        targets = setting @ reference[:, target] / setting.sum(-1)
        ours, theirs = (
            passages(timed @ x / timed.sum(-1, keepdims=True), steps, targets, in_a_row) for x in (reference, curves)
        )
    longest = float(steps[-1])
    logs = np.log(np.minimum(ours, longest)) - np.log(np.minimum(theirs, longest))
    number = is_there.sum(1)
    with np.errstate(invalid='ignore'):
        return np.where(is_there, logs, 0).sum(1) / number, (np.isfinite(theirs) & is_there).sum(1) / number


def passages(losses: np.ndarray, steps: np.ndarray, targets: np.ndarray, in_a_row: int = IN_A_ROW) -> np.ndarray:
    """Returns when curves go below their targets for some measures in a row, by linear interpolation; inf for never.

    Args:
        losses: [..., measures].
        steps: updates before each measure.
        targets: [...].
        in_a_row: how many measures.

    >>> passages(np.array([4.0, 2.0, 1.0, 1.0]), np.array([10, 20, 30, 40]), np.array(2.5))
    array(17.5)
    """
    below = sliding_window_view(losses <= targets[..., None], in_a_row, axis=-1).all(-1)
    first = below.argmax(-1)
    before = np.maximum(first - 1, 0)
    high, low = (np.take_along_axis(losses, i[..., None], -1)[..., 0] for i in (before, first))
    with np.errstate(invalid='ignore', divide='ignore'):
        share = np.where((first > 0) & (high > low), (high - targets) / (high - low), 1.0)
    passed = steps[before] + np.clip(share, 0, 1) * (steps[first] - steps[before])
    return np.where(below.any(-1), passed, np.inf)


def geometric_mean(of_tasks: Sequence[SpeedUp]) -> Estimate:
    """Returns the geometric mean over tasks; the bootstrap draws the seeds of each for itself."""
    return _over_tasks(of_tasks, lambda logs: logs.mean(0))


def interquartile_mean(of_tasks: Sequence[SpeedUp]) -> Estimate:
    """Returns the mean over the tasks in the middle half (Agarwal et al. 2021), which no single task can move far."""
    return _over_tasks(of_tasks, lambda logs: stats.trim_mean(logs, 0.25, axis=0))


def p_value(of_tasks: Sequence[SpeedUp]) -> float:
    """Returns the two-sided probability of a geometric mean so far from 1 by chance, by Student's t.

    The error is that of the bootstrap, the degrees of freedom those of the seeds: on the safe side for many tasks.
    """
    seeds = min(task.seeds for task in of_tasks)
    if seeds < FEWEST:
        return np.nan
    value = np.array([task.value for task in of_tasks]).mean()
    error = np.array([task.resampled for task in of_tasks]).mean(0).std(ddof=1) / _of_student(seeds)
    return float(2 * stats.t.sf(abs(value) / error, seeds - 1)) if error > 0 else np.nan


def _over_tasks(of_tasks: Sequence[SpeedUp], mean: Callable[[np.ndarray], Any]) -> Estimate:
    value = float(mean(np.array([task.value for task in of_tasks])))
    return Estimate.of_logs(value, mean(np.array([task.resampled for task in of_tasks])))


def profile(times: Mapping[str, Sequence[float]], factors: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the share of tasks on which each is within a factor of the best (Dolan and Moré 2002).

    Args:
        times: of each optimizer, by task; inf where it never got there.
        factors: [F], from 1 on.
    """
    best = np.min(np.array(list(times.values())), axis=0)
    return {
        name: np.array([np.mean(np.isfinite(own) & (np.asarray(own) <= factor * best)) for factor in factors])
        for name, own in times.items()
    }
