"""Trainings of one recipe: what is asked for is on file already, or trained, filed and shown in TensorBoard."""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from tensorboard.plugins.hparams import api as hparams

from nos_tf.search import RunError
from nos_tf.search.database import Database
from nos_tf.search.evaluators import InProcess, ProcessPool
from nos_tf.search.files import explained
from nos_tf.tasks.recipe import Curve, Recipe, Trained
from nos_tf.tasks.recipe_trainer import RecipeTrainer

FILE_NAME = 'trainings.sqlite'
VERSION = 1
TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE trainings (
    contender TEXT NOT NULL,      -- the optimizer as text
    rate REAL NOT NULL,
    seed INTEGER NOT NULL,
    curve TEXT NOT NULL,          -- JSON: loss, validation and test accuracy, each a list by epoch
    seconds REAL NOT NULL,
    diverged INTEGER NOT NULL,    -- 1: and so the curve ends before its time
    PRIMARY KEY (contender, rate, seed)
) WITHOUT ROWID;
"""


class Key(NamedTuple):
    """Which training."""

    contender: str
    rate: float
    seed: int


class Training(NamedTuple):
    """A job: what `RecipeTrainer.train` takes."""

    contender: str
    rate: float
    seed: int
    epochs: int

    @property
    def key(self) -> Key:
        """It without its length, which may grow."""
        return Key(*self[:3])

    def __str__(self) -> str:
        return f'{self.contender} at {self.rate:g}, seed {self.seed}, {self.epochs} epochs'


class TrainingStore(Database):
    """The trainings of a run directory, in `trainings.sqlite`.

    Args:
        run_dir: made if it does not exist.
        identity: of the recipe; a directory of another one is refused.

    Raises:
        RunError: as `Database`.
    """

    def __init__(self, run_dir: Path, identity: Mapping[str, Any]) -> None:
        super().__init__(run_dir, FILE_NAME, TABLES, {'schema': VERSION, **identity})

    def save(self, key: Key, trained: Trained) -> None:
        """Files a training for good, in place of a shorter one."""
        values = (json.dumps(trained.curve._asdict()), trained.seconds, int(trained.diverged))
        with self._transaction():
            self._db.execute('INSERT OR REPLACE INTO trainings VALUES (?, ?, ?, ?, ?, ?)', (*key, *values))

    def read(self) -> dict[Key, Trained]:
        """All that is on file."""
        with explained(self.path):
            return _read(self._db)


def read_trainings(run_dir: Path) -> dict[Key, Trained]:
    """The trainings of a run, which may be under way.

    Raises:
        RunError: there are none.
    """
    path = run_dir / FILE_NAME
    if not path.exists():
        raise RunError(f'{run_dir} holds no {FILE_NAME}: no comparison has run there')
    with explained(path), closing(sqlite3.connect(f'{path.resolve().as_uri()}?mode=ro', uri=True)) as db:
        return _read(db)


def _read(db: Any) -> dict[Key, Trained]:
    rows = db.execute('SELECT contender, rate, seed, curve, seconds, diverged FROM trainings').fetchall()
    return {
        Key(*key): Trained(Curve(**{k: tuple(v) for k, v in json.loads(curve).items()}), seconds, bool(diverged))
        for *key, curve, seconds, diverged in rows
    }


@dataclass(frozen=True)
class _Course:
    """What a worker process is told."""

    recipe: Recipe
    checkpoints: Path

    def trainer(self, _: int) -> RecipeTrainer:
        return RecipeTrainer(self.recipe, self.checkpoints)


class Trainings:
    """A run directory at work.

    Args:
        recipe: of all trainings.
        run_dir: gets trainings.sqlite, TensorBoard's event files, and the checkpoints of what is unfinished.
        evaluator: whose processes train.

    Raises:
        RunError: as `TrainingStore`, or the data do not fit the recipe.
        FileNotFoundError: the data are not there.
    """

    def __init__(self, recipe: Recipe, run_dir: Path, evaluator: InProcess | ProcessPool) -> None:
        try:
            identity = recipe.identity() | {'intra_op threads': 1}  # that of whoever trains, for all evaluators
        except ValueError as error:
            raise RunError(str(error)) from error
        self._store = TrainingStore(run_dir, identity)
        self._course = _Course(recipe, run_dir / 'checkpoints')
        self._events, self._evaluator = run_dir / 'tensorboard', evaluator
        self._console = Console()
        self._started = False

    def __enter__(self) -> 'Trainings':
        return self

    def __exit__(self, *_: object) -> None:
        with closing(self._store):
            if self._started:
                self._evaluator.close()

    def run(self, jobs: Iterable[Training], title: str) -> dict[Key, Trained]:
        """What became of the jobs; one that is on file, at least as long or diverged, is not trained again.

        Raises:
            RunError: a worker cannot do its job, or the disk is full; what has ended is on file.
        """
        jobs = list(dict.fromkeys(jobs))
        done = self._store.read()
        due = [job for job in jobs if not _is_done(job, done)]
        columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, TimeRemainingColumn(), console=self._console) as progress:
            bar = progress.add_task(title, total=len(jobs), completed=len(jobs) - len(due))
            if due and not self._started:
                self._evaluator.start(self._course, 1)
                self._started = True
            for job in due:
                self._evaluator.submit(job)
            left = len(due)
            while left:
                for job, trained in self._evaluator.collect():
                    self._publish(job, trained, done.get(job.key))
                    self._store.save(job.key, trained)
                    done[job.key] = trained
                    left -= 1
                    progress.advance(bar)
                    self._console.print(_line(job, trained), highlight=False, soft_wrap=True)
        return {job.key: done[job.key] for job in jobs}

    @property
    def seconds(self) -> float:
        """What all trainings on file took, added."""
        return sum(trained.seconds for trained in self._store.read().values())

    def forget_checkpoints(self) -> None:
        """Deletes what is only needed to train on."""
        for path in self._course.checkpoints.glob('*.npz'):
            path.unlink(missing_ok=True)

    def _publish(self, job: Training, trained: Trained, before: Trained | None) -> None:
        """Curves and hyper-parameters for TensorBoard; what an earlier, shorter training has told is not told again."""
        folder = ''.join(c if c.isalnum() or c in '.-_' else '_' for c in job.contender)
        with tf.summary.create_file_writer(str(self._events / folder / f'{job.rate:g}-{job.seed}')).as_default():
            if before is None:
                hparams.hparams({'optimizer': job.contender, 'learning_rate': job.rate, 'seed': job.seed})
            for name, values in trained.curve._asdict().items():
                for epoch in range(before.curve.epochs if before else 0, trained.curve.epochs):
                    tf.summary.scalar(name, values[epoch], step=epoch + 1)


def _is_done(job: Training, done: Mapping[Key, Trained]) -> bool:
    found = done.get(job.key)
    return found is not None and (found.diverged or found.curve.epochs >= job.epochs)


def _line(job: Training, trained: Trained) -> str:
    verdict = f'diverged in epoch {trained.curve.epochs}' if trained.diverged else f'{trained.curve.validation[-1]:.2%}'
    return f'{job}: {verdict}'
