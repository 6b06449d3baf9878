"""Figure and tables of the study, from what `study.py` stored."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.figure
import numpy as np
from documents import markdown
from scipy import stats

WINDOW = 100  # samples of a moving average
GOAL = 0.8  # a mean reward
CHECKPOINTS = (100, 500, 3000)  # samples


def median_of_random(size: int, best: int) -> int:
    """The exact median of the samples that uniform search needs to the first of the best programs."""
    return int(np.ceil(np.log(0.5) / np.log1p(-best / size)))


def moving_average(values: np.ndarray) -> np.ndarray:
    """The mean of the last 100 values, of fewer at the beginning: float64 [R, S] of [R, S]."""
    total = np.cumsum(values, axis=1, dtype=np.float64)
    shifted = np.pad(total, [(0, 0), (WINDOW, 0)])[:, : total.shape[1]]
    return (total - shifted) / np.minimum(np.arange(1, total.shape[1] + 1), WINDOW)


def incumbent(programs: np.ndarray, rewards: np.ndarray, means: np.ndarray) -> np.ndarray:
    """The mean reward over all seeds of the program that looked best so far: float64 [R, S].

    Args:
        programs: [R, S].
        rewards: [P], as learners see them; of equal ones the first counts.
        means: [P].
    """
    seen = rewards[programs]
    highest = np.maximum.accumulate(seen, axis=1)
    is_new = np.concatenate([np.ones([len(seen), 1], bool), seen[:, 1:] > highest[:, :-1]], axis=1)
    place = np.maximum.accumulate(np.where(is_new, np.arange(seen.shape[1]), 0), axis=1)
    return means[np.take_along_axis(programs, place, axis=1)]


def samples_to(condition: np.ndarray) -> np.ndarray:
    """The samples up to the first time that a condition [R, S] holds, infinite where it never does: float64 [R]."""
    return np.where(condition.any(axis=1), condition.argmax(axis=1) + 1.0, np.inf)


def interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over runs [R, ...], and the half-width of its 95% interval (Student's t)."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(axis=0, ddof=1) / np.sqrt(len(values))
    return values.mean(axis=0), half


def spread(values: np.ndarray) -> str:
    """Median and quartiles of samples needed, where never is a dash; one dash if hardly any run got there."""

    def told(x: float) -> str:
        return f'{x:.0f}' if np.isfinite(x) else '–'

    ordered, quarter = np.sort(values), (len(values) - 1) // 4
    middle = np.median(values) if np.isfinite(ordered[len(values) // 2]) else np.inf
    if not np.isfinite(ordered[quarter]):
        return told(np.inf)
    return f'{told(middle)} ({told(ordered[quarter])} to {told(ordered[-1 - quarter])})'


def table(
    runs: dict[str, tuple[str, np.ndarray]], rewards: np.ndarray, means: np.ndarray, best: dict[str, np.ndarray]
) -> str:
    """One row a learner, in Markdown.

    Args:
        runs: setting and programs [R, S] by learner.
        rewards: [P], of the seed that learners see.
        means: [P], over all seeds.
        best: bool [P] for each of the sets to be found.
    """
    head = ['learner', 'setting', *(f'samples to the {name}' for name in best), f'to a mean reward of {GOAL}']
    head += [f'best found in {count}' for count in CHECKPOINTS]
    exact = [str(median_of_random(len(means), int(wanted.sum()))) for wanted in best.values()]
    rows = [['random search, exactly', '', *exact, '–', *([''] * len(CHECKPOINTS))]]
    for name, (setting, programs) in runs.items():
        cells = [name, setting, *(spread(samples_to(wanted[programs])) for wanted in best.values())]
        averages = moving_average(rewards[programs])
        averages[:, : WINDOW - 1] = 0.0
        cells.append(spread(samples_to(averages >= GOAL)))
        found, half = interval(incumbent(programs, rewards, means))
        cells += [f'{found[count - 1]:.3f} ± {half[count - 1]:.3f}' for count in CHECKPOINTS]
        rows.append(cells)
    return markdown(head, rows)


def tuning_table(scores: Sequence[tuple[str, str, float]]) -> str:
    """Every setting that was tried, in Markdown: learner, setting, geometric mean of the samples."""
    rows = [[name, setting, f'{score:.0f}'] for name, setting, score in scores]
    return markdown(['learner', 'setting', 'samples to the top 0.1%'], rows)


def draw(runs: dict[str, tuple[str, np.ndarray]], rewards: np.ndarray, means: np.ndarray, path: Path) -> None:
    """Two panels against samples: the mean reward of what is sampled, and of what looks best; bands of 95%."""
    figure = matplotlib.figure.Figure(figsize=(12.5, 4.2), layout='constrained')
    left, right = figure.subplots(1, 2)
    for name, (_, programs) in runs.items():
        samples = np.arange(1, programs.shape[1] + 1)
        for axes, values, first in (
            (left, moving_average(rewards[programs]), WINDOW - 1),
            (right, incumbent(programs, rewards, means), 0),
        ):
            mean, half = interval(values)
            (line,) = axes.plot(samples[first:], mean[first:], label=name, linewidth=1.4)
            axes.fill_between(
                samples[first:],
                (mean - half)[first:],
                (mean + half)[first:],
                color=line.get_color(),
                alpha=0.15,
                linewidth=0,
            )
    left.set(xlabel='samples', ylabel=f'mean reward of the last {WINDOW} samples')
    right.set(xlabel='samples', ylabel='mean reward, all seeds, of what looked best', xscale='log', xlim=(10, None))
    right.set_ylim(means.max() - 0.06, means.max() + 0.003)
    right.axhline(means.max(), color='black', linestyle=':', linewidth=1)
    right.annotate('best of the table', (10, means.max()), xytext=(3, 2), textcoords='offset points', fontsize=8)
    for axes in (left, right):
        axes.spines[['top', 'right']].set_visible(False)
    figure.legend(*left.get_legend_handles_labels(), loc='outside right center', frameon=False)
    figure.savefig(path, dpi=150)
