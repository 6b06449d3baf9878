"""Statistics and figure of the reward study, from what `reward_study.py` has trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.figure
import numpy as np
from scipy import stats

FIRST = 5  # rules that a reward ranks first, whose held-out gain counts
DRAWS = 2000
HOPELESS, LOWEST = -2.0, -3.0  # of the suite and of gains: `suite` and `Gain` have them as defaults


class Judged(NamedTuple):
    """How well a reward finds the rules that do well elsewhere; all are means over its seeds, as are the draws."""

    first: float  # mean held-out gain of the rules that it ranks first
    drawn: np.ndarray  # [DRAWS]: the same, of rules that were drawn anew
    spearman: float  # with held-out gains, of rules better than Momentum
    spearmans: np.ndarray  # [DRAWS]
    seconds: float  # of a core, a rule


def gains_of(logs: np.ndarray, reference: np.ndarray, panel: Sequence[int]) -> np.ndarray:
    """Returns gains over a reference in units of the spread of a panel, clipped below, [seeds, rules].

    Args:
        logs: minus the logarithm of losses, [seeds, rules].
        reference: likewise, [seeds, 1].
        panel: the rules whose spread is the unit.
    """
    spread = np.maximum(logs - reference, -1.0)[:, panel].std(1, ddof=1).mean()
    return np.maximum((logs - reference) / spread, LOWEST)


def suite_reward(gains: np.ndarray) -> np.ndarray:
    """Returns the reward of the suite, of which a hopeless rule is spared the rest.

    Args:
        gains: on its tasks in their order, [tasks, ...].
    """
    means = np.cumsum(gains, 0) / np.arange(1, len(gains) + 1).reshape(-1, *[1] * (gains.ndim - 1))
    stops = np.concatenate([means[:-1] <= HOPELESS, np.ones_like(means[:1], bool)])
    return np.take_along_axis(means, stops.argmax(0)[None], 0)[0]


def spent(gains: np.ndarray, seconds: np.ndarray) -> float:
    """Returns the mean seconds that rules take on the suite, where hopeless ones are spared the rest.

    Args:
        gains: [tasks, ...].
        seconds: of the whole tasks, likewise.
    """
    means = np.cumsum(gains, 0) / np.arange(1, len(gains) + 1).reshape(-1, *[1] * (gains.ndim - 1))
    trained = np.concatenate([np.ones_like(means[:1], bool), np.logical_and.accumulate(means[:-1] > HOPELESS)])
    return float((seconds * trained).sum(0).mean())


def judge(rewards: np.ndarray, held_out: np.ndarray, better: np.ndarray, seconds: float) -> Judged:
    """Returns how well a reward ranks rules.

    Args:
        rewards: [seeds, rules].
        held_out: gains on other tasks, [rules], or one row for each seed.
        better: bool [rules], those better than Momentum there.
        seconds: of a core, a rule.
    """
    held_out = np.broadcast_to(held_out, rewards.shape)

    def measured(some: np.ndarray) -> tuple[float, float]:
        firsts, correlations = [], []
        for reward, gain in zip(rewards[:, some], held_out[:, some], strict=True):
            firsts.append(gain[np.argsort(-reward, kind='stable')[:FIRST]].mean())
            good = better[some]
            correlations.append(stats.spearmanr(reward[good], gain[good]).statistic if good.sum() > 2 else np.nan)
        return float(np.mean(firsts)), float(np.mean(correlations))

    random = np.random.default_rng(0)  # the same rules for every reward, so that differences are paired
    rules = rewards.shape[1]
    drawn = np.array([measured(np.unique(random.integers(rules, size=rules))) for _ in range(DRAWS)])
    return Judged(*_with(measured(np.arange(rules)), drawn), seconds)


def _with(values: tuple[float, float], drawn: np.ndarray) -> tuple[float, np.ndarray, float, np.ndarray]:
    return values[0], drawn[:, 0], values[1], drawn[:, 1]


def interval(drawn: np.ndarray) -> str:
    """Returns the middle 95% as text."""
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return f'{low:+.2f} to {high:+.2f}'


def ceiling(held_out: np.ndarray, better: np.ndarray) -> Judged:
    """Returns how well one half of the held-out seeds ranks rules by the other.

    Args:
        held_out: gains, [seeds, rules].
        better: as of `judge`.
    """
    halves = held_out[::2].mean(0), held_out[1::2].mean(0)
    return judge(np.stack(halves), np.stack(halves[::-1]), better, np.nan)


def table(judged: Mapping[str, Judged], paper: str) -> list[list[str]]:
    """Returns the rows of the table: those of the rewards, beside the difference to one of them."""
    rows = []
    for name, of in judged.items():
        difference = '' if name == paper else f'{of.first - judged[paper].first:+.2f}'
        told = '' if name == paper else f' ({interval(of.drawn - judged[paper].drawn)})'
        rows.append(
            [
                name,
                f'{of.first:+.2f}',
                difference + told,
                f'{of.spearman:.2f} ({interval(of.spearmans)})',
                '' if np.isnan(of.seconds) else f'{of.seconds:.2f}',
            ]
        )
    return rows


def draw(panels: Mapping[str, np.ndarray], held_out: np.ndarray, sources: Sequence[str], path: Path) -> None:
    """Draws held-out gains against rewards, a panel for each reward.

    Args:
        panels: name -> rewards [rules].
        held_out: [rules].
        sources: of the rules, by which points are coloured.
        path: of the PNG file.
    """
    figure = matplotlib.figure.Figure(figsize=(4.2 * len(panels), 4.0), layout='constrained')
    for axes, (name, rewards) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for source in dict.fromkeys(sources):
            chosen = np.array([one == source for one in sources])
            axes.scatter(rewards[chosen], held_out[chosen], s=18, alpha=0.8, label=source)
        first = np.argsort(-rewards, kind='stable')[:FIRST]
        axes.scatter(rewards[first], held_out[first], s=90, facecolors='none', edgecolors='black', label='first five')
        axes.set(xlabel=name, ylabel='held-out gain, spreads')
        axes.spines[['top', 'right']].set_visible(False)
    axes.legend(frameon=False, fontsize='small')
    figure.savefig(path, dpi=150)
