"""The cluster, with real servers: the bits of one process, whoever is killed, and a clear word where that cannot be."""

import contextlib
import dataclasses
import json
import math
import os
import queue
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import gin
import pytest
import tensorflow as tf

from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.errors import ClusterLostError, RunError
from nos_tf.evaluation import machine
from nos_tf.evaluation.cluster import cluster, connection, notes
from nos_tf.evaluation.cluster.cluster import Cluster
from nos_tf.evaluation.cluster.config import ClusterConfig
from nos_tf.evaluation.jobs import Job, Patience
from nos_tf.store.results import read_results
from nos_tf.store.schema import SEARCH
from nos_tf.tasks.child import Child, ChildSetup
from nos_tf.tasks.convnet import ConvNet, ImageClassification
from nos_tf.tasks.data import Digits
from tests.fake_children import wait_until
from tests.launching import run_here

ROOT = Path(__file__).parents[3]
RUN = 'tests/evaluation/cluster/cluster_run.py'
JOB = Job(UpdateRule.parse('g * exp(m)').canonical(), 0)
TINY = (
    'Search.rescore_seeds = 0',
    'SearchSpace.iterations = 1',
    'Digits.train_examples = 200',
    'ImageClassification.train_examples = 200',
    'ImageClassification.batch_size = 50',
    'ImageClassification.epochs = 4',
    'ConvNet.filters = 4',
)
SETUP = ChildSetup(
    Child(),
    ImageClassification(Digits(train_examples=200), ConvNet(filters=4), epochs=4, train_examples=200, batch_size=50),
    Vocabulary(1),
)


def search_command(run_dir, children, *bindings, files=('gin/cluster.gin',)):
    """`launch/search.py` and its flags."""
    given = [*TINY, f'Search.children = {children}', *bindings]
    return [
        'launch/search.py',
        '--gin_files',
        'gin/digits.gin',
        *files,
        '--gin_bindings',
        *given,
        '--run_dir',
        run_dir,
    ]


@contextlib.contextmanager
def on_a_cluster(*command, options=()):
    """The process of a supervisor of two workers; what is left of it is killed."""
    process = subprocess.Popen(
        [sys.executable, 'launch/local_cluster.py', '--workers', '2', *options, '--', *map(str, command)],
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'TF_CPP_MIN_LOG_LEVEL': '3'},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def finish(process):
    """Exit code, and what was printed."""
    out, _ = process.communicate(timeout=150)
    return process.returncode, out


def outcomes(run_dir):
    """What is on file: program -> (reward, learning rate, sweep, seconds)."""
    try:
        db = sqlite3.connect(f'{(run_dir / SEARCH.file_name).as_uri()}?mode=ro', uri=True)
        with contextlib.closing(db):
            return {
                row[0]: row[1:]
                for row in db.execute('SELECT program, reward, learning_rate, sweep, seconds FROM outcomes')
            }
    except sqlite3.Error:  # there is none yet
        return {}


def kill(run_dir, name):
    """kill -9, of the process that has this name just now."""
    processes = json.loads((run_dir / 'logs/cluster.json').read_text())['processes']
    os.kill(processes[name]['pid'], signal.SIGKILL)


@pytest.mark.drill
def test_whoever_is_killed_nothing_is_lost_or_doubled_and_rewards_are_those_of_one_process(tmp_path):
    """A worker, then the chief, then the parameter server, each in the middle of the search."""
    command = search_command(tmp_path / 'run', 60, 'Search.learner = @RandomSearch()', 'RandomSearch.batch_size = 5')
    run_dir, kept = tmp_path / 'run', {}
    with on_a_cluster(*command) as process:
        for name, count in (('worker-0', 8), ('chief', 22), ('ps-0', 38)):
            assert wait_until(lambda count=count: len(outcomes(run_dir)) >= count or process.poll() is not None, 100)
            assert process.poll() is None, process.communicate()
            kill(run_dir, name)
            time.sleep(0.5)
            kept |= outcomes(run_dir)
        code, out = finish(process)
    assert code == 0, out
    rows = read_results(run_dir)
    assert [row.id for row in rows] == list(range(60))
    filed = outcomes(run_dir)
    assert {program: filed[program] for program in kept} == kept  # seconds too: what had ended was not trained again
    trainer = SETUP.trainer()
    for row in {row.program: row for row in rows}.values():
        expected = trainer.train(UpdateRule(tuple(row.program.split())))
        assert (row.reward, row.learning_rate, tuple(json.loads(row.sweep))) == expected[:3], row.program
    assert max(row.iteration - row.sampled for row in rows) > 0  # asynchronous
    counts = json.loads((run_dir / 'logs/cluster.json').read_text())['processes']
    assert counts['worker-0']['restarts'] >= 2 and counts['chief']['restarts'] == 2


def test_synchronously_it_is_the_search_that_one_process_makes(tmp_path):
    bindings = ('Search.learner = @Reinforce()', 'Reinforce.units = 8', 'Reinforce.batch_size = 5')
    sync = 'Search.asynchronous = False'
    with on_a_cluster(*search_command(tmp_path / 'cluster', 20, *bindings, sync)) as process:
        code, out = finish(process)
    assert code == 0, out
    assert 'alive 2' in out and 'utilisation' in out
    _, *alone = search_command(tmp_path / 'alone', 20, *bindings, 'Search.evaluator = @InProcess()', files=())
    run_here('search', 'search', *alone)
    one, other = ([row._replace(seconds=0) for row in read_results(tmp_path / name)] for name in ('cluster', 'alone'))
    assert one == other and len({row.reward for row in one}) > 5


def test_a_child_that_never_ends_is_quarantined_and_the_others_go_on(tmp_path):
    seeds = '1,1000,2,3,4,5'
    command = (RUN, tmp_path / 'out', f'seeds={seeds}', 'limit=2')
    with on_a_cluster(*command, options=('--logs', str(tmp_path / 'logs'))) as process:
        code, out = finish(process)
    assert code == 0, out
    told = json.loads((tmp_path / 'out').read_text())
    ended = {seed: values for seed, *values in told['ended']}
    assert len(told['ended']) == len(ended) == 6 and told['workers'] == 2
    for seed in (1, 2, 3, 4, 5):
        reward = tf.constant(seed / 100, tf.float32).numpy().item()
        assert ended[seed] == [pytest.approx(reward), 0.1, [pytest.approx(reward), 2.0], 'trained']
    reward, rate, sweep, origin = ended[1000]
    assert (reward, math.isnan(rate), sweep) == (0.1, True, []) and origin == 'quarantined: its workers died 2 times'
    logs = ''.join(path.read_text() for path in (tmp_path / 'logs').glob('worker-*.log'))
    assert logs.count('is over its limit') == 2


@pytest.mark.parametrize(
    ('setting', 'message'),
    [
        ('seeds=1,1001,2', r'the rule g \* exp\(m\) could not be trained: InvalidArgumentError: .*as the seed wishes'),
        (
            'TF_ENABLE_ONEDNN_OPTS=0',
            'would train otherwise than this process: TF_ENABLE_ONEDNN_OPTS is "1" there and "0"',
        ),
    ],
)
def test_what_cannot_be_ends_the_cluster_with_one_line(tmp_path, setting, message, monkeypatch):
    monkeypatch.setenv('TF_ENABLE_ONEDNN_OPTS', '1')
    command = (RUN, tmp_path / 'out', 'seeds=1,2', setting)
    with on_a_cluster(*command, options=('--logs', str(tmp_path / 'logs'))) as process:
        code, out = finish(process)
    lines = [line for line in out.splitlines() if line.startswith('error: ')]
    assert code == 2 and len(lines) == 1, out
    assert re.search(message, lines[0]), lines


# What is said without servers


def test_the_watchdog_and_the_clock_see_the_whole_training(tmp_path):
    """The training after the sweep too, which a control edge alone would not wait for."""
    made, note = Cluster(), tmp_path / 'deadline'
    task = dataclasses.replace(SETUP.task, epochs=60)
    made._trainer = dataclasses.replace(SETUP, child=Child(learning_rates=(0.1,)), task=task).trainer()
    data = made._trainer.start(0), made._trainer.data
    graph = tf.function(lambda ids: made._timed((ids, tf.constant(0), *data), str(note)), autograph=False)
    ids = tf.constant(SETUP.vocabulary.ids_of(UpdateRule.parse('g')))
    graph(ids)
    start = time.perf_counter()
    *_, seconds = graph(ids)
    assert 0.5 * (time.perf_counter() - start) < float(seconds)
    assert note.read_text() == ''


@pytest.mark.parametrize(
    ('binding', 'message'),
    [
        ('Cluster.attempts = 0', 'Cluster.attempts = 0: must be a whole number, at least 1'),
        ('Cluster.child_seconds = 0', 'Cluster.child_seconds = 0: must be a number, above 0'),
        ('Cluster.child_seconds = "1h"', "Cluster.child_seconds = '1h': must be a number, above 0"),
        ('Cluster.start_seconds = -1.0', 'Cluster.start_seconds = -1.0: must be a number, above 0'),
        ('Cluster.allow_mixed = 1', 'Cluster.allow_mixed = 1: must be True or False'),
    ],
)
def test_unfit_values_name_their_binding(binding, message):
    try:
        gin.parse_config([binding])
        with pytest.raises(ValueError, match=message):
            gin.get_configurable('Cluster')()
    finally:
        gin.clear_config()


def test_mixed_workers_are_part_of_what_a_run_is():
    alone = {**SETUP.identity(), **machine.identity()}
    assert Cluster().identity(SETUP) == alone
    assert Cluster(allow_mixed=True).identity(SETUP) == {**alone, 'Cluster.allow_mixed': True}


@pytest.fixture
def free_ports():
    """Addresses that nobody listens at."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(('127.0.0.1', 0))) for _ in range(3)]
        return [f'127.0.0.1:{s.getsockname()[1]}' for s in sockets]


def test_a_search_without_a_cluster_says_what_is_missing(monkeypatch, free_ports):
    monkeypatch.delenv('TF_CONFIG', raising=False)
    with pytest.raises(RunError, match='TF_CONFIG is not set'):
        Cluster().start(SETUP)
    worker, ps, chief = free_ports
    monkeypatch.setenv('TF_CONFIG', ClusterConfig((worker,), (ps,), chief, 'worker', 0).tf_config())
    with pytest.raises(RunError, match='task type "worker": this process is to be the chief'):
        Cluster().start(SETUP)
    monkeypatch.setenv('TF_CONFIG', ClusterConfig((worker,), (ps,), chief, 'chief', 0).tf_config())
    listens = socket.create_server(('127.0.0.1', int(ps.split(':')[1])))
    with (
        listens,
        pytest.raises(RunError, match=f'no answer within 0.5 s from {worker}: is launch/server.py running there'),
    ):
        Cluster(start_seconds=0.5).start(SETUP)
    listens = socket.create_server(('', int(chief.split(':')[1])))
    with listens, pytest.raises(RunError, match=f'{chief}: another process has this port'):
        Cluster(start_seconds=0.5).start(SETUP)


def test_a_refusal_says_what_differs():
    other = notes.identity_text({**machine.identity(), 'tensorflow': '1.0'})
    message = cluster._refusal('10.0.0.1:2222', other)
    assert '10.0.0.1:2222' in message and 'tensorflow is "1.0" there and' in message and 'allow_mixed' in message
    assert 'was not started by launch/server.py' in cluster._refusal('10.0.0.1:2222', '')


@pytest.fixture
def unconnected(monkeypatch):
    """A cluster between start and servers; what it would send is in `sent`."""
    made = Cluster(attempts=2)
    made._under_way, made._slots, made._patience = {JOB: math.inf}, {JOB: 0}, Patience(2)
    made.sent = []
    monkeypatch.setattr(made, '_send', made.sent.append)
    return made


@pytest.mark.parametrize('kind', cluster.AGAIN)
def test_what_was_thrown_away_or_had_no_memory_is_sent_again_but_not_for_ever(unconnected, kind):
    error = kind(None, None, 'no luck')
    assert unconnected._outcome(JOB, error) is None
    assert unconnected.sent == [JOB]
    with pytest.raises(RunError, match=r'g \* exp\(m\) could not be trained, 2 times: .*no luck; nothing is lost'):
        unconnected._outcome(JOB, error)


@pytest.mark.parametrize('chance', [0.25, None])
def test_a_rule_that_ends_its_workers_earns_chance_or_ends_the_search_where_a_task_has_none(unconnected, chance):
    unconnected._trainer = SimpleNamespace(chance=chance)
    answer = cluster._Answer(cluster.IS_QUARANTINED, 0, b'', 0.0, 0, [0.0], 0.0)
    if chance is None:
        with pytest.raises(RunError, match=r'the rule g \* exp\(m\) cannot be trained: its workers died 2 times, and'):
            unconnected._outcome(JOB, answer)
    else:
        assert unconnected._outcome(JOB, answer)[::4] == (0.25, 'quarantined: its workers died 2 times')


@pytest.mark.parametrize('kind', [*cluster.UNREACHABLE, *connection.BEGUN_ANEW])
def test_a_lost_parameter_server_asks_for_a_new_cluster(unconnected, kind):
    with pytest.raises(ClusterLostError, match='the parameter server is gone .*the same command goes on'):
        unconnected._outcome(JOB, kind(None, None, '/job:ps is not there'))


def test_an_overdue_job_is_given_to_another_worker_and_the_first_answer_counts(unconnected, capsys):
    unconnected._answers = queue.SimpleQueue()
    unconnected._under_way = {JOB: time.monotonic() + 0.05}
    outcome = object()
    unconnected._outcome = lambda job, answer: answer

    def send(job):
        unconnected.sent.append(job)
        for _ in range(2):  # both workers answer in the end
            unconnected._answers.put((job, outcome))

    unconnected._send = send
    assert unconnected.collect() == [(JOB, outcome)]
    assert unconnected.sent == [JOB] and unconnected.collect() == []
    assert 'is given to another worker as well' in capsys.readouterr().err


def test_what_only_this_process_has_is_refused(monkeypatch):
    """A stream is a function of this process; nothing of it could be sent to the workers."""
    monkeypatch.setattr(cluster, 'connect', lambda seconds: (SimpleNamespace(workers=['a']), None))
    setup = SimpleNamespace(trainer=lambda: SimpleNamespace(task=SimpleNamespace(is_local=True)))
    with pytest.raises(RunError, match=r'give KerasTask\.train arrays or a dataset, or train by @ProcessPool\(\)'):
        Cluster().start(setup)
    with pytest.raises(RunError, match=r'of one task: train a suite by @ProcessPool\(\)'):
        Cluster().start(SimpleNamespace(trainer=SimpleNamespace))
