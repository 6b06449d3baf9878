"""Figures of a run, drawn from the rows of its store."""

import io
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from nos_tf.search.tally import WINDOW
from nos_tf.store.schema import Row, Update

TAB_10 = tuple(f'C{i}' for i in range(10))


def moving_average(values: Sequence[float] | np.ndarray, window: int = WINDOW) -> np.ndarray:
    """The mean of the latest `window` values, of fewer at the beginning: [N]."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(sums))
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def moving_band(values: np.ndarray, window: int = WINDOW, share: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    """The bounds, [N] each, of the middle `share` of the latest `window` values, of fewer at the beginning."""
    edges = (1 - share) / 2, (1 + share) / 2
    low, high = np.transpose([np.quantile(values[max(0, i - window) : i], edges) for i in range(1, len(values) + 1)])
    return low, high


def reward_curve(rows: Sequence[Row], baselines: Mapping[str, float], others: Mapping[str, Sequence[Row]]) -> bytes:
    """The controller's reward as more rules are sampled (Figure 4 of the paper), as PNG.

    Args:
        rows: the children in the order of sampling.
        baselines: mean reward of known optimizers on fresh seeds, by name: that of the best is drawn as a line.
        others: children of other searches by name, whose means are drawn beside.
    """
    rewards = np.array([row.reward for row in rows])
    children = np.arange(1, len(rewards) + 1)
    figure = Figure(figsize=(8, 4.5), layout='constrained')
    axes = figure.subplots()
    axes.plot(children, rewards, '.', color='0.75', markersize=3, label='a child')
    low, high = moving_band(rewards)
    axes.fill_between(children, low, high, color='tab:blue', alpha=0.15, linewidth=0, label='80% of the last 100')
    axes.plot(children, np.maximum.accumulate(rewards), color='tab:green', label='best so far')
    axes.plot(children, moving_average(rewards), color='tab:blue', linewidth=2, label=f'mean of the last {WINDOW}')
    for i, (name, beside) in enumerate(others.items()):
        mean = moving_average([row.reward for row in beside])
        axes.plot(np.arange(1, len(mean) + 1), mean, color=f'C{i + 4}', label=f'mean of {name}')
    if baselines:
        best = max(baselines, key=baselines.__getitem__)
        axes.axhline(baselines[best], color='tab:red', linestyle='--', linewidth=1, label=f'{best}, on fresh seeds')
    longest = max(2, *map(len, (rows, *others.values())))
    highest = max(rewards.max(), *baselines.values(), 0.1)
    axes.set(xlabel='sampled rules', ylabel='validation accuracy', xlim=(1, longest), ylim=(0, min(1, 1.1 * highest)))
    figure.legend(loc='outside lower center', ncols=3, frameon=False)
    axes.spines[['top', 'right']].set_visible(False)
    return png_of(figure)


def controller_curves(updates: Sequence[Update]) -> bytes | None:
    """Entropy and KL divergence of the policy as more rules are sampled, as PNG; None if no update told of either."""
    panels = {'entropy': 'entropy of a rule, nats', 'kl': 'KL divergence of an update, nats'}
    told = {name: [u for u in updates if name in u.metrics] for name in panels}
    names = [name for name in panels if told[name]]
    if not names:
        return None
    figure = Figure(figsize=(8, 2.5 * len(names)), layout='constrained')
    for axes, name in zip(figure.subplots(len(names), sharex=True, squeeze=False)[:, 0], names, strict=True):
        children = [u.children for u in told[name]]
        values = np.array([u.metrics[name] for u in told[name]])
        axes.plot(children, values, color='0.75', linewidth=0.8, label='an update')
        axes.plot(children, moving_average(values, WINDOW // 5), color='tab:blue', label=f'mean of {WINDOW // 5}')
        axes.set(ylabel=panels[name], ylim=(0, None))
        axes.spines[['top', 'right']].set_visible(False)
    axes.set_xlabel('sampled rules')
    axes.legend(frameon=False)
    return png_of(figure)


class Panel(NamedTuple):
    """One of the parts of a figure of trainings, side by side."""

    says: str  # what is drawn
    runs: Mapping[str, Sequence[tuple[Sequence[float], Sequence[float]]]]  # of each optimizer, x and y of each seed
    scale: str = 'linear'


def training_curves(
    panels: Sequence[Panel], x_says: str, dashed: Collection[str] = (), *, share_y: bool = False
) -> bytes:
    """Draws curves of trainings, step by step (Figures 5 and 7 of the paper); returns a PNG.

    Args:
        panels: of the same optimizers; of each the mean over seeds is drawn, as far as all of them went, and the range
            between them shaded.
        x_says: what x is.
        dashed: the optimizers that are drawn so.
        share_y: whether all panels have one y axis.
    """
    figure = Figure(figsize=(11, 5), layout='constrained')
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False, sharey=share_y)[0], panels, strict=True):
        for i, (label, runs) in enumerate(panel.runs.items()):
            length = min(len(x) for x, _ in runs)
            x, values = runs[0][0][:length], np.array([y[:length] for _, y in runs])
            style = '--' if label in dashed else '-' if i < len(TAB_10) else ':'
            colour = TAB_10[i % len(TAB_10)]
            told = label if panel is panels[-1] else None
            axes.plot(x, values.mean(0), style, color=colour, linewidth=1.5, label=told)
            axes.fill_between(x, values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0)
        axes.set(xlabel=x_says, ylabel=panel.says, yscale=panel.scale)
        axes.grid(color='0.9')
        axes.spines[['top', 'right']].set_visible(False)
    figure.legend(loc='outside lower center', ncols=2, frameon=False)
    return png_of(figure)


def png_of(figure: Figure) -> bytes:
    """A figure as PNG."""
    png = io.BytesIO()
    figure.savefig(png, format='png', dpi=150)
    return png.getvalue()
