"""Results of a search in SQLite: what it has paid for, and all that it needs to go on as if it had never stopped."""

import io
import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nos_tf import files
from nos_tf.config import differences, without_defaults
from nos_tf.dsl.embedding import distance
from nos_tf.dsl.rule import UpdateRule
from nos_tf.errors import RunError
from nos_tf.store import schema
from nos_tf.store.database import Database, read_identity, reading
from nos_tf.store.faults import explained
from nos_tf.store.schema import SEARCH, Checkpoint, Row, StoredChild, Update, insert
from nos_tf.tasks.child import MERGED, TRAINED, Outcome


class Result(NamedTuple):
    """An outcome, and of what."""

    program: UpdateRule  # canonical
    seed: int
    outcome: Outcome  # a learning rate that is NaN is kept as none
    fingerprint: str | None = None  # of the function that the program computes; None for a stochastic one


class Store(Database):
    """The results of one run directory; only one process at a time may hold it for writing.

    Args:
        run_dir: made if it does not exist.
        identity: all that the run depends on, by name; a store of another identity is refused.
        task: the identity of task, procedure and machine, which outcomes are filed under.
        description: of the task, for people.
        is_of_machine: as of `Database`.
        allow_mixed: as of `Database`.

    Raises:
        RunError: the directory is in use or cannot be written to, its file is corrupted or locked, or holds results of
            another identity.
    """

    def __init__(
        self,
        run_dir: Path,
        identity: Mapping[str, Any],
        task: Mapping[str, Any],
        description: str = '',
        is_of_machine: Callable[[str], bool] = lambda _: False,
        allow_mixed: bool = False,
    ) -> None:
        super().__init__(run_dir, SEARCH, identity, is_of_machine=is_of_machine, allow_mixed=allow_mixed)
        self.task = self._id_of(task, description)

    def _id_of(self, task: Mapping[str, Any], description: str) -> str:
        """The id of a task; a task that is not there yet is added."""
        with self._transaction():
            for found, identity in self._db.execute('SELECT id, identity FROM tasks'):
                if not differences(json.loads(identity), task):
                    return found
            new = schema.fingerprint(without_defaults(task))
            self._db.execute(insert('tasks', schema.TASKS), (new, json.dumps(task), description))
        return new

    def save_outcomes(self, results: Iterable[Result]) -> None:
        """Files outcomes for good, all or none; a second one of the same program and seed changes nothing."""
        rows = []
        for program, seed, (reward, rate, sweep, seconds, origin), fingerprint in results:
            key = self._key(program, seed)
            rows.append((*key, reward, rate, json.dumps(sweep), seconds, origin, fingerprint))
        with self._transaction():
            self._db.executemany(insert('outcomes', schema.OUTCOMES) + ' ON CONFLICT DO NOTHING', rows)

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
                f'SELECT program, reward, learning_rate, sweep, seconds, origin FROM outcomes WHERE {condition}', values
            ).fetchone()
        if row is None:
            return None
        program, reward, rate, sweep, seconds, origin = row
        outcome = Outcome(reward, math.nan if rate is None else rate, tuple(json.loads(sweep)), seconds, origin)
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
        first, rows = self.count(), []
        for number, child in enumerate(children, first):
            rule, program = (' '.join(each.tokens) for each in (child.rule, child.rule.canonical()))
            rows.append((number, child.iteration, child.sampled, rule, program, self.task, seed, child.log_prob))
        state = (checkpoint.iteration, checkpoint.seconds, blob.getvalue())
        with self._transaction():
            self._db.executemany(insert('children', schema.CHILDREN), rows)
            self._db.execute('DELETE FROM checkpoint')
            self._db.execute(insert('checkpoint', schema.CHECKPOINT), (0, *state))
            if metrics:
                update = (checkpoint.iteration - 1, first + len(rows), json.dumps(metrics))
                self._db.execute(insert('updates', schema.UPDATES), update)
        return self.results(first)

    def checkpoint(self) -> Checkpoint | None:
        """Returns the state of the search; None before the first batch."""
        with explained(self.path):
            row = self._db.execute('SELECT iteration, seconds, state FROM checkpoint').fetchone()
        if row is None:
            return None
        try:
            return Checkpoint(row[0], row[1], files.load(io.BytesIO(row[2])))
        except files.DamagedError as error:
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
    """A search as a run directory holds it; it may be under way."""

    configuration: dict[str, Any]  # by the names of the bindings
    rows: list[Row]
    seconds: float  # that the search has taken so far
    updates: list[Update]  # of the learner
    task: str = ''  # in words


def read_run(run_dir: Path) -> Run:
    """A search as it is on file, also while it is running.

    Raises:
        RunError: there is no store, it is one of another version, or it is corrupted.
    """
    path = run_dir / SEARCH.file_name
    if not path.exists():
        raise RunError(f'{run_dir} holds no {SEARCH.file_name}: no search has run there')
    with reading(path, SEARCH) as db:
        configuration = read_identity(db)
        rows = [Row(*row) for row in db.execute('SELECT * FROM results')]
        (seconds,) = db.execute('SELECT coalesce(max(seconds), 0.0) FROM checkpoint').fetchone()
        told = db.execute('SELECT iteration, children, metrics FROM updates ORDER BY iteration')
        updates = [Update(iteration, children, json.loads(metrics)) for iteration, children, metrics in told]
        (task,) = db.execute('SELECT max(description) FROM tasks').fetchone()
        return Run(configuration, rows, seconds, updates, task or '')


def stored_identity(run_dir: Path) -> dict[str, Any]:
    """Returns the configuration of a search that has begun; {} if none has.

    Raises:
        RunError: its file is corrupted, locked, or of a later version.
    """
    path = run_dir / SEARCH.file_name
    if not path.exists() or not path.stat().st_size:
        return {}
    with reading(path, SEARCH) as db:
        return read_identity(db)


def count_children(run_dir: Path) -> int:
    """Returns how many children a search has; 0 if none has begun."""
    return len(read_results(run_dir)) if (run_dir / SEARCH.file_name).exists() else 0


def read_results(run_dir: Path) -> list[Row]:
    """The children of `read_run`."""
    return read_run(run_dir).rows


def best_rules(rows: Iterable[Row], count: int, apart: float = 0.0) -> dict[UpdateRule, float]:
    """The best distinct programs of a search with their rewards, the best first; among equals the first sampled.

    A program that took over the outcome of an equal one is not distinct from it; the first of them that was sampled
    stands for all.

    Args:
        rows: the children.
        count: of rules, at most.
        apart: how far, at least, a rule is from each better one (`nos_tf.dsl.embedding.distance`).
    """
    first: dict[str, Row] = {}
    for row in rows:
        is_taken = row.origin.startswith(MERGED)
        first.setdefault(row.origin.removeprefix(MERGED) if is_taken else row.program, row)
    ranked = [(row.program, row.reward) for row in sorted(first.values(), key=lambda row: -row.reward)]
    best: dict[UpdateRule, float] = {}
    for program, reward in ranked:
        if len(best) == count:
            break
        rule = UpdateRule(tuple(program.split()))
        if not apart or all(distance(rule, better) >= apart for better in best):
            best[rule] = reward
    return best
