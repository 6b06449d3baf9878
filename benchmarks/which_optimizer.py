"""Which optimizer is better? Those of Keras, the paper's, later ones and what searches have found, on built-in tasks.

python benchmarks/which_optimizer.py run --run_dir runs/which_optimizer   # goes on where it was, task by task
python benchmarks/which_optimizer.py page                                 # tables and figures of docs/results/bench.md

Everyone is tuned in the same way: decades of the learning rate, quarters around the best, and then two of its
hyper-parameters one after the other, so that all that are like Adam choose between the same beta_2 and epsilon. Tasks
have their sizes by default. Results are in docs/results/bench, those of each schedule in a folder.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nos_tf import output
from nos_tf.compare.bench import Bench
from nos_tf.compare.bench_result import BenchResult, TaskResult
from nos_tf.compare.paired import holm
from nos_tf.compare.verification import BASELINES
from nos_tf.dsl.known import KNOWN_RULES
from nos_tf.files import write_text
from nos_tf.report.bench_report import read, write
from nos_tf.tasks.builtin import TASKS

sys.path.append(str(Path(__file__).resolve().parent / 'tabular'))
from documents import fill, markdown

PAGE = Path(__file__).resolve().parents[1] / 'docs' / 'results' / 'bench.md'
RESULTS = PAGE.parent / 'bench'
SCHEDULES: dict[str, dict[str, Any]] = {'constant': {}, 'linear': {'lengths': (1.0,)}}

REFERENCE = BASELINES[0]
MORE = ('keras.Adamax', 'keras.Adafactor', 'keras.Muon')
PAPER = [name for name, rule in KNOWN_RULES.items() if 'Table 1' in rule.source]
LATER = ('nadam', 'cautious_adam', 'cautious_lion', 'grams')
FOUND = (
    'sign_sum',  # gin/digits.gin
    'sign(g) - drop(-sign(m) - rmsprop, 0.3)',  # docs/results/search_cifar10.md, the best of its funnel
    'lerp(sqrt(m), sign(m_nesterov))',  # docs/results/quickstart/autoencoder_with_decay, seed 0
)
CONTENDERS = tuple(dict.fromkeys((*BASELINES, *MORE, *PAPER, *LATER, *FOUND)))
CHOICES = {
    'beta_2': (0.95, 0.99, 0.999),
    'rho': (0.9, 0.95, 0.99),
    'momentum': (0.8, 0.9, 0.95),
    'epsilon': (1e-8, 1e-4),
    'beta_1': (0.8, 0.9, 0.95),
}
TUNED: dict[str, Any] = {'choices': CHOICES, 'hyper_parameters': 2, 'tuning_seeds': 2, 'seeds': 5}


def run(run_dir: Path, schedules: Sequence[str], names: Sequence[str]) -> None:
    """Trains what is not on file, and files the results as tasks come to their end."""
    for schedule in schedules:
        kept = RESULTS / schedule
        done = {task.name: task for task in read(kept).tasks} if (kept / 'summary.json').exists() else {}
        for name in [name for name in names if name not in done]:
            settings = TUNED | SCHEDULES[schedule] | {'schedule': schedule}
            bench = Bench(tasks={name: TASKS[name]()}, contenders=CONTENDERS, reference=REFERENCE, **settings)
            result = bench.run(run_dir / schedule)
            done[name] = result.tasks[0]
            whole = replace(result, tasks=tuple(done[name] for name in TASKS if name in done))
            kept.mkdir(parents=True, exist_ok=True)
            write_text(kept / 'summary.json', json.dumps(whole.as_json()))


def corrected(task: TaskResult, result: BenchResult) -> dict[str, tuple[float, float, float]]:
    """Returns contender -> gain over the reference, half of its interval, p corrected by Holm for the contenders."""
    gains = {name: task.gain(name, result.reference) for name in result.contenders}
    ps = holm({name: gain.p for name, gain in gains.items() if name != result.null})
    return {name: (gain.mean, gain.half_width, ps.get(name, gain.p)) for name, gain in gains.items()}


def page() -> None:
    """Fills the tables of the page, and draws the figures."""
    tables = {}
    for schedule in SCHEDULES:
        result = read(RESULTS / schedule)
        found = {task.name: corrected(task, result) for task in result.tasks}
        counts = {
            name: [sum(of[name][2] < 0.05 and sign * of[name][0] > 0 for of in found.values()) for sign in (1, -1)]
            for name in result.contenders
        }
        losses_alone = 'lengths' in SCHEDULES[schedule]
        rows = (
            sorted(result.rows, key=lambda row: (row.contender != result.null, -row.gain))
            if losses_alone
            else result.rows
        )
        body = [
            [
                f'`{row.contender}`' if row.contender != result.null else row.contender,
                *([] if losses_alone else [str(row.mean), f'{row.seconds:.2f}', f'{row.p:.2g}']),
                f'{row.gain:+.3f}',
                *map(str, counts[row.contender]),
            ]
            for row in rows
        ]
        speed = [] if losses_alone else ['speed-up in updates', 'in time', 'p']
        tables[f'bench: {schedule}'] = markdown(['optimizer', *speed, 'mean gain', 'better on', 'worse on'], body)
        better = [
            [task, f'`{name}`', f'{mean:+.3f} ± {half:.3f}', f'{p:.2g}']
            for task, of in found.items()
            for name, (mean, half, p) in sorted(of.items(), key=lambda item: -item[1][0])
            if mean > 0 and p < 0.05 and name != result.null
        ]
        tables[f'bench: better, {schedule}'] = markdown(['task', 'optimizer', 'gain', 'p (Holm)'], better)
        write(RESULTS / schedule)
    fill(PAGE, tables)


def main() -> None:
    """Does one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=('run', 'page'))
    parser.add_argument('--run_dir', type=Path, default=Path('runs/which_optimizer'))
    parser.add_argument('--schedules', nargs='+', choices=list(SCHEDULES), default=list(SCHEDULES))
    parser.add_argument('--tasks', nargs='+', choices=list(TASKS), default=list(TASKS))
    given = parser.parse_args()
    if given.what == 'run':
        run(given.run_dir, given.schedules, given.tasks)
    else:
        page()


if __name__ == '__main__':
    output.command(main)
