"""Results in SQLite: what a search has paid for, and all that it needs to go on as if it had never stopped."""

import io
import json
import math
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
from nos_tf.search.schema import FILE_NAME, MERGED, TABLES, TRAINED, VERSION, Checkpoint, Row, StoredChild
from nos_tf.tasks.child import Outcome

_MAX_DIFFERENCES = 6


class Result(NamedTuple):
    """An outcome, of what, and how it was come by."""

    program: UpdateRule  # canonical
    seed: int
    outcome: Outcome  # a learning rate that is NaN is kept as none
    origin: str = TRAINED  # as in the schema
    fingerprint: str | None = None  # of the function that the program computes; None for a stochastic one


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
        given = json.loads(json.dumps({'schema': VERSION, **identity}))
        if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
            with self._transaction():
                for statement in TABLES.split(';\n'):
                    self._db.execute(statement)
                self._db.executemany('INSERT INTO meta VALUES (?, ?)', [(k, json.dumps(v)) for k, v in given.items()])
            return
        stored = {key: json.loads(value) for key, value in self._db.execute('SELECT key, value FROM meta')}
        if differing := differences(stored, given):
            raise RunError(
                f'{self.path.parent} holds a run of another configuration or version: {differing}. '
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

    def save_outcomes(self, results: Iterable[Result]) -> None:
        """Files outcomes for good, all or none; a second one of the same program and seed changes nothing."""
        rows = [
            (*self._key(r.program, r.seed), *r.outcome[:2], json.dumps(r.outcome.sweep), *r.outcome[3:], *r[3:])
            for r in results
        ]
        with self._transaction():
            self._db.executemany(
                'INSERT INTO outcomes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (program, task, seed) DO NOTHING',
                rows,
            )

    def save_outcome(
        self,
        program: UpdateRule,
        seed: int,
        outcome: Outcome,
        *,
        origin: str = TRAINED,
        fingerprint: str | None = None,
    ) -> None:
        """Files one outcome: a `Result` in its parts."""
        self.save_outcomes([Result(program, seed, outcome, origin, fingerprint)])

    def _key(self, program: UpdateRule, seed: int) -> tuple[str, str, int]:
        return ' '.join(program.tokens), self.task, seed

    def outcome(self, program: UpdateRule, seed: int) -> Outcome | None:
        """The outcome that is on file."""
        found = self._first_outcome('(program, task, seed) = (?, ?, ?)', self._key(program, seed))
        return found and found[1]

    def equal_outcome(self, fingerprint: str, seed: int) -> tuple[UpdateRule, Outcome] | None:
        """A program that computes the function of this fingerprint, and its outcome; one that was trained, if any."""
        return self._first_outcome(
            f"(fingerprint, task, seed) = (?, ?, ?) AND origin NOT LIKE '{MERGED}%' "
            f"ORDER BY origin = '{TRAINED}' DESC, program LIMIT 1",
            (fingerprint, self.task, seed),
        )

    def _first_outcome(self, condition: str, values: tuple) -> tuple[UpdateRule, Outcome] | None:
        with explained(self.path):
            row = self._db.execute(
                f'SELECT reward, learning_rate, sweep, seconds, program FROM outcomes WHERE {condition}', values
            ).fetchone()
        if row is None:
            return None
        reward, rate, sweep, seconds, program = row
        outcome = Outcome(reward, math.nan if rate is None else rate, tuple(json.loads(sweep)), seconds)
        return UpdateRule(tuple(program.split())), outcome

    def save_batch(self, children: Iterable[StoredChild], seed: int, checkpoint: Checkpoint) -> list[Row]:
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
                c.sampled,
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
            self._db.executemany('INSERT INTO children VALUES (?, ?, ?, ?, ?, ?, ?, ?)', rows)
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
            query = 'SELECT count(*) FROM outcomes WHERE (task, seed, origin) = (?, ?, ?)'
            return self._db.execute(query, (self.task, seed, TRAINED)).fetchone()[0]

    def results(self, first: int = 0) -> list[Row]:
        """All children from the given one on, with their rewards, in their order."""
        with explained(self.path):
            return [Row(*row) for row in self._db.execute('SELECT * FROM results WHERE id >= ?', (first,))]


def read_results(run_dir: Path) -> list[Row]:
    """The children of a run, also while it is running.

    Raises:
        RunError: there is no store, it is one of another version, or it is corrupted.
    """
    path = run_dir / FILE_NAME
    if not path.exists():
        raise RunError(f'{run_dir} holds no {FILE_NAME}: no search has run there')
    with explained(path):
        db = sqlite3.connect(f'{path.absolute().as_uri()}?mode=ro', uri=True, timeout=10)
        try:
            _check(db, path)
            (version,) = db.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
            if json.loads(version) != VERSION:
                raise RunError(
                    f'{run_dir} holds a run of another version: schema is {version} there and {VERSION} here'
                )
            return [Row(*row) for row in db.execute('SELECT * FROM results')]
        finally:
            db.close()


def _check(db: sqlite3.Connection, path: Path) -> None:
    verdict = db.execute('PRAGMA quick_check(1)').fetchone()[0]
    if verdict != 'ok':
        raise RunError(f'{path} is corrupted ({" ".join(verdict.split())}): move it away, or restore a copy')


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """What differs between two identities, by name and in one line, both as JSON has them; '' if nothing does."""
    differing = [key for key in {**there, **here} if there.get(key) != here.get(key)]
    shown = [
        f'{key} is {_brief(there.get(key))} there and {_brief(here.get(key))} here'
        for key in differing[:_MAX_DIFFERENCES]
    ]
    more = [f'and {len(differing) - _MAX_DIFFERENCES} more'] if len(differing) > _MAX_DIFFERENCES else []
    return '; '.join(shown + more)


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f'{text[:57]}...'
