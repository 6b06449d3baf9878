"""A rule at a glance: its update over the plane of gradient and running average, and its tree (as in Figure 2)."""

import io
import itertools
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.colors import Normalize, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from nos_tf.dsl import equivalence
from nos_tf.dsl.primitives import SLOTS, Inputs
from nos_tf.dsl.rule import UpdateRule
from nos_tf.report.rule_tree import MATHEMATICS, draw_tree, text_width

CELLS = 240  # a side of the plane: even, so that no cell lies on an axis, where signs jump
SPREAD = 0.5  # standard deviation of the gradients that v and gamma are averages of
WEIGHT = 1.0
MANY_STEPS = 1e6  # so many that averages are what they are in the long run
LARGEST = 1e100  # what is beyond is shown as infinite: the colours need differences of values
WIDE = 30.0  # the ratio of large to typical values from which on colours are logarithmic

GREY = '0.7'
DPI = 110
NO_PICTURES = {'raw', 'rgba', 'pgf'}  # pixels without a size, and a text that needs TeX
LONGEST_TITLE = 2000  # characters that are worth the time of typesetting
SIZE = (11.0, 5.2)  # inches
TITLE_SIZES = (18, 16, 14, 12, 10)  # points
TITLE_WIDTH = 0.94 * 72 * SIZE[0]  # points


def plane(rule: UpdateRule, cells: int = CELLS) -> tuple[np.ndarray, np.ndarray]:
    """The update by the learning rate, Δw/λ, where nothing is dropped and there is no noise.

    v and gamma are the averages that gradients of mean m and standard deviation 1/2 lead to in the long run:
    v = m^2 + 1/4 and gamma = m^3 + 3m/4; their decay makes no difference then. The weights are 1, and schedules at
    their start.

    Returns:
        the coordinates [N] of both axes, and the values [N, N], m by g.
    """
    axis = (np.arange(cells) + 0.5) * 2 / cells - 1
    m, g = np.meshgrid(axis, axis, indexing='ij')
    moments = {1: m, 2: m**2 + SPREAD**2, 3: m**3 + 3 * m * SPREAD**2}
    averages = {slot.name: moments[slot.power] for slot in SLOTS.values()}
    inputs = Inputs(
        g,
        np.full_like(g, WEIGHT),
        averages,
        draw=equivalence.Draws(np.zeros_like(g)),
        before=averages,
        step=MANY_STEPS,
        progress=0.0,
    )
    return axis, equivalence.evaluate(rule.expression, inputs, lambda drop: np.ones_like(g))


def colour_scale(values: np.ndarray) -> Normalize:
    """Zero in the middle, and limits that a few extreme values do not set; logarithmic where values are of all sizes.

    Args:
        values: finite ones only.
    """
    sizes = np.abs(values[values != 0])
    if not sizes.size:
        return Normalize(-1, 1)
    typical, large, largest = np.percentile(sizes, [50, 98, 100])
    if large > WIDE * typical:
        return SymLogNorm(linthresh=typical, vmin=-large, vmax=large)
    limit = largest if largest <= 2 * large else large
    return Normalize(-limit, limit)


def save(rule: UpdateRule, path: Path) -> None:
    """Writes the picture of a rule, in the format that the suffix of the path names.

    Raises:
        ValueError: no such format, or no such place; the message says what was given and what is allowed.
    """
    formats = sorted(set(FigureCanvasBase.get_supported_filetypes()) - NO_PICTURES)
    kind = path.suffix.removeprefix('.').lower()
    if kind not in formats:
        found = f'the suffix {path.suffix}' if path.suffix else 'no suffix'
        raise ValueError(f'{path} has {found}: a picture has one of .{", .".join(formats)}')
    picture = io.BytesIO()
    rule_picture(rule).savefig(picture, format=kind, dpi=DPI)
    try:
        path.write_bytes(picture.getvalue())
    except OSError as error:
        raise ValueError(
            f'cannot write {path} ({error.strerror}): name a file in a directory that exists and that you may write to'
        ) from error


def rule_picture(rule: UpdateRule) -> Figure:
    """The plane on the left, the tree on the right, the rule as the title and what is held fixed as the caption."""
    figure = Figure(figsize=SIZE, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    left, right = figure.subplots(1, 2)
    right.axis('off')
    axis, values = plane(rule)
    shown = np.ma.masked_where(~(np.abs(values) <= LARGEST), values)
    _draw_plane(left, axis, shown)
    _write_title(figure, rule)
    caption = '; '.join(_caption(rule, grey=bool(np.ma.getmaskarray(shown).any())))
    figure.supxlabel('\n'.join(textwrap.wrap(caption, 150)), fontsize=10, color='0.3')
    figure.draw_without_rendering()  # settles the size of the axes
    draw_tree(right, rule.expression)
    return figure


def _draw_plane(axes: Axes, axis: np.ndarray, shown: np.ma.MaskedArray) -> None:
    scale = colour_scale(shown.compressed())
    colours = colormaps['RdBu_r'].resampled(1024).with_extremes(bad=GREY)
    image = axes.imshow(shown, origin='lower', extent=(-1, 1, -1, 1), cmap=colours, norm=scale)
    lines: dict[str, Any] = {'colors': '0.2', 'linewidths': 0.7}
    levels = _levels(scale)
    half = len(axis) // 2
    for rows, columns in itertools.product((slice(half), slice(half, None)), repeat=2):  # a sign jumps between them
        part = shown[rows, columns]
        inside = [level for level in levels if part.count() and part.min() < level < part.max()]
        if inside:
            axes.contour(axis[columns], axis[rows], part, inside, linestyles='solid', **lines)
    for draw in (axes.axhline, axes.axvline):
        draw(0, color='0.2', linewidth=0.4)
    below, above = (shown.min() < scale.vmin, shown.max() > scale.vmax) if shown.count() else (False, False)
    extend = {(False, False): 'neither', (True, False): 'min', (False, True): 'max', (True, True): 'both'}[below, above]
    bar = axes.figure.colorbar(image, ax=axes, extend=extend, shrink=0.9, pad=0.03, ticks=levels)
    bar.minorticks_off()
    bar.ax.hlines(levels, 0, 1, **lines)
    bar.set_label(r'update $\Delta w / \lambda$', fontsize=12)
    axes.set_xlabel('gradient $g$', fontsize=12)
    axes.set_ylabel(r'running average $\hat{m}$', fontsize=12)
    axes.set(xticks=np.linspace(-1, 1, 5), yticks=np.linspace(-1, 1, 5))


def _levels(scale: Normalize) -> np.ndarray:
    """Where contour lines go: a dozen round values, or powers of ten where colours are logarithmic."""
    limit = float(scale.vmax or 1)
    if not isinstance(scale, SymLogNorm):
        levels = np.asarray(MaxNLocator(12, steps=[1, 2, 2.5, 5, 10]).tick_values(-limit, limit))
        return levels[np.abs(levels) <= limit]
    low, high = np.log10([scale.linthresh, limit])
    step = max(1, round((high - low) / 5))
    powers = 10.0 ** np.arange(np.floor(high), low + step / 2, -step)
    return np.concatenate([-powers, [0.0], powers[::-1]])


def _write_title(figure: Figure, rule: UpdateRule) -> None:
    """In mathematics if that fits on one line; else in tokens, of which there are never more than fifty."""
    latex = rule.latex
    if latex.startswith(r'\frac'):
        latex = latex.replace(r'\frac', r'\dfrac', 1)
    title = rf'$\Delta w / \lambda = {latex}$'
    for size in TITLE_SIZES if len(title) < LONGEST_TITLE else ():
        if text_width(title, size) <= TITLE_WIDTH:
            figure.suptitle(title, fontsize=size, math_fontfamily=MATHEMATICS)
            return
    figure.suptitle('\n'.join(textwrap.wrap(' '.join(rule.tokens), 110)), fontsize=9, family='monospace')


def _caption(rule: UpdateRule, grey: bool) -> Iterator[str]:
    """What the plane holds fixed, as far as the rule reads it, and what its grey means, if there is any."""
    formulas = {'v': r'$\hat{v} = \hat{m}^2 + 1/4$', 'gamma': r'$\hat{\gamma} = \hat{m}^3 + 3\hat{m}/4$'}
    averages = ' and '.join(formula for slot, formula in formulas.items() if slot in rule.slots)
    if averages:
        yield rf'{averages}, as if gradients had mean $\hat{{m}}$ and standard deviation 1/2'
    if {'m99', 'v99', 'v95'} & set(rule.slots):
        yield 'averages of other decays are as these, after many steps'
    if rule.reads_progress:
        yield 'schedules are at their start'
    if rule.reads_weights:
        yield f'$w = {WEIGHT:g}$'
    if rule.is_stochastic:
        yield 'a step that drops nothing and has no noise'
    if grey:
        yield 'grey: infinite, or not a number'
