"""Training in this process: every job back once, and nothing begun any more when it is closed."""

from concurrent.futures import Future

import pytest

from nos_tf.errors import RunError
from nos_tf.evaluation import machine
from nos_tf.evaluation.in_process import InProcess, harvest
from nos_tf.evaluation.pool import ProcessPool
from tests.fake_children import FakeSetup, collect_all, job, trainings, wait_until


def test_every_job_comes_back_once(tmp_path):
    evaluator = InProcess()
    evaluator.start(FakeSetup(tmp_path))
    jobs = [job(seed) for seed in range(20)]
    for one in jobs:
        evaluator.submit(one)
    results = collect_all(evaluator, len(jobs))
    assert sorted(one.seed for one, _ in results) == list(range(20))
    assert all(outcome.reward == one.seed / 100 for one, outcome in results)
    assert evaluator.collect() == []
    evaluator.close()


def test_closing_drops_the_queue(tmp_path):
    evaluator = InProcess()
    evaluator.start(FakeSetup(tmp_path))
    evaluator._thread.submit(wait_until, lambda: (tmp_path / 'go on').exists())
    evaluator.submit(job(1))
    evaluator.close()
    (tmp_path / 'go on').touch()
    evaluator._thread.shutdown(wait=True)
    assert trainings(tmp_path, 1) == 0


def test_a_failure_is_told_after_what_was_finished_before_it():
    jobs = {Future(): job(1), Future(): job(2)}
    good, bad = jobs
    good.set_result('outcome')
    bad.set_exception(OSError('of what?'))
    assert harvest(jobs, [bad, good]) == [(job(1), 'outcome')]
    with pytest.raises(RunError, match=r'the rule g could not be trained: OSError: of what\?'):
        harvest(jobs, [bad])


def test_what_it_trains_is_of_the_setup_of_this_machine_and_of_its_threads(tmp_path, monkeypatch):
    """A worker of a pool has one thread; this process, those that it has."""
    monkeypatch.setattr(machine, 'threads', lambda: 7)
    setup = FakeSetup(tmp_path)
    here = setup.identity() | machine.identity()
    assert InProcess().identity(setup) == here
    assert ProcessPool(workers=1).identity(setup) == here | {'intra_op threads': 1}
