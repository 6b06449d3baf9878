"""The pool and this process: the same bits in both, failures told by name, no worker mourned or left behind."""

import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import keras
import pytest

from nos_tf.errors import RunError
from nos_tf.evaluation.in_process import InProcess
from nos_tf.evaluation.pool import ProcessPool
from tests import fake_children
from tests.fake_children import FakeSetup, collect_all, job, trainings, wait_until, workers_alive
from tests.tasks.small import SETUP, TASK

ROOT = Path(__file__).parents[2]
RULES = ('g', 'adam', 'drop(g, 0.3) + noise', 'exp(g^3)')
ONE_THREAD = ('TF_NUM_INTRAOP_THREADS', 'TF_NUM_INTEROP_THREADS', 'OMP_NUM_THREADS')


@pytest.fixture(scope='module')
def pool(tmp_path_factory):
    """One worker that trains fake children, in `pool.folder`; its one thread is its own doing."""
    evaluator = ProcessPool(workers=1, attempts=2)
    evaluator.folder = tmp_path_factory.mktemp('fake')
    with pytest.MonkeyPatch.context() as patch:
        for name in ONE_THREAD:
            patch.delenv(name, raising=False)
        keras.config.set_epsilon(0.25)  # a setting that its worker is to adopt
        evaluator.start(FakeSetup(evaluator.folder))
        keras.config.set_epsilon(1e-7)
        yield evaluator
        evaluator.close()


@pytest.fixture
def in_process(tmp_path):
    evaluator = InProcess()
    evaluator.start(FakeSetup(tmp_path))
    yield evaluator
    evaluator.close()


@pytest.mark.slow
def test_processes_and_this_process_agree_bit_for_bit():
    jobs = [job(seed, rule) for rule in RULES for seed in (0, 1)]
    outcomes = []
    for evaluator in (InProcess(), ProcessPool(workers=2)):
        evaluator.start(SETUP)
        for one in jobs:
            evaluator.submit(one)
        results = collect_all(evaluator, len(jobs))
        evaluator.close()
        assert sorted(map(str, jobs)) == sorted(str(one) for one, _ in results)  # each once
        outcomes.append({one: outcome._replace(seconds=0) for one, outcome in results})
    assert outcomes[0] == outcomes[1]
    assert len({outcome.sweep for outcome in outcomes[0].values()}) > len(RULES)  # they differ among themselves


@pytest.mark.parametrize('fixture', ['in_process', 'pool'])
def test_a_training_that_fails_is_told_by_rule_and_reason(fixture, request):
    evaluator = request.getfixturevalue(fixture)
    evaluator.submit(job(fake_children.RAISES, 'g * exp(m)'))
    with pytest.raises(RunError) as error:
        evaluator.collect()
    message = str(error.value)
    assert 'g * exp(m)' in message and 'ZeroDivisionError: no luck' in message and '\n' not in message
    evaluator.submit(job(1))
    assert [(one.seed, outcome.reward) for one, outcome in evaluator.collect()] == [(1, 0.01)]


def test_a_worker_computes_on_one_thread_with_the_settings_of_its_parent_and_does_not_hear_interrupts(pool):
    pool.submit(job(fake_children.HABITS))
    ((_, outcome),) = pool.collect()
    assert outcome.reward == 1 and outcome.sweep == (1.0,) and outcome.learning_rate == 0.25
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])  # this process does


def test_a_worker_that_is_killed_is_replaced_and_no_job_is_lost(pool):
    seeds = [20, 21, fake_children.DIES_ONCE, 22, 23]
    for seed in seeds:
        pool.submit(job(seed))
    results = collect_all(pool, len(seeds))
    assert sorted(one.seed for one, _ in results) == sorted(seeds)
    assert all(outcome.reward == one.seed / 100 for one, outcome in results)
    assert trainings(pool.folder, fake_children.DIES_ONCE) == 2
    assert [trainings(pool.folder, seed) for seed in (20, 21)] == [1, 1]  # what had ended is not trained again


@dataclass(frozen=True)
class FitOnlyHere:
    """A setup of which no worker process can have a trainer."""

    def trainer(self):
        if multiprocessing.parent_process() is not None:
            raise LookupError('not of this\nprocess')


def test_a_worker_that_cannot_begin_says_why_at_once(capfd):
    evaluator = ProcessPool(workers=1)
    evaluator.start(FitOnlyHere())
    evaluator.submit(job(1, 'g * exp(m)'))
    with pytest.raises(RunError) as error:
        evaluator.collect()
    evaluator.close()
    assert str(error.value) == 'the rule g * exp(m) could not be trained: LookupError: not of this process'
    assert 'Traceback' not in capfd.readouterr().err


def test_a_setup_that_cannot_be_sent_is_refused_with_what_to_do():
    setup = FitOnlyHere()
    object.__setattr__(setup, 'lock', threading.Lock())
    with pytest.raises(ValueError, match='cannot be told what to train .*lock.*: define its parts in a module of your'):
        ProcessPool(workers=1).start(setup)


@pytest.mark.slow
def test_a_worker_that_always_dies_ends_the_search(tmp_path):
    evaluator = ProcessPool(workers=1, attempts=2)
    evaluator.start(FakeSetup(tmp_path))
    evaluator.submit(job(fake_children.DIES, 'g * exp(m)'))
    with pytest.raises(RunError) as error:
        evaluator.collect()
    evaluator.close()
    message = str(error.value)
    assert 'workers died 2 times' in message and 'g * exp(m)' in message and '\n' not in message
    assert trainings(tmp_path, fake_children.DIES) == 2


def test_workers_that_die_between_jobs_are_replaced_and_deaths_counted_from_the_last_job_that_ended(pool):
    for i in range(2):  # as many deaths as attempts
        pool.submit(job(40 + i))
        pool.collect()
        os.kill(next(iter(pool._pool._processes)), signal.SIGKILL)
        assert wait_until(lambda: pool._pool._broken)
        pool.submit(job(50 + i))
        assert [one.seed for one, _ in pool.collect()] == [50 + i]


@pytest.mark.parametrize('fixture', ['in_process', 'pool'])
def test_a_job_that_ran_out_of_memory_is_tried_again(fixture, request, tmp_path, capfd):
    evaluator = request.getfixturevalue(fixture)
    folder = getattr(evaluator, 'folder', tmp_path)
    for one in (job(30), job(fake_children.STARVES_ONCE, 'g * exp(m)'), job(31)):
        evaluator.submit(one)
    results = collect_all(evaluator, 3)
    assert sorted(one.seed for one, _ in results) == [30, 31, fake_children.STARVES_ONCE]
    assert trainings(folder, fake_children.STARVES_ONCE) == 2 and trainings(folder, 30) == 1
    notes = [line for line in capfd.readouterr().err.splitlines() if 'again' in line]
    assert notes == ['the rule g * exp(m) is trained again: MemoryError: no room for a batch of 100']


@pytest.mark.parametrize('fixture', ['in_process', 'pool'])
def test_a_job_that_always_runs_out_of_memory_ends_the_search(fixture, request, tmp_path):
    evaluator = request.getfixturevalue(fixture)
    folder = getattr(evaluator, 'folder', tmp_path)
    evaluator.submit(job(fake_children.STARVES, 'g * exp(m)'))
    with pytest.raises(RunError) as error:
        evaluator.collect()
    message = str(error.value)
    assert f'the rule g * exp(m) could not be trained, {evaluator.attempts} times over: MemoryError: no room' in message
    assert 'the same command goes on' in message and '\n' not in message
    assert trainings(folder, fake_children.STARVES) == evaluator.attempts
    evaluator.submit(job(1))
    assert [(one.seed, outcome.reward) for one, outcome in evaluator.collect()] == [(1, 0.01)]


def test_closing_ends_a_worker_in_the_middle_of_a_training(tmp_path, capfd):
    evaluator = ProcessPool(workers=1)
    evaluator.start(FakeSetup(tmp_path))
    evaluator.submit(job(fake_children.SLEEPS))
    evaluator.submit(job(1))
    assert wait_until(lambda: trainings(tmp_path, fake_children.SLEEPS))
    assert workers_alive(tmp_path) == 1
    evaluator.close()
    assert workers_alive(tmp_path) == 0
    assert trainings(tmp_path, 1) == 0
    assert 'Traceback' not in capfd.readouterr().err


PARENT = """
import sys
from pathlib import Path
from nos_tf.evaluation.pool import ProcessPool
from tests.fake_children import SLEEPS, FakeSetup, job

if __name__ == '__main__':
    pool = ProcessPool(workers=1)
    pool.start(FakeSetup(Path(sys.argv[1])))
    pool.submit(job(SLEEPS))
    pool.collect()
"""


def start_parent(folder):
    """A process of its own group whose one worker is in the middle of a training."""
    script = folder / 'parent.py'
    script.write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, script, folder],
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    if not wait_until(lambda: trainings(folder, fake_children.SLEEPS) or parent.poll() is not None, 60):
        parent.kill()
    assert parent.poll() is None, parent.communicate()[1]
    return parent


def test_workers_do_not_outlive_a_parent_that_is_killed(tmp_path):
    parent = start_parent(tmp_path)
    assert workers_alive(tmp_path) == 1
    parent.kill()
    parent.wait()
    assert wait_until(lambda: workers_alive(tmp_path) == 0, 10)
    parent.stderr.close()


@pytest.mark.parametrize(
    ('evaluator', 'name'), [(ProcessPool, 'workers'), (ProcessPool, 'attempts'), (InProcess, 'attempts')]
)
@pytest.mark.parametrize('value', [0, -1, 1.5, '2'])
def test_a_count_that_is_none_is_refused_by_name(evaluator, name, value):
    with pytest.raises(ValueError, match=rf'{evaluator.__name__}\.{name} = {value!r}'):
        evaluator(**{name: value})


def test_by_default_there_is_a_worker_for_each_core():
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    assert ProcessPool().workers == cores


@pytest.mark.parametrize('evaluator', [InProcess(), ProcessPool(workers=1)], ids=['in process', 'pool'])
def test_data_that_do_not_fit_are_refused_before_any_work(evaluator):
    setup = dataclasses.replace(SETUP, task=dataclasses.replace(TASK, batch_size=30))
    with pytest.raises(ValueError, match=r'ImageClassification\.batch_size = 30: must divide 200'):
        evaluator.start(setup)
