"""The built-in tasks in numbers: their sizes, the time of a training, and what optimizers that have a name reach.

python benchmarks/builtin_tasks.py --tasks digits_mlp wine

Each optimizer is tuned in the same way on each task: first the decades of learning rates from 1e-4 to 1 on one seed,
then the quarter decades around the best on all seeds; where the best is the first or the last, one more is tried beside
it. A loss is the mean over the seeds of the validation loss after a whole training, and its rate stands behind it. Rows
go to nos_tf/tasks/builtin/figures.csv as they come; tasks that have one are trained again only if named. A task takes
two minutes on one core. The seconds are those of the processor, so that others on the machine do not count.
"""

import argparse
import csv
import io
import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import numpy as np
import tensorflow as tf
from optimizer_step import machine

from nos_tf import UpdateRule, output
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.evaluation.machine import use_one_cpu_thread
from nos_tf.files import write_text
from nos_tf.tasks import builtin
from nos_tf.tasks.child import Child, ChildSetup
from nos_tf.tasks.keras_data import count
from nos_tf.tasks.keras_task import KerasTask

OPTIMIZERS = {  # name: rule, decoupled weight decay
    'sgd': ('sgd', 0.0),
    'momentum': ('momentum', 0.0),
    'adam': ('adam', 0.0),
    'adamw': ('adam', 0.01),
    'rmsprop': ('rmsprop', 0.0),
    'lion': ('lion', 0.0),
}
RULES = {name: UpdateRule.parse(name) for name in ('sgd', 'momentum', 'adam', 'rmsprop', 'lion')}
DECADES = (-4.0, -3.0, -2.0, -1.0, 0.0)
QUARTERS = (-0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75)
FARTHEST = 6.0  # decades above or below a rate of 1


class AnyRate:
    """A task whose learning rate and weight decay are variables, so that one graph trains it with any."""

    def __init__(self, task: KerasTask) -> None:
        self._task = task
        self.rate, self.decay = tf.Variable(1.0), tf.Variable(0.0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task.load(), name)

    @property
    def chance(self) -> float:
        """The measure before training."""
        return self._task.chance

    def load(self) -> 'AnyRate':
        """Returns itself."""
        return self

    def schedule(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the learning rate."""
        return self.rate


class Trainings:
    """The trainings of a task, by one graph."""

    def __init__(self, task: KerasTask, seeds: int) -> None:
        self._task, self._seeds = AnyRate(task), range(1, seeds + 1)
        loaded = task.load()
        child = Child(learning_rates=(1.0,), sweep_epochs=loaded.steps // loaded.steps_per_epoch)
        self._trainer = ChildSetup(child, self._task, Vocabulary.of(None, RULES.values())).trainer()
        for seed in self._seeds:
            self._trainer.start(seed)  # Keras seeds TensorFlow then, which forgets what it has made of a graph
        self.train('adam', -3.0, self._seeds[0])  # waits for the trace
        self.seconds: list[float] = []

    def train(self, optimizer: str, exponent: float, seed: int) -> float:
        """Returns the loss at a rate, the power of ten with this exponent."""
        name, decay = OPTIMIZERS[optimizer]
        self._task.rate.assign(10.0**exponent)
        self._task.decay.assign(decay)
        return -self._trainer.train(RULES[name], seed).reward

    def tuned(self, optimizer: str) -> tuple[float, float]:
        """Returns the lowest mean loss of an optimizer, and its rate."""

        @cache
        def of_seed(exponent: float, seed: int) -> float:
            start = time.process_time()
            loss = self.train(optimizer, exponent, seed)
            self.seconds.append(time.process_time() - start)
            return loss

        def of_all(exponent: float) -> float:
            return statistics.mean(of_seed(exponent, seed) for seed in self._seeds)

        decade = lowest(lambda exponent: of_seed(exponent, self._seeds[0]), DECADES, 1.0)
        best = lowest(of_all, [decade + quarter for quarter in QUARTERS], 0.25)
        return of_all(best), 10.0**best


def lowest(loss: Callable[[float], float], exponents: Sequence[float], step: float) -> float:
    """Returns where a loss is lowest; goes on by steps where that is at an end."""
    grid = sorted(exponents)
    while True:
        best = min(grid, key=loss)
        if best == grid[0] > -FARTHEST:
            grid.insert(0, best - step)
        elif best == grid[-1] < FARTHEST:
            grid.append(best + step)
        else:
            return best


def row_of(name: str, seeds: int) -> dict[str, Any]:
    """Trains all optimizers on a task."""
    task = builtin.TASKS[name]()
    loaded = task.load()
    trainings = Trainings(task, seeds)
    tuned = {optimizer: trainings.tuned(optimizer) for optimizer in OPTIMIZERS}
    return {
        'task': name,
        'weights': int(np.prod(loaded.start(0)[0].shape)),
        'examples': count(loaded.data.train),
        'steps': loaded.steps,
        'seconds': f'{statistics.median(trainings.seconds):.2f}',
        'untrained': f'{-task.chance:.4f}',
        **{optimizer: f'{loss:.5f}' for optimizer, (loss, _) in tuned.items()},
        **{f'{optimizer}_rate': f'{rate:.3g}' for optimizer, (_, rate) in tuned.items()},
    }


def read_rows(path: Path) -> dict[str, dict[str, Any]]:
    """Returns the rows on file by task; none where there is no file."""
    if not path.exists():
        return {}
    with path.open(encoding='utf-8', newline='') as file:
        return {row['task']: row for row in csv.DictReader(file)}


def write_rows(path: Path, rows: dict[str, dict[str, Any]]) -> None:
    """Writes the rows in the order of the tasks."""
    text = io.StringIO()
    ordered = [rows[name] for name in builtin.TASKS if name in rows]
    writer = csv.DictWriter(text, list(ordered[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(ordered)
    write_text(path, text.getvalue())


def markdown(row: dict[str, Any]) -> str:
    """A line of the table: the loss of each optimizer, and at which rate."""
    first = [str(value) for name, value in row.items() if name not in OPTIMIZERS and not name.endswith('_rate')]
    return '| ' + ' | '.join([*first, *(f'{row[name]} ({row[f"{name}_rate"]})' for name in OPTIMIZERS)]) + ' |'


def main() -> None:
    """Trains what is missing, writes the table and prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--tasks', nargs='+', choices=list(builtin.TASKS), metavar='NAME', help='the missing ones')
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--table', type=Path, default=builtin.FIGURES, help='the file to write')
    arguments = parser.parse_args()
    use_one_cpu_thread()
    rows = read_rows(arguments.table)
    print(f'{machine()}; one thread, {arguments.seeds} seeds; validation loss (learning rate)\n')
    header = ['task', 'weights', 'examples', 'steps', 'seconds', 'untrained', *OPTIMIZERS]
    print('| ' + ' | '.join(header) + ' |\n' + '|---' * len(header) + '|')
    for name in builtin.TASKS:
        if name in arguments.tasks if arguments.tasks else name not in rows:
            rows[name] = row_of(name, arguments.seeds)
            write_rows(arguments.table, rows)
        if name in rows:
            print(markdown(rows[name]), flush=True)


if __name__ == '__main__':
    output.command(main)
