"""The picture and the table of the Rosenbrock experiment (Figure 6)."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from nos_tf.optimizers.contender import Contender
from nos_tf.report.figures import png_of
from nos_tf.report.page import markdown
from nos_tf.tasks.rosenbrock import OPTIMUM, Walk, rosenbrock

NEAR = 1e-2  # of the optimum; the table says when a walk came as near


def write(run_dir: Path, walks: Mapping[str, Sequence[Walk]]) -> Path:
    """Writes rosenbrock.png, walks.csv (every walk) and table.md (the best of each) into a directory.

    Args:
        run_dir: made if it does not exist.
        walks: by the name of the optimizer, at all its learning rates and constants.

    Returns:
        the path of the picture.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    chosen = {name: best(tried) for name, tried in walks.items()}
    with open(run_dir / 'walks.csv', 'w', encoding='utf-8', newline='') as file:
        rows = csv.writer(file)
        rows.writerow(['optimizer', 'learning_rate', 'final_distance', 'final_value', f'steps_to_{NEAR:g}'])
        for walk in (walk for tried in walks.values() for walk in tried):
            rows.writerow([walk.contender, walk.rate, *_measured(walk)])
    (run_dir / 'table.md').write_text(table(chosen), encoding='utf-8')
    picture = run_dir / 'rosenbrock.png'
    picture.write_bytes(png_of(draw(chosen)))
    return picture


def best(walks: Sequence[Walk]) -> Walk:
    """The walk that ends nearest to the optimum."""
    return min(walks, key=lambda walk: walk.distances[-1])


def table(chosen: Mapping[str, Walk]) -> str:
    """The best walk of each optimizer as Markdown, the nearest first."""
    rows = []
    for name, walk in sorted(chosen.items(), key=lambda item: item[1].distances[-1]):
        distance, value, steps = _measured(walk)
        outcome = ['diverged at every rate', '', ''] if walk.diverged else [f'{distance:.2g}', f'{value:.2g}', steps]
        constants = Contender(walk.contender).label.partition(' with ')[2] if name != walk.contender else ''
        rows.append([name, f'{walk.rate:g}{constants and ", " + constants}', *map(str, outcome)])
    head = ['optimizer', 'learning rate', 'distance at the end', 'f at the end', f'steps to a distance of {NEAR:g}']
    return markdown(head, rows, numbers=range(1, 5))


def _measured(walk: Walk) -> tuple[float, float, int | str]:
    """The distance and the value at the end, and when it had come near and stayed so; 'never' if it had not."""
    far = np.flatnonzero(walk.distances > NEAR)
    steps = int(far[-1]) + 1 if far.size else 0
    value = math.inf if walk.diverged else float(rosenbrock(*walk.points[-1]))
    return float(walk.distances[-1]), value, steps if steps < len(walk.points) else 'never'


def verdict(chosen: Mapping[str, Walk], name: str, others: Sequence[str]) -> str:
    """Says in a sentence which of the others a walk ends nearer to the optimum than."""
    mine = chosen[name].distances[-1]
    beaten = [other for other in others if mine < chosen[other].distances[-1]]
    unbeaten = [other for other in others if other not in beaten]
    parts = [
        f'{verb} {", ".join(group)}'
        for verb, group in (('nearer than', beaten), ('not nearer than', unbeaten))
        if group
    ]
    return f'{name} ends {" and ".join(parts)}'


def draw(chosen: Mapping[str, Walk]) -> Figure:
    """The walks on the contours of the function, and their distance from the optimum by iteration."""
    figure = Figure(figsize=(12, 5.5), layout='constrained')
    plane, plot = figure.subplots(1, 2)
    points = np.concatenate([walk.points[np.isfinite(walk.distances)] for walk in chosen.values()])
    (left, low), (right, high) = np.clip(points, -2.5, 3).min(0) - 0.3, np.clip(points, -2.5, 3).max(0) + 0.3
    x, y = np.meshgrid(np.linspace(left, right, 400), np.linspace(low, high, 400))
    plane.contour(x, y, np.log10(rosenbrock(x, y)), levels=np.linspace(-3, 4, 22), cmap='Greys', linewidths=0.6)
    for i, (name, walk) in enumerate(chosen.items()):
        kept = walk.points[np.isfinite(walk.distances)]
        plane.plot(*kept.T, color=f'C{i}', linewidth=1.2, label=f'{name}, rate {walk.rate:g}')
        plot.plot(np.where(np.isfinite(walk.distances), walk.distances, np.nan), color=f'C{i}', linewidth=1.4)
    plane.plot(*OPTIMUM, 'ko', markersize=7, zorder=5)
    plane.set(xlabel='$x$', ylabel='$y$', xlim=(left, right), ylim=(low, high))
    plot.set(xlabel='iteration', ylabel='distance from the optimum', yscale='log')
    plot.grid(color='0.9')
    plot.spines[['top', 'right']].set_visible(False)
    figure.legend(loc='outside lower center', ncols=3, frameon=False)
    return figure
