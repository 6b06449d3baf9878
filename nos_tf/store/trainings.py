"""Long trainings in SQLite, of images or of anything else."""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from nos_tf.errors import RunError
from nos_tf.store.database import Database, Schema, read_identity, reading, rename_identity
from nos_tf.store.faults import explained
from nos_tf.store.schema import create

TRAININGS = Schema(
    file_name='trainings.sqlite',
    version=3,
    statements=(
        create(
            'trainings',
            {
                'contender': 'TEXT NOT NULL',  # the optimizer as text
                'rate': 'REAL NOT NULL',
                'seed': 'INTEGER NOT NULL',
                'result': 'TEXT NOT NULL',  # JSON: what the training left
            },
            'PRIMARY KEY (contender, rate, seed)',
        ),
    ),
    migrations={2: rename_identity},
)
"""The schema of `trainings.sqlite`."""


class Key(NamedTuple):
    """The key of a training."""

    contender: str
    rate: float
    seed: int

    @property
    def folder(self) -> str:
        """The folder of its event files, a path of its own."""
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
    """The result of a training."""

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
        is_of_machine: as of `Database`.
        allow_mixed: as of `Database`.

    Raises:
        RunError: as `Database`.
    """

    def __init__(
        self,
        run_dir: Path,
        kind: type[T],
        identity: Mapping[str, Any],
        is_of_machine: Callable[[str], bool] = lambda _: False,
        allow_mixed: bool = False,
    ) -> None:
        of_this_kind = {'trainings': name_of(kind), **identity}
        super().__init__(run_dir, TRAININGS, of_this_kind, is_of_machine=is_of_machine, allow_mixed=allow_mixed)
        self._kind = kind

    @property
    def identity(self) -> dict[str, Any]:
        """The identity of recipe and first machine; under `OTHERS`, what differed in those that went on."""
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
    return training_identity(run_dir).get('trainings')


def training_identity(run_dir: Path) -> dict[str, Any]:
    """Returns what the trainings of a run depend on, and their kind as 'trainings'; {} if no trainings lie there.

    Raises:
        RunError: the file is corrupted.
    """
    path = run_dir / TRAININGS.file_name
    if not path.exists() or not path.stat().st_size:
        return {}
    with reading(path, TRAININGS) as db:
        return read_identity(db)


def read_trainings(run_dir: Path, kind: type[T]) -> dict[Key, T]:
    """The trainings of a run, which may be under way.

    Raises:
        RunError: there are none, or they are of another kind.
    """
    found, path = kind_of(run_dir), run_dir / TRAININGS.file_name
    if found is None:
        raise RunError(f'{run_dir} holds no {TRAININGS.file_name}: no comparison has run there')
    if found != name_of(kind):
        raise RunError(f'{run_dir} holds trainings of another kind: {found}, not {name_of(kind)}')
    with reading(path, TRAININGS) as db:
        return _read(db, kind)


def name_of(kind: type) -> str:
    """Returns the name under which trainings of this class are stored."""
    return f'{kind.__module__}.{kind.__qualname__}'


def _read(db: sqlite3.Connection, kind: type[T]) -> dict[Key, T]:
    rows = db.execute('SELECT contender, rate, seed, result FROM trainings').fetchall()
    return {Key(*key): kind.of_json(json.loads(result)) for *key, result in rows}
