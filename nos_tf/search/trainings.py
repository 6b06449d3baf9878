"""Trainings on images: what is asked for is on file already, or trained, filed and shown in TensorBoard."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from tensorboard.plugins.hparams import api as hparams

from nos_tf import output
from nos_tf.search import RunError
from nos_tf.search.evaluators import InProcess, ProcessPool
from nos_tf.search.training_run import Key, Training, TrainingRun, TrainingStore
from nos_tf.tasks.machine import check_backend
from nos_tf.tasks.recipe import Recipe, Trained
from nos_tf.tasks.recipe_trainer import RecipeTrainer


@dataclass(frozen=True)
class _Course:
    """What a worker process is told."""

    recipe: Recipe
    checkpoints: Path

    def trainer(self, _: Any) -> RecipeTrainer:
        return RecipeTrainer(self.recipe, self.checkpoints)


class Trainings:
    """A run directory at work.

    Args:
        recipe: of all trainings.
        run_dir: gets trainings.sqlite, TensorBoard's event files, and the checkpoints of what is unfinished.
        evaluator: whose processes train.
        allow_mixed: as of `nos_tf.search.database.Database`.

    Raises:
        RunError: as `TrainingStore`, or the data do not fit the recipe.
        FileNotFoundError: the data are not there.
    """

    def __init__(
        self, recipe: Recipe, run_dir: Path, evaluator: InProcess | ProcessPool, *, allow_mixed: bool = False
    ) -> None:
        try:
            check_backend('a comparison')
            identity = recipe.identity() | evaluator.machine()
        except ValueError as error:
            raise RunError(str(error)) from error
        course = _Course(recipe, run_dir / 'checkpoints')
        store = TrainingStore(run_dir, Trained, identity, allow_mixed=allow_mixed)
        self._run = TrainingRun(store, course, evaluator)
        self._checkpoints, self._events = course.checkpoints, run_dir / 'tensorboard'
        self._console = output.console()

    def __enter__(self) -> 'Trainings':
        return self

    def __exit__(self, *error: object) -> None:
        self._run.__exit__(*error)

    def run(self, jobs: Iterable[Training], title: str) -> dict[Key, Trained]:
        """What became of the jobs, of so many epochs; one that is on file, as long or diverged, is not trained again.

        Raises:
            RunError: as `TrainingRun.run`.
        """
        jobs = list(dict.fromkeys(jobs))
        ready = len(jobs) - len(self._run.due(jobs, _is_done))
        columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, TimeRemainingColumn(), console=self._console) as progress:
            bar = progress.add_task(title, total=len(jobs), completed=ready)

            def ended(job: Training, trained: Trained, before: Trained | None) -> None:
                self._publish(job, trained, before)
                progress.advance(bar)
                self._console.print(_line(job, trained), highlight=False, soft_wrap=True)

            return self._run.run(jobs, _is_done, ended)

    @property
    def seconds(self) -> float:
        """What all trainings on file took, added."""
        return sum(trained.seconds for trained in self._run.read().values())

    @property
    def identity(self) -> dict[str, Any]:
        """As of `nos_tf.search.training_run.TrainingStore`."""
        return self._run.identity

    def forget_checkpoints(self) -> None:
        """Deletes what is only needed to train on."""
        for pattern in ('*.npz', '*.draft'):
            for path in self._checkpoints.glob(pattern):
                path.unlink(missing_ok=True)

    def _publish(self, job: Training, trained: Trained, before: Trained | None) -> None:
        """Curves and hyper-parameters for TensorBoard; what an earlier, shorter training has told is not told again."""
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
