r"""A drill: one of two workers loses its network in the middle of a child, and gets it back, or does not.

python tests/drills/cut_off.py --down 30 --run_dir /tmp/cut_off
python tests/drills/cut_off.py --for_good --run_dir /tmp/cut_off_for_good

Each worker has a network namespace of its own, wired to a bridge in the namespace of the chief and the parameter
server; nothing touches the network of the machine itself. The link is taken down at the bridge, as if somebody pulled
the cable: no packet says goodbye. Needs root and `ip`; where it may not run it says why, and ends with code 0.
"""

import argparse
import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]
CHIEF, WORKERS = 'nos_tf-chief', ('nos_tf-worker-0', 'nos_tf-worker-1')  # namespaces
CUT_OFF, OTHER = 0, 1  # workers
CHIEF_HOST, WORKER_HOSTS = '10.77.0.1', ('10.77.0.2', '10.77.0.3')
CLUSTER = {
    'worker': [f'{host}:2222' for host in WORKER_HOSTS],
    'ps': [f'{CHIEF_HOST}:2223'],
    'chief': [f'{CHIEF_HOST}:2224'],
}
TASK = (  # children of about a second, hardly two of them the same
    'Search.learner = @RandomSearch()',
    'Search.rescore_seeds = 0',
    'RandomSearch.batch_size = 4',
    'ImageClassification.epochs = 80',
)
TURN = 0.1  # seconds between two looks
LINE = 5.0  # seconds between two lines
RECOVERY = 600.0  # seconds after the end of a cut by which the worker has to train again
FOR_GOOD = 3600.0  # seconds: the search ends before
LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


class UnableError(Exception):
    """The drill cannot run here; the message says why."""


def ip(*arguments: str) -> str:
    """What the command `ip` answers."""
    done = subprocess.run(['ip', *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnableError(f'`ip {" ".join(arguments)}` says: {done.stderr.strip()}')
    return done.stdout


def check() -> None:
    """Raises UnableError where namespaces cannot be had."""
    if sys.platform != 'linux':
        raise UnableError('network namespaces are of Linux')
    if os.geteuid():
        raise UnableError('only root may make network namespaces with names')
    if not shutil.which('ip'):
        raise UnableError('there is no command `ip` (of iproute2)')


@contextlib.contextmanager
def wires() -> Iterator[None]:
    """The namespaces, a bridge, and a cable for each worker; leaves nothing behind, not of an earlier drill either."""
    names = (CHIEF, *WORKERS)
    for name in names:
        if name in ip('netns', 'list').split() and ip('netns', 'pids', name).split():
            raise UnableError(f'something runs in the namespace {name}: another drill?')
    _unwire(names)
    try:
        for name in names:
            ip('netns', 'add', name)
            ip('-n', name, 'link', 'set', 'lo', 'up')
        ip('-n', CHIEF, 'link', 'add', 'bridge', 'type', 'bridge')
        ip('-n', CHIEF, 'addr', 'add', f'{CHIEF_HOST}/24', 'dev', 'bridge')
        ip('-n', CHIEF, 'link', 'set', 'bridge', 'up')
        for i, (name, host) in enumerate(zip(WORKERS, WORKER_HOSTS, strict=True)):
            ip('-n', CHIEF, 'link', 'add', f'port{i}', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name)
            ip('-n', CHIEF, 'link', 'set', f'port{i}', 'master', 'bridge', 'up')
            ip('-n', name, 'addr', 'add', f'{host}/24', 'dev', 'eth0')
            ip('-n', name, 'link', 'set', 'eth0', 'up')
        yield
    finally:
        _unwire(names)


def _unwire(names: tuple[str, ...]) -> None:
    for name in names:
        with contextlib.suppress(UnableError):  # there is none
            ip('netns', 'del', name)


def set_link(state: str) -> None:
    """Plugs the cable of one worker in or out: 'up' or 'down'."""
    ip('-n', CHIEF, 'link', 'set', f'port{CUT_OFF}', state)


@contextlib.contextmanager
def running(namespace: str, task: str, index: int, command: list[str], log: Path) -> Iterator[subprocess.Popen]:
    """A process of the cluster in its namespace, which ends with the drill however that ends."""
    config = json.dumps({'cluster': CLUSTER, 'task': {'type': task, 'index': index}})
    with open(log, 'wb') as output:
        process = subprocess.Popen(
            ['ip', 'netns', 'exec', namespace, sys.executable, '-u', *command],  # `ip` becomes what it executes
            cwd=ROOT,
            env={**os.environ, 'TF_CONFIG': config, 'PYTHONPATH': str(ROOT)},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the drill, which then ends the others
            preexec_fn=lambda: LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
        )
    try:
        yield process
    finally:
        process.terminate()  # so that a server takes its notes with it
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass
class Drill:
    """A search on two workers, seen from outside.

    Args:
        run_dir: of the search.
        search: its process.
        workers: their processes.
    """

    run_dir: Path
    search: subprocess.Popen
    workers: list[subprocess.Popen]

    def __post_init__(self) -> None:
        self._begin = self._looked = time.monotonic()
        self._cpu, self._rows = [self.cpu(i) for i in range(len(self.workers))], 0

    def cpu(self, worker: int) -> float:
        """Seconds of a core that a worker has used; NaN if it is gone."""
        try:
            fields = Path(f'/proc/{self.workers[worker].pid}/stat').read_text().rpartition(')')[2].split()
        except OSError:
            return float('nan')
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of the store; [] while there is none."""
        path = self.run_dir / 'results.sqlite'
        with (
            contextlib.suppress(sqlite3.OperationalError),
            contextlib.closing(sqlite3.connect(f'{path.as_uri()}?mode=ro', uri=True)) as db,
        ):
            return db.execute(query).fetchall()
        return []

    def rewards(self) -> int:
        """How many outcomes are on file."""
        rows = self.ask('SELECT count(*) FROM outcomes')
        return rows[0][0] if rows else 0

    def in_training(self, worker: int, since: float = 0.0) -> bool:
        """Whether a child is being trained there, begun since then: it leaves a note by when it must have ended."""
        note = Path(f'/tmp/nos_tf-{CLUSTER["worker"][worker]}/deadline')
        with contextlib.suppress(OSError):
            return note.stat().st_mtime > since and bool(note.read_text())
        return False

    def said(self) -> str:
        """What the search says of its workers, of late: how many answer."""
        found = re.findall(r'alive \d+, restarts \d+', (self.run_dir / 'search.log').read_text(errors='replace'))
        return found[-1] if found else ''

    def say(self, text: str) -> None:
        """Prints a line with the time."""
        print(f'{time.monotonic() - self._begin:6.1f} s  {text}', flush=True)

    def rates(self) -> tuple[float, list[float]]:
        """Rewards a second and cores used by each worker, since it was asked last."""
        now, rows, cpu = time.monotonic(), self.rewards(), [self.cpu(i) for i in range(len(self.workers))]
        seconds = max(now - self._looked, 1e-9)
        rates = (rows - self._rows) / seconds, [(b - a) / seconds for a, b in zip(self._cpu, cpu, strict=True)]
        self._looked, self._rows, self._cpu = now, rows, cpu
        return rates

    def watch(self, what: str, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Prints a line now and then, until something is so, the time is over, or the search has ended.

        Args:
            what: is going on.
            seconds: at most.
            until: says whether it is so.

        Returns:
            whether it came to be so.
        """
        end, line = time.monotonic() + seconds, time.monotonic() + LINE
        self.rates()
        while self.search.poll() is None and time.monotonic() < end:
            if until():
                return True
            if time.monotonic() >= line:
                line += LINE
                self._say_rates(what)
            time.sleep(TURN)
        return False

    def _say_rates(self, what: str) -> None:
        speed, cores = self.rates()
        self.say(
            f'{what}: {self._rows} rewards, {speed:.1f} a second; cores: cut off {cores[CUT_OFF]:.2f}, other '
            f'{cores[OTHER]:.2f}; {self.said()}'
        )


def cut(drill: Drill, seconds: float | None) -> list[str]:
    """Cuts one worker off in the middle of a child, for some seconds or for good; returns what went wrong."""
    if not drill.watch('start', 300, lambda: drill.rewards() >= 10):
        return ['the search did not come to ten rewards']
    if not drill.watch('start', 60, lambda: drill.in_training(CUT_OFF, time.time() - 2 * TURN)):  # at its beginning
        return ['the worker was never seen with a child']
    set_link('down')
    before = drill.rewards()
    drill.say(f'the link of {WORKERS[CUT_OFF]} is down, with a child in training; {before} rewards')
    drill.watch('down', FOR_GOOD if seconds is None else seconds)
    wrong = [] if drill.rewards() > before + 1 else ['the other worker did not go on']
    if seconds is None:
        return wrong
    set_link('up')
    up = time.time()
    drill.say(f'the link is up again; {drill.rewards()} rewards')
    if drill.search.poll() is not None:
        return [*wrong, 'the search ended too soon: give more --children']
    if not drill.watch('up', RECOVERY, lambda: drill.in_training(CUT_OFF, up)):
        return [*wrong, f'the worker was not seen with a new child within {time.time() - up:.0f} s']
    drill.say(f'it trains again after {time.time() - up:.1f} s')
    return wrong


def ended(drill: Drill, children: int) -> list[str]:
    """Waits for the end of the search; returns what is wrong with what it has left."""
    drill.watch('to the end', FOR_GOOD)
    code = drill.search.poll()
    ids = [row[0] for row in drill.ask('SELECT id FROM children ORDER BY id')]
    origins = dict(drill.ask('SELECT origin, count(*) FROM outcomes GROUP BY origin'))
    without = drill.ask('SELECT count(*) FROM children') != drill.ask('SELECT count(*) FROM results')
    drill.say(f'the search has ended with code {code}: {len(ids)} children, outcomes: {origins}')
    wrong = [] if code == 0 else [f'exit code {code}: see {drill.run_dir}/search.log']
    wrong += [] if ids == list(range(children)) else ['not every child is there once']
    wrong += ['children without a reward'] if without else []
    return wrong + ([] if origins.keys() == {'trained'} else ['not every outcome was trained'])


def run(options: argparse.Namespace) -> list[str]:
    """The drill; returns what went wrong."""
    server, logs = ['launch/server.py'], options.run_dir
    bindings = [*TASK, f'Search.children = {options.children}', f'Cluster.child_seconds = {options.child_seconds}']
    search = ['launch/search.py', '--gin_files', 'gin/digits.gin', 'gin/cluster.gin', '--gin_bindings', *bindings]
    with contextlib.ExitStack() as stack:
        stack.enter_context(wires())
        stack.enter_context(running(CHIEF, 'ps', 0, server, logs / 'ps.log'))
        workers = [
            stack.enter_context(running(name, 'worker', i, server, logs / f'worker-{i}.log'))
            for i, name in enumerate(WORKERS)
        ]
        chief = [*search, '--run_dir', str(options.run_dir)]
        process = stack.enter_context(running(CHIEF, 'chief', 0, chief, logs / 'search.log'))
        drill = Drill(options.run_dir, process, workers)
        wrong = cut(drill, None if options.for_good else options.down)
        return wrong or ended(drill, options.children)


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--run_dir', type=Path, required=True, help='for the search and all logs; must not exist')
    parser.add_argument('--down', type=float, default=30.0, metavar='SECONDS', help='of the cut')
    parser.add_argument('--for_good', action='store_true', help='the link stays down')
    parser.add_argument('--children', type=int, default=200)
    parser.add_argument('--child_seconds', type=float, default=20.0, help='Cluster.child_seconds')
    return parser.parse_args()


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    """Runs the drill; 1 if anything did not hold."""
    options = parse()
    options.run_dir = options.run_dir.resolve()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        check()
        options.run_dir.mkdir(parents=True)
        wrong = run(options)
    except UnableError as error:
        print(f'skipped: {error}')
        return 0
    except KeyboardInterrupt:
        print('interrupted')
        return 130
    for line in wrong or ['all held']:
        print(line)
    return int(bool(wrong))


if __name__ == '__main__':
    sys.exit(main())
