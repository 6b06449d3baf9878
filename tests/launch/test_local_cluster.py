"""A cluster of small scripts in place of servers and chief, that die, hang and ask for a new cluster on demand.

The supervisor is a process of its own, as it is for a person; what it has begun is known by the locks that it holds.
"""

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch import local_cluster
from tests.fake_children import wait_until

LAUNCH = Path(__file__).resolve().parents[2] / 'launch'
SUPERVISE = """
import sys
sys.path.insert(0, {launch!r})
import local_cluster
sys.exit(local_cluster.main(sys.argv[1:], server=[sys.executable, {script!r}, {folder!r}]))
"""
# One script for all. It holds a lock on a file that bears its process id, beats, and obeys the file <name>.do: an exit
# code, or 'mute'; with <name>.always it ends at once with the code in there.
FAKE = """
import fcntl, json, os, sys, time
from pathlib import Path
folder, task = Path(sys.argv[1]), json.loads(os.environ['TF_CONFIG'])['task']
name = f"{task['type']}-{task['index']}"
if (folder / f'{name}.always').exists():
    sys.exit(int((folder / f'{name}.always').read_text()))
alive = open(folder / f'alive-{os.getpid()}', 'w')
fcntl.flock(alive, fcntl.LOCK_EX)
with open(folder / name, 'a') as lives:
    print(os.getpid(), os.environ['TF_CONFIG'], file=lives)
print(name, 'says hello', flush=True)
mute = False
while True:
    if (folder / f'{name}.do').exists():
        order = (folder / f'{name}.do').read_text()
        (folder / f'{name}.do').unlink()
        mute = order == 'mute'
        if not mute:
            sys.exit(int(order))
    try:
        mute or os.write(int(os.environ['NOS_TF_HEARTBEAT_FD']), b'.')
    except OSError:
        pass  # so that only the kernel can end it when the supervisor is gone
    time.sleep(0.05)
"""

NOTES_INTERRUPTS = """
import signal
def leave(*_):
    with open(folder / f'{name}.signals', 'a') as notes:
        notes.write('x')
    time.sleep(0.3)  # a second one would come meanwhile
    (folder / f'{name}.do').write_text('9')
signal.signal(signal.SIGINT, leave)
mute = False
"""


class Cluster:
    """A supervisor of scripts, and what can be seen of it from outside."""

    def __init__(self, folder, *flags, workers=1, logs=(), fake=FAKE):
        self.folder, self.run_dir = folder, folder / 'ein Lauf'
        script = folder / 'fake.py'
        script.write_text(fake)
        code = SUPERVISE.format(launch=str(LAUNCH), script=str(script), folder=str(folder))
        command = [str(script), str(folder), *([] if logs else ['--run_dir', str(self.run_dir)])]
        self.process = subprocess.Popen(
            [sys.executable, '-c', code, '--workers', str(workers), *flags, *logs, '--', *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # as in a terminal
        )

    def lives(self, name):
        """Process ids under a name, oldest first."""
        path = self.folder / name
        return [int(line.split()[0]) for line in path.read_text().splitlines()] if path.exists() else []

    def alive(self):
        """Process ids that still run: a lock dies with its process, if killed too."""
        found = set()
        for path in self.folder.glob('alive-*'):
            with open(path) as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    found.add(int(path.name.removeprefix('alive-')))
        return found

    def await_lives(self, **counts):
        """Waits until each has begun that many lives."""
        expected = {name.replace('_', '-'): count for name, count in counts.items()}
        assert wait_until(lambda: all(len(self.lives(name)) >= n for name, n in expected.items())), self.counts()
        assert self.counts() == expected

    def counts(self):
        return {path.name: len(self.lives(path.name)) for path in self.folder.glob('*-[0-9]') if path.is_file()}

    def do(self, name, order):
        draft = self.folder / 'draft'
        draft.write_text(str(order))
        draft.replace(self.folder / f'{name}.do')

    def states(self):
        return json.loads((self.run_dir / 'logs/cluster.json').read_text())['processes']

    def finish(self):
        """Exit code and standard error; nothing is left running, and only the chief had the terminal."""
        out, err = self.process.communicate(timeout=30)
        assert set(out.splitlines()) <= {'chief-0 says hello'}
        assert self.alive() == set()
        return self.process.returncode, err


@pytest.fixture
def begin(tmp_path):
    clusters = []

    def start(*flags, **keywords):
        clusters.append(Cluster(tmp_path, *flags, **keywords))
        return clusters[-1]

    yield start
    for cluster in clusters:
        cluster.process.kill()
        cluster.process.communicate()
        assert wait_until(lambda: cluster.alive() == set())  # noqa: B023 - called at once


def test_a_coordinator_that_succeeds_ends_the_cluster(begin):
    cluster = begin('--ps', '2', workers=2)
    cluster.await_lives(worker_0=1, worker_1=1, ps_0=1, ps_1=1, chief_0=1)
    configs = {}
    for name in cluster.counts():
        config = json.loads((cluster.folder / name).read_text().split(maxsplit=1)[1])
        configs[name] = config['cluster'][config['task']['type']][config['task']['index']]
        assert {job: len(addresses) for job, addresses in config['cluster'].items()} == {
            'ps': 2,
            'worker': 2,
            'chief': 1,
        }
    assert len(set(configs.values())) == 5
    assert all(re.fullmatch(r'127\.0\.0\.1:\d+', address) for address in configs.values())
    assert wait_until(lambda: len(cluster.alive()) == 5)
    pids = {name: state['pid'] for name, state in cluster.states().items()}
    assert pids == {name.replace('chief-0', 'chief'): cluster.lives(name)[0] for name in configs}
    cluster.do('chief-0', 0)
    assert cluster.finish() == (0, '')
    logs = {path.name: path.read_text() for path in (cluster.run_dir / 'logs').glob('*.log')}
    assert logs.keys() == {'worker-0.log', 'worker-1.log', 'ps-0.log', 'ps-1.log'}
    assert re.fullmatch(r'--- [-0-9]+ [:0-9]+ worker-1 is started\nworker-1 says hello\n', logs['worker-1.log'])
    assert {state['pid'] for state in cluster.states().values()} == {None}


@pytest.mark.parametrize('code', [1, 2, 130])
def test_what_a_coordinator_says_at_its_end_is_passed_on(begin, code):
    cluster = begin()
    cluster.do('chief-0', code)
    assert cluster.finish() == (code, '')


def test_a_worker_that_is_killed_is_restarted_alone_where_it_was(begin):
    cluster = begin(workers=2)
    cluster.await_lives(worker_0=1, worker_1=1, ps_0=1, chief_0=1)
    os.kill(cluster.lives('worker-1')[0], signal.SIGKILL)
    cluster.await_lives(worker_0=1, worker_1=2, ps_0=1, chief_0=1)
    first, second = (line.split(maxsplit=1)[1] for line in (cluster.folder / 'worker-1').read_text().splitlines())
    assert first == second
    state = cluster.states()['worker-1']
    assert state.items() >= {'pid': cluster.lives('worker-1')[1], 'restarts': 1, 'reason': 'killed by signal 9'}.items()
    assert abs(state['since'] - time.time()) < 60
    assert cluster.states()['worker-0']['restarts'] == 0
    log = (cluster.run_dir / 'logs/worker-1.log').read_text()
    assert log.count('worker-1 says hello') == 2
    assert 'worker-1 is restarted: killed by signal 9\n' in log
    cluster.do('chief-0', 0)
    assert cluster.finish() == (0, '')


def test_a_process_that_hangs_is_killed_and_restarted(begin):
    cluster = begin('--heartbeat_seconds', '2', workers=2)
    cluster.await_lives(worker_0=1, worker_1=1, ps_0=1, chief_0=1)
    os.kill(cluster.lives('worker-0')[0], signal.SIGSTOP)
    cluster.do('worker-1', 'mute')
    cluster.await_lives(worker_0=2, worker_1=2, ps_0=1, chief_0=1)
    assert not {cluster.lives('worker-0')[0], cluster.lives('worker-1')[0]} & cluster.alive()
    assert {state['reason'] for state in cluster.states().values()} == {'', 'no heartbeat for 2 s'}


def test_a_supervisor_that_was_stopped_forgives_the_silence(begin):
    cluster = begin('--heartbeat_seconds', '1')
    cluster.await_lives(worker_0=1, ps_0=1, chief_0=1)
    assert wait_until(lambda: len(cluster.alive()) == 3)
    stopped = [*cluster.alive(), cluster.process.pid]
    for pid in stopped:
        time.sleep(0.25)  # so that the supervisor has heard what they said before
        os.kill(pid, signal.SIGSTOP)
    time.sleep(1.5)  # nothing to wait for: silence is what is tested
    for pid in reversed(stopped):  # the supervisor first
        os.kill(pid, signal.SIGCONT)
    cluster.do('chief-0', 0)
    assert cluster.finish() == (0, '')
    assert cluster.counts() == {'worker-0': 1, 'ps-0': 1, 'chief-0': 1}


def test_without_its_ps_the_whole_cluster_begins_anew(begin):
    cluster = begin()
    cluster.await_lives(worker_0=1, ps_0=1, chief_0=1)
    before = cluster.alive()
    os.kill(cluster.lives('ps-0')[0], signal.SIGKILL)
    cluster.await_lives(worker_0=2, ps_0=2, chief_0=2)
    assert not before & cluster.alive()
    states = cluster.states()
    assert [state['restarts'] for state in states.values()] == [1, 1, 1]
    assert states['ps-0']['reason'] == 'killed by signal 9'
    assert states['worker-0']['reason'] == states['chief']['reason'] == 'ps-0: killed by signal 9'
    cluster.do('chief-0', 0)
    assert cluster.finish() == (0, 'ps-0: killed by signal 9; the whole cluster is started anew in 1 s\n')


@pytest.mark.parametrize('cause', ['exit code 75', 'killed by signal 9'])
def test_a_coordinator_that_loses_its_cluster_or_dies_begins_anew(begin, cause):
    cluster = begin()
    cluster.await_lives(worker_0=1, ps_0=1, chief_0=1)
    before = cluster.alive()
    if cause == 'exit code 75':
        cluster.do('chief-0', 75)
    else:
        os.kill(cluster.lives('chief-0')[0], signal.SIGKILL)
    cluster.await_lives(worker_0=2, ps_0=2, chief_0=2)
    assert not before & cluster.alive()
    assert cluster.states()['chief']['reason'] == cause
    cluster.do('chief-0', 7)
    assert cluster.finish() == (7, f'chief: {cause}; the whole cluster is started anew in 1 s\n')


def test_a_process_that_cannot_work_is_given_up(begin, tmp_path):
    (tmp_path / 'worker-0.always').write_text('3')
    cluster = begin('--restarts', '1')
    code, err = cluster.finish()
    log = cluster.run_dir / 'logs/worker-0.log'
    assert code == 2
    assert err == f'error: worker-0 died 2 times in a row soon after its start (exit code 3); see {log}\n'
    assert log.read_text().count('worker-0 is ') == 2


@pytest.mark.skipif(sys.platform != 'linux', reason='elsewhere processes learn of it by their heartbeat')
def test_all_die_with_a_supervisor_that_is_killed(begin):
    cluster = begin(workers=2)
    cluster.await_lives(worker_0=1, worker_1=1, ps_0=1, chief_0=1)
    assert wait_until(lambda: len(cluster.alive()) == 4)
    cluster.process.kill()
    assert wait_until(lambda: cluster.alive() == set(), 10)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_an_interrupt_ends_everything(begin, number):
    cluster = begin()
    cluster.await_lives(worker_0=1, ps_0=1, chief_0=1)
    assert wait_until(lambda: len(cluster.alive()) == 3)
    cluster.process.send_signal(number)  # to the supervisor alone, unlike Ctrl-C
    code, err = cluster.finish()
    assert code == 130
    assert 'cluster' not in err


def test_ctrl_c_reaches_the_coordinator_only_and_once_and_its_code_is_kept(begin, tmp_path):
    cluster = begin(fake=FAKE.replace('mute = False\n', NOTES_INTERRUPTS, 1))
    cluster.await_lives(worker_0=1, ps_0=1, chief_0=1)
    assert wait_until(lambda: len(cluster.alive()) == 3)
    os.killpg(cluster.process.pid, signal.SIGINT)  # as a terminal does
    assert cluster.finish() == (9, '')
    assert [path.name for path in tmp_path.glob('*.signals')] == ['chief-0.signals']
    assert (tmp_path / 'chief-0.signals').read_text() == 'x'


def test_two_clusters_do_not_share_a_folder(begin):
    first = begin()
    first.await_lives(worker_0=1, ps_0=1, chief_0=1)
    second = begin()
    _, err = second.process.communicate(timeout=30)
    assert second.process.returncode == 2
    assert err == f'error: another cluster logs to {first.run_dir}/logs: wait for it, or choose another\n'
    assert len(first.alive()) == 3


def test_logs_may_lie_elsewhere(begin, tmp_path):
    cluster = begin(logs=('--logs', str(tmp_path / 'elsewhere')))
    cluster.do('chief-0', 0)
    assert cluster.finish() == (0, '')
    assert (tmp_path / 'elsewhere/ps-0.log').exists()


# Flags


@pytest.mark.parametrize(
    ('argv', 'says'),
    [
        (['--', 'SCRIPT', '--run_dir', 'x'], '--workers'),
        (['--workers', '0', '--', 'SCRIPT', '--run_dir', 'x'], "--workers: '0': must be a whole number, at least 1"),
        (['--workers', '1.5', '--', 'SCRIPT', '--run_dir', 'x'], "'1.5': must be a whole number"),
        (['--workers', '1', '--ps', '0', '--', 'SCRIPT', '--run_dir', 'x'], "--ps: '0': must be a whole number, at"),
        (['--workers', '1', '--restarts', '-1', '--', 'SCRIPT', '--run_dir=x'], "--restarts: '-1': must be"),
        (['--workers', '1', '--heartbeat_seconds', 'a', '--', 'SCRIPT', '--run_dir=x'], "'a': must be"),
        (['--workers', '1'], 'no command: give -- and a script'),
        (['--workers', '1', '--'], 'no command: give -- and a script'),
        (['--workers', '1', 'SCRIPT'], 'unrecognized arguments'),
        (['--workers', '1', '--', 'no/such.py', '--run_dir', 'x'], "no script at 'no/such.py'"),
        (['--workers', '1', '--', 'SCRIPT'], 'where are the logs to go? Give the script a --run_dir DIR, or --logs'),
        (['--workers', '1', '--', 'SCRIPT', '--run_dir'], 'where are the logs to go?'),
        (['--workers', '1', '--', 'SCRIPT', '--run_dir', ''], 'where are the logs to go?'),
    ],
)
def test_unfit_flags_end_with_code_2(argv, says, capsys):
    with pytest.raises(SystemExit) as left:
        local_cluster.main([__file__ if argument == 'SCRIPT' else argument for argument in argv])
    assert left.value.code == 2
    assert says in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    'flags', [['--run_dir', 'runs/x'], ['--run_dir=runs/x'], ['--run_dir', 'y', '--run_dir=runs/x']]
)
def test_logs_lie_in_the_run_directory_of_the_command(flags):
    options, command = local_cluster.parse(['--workers', '3', '--', __file__, '--gin_files', 'a', *flags])
    assert options.logs == Path('runs/x/logs')
    assert command == [__file__, '--gin_files', 'a', *flags]
    assert (options.workers, options.ps, options.heartbeat_seconds, options.restarts) == (3, 1, 60, 10)


def test_help_tells_what_it_does_with_an_example(capsys):
    with pytest.raises(SystemExit) as left:
        local_cluster.main(['--help'])
    text = capsys.readouterr().out
    assert left.value.code == 0
    for part in ('--workers 2 -- launch/search.py', '--heartbeat_seconds', '--restarts', 'all addresses'):
        assert part in text


def test_it_starts_without_the_frameworks():
    listing = 'import sys; sys.path.insert(0, sys.argv[1]); import local_cluster; print(*sys.modules)'
    modules = subprocess.run([sys.executable, '-c', listing, str(LAUNCH)], capture_output=True, text=True, check=True)
    assert {'tensorflow', 'keras', 'gin'}.isdisjoint(modules.stdout.split())


def test_ports_are_distinct_and_free_on_all_addresses(monkeypatch):
    ports = local_cluster.free_ports(20)
    assert len(set(ports)) == 20
    with socket.create_server(('127.0.0.1', ports[0])):
        monkeypatch.setattr(local_cluster, 'PORTS', range(ports[0], ports[0] + 1))
        with pytest.raises(local_cluster.ClusterError, match=r'1 free ports are needed .* there are 0'):
            local_cluster.free_ports(1)
