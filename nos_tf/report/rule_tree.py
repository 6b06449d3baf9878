"""Draws a rule as a tree of boxes in the colours of Figure 2: operands blue, unary functions yellow, binary grey."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Ellipse, FancyBboxPatch, Patch, PathPatch
from matplotlib.path import Path
from matplotlib.textpath import TextPath

from nos_tf.dsl.expression import Apply, Combine, Expression, Leaf, row_of, walk
from nos_tf.report.rule_graph import Edge, Point, arrange

COLOURS = {Leaf: '#cfe2f3', Apply: '#ffe9a8', Combine: '#e4e4e4'}
LINES = '0.4'
MATHEMATICS = 'cm'  # the paper's typeface

# In points, as long as the tree is not made smaller.
LETTERS, HEIGHT, PADDING, LEVEL, GAP, OUTLET = 14, 26, 8, 54, 18, 14
LARGEST = 1.5  # a small tree grows no more than this


def label(e: Expression) -> str:
    """Returns what stands in the box of a node."""
    row = row_of(e)
    return f'${row.latex if row.symbol is None else row.symbol}$'


def text_width(text: str, size: float) -> float:
    """The width of a text in points, mathematics included."""
    font = FontProperties(math_fontfamily=MATHEMATICS)
    return TextPath((0, 0), text, size=size, prop=font).get_extents().width


def draw_tree(axes: Axes, expression: Expression) -> None:
    """Fills the axes, whose size must be settled, with the tree; it is made smaller where it does not fit."""
    widths = {text: max(HEIGHT, text_width(text, LETTERS) + 2 * PADDING) for text in map(label, walk(expression))}
    graph = arrange(expression, lambda e: widths[label(e)], GAP)
    halves = [widths[label(e)] / 2 for e in graph.nodes]
    places = [(x, y * LEVEL) for x, y in graph.places]
    left = min(x - half for (x, _), half in zip(places, halves, strict=True))
    right = max(x + half for (x, _), half in zip(places, halves, strict=True))
    low, high = -HEIGHT / 2, places[0][1] + HEIGHT / 2 + OUTLET + 2 * LETTERS
    scale = _fit(axes, (left, right), (low, high))
    axes.axis('off')
    for edge in graph.edges:
        axes.add_patch(_line(edge, graph.nodes[edge.reader], halves[edge.reader], scale))
    x, y = places[0][0], places[0][1] + HEIGHT / 2 + OUTLET
    axes.plot([x, x], [places[0][1], y], color=LINES, linewidth=1.2 * scale, zorder=1)
    style: dict[str, Any] = {'ha': 'center', 'fontsize': LETTERS * scale, 'math_fontfamily': MATHEMATICS}
    axes.text(x, y + 3, r'$\Delta w / \lambda$', va='bottom', **style)
    for node, place, half in zip(graph.nodes, places, halves, strict=True):
        axes.add_patch(_box(node, place, half, scale))
        axes.text(*place, label(node), va='center', zorder=3, **style)


def _fit(axes: Axes, x: tuple[float, float], y: tuple[float, float]) -> float:
    """Sets limits that show the given range in the middle, as large as it can be; returns its size."""
    box = axes.get_window_extent()
    width, height = (pixels * 72 / axes.figure.dpi for pixels in (box.width, box.height))
    scale = min(LARGEST, width / (x[1] - x[0] + PADDING), height / (y[1] - y[0] + PADDING))
    for (low, high), points, set_limits in ((x, width, axes.set_xlim), (y, height, axes.set_ylim)):
        middle, half = (low + high) / 2, points / scale / 2
        set_limits(middle - half, middle + half)
    return scale


def _box(node: Expression, place: Point, half: float, scale: float) -> Patch:
    style: dict[str, Any] = {
        'facecolor': COLOURS[type(node)],
        'edgecolor': LINES,
        'linewidth': 0.8 * scale,
        'zorder': 2,
    }
    if isinstance(node, Combine):
        return Ellipse(place, 2 * half, HEIGHT, **style)
    corner = (place[0] - half, place[1] - HEIGHT / 2)
    return FancyBboxPatch(corner, 2 * half, HEIGHT, boxstyle='Round, pad=0, rounding_size=4', **style)


def _line(edge: Edge, reader: Expression, half: float, scale: float) -> PathPatch:
    """From the left, the right or the middle of the reader's lower side to the top of the operand."""
    side = half / 2 * (2 * edge.side - 1) if isinstance(reader, Combine) else 0.0
    points = [(x, y * LEVEL) for x, y in edge.points]
    start = (points[0][0] + side, points[0][1] - HEIGHT / 4)
    vertices, codes = [start], [Path.MOVETO]
    for i, (x, y) in enumerate(points[1:], start=1):
        x_0, y_0 = vertices[-1]
        top = y + HEIGHT / 2
        vertices += [(x_0, (y_0 + top) / 2), (x, (y_0 + top) / 2), (x, top)]
        codes += [Path.CURVE4] * 3
        if i < len(points) - 1:  # straight on beside the boxes of the level
            vertices.append((x, y - HEIGHT / 2))
            codes.append(Path.LINETO)
    return PathPatch(Path(vertices, codes), fill=False, edgecolor=LINES, linewidth=1.2 * scale, zorder=1)
