"""Trainings, of images or of anything else: none is done twice."""

import pytest

from nos_tf.compare.trainings import TrainingRun, Trainings
from nos_tf.errors import RunError
from nos_tf.evaluation.in_process import InProcess
from nos_tf.store.trainings import Training, TrainingStore
from nos_tf.tasks.training import Curve, Trained
from tests.compare.test_comparison import RECIPE


def test_nothing_is_trained_twice(tmp_path, monkeypatch):
    evaluator = InProcess()
    jobs = [Training('keras.SGD', 0.1, 0, 1), Training('exp(exp(g))', 3e38, 0, 2), Training('keras.SGD', 0.1, 0, 1)]
    with Trainings(RECIPE, tmp_path, evaluator) as trainings:
        first = trainings.train(jobs, 'first')
        assert [trained.diverged for trained in first.values()] == [False, True]
        assert [*first] == [job.key for job in jobs[:2]] and trainings.train(jobs, 'again') == first
    monkeypatch.setattr(evaluator, 'start', None)
    with Trainings(RECIPE, tmp_path, evaluator) as trainings:
        assert trainings.train(jobs, 'once more') == first
        with pytest.raises(TypeError):
            trainings.train([jobs[0]._replace(length=2)], 'longer')


class Evaluator:
    """Trains as many epochs as it is asked for."""

    def __init__(self, fails=None):
        self.fails, self.queue, self.done, self.is_open = fails, [], [], None

    def start(self, setup):
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


def test_what_is_on_file_is_trained_again_only_if_it_is_to_be_longer(tmp_path):
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


def test_a_setup_that_cannot_begin_is_one_error_and_the_directory_is_free(tmp_path):
    for error in (ValueError('too small'), RuntimeError('threads')):
        with (
            pytest.raises(RunError, match=str(error)),
            TrainingRun(TrainingStore(tmp_path, Trained, {}), None, Evaluator(error)) as run,
        ):
            run.run([Training('a', 0.1, 0, 1)], is_done)
