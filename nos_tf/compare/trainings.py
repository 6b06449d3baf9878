"""Trainings on images: what is asked for is on file already, or trained, filed and shown in TensorBoard."""

import os
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import tensorflow as tf
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from tensorboard.plugins.hparams import api as hparams

from nos_tf import output
from nos_tf.errors import RunError
from nos_tf.evaluation.jobs import Evaluator, Setup
from nos_tf.evaluation.machine import is_of_machine
from nos_tf.store.trainings import Key, T, Training, TrainingStore
from nos_tf.tasks.task import check_backend
from nos_tf.tasks.training import Recipe, RecipeTrainer, Trained

Self = TypeVar('Self')  # that of `typing` is not in Python 3.10


@dataclass(frozen=True)
class RecipeSetup:
    """All that a process needs for trainings on images: the recipe, and the folder of checkpoints."""

    recipe: Recipe
    checkpoints: Path

    def identity(self) -> dict[str, Any]:
        """Returns the identity of the recipe."""
        return self.recipe.identity()

    def trainer(self) -> RecipeTrainer:
        """Returns the recipe at work."""
        return RecipeTrainer(self.recipe, self.checkpoints)


class TrainingRun(Generic[T]):
    """A run directory at work; closing it ends the evaluator and lets others have the directory.

    Args:
        store: of the directory.
        setup: of the trainings.
        evaluator: trains.
    """

    def __init__(self, store: TrainingStore[T], setup: Setup, evaluator: Any) -> None:
        self._store, self._setup, self._evaluator = store, setup, evaluator
        self._started = False

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with closing(self._store):
            if self._started:
                self._evaluator.close()

    @property
    def identity(self) -> dict[str, Any]:
        """Returns the identity of the store."""
        return self._store.identity

    def due(self, jobs: Iterable[Training], is_done: Callable[[Training, T], bool]) -> list[Training]:
        """Returns the jobs that are not on file, or not as long as they ask for."""
        found = self._store.read()
        return [job for job in jobs if job.key not in found or not is_done(job, found[job.key])]

    def run(
        self,
        jobs: Iterable[Training],
        is_done: Callable[[Training, T], bool],
        ended: Callable[[Training, T, T | None], None] = lambda *_: None,
    ) -> dict[Key, T]:
        """Trains the jobs that are not on file, and returns what all of them left.

        Args:
            jobs: may repeat.
            is_done: whether what is on file is all that the job asks for.
            ended: is told of a job that was due, of what it left, and of what had been on file.

        Raises:
            RunError: the evaluator cannot start, a worker cannot do its job, or the disk is full; what has ended is on
                file.
        """
        jobs = list(dict.fromkeys(jobs))
        found = self._store.read()
        due = self.due(jobs, is_done)
        if due and not self._started:
            try:
                self._evaluator.start(self._setup)
            except (ValueError, RuntimeError) as error:  # the data do not fit the recipe, or the threads
                raise RunError(str(error)) from error
            self._started = True
        for job in due:
            self._evaluator.submit(job)
        left = len(due)
        while left:
            for job, trained in self._evaluator.collect():
                self._store.save(job.key, trained)
                ended(job, trained, found.get(job.key))
                found[job.key] = trained
                left -= 1
        return {job.key: found[job.key] for job in jobs}

    def read(self) -> dict[Key, T]:
        """Returns all trainings on file."""
        return self._store.read()


class Trainings(TrainingRun[Trained]):
    """A run directory with trainings on images at work.

    Args:
        recipe: of all trainings.
        run_dir: gets trainings.sqlite, TensorBoard's event files, and the checkpoints of what is unfinished.
        evaluator: whose processes train.
        allow_mixed: as of `nos_tf.store.database.Database`.

    Raises:
        RunError: as `TrainingStore`, or the data do not fit the recipe.
        FileNotFoundError: the data are not there.
    """

    def __init__(self, recipe: Recipe, run_dir: Path, evaluator: Evaluator, *, allow_mixed: bool = False) -> None:
        try:
            check_backend('a comparison')
            setup = RecipeSetup(recipe, run_dir / 'checkpoints')
            identity = evaluator.identity(setup)
        except ValueError as error:
            raise RunError(str(error)) from error
        store = TrainingStore(run_dir, Trained, identity, is_of_machine=is_of_machine, allow_mixed=allow_mixed)
        super().__init__(store, setup, evaluator)
        self._checkpoints, self._events = setup.checkpoints, run_dir / 'tensorboard'
        self._console = output.console()

    def train(self, jobs: Iterable[Training], title: str) -> dict[Key, Trained]:
        """Returns the trainings of the jobs; one that is on file, as long or diverged, is not trained again.

        Raises:
            RunError: as `TrainingRun.run`.
        """
        jobs = list(dict.fromkeys(jobs))
        ready = len(jobs) - len(self.due(jobs, _is_done))
        columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, TimeRemainingColumn(), console=self._console) as progress:
            bar = progress.add_task(title, total=len(jobs), completed=ready)

            def ended(job: Training, trained: Trained, before: Trained | None) -> None:
                self._publish(job, trained, before)
                progress.advance(bar)
                self._console.print(_line(job, trained), highlight=False, soft_wrap=True)

            return self.run(jobs, _is_done, ended)

    @property
    def seconds(self) -> float:
        """Returns the seconds that all trainings on file took."""
        return sum(trained.seconds for trained in self.read().values())

    def forget_checkpoints(self) -> None:
        """Deletes what is only needed to train on."""
        for pattern in ('*.npz', '*.draft'):
            for path in self._checkpoints.glob(pattern):
                path.unlink(missing_ok=True)

    def _publish(self, job: Training, trained: Trained, before: Trained | None) -> None:
        """Writes curves and hyper-parameters for TensorBoard, without what an earlier, shorter training has written."""
        with tf.summary.create_file_writer(os.fsencode(self._events / job.key.folder)).as_default():
            if before is None:
                hparams.hparams({'optimizer': job.contender, 'learning_rate': job.rate, 'seed': job.seed})
            for name, values in trained.curve._asdict().items():
                for epoch in range(before.curve.epochs if before else 0, trained.curve.epochs):
                    tf.summary.scalar(name, values[epoch], step=epoch + 1)


def _is_done(job: Training, found: Trained) -> bool:
    return found.diverged or found.curve.epochs >= job.length


def _line(job: Training, trained: Trained) -> str:
    verdict = f'diverged in epoch {trained.curve.epochs}' if trained.diverged else f'{trained.curve.validation[-1]:.2%}'
    return f'{job.contender} at {job.rate:g}, seed {job.seed}, {job.length} epochs: {verdict}'
