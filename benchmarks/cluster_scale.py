"""How a search scales with its workers: a few real ones on this machine, and very many whose clock is virtual.

python benchmarks/cluster_scale.py real --workers 1 2 4
python benchmarks/cluster_scale.py simulated --workers 100 1000 --figure docs/cluster_scale.png

`real` runs gin/digits.gin on clusters of local processes, and asks the same servers to return what they are given. It
says how much the machinery costs; with more workers than cores it cannot say more.

`simulated` is the real search, with its learner and its store, on rewards that are looked up. What is made up is how
long they take: the measured times of children, scaled to a mean of five minutes and made heavy-tailed, some workers
fail, and the learner's own time counts (`virtual_workers.py`). Utilisation is the share of the time that workers
trained, from when there had been as many jobs as workers to when the last job was given out; that the workers run out
of jobs after that, one by one, is the drain. A child whose program is on file costs no training, and comes at once. A
run of 20,000 children takes some minutes.
"""

import argparse
import contextlib
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from nos_tf.cli import commandline  # first: it hides what TensorFlow prints when it is imported

# isort: split
import tensorflow as tf
from optimizer_step import machine
from simulated_search import HEAD, Mode, Played, draw, modes, play
from virtual_workers import Times, VirtualWorkers

from nos_tf import Search
from nos_tf.errors import RunError
from nos_tf.evaluation.cluster.config import ClusterConfig
from nos_tf.evaluation.table import RewardTable, Table
from nos_tf.store.schema import SEARCH
from nos_tf.tasks.child import TRAINED

ROOT = Path(__file__).resolve().parents[1]
LEARNERS = ('TRPO', 'Reinforce', 'RandomSearch', 'Evolution', 'Bayesian')
CHILDREN_A_WORKER, LEAST_CHILDREN = 20, 3000
CLOSURES, SAID = 2000, 'closures a second: '
LOOK = 0.05  # seconds between two looks into a store


# Real workers -----------------------------------------------------------------------------------------------------


class Rate(NamedTuple):
    """What a cluster did."""

    start: float  # seconds to the first outcome: the servers, the trace of the graph, a child
    trained: int
    hourly: float  # children that were trained, between the first outcome and the last

    @classmethod
    def of(cls, seen: Sequence[tuple[float, int]]) -> 'Rate':
        """The rate of what was seen: seconds since the start and the number of outcomes, at each change.

        Raises:
            RunError: there was no change after the first outcome.
        """
        if len(seen) < 2:
            raise RunError('too few children were trained to tell how many there are in an hour: give more --children')
        (start, first), (end, last) = seen[0], seen[-1]
        return cls(start, last, 3600 * (last - first) / (end - start))


def on_file(run_dir: Path) -> int:
    """How many children have been trained, as the store says while the search is running."""
    try:
        with contextlib.closing(sqlite3.connect(f'file:{run_dir / SEARCH.file_name}?mode=ro', uri=True)) as db:
            return db.execute('SELECT count(*) FROM outcomes WHERE origin = ?', (TRAINED,)).fetchone()[0]
    except sqlite3.Error:  # there is no store, or no table in it, yet
        return 0


@contextlib.contextmanager
def on_cluster(workers: int, folder: Path, *script: str) -> Iterator[subprocess.Popen]:
    """Runs a script on a cluster of local processes, which end with the context.

    Args:
        workers: how many.
        folder: gets `logs` of the servers, and `log`, what the script prints.
        script: its path and arguments.

    Raises:
        RunError: the script failed; the message has the end of what it printed.
    """
    command = [sys.executable, str(ROOT / 'launch' / 'local_cluster.py'), '--workers', str(workers)]
    command += ['--logs', str(folder / 'logs'), '--', *script]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])}
    with (folder / 'log').open('w', encoding='utf-8') as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT)
    try:
        yield process
        if process.wait():
            text = (folder / 'log').read_text(encoding='utf-8')
            raise RunError(f'the script on the cluster ended with {process.returncode}: {text[-1000:]}')
    finally:
        process.terminate()
        process.wait()


def watch(workers: int, children: int, bindings: Sequence[str]) -> Rate:
    """Runs gin/digits.gin on so many workers, and looks into its store meanwhile."""
    ours = [f'Search.children = {children}', 'Search.rescore_seeds = 0', *bindings]
    script = [str(ROOT / 'launch' / 'search.py'), '--gin_files', 'gin/digits.gin', 'gin/cluster.gin']
    seen: list[tuple[float, int]] = []
    with tempfile.TemporaryDirectory() as name:
        run_dir, begin = Path(name) / 'run', time.perf_counter()
        command = [*script, '--run_dir', str(run_dir), '--gin_bindings', *ours]
        with on_cluster(workers, Path(name), *command) as process:
            is_running = True
            while is_running:
                is_running = process.poll() is None
                count = on_file(run_dir)
                if count > (seen[-1][1] if seen else 0):
                    seen.append((time.perf_counter() - begin, count))
                time.sleep(LOOK)
    return Rate.of(seen)


def closures(_: argparse.Namespace) -> None:
    """Prints how many closures a second come back from the cluster that TF_CONFIG describes; run by `echo`."""
    config = ClusterConfig.read()
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(config.cluster), task_type=config.task, task_id=config.index, rpc_layer='grpc'
    )
    coordinator = tf.distribute.coordinator.ClusterCoordinator(tf.distribute.ParameterServerStrategy(resolver))
    same = tf.function(lambda x: x, autograph=False, input_signature=[tf.TensorSpec([], tf.int32)])

    def round_trip(count: int) -> float:
        """Closures a second."""
        begin = time.perf_counter()
        values = [coordinator.schedule(same, args=(tf.constant(i),)) for i in range(count)]
        coordinator.join()
        seconds = time.perf_counter() - begin
        if [int(value.fetch()) for value in values] != list(range(count)):
            raise RuntimeError('the workers returned other numbers than they were sent')
        return count / seconds

    round_trip(20 * len(config.workers))  # each worker is sent the function
    print(f'{SAID}{round_trip(CLOSURES):.1f}', flush=True)


def echo(workers: int) -> float:
    """Closures a second on a cluster of so many workers that return their input."""
    with tempfile.TemporaryDirectory() as name:
        with on_cluster(workers, Path(name), __file__, 'closures'):
            pass
        return float((Path(name) / 'log').read_text(encoding='utf-8').rpartition(SAID)[2])


def real(arguments: argparse.Namespace) -> None:
    """Prints the table of real workers."""
    print(f'{machine()}; {arguments.children} children each\n')
    print('| workers | children an hour | times the first | start, s | trained | closures a second |')
    print('|---|---|---|---|---|---|')
    first = 0.0
    for workers in arguments.workers:
        rate = watch(workers, arguments.children, arguments.gin_bindings)
        first = first or rate.hourly
        print(
            f'| {workers} | {rate.hourly:.0f} | {rate.hourly / first:.2f} | {rate.start:.1f} | {rate.trained} '
            f'| {echo(workers):.0f} |',
            flush=True,
        )


# Virtual workers --------------------------------------------------------------------------------------------------


def simulated(arguments: argparse.Namespace) -> None:
    """Prints the table of virtual workers, and draws the figure if there is to be one."""
    arguments.gin_files = ['gin/tabular.gin']
    arguments.gin_bindings = [
        f'Search.learner = @{arguments.learner}()',
        f'Search.seed = {arguments.seed}',
        *arguments.gin_bindings,
    ]
    search = commandline.configure(arguments, Search)
    if not isinstance(search.evaluator, Table):
        raise RunError(f'Search.evaluator = {search.evaluator!r}: the simulation needs a table')
    times = Times.of_table(RewardTable.load(search.evaluator.path), seed=arguments.seed)
    print(f'{machine()}; {arguments.learner}, seed {arguments.seed}\n')
    print(f'| {HEAD} |\n|{"---|" * (HEAD.count("|") + 1)}')
    played: dict[tuple[int, Mode], Played] = {}
    for workers in arguments.workers:
        children = arguments.children or max(LEAST_CHILDREN, CHILDREN_A_WORKER * workers)
        for mode in modes(workers):
            run = play(search, VirtualWorkers(search.evaluator, times, workers), mode, children)
            played[workers, mode] = run
            print(f'| {workers} | {mode} | {" | ".join(run.cells())} |', flush=True)
    if arguments.figure:
        draw(played, arguments.figure)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    on = verbs.add_parser('real', help='a few processes of this machine')
    on.set_defaults(run=real)
    on.add_argument('--workers', type=int, nargs='+', default=[1, 2, 4])
    on.add_argument('--children', type=int, default=60)
    off = verbs.add_parser('simulated', help='very many that do not exist')
    off.set_defaults(run=simulated)
    off.add_argument('--workers', type=int, nargs='+', default=[100, 1000])
    off.add_argument('--children', type=int, help='20 for each worker, and at least 3,000, if nothing is said')
    off.add_argument('--learner', choices=LEARNERS, default=LEARNERS[0])
    off.add_argument('--seed', type=int, default=0)
    off.add_argument('--figure', type=Path, help='draw rewards against virtual hours')
    for verb in (on, off):
        verb.add_argument('--gin_bindings', nargs='+', action='extend', default=[])
    verbs.add_parser('closures', help='for `real`: it is run on its servers').set_defaults(run=closures)
    return parser.parse_args()


def main() -> None:
    """Does what the command line says."""
    arguments = parse()
    arguments.run(arguments)


if __name__ == '__main__':
    commandline.main(main)
