"""Trainings on images: none is done twice."""

import pytest
from tests.search.test_comparison import RECIPE

from nos_tf.compare.trainings import Trainings
from nos_tf.evaluation.pool import InProcess
from nos_tf.store.trainings import Training


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
            trainings.run([jobs[0]._replace(length=2)], 'longer')
