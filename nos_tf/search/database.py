"""An SQLite file in a run directory: of one identity, for one writer, and what is written is written for good."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from nos_tf.search import RunError
from nos_tf.search.faults import check_integrity, explained
from nos_tf.search.files import is_local, lock_directory
from nos_tf.tasks import machine

OTHERS = 'other machines'  # in `meta`: of each that went on with the run, what differed from the first
PATIENCE_WITH_READERS = 60  # seconds
_MAX_DIFFERENCES = 6


class Database:
    """The open file; only one process at a time may hold it for writing.

    Args:
        run_dir: made if it does not exist.
        file_name: in it.
        tables: statements of SQL that make them; one makes `meta (key, value)`.
        identity: all that the content depends on, by name; a file of another identity is refused.
        allow_mixed: go on also where the machine or its versions are others than those that began; noted in `meta`.

    Raises:
        RunError: the directory is in use or cannot be written to, its file is corrupted or locked, or holds results of
            another identity.
    """

    def __init__(
        self, run_dir: Path, file_name: str, tables: str, identity: Mapping[str, Any], *, allow_mixed: bool = False
    ) -> None:
        self.path = run_dir / file_name
        with ExitStack() as stack, explained(self.path):
            stack.enter_context(lock_directory(run_dir))
            if others := sorted(path.name for path in run_dir.glob('*.sqlite') if path.name != file_name):
                raise RunError(f'{run_dir} holds a run of another kind, {others[0]}: choose another --run_dir')
            self._db = stack.enter_context(closing(sqlite3.connect(self.path, timeout=10, isolation_level=None)))
            if not (local := is_local(run_dir)):
                _keep_rollback_journal(self._db)
            check_integrity(self._db, self.path)
            self._prepare(tables, identity, allow_mixed)
            if local:
                self._db.execute('PRAGMA journal_mode = WAL')  # a report can be read while a run writes
            self._db.execute('PRAGMA synchronous = FULL')
            self._held = stack.pop_all()

    def _prepare(self, tables: str, identity: Mapping[str, Any], allow_mixed: bool) -> None:
        given = json.loads(json.dumps(identity))
        query = "SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'"
        there = dict(self._db.execute(query).fetchall())
        if there and there.get('meta') != 'table':
            raise RunError(f'{self.path} is a file of another program: move it away, or choose another --run_dir')
        if not any(self._db.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchone() for name in there.keys() - {'meta'}):
            drop = [f'DROP {kind} "{name}"' for name, kind in there.items()]  # who began it has left nothing
            self._begin([*drop, *tables.split(';\n')], given)
            return
        stored = read_identity(self._db)
        others = stored.pop(OTHERS, [])
        if not (differing := differences(stored, given)):
            return
        here = {
            key: given.get(key)
            for key in {**stored, **given}
            if given.get(key) != stored.get(key) and machine.is_of_machine(key)
        }
        only_here = not differences(stored | here, given)
        if not (allow_mixed and only_here):
            raise RunError(
                f'{self.path.parent} holds a run of another configuration or version: {differing}. '
                f'Choose another --run_dir{", or go on with results of both: --allow_mixed" if only_here else ""}'
            )
        if here not in others:
            with self._transaction():
                self._db.execute('INSERT OR REPLACE INTO meta VALUES (?, ?)', (OTHERS, json.dumps([*others, here])))

    def _begin(self, statements: Iterable[str], identity: Mapping[str, Any]) -> None:
        if (summary := self.path.parent / 'summary.json').exists():
            raise RunError(
                f'{summary} tells of a finished run, but {self.path.name} is missing or empty: restore it, or choose '
                'another --run_dir'
            )
        with self._transaction():
            for statement in statements:
                self._db.execute(statement)
            self._db.executemany('INSERT INTO meta VALUES (?, ?)', [(k, json.dumps(v)) for k, v in identity.items()])

    @property
    def identity(self) -> dict[str, Any]:
        """The identity of the process that began the run; under `OTHERS`, what differed in those that went on."""
        with explained(self.path):
            return {key: value for key, value in read_identity(self._db).items() if key != 'schema'}

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


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A file that others may be writing to, to read from.

    Raises:
        RunError: it is corrupted or locked.
    """
    uri = f'{path.absolute().as_uri()}?mode=ro'
    with explained(path), closing(sqlite3.connect(uri, uri=True, timeout=10)) as db:
        check_integrity(db, path)
        yield db


def _keep_rollback_journal(db: sqlite3.Connection) -> None:
    """Has readers and the writer wait for each other: a write-ahead log is wrong on a network file system.

    Its index is memory that all who have the file open share, and they may be on several machines
    (https://sqlite.org/wal.html). A log that is there already is taken up without that memory.
    """
    db.execute('PRAGMA locking_mode = EXCLUSIVE')
    db.execute('PRAGMA journal_mode = DELETE')
    db.execute('PRAGMA locking_mode = NORMAL')
    db.execute(f'PRAGMA busy_timeout = {PATIENCE_WITH_READERS * 1000}')


def read_identity(db: sqlite3.Connection) -> dict[str, Any]:
    """All that the content of a file depends on, by name."""
    return {key: json.loads(value) for key, value in db.execute('SELECT key, value FROM meta')}


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """What differs between two identities, by name and in one line, both as JSON has them; '' if nothing does."""
    differing = [key for key in {**there, **here} if there.get(key) != here.get(key)]
    shown = [
        f'{key} is {_brief(there, key)} there and {_brief(here, key)} here' for key in differing[:_MAX_DIFFERENCES]
    ]
    more = [f'and {len(differing) - _MAX_DIFFERENCES} more'] if len(differing) > _MAX_DIFFERENCES else []
    return '; '.join(shown + more)


def _brief(identity: Mapping[str, Any], key: str) -> str:
    text = json.dumps(identity[key]) if key in identity else 'not set'
    return text if len(text) <= 60 else f'{text[:57]}...'
