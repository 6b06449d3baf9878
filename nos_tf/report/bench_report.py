"""report.html of a bench: who is faster than the reference, on which tasks, and how sure that is."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from nos_tf.compare.bench_result import HALF, BenchResult, TaskResult, shown
from nos_tf.compare.curves import Curve
from nos_tf.compare.speedups import profile
from nos_tf.errors import RunError
from nos_tf.report.figures import TAB_10, png_of
from nos_tf.report.mixed import warnings
from nos_tf.report.page import EDGE, Section, at_edge, image, paragraph, readable, write_page
from nos_tf.store.summary import read_summary
from nos_tf.store.trainings import TRAININGS, kind_of, name_of

COMMAND = 'nos-tf bench'
FARTHEST = math.log(2)  # speed-ups, as logarithms, at which a colour of the heat map ends
SAYS = (
    'How many times fewer updates, and less time here, an optimizer needs to the mean loss that {reference} ends with. '
    'Learning rates are tuned at quarter decades, and one more hyper-parameter where a setting names it, with the same '
    'effort for everyone and on other seeds. Half of the seeds set the target and the others are timed, many times '
    'over; those that never get there count as if they did where their curves end, at twice the updates. Means are '
    'geometric over tasks, and interquartile over those in the middle half; in brackets are 95% intervals by a '
    'bootstrap over seeds, each for itself. The p of the mean is corrected for the number of contenders (Holm), but '
    'for that of the null control. Time is by the median of an update here; that of the null control tells how far to '
    'trust it. Gains are log(loss of {reference} / loss) after as many updates.'
)
OF_TASK = 'The p of a gain is that of the paired t-test, of this cell alone. '


def write(run_dir: Path) -> Path:
    """Writes report.html, tables.md and the figures from summary.json.

    Returns:
        the path of the page.

    Raises:
        RunError: there is no bench that has come to its end.
    """
    result = read(run_dir)
    told = json.loads((run_dir / 'summary.json').read_text(encoding='utf-8'))['configuration']
    figures = {
        'speed_ups.png': (_heat_map(result), 'speed-ups in updates by task; below 1 is slower'),
        'profile.png': (_profile(result), 'share of tasks on which an optimizer is within a factor of the best'),
        'bowls.png': (_bowls(result), 'loss at the end by learning rate, each at its best setting, on tuning seeds'),
    }
    settings = [[key, json.dumps(value)] for key, value in told.items()]
    sections = [_main(result), *(_of_task(result, task) for task in result.tasks)]
    (run_dir / 'tables.md').write_text(readable('\n'.join(s.markdown() for s in sections)), encoding='utf-8')
    for name, (png, _) in figures.items():
        (run_dir / name).write_bytes(png)
    body = [
        paragraph(result.verdict),
        *map(paragraph, (*result.notes, *warnings(told))),
        sections[0].html(),
        *(image(*figure) for figure in figures.values()),
        *(section.html() for section in (*sections[1:], Section('Configuration', '', ['name', 'value'], settings))),
    ]
    return write_page(run_dir, 'Bench of optimizers', body)


def read(run_dir: Path) -> BenchResult:
    """Returns the result of a bench.

    Raises:
        RunError: there is none that has come to its end.
    """
    summary = read_summary(run_dir, COMMAND, 'bench', 'reference', 'null', 'configuration')
    if summary is None:
        raise RunError(f'{run_dir} holds no bench that has come to its end: run {COMMAND} with this --run_dir first')
    return BenchResult.of_json(summary)


def is_bench(run_dir: Path) -> bool:
    """Returns whether a run directory holds a bench, finished or not."""
    try:
        if 'bench' in json.loads((run_dir / 'summary.json').read_text(encoding='utf-8')):
            return True
    except (OSError, ValueError):
        pass
    return any(kind_of(path.parent) == name_of(Curve) for path in run_dir.glob(f'*/**/{TRAININGS.file_name}'))


def _main(result: BenchResult) -> Section:
    tasks = len(result.tasks)
    rows = [
        [
            row.contender, str(row.mean), str(row.interquartile), f'{row.seconds:.2f}',
            '' if math.isnan(row.p) else f'{row.p:.2g}', f'{row.reached} of {tasks}',
            '' if math.isnan(row.gain) else f'{row.gain:+.3f}',
        ]
        for row in result.rows
    ]  # fmt: skip
    head = ['optimizer', 'updates', 'interquartile', 'time', 'p', 'target reached', 'mean gain']
    says = SAYS.format(reference=result.reference)
    title = f'Speed-ups over {result.reference} (tasks: {tasks}, seeds: {result.seeds})'
    return Section(title, says, head, rows, range(1, len(head)), [0])


def _of_task(result: BenchResult, task: TaskResult) -> Section:
    return Section(
        f'{task.name}: {task.budget:,} updates',
        ('' if task.untrained is None else f'Untrained, the loss is {shown(task.untrained)}. ') + OF_TASK + EDGE,
        ['optimizer', 'setting', 'learning rate', 'loss', 'gain', 'p of gain', 'speed-up', 'reached', 'ms an update'],
        list(_rows_of_task(result, task)),
        range(2, 9),
    )


def _rows_of_task(result: BenchResult, task: TaskResult) -> Iterator[list[str]]:
    for name in (result.reference, *result.contenders):
        text, rate = task.setting(name if name in task.bowls else result.reference)
        tuned = text.partition(' with ')[2]
        gain = task.gain(name, result.reference)
        told = '' if math.isnan(gain.mean) else f'{gain.mean:+.3f} ± {gain.half_width:.3f}'.removesuffix(' ± nan')
        is_other = name != result.reference
        bowl = task.bowls.get(name, task.bowls[result.reference])[text]
        yield [
            name, tuned, f'{rate:g}{at_edge(rate, bowl)}', shown(task.final(name).mean()),
            told if is_other else '', f'{gain.p:.2g}' if is_other and not math.isnan(gain.p) else '',
            str(result.speed_ups[name][task.name].estimate) if is_other else '1',
            f'{result.speed_ups[name][task.name].reached:.0%}' if is_other else '',
            f'{1000 * task.step_seconds[name]:.3g}',
        ]  # fmt: skip


def _heat_map(result: BenchResult) -> bytes:
    names, tasks = [row.contender for row in result.rows], [task.name for task in result.tasks]
    logs = np.array([[result.speed_ups[name][task].value for task in tasks] for name in names])
    figure = Figure(figsize=(2.5 + 0.9 * len(tasks), 1.6 + 0.4 * len(names)), layout='constrained')
    axes = figure.subplots()
    axes.imshow(logs, cmap='RdBu', vmin=-FARTHEST, vmax=FARTHEST, aspect='auto')
    axes.set_xticks(range(len(tasks)), tasks, rotation=35, ha='right')
    axes.set_yticks(range(len(names)), names)
    for (i, j), value in np.ndenumerate(logs):
        dark = abs(value) > 0.7 * FARTHEST
        axes.text(j, i, f'{math.exp(value):.2f}', ha='center', va='center', color='white' if dark else 'black')
    return png_of(figure)


def _profile(result: BenchResult) -> bytes:
    """Draws the shares of tasks on which each is within a factor of the best."""
    times = {result.reference: [1.0] * len(result.tasks)}
    for name, of in result.speed_ups.items():
        if name != result.null:
            times[name] = [math.exp(-one.value) if one.reached >= HALF else math.inf for one in of.values()]
    factors = np.geomspace(1, 4, 200)
    figure = Figure(figsize=(8, 4.5), layout='constrained')
    axes = figure.subplots()
    for i, (name, share) in enumerate(profile(times, factors).items()):
        axes.step(factors, share, _style(i), where='post', color=TAB_10[i % len(TAB_10)], label=name)
    axes.set(xlabel='factor of the fewest updates to the target', ylabel='share of tasks', xscale='log', ylim=(0, 1.03))
    ticks = [1, 1.5, 2, 3, 4]
    axes.set_xticks(ticks, map(str, ticks))
    axes.minorticks_off()
    axes.spines[['top', 'right']].set_visible(False)
    figure.legend(loc='outside lower center', ncols=2, frameon=False)
    return png_of(figure)


def _bowls(result: BenchResult) -> bytes:
    """Draws the loss by learning rate on each task, cut off where it is that of an untrained model."""
    columns = min(3, len(result.tasks))
    rows = math.ceil(len(result.tasks) / columns)
    figure = Figure(figsize=(max(8, 4 * columns), 3 * rows + 1), layout='constrained')
    for axes, task in zip(figure.subplots(rows, columns, squeeze=False).flat, result.tasks, strict=False):
        seen: list[float] = []
        for i, name in enumerate(task.bowls):
            bowl = sorted(task.bowls[name][task.setting(name)[0]].items())
            rates, losses = zip(*bowl, strict=True)
            colour, label = TAB_10[i % len(TAB_10)], name if task is result.tasks[0] else None
            axes.plot(rates, losses, f'.{_style(i)}', color=colour, linewidth=1, label=label)
            seen += losses
        highest = max(seen) if task.untrained is None else task.untrained
        low = min(seen)
        axes.set(title=task.name, xscale='log', ylim=(low - 0.05 * (highest - low), highest))
        axes.spines[['top', 'right']].set_visible(False)
    figure.legend(loc='outside lower center', ncols=2, frameon=False)
    return png_of(figure)


def _style(i: int) -> str:
    styles: Sequence[str] = ('-', '--', ':')
    return styles[i // len(TAB_10) % len(styles)]
