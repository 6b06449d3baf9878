"""Results in SQLite: what a search has paid for, and all that it needs to go on as if it had never stopped."""

import io
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nos_tf.dsl.rule import UpdateRule
from nos_tf.search import RunError
from nos_tf.search.database import Database, read_identity, reading
from nos_tf.search.faults import explained
from nos_tf.search.schema import FILE_NAME, MERGED, TABLES, TRAINED, VERSION, Checkpoint, Row, StoredChild, Update
from nos_tf.tasks import archives
from nos_tf.tasks.child import Outcome


class Result(NamedTuple):
    """An outcome, of what, and how it was come by."""

    program: UpdateRule  # canonical
    seed: int
    outcome: Outcome  # a learning rate that is NaN is kept as none
    origin: str = TRAINED  # as in the schema
    fingerprint: str | None = None  # of the function that the program computes; None for a stochastic one


class Store(Database):
    """The results of one run directory; only one process at a time may hold it for writing.

    Args:
        run_dir: made if it does not exist.
        identity: all that the results depend on, by name; a store of another identity is refused.
        task: the fingerprint that outcomes are filed under.
        allow_mixed: as of `Database`.

    Raises:
        RunError: the directory is in use or cannot be written to, its file is corrupted or locked, or holds results of
            another identity.
    """

    def __init__(self, run_dir: Path, identity: Mapping[str, Any], task: str, *, allow_mixed: bool = False) -> None:
        super().__init__(run_dir, FILE_NAME, TABLES, {'schema': VERSION, **identity}, allow_mixed=allow_mixed)
        self.task = task

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

    def save_batch(
        self,
        children: Iterable[StoredChild],
        seed: int,
        checkpoint: Checkpoint,
        metrics: Mapping[str, float] | None = None,
    ) -> list[Row]:
        """Appends children, whose outcomes are on file, the state of the learner, and what it told of its update.

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
            if metrics:
                update = (checkpoint.iteration - 1, first + len(rows), json.dumps(metrics))
                self._db.execute('INSERT INTO updates VALUES (?, ?, ?)', update)
        return self.results(first)

    def checkpoint(self) -> Checkpoint | None:
        """Where the search stands, or None before the first batch."""
        with explained(self.path):
            row = self._db.execute('SELECT iteration, seconds, state FROM checkpoint').fetchone()
        if row is None:
            return None
        try:
            return Checkpoint(row[0], row[1], archives.load(io.BytesIO(row[2])))
        except archives.DamagedError as error:
            raise RunError(f'{self.path} is corrupted (checkpoint: {error}): restore a copy') from error

    def count(self) -> int:
        """The number of children."""
        with explained(self.path):
            return self._db.execute('SELECT count(*) FROM children').fetchone()[0]

    def trained(self, seed: int) -> int:
        """The number of trainings with a seed."""
        with explained(self.path):
            query = 'SELECT count(*) FROM outcomes WHERE (seed, origin) = (?, ?)'
            return self._db.execute(query, (seed, TRAINED)).fetchone()[0]

    def results(self, first: int = 0) -> list[Row]:
        """All children from the given one on, with their rewards, in their order."""
        with explained(self.path):
            return [Row(*row) for row in self._db.execute('SELECT * FROM results WHERE id >= ?', (first,))]


class Run(NamedTuple):
    """What a run directory holds of a search, which may be under way."""

    configuration: dict[str, Any]  # by the names of the bindings
    rows: list[Row]
    seconds: float  # that the search has taken so far
    updates: list[Update]  # of the learner


def read_run(run_dir: Path) -> Run:
    """A search as it is on file, also while it is running.

    Raises:
        RunError: there is no store, it is one of another version, or it is corrupted.
    """
    path = run_dir / FILE_NAME
    if not path.exists():
        raise RunError(f'{run_dir} holds no {FILE_NAME}: no search has run there')
    with reading(path) as db:
        configuration = read_identity(db)
        version = configuration.pop('schema', None)
        if version != VERSION:
            raise RunError(f'{run_dir} holds a run of another version: schema is {version} there and {VERSION} here')
        rows = [Row(*row) for row in db.execute('SELECT * FROM results')]
        (seconds,) = db.execute('SELECT coalesce(max(seconds), 0.0) FROM checkpoint').fetchone()
        told = db.execute('SELECT iteration, children, metrics FROM updates ORDER BY iteration')
        updates = [Update(iteration, children, json.loads(metrics)) for iteration, children, metrics in told]
        return Run(configuration, rows, seconds, updates)


def read_results(run_dir: Path) -> list[Row]:
    """The children of `read_run`."""
    return read_run(run_dir).rows
