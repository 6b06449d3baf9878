"""Figures of a run, drawn from the rows of its store."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from nos_tf.search.schema import Row
from nos_tf.search.tally import WINDOW
from nos_tf.tasks.recipe import Curve

TAB_10 = tuple(f'C{i}' for i in range(10))


def moving_average(values: Sequence[float] | np.ndarray, window: int = WINDOW) -> np.ndarray:
    """The mean of the latest `window` values, of fewer at the beginning: [N]."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(sums))
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def reward_curve(rows: Sequence[Row], baselines: Mapping[str, float]) -> bytes:
    """The controller's reward as more rules are sampled (Figure 4 of the paper), as PNG.

    Args:
        rows: the children in the order of sampling.
        baselines: mean accuracy of known optimizers on fresh seeds, by name, drawn as lines.
    """
    rewards = np.array([row.reward for row in rows])
    children = np.arange(1, len(rewards) + 1)
    figure = Figure(figsize=(8, 4.5), layout='constrained')
    axes = figure.subplots()
    axes.plot(children, rewards, '.', color='0.75', markersize=3, label='a child')
    axes.plot(children, np.maximum.accumulate(rewards), color='tab:green', label='best so far')
    axes.plot(children, moving_average(rewards), color='tab:blue', linewidth=2, label=f'mean of the last {WINDOW}')
    if baselines:
        best = max(baselines, key=baselines.__getitem__)
        axes.axhline(baselines[best], color='tab:red', linestyle='--', linewidth=1, label=f'{best}, on fresh seeds')
    axes.set(xlabel='sampled rules', ylabel='validation accuracy', xlim=(1, max(2, len(rewards))), ylim=(0, 1))
    figure.legend(loc='outside lower center', ncols=4, frameon=False)
    axes.spines[['top', 'right']].set_visible(False)
    return png_of(figure)


def accuracy_curves(runs: Mapping[str, Sequence[Curve]]) -> bytes:
    """Validation and test accuracy by epoch, side by side (Figures 5 and 7 of the paper), as PNG.

    Args:
        runs: of each optimizer, one for each seed: their mean is drawn, and the range between them shaded.
    """
    figure = Figure(figsize=(11, 5), layout='constrained')
    panels = figure.subplots(1, 2, sharey=True)
    for axes, part in zip(panels, ('validation', 'test'), strict=True):
        for i, (label, curves) in enumerate(runs.items()):
            epochs = min(curve.epochs for curve in curves)
            values = np.array([getattr(curve, part)[:epochs] for curve in curves])
            style = '-' if i < len(TAB_10) else '--'
            colour = TAB_10[i % len(TAB_10)]
            x = np.arange(1, epochs + 1)
            axes.plot(x, values.mean(0), style, color=colour, linewidth=1.5, label=label if part == 'test' else None)
            axes.fill_between(x, values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0)
        axes.set(xlabel='epoch', ylabel=f'{part} accuracy')
        axes.grid(color='0.9')
        axes.spines[['top', 'right']].set_visible(False)
    figure.legend(loc='outside lower center', ncols=2, frameon=False)
    return png_of(figure)


def png_of(figure: Figure) -> bytes:
    """A figure as PNG."""
    png = io.BytesIO()
    figure.savefig(png, format='png', dpi=150)
    return png.getvalue()
