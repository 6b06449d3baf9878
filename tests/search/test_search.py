import dataclasses
import errno
import hashlib
import io
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import gin
import numpy as np
import pytest

from nos_tf.compare.verification import Margin, Verdict, Verification
from nos_tf.controller.learners import TRPO, Evolution, RandomSearch, Reinforce
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.screening import why_untrainable
from nos_tf.dsl.space import SearchSpace
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.errors import RunError
from nos_tf.evaluation import machine
from nos_tf.evaluation.in_process import InProcess
from nos_tf.evaluation.jobs import Job
from nos_tf.search.search import Search
from nos_tf.store.database import OTHERS
from nos_tf.store.results import Store, read_results, read_run
from nos_tf.store.schema import SEARCH
from nos_tf.tasks.child import Child, ChildSetup, Outcome
from nos_tf.tasks.convnet import ConvNet, ImageClassification
from nos_tf.tasks.data import Digits
from tests.tasks.models import make

SPACE = SearchSpace(operands=('g', 'm', 'sign(g)', '1'), unaries=('x', '-x', 'sign'), binaries=('+', '*', 'left'))
TASK = ImageClassification(Digits(train_examples=200), ConvNet(filters=2), epochs=2, train_examples=200, batch_size=50)
CHILD = Child(learning_rates=(0.01, 0.1))
VERIFICATION = Verification(unseen={'a': make('regression')}, seeds=7)


class Table:
    """Rewards without training: a hash of program and seed, higher where the rule reads g. Counts what it is asked."""

    workers = 1

    def __init__(self, stop_after=None):
        self.trained, self.closed = [], 0
        self.stop_after = stop_after

    def identity(self, setup):
        return setup.identity() | machine.identity()

    def start(self, setup):
        self.queue = []

    def submit(self, job):
        self.queue.append(job)

    def collect(self):
        if self.stop_after is not None and len(self.trained) >= self.stop_after:
            raise KeyboardInterrupt
        job = self.queue.pop()  # the last first: the order of arrival must not matter
        self.trained.append(job)
        return [(job, table_outcome(job))]

    def status(self):
        return {}

    def close(self):
        self.queue, self.closed = [], self.closed + 1


def table_outcome(job):
    digest = hashlib.sha256(f'{job.program.tokens} {job.seed}'.encode()).digest()
    reward = 0.1 + 0.1 * digest[0] / 255 + 0.5 * ('g' in job.program.tokens)
    return Outcome(reward, 0.1, (0.1, reward), 0.01)


def search(learner=None, evaluator=None, children=60, **overrides):
    arguments = {'space': SPACE, 'task': TASK, 'child': CHILD, 'rescored': 2, 'rescore_seeds': 2, **overrides}
    learner = learner or Reinforce(units=8)  # traces fastest
    return Search(learner=learner, evaluator=evaluator or Table(), children=children, **arguments)


def test_children_are_what_the_learner_proposed_with_the_rewards_of_their_programs(tmp_path):
    search().run(tmp_path)
    rows = read_results(tmp_path)
    assert [row.id for row in rows] == list(range(60))
    assert [row.iteration for row in rows] == [i // 5 for i in range(60)]
    agent = Reinforce(units=8).start(SPACE, 0)
    for start in range(0, 60, 5):
        samples = agent.propose(5, start // 5)
        batch = rows[start : start + 5]
        assert [row.rule for row in batch] == [' '.join(SPACE.rule(choices).tokens) for choices in samples.choices]
        assert [row.log_prob for row in batch] == [float(x) for x in samples.log_probs]
        rules = [UpdateRule(tuple(row.rule.split())).canonical() for row in batch]
        assert [row.reward for row in batch] == [table_outcome(Job(rule, 0)).reward for rule in rules]
        agent.update(samples.choices, np.array([row.reward for row in batch], np.float32), samples.log_probs)


def test_no_program_is_trained_twice(tmp_path):
    evaluator = Table()
    summary = search(evaluator=evaluator, learner=RandomSearch(), children=200).run(tmp_path)
    searched = [job for job in evaluator.trained if job.seed == 0]
    assert len(set(searched)) == len(searched) == summary['trained'] == summary['distinct_rules'] < 200
    assert len(set(evaluator.trained)) == len(evaluator.trained)
    assert summary['hit_rate'] == pytest.approx(1 - summary['trained'] / 200)


def test_summary_has_the_promised_fields(tmp_path):
    summary = search(children=300).run(tmp_path)
    assert json.loads((tmp_path / 'summary.json').read_text()) == json.loads(json.dumps(summary))
    rewards = [row.reward for row in read_results(tmp_path)]
    assert summary['children'] == 300
    assert summary['mean_reward_first_100'] == pytest.approx(np.mean(rewards[:100]))
    assert summary['mean_reward_last_100'] == pytest.approx(np.mean(rewards[-100:]))
    assert summary['best_reward'] == max(rewards)
    assert set(summary['baselines']) == {'sgd', 'momentum', 'rmsprop', 'adam'}
    sgd = UpdateRule.parse('sgd').canonical()
    assert summary['baselines']['sgd'] == pytest.approx(np.mean([table_outcome(Job(sgd, s)).reward for s in (1, 2)]))
    assert summary['seconds'] > 0


class Full(io.StringIO):
    """Standard output on a full disk, or that nobody reads any more from a certain text on."""

    def __init__(self, error, since=''):
        super().__init__()
        self.error, self.since = error, since

    def write(self, text):
        if self.since in text:
            raise self.error
        return len(text)


@pytest.mark.parametrize(
    'stdout',
    [
        io.TextIOWrapper(io.BytesIO(), encoding='ascii'),
        Full(OSError(errno.ENOSPC, 'No space left on device')),
        Full(BrokenPipeError(), since='fresh seeds'),  # the table, when all is done
        None,
    ],
)
def test_a_search_ends_whatever_becomes_of_what_it_prints(stdout, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'stdout', stdout)
    monkeypatch.setattr('nos_tf.output._failures', [])
    summary = search(learner=RandomSearch(), children=20).run(tmp_path)
    assert json.loads((tmp_path / 'summary.json').read_text()) == json.loads(json.dumps(summary))
    if isinstance(stdout, io.TextIOWrapper):
        stdout.flush()
        assert stdout.buffer.getvalue().count(b' +- ') == 2 * len(summary['rescored'])


def test_nobody_reads_a_search_that_is_under_way(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'stdout', Full(BrokenPipeError()))
    with pytest.raises(BrokenPipeError):
        search(learner=RandomSearch(), children=20).run(tmp_path)


def test_a_search_on_another_backend_is_refused_before_it_begins(tmp_path, monkeypatch):
    monkeypatch.setattr('keras.backend.backend', lambda: 'torch')
    with pytest.raises(RunError, match='a search needs the TensorFlow backend of Keras, and this is torch: set KERAS_'):
        search().run(tmp_path / 'x')
    assert not (tmp_path / 'x').exists()


def test_controller_learns_and_random_search_does_not(tmp_path):
    learned = search(TRPO(batch_size=10, units=16), children=600).run(tmp_path / 'trpo')
    chance = search(RandomSearch(batch_size=10), children=600).run(tmp_path / 'random')
    assert learned['mean_reward_last_100'] > learned['mean_reward_first_100'] + 0.1
    assert abs(chance['mean_reward_last_100'] - chance['mean_reward_first_100']) < 0.1


DEEP = SearchSpace(operands=('g', 'm', '1'), unaries=('x', '-x', 'sign'), binaries=('*', 'left'), iterations=2)
SHORT_CUTS = {'space': DEEP, 'reject_untrainable': True, 'merge_equal_functions': True}


@pytest.mark.parametrize(
    ('learner', 'overrides'),
    [
        (TRPO, {}),
        pytest.param(Reinforce, {}, marks=pytest.mark.drill),
        pytest.param(RandomSearch, {}, marks=pytest.mark.drill),
        (Reinforce, SHORT_CUTS),
        (Evolution, {'seeds': 3, 'promising': 4}),
    ],
)
def test_interrupted_search_goes_on_bit_for_bit(tmp_path, learner, overrides):
    own: dict = {RandomSearch: {}, Evolution: {'batch_size': 5, 'population': 10, 'tournament': 3}}
    hyper_parameters = own.get(learner, {'units': 8})
    whole = search(learner(**hyper_parameters), **overrides).run(tmp_path / 'whole')
    for stop_after in (0, 7):
        with pytest.raises(KeyboardInterrupt):
            search(learner(**hyper_parameters), Table(stop_after), **overrides).run(tmp_path / 'parts')
    assert len(read_results(tmp_path / 'parts')) < 60
    parts = search(learner(**hyper_parameters), **overrides).run(tmp_path / 'parts')
    assert read_results(tmp_path / 'parts') == read_results(tmp_path / 'whole')
    told, expected = (read_run(tmp_path / name).updates for name in ('parts', 'whole'))
    assert told == expected and [update.children for update in told] == list(range(5, 61, 5))
    assert {**parts, 'seconds': 0} == {**whole, 'seconds': 0}
    if learner is Evolution:
        assert whole['more_seeds'] > 8
    elif overrides:
        assert whole['rejected'] > 0 and whole['merged'] > 0


def test_the_learner_is_told_the_mean_over_seeds_of_the_best(tmp_path):
    evaluator = Table()
    summary = search(RandomSearch(), evaluator, children=100, seeds=3, promising=2).run(tmp_path)
    asked = [job for job in evaluator.trained if job.seed > 1000]
    assert len(asked) == summary['more_seeds'] > 4 and {job.seed for job in asked} == {1001, 1002}
    best = UpdateRule.parse(max(summary['rescored'], key=lambda score: score['search_reward'] or 0)['rule']).canonical()
    assert {Job(best, seed) for seed in (1001, 1002)} <= set(asked)
    with pytest.raises(ValueError, match=r'^Search.seeds = 3: must be 1 in an asynchronous search'):
        search(seeds=3, asynchronous=True)


def test_the_rule_that_fresh_seeds_choose_is_verified(tmp_path, monkeypatch, capsys):
    asked = []

    def run(self, task, rule, run_dir, *, evaluator, allow_mixed):
        asked.append((rule, run_dir))
        return Verdict(rule.infix, [Margin('keras.SGD', 'a', False, 0.1, 0.05, 0.02)], self.seeds)

    monkeypatch.setattr(Verification, 'run', run)
    task = make('regression')
    verified = search(children=20, rescored=4, run_dir=tmp_path, task=task, verification=VERIFICATION)
    summary = verified.run()
    chosen = next(score for score in summary['rescored'] if score['search_reward'] is not None)
    assert asked == [(UpdateRule.parse(chosen['rule']), tmp_path / 'verification')]
    assert json.loads((tmp_path / 'summary.json').read_text())['verification']['rule'] == chosen['rule']
    said = 'On a, which the search has not seen, it is better than all of them.'
    assert said in capsys.readouterr().out
    assert said in verified.report().parent.joinpath('report.md').read_text()


def test_rewards_without_training_are_in_the_order_of_sampling(tmp_path):
    """Rejected, taken over or trained: what a row says follows from the rows before it."""
    evaluator = Table()
    summary = search(RandomSearch(), evaluator, children=200, **SHORT_CUTS).run(tmp_path)
    outcomes, functions = {}, {}
    for row in read_results(tmp_path):
        rule = UpdateRule(tuple(row.program.split()))
        if row.program not in outcomes:
            if why := why_untrainable(rule):
                expected = (0.1, f'rejected: {why}')
            elif rule.fingerprint() in functions:
                first = functions[rule.fingerprint()]
                expected = (table_outcome(Job(first, 0)).reward, f'equal to {" ".join(first.tokens)}')
            else:
                expected = (table_outcome(Job(rule, 0)).reward, 'trained')
                functions[rule.fingerprint()] = rule
            outcomes[row.program] = expected
        assert (row.reward, row.origin) == outcomes[row.program]
    counts = [sum(origin.startswith(kind) for _, origin in outcomes.values()) for kind in ('trained', 'rej', 'equal')]
    assert counts == [summary['trained'], summary['rejected'], summary['merged']] and min(counts) > 0
    assert sum(job.seed == 0 for job in evaluator.trained) == summary['trained']
    assert summary['children'] == sum(counts) + summary['hits']


def test_what_is_scored_on_fresh_seeds_is_trained_without_short_cuts(tmp_path):
    space = SearchSpace(operands=('1', 'g'), unaries=('x',), binaries=('-', '*', 'left'))
    summary = search(RandomSearch(), rescored=9, **{**SHORT_CUTS, 'space': space}).run(tmp_path)
    rejected = {row.program for row in read_results(tmp_path) if row.origin.startswith('rejected')}
    assert rejected
    for program in rejected:
        rule = UpdateRule(tuple(program.split()))
        (score,) = (score for score in summary['rescored'] if score['rule'] == rule.infix)
        assert score['rewards'] == tuple(table_outcome(Job(rule, seed)).reward for seed in (1, 2))


def test_nothing_that_was_trained_is_trained_again_after_a_stop(tmp_path):
    first, second = Table(stop_after=33), Table()
    with pytest.raises(KeyboardInterrupt):
        search(evaluator=first).run(tmp_path)
    search(evaluator=second).run(tmp_path)
    assert not set(first.trained) & set(second.trained)


def test_finished_search_trains_nothing_and_goes_on_when_there_is_more_to_do(tmp_path):
    summary = search().run(tmp_path)
    again = Table()
    assert search(evaluator=again).run(tmp_path)['best_rule'] == summary['best_rule']
    assert again.trained == []
    assert search(children=80).run(tmp_path)['children'] == 80
    search(children=80).run(tmp_path / 'at once')
    assert read_results(tmp_path) == read_results(tmp_path / 'at once')


def test_the_time_of_earlier_sessions_counts(tmp_path):
    search(RandomSearch(), children=5).run(tmp_path)
    with closing(sqlite3.connect(tmp_path / SEARCH.file_name)) as db, db:
        db.execute('UPDATE checkpoint SET seconds = 1000')
    start = time.monotonic()
    summary = search(RandomSearch(), children=10).run(tmp_path)
    assert 1000 < read_run(tmp_path).seconds < summary['seconds'] <= 1000 + time.monotonic() - start


def test_a_search_that_cannot_open_its_directory_holds_nothing(tmp_path):
    late = Table()
    with closing(Store(tmp_path, {}, {})), pytest.raises(RunError, match='another process'):
        search(RandomSearch(), late).run(tmp_path)
    search(RandomSearch(), children=5).run(tmp_path)
    with pytest.raises(RunError, match='Search.seed is 0 there and 1 here'):
        search(RandomSearch(), late, seed=1).run(tmp_path)
    assert late.closed == 0
    assert search(RandomSearch(), late, children=10).run(tmp_path)['children'] == 10 and late.closed == 1


def test_a_task_that_does_not_fit_its_data_is_told_in_one_line_and_the_directory_is_free(tmp_path):
    with pytest.raises(RunError, match='ImageClassification.batch_size = 150: must divide 200 examples'):
        search(RandomSearch(), InProcess(), task=dataclasses.replace(TASK, batch_size=150)).run(tmp_path)
    assert search(RandomSearch(), children=5).run(tmp_path)['children'] == 5


def test_a_search_is_taken_up_on_another_machine_if_that_is_allowed(tmp_path, monkeypatch):
    search(children=30).run(tmp_path)
    monkeypatch.setattr(machine, 'processor', lambda: 'another')
    with pytest.raises(RunError, match='processor is .* there and "another" here.*--allow_mixed'):
        search().run(tmp_path)
    summary = search().run(tmp_path, allow_mixed=True)
    search().run(tmp_path / 'at once')
    assert [row.rule for row in read_results(tmp_path)] == [row.rule for row in read_results(tmp_path / 'at once')]
    assert summary['children'] == 60 and read_run(tmp_path).configuration[OTHERS] == [{'processor': 'another'}]


@pytest.mark.parametrize(
    ('overrides', 'named'),
    [
        ({'seed': 1}, 'Search.seed is 0 there and 1 here'),
        ({'reject_untrainable': True}, 'Search.reject_untrainable is false there and true here'),
        ({'merge_equal_functions': True}, 'Search.merge_equal_functions is false there and true here'),
        ({'learner': Reinforce(units=8, learning_rate=0.5)}, 'Reinforce.learning_rate is 0.001 there and 0.5 here'),
        ({'learner': RandomSearch()}, 'Search.learner is "@Reinforce()" there and "@RandomSearch()" here'),
        (
            {'task': dataclasses.replace(TASK, images=Digits(noise=0.1, train_examples=200))},
            'Digits.noise is 0.25 there and 0.1',
        ),
        ({'task': ImageClassification(epochs=2)}, 'ImageClassification.train_examples is 200 there and null here'),
        ({'child': Child(learning_rates=(0.01,))}, 'Child.learning_rates is [0.01, 0.1] there and [0.01] here'),
        ({'space': SearchSpace(operands=('g',))}, 'SearchSpace.operands is'),
    ],
)
def test_run_of_another_configuration_is_refused_by_name(tmp_path, overrides, named):
    search(children=5).run(tmp_path)
    before = (tmp_path / SEARCH.file_name).read_bytes()
    with pytest.raises(RunError, match='another configuration') as caught:
        search(**overrides).run(tmp_path)
    assert named in str(caught.value)
    assert (tmp_path / SEARCH.file_name).read_bytes() == before


@pytest.mark.parametrize(
    ('overrides', 'named'),
    [
        ({'children': 0}, 'Search.children = 0'),
        ({'children': '100'}, "Search.children = '100'"),
        ({'rescore_seeds': 1}, 'Search.rescore_seeds = 1'),
        ({'rescored': -1}, 'Search.rescored = -1'),
        ({'rescore_seeds': 0, 'verification': VERIFICATION}, 'Search.verification: fresh seeds choose'),
        ({'baselines': ('no_such_rule',)}, 'no_such_rule'),
        ({'reject_untrainable': 1}, 'Search.reject_untrainable = 1: must be True or False'),
        ({'merge_equal_functions': 'yes'}, "Search.merge_equal_functions = 'yes'"),
    ],
)
def test_bad_numbers_are_refused_by_name(overrides, named):
    with pytest.raises(ValueError, match='.') as caught:
        search(**overrides)
    assert named in str(caught.value)


def test_real_children_are_rewarded_by_training(tmp_path):
    summary = search(RandomSearch(), InProcess(), children=5, baselines=('sgd',), rescored=1).run(tmp_path)
    trainer = ChildSetup(CHILD, TASK, Vocabulary(1)).trainer()
    for row in read_results(tmp_path):
        outcome = trainer.train(UpdateRule(tuple(row.rule.split())))
        assert (row.reward, row.learning_rate, json.loads(row.sweep)) == (
            outcome.reward,
            outcome.learning_rate,
            list(outcome.sweep),
        )
    seeds = [trainer.train(UpdateRule.parse('sgd'), seed).reward for seed in (1, 2)]
    assert summary['baselines']['sgd'] == pytest.approx(np.mean(seeds))


ROOT = Path(__file__).parents[2]
MINIATURE = """
include 'gin/digits.gin'
Search.children = 60
Search.rescored = 1
Search.rescore_seeds = 2
Search.baselines = ('sgd',)
SearchSpace.iterations = 1
TRPO.units = 16
Digits.train_examples = 200
ConvNet.filters = 2
ImageClassification.train_examples = 200
ImageClassification.batch_size = 50
Child.learning_rates = (0.01, 0.1)
ProcessPool.workers = 2
Search.evaluator = %s
"""


@pytest.fixture
def run_here():
    """Runs the miniature in this process."""

    def run(run_dir):
        gin.add_config_file_search_path(str(ROOT))
        gin.parse_config(MINIATURE % '@InProcess()')
        return Search().run(run_dir)

    yield run
    gin.clear_config()


def launch(run_dir):
    config = run_dir.parent / 'miniature.gin'
    config.write_text(MINIATURE % '@ProcessPool()')
    command = [sys.executable, 'launch/search.py', '--gin_files', config, '--run_dir', run_dir]
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)


def outcomes_on_file(run_dir):
    try:
        with sqlite3.connect(f'file:{run_dir / SEARCH.file_name}?mode=ro', uri=True) as db:
            return db.execute('SELECT count(*) FROM outcomes').fetchone()[0]
    except sqlite3.Error:
        return 0


@pytest.mark.drill
@pytest.mark.slow
def test_search_killed_at_a_random_moment_ends_like_one_that_ran_through(tmp_path, run_here):
    run_here(tmp_path / 'whole')
    target = random.SystemRandom().randrange(1, 45)
    process = launch(tmp_path / 'killed')
    deadline = time.monotonic() + 120
    while outcomes_on_file(tmp_path / 'killed') < target and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert process.poll() is None, f'ended before {target} trainings'
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    run_here(tmp_path / 'killed')

    def what_counts(run_dir):
        return [row._replace(seconds=0.0) for row in read_results(run_dir)]

    assert what_counts(tmp_path / 'killed') == what_counts(tmp_path / 'whole'), f'killed after {target} trainings'
