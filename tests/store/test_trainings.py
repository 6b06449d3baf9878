"""Trainings on file: kept, replaced by longer ones, and of one kind."""

import sqlite3
from contextlib import closing

import pytest

from nos_tf.errors import RunError
from nos_tf.store.trainings import TRAININGS, Key, TrainingStore, kind_of, read_trainings
from nos_tf.tasks.training import Curve, Trained

FILE_NAME = TRAININGS.file_name
KEY = Key('powersign', 0.1, 3)
SHORT = Trained(Curve((2.0,), (0.25,), (0.125,)), 1.5, False)
LONG = Trained(Curve((2.0, float('inf')), (0.25, 0.5), (0.125, 0.25)), 3.0, True)


class Other(Trained):
    """Of another kind."""


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
    assert kind_of(tmp_path) == 'nos_tf.tasks.training.Trained'
    for attempt in (lambda: read_trainings(tmp_path, Other), lambda: TrainingStore(tmp_path, Other, {'a': 1})):
        with pytest.raises(RunError, match=r'nos_tf\.tasks\.training\.Trained.*Other'):
            attempt()


def test_another_version_and_a_damaged_file_are_one_line(tmp_path):
    TrainingStore(tmp_path, Trained, {}).close()
    path = tmp_path / FILE_NAME
    for version, said in ((1, 'another version: 1, and this reads 2 on'), (4, 'a later nos_tf: version 4')):
        with closing(sqlite3.connect(path)) as db:
            db.execute(f'PRAGMA user_version = {version}')
        with pytest.raises(RunError, match=said):
            read_trainings(tmp_path, Trained)
    path.write_bytes(b'nonsense' * 1000)
    with pytest.raises(RunError, match='corrupted|not a database'):
        kind_of(tmp_path)


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
    with pytest.raises(RunError, match='another version: 0, and this reads 2 on'):
        kind_of(tmp_path)
