"""Statistics and figure of the reward study, from what `reward_study.py` has trained."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.figure
import numpy as np
from scipy import stats

FIRST = 5  # rules that a reward ranks first, whose held-out gain counts
DRAWS, TIES = 1000, 20
HOPELESS, LOWEST = -2.0, -3.0  # of the suite and of gains: `suite` and `Gain` have them as defaults


class Judged(NamedTuple):
    """How well a reward finds the rules that do well elsewhere: means over its seeds."""

    first: float  # mean held-out gain of the rules that it ranks first
    drawn: np.ndarray  # [DRAWS]: the same, of rules that were drawn anew
    spearman: float  # with held-out gains, of rules better than Momentum
    spearmans: np.ndarray  # [DRAWS]
    seconds: float  # a rule, on a busy core


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
    means = _means_so_far(gains)
    stops = np.concatenate([means[:-1] <= HOPELESS, np.ones_like(means[:1], bool)])
    return np.take_along_axis(means, stops.argmax(0)[None], 0)[0]


def spent(gains: np.ndarray, seconds: np.ndarray) -> float:
    """Returns the mean seconds that rules take on the suite, where hopeless ones are spared the rest.

    Args:
        gains: [tasks, ...].
        seconds: of whole tasks, likewise.
    """
    means = _means_so_far(gains)
    trained = np.concatenate([np.ones_like(means[:1], bool), np.logical_and.accumulate(means[:-1] > HOPELESS)])
    return float((seconds * trained).sum(0).mean())


def _means_so_far(gains: np.ndarray) -> np.ndarray:
    return np.cumsum(gains, 0) / np.arange(1, len(gains) + 1).reshape(-1, *[1] * (gains.ndim - 1))


def judge(rewards: np.ndarray, held_out: np.ndarray, better: np.ndarray, seconds: float) -> Judged:
    """Returns how well a reward ranks rules; draws are of rules, of its seeds and of the held-out seeds, anew.

    Args:
        rewards: [seeds, rules].
        held_out: gains on other tasks, [seeds, rules].
        better: bool [rules], those better than Momentum there.
        seconds: a rule.
    """
    rules = rewards.shape[1]

    def measured(rewards: np.ndarray, gain: np.ndarray, some: np.ndarray) -> tuple[float, float]:
        """Returns the mean gain of the first five of some rules, whose order decides between equals; and Spearman's."""
        gain, good = gain[some], better[some]
        firsts = [gain[np.argsort(-reward[some], kind='stable')[:FIRST]].mean() for reward in rewards]
        ranks = [stats.spearmanr(reward[some][good], gain[good]).statistic for reward in rewards]
        return float(np.mean(firsts)), float(np.mean(ranks))

    def drawn(of: np.ndarray, random: np.random.Generator) -> np.ndarray:
        return of[random.integers(len(of), size=len(of))]

    ties = np.random.default_rng(0)
    whole = np.mean([measured(rewards, held_out.mean(0), ties.permutation(rules)) for _ in range(TIES)], 0)
    draws = []
    for draw in range(DRAWS):  # the same rules and held-out seeds for every reward, so that differences are paired
        shared, own = (np.random.default_rng([draw, stream]) for stream in range(2))
        some = shared.permutation(shared.integers(rules, size=(rules,)))
        draws.append(measured(drawn(rewards, own), drawn(held_out, shared).mean(0), some))
    firsts, ranks = np.array(draws).T
    return Judged(whole[0], firsts, whole[1], ranks, seconds)


def interval(drawn: np.ndarray) -> str:
    """Returns the middle 95% as text."""
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return f'{low:+.2f} to {high:+.2f}'


def halves(held_out: np.ndarray, better: np.ndarray) -> Judged:
    """Returns how well one half of the held-out seeds ranks rules by the other, the mean over all ways to part them.

    Args:
        held_out: gains, [seeds, rules].
        better: as of `judge`.
    """
    seeds = range(len(held_out))
    parts = [set(part) for part in itertools.combinations(seeds, len(held_out) // 2)]
    found = [
        judge(
            held_out[sorted(part)].mean(0)[None], held_out[[seed for seed in seeds if seed not in part]], better, np.nan
        )
        for part in parts
    ]
    return Judged(*(np.mean(of, 0) for of in zip(*found, strict=True)))


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
