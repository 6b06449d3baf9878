r"""A drill: a search on a cluster whose processes are killed again and again, and every reward is checked.

python tests/drills/soak.py --run_dir /tmp/soak
python tests/drills/soak.py --children 50 --trained 30 --every 5 10 --run_dir /tmp/soak_small

One worker, chosen at random, is killed (-9) every now and then, the chief at a third and at two thirds of the
children; with --kill_ps the parameter server at a half, with --kill_supervisor the supervisor at five sixths, after
which the same command is given again. Then every rule is trained once more without a cluster, and has to earn the same
reward, learning rate and sweep, bit for bit. Ends with code 1 if anything does not hold.
"""

import argparse
import contextlib
import ctypes
import json
import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gin

from nos_tf import Search, UpdateRule
from nos_tf.evaluation.cluster import notes
from nos_tf.evaluation.machine import use_one_cpu_thread
from nos_tf.store.schema import SEARCH
from nos_tf.tasks.child import TRAINED, Trainer

ROOT = Path(__file__).resolve().parents[2]
GIN_FILES = ('gin/digits.gin', 'gin/cluster.gin')
TASK = ('Search.learner = @RandomSearch()', 'Search.rescore_seeds = 0')  # rules of two iterations: hardly any twice
COMPARERS = 2  # processes that train again without a cluster
TURN = 0.2  # seconds between two looks
LINE = 15.0  # seconds between two lines
LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """In a process that was just forked: has the kernel kill it when the drill ends, however that comes about."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass
class Soak:
    """A cluster under attack.

    Args:
        options: of the command line.
    """

    options: argparse.Namespace
    kills: Counter[str] = field(default_factory=Counter)
    restarts: Counter[str] = field(default_factory=Counter)  # by the supervisors that have ended
    cut_short: int = 0  # trainings that a kill ended

    def __post_init__(self) -> None:
        self._random = random.Random(self.options.seed)
        n = self.options.children
        self._plan = [(n / 3, 'chief'), (2 * n / 3, 'chief')]
        self._plan += [(n / 2, 'ps-0')] if self.options.kill_ps else []
        self._plan += [(5 * n / 6, 'supervisor')] if self.options.kill_supervisor else []
        self._plan.sort()
        self._next_worker = self._next_line = 0.0

    @property
    def missed(self) -> list[str]:
        """Who was to be killed, and was not."""
        return [name for _, name in self._plan]

    def run(self) -> int:
        """Runs the search to its end; returns the exit code."""
        self._start()
        self._postpone()
        try:
            while self._process.poll() is None:
                self._turn()
                time.sleep(TURN)
        finally:
            self._process.send_signal(signal.SIGTERM)
            code = self._process.wait()
        self._count_restarts()
        return code

    def _start(self) -> None:
        bindings = [*TASK, f'Search.children = {self.options.children}']
        command = ['launch/search.py', '--gin_files', *GIN_FILES, '--gin_bindings', *bindings]
        command += ['--run_dir', str(self.options.run_dir)]
        cluster = ['launch/local_cluster.py', '--workers', str(self.options.workers), '--', *command]
        with open(self.options.run_dir / 'search.log', 'ab') as output:
            self._process = subprocess.Popen(
                [sys.executable, '-u', *cluster],
                cwd=ROOT,
                env={**os.environ, 'PYTHONPATH': str(ROOT)},
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for the drill, which then ends the others
                preexec_fn=die_with_parent,
            )

    def _turn(self) -> None:
        children = count(self.options.run_dir, 'children')
        if time.monotonic() > self._next_line:
            self._next_line = time.monotonic() + LINE
            print(f'{children} of {self.options.children} children; kills: {brief(self.kills)}', flush=True)
        if self._plan and children >= self._plan[0][0]:
            name = self._plan[0][1]
            if self._kill_supervisor() if name == 'supervisor' else self._kill(name):
                self._plan.pop(0)
                self._postpone()
        elif time.monotonic() > self._next_worker and children < self.options.children:  # then it only leaves
            self._kill(f'worker-{self._random.randrange(self.options.workers)}')
            self._postpone()

    def _postpone(self) -> None:
        self._next_worker = time.monotonic() + self._random.uniform(*self.options.every)

    def _kill(self, name: str) -> bool:
        """Kills a process of the cluster; False if it does not run just now."""
        processes = states(self.options.run_dir)
        pid = processes.get(name, {}).get('pid')
        if pid is None:
            return False
        # The supervisor ends all with the chief or the ps, and all that they train ends with them.
        victims = [name] if name.startswith('worker') else [name for name in processes if name.startswith('worker')]
        self.cut_short += sum(is_training(processes[victim]['pid']) for victim in victims)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.kills[name.partition('-')[0]] += 1
            return True
        return False

    def _kill_supervisor(self) -> bool:
        """Kills the supervisor, with which all has to end, and gives the same command again."""
        self._count_restarts()
        processes = states(self.options.run_dir)
        pids = [state['pid'] for state in processes.values() if state['pid'] is not None]
        self.cut_short += sum(is_training(state['pid']) for name, state in processes.items() if 'worker' in name)
        self._process.kill()
        self._process.wait()
        self.kills['supervisor'] += 1
        deadline = time.monotonic() + 10
        while left := [pid for pid in pids if is_alive(pid)]:
            if time.monotonic() > deadline:
                raise SystemExit(f'the supervisor is gone, and these processes of its cluster are not: {left}')
            time.sleep(TURN)
        self._start()
        return True

    def _count_restarts(self) -> None:
        for name, state in states(self.options.run_dir).items():
            self.restarts[name.partition('-')[0]] += state['restarts']


def states(run_dir: Path) -> dict[str, dict[str, Any]]:
    """What the supervisor says of its processes; {} while there is none."""
    with contextlib.suppress(FileNotFoundError):
        return json.loads((run_dir / 'logs/cluster.json').read_text(encoding='utf-8'))['processes']
    return {}


def is_training(pid: int | None) -> bool:
    """Whether a worker is in the middle of a child: its note says by when that must have ended."""
    with contextlib.suppress(OSError, KeyError):
        variables = Path(f'/proc/{pid}/environ').read_text(encoding='utf-8').split('\0')
        config = json.loads(dict(line.split('=', 1) for line in variables if line)['TF_CONFIG'])
        task = config['task']
        return notes.read_deadline(config['cluster'][task['type']][task['index']]) is not None
    return False


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked for does not."""
    with contextlib.suppress(OSError):
        return Path(f'/proc/{pid}/stat').read_text(encoding='utf-8').rpartition(')')[2].split()[0] != 'Z'
    return False


def ask(run_dir: Path, query: str) -> list[tuple[Any, ...]]:
    """Rows of the store; [] while there is none."""
    path = run_dir / SEARCH.file_name
    try:
        with contextlib.closing(sqlite3.connect(f'{path.as_uri()}?mode=ro', uri=True, timeout=10)) as db:
            return db.execute(query).fetchall()
    except sqlite3.OperationalError:
        return []


def count(run_dir: Path, table: str) -> int:
    """How many rows a table has."""
    rows = ask(run_dir, f'SELECT count(*) FROM {table}')
    return rows[0][0] if rows else 0


def brief(counts: Counter[str]) -> str:
    """Counts in one line."""
    return ', '.join(f'{name} {number}' for name, number in sorted(counts.items())) or 'none'


_trainer: Trainer  # of a process that trains again


def begin_training() -> None:
    """Gets a process ready to train without a cluster, as the evaluators of one machine do."""
    global _trainer
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the drill ends it
    use_one_cpu_thread()
    gin.add_config_file_search_path(str(ROOT))
    gin.parse_config_files_and_bindings(GIN_FILES, TASK)
    _trainer = Search().setup.trainer()


def differs(row: tuple[str, int, float, float, str]) -> str:
    """How an outcome on file differs from that of a training here; '' if it does not, in any bit."""
    program, seed, *stored, sweep = row
    outcome = _trainer.train(UpdateRule(tuple(program.split())), seed)
    here = [outcome.reward, outcome.learning_rate, list(outcome.sweep)]
    there = [*stored, json.loads(sweep)]
    return '' if here == there else f'{program}: {there} on the cluster, {here} here'


def differing(rows: Sequence[tuple]) -> Iterator[str]:
    """The outcomes that are not those of a training without a cluster."""
    with multiprocessing.get_context('spawn').Pool(COMPARERS, begin_training) as pool:
        for done, difference in enumerate(pool.imap_unordered(differs, rows), 1):
            if difference:
                yield difference
            if done % 100 == 0 or done == len(rows):
                print(f'{done} of {len(rows)} trained again', flush=True)


def check(soak: Soak, code: int) -> list[str]:
    """What does not hold; prints what there is to count."""
    run_dir, children = soak.options.run_dir, soak.options.children
    ids = [row[0] for row in ask(run_dir, 'SELECT id FROM children ORDER BY id')]
    rows = ask(run_dir, 'SELECT program, seed, reward, learning_rate, sweep, origin FROM outcomes ORDER BY program')
    trained = [row[:-1] for row in rows if row[-1] == TRAINED]
    wrong = [f'the search ended with code {code}: see {run_dir}/search.log'] if code else []
    wrong += [] if ids == list(range(children)) else [f'not every child is there once: {len(ids)} rows']
    wrong += [] if count(run_dir, 'results') == len(ids) else ['children without an outcome']
    wrong += [] if len(trained) == len(rows) else [f'{len(rows) - len(trained)} outcomes were not trained']
    wrong += [] if len(trained) >= soak.options.trained else [f'{len(trained)} trained: give more --children']
    wrong += [f'{name} was to be killed, and was not' for name in soak.missed]
    different = list(differing(trained))
    print(f'{len(ids)} children, {len(trained)} trained, {len(different)} of them with another reward elsewhere')
    return wrong + different[:5]


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--run_dir', type=Path, required=True, help='of the search; must not exist')
    parser.add_argument('--children', type=int, default=600)
    parser.add_argument('--trained', type=int, default=500, help='distinct rules that have to train at least')
    parser.add_argument('--workers', type=int, default=3)
    parser.add_argument('--every', type=float, nargs=2, default=(10.0, 20.0), metavar='SECONDS', help='from, to')
    parser.add_argument('--seed', type=int, default=0, help='of who is killed when')
    parser.add_argument('--kill_ps', action='store_true', help='once, too')
    parser.add_argument('--kill_supervisor', action='store_true', help='once, too')
    return parser.parse_args()


def main() -> int:
    """Runs the drill; 1 if anything does not hold."""
    options = parse()
    options.run_dir = options.run_dir.resolve()
    options.run_dir.mkdir(parents=True)
    soak, begin = Soak(options), time.monotonic()
    code = soak.run()
    seconds = time.monotonic() - begin
    wrong = check(soak, code)
    print(f'kills: {brief(soak.kills)}; trainings cut short by them and begun again: about {soak.cut_short}')
    print(f'restarts: {brief(soak.restarts)}; {seconds:.0f} s for the search')
    print('\n'.join(wrong) or 'all held')
    return int(bool(wrong))


if __name__ == '__main__':
    sys.exit(main())
