"""What is said of a store that cannot be used: only what is damaged is called so, whatever SQLite calls it."""

import contextlib
import resource
import shutil
import sqlite3
from contextlib import closing
from types import SimpleNamespace

import pytest

from nos_tf.errors import RunError
from nos_tf.store.faults import check_integrity, explained

LOCKS = 'cannot lock files, or not share memory'
LOCAL_DISK = 'choose a --run_dir on a local disk'
HALF_WRITTEN = 'was left in the middle of a write'
DISK = 'is the disk full or failing, a quota spent, the network down?'
SAID = {  # of sqlite.org/rescode.html, all that come from a file, its disk or its file system
    'SQLITE_PERM': (3, 'access permission denied', 'cannot be used'),
    'SQLITE_BUSY': (5, 'database is locked', 'is locked by another program'),
    'SQLITE_BUSY_RECOVERY': (261, 'database is locked', 'is locked by another program'),
    'SQLITE_BUSY_SNAPSHOT': (517, 'database is locked', 'is locked by another program'),
    'SQLITE_BUSY_TIMEOUT': (773, 'database is locked', 'is locked by another program'),
    'SQLITE_LOCKED': (6, 'database table is locked', 'is locked by another program'),
    'SQLITE_LOCKED_SHAREDCACHE': (262, 'database table is locked', 'is locked by another program'),
    'SQLITE_READONLY': (8, 'attempt to write a readonly database', 'see to its permissions'),
    'SQLITE_READONLY_DIRECTORY': (1544, 'attempt to write a readonly database', 'see to its permissions'),
    'SQLITE_READONLY_RECOVERY': (264, 'attempt to write a readonly database', HALF_WRITTEN),
    'SQLITE_READONLY_CANTLOCK': (520, 'attempt to write a readonly database', HALF_WRITTEN),
    'SQLITE_READONLY_ROLLBACK': (776, 'attempt to write a readonly database', HALF_WRITTEN),
    'SQLITE_READONLY_CANTINIT': (1288, 'attempt to write a readonly database', HALF_WRITTEN),
    'SQLITE_READONLY_DBMOVED': (1032, 'attempt to write a readonly database', 'was moved or deleted while'),
    'SQLITE_INTERRUPT': (9, 'interrupted', 'run the same command again'),
    'SQLITE_IOERR': (10, 'disk I/O error', DISK),
    **{
        f'SQLITE_IOERR_{name}': (10 | number << 8, 'disk I/O error', DISK)
        for name, number in [
            ('READ', 1),
            ('SHORT_READ', 2),
            ('WRITE', 3),
            ('FSYNC', 4),
            ('DIR_FSYNC', 5),
            ('TRUNCATE', 6),
            ('FSTAT', 7),
            ('DELETE', 10),
            ('ACCESS', 13),
            ('CLOSE', 16),
            ('SHMSIZE', 19),
            ('SEEK', 22),
            ('DELETE_NOENT', 23),
            ('MMAP', 24),
            ('DATA', 32),
            ('CORRUPTFS', 33),
        ]
    },
    **{
        f'SQLITE_IOERR_{name}': (10 | number << 8, 'disk I/O error', LOCKS)
        for name, number in [
            ('UNLOCK', 8),
            ('RDLOCK', 9),
            ('BLOCKED', 11),
            ('CHECKRESERVEDLOCK', 14),
            ('LOCK', 15),
            ('SHMOPEN', 18),
            ('SHMLOCK', 20),
            ('SHMMAP', 21),
        ]
    },
    'SQLITE_FULL': (13, 'database or disk is full', 'no space left to write'),
    'SQLITE_CANTOPEN': (14, 'unable to open database file', 'cannot be opened'),
    'SQLITE_CANTOPEN_ISDIR': (526, 'unable to open database file', 'cannot be opened'),
    'SQLITE_CANTOPEN_SYMLINK': (1550, 'unable to open database file', 'cannot be opened'),
    'SQLITE_PROTOCOL': (15, 'locking protocol', LOCKS),
    'SQLITE_SCHEMA': (17, 'database schema has changed', 'run the same command again'),
    'SQLITE_TOOBIG': (18, 'string or blob too big', 'cannot hold a value as large as that'),
    'SQLITE_NOLFS': (22, 'large file support is disabled', 'cannot hold a file as large as that'),
    'SQLITE_AUTH': (23, 'authorization denied', 'cannot be used'),
}
EXTENDED_ALONE = (LOCKS, HALF_WRITTEN, 'was moved or deleted while')  # what the text does not tell


@pytest.fixture
def store(tmp_path):
    """A sound file of many pages in rollback mode."""
    path = tmp_path / 'results.sqlite'
    with closing(connect(path)) as db:
        db.execute('CREATE TABLE numbers (n TEXT PRIMARY KEY)')
        db.execute('BEGIN')
        db.executemany('INSERT INTO numbers VALUES (?)', [(str(n) * 100,) for n in range(200)])
        db.execute('COMMIT')
    return path


def connect(path):
    return sqlite3.connect(path, isolation_level=None, timeout=0.05)


@contextlib.contextmanager
def told(path):
    """Gathers the one line that is said of the file."""
    lines = []
    with pytest.raises(RunError) as caught, explained(path):
        yield lines
    lines.append(str(caught.value))
    assert str(path) in lines[0] and '\n' not in lines[0]


def error_of(code, text, name=None):
    error = sqlite3.OperationalError(text)
    if name:
        error.sqlite_errorcode, error.sqlite_errorname = code, name
    return error


@pytest.mark.parametrize('name', SAID)
def test_each_code_of_sqlite_is_said_for_what_it_is(store, name):
    code, text, said = SAID[name]
    assert getattr(sqlite3, name, code) == code
    with told(store) as lines:
        raise error_of(code, text, name)
    assert said in lines[0] and f'({text}, {name})' in lines[0] and 'corrupted' not in lines[0]
    assert (LOCAL_DISK in lines[0]) == (said == LOCKS)
    with told(store) as lines:  # as on Python 3.10
        raise error_of(code, text)
    assert 'corrupted' not in lines[0]
    assert said in lines[0] or said in EXTENDED_ALONE


@pytest.mark.parametrize('name', ['SQLITE_BUSY', 'SQLITE_IOERR_READ', 'SQLITE_CANTOPEN'])
def test_on_a_network_file_system_the_locks_may_be_to_blame(store, monkeypatch, name):
    monkeypatch.setattr('psutil.disk_partitions', lambda all: [SimpleNamespace(mountpoint='/', fstype='nfs4')])
    code, text, said = SAID[name]
    with told(store) as lines:
        raise error_of(code, text, name)
    assert said.removesuffix('?') in lines[0]
    assert f'; it lies on nfs4, where locks may fail: {LOCAL_DISK}' in lines[0]


# Real faults


def garble(content):
    return content[:4096] + b'\xff' * (len(content) - 4096)


@pytest.mark.parametrize('damage', [garble, lambda content: b'no database' * 1000])
def test_what_is_damaged_is_called_so(store, damage):
    store.write_bytes(damage(store.read_bytes()))
    for query in ('PRAGMA quick_check(1)', 'SELECT count(*) FROM numbers'):
        with told(store) as lines, closing(connect(store)) as db:
            db.execute(query).fetchall()
            check_integrity(db, store)
        assert 'is corrupted' in lines[0] and 'move it away, or restore a copy' in lines[0]


def test_a_text_that_is_none_is_damage(store):
    with closing(connect(store)) as db:
        db.execute("UPDATE numbers SET n = CAST(x'0aff' AS TEXT) WHERE n = ?", ('7' * 100,))
        with told(store) as lines:
            db.execute('SELECT n FROM numbers').fetchall()
    assert 'is corrupted (Could not decode to UTF-8' in lines[0]


def test_a_sound_file_that_sqlite_calls_malformed_is_not_corrupted(store):
    """SQLite gives this code to reads that fail with EIO, as on a network that is gone for a while."""
    with told(store) as lines:
        raise error_of(11, 'database disk image is malformed', 'SQLITE_CORRUPT')
    assert DISK in lines[0] and 'corrupted' not in lines[0]
    store.write_bytes(garble(store.read_bytes()))
    with told(store) as lines:
        raise error_of(11, 'database disk image is malformed')
    assert 'is corrupted' in lines[0]


class Verdict:
    """A connection whose file has been checked."""

    def __init__(self, *lines):
        self.lines = lines

    def execute(self, _):
        return self

    def fetchone(self):
        return ['\n'.join(self.lines)]


def test_a_page_that_could_not_be_read_is_not_damage(tmp_path):
    with pytest.raises(RunError) as caught:
        check_integrity(
            Verdict('*** in database main ***', 'Page 41: unable to get the page. error code=8458'), tmp_path
        )
    assert DISK in str(caught.value) and 'corrupted' not in str(caught.value) and '\n' not in str(caught.value)
    with pytest.raises(RunError, match='is corrupted'):
        check_integrity(Verdict('*** in database main ***', 'Page 41: unable to get the page. error code=11'), tmp_path)
    check_integrity(Verdict('ok'), tmp_path)


def test_a_full_disk(store):
    with closing(connect(store)) as db:
        (pages,) = db.execute('PRAGMA page_count').fetchone()
        db.execute(f'PRAGMA max_page_count = {pages}')
        with told(store) as lines:
            db.execute('INSERT INTO numbers VALUES (hex(zeroblob(100000)))')
    assert 'no space left to write' in lines[0]


def test_a_limit_of_file_sizes(store):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with closing(connect(store)) as db, told(store) as lines:
        resource.setrlimit(resource.RLIMIT_FSIZE, (store.stat().st_size, limits[1]))
        try:
            db.execute('INSERT INTO numbers VALUES (hex(zeroblob(100000)))')
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert DISK in lines[0]


def test_a_file_that_is_gone(store):
    with closing(connect(store)) as db:
        db.execute('SELECT count(*) FROM numbers')
        store.unlink()
        with told(store) as lines:
            db.execute('DELETE FROM numbers')
    assert 'was moved or deleted while it was in use' in lines[0] or 'see to its permissions' in lines[0]


def test_a_value_that_is_too_large(store):
    with closing(connect(store)) as db, told(store) as lines:
        db.execute('INSERT INTO numbers VALUES (zeroblob(2000000000))')
    assert 'cannot hold a value as large as that' in lines[0]


def test_what_others_do_within_is_not_the_stores_fault(store):
    """A caller that reads a store may run out of memory by itself."""
    with pytest.raises(MemoryError), explained(store):
        raise MemoryError


def test_what_a_killed_writer_left_half_written_is_not_damaged(store, tmp_path):
    killed = tmp_path / 'killed.sqlite'
    with closing(connect(store)) as db:
        db.execute('PRAGMA cache_size = 1')
        db.execute('BEGIN')
        db.execute("UPDATE numbers SET n = 'x' || n")
        shutil.copy(store, killed)
        shutil.copy(f'{store}-journal', f'{killed}-journal')
    with told(killed) as lines, closing(sqlite3.connect(f'{killed.as_uri()}?mode=ro', uri=True)) as db:
        db.execute('SELECT count(*) FROM numbers').fetchone()
    assert HALF_WRITTEN in lines[0] or 'see to its permissions' in lines[0]  # the code is unknown to Python 3.10
    with closing(connect(killed)) as db:
        assert db.execute("SELECT count(*) FROM numbers WHERE n LIKE 'x%'").fetchone() == (0,)


def test_processes_that_cannot_share_memory(store):
    with closing(connect(store)) as db:
        db.execute('PRAGMA journal_mode = WAL')
        with told(store) as lines, closing(sqlite3.connect(f'{store.as_uri()}?vfs=unix-none', uri=True)) as other:
            other.execute('SELECT count(*) FROM numbers')
    assert 'the journal beside it not made' in lines[0]


@pytest.mark.parametrize('query', ['SELECT value FROM meta', 'SELECT value FROM numbers'])
def test_a_file_of_another_program_or_without_tables_yet(store, query):
    with told(store) as lines, closing(connect(store)) as db:
        db.execute(query)
    assert 'holds nothing yet, or is a file of another program or version (no such' in lines[0]


def test_mistakes_of_ours_are_not_explained_away(store):
    with pytest.raises(sqlite3.IntegrityError), explained(store):
        raise sqlite3.IntegrityError('UNIQUE constraint failed')
    with pytest.raises(sqlite3.ProgrammingError), explained(store), closing(connect(store)) as db:
        db.execute('SELECT ?')
    with pytest.raises(sqlite3.OperationalError, match='syntax'), explained(store):
        raise error_of(1, 'near "SELCT": syntax error', 'SQLITE_ERROR')
