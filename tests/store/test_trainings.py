"""Trainings on file: kept, replaced by longer ones, of one kind, and not done twice."""

import json
import sqlite3
from contextlib import closing

import pytest

from nos_tf.errors import RunError
from nos_tf.store.trainings import FILE_NAME, Key, Training, TrainingRun, TrainingStore, kind_of, read_trainings
from nos_tf.tasks.recipe import Curve, Trained

KEY = Key('powersign', 0.1, 3)
SHORT = Trained(Curve((2.0,), (0.25,), (0.125,)), 1.5, False)
LONG = Trained(Curve((2.0, float('inf')), (0.25, 0.5), (0.125, 0.25)), 3.0, True)


class Other(Trained):
    """Of another kind."""


class Evaluator:
    """Trains as many epochs as it is asked for."""

    def __init__(self, fails=None):
        self.fails, self.queue, self.done, self.is_open = fails, [], [], None

    def start(self, course, _):
        if self.fails:
            raise self.fails
        self.is_open = True

    def submit(self, job):
        self.queue.append(job)

    def collect(self):
        job = self.queue.pop(0)
        self.done.append(job)
        return [(job, Trained(Curve(*[(0.5,) * job.length] * 3), 1.0, False))]

    def close(self):
        self.is_open = False


def is_done(job, found):
    return found.curve.epochs >= job.length


def test_what_is_saved_is_read_and_a_longer_one_takes_its_place(tmp_path):
    with closing(TrainingStore(tmp_path, Trained, {'a': 1})) as store:
        store.save(KEY, SHORT)
        store.save(KEY._replace(seed=4), SHORT)
        store.save(KEY, LONG)
    with closing(TrainingStore(tmp_path, Trained, {'a': 1})) as store:
        assert store.read() == {KEY: LONG, KEY._replace(seed=4): SHORT} == read_trainings(tmp_path, Trained)


def test_other_kinds_and_other_places_are_refused(tmp_path):
    assert kind_of(tmp_path) is None
    with pytest.raises(RunError, match=f'holds no {FILE_NAME}: no comparison has run there'):
        read_trainings(tmp_path, Trained)
    with closing(TrainingStore(tmp_path, Trained, {'a': 1})) as store:
        store.save(KEY, SHORT)
    assert kind_of(tmp_path) == 'nos_tf.tasks.recipe.Trained'
    for attempt in (lambda: read_trainings(tmp_path, Other), lambda: TrainingStore(tmp_path, Other, {'a': 1})):
        with pytest.raises(RunError, match=r'nos_tf\.tasks\.recipe\.Trained.*Other'):
            attempt()


def test_another_version_and_a_damaged_file_are_one_line(tmp_path):
    TrainingStore(tmp_path, Trained, {}).close()
    path = tmp_path / FILE_NAME
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE meta SET value = ? WHERE key = 'schema'", (json.dumps(1),))
    with pytest.raises(RunError, match='another version: schema is 1, not 2'):
        read_trainings(tmp_path, Trained)
    path.write_bytes(b'nonsense' * 1000)
    with pytest.raises(RunError, match='corrupted|not a database'):
        kind_of(tmp_path)


def test_nothing_is_trained_twice(tmp_path):
    jobs = [Training('a', 0.1, 0, 1), Training('b', 0.1, 0, 2), Training('a', 0.1, 0, 1)]
    first, told = Evaluator(), []
    with TrainingRun(TrainingStore(tmp_path, Trained, {}), None, first) as run:
        found = run.run(jobs, is_done, lambda *ended: told.append(ended))
        assert [*found] == [job.key for job in jobs[:2]] and first.is_open
        assert [job for job, _, before in told if before is None] == first.done == jobs[:2]
    assert first.is_open is False
    longer, told = Evaluator(), []
    with TrainingRun(TrainingStore(tmp_path, Trained, {}), None, longer) as run:
        assert run.run(jobs, is_done) == found and longer.is_open is None
        run.run([jobs[0]._replace(length=3), jobs[1]], is_done, lambda *ended: told.append(ended))
    assert longer.done == [jobs[0]._replace(length=3)]
    assert told[0][2] == found[jobs[0].key]


def test_a_course_that_cannot_begin_is_one_error_and_the_directory_is_free(tmp_path):
    for error in (ValueError('too small'), RuntimeError('threads')):
        with (
            pytest.raises(RunError, match=str(error)),
            TrainingRun(TrainingStore(tmp_path, Trained, {}), None, Evaluator(error)) as run,
        ):
            run.run([Training('a', 0.1, 0, 1)], is_done)


def test_event_files_of_two_optimizers_never_mix():
    assert Key('keras.Adam', 0.01, 2).folder == 'keras.Adam/0.01-2'
    assert Key('g * m', 0.1, 0).folder != Key('g + m', 0.1, 0).folder


def test_a_file_of_another_program_is_not_corrupted(tmp_path):
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db, db:
        db.execute('CREATE TABLE meta (identity TEXT)')  # as benchmarks/trainings.py has it
    with pytest.raises(RunError, match='is a file of another program or version') as caught:
        kind_of(tmp_path)
    assert 'corrupted' not in str(caught.value)
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db, db:
        db.execute('DROP TABLE meta')
        db.execute('CREATE TABLE meta (key TEXT, value TEXT)')
    with pytest.raises(RunError, match='another version: schema is None, not 2'):
        kind_of(tmp_path)
