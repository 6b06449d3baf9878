"""Results in SQLite: what a search has paid for, and all that it needs to go on as if it had never stopped.

Three tables carry a search. `outcomes` has a row for each training, written the moment it ends: it is the cache of
rewards, by (program, task, seed). `children` has a row for each sampled rule, in the order of sampling. `checkpoint`
has the learner's state, written in the same transaction as the children that it learned from. The view `results` joins
the first two.
"""

import io
import json
import sqlite3
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nos_tf.dsl.rule import UpdateRule
from nos_tf.search import RunError
from nos_tf.search.files import explained, lock_directory
from nos_tf.tasks.child import Outcome

FILE_NAME = 'results.sqlite'
SCHEMA_VERSION = 1
_MAX_DIFFERENCES = 6

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE outcomes (
    program TEXT NOT NULL,        -- tokens of the canonical form, which is what trained
    task TEXT NOT NULL,           -- fingerprint of data, network, procedure, machine and versions
    seed INTEGER NOT NULL,
    reward REAL NOT NULL,         -- accuracy on the validation set
    learning_rate REAL NOT NULL,  -- the winner of the sweep
    sweep TEXT NOT NULL,          -- JSON: the accuracy of each learning rate
    seconds REAL NOT NULL,
    PRIMARY KEY (program, task, seed)
) WITHOUT ROWID;
CREATE TABLE children (
    id INTEGER PRIMARY KEY,       -- 0, 1, ... in the order of sampling
    iteration INTEGER NOT NULL,   -- of the controller
    rule TEXT NOT NULL,           -- tokens as sampled
    program TEXT NOT NULL,
    task TEXT NOT NULL,
    seed INTEGER NOT NULL,
    log_prob REAL NOT NULL        -- under the policy that sampled it
);
CREATE INDEX children_by_program ON children (program);
CREATE TABLE checkpoint (
    id INTEGER PRIMARY KEY CHECK (id = 0),
    iteration INTEGER NOT NULL,   -- the next one
    seconds REAL NOT NULL,        -- that the search has taken so far
    state BLOB NOT NULL           -- npz
);
CREATE VIEW results AS
    SELECT id, iteration, rule, program, reward, learning_rate, sweep, seconds, seed, log_prob
    FROM children JOIN outcomes USING (program, task, seed) ORDER BY id;
"""


class Child(NamedTuple):
    """One sampled rule."""

    iteration: int
    rule: UpdateRule
    log_prob: float


class Row(NamedTuple):
    """One row of `results`."""

    id: int
    iteration: int
    rule: str
    program: str
    reward: float
    learning_rate: float
    sweep: str
    seconds: float
    seed: int
    log_prob: float


class Checkpoint(NamedTuple):
    """Where a search stands."""

    iteration: int
    seconds: float
    state: dict[str, np.ndarray]


class Store:
    """The results of one run directory; only one process at a time may hold it for writing.

    Args:
        run_dir: made if it does not exist.
        identity: all that the results depend on, by name; a store of another identity is refused.
        task: the fingerprint that outcomes are filed under.

    Raises:
        RunError: the directory is in use or cannot be written to, its file is corrupted or locked, or holds results of
            another identity.
    """

    def __init__(self, run_dir: Path, identity: Mapping[str, Any], task: str) -> None:
        self.path = run_dir / FILE_NAME
        self.task = task
        with ExitStack() as stack, explained(self.path):
            stack.enter_context(lock_directory(run_dir))
            self._db = stack.enter_context(closing(sqlite3.connect(self.path, timeout=10, isolation_level=None)))
            _check(self._db, self.path)
            self._prepare(identity)
            self._db.execute('PRAGMA journal_mode = WAL')  # a report can be read while the search writes
            self._db.execute('PRAGMA synchronous = FULL')
            self._held = stack.pop_all()

    def _prepare(self, identity: Mapping[str, Any]) -> None:
        given = json.loads(json.dumps({'schema': SCHEMA_VERSION, **identity}))
        if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
            with self._transaction():
                for statement in _SCHEMA.split(';\n'):
                    self._db.execute(statement)
                self._db.executemany('INSERT INTO meta VALUES (?, ?)', [(k, json.dumps(v)) for k, v in given.items()])
            return
        stored = {key: json.loads(value) for key, value in self._db.execute('SELECT key, value FROM meta')}
        differing = [key for key in {**stored, **given} if stored.get(key) != given.get(key)]
        if differing:
            shown = '; '.join(
                f'{key} is {_brief(stored.get(key))} there and {_brief(given.get(key))} here'
                for key in differing[:_MAX_DIFFERENCES]
            )
            more = f'; and {len(differing) - _MAX_DIFFERENCES} more' if len(differing) > _MAX_DIFFERENCES else ''
            raise RunError(
                f'{self.path.parent} holds a run of another configuration or version: {shown}{more}. '
                'Choose another --run_dir'
            )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with explained(self.path):
            self._db.execute('BEGIN IMMEDIATE')
            try:
                yield
                self._db.execute('COMMIT')
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute('ROLLBACK')
                raise

    def close(self) -> None:
        """Leaves one file, without a journal beside it, and lets others have the run directory."""
        with suppress(sqlite3.Error):  # somebody is reading
            self._db.execute('PRAGMA journal_mode = DELETE')
        self._held.close()

    def save_outcome(self, program: UpdateRule, seed: int, outcome: Outcome) -> None:
        """Files the outcome of a training, for good; a second one of the same program and seed changes nothing."""
        row = (outcome.reward, outcome.learning_rate, json.dumps(outcome.sweep), outcome.seconds)
        key = (' '.join(program.tokens), self.task, seed)
        with self._transaction():
            self._db.execute(
                'INSERT INTO outcomes VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (program, task, seed) DO NOTHING',
                (*key, *row),
            )

    def outcome(self, program: UpdateRule, seed: int) -> Outcome | None:
        """The outcome of a training that is on file."""
        key = (' '.join(program.tokens), self.task, seed)
        with explained(self.path):
            row = self._db.execute(
                'SELECT reward, learning_rate, sweep, seconds FROM outcomes WHERE (program, task, seed) = (?, ?, ?)',
                key,
            ).fetchone()
        return row and Outcome(row[0], row[1], tuple(json.loads(row[2])), row[3])

    def save_batch(self, children: Iterable[Child], seed: int, checkpoint: Checkpoint) -> list[Row]:
        """Appends children, whose outcomes are on file, and the state of the learner that has learned from them.

        Returns:
            the new rows of `results`.
        """
        blob = io.BytesIO()
        np.savez(blob, **checkpoint.state)  # type: ignore[arg-type]  # its allow_pickle is unknown to NumPy 1
        first = self.count()
        rows = [
            (
                first + i,
                c.iteration,
                ' '.join(c.rule.tokens),
                ' '.join(c.rule.canonical().tokens),
                self.task,
                seed,
                c.log_prob,
            )
            for i, c in enumerate(children)
        ]
        state = (checkpoint.iteration, checkpoint.seconds, blob.getvalue())
        with self._transaction():
            self._db.executemany('INSERT INTO children VALUES (?, ?, ?, ?, ?, ?, ?)', rows)
            self._db.execute('INSERT OR REPLACE INTO checkpoint VALUES (0, ?, ?, ?)', state)
        return self.results(first)

    def checkpoint(self) -> Checkpoint | None:
        """Where the search stands, or None before the first batch."""
        with explained(self.path):
            row = self._db.execute('SELECT iteration, seconds, state FROM checkpoint').fetchone()
        if row is None:
            return None
        try:
            with np.load(io.BytesIO(row[2])) as state:
                return Checkpoint(row[0], row[1], dict(state))
        except (zipfile.BadZipFile, ValueError, EOFError) as error:
            raise RunError(f'{self.path} is corrupted (checkpoint: {error}): restore a copy') from error

    def count(self) -> int:
        """The number of children."""
        with explained(self.path):
            return self._db.execute('SELECT count(*) FROM children').fetchone()[0]

    def trained(self, seed: int) -> int:
        """The number of trainings with a seed."""
        with explained(self.path):
            key = (self.task, seed)
            return self._db.execute('SELECT count(*) FROM outcomes WHERE (task, seed) = (?, ?)', key).fetchone()[0]

    def results(self, first: int = 0) -> list[Row]:
        """All children from the given one on, with their rewards, in the order of sampling."""
        with explained(self.path):
            return [Row(*row) for row in self._db.execute('SELECT * FROM results WHERE id >= ?', (first,))]


def read_results(run_dir: Path) -> list[Row]:
    """The children of a run, also while it is running.

    Raises:
        RunError: there is no store, or it is corrupted.
    """
    path = run_dir / FILE_NAME
    if not path.exists():
        raise RunError(f'{run_dir} holds no {FILE_NAME}: no search has run there')
    with explained(path):
        db = sqlite3.connect(f'{path.absolute().as_uri()}?mode=ro', uri=True, timeout=10)
        try:
            _check(db, path)
            return [Row(*row) for row in db.execute('SELECT * FROM results')]
        finally:
            db.close()


def _check(db: sqlite3.Connection, path: Path) -> None:
    verdict = db.execute('PRAGMA quick_check(1)').fetchone()[0]
    if verdict != 'ok':
        raise RunError(f'{path} is corrupted ({" ".join(verdict.split())}): move it away, or restore a copy')


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f'{text[:57]}...'
