"""The store: what it keeps, what it refuses, and what it says when something is in the way."""

import contextlib
import json
import math
import os
import signal
import sqlite3
import subprocess
import sys

import numpy as np
import pytest

from nos_tf.config import bindings_of
from nos_tf.dsl.rule import UpdateRule
from nos_tf.errors import RunError
from nos_tf.store.results import Result, Store, read_results, read_run
from nos_tf.store.schema import SEARCH, Checkpoint, Row, StoredChild, Update
from nos_tf.tasks.child import Child, Outcome

FILE_NAME = SEARCH.file_name
IDENTITY = {'Own.epochs': 5, 'Own.learning_rates': (0.1, 1.0), 'nos_tf': '1'}
TASK, ANOTHER = {'Own.epochs': 5, 'data': 'a'}, {'Own.epochs': 5, 'data': 'b'}
SGD, MOMENTUM = UpdateRule.parse('g').canonical(), UpdateRule.parse('m').canonical()
LONG_SGD = UpdateRule.parse('g * 1')  # another spelling of SGD
GOOD, BETTER = Outcome(0.5, 0.1, (0.25, 0.1), 1.25), Outcome(0.7500000000000001, 1.0, (0.25, 1 / 3), 2.5)
STATE = {
    'weights': np.array([1.1, -0.0, np.nan, np.inf, 1e-45], np.float32),
    'matrix': np.arange(6, dtype=np.int64).reshape(2, 3) * 2**60,
    'baseline': np.array(1 / 3),
    'empty': np.zeros([0, 4], np.float16),
    'flags': np.array([True, False]),
}


def open_store(run_dir, identity=IDENTITY, task=TASK):
    return contextlib.closing(Store(run_dir, identity, task))


def save(store, program, seed, outcome, fingerprint=None):
    store.save_outcomes([Result(program, seed, outcome, fingerprint)])


def one_line(error):
    """The message of a RunError, which is one line."""
    message = str(error.value)
    assert '\n' not in message and message
    return message


@pytest.fixture
def quick_timeout(monkeypatch):
    """Waits for a lock a moment instead of ten seconds."""
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, 'connect', lambda *a, **k: connect(*a, **{**k, 'timeout': 0.05}))


@pytest.fixture
def filled(tmp_path):
    """A run directory with three children, two of them the same program."""
    with open_store(tmp_path) as store:
        save(store, SGD, 0, GOOD)
        save(store, MOMENTUM, 0, BETTER)
        store.save_batch(
            [StoredChild(0, 0, LONG_SGD, -3.5), StoredChild(0, 0, MOMENTUM, -2.0)], 0, Checkpoint(1, 10.0, {})
        )
        store.save_batch([StoredChild(1, 1, SGD, -1.0)], 0, Checkpoint(2, 20.0, STATE))
    return tmp_path


def same_bits(one, other):
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


# What it keeps


def test_outcomes_survive(tmp_path):
    with open_store(tmp_path / 'new' / 'run') as store:
        assert store.outcome(SGD, 0) is None
        save(store, SGD, 0, GOOD)
        save(store, MOMENTUM, 7, BETTER)
    with open_store(tmp_path / 'new' / 'run') as store:
        assert store.outcome(SGD, 0) == GOOD
        assert store.outcome(MOMENTUM, 7) == BETTER
        assert isinstance(store.outcome(SGD, 0), Outcome) and isinstance(store.outcome(SGD, 0).sweep, tuple)
        assert store.outcome(SGD, 7) is None and store.outcome(MOMENTUM, 0) is None


def test_outcomes_are_filed_under_their_task(tmp_path):
    for task, outcome in ((TASK, GOOD), (ANOTHER, BETTER)):
        with open_store(tmp_path, task=task) as store:
            assert store.outcome(SGD, 0) is None and store.equal_outcome('f', 0) is None
            save(store, SGD, 0, outcome, fingerprint='f')
            store.save_batch([StoredChild(0, 0, SGD, -1.0)], 0, Checkpoint(1, 1.0, {}))
    for task, outcome in ((TASK, GOOD), (ANOTHER, BETTER)):
        with open_store(tmp_path, task=dict(reversed(task.items()))) as store:
            assert store.outcome(SGD, 0) == outcome and store.equal_outcome('f', 0) == (SGD, outcome)
    assert [row.reward for row in read_results(tmp_path)] == [GOOD.reward, BETTER.reward]


def test_a_task_is_kept_once_with_its_identity_and_in_words(tmp_path):
    for _ in range(2):
        with contextlib.closing(Store(tmp_path, IDENTITY, TASK, 'a heap of sand')) as store:
            save(store, SGD, 0, GOOD)
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        ((_, identity, description),) = db.execute('SELECT * FROM tasks')
    assert json.loads(identity) == TASK and description == 'a heap of sand' == read_run(tmp_path).task


def test_what_is_on_file_had_the_default_of_a_field_that_is_new(tmp_path):
    now = bindings_of(Child())
    before = {name: value for name, value in now.items() if name != 'Child.rungs'}
    with open_store(tmp_path, before, before) as store:
        save(store, SGD, 0, GOOD)
    with open_store(tmp_path, now, now) as store:
        assert store.outcome(SGD, 0) == GOOD
    other = {**now, 'Child.rungs': ((0.5, 2),)}
    with open_store(tmp_path, now, other) as store:
        assert store.outcome(SGD, 0) is None
    with pytest.raises(RunError, match=r'Child.rungs is \[\] there and \[\[0.5, 2\]\] here'):
        Store(tmp_path, other, other)


def test_the_first_outcome_stays(tmp_path):
    with open_store(tmp_path) as store:
        save(store, SGD, 0, GOOD)
        save(store, SGD, 0, BETTER)
        assert store.outcome(SGD, 0) == GOOD


def test_sweeps_may_have_gaps(tmp_path):
    with open_store(tmp_path) as store:
        save(store, SGD, 0, GOOD._replace(sweep=(None, 0.5)))
        assert store.outcome(SGD, 0).sweep == (None, 0.5)


def test_an_outcome_says_where_it_is_from(tmp_path):
    with open_store(tmp_path) as store:
        save(store, SGD, 0, GOOD, fingerprint='f')
        save(store, MOMENTUM, 0, Outcome.untrained(0.1, 'rejected: is dull'), fingerprint='m')
        store.save_batch([StoredChild(0, 0, SGD, -1.0), StoredChild(0, 0, MOMENTUM, -2.0)], 0, Checkpoint(1, 1.0, {}))
        assert store.trained(0) == 1
        rejected = store.outcome(MOMENTUM, 0)
        assert (rejected.reward, rejected.sweep, rejected.origin) == (0.1, (), 'rejected: is dull')
        assert math.isnan(rejected.learning_rate)
        rows = store.results()
    assert [(row.origin, row.fingerprint) for row in rows] == [('trained', 'f'), ('rejected: is dull', 'm')]
    assert [row.learning_rate for row in rows] == [0.1, None]
    assert read_results(tmp_path) == rows


def test_an_equal_outcome_is_of_the_same_function_task_and_seed(tmp_path):
    with open_store(tmp_path) as store:
        assert store.equal_outcome('f', 0) is None
        save(store, SGD, 0, GOOD, fingerprint='f')
        save(store, MOMENTUM, 0, BETTER, fingerprint=None)
        assert store.equal_outcome('f', 0) == (SGD, GOOD)
        assert store.equal_outcome('f', 1) is None and store.equal_outcome('g', 0) is None


def test_an_equal_outcome_is_one_that_was_trained_and_never_one_that_was_taken_over(tmp_path):
    adam = UpdateRule.parse('adam')
    with open_store(tmp_path) as store:
        save(store, adam, 0, GOOD._replace(origin='equal to g g x x left'), fingerprint='f')
        assert store.equal_outcome('f', 0) is None
        rejected = GOOD._replace(origin='rejected: is dull')
        save(store, SGD, 0, rejected, fingerprint='f')
        assert store.equal_outcome('f', 0) == (SGD, rejected)
        save(store, MOMENTUM, 0, BETTER, fingerprint='f')
        assert store.equal_outcome('f', 0) == (MOMENTUM, BETTER)
        assert store.trained(0) == 1


def test_results_join_children_and_outcomes_in_the_order_of_sampling(filled):
    sgd, momentum, long_sgd = (' '.join(rule.tokens) for rule in (SGD, MOMENTUM, LONG_SGD))
    assert long_sgd != sgd
    expected = [
        Row(0, 0, 0, long_sgd, sgd, 0.5, 0.1, json.dumps([0.25, 0.1]), 1.25, 0, -3.5),
        Row(
            1,
            0,
            0,
            momentum,
            momentum,
            0.7500000000000001,
            1.0,
            json.dumps([0.25, 1 / 3]),
            2.5,
            0,
            -2.0,
            'trained',
            None,
        ),
        Row(2, 1, 1, sgd, sgd, 0.5, 0.1, json.dumps([0.25, 0.1]), 1.25, 0, -1.0),
    ]
    with open_store(filled) as store:
        assert store.results() == expected
        assert store.results(first=2) == expected[2:]
        assert store.count() == 3
    assert read_results(filled) == expected


def test_save_batch_returns_the_new_rows_alone(filled):
    with open_store(filled) as store:
        rows = store.save_batch(
            [StoredChild(2, 2, MOMENTUM, -4.0), StoredChild(2, 2, SGD, -5.0)], 0, Checkpoint(3, 30.0, {})
        )
        assert [(row.id, row.iteration, row.reward, row.log_prob) for row in rows] == [
            (3, 2, BETTER.reward, -4.0),
            (4, 2, GOOD.reward, -5.0),
        ]
        assert store.results(3) == rows


def test_what_the_learner_told_comes_back_in_order(filled):
    with open_store(filled) as store:
        store.save_batch([StoredChild(2, 2, SGD, -4.0)], 0, Checkpoint(3, 30.0, {}), {'kl': 0.01, 'entropy': 8.5})
        store.save_batch([StoredChild(3, 3, SGD, -4.0)], 0, Checkpoint(4, 40.0, {}), {})  # was not learned from
        store.save_batch([StoredChild(4, 4, SGD, -4.0)], 0, Checkpoint(5, 50.0, {}), {'kl': math.nan})
        first, second = read_run(filled).updates
    assert first == Update(2, 4, {'kl': 0.01, 'entropy': 8.5})
    assert second[:2] == (4, 6) and math.isnan(second.metrics['kl'])


def test_a_checkpoint_comes_back_bit_for_bit(filled):
    with open_store(filled) as store:
        iteration, seconds, state = store.checkpoint()
    assert (iteration, seconds) == (2, 20.0)
    assert set(state) == set(STATE)
    for name, value in STATE.items():
        assert same_bits(state[name], value), name


def test_there_is_one_checkpoint_the_latest(tmp_path):
    with open_store(tmp_path) as store:
        assert store.checkpoint() is None
        store.save_batch([], 0, Checkpoint(1, 1.0, STATE))
        store.save_batch([], 0, Checkpoint(2, 2.0, {}))
        assert store.checkpoint() == Checkpoint(2, 2.0, {})


@pytest.mark.parametrize('table', ['children', 'checkpoint'])
def test_children_and_checkpoint_are_written_together_or_not_at_all(filled, table):
    batch = [StoredChild(2, 2, SGD, -4.0), StoredChild(2, 2, MOMENTUM, -5.0)]
    with open_store(filled) as store:
        before, checkpoint = store.results(), store.checkpoint()
        late = 'WHEN NEW.id = 4' if table == 'children' else ''  # the second of the two
        store._db.execute(
            f"CREATE TEMP TRIGGER broken BEFORE INSERT ON {table} {late} BEGIN SELECT RAISE(FAIL, 'injected'); END"
        )
        with pytest.raises(sqlite3.Error, match='injected'):
            store.save_batch(batch, 0, Checkpoint(3, 30.0, {}))
        assert store.results() == before and store.checkpoint().iteration == checkpoint.iteration
        store._db.execute('DROP TRIGGER broken')
        store.save_batch(batch, 0, Checkpoint(3, 30.0, {}))
        assert store.count() == len(before) + 2 and store.checkpoint().iteration == 3


# Whose it is


def test_the_same_identity_is_let_in_again(tmp_path):
    for identity in (IDENTITY, {**IDENTITY, 'Own.learning_rates': [0.1, 1.0]}, dict(reversed(IDENTITY.items()))):
        Store(tmp_path, identity, TASK).close()


def test_another_identity_is_refused_with_every_difference(filled):
    other = {'Own.epochs': 6, 'Own.learning_rates': (0.1, 2.0), 'nos_tf': '1', 'Own.seed': 3}
    with pytest.raises(RunError) as error:
        Store(filled, other, TASK)
    message = one_line(error)
    assert 'Own.epochs is 5 there and 6 here' in message
    assert 'Own.learning_rates is [0.1, 1.0] there and [0.1, 2.0] here' in message
    assert 'Own.seed is not set there and 3 here' in message
    assert 'nos_tf' not in message.replace(str(filled), '')
    assert str(filled) in message and 'another run directory' in message
    with open_store(filled) as store:  # nothing was changed, nothing is held
        assert store.count() == 3


def test_many_and_long_differences_are_shortened(tmp_path):
    with contextlib.closing(Store(tmp_path, {f'key_{i:02}': 'x' * 500 for i in range(40)}, TASK)) as store:
        save(store, SGD, 0, GOOD)
    with pytest.raises(RunError) as error:
        Store(tmp_path, {f'key_{i:02}': 'y' * 500 for i in range(40)}, TASK)
    message = one_line(error)
    assert len(message) < 1500 + len(str(tmp_path))
    assert 'key_00' in message and 'key_05' in message and 'key_06' not in message
    assert 'and 34 more' in message
    assert 'xxx...' in message and 'yyy...' in message


@pytest.mark.parametrize(
    ('version', 'said'),
    [(SEARCH.version + 1, 'was written by a later nos_tf: version 7, and this reads 6'), (4, 'another version: 4')],
)
def test_a_store_of_another_version_is_refused(filled, version, said):
    with contextlib.closing(sqlite3.connect(filled / FILE_NAME)) as db:
        db.execute(f'PRAGMA user_version = {version}')
    for attempt in (lambda: Store(filled, IDENTITY, TASK), lambda: read_results(filled)):
        with pytest.raises(RunError, match=said) as error:
            attempt()
        assert str(filled) in one_line(error)


# What is in the way


def test_a_directory_is_held_by_one_store_at_a_time(tmp_path):
    with open_store(tmp_path) as store:
        with pytest.raises(RunError, match='another process is running'):
            Store(tmp_path, IDENTITY, TASK)
        save(store, SGD, 0, GOOD)
    with open_store(tmp_path) as store:
        assert store.outcome(SGD, 0) == GOOD


def test_a_directory_is_free_again_when_its_process_is_killed(tmp_path):
    hold = (
        'import fcntl, sys, time; f = open(sys.argv[1], "w"); fcntl.flock(f, fcntl.LOCK_EX); '
        'print("held", flush=True); time.sleep(600)'
    )
    command = [sys.executable, '-c', hold, str(tmp_path / '.lock')]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            said = process.stdout.readline()  # `python -O` would not wait for it in an assert
            assert said == 'held\n'
            with pytest.raises(RunError) as error:
                Store(tmp_path, IDENTITY, TASK)
            assert 'another process is running' in one_line(error) and str(tmp_path) in one_line(error)
        finally:
            process.send_signal(signal.SIGKILL)
    Store(tmp_path, IDENTITY, TASK).close()


def test_a_refused_store_holds_nothing(tmp_path):
    (tmp_path / FILE_NAME).write_bytes(b'no database' * 1000)
    with pytest.raises(RunError) as error:
        Store(tmp_path, IDENTITY, TASK)
    (tmp_path / FILE_NAME).unlink()
    Store(tmp_path, IDENTITY, TASK).close()  # while `error` keeps the frames of the first attempt
    assert 'corrupted' in one_line(error)


def replace_all(content):
    return b'what a text editor left here\n' * 300


def cut_in_half(content):
    return content[: len(content) // 2]


def cut_in_header(content):
    return content[:50]


def overwrite_pages(content):
    return content[:4096] + b'\xff' * (len(content) - 4096)


@pytest.mark.parametrize('damage', [replace_all, cut_in_half, cut_in_header, overwrite_pages])
def test_a_damaged_file_is_told_of_and_left_alone(filled, damage):
    path = filled / FILE_NAME
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    for attempt in (lambda: Store(filled, IDENTITY, TASK), lambda: read_results(filled)):
        with pytest.raises(RunError) as error:
            attempt()
        assert 'is corrupted' in one_line(error) and str(path) in one_line(error)
    assert path.read_bytes() == damaged


def test_a_file_of_no_length_is_a_new_store(tmp_path):
    (tmp_path / FILE_NAME).touch()
    with pytest.raises(RunError) as error:
        read_results(tmp_path)
    one_line(error)
    with open_store(tmp_path) as store:
        save(store, SGD, 0, GOOD)
    assert read_results(tmp_path) == []


@pytest.mark.usefixtures('quick_timeout')
def test_a_file_that_another_program_has_locked(filled):
    with contextlib.closing(sqlite3.connect(filled / FILE_NAME, isolation_level=None)) as other:
        with open_store(filled) as store:
            other.execute('BEGIN EXCLUSIVE')
            for write in (
                lambda: save(store, SGD, 1, GOOD),
                lambda: store.save_batch([StoredChild(2, 2, SGD, -4.0)], 0, Checkpoint(3, 30.0, {})),
            ):
                with pytest.raises(RunError) as error:
                    write()
                assert 'locked by another program' in one_line(error)
            other.execute('ROLLBACK')
            save(store, SGD, 1, BETTER)
            assert store.count() == 3 and store.outcome(SGD, 1) == BETTER
        other.execute('PRAGMA locking_mode = EXCLUSIVE')
        other.execute('CREATE TABLE theirs (x)')
        with pytest.raises(RunError, match='locked by another program'):
            Store(filled, IDENTITY, TASK)
        with pytest.raises(RunError, match='locked by another program'):
            read_results(filled)


def test_a_full_disk_costs_what_is_being_written_and_no_more(filled):
    big = Checkpoint(3, 30.0, {'weights': np.zeros(200_000)})
    with open_store(filled) as store:
        before = store.results()
        (pages,) = store._db.execute('PRAGMA page_count').fetchone()
        store._db.execute(f'PRAGMA max_page_count = {pages}')
        with pytest.raises(RunError) as error:
            store.save_batch([StoredChild(2, 2, SGD, -4.0)], 0, big)
        assert 'no space left' in one_line(error) and 'run the same command again' in one_line(error)
        assert store.results() == before and store.checkpoint().iteration == 2
    assert read_results(filled) == before
    with open_store(filled) as store:
        store.save_batch([StoredChild(2, 2, SGD, -4.0)], 0, big)
        assert store.count() == 4


def test_a_file_that_must_not_be_written(filled):
    with open_store(filled) as store:
        store._db.execute('PRAGMA query_only = ON')
        with pytest.raises(RunError) as error:
            save(store, SGD, 1, GOOD)
        assert 'permissions' in one_line(error)


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write everywhere')
def test_a_directory_that_must_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    try:
        for run_dir in (tmp_path, tmp_path / 'new'):
            with pytest.raises(RunError, match='Permission denied'):
                Store(run_dir, IDENTITY, TASK)
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize('below', ['', 'run'])
def test_a_run_directory_that_is_a_file(tmp_path, below):
    (tmp_path / 'file').touch()
    with pytest.raises(RunError) as error:
        Store(tmp_path / 'file' / below, IDENTITY, TASK)
    assert 'cannot be a run directory' in one_line(error) and 'another run directory' in one_line(error)


def test_a_database_that_is_a_directory(tmp_path):
    (tmp_path / FILE_NAME).mkdir()
    for attempt in (lambda: Store(tmp_path, IDENTITY, TASK), lambda: read_results(tmp_path)):
        with pytest.raises(RunError) as error:
            attempt()
        assert 'cannot be' in one_line(error) and 'corrupted' not in one_line(error)


def test_a_mistake_in_the_program_is_not_blamed_on_the_file(tmp_path):
    with open_store(tmp_path) as store:
        with pytest.raises(sqlite3.IntegrityError, match='NOT NULL'):
            save(store, SGD, 0, GOOD._replace(reward=float('nan')))
        assert store.outcome(SGD, 0) is None
    with pytest.raises(sqlite3.ProgrammingError):
        store.count()


# Reading


def test_reading_what_is_not_there(tmp_path):
    with pytest.raises(RunError) as error:
        read_results(tmp_path / 'nowhere')
    assert 'no search has run there' in one_line(error)
    assert not (tmp_path / 'nowhere').exists()


def test_reading_while_a_search_writes(tmp_path):
    with open_store(tmp_path) as store:
        assert read_results(tmp_path) == []
        save(store, SGD, 0, GOOD)
        store.save_batch([StoredChild(0, 0, SGD, -1.0)], 0, Checkpoint(1, 1.0, {}))
        assert read_results(tmp_path) == store.results() and store.count() == 1
        with store._transaction():
            store._db.execute('DELETE FROM children')
            assert len(read_results(tmp_path)) == 1  # what is committed


def test_a_path_that_a_uri_must_quote(tmp_path):
    run_dir = tmp_path / 'what? 50% & #1'
    with open_store(run_dir) as store:
        save(store, SGD, 0, GOOD)
        store.save_batch([StoredChild(0, 0, SGD, -1.0)], 0, Checkpoint(1, 1.0, {}))
    assert len(read_results(run_dir)) == 1
