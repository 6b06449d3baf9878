"""The clock of workers that do not exist, by hand; searches on them; and what is told of a cluster."""

import argparse
import dataclasses
import math
import sqlite3
import sys
from pathlib import Path

import numpy as np
import pytest

from nos_tf.controller.learners import RandomSearch
from nos_tf.errors import RunError
from nos_tf.evaluation.jobs import Job
from nos_tf.evaluation.table import Table
from nos_tf.search.search import Search
from nos_tf.store.schema import SEARCH
from nos_tf.tasks.child import LOOKED_UP
from tests.evaluation.test_table import CHILD, SETUP, SPACE, TASK, make

sys.path.append(str(Path(__file__).parents[2] / 'benchmarks'))
sys.path.append(str(Path(__file__).parents[2] / 'benchmarks' / 'tabular'))

import cluster_scale
import simulated_search
from simulated_search import Mode, play
from table_columns import save
from table_rewards import choices_of
from virtual_workers import Times, Training, VirtualWorkers

JOBS = [Job(rule.canonical(), 0) for rule in map(SPACE.rule, choices_of(make())[:60:7])]


class Clock:
    """The search's own time, as the test says."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Script:
    """The times of jobs as a test wants them: [(seconds, fails) of each attempt] by job."""

    def __init__(self, *attempts):
        self._attempts = dict(zip(JOBS, attempts, strict=False))

    def draw(self, job, attempt):
        return Training(*self._attempts[job][attempt])


@pytest.fixture(scope='module')
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp('table') / 'table.npz'
    save(make(), path)
    return Table(str(path))


@pytest.fixture
def begin(table):
    def begun(workers, *attempts):
        clock = Clock()
        crew = VirtualWorkers(table, Script(*attempts), workers, clock=clock)
        crew.start(SETUP)
        for job in JOBS[: len(attempts)]:
            crew.submit(job)
        return crew, clock

    return begun


def collected(crew):
    return [JOBS.index(job) for job, _ in crew.collect()], crew.moment.now


def test_jobs_end_in_the_order_of_time_and_others_begin_when_a_worker_is_idle(begin):
    crew, _ = begin(2, [(100.0, False)], [(30.0, False)], [(40.0, False)], [(1000.0, False)])
    assert collected(crew) == ([1], 30.0)  # job 2 begins
    assert collected(crew) == ([2], 70.0)  # job 3 begins
    assert collected(crew) == ([0], 100.0)
    assert collected(crew) == ([3], 1070.0)
    assert collected(crew) == ([], 1070.0)
    assert crew.moment.busy == 100 + 30 + 40 + 1000
    assert crew.utilisation(crew.manned, crew.moment) == 1170 / (2 * 1070)


def test_workers_go_on_while_the_search_thinks(begin):
    crew, clock = begin(1, [(10.0, False)], [(20.0, False)])
    clock.now += 12  # job 0 ends at 10, and job 1 is at work since then
    assert collected(crew) == ([0], 12.0)
    clock.now += 100
    crew.submit(JOBS[0])  # the worker has been idle since 30
    assert crew.last.now == 112 and crew.last.busy == 30
    assert collected(crew) == ([1], 112.0)
    assert collected(crew) == ([0], 122.0)
    assert crew.thinking == 112


def test_a_worker_that_fails_is_away_and_its_job_is_the_next_to_begin(begin):
    crew, _ = begin(2, [(100.0, True), (80.0, False)], [(70.0, False)], [(5.0, False)])
    assert collected(crew) == ([1], 70.0)  # worker 0 failed at 50, and is away until 110; worker 1 takes job 0, not 2
    assert collected(crew) == ([2], 115.0)
    assert collected(crew) == ([0], 150.0)
    assert crew.moment.lost == 50
    assert crew.moment.busy == 50 + 70 + 5 + 80


def test_outcomes_are_those_of_the_table(begin, table):
    crew, _ = begin(3, *([(1.0, False)] for _ in range(3)))
    known = make()
    assert crew.collect() == [(job, known.outcome(*job)._replace(origin=LOOKED_UP)) for job in JOBS[:3]]
    assert crew.identity(SETUP) == table.identity(SETUP)


def test_times_have_the_mean_that_is_asked_for_and_a_heavy_tail():
    times = Times(np.array([1.0, 2.0, 3.0]), mean=300.0, failures=0.1)
    drawn = [times.draw(Job(JOBS[0].program, seed), 0) for seed in range(20_000)]
    seconds = np.array([training.seconds for training in drawn])
    assert seconds.mean() == pytest.approx(300, rel=0.03)  # its standard error is 1%
    assert np.mean([training.fails for training in drawn]) == pytest.approx(0.1, abs=0.01)
    slow = Times(np.array([1.0]), spread=0.0, failures=0.0)
    values, counts = np.unique([slow.draw(Job(JOBS[0].program, s), 0).seconds for s in range(5000)], return_counts=True)
    assert values[1] / values[0] == pytest.approx(5) and counts[1] == pytest.approx(100, abs=40)
    assert times.draw(JOBS[0], 0) == times.draw(JOBS[0], 0) != times.draw(JOBS[0], 1)


def test_times_of_a_table_are_without_its_longest():
    first = [
        outcome._replace(seconds=1.0) for outcome in map(make().outcome, map(SPACE.rule, choices_of(make())[:1]))
    ] * 2
    table = make(first=[*first, *([None] * (len(make().representatives) - 3)), first[0]._replace(seconds=900.0)])
    assert Times.of_table(table).measured.tolist() == [1.0, 1.0]


@pytest.fixture
def search(table):
    return Search(
        space=SPACE, learner=RandomSearch(), task=TASK, child=CHILD, evaluator=table, baselines=(), rescore_seeds=0
    )


TIMES = Times(np.array([1.0]), mean=100.0)


def played(search, table, mode, workers=4, children=60):
    return play(search, VirtualWorkers(table, TIMES, workers, clock=lambda: 0.0), mode, children)


def test_a_search_that_waits_for_no_one_keeps_workers_busy(search, table):
    waits, goes_on = (played(search, table, Mode(asynchronous, 4)) for asynchronous in (False, True))
    for run in (waits, goes_on):
        assert len(run.rewards) == len(run.hours) == 60
        assert (np.diff(run.hours) >= 0).all() and run.hours[-1] == run.crew.moment.now / 3600
        assert run.crew.thinking == 0
        assert len(run.cells()) == simulated_search.HEAD.count('|') - 1
    assert waits.staleness.max() == 0 < goes_on.staleness.max()
    used = [run.crew.utilisation(run.crew.manned, run.crew.last) for run in (waits, goes_on)]
    assert used[0] < 0.8 and used[1] > 0.95
    assert goes_on.hours[-1] < waits.hours[-1]


def test_what_came_too_late_is_told(search, table):
    run = played(search, table, Mode(True, 4))
    assert run.bound == 200 and run.wasted() == 0
    old = dataclasses.replace(run, bound=-1)
    assert old.wasted() == 1 and '100.00% (100%)' in old.cells()


def test_the_goal_and_the_newest_children(search, table):
    run = played(search, table, Mode(True, 4))
    values = np.concatenate([np.zeros(60), np.ones(300)])
    made_up = dataclasses.replace(run, rewards=values, sampled=np.arange(360)[::-1])
    assert made_up.reached() == 140  # 80 of the last 100
    assert dataclasses.replace(run, rewards=np.zeros(360)).reached() is None
    assert made_up.newest().tolist() == values[::-1].tolist()
    np.testing.assert_array_equal(simulated_search.moving_average(np.array([1.0, 2.0, 4.0]), 2), [1.5, 3.0])
    assert len(simulated_search.moving_average(np.ones(1), 2)) == 0


def test_the_figure(search, table, tmp_path):
    runs = {(4, mode): played(search, table, mode, children=120) for mode in (Mode(False, 4), Mode(True, 4))}
    simulated_search.draw(runs, tmp_path / 'figure.png')
    assert (tmp_path / 'figure.png').stat().st_size > 10_000


def test_the_rate_of_a_cluster_begins_with_its_first_outcome():
    assert cluster_scale.Rate.of([(20.0, 2), (21.0, 3), (30.0, 12)]) == (20.0, 12, 3600.0)
    with pytest.raises(RunError, match='--children'):
        cluster_scale.Rate.of([(20.0, 2)])


def test_only_what_was_trained_counts(tmp_path):
    assert cluster_scale.on_file(tmp_path) == 0
    with sqlite3.connect(tmp_path / SEARCH.file_name) as db:
        db.execute('CREATE TABLE outcomes (origin TEXT)')
        db.executemany('INSERT INTO outcomes VALUES (?)', [('trained',), ('quarantined: x',), ('trained',)])
    assert cluster_scale.on_file(tmp_path) == 2


def test_a_script_that_fails_on_the_cluster_is_told(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text("import sys; print('what was wrong'); sys.exit(3)")
    with pytest.raises(RunError, match='what was wrong'), cluster_scale.on_cluster(1, tmp_path, str(script)):
        pass


@pytest.mark.drill
@pytest.mark.slow
def test_real_workers(capsys):
    small = [f'ImageClassification.{told}' for told in ('train_examples = 100', 'batch_size = 50', 'epochs = 1')]
    small += [
        'Digits.train_examples = 100',
        'ConvNet.filters = 2',
        'Search.learner = @RandomSearch()',
        'RandomSearch.batch_size = 2',
    ]
    cluster_scale.real(argparse.Namespace(workers=[1], children=8, gin_bindings=small))
    cells = [cell.strip() for cell in capsys.readouterr().out.splitlines()[-1].strip('|').split('|')]
    numbers = [float(cell) for cell in cells]
    assert numbers[0] == 1 and numbers[2] == 1 and 2 <= numbers[4] <= 8
    assert all(math.isfinite(number) and number > 0 for number in numbers)
