"""Optimizers on a task at the learning rate that is best for each: the same effort for everyone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from nos_tf import output
from nos_tf.compare.trainings import TrainingRun
from nos_tf.config import bindings_of
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.errors import RunError
from nos_tf.evaluation.machine import is_of_machine
from nos_tf.optimizers.contender import Contender
from nos_tf.store.trainings import Key, Training, TrainingStore
from nos_tf.tasks.child import Child, ChildSetup
from nos_tf.tasks.task import Task

ALL_RATES = 0.0  # in the place of a rate, where all are tried


class Tuned(NamedTuple):
    """An optimizer on a task, with one seed."""

    measure: float  # of the task, at the best rate
    learning_rate: float
    sweep: tuple[float | None, ...]  # as of `Outcome`
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """It as JSON values."""
        return self._asdict()

    @classmethod
    def of_json(cls, fields: Mapping[str, Any]) -> 'Tuned':
        """The inverse of `as_json`."""
        return cls(**{**fields, 'sweep': tuple(fields['sweep'])})


@dataclass(frozen=True)
class TuningSetup:
    """All that a process needs to tune optimizers.

    Args:
        task: what they are judged on.
        child: how a rate is found.
        contenders: rules as text (`nos_tf.optimizers.contender`), all that may come.
    """

    task: Task
    child: Child
    contenders: tuple[str, ...]

    def identity(self) -> dict[str, Any]:
        """Returns all that a result depends on but the machine; not who else is compared."""
        return {**self.task.identity(), **bindings_of(self.child)}

    def trainer(self) -> 'Tuning':
        """Returns what trains."""
        return Tuning(self)


class Tuning:
    """Tunes optimizers, one after the other; one graph for all.

    Raises:
        ValueError: a contender is no rule, or the data do not fit the task.
    """

    def __init__(self, setup: TuningSetup) -> None:
        rules = {text: Contender(text).rule for text in setup.contenders}
        if unfit := [text for text, rule in rules.items() if rule is None]:
            raise ValueError(f'{unfit[0]!r}: must be a rule, for its rate is found in a graph that trains rules')
        self._rules = {text: rule for text, rule in rules.items() if rule is not None}
        vocabulary = Vocabulary.of(None, self._rules.values())
        self._trainer = ChildSetup(setup.child, setup.task, vocabulary).trainer()

    def train(self, contender: str, rate: float, seed: int, length: int) -> Tuned:
        """Returns how an optimizer does.

        Args:
            contender: one of the setup.
            rate: of no meaning: all are tried.
            seed: of weights, order and random primitives.
            length: of no meaning: the task has its own.
        """
        told: Any = Contender(contender).constants
        constants = replace(self._trainer.child.constants, **told)
        outcome = self._trainer.train(self._rules[contender], seed, constants)
        return Tuned(outcome.reward, outcome.learning_rate, outcome.sweep, outcome.seconds)


def tune(
    setup: TuningSetup,
    seeds: Sequence[int],
    evaluator: Any,
    folder: Path,
    *,
    title: str = 'tuning',
    allow_mixed: bool = False,
) -> dict[str, list[Tuned]]:
    """Returns how every contender of a setup does with each seed; what is on file is not trained again.

    Args:
        setup: of the trainings.
        seeds: of each contender.
        evaluator: whose processes train.
        folder: gets trainings.sqlite.
        title: of the bar of progress.
        allow_mixed: as of `nos_tf.store.database.Database`.

    Raises:
        RunError: the folder holds trainings of another task, or the data do not fit.
    """
    try:
        identity = evaluator.identity(setup)
    except ValueError as error:
        raise RunError(str(error)) from error
    store = TrainingStore(folder, Tuned, identity, is_of_machine=is_of_machine, allow_mixed=allow_mixed)
    jobs = [Training(contender, ALL_RATES, seed, 0) for seed in seeds for contender in setup.contenders]
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        TrainingRun(store, setup, evaluator) as run,
        Progress(*columns, TimeRemainingColumn(), console=output.console()) as progress,
    ):
        due = len(run.due(jobs, lambda *_: True))
        if due:
            output.say(f'{title}: {len(jobs)} trainings at all rates, of which {len(jobs) - due} are there')
        bar = progress.add_task(title, total=len(jobs), completed=len(jobs) - due)
        found = run.run(jobs, lambda *_: True, lambda *_: progress.advance(bar))
    return {text: [found[Key(text, ALL_RATES, seed)] for seed in seeds] for text in setup.contenders}
