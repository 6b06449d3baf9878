"""Trainings on file: kept, replaced by longer ones, not done twice."""

from contextlib import closing

import pytest

from nos_tf.search.evaluators import InProcess
from nos_tf.search.trainings import Key, Training, Trainings, TrainingStore
from nos_tf.tasks.recipe import Curve, Trained
from tests.search.test_comparison import RECIPE

KEY = Key('powersign', 0.1, 3)


def test_what_is_saved_is_read_and_a_longer_one_takes_its_place(tmp_path):
    short = Trained(Curve((2.0,), (0.25,), (0.125,)), 1.5, False)
    long = Trained(Curve((2.0, 1.0), (0.25, 0.5), (0.125, 0.25)), 3.0, True)
    with closing(TrainingStore(tmp_path, {'a': 1})) as store:
        store.save(KEY, short)
        store.save(KEY._replace(seed=4), short)
        store.save(KEY, long)
    with closing(TrainingStore(tmp_path, {'a': 1})) as store:
        assert store.read() == {KEY: long, KEY._replace(seed=4): short}


def test_nothing_is_trained_twice(tmp_path, monkeypatch):
    evaluator = InProcess()
    jobs = [Training('keras.SGD', 0.1, 0, 1), Training('exp(exp(g))', 3e38, 0, 2), Training('keras.SGD', 0.1, 0, 1)]
    with Trainings(RECIPE, tmp_path, evaluator) as trainings:
        first = trainings.run(jobs, 'first')
        assert [trained.diverged for trained in first.values()] == [False, True]
        assert [*first] == [job.key for job in jobs[:2]] and trainings.run(jobs, 'again') == first
    monkeypatch.setattr(evaluator, 'start', None)
    with Trainings(RECIPE, tmp_path, evaluator) as trainings:
        assert trainings.run(jobs, 'once more') == first
        with pytest.raises(TypeError):
            trainings.run([jobs[0]._replace(epochs=2)], 'longer')


def test_a_training_has_a_name():
    assert str(Training('keras.SGD', 0.1, 0, 1)) == 'keras.SGD at 0.1, seed 0, 1 epochs'
