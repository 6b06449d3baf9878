"""What every SQLite file of a run directory has: one identity, one writer, all or nothing."""

import shutil
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from types import SimpleNamespace

import pytest

from nos_tf.errors import RunError
from nos_tf.evaluation.machine import is_of_machine
from nos_tf.store.database import OTHERS, Database, Schema, read_identity, reading

NUMBERS = 'CREATE TABLE numbers (n INTEGER PRIMARY KEY)'
SCHEMA = Schema('x.sqlite', 3, [NUMBERS])


def open_database(run_dir, schema=SCHEMA, **identity):
    return closing(Database(run_dir, schema, identity))


def numbers(run_dir):
    with closing(sqlite3.connect(run_dir / 'x.sqlite')) as db:
        return [n for (n,) in db.execute('SELECT n FROM numbers')]


def test_what_is_written_stays_and_an_error_undoes_all_of_a_transaction(tmp_path):
    with open_database(tmp_path, a=1) as database:
        with database._transaction():
            database._db.execute('INSERT INTO numbers VALUES (1)')
        with pytest.raises(sqlite3.IntegrityError), database._transaction():
            database._db.execute('INSERT INTO numbers VALUES (2), (1)')
        assert numbers(tmp_path) == [1]
    with open_database(tmp_path, a=1):
        assert numbers(tmp_path) == [1]
    assert not [*tmp_path.glob('*-wal')]


def test_one_identity_and_one_writer(tmp_path):
    with open_database(tmp_path, a=1) as database:
        add(database, 1)
        with pytest.raises(RunError, match='another process is running'):
            open_database(tmp_path, a=1)
    with pytest.raises(RunError, match='another configuration or version: a is 1 there and 2 here'):
        open_database(tmp_path, a=2)


def add(database, number):
    with database._transaction():
        database._db.execute('INSERT INTO numbers VALUES (?)', (number,))


def test_what_left_nothing_is_nobodys(tmp_path):
    with open_database(tmp_path, a=1, b=1):
        pass
    with closing(sqlite3.connect(tmp_path / 'x.sqlite')) as db, db:
        db.execute('CREATE TABLE earlier (n INTEGER)')  # as of an earlier version
        db.execute('CREATE VIEW seen AS SELECT n FROM earlier')
    with open_database(tmp_path, a=2) as database:
        assert database.identity == {'a': 2}
        add(database, 5)
        names = {name for (name,) in database._db.execute("SELECT name FROM sqlite_master WHERE type != 'index'")}
        assert names == {'meta', 'numbers'}
    with pytest.raises(RunError, match='a is 2 there and 1 here'):
        open_database(tmp_path, a=1)


@pytest.mark.parametrize('content', [None, b''])
def test_a_finished_run_whose_file_is_gone_is_not_begun_anew(tmp_path, content):
    (tmp_path / 'summary.json').write_text('{}')
    if content is not None:
        (tmp_path / 'x.sqlite').write_bytes(content)
    with pytest.raises(
        RunError, match='summary.json tells of a finished run, but x.sqlite is missing or empty: restore'
    ):
        open_database(tmp_path, a=1)


def test_a_file_of_another_program_is_left_alone(tmp_path):
    with closing(sqlite3.connect(tmp_path / 'x.sqlite')) as db, db:
        db.execute('CREATE TABLE theirs (n INTEGER)')
    with pytest.raises(RunError, match='x.sqlite is a file of another program: move it away'):
        open_database(tmp_path, a=1)
    with closing(sqlite3.connect(tmp_path / 'x.sqlite')) as db:
        assert db.execute('SELECT name FROM sqlite_master').fetchall() == [('theirs',)]


def test_a_run_goes_on_on_another_machine_if_that_is_allowed_and_says_so(tmp_path):
    there = {'a': 1, 'processor': 'old', 'tensorflow': '1'}

    def go_on(allow_mixed, **identity):
        mixed = {'is_of_machine': is_of_machine, 'allow_mixed': allow_mixed}
        return closing(Database(tmp_path, SCHEMA, {**there, **identity}, **mixed))

    with go_on(True) as database:
        assert database.identity == there
        add(database, 1)
    with pytest.raises(RunError, match='processor is "old" there and "new" here.*results of both: --allow_mixed'):
        go_on(False, processor='new')
    for _ in range(2):
        with go_on(True, processor='new') as database:
            assert database.identity == {**there, OTHERS: [{'processor': 'new'}]}
    with go_on(True, processor='newer', tensorflow='2') as database:
        assert database.identity[OTHERS] == [{'processor': 'new'}, {'processor': 'newer', 'tensorflow': '2'}]
    with go_on(False) as database:  # the machine that began
        assert len(database.identity[OTHERS]) == 2
    with pytest.raises(RunError, match='a is 1 there and 2 here; processor is') as error:
        go_on(True, a=2, processor='new')
    assert '--allow_mixed' not in str(error.value)


def test_a_run_says_which_settings_of_the_process_differ(tmp_path):
    """Those at their defaults are not written, so that runs of before they were looked at go on."""
    for there, here in (({}, {'keras floatx': 'float16'}), ({'XLA_FLAGS': '-x'}, {})):
        run_dir = tmp_path / str(len(there))
        with open_database(run_dir, a=1, **there) as database:
            add(database, 1)
        ((name, value),) = {**there, **here}.items()
        sides = (f'"{value}"', 'not set') if there else ('not set', f'"{value}"')
        with pytest.raises(RunError, match='{} is {} there and {} here. .*--allow_mixed'.format(name, *sides)):
            Database(run_dir, SCHEMA, {'a': 1, **here}, is_of_machine=is_of_machine)
        mixed = {'is_of_machine': is_of_machine, 'allow_mixed': True}
        with closing(Database(run_dir, SCHEMA, {'a': 1, **here}, **mixed)) as database:
            assert database.identity[OTHERS] == [{name: here.get(name)}]


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / 'x.sqlite').write_bytes(b'no database' * 100)
    with pytest.raises(RunError, match='x.sqlite'):
        open_database(tmp_path)


def test_a_directory_of_another_kind_of_run_is_refused(tmp_path):
    (tmp_path / 'y.sqlite').touch()
    with pytest.raises(RunError, match=r'holds a run of another kind, y\.sqlite: choose another run directory'):
        open_database(tmp_path)
    assert not (tmp_path / 'x.sqlite').exists()


def on(kind, monkeypatch):
    """Lets every directory lie on a file system of this kind."""
    monkeypatch.setattr('psutil.disk_partitions', lambda all: [SimpleNamespace(mountpoint='/', fstype=kind)])


@pytest.mark.parametrize('kind, mode', [('ext4', 'wal'), ('nfs4', 'delete'), ('fuse.sshfs', 'delete'), ('', 'delete')])
def test_a_write_ahead_log_is_for_local_disks(tmp_path, monkeypatch, kind, mode):
    on(kind, monkeypatch)
    for number in (1, 2):
        with open_database(tmp_path, a=1) as database:
            assert database._db.execute('PRAGMA journal_mode').fetchone() == (mode,)
            add(database, number)
            assert numbers(tmp_path) == [1, 2][:number]
            assert (tmp_path / 'x.sqlite-shm').exists() == (mode == 'wal')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['.lock', 'x.sqlite']


def test_without_a_write_ahead_log_a_run_can_be_read_while_it_writes(tmp_path, monkeypatch):
    on('nfs4', monkeypatch)
    seen, done = set(), threading.Event()

    def read():
        while not done.is_set():
            with reading(tmp_path / 'x.sqlite', SCHEMA) as db:
                seen.add(len(db.execute('SELECT n FROM numbers').fetchall()))

    written = []
    with open_database(tmp_path, a=1) as database, ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        while len(seen) < 5 and len(written) < 2000:
            add(database, len(written))
            written.append(len(written))
            time.sleep(0.01)  # children end less often: without it the writer has the lock nearly all the time
        done.set()
        for reader in readers:
            reader.result()
    assert len(seen) >= 5
    assert numbers(tmp_path) == written


def test_a_log_that_a_killed_process_left_is_taken_up_without_shared_memory(tmp_path, monkeypatch):
    with open_database(tmp_path / 'local', a=1) as database:
        add(database, 1)
        add(database, 2)
        shutil.copytree(tmp_path / 'local', tmp_path / 'network')
    (tmp_path / 'network' / 'x.sqlite-shm').unlink()
    on('nfs4', monkeypatch)
    connect = sqlite3.connect

    def without_shared_memory(path, **keywords):
        return connect(f'{path.absolute().as_uri()}?vfs=unix-none', uri=True, **keywords)

    monkeypatch.setattr(sqlite3, 'connect', without_shared_memory)
    with open_database(tmp_path / 'network', a=1) as database:
        add(database, 3)
    monkeypatch.setattr(sqlite3, 'connect', connect)
    assert numbers(tmp_path / 'network') == [1, 2, 3]


def test_a_run_that_has_just_begun_is_not_corrupted(tmp_path):
    (tmp_path / 'x.sqlite').touch()
    with pytest.raises(RunError, match='x.sqlite holds nothing yet'), reading(tmp_path / 'x.sqlite', SCHEMA) as db:
        read_identity(db)
