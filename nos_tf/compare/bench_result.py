"""What a bench has found: losses of everyone on each task, and the figures that follow from them."""

import csv
import io
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nos_tf.compare.curves import Curve
from nos_tf.compare.paired import Difference, holm
from nos_tf.compare.speedups import (
    FEWEST,
    IN_A_ROW,
    Estimate,
    SpeedUp,
    geometric_mean,
    interquartile_mean,
    p_value,
    speed_up,
)
from nos_tf.files import whole
from nos_tf.store.trainings import read_trainings

HALF = 0.5  # of the halves of the seeds: an optimizer that reaches the target on as many has reached it
TELLING = 1.5  # the widest interval of the null control, upper over lower bound, that says anything
CURVES = 'curves.csv'  # of a run directory


@dataclass(frozen=True)
class TaskResult:
    """A bench on one task.

    Args:
        name: of the task.
        steps: updates before each measure, or of each training of a ladder, ascending.
        budget: updates of the task, one of `steps`.
        losses: contender -> seed -> loss on validation data at `steps`, the lower the better.
        step_seconds: contender -> seconds of an update, the median over seeds.
        diverged: contender -> seeds on which it lost all weights.
        bowls: contender -> setting as text -> learning rate -> mean loss on the seeds of the tuning.
        is_ladder: whether each of `steps` is a training of its own.
        untrained: the loss before training, if there is such a number.
    """

    name: str
    steps: tuple[int, ...]
    budget: int
    losses: Mapping[str, tuple[tuple[float, ...], ...]]
    step_seconds: Mapping[str, float]
    diverged: Mapping[str, int]
    bowls: Mapping[str, Mapping[str, Mapping[float, float]]]
    is_ladder: bool
    untrained: float | None

    @property
    def target(self) -> int:
        """The index of the measure at the budget."""
        return self.steps.index(self.budget)

    @property
    def _in_a_row(self) -> int:
        return 1 if self.is_ladder else IN_A_ROW

    def final(self, contender: str) -> np.ndarray:
        """Returns the losses at the budget, [seeds]."""
        return np.array(self.losses[contender])[:, self.target]

    def setting(self, contender: str) -> tuple[str, float]:
        """Returns the setting and the learning rate that the tuning has chosen."""
        return best_of(self.bowls[contender])[:2]

    def speed_up(self, contender: str, reference: str) -> SpeedUp:
        """Returns how many times fewer updates a contender needs."""
        ours, theirs = (np.array(self.losses[name]) for name in (reference, contender))
        return speed_up(ours, theirs, np.array(self.steps), self.target, self._in_a_row, zlib.crc32(self.name.encode()))

    def gain(self, contender: str, reference: str) -> Difference:
        """Returns log(loss of the reference / loss) at the budget, by seed; NaN where a loss is not above zero."""
        ours, theirs = self.final(contender), self.final(reference)
        if not (ours > 0).all() or not (theirs > 0).all():
            return Difference(math.nan, math.nan, math.nan)
        return Difference.of(np.log(theirs), np.log(ours))


def best_of(bowls: Mapping[str, Mapping[float, float]]) -> tuple[str, float, float]:
    """Returns setting, learning rate and loss of the best that was tried; of equals the first."""
    tried = ((text, rate, loss) for text, bowl in bowls.items() for rate, loss in bowl.items())
    return min(tried, key=lambda setting: setting[2])


def shown(loss: float) -> str:
    """Returns a loss as text; what is below zero is the negative of a measure such as accuracy."""
    return f'{loss:.4g}' if loss >= 0 else f'a measure of {-loss:.4g}'


class Row(NamedTuple):
    """A contender over all tasks."""

    contender: str
    mean: Estimate  # of speed-ups in updates: their geometric mean
    interquartile: Estimate
    p: float  # of the geometric mean, corrected by Holm for how many contenders there are
    seconds: float  # the geometric mean in seconds, by those of an update here
    reached: int  # tasks on which it reached the target
    gain: float  # the mean of gains at the budget


@dataclass(frozen=True)
class BenchResult:
    """A bench; printed, it is a table of all contenders, the null control on top."""

    reference: str
    null: str
    tasks: tuple[TaskResult, ...]
    configuration: Mapping[str, Any]

    @property
    def contenders(self) -> list[str]:
        """Everyone but the reference, the null control first."""
        return [self.null, *(name for name in self.tasks[0].losses if name not in (self.reference, self.null))]

    @property
    def seeds(self) -> int:
        """The seeds that everyone was judged on."""
        return len(self.tasks[0].losses[self.reference])

    @cached_property
    def speed_ups(self) -> dict[str, dict[str, SpeedUp]]:
        """Contender -> task -> how many times fewer updates it needs than the reference."""
        return {
            name: {task.name: task.speed_up(name, self.reference) for task in self.tasks} for name in self.contenders
        }

    @cached_property
    def rows(self) -> list[Row]:
        """The contenders, the null control first, then the best first."""
        found = {name: list(of.values()) for name, of in self.speed_ups.items()}
        corrected = holm({name: p_value(of) for name, of in found.items() if name != self.null})
        rows = []
        for name, of in found.items():
            slower = np.mean([math.log(t.step_seconds[name] / t.step_seconds[self.reference]) for t in self.tasks])
            mean = geometric_mean(of)
            gains = [task.gain(name, self.reference).mean for task in self.tasks]
            reached = sum(one.reached >= HALF for one in of)
            p = corrected.get(name, p_value(of))
            seconds = mean.value / math.exp(slower)
            rows.append(Row(name, mean, interquartile_mean(of), p, seconds, reached, float(np.mean(gains))))
        return sorted(rows, key=lambda row: (row.contender != self.null, -row.mean.value))

    @property
    def verdict(self) -> str:
        """Says whether the ruler is straight."""
        if all(task.steps[-1] <= task.budget for task in self.tasks):
            return 'No training is longer than the task: losses are compared, and speed-ups say nothing.'
        mean = self.rows[0].mean
        if self.seeds < FEWEST:
            return (
                f'{self.seeds} seeds, and intervals need {FEWEST}: believe nothing yet. {self.reference} against '
                f'itself on fresh seeds reads {mean}.'
            )
        if mean.high > TELLING * mean.low:
            return (
                f'{self.reference} against itself on fresh seeds reads {mean}: too wide to tell much, take more seeds.'
            )
        straight = mean.low <= 1 <= mean.high
        return f'{self.reference} against itself on fresh seeds reads {mean}' + (
            ': the ruler is straight.'
            if straight
            else ', and 1.00 is outside: THE RULER IS BENT, or this is the one time in twenty: take more seeds.'
        )

    @property
    def notes(self) -> list[str]:
        """Sentences about what the figures do not show."""
        said = []
        for task in self.tasks:
            for name, bowl in task.bowls.items():
                text, rate = task.setting(name)
                if len(bowl[text]) > 1 and rate in (min(bowl[text]), max(bowl[text])):
                    said.append(
                        f'On {task.name}, the best learning rate of {name}, {rate:g}, is at the edge of those tried.'
                    )
            lost = [name for name, count in task.diverged.items() if count == self.seeds]
            said += [f'On {task.name}, {name} diverges on every seed.' for name in lost]
            if not any(self.speed_ups[name][task.name].reached >= HALF for name in self.contenders):
                said.append(f'On {task.name} nobody reaches the target, but for {self.reference} on its own seeds.')
            if any(math.isnan(task.gain(name, self.reference).mean) for name in self.contenders):
                said.append(f'On {task.name} a loss is not above zero, and gains, which are logarithms, are undefined.')
        return said

    def as_json(self) -> dict[str, Any]:
        """It as JSON values, of which `read` makes it again."""
        return {
            'bench': [asdict(task) for task in self.tasks],
            'reference': self.reference,
            'null': self.null,
            'verdict': self.verdict,
            'configuration': dict(self.configuration),
        }

    @classmethod
    def of_json(cls, fields: Mapping[str, Any]) -> 'BenchResult':
        """The inverse of `as_json`."""
        return cls(fields['reference'], fields['null'], tuple(map(_task_of, fields['bench'])), fields['configuration'])

    def __str__(self) -> str:
        seconds = 'in seconds'
        width = max(len(row.contender) for row in self.rows) + 2
        lines = [self.verdict, '', f'{"":{width}}{"updates":22}{seconds:12}{"p (Holm)":10}{"reached":9}{"gain":>7}']
        for row in self.rows:
            p = '' if math.isnan(row.p) else f'{row.p:.2g}'
            lines.append(
                f'{row.contender:{width}}{row.mean!s:22}{row.seconds:<12.2f}{p:10}'
                f'{f"{row.reached}/{len(self.tasks)}":9}{"" if math.isnan(row.gain) else f"{row.gain:+.3f}":>7}'
            )
        told = (
            f'Speed-ups over {self.reference}, the geometric mean over tasks: {len(self.tasks)}; seeds: {self.seeds}.'
        )
        return '\n'.join([*lines, '', told, *self.notes])


def _task_of(fields: Mapping[str, Any]) -> TaskResult:
    bowls = {
        name: {text: {float(rate): loss for rate, loss in bowl.items()} for text, bowl in of.items()}
        for name, of in fields['bowls'].items()
    }
    losses = {name: tuple(map(tuple, of)) for name, of in fields['losses'].items()}
    return TaskResult(**{**fields, 'steps': tuple(fields['steps']), 'losses': losses, 'bowls': bowls})


COLUMNS = (
    'task',
    'optimizer',
    'learning_rate',
    'seed',
    'steps',
    'measure',
    'training_loss',
    'step_seconds',
    'diverged',
)


def write_curves(run_dir: Path, folders: Sequence[Path]) -> Path:
    """Writes curves.csv, a row for each measure of each training that is on file; returns its path.

    Args:
        run_dir: gets it.
        folders: in it, of the trainings.
    """
    path = run_dir / CURVES
    with whole(path) as file:
        table = csv.writer(text := io.TextIOWrapper(file, encoding='utf-8', newline=''))
        table.writerow(COLUMNS)
        for folder in folders:
            task = folder.relative_to(run_dir).as_posix()
            for key, curve in sorted(read_trainings(folder, Curve).items()):
                for step, measure, loss in zip(curve.steps, curve.measures, curve.losses, strict=True):
                    told = '' if math.isnan(loss) else loss
                    table.writerow([task, *key, step, measure, told, f'{curve.step_seconds:.3g}', int(curve.diverged)])
        text.detach()  # which flushes it
    return path
