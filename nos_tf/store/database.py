"""An SQLite file in a run directory: of one identity, for one writer, and what is written is written for good.

A file of an earlier version is brought forward when it is opened to be written to, in one transaction; to read it, a
copy in memory is.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nos_tf.config import differences
from nos_tf.errors import RunError
from nos_tf.renamed import renamed
from nos_tf.store.faults import check_integrity, explained
from nos_tf.store.locks import is_local, lock_directory

OTHERS = 'other machines'  # in `meta`: of each that went on with the run, what differed from the first
PATIENCE_WITH_READERS = 60  # seconds


@dataclass(frozen=True)
class Schema:
    """The tables of a kind of file.

    Args:
        file_name: in a run directory.
        version: of the tables.
        statements: of SQL, that make all tables but `meta (key, value)`.
        migrations: by the version that they start from; each makes a file one version newer.
    """

    file_name: str
    version: int
    statements: Sequence[str]
    migrations: Mapping[int, Callable[[sqlite3.Connection], None]] = field(default_factory=dict)

    def migrate(self, db: sqlite3.Connection, path: Path) -> None:
        """Brings a file forward to this version; the caller has begun a transaction.

        Raises:
            RunError: it is of a version that cannot be.
        """
        version = version_of(db)
        if version > self.version:
            raise RunError(f'{path} was written by a later nos_tf: version {version}, and this reads {self.version}')
        for number in range(version, self.version):
            if number not in self.migrations:
                first = min(self.migrations, default=self.version)
                raise RunError(f'{path} is of another version: {version}, and this reads {first} on')
            self.migrations[number](db)
        if version != self.version:
            db.execute(f'PRAGMA user_version = {self.version}')


def version_of(db: sqlite3.Connection) -> int:
    """Returns the version of a file's tables; `meta` had it at first."""
    (version,) = db.execute('PRAGMA user_version').fetchone()
    return version or read_identity(db).get('schema', 0)


def rename_identity(db: sqlite3.Connection) -> None:
    """A step of migrations: the identity in the names of today, and no version among it."""
    identity = renamed(read_identity(db))
    identity.pop('schema', None)
    db.execute('DELETE FROM meta')
    _insert_identity(db, identity)


def _insert_identity(db: sqlite3.Connection, identity: Mapping[str, Any]) -> None:
    db.executemany('INSERT INTO meta VALUES (?, ?)', [(k, json.dumps(v)) for k, v in identity.items()])


class Database:
    """The open file; only one process at a time may hold it for writing.

    Args:
        run_dir: made if it does not exist.
        schema: of the file.
        identity: all that the content depends on, by name; a file of another identity is refused.
        is_of_machine: whether a name in an identity tells of the machine or of versions.
        allow_mixed: go on also where only such names differ from those that began; noted in `meta`.

    Raises:
        RunError: the directory is in use or cannot be written to, its file is corrupted or locked, or holds results of
            another identity.
    """

    def __init__(
        self,
        run_dir: Path,
        schema: Schema,
        identity: Mapping[str, Any],
        is_of_machine: Callable[[str], bool] = lambda _: False,
        allow_mixed: bool = False,
    ) -> None:
        self.path = run_dir / schema.file_name
        with ExitStack() as stack, explained(self.path):
            stack.enter_context(lock_directory(run_dir))
            if others := sorted(path.name for path in run_dir.glob('*.sqlite') if path.name != schema.file_name):
                raise RunError(f'{run_dir} holds a run of another kind, {others[0]}: choose another run directory')
            self._db = stack.enter_context(closing(sqlite3.connect(self.path, timeout=10, isolation_level=None)))
            if not (local := is_local(run_dir)):
                _keep_rollback_journal(self._db)
            check_integrity(self._db, self.path)
            with self._transaction():
                if self._is_begun():
                    schema.migrate(self._db, self.path)
                    self._go_on(json.loads(json.dumps(identity)), is_of_machine, allow_mixed)
                else:
                    self._begin(schema, identity)
            if local:
                self._db.execute('PRAGMA journal_mode = WAL')  # a report can be read while a run writes
            self._db.execute('PRAGMA synchronous = FULL')
            self._held = stack.pop_all()

    def _is_begun(self) -> bool:
        """Returns whether the file has any content; tables without content are dropped."""
        query = "SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'"
        there = dict(self._db.execute(query).fetchall())
        if there and there.get('meta') != 'table':
            raise RunError(f'{self.path} is a file of another program: move it away, or choose another run directory')
        content = there.keys() - {'meta', 'tasks'}
        if any(self._db.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchone() for name in content):
            return True
        for name, kind in there.items():
            self._db.execute(f'DROP {kind} "{name}"')
        return False

    def _go_on(self, identity: Mapping[str, Any], is_of_machine: Callable[[str], bool], allow_mixed: bool) -> None:
        stored = read_identity(self._db)
        others = stored.pop(OTHERS, [])
        if not (differing := differences(stored, identity)):
            return
        here = {
            key: identity.get(key)
            for key in {**stored, **identity}
            if identity.get(key) != stored.get(key) and is_of_machine(key)
        }
        only_here = not differences(stored | here, {**dict.fromkeys(here), **identity})
        if not (allow_mixed and only_here):
            raise RunError(
                f'{self.path.parent} holds a run of another configuration or version: {differing}. '
                f'Choose another run directory{", or go on with results of both: --allow_mixed" if only_here else ""}'
            )
        if here not in others:
            self._db.execute('INSERT OR REPLACE INTO meta VALUES (?, ?)', (OTHERS, json.dumps([*others, here])))

    def _begin(self, schema: Schema, identity: Mapping[str, Any]) -> None:
        if (summary := self.path.parent / 'summary.json').exists():
            raise RunError(
                f'{summary} tells of a finished run, but {self.path.name} is missing or empty: restore it, or choose '
                'another run directory'
            )
        for statement in ('CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)', *schema.statements):
            self._db.execute(statement)
        _insert_identity(self._db, identity)
        self._db.execute(f'PRAGMA user_version = {schema.version}')

    @property
    def identity(self) -> dict[str, Any]:
        """The identity of the process that began the run; under `OTHERS`, what differed in those that went on."""
        with explained(self.path):
            return read_identity(self._db)

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
def reading(path: Path, schema: Schema) -> Iterator[sqlite3.Connection]:
    """Opens a file that others may be writing to, to read from; one of an earlier version as if it were of this one.

    Raises:
        RunError: it is corrupted, locked, or of a later version.
    """
    uri = f'{path.absolute().as_uri()}?mode=ro'
    with explained(path), closing(sqlite3.connect(uri, uri=True, timeout=10)) as db:
        check_integrity(db, path)
        if version_of(db) == schema.version:
            yield db
            return
        with closing(sqlite3.connect(':memory:')) as copy:
            db.backup(copy)
            schema.migrate(copy, path)
            yield copy


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
