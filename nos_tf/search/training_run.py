"""Trainings in a run directory, of images or of anything else: filed for good, and none done twice."""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from nos_tf.search import RunError
from nos_tf.search.database import Database, read_identity, reading
from nos_tf.search.faults import explained
from nos_tf.search.jobs import Trainable

FILE_NAME = 'trainings.sqlite'
VERSION = 2
TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE trainings (
    contender TEXT NOT NULL,      -- the optimizer as text
    rate REAL NOT NULL,
    seed INTEGER NOT NULL,
    result TEXT NOT NULL,         -- JSON: what the training left
    PRIMARY KEY (contender, rate, seed)
) WITHOUT ROWID;
"""


class Key(NamedTuple):
    """Which training."""

    contender: str
    rate: float
    seed: int

    @property
    def folder(self) -> str:
        """Where its event files lie: a path of its own."""
        name = ''.join(c if c.isalnum() or c in '.-_' else '_' for c in self.contender)
        if name != self.contender:
            name += f'-{hashlib.sha256(self.contender.encode()).hexdigest()[:6]}'
        return f'{name}/{self.rate:g}-{self.seed}'


class Training(NamedTuple):
    """A job: what the `train` of a trainer takes."""

    contender: str
    rate: float
    seed: int
    length: int  # in epochs or in steps, as the trainer counts

    @property
    def key(self) -> Key:
        """It without its length, which may grow."""
        return Key(*self[:3])


_Self = TypeVar('_Self')  # that of `typing` is not in Python 3.10


class Trained(Protocol):
    """What a training leaves."""

    def as_json(self) -> dict[str, Any]:
        """It as JSON values."""

    @classmethod
    def of_json(cls: type[_Self], fields: Mapping[str, Any]) -> _Self:
        """The inverse of `as_json`."""


T = TypeVar('T', bound=Trained)


class TrainingStore(Database, Generic[T]):
    """The trainings of a run directory, in `trainings.sqlite`.

    Args:
        run_dir: made if it does not exist.
        kind: what a training leaves.
        identity: of the recipe; a directory of another one is refused.
        allow_mixed: as of `Database`.

    Raises:
        RunError: as `Database`.
    """

    def __init__(self, run_dir: Path, kind: type[T], identity: Mapping[str, Any], *, allow_mixed: bool = False) -> None:
        of_this_kind = {'schema': VERSION, 'trainings': name_of(kind), **identity}
        super().__init__(run_dir, FILE_NAME, TABLES, of_this_kind, allow_mixed=allow_mixed)
        self._kind = kind

    @property
    def identity(self) -> dict[str, Any]:
        """Of the recipe and of the machine that began, and which others went on, if any did."""
        return {key: value for key, value in super().identity.items() if key != 'trainings'}

    def save(self, key: Key, trained: T) -> None:
        """Files a training for good, in place of a shorter one."""
        with self._transaction():
            values = (*key, json.dumps(trained.as_json()))
            self._db.execute('INSERT OR REPLACE INTO trainings VALUES (?, ?, ?, ?)', values)

    def read(self) -> dict[Key, T]:
        """All that is on file."""
        with explained(self.path):
            return _read(self._db, self._kind)


def kind_of(run_dir: Path) -> str | None:
    """The name of what the trainings of a run leave; None if no trainings lie there.

    Raises:
        RunError: the file is corrupted.
    """
    path = run_dir / FILE_NAME
    if not path.exists():
        return None
    with reading(path) as db:
        identity = read_identity(db)
        if (version := identity.get('schema')) != VERSION:
            raise RunError(f'{run_dir} holds trainings of another version: schema is {version}, not {VERSION}')
        return identity['trainings']


def read_trainings(run_dir: Path, kind: type[T]) -> dict[Key, T]:
    """The trainings of a run, which may be under way.

    Raises:
        RunError: there are none, or they are of another kind.
    """
    found, path = kind_of(run_dir), run_dir / FILE_NAME
    if found is None:
        raise RunError(f'{run_dir} holds no {FILE_NAME}: no comparison has run there')
    if found != name_of(kind):
        raise RunError(f'{run_dir} holds trainings of another kind: {found}, not {name_of(kind)}')
    with reading(path) as db:
        return _read(db, kind)


def name_of(kind: type) -> str:
    """By which files know a kind of training."""
    return f'{kind.__module__}.{kind.__qualname__}'


def _read(db: sqlite3.Connection, kind: type[T]) -> dict[Key, T]:
    rows = db.execute('SELECT contender, rate, seed, result FROM trainings').fetchall()
    return {Key(*key): kind.of_json(json.loads(result)) for *key, result in rows}


class TrainingRun(Generic[T]):
    """A run directory at work; closing it ends the evaluator and lets others have the directory.

    Args:
        store: of the directory.
        course: what the processes of the evaluator are told.
        evaluator: trains (`nos_tf.search.evaluators`).
    """

    def __init__(self, store: TrainingStore[T], course: Trainable, evaluator: Any) -> None:
        self._store, self._course, self._evaluator = store, course, evaluator
        self._started = False

    def __enter__(self) -> 'TrainingRun[T]':
        return self

    def __exit__(self, *_: object) -> None:
        with closing(self._store):
            if self._started:
                self._evaluator.close()

    @property
    def identity(self) -> dict[str, Any]:
        """As of `TrainingStore`."""
        return self._store.identity

    def due(self, jobs: Iterable[Training], is_done: Callable[[Training, T], bool]) -> list[Training]:
        """The jobs that what is on file does not do."""
        found = self._store.read()
        return [job for job in jobs if job.key not in found or not is_done(job, found[job.key])]

    def run(
        self,
        jobs: Iterable[Training],
        is_done: Callable[[Training, T], bool],
        ended: Callable[[Training, T, T | None], None] = lambda *_: None,
    ) -> dict[Key, T]:
        """What became of the jobs.

        Args:
            jobs: may repeat.
            is_done: whether what is on file is all that the job asks for.
            ended: is told of a job that was due, of what it left, and of what had been on file.

        Raises:
            RunError: the course cannot be begun, a worker cannot do its job, or the disk is full; what has ended is on
                file.
        """
        jobs = list(dict.fromkeys(jobs))
        found = self._store.read()
        due = self.due(jobs, is_done)
        if due and not self._started:
            try:
                self._evaluator.start(self._course, 1)
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
        """All that is on file."""
        return self._store.read()
