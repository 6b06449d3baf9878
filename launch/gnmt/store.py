"""The trainings of translators of a run directory, in `translations.sqlite`."""

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from gnmt.recipe import Point, Trained
from nos_tf.search import RunError
from nos_tf.search.database import Database
from nos_tf.search.files import explained

FILE_NAME = 'translations.sqlite'
VERSION = 1
TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE trainings (
    contender TEXT NOT NULL,      -- the optimizer as text
    rate REAL NOT NULL,
    seed INTEGER NOT NULL,
    result TEXT NOT NULL,         -- JSON: the fields of `Trained`
    PRIMARY KEY (contender, rate, seed)
) WITHOUT ROWID;
"""


class Job(NamedTuple):
    """What `TranslatorTrainer.train` takes."""

    contender: str
    rate: float
    seed: int
    steps: int

    @property
    def key(self) -> tuple[str, float, int]:
        """It without its length, which may grow."""
        return self[:3]

    def is_done(self, found: Trained | None, whole: int) -> bool:
        """Whether what was found is all of it, where `whole` are the steps of a whole training."""
        if found is None:
            return False
        if self.steps >= whole or found.is_over:
            return found.test_bleu is not None
        return found.points[-1].step >= self.steps


class TranslationStore(Database):
    """The open file.

    Args:
        run_dir: made if it does not exist.
        identity: of the recipe; a directory of another model, vocabulary or corpus is refused.

    Raises:
        RunError: as `Database`.
    """

    def __init__(self, run_dir: Path, identity: Mapping[str, Any]) -> None:
        super().__init__(run_dir, FILE_NAME, TABLES, {'schema': VERSION, **identity})

    def save(self, job: Job, trained: Trained) -> None:
        """Files a training for good, in place of a shorter one."""
        with self._transaction():
            result = json.dumps(trained._asdict())
            self._db.execute('INSERT OR REPLACE INTO trainings VALUES (?, ?, ?, ?)', (*job.key, result))

    def read(self) -> dict[tuple[str, float, int], Trained]:
        """All that is on file, by contender, rate and seed."""
        with explained(self.path):
            return _read(self._db)


def read_trainings(run_dir: Path) -> dict[tuple[str, float, int], Trained]:
    """Those of a run, which may be under way.

    Raises:
        RunError: there are none.
    """
    path = run_dir / FILE_NAME
    if not path.exists():
        raise RunError(f'{run_dir} holds no {FILE_NAME}: launch/gnmt/train.py has not run there')
    with explained(path), closing(sqlite3.connect(f'{path.resolve().as_uri()}?mode=ro', uri=True)) as db:
        return _read(db)


def _read(db: Any) -> dict[tuple[str, float, int], Trained]:
    found = {}
    for contender, rate, seed, result in db.execute('SELECT contender, rate, seed, result FROM trainings').fetchall():
        fields = json.loads(result)
        fields['points'] = tuple(Point(*point) for point in fields['points'])
        found[contender, rate, seed] = Trained(**fields)
    return found
