"""What the benchmarks of children share: trainings in worker processes, each on one thread, filed as they end.

A *contender* is a way to train children. The contenders of a rule train it one after the other, so that whatever else
the machine does hits all alike; contenders of one class share their processes, those of another have processes of their
own, since Keras' `clear_session` makes TensorFlow prepare the graphs of everybody else anew. The first training of a
contender in a process is of SGD and not counted: it traces the graph and fills caches.
"""

import argparse
import json
import logging
import multiprocessing
import os
import signal
import sqlite3
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from nos_tf import UpdateRule
from nos_tf.errors import RunError
from nos_tf.evaluation import machine
from nos_tf.evaluation.machine import use_one_cpu_thread
from nos_tf.evaluation.pool import ProcessPool
from nos_tf.store.faults import explained
from nos_tf.store.locks import lock_directory
from nos_tf.tasks.child import ChildSetup, Outcome, Rung
from nos_tf.tasks.convnet import ImageClassification

Train = Callable[[UpdateRule], Outcome]
RUNGS = Rung(0.25, 4), Rung(0.5, 2)


class Contender(Protocol):
    """A way to train children, as a value that pickles."""

    def start(self) -> Train:
        """Gets ready in this process."""


@dataclass(frozen=True)
class Ours:
    """The trainer of this package."""

    setup: ChildSetup

    def start(self) -> Train:
        """Builds the trainer."""
        return self.setup.trainer().train


def variant(setup: ChildSetup, *, bfloat16: bool = False, rungs: Sequence[Rung] = (), **changes: Any) -> ChildSetup:
    """The same setup with other switches; those that change rewards are off unless they are given.

    Args:
        setup: of a task of images.
        bfloat16: of its network.
        rungs: of its child.
        changes: of its child.

    Raises:
        RunError: a value out of range, or another kind of task.
    """
    task = images_of(setup)
    try:
        task = replace(task, network=replace(task.network, bfloat16=bfloat16))
        return replace(setup, task=task, child=replace(setup.child, rungs=rungs, **changes))
    except ValueError as error:
        raise RunError(str(error)) from error


def images_of(setup: ChildSetup) -> ImageClassification:
    """The task, which must be one of images.

    Raises:
        RunError: it is another.
    """
    if not isinstance(setup.task, ImageClassification):
        raise RunError(f'Search.task is {setup.task}: this benchmark needs @ImageClassification()')
    return setup.task


class Training(NamedTuple):
    """One training: by whom, of which rule, and for the how-manieth time."""

    contender: str
    rule: UpdateRule
    again: int = 0


class Trainings:
    """The trainings of one run directory; the directory is locked as long as this process runs.

    Args:
        run_dir: made if it does not exist.
        identity: all that outcomes depend on beside contender, rule and machine.

    Raises:
        RunError: the directory is in use, cannot be used, or holds trainings of another identity.
    """

    def __init__(self, run_dir: Path, identity: Mapping[str, Any]) -> None:
        self._lock = lock_directory(run_dir)
        self._path = run_dir / 'trainings.sqlite'
        text = json.dumps({**identity, **machine.identity()}, sort_keys=True)
        with explained(self._path):
            self._db = sqlite3.connect(self._path, isolation_level=None)
            self._db.execute('CREATE TABLE IF NOT EXISTS meta (identity TEXT)')
            self._db.execute(
                'CREATE TABLE IF NOT EXISTS trainings (contender TEXT, rule TEXT, again INTEGER, outcome TEXT, '
                'PRIMARY KEY (contender, rule, again))'
            )
            known = self._db.execute('SELECT identity FROM meta').fetchone()
            if known is None:
                self._db.execute('INSERT INTO meta VALUES (?)', (text,))
            elif known[0] != text:
                raise RunError(
                    f'{run_dir} holds trainings of another configuration or version: choose another --run_dir'
                )

    def outcome(self, training: Training) -> Outcome | None:
        """The outcome of a training that is on file."""
        with explained(self._path):
            query = 'SELECT outcome FROM trainings WHERE (contender, rule, again) = (?, ?, ?)'
            row = self._db.execute(query, _key(training)).fetchone()
        return row and Outcome(*json.loads(row[0]))

    def train(
        self, rows: Sequence[Sequence[Training]], contenders: Mapping[str, Contender], workers: int
    ) -> dict[Training, Outcome]:
        """The outcomes of all trainings: those on file, and those that are done now.

        Args:
            rows: trainings in their order; those of a row are done one after the other.
            contenders: by name.
            workers: how many rows are under way at a time.
        """
        every = dict.fromkeys(training for row in rows for training in row)
        outcomes = {training: known for training in every if (known := self.outcome(training))}
        missing = [[training for training in row if training not in outcomes] for row in rows]
        waiting = [iter(row) for row in missing if row]
        progress = _Progress(len(every), len(outcomes))
        with _pools(contenders, workers if waiting else 0) as submit:
            under_way: dict[Future[Outcome], tuple[Training, Iterator[Training]]] = {}
            while waiting or under_way:
                while waiting and len(under_way) < workers:
                    row = waiting.pop(0)
                    if training := next((training for training in row if training not in outcomes), None):
                        under_way[submit(training)] = training, row
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    training, row = under_way.pop(future)
                    outcomes[training] = future.result()
                    with explained(self._path):
                        values = (*_key(training), json.dumps(outcomes[training]))
                        self._db.execute('INSERT OR IGNORE INTO trainings VALUES (?, ?, ?, ?)', values)
                    progress.show(training, outcomes[training])
                    waiting.insert(0, row)
        return outcomes


def _key(training: Training) -> tuple[str, str, int]:
    return training.contender, ' '.join(training.rule.tokens), training.again


class _Progress:
    """Says on standard error what has been trained: one line in a terminal, a line each anywhere else."""

    def __init__(self, total: int, known: int) -> None:
        self._total, self._known, self._done, self._start = total, known, 0, time.monotonic()

    def show(self, training: Training, outcome: Outcome) -> None:
        """Tells of one training, and when the rest will have ended."""
        self._done += 1
        done, seconds = self._known + self._done, time.monotonic() - self._start
        minutes, seconds = divmod(int(seconds / self._done * (self._total - done)), 60)
        text = f'{done}/{self._total} {training.contender}: {outcome.reward:.3f} in {outcome.seconds:.1f} s'
        end = '\r' if sys.stderr.isatty() and done < self._total else '\n'
        print(f'{text}, about {minutes}:{seconds:02} left'.ljust(79), end=end, file=sys.stderr, flush=True)


@contextmanager
def _pools(contenders: Mapping[str, Contender], workers: int) -> Iterator[Callable[[Training], Future[Outcome]]]:
    """Worker processes for each class of contenders; they end with the context, whatever they are doing."""
    spawn = multiprocessing.get_context('spawn')
    pools = {
        kind: ProcessPoolExecutor(workers, spawn, initializer=_start_worker, initargs=(contenders,))
        for kind in {type(contender) for contender in contenders.values()}
        if workers
    }
    try:
        yield lambda training: pools[type(contenders[training.contender])].submit(_train, training)
    finally:
        for process in multiprocessing.active_children():
            process.kill()
        for pool in pools.values():
            pool.shutdown(cancel_futures=True)


_contenders: Mapping[str, Contender] = {}
_ready: dict[str, Train] = {}  # those that have started in this process


def _start_worker(contenders: Mapping[str, Contender]) -> None:
    global _contenders
    _contenders = contenders
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_die_with_parent, daemon=True).start()
    warnings.simplefilter('ignore')  # a rule that reads no gradient is what a search has to live with
    logging.getLogger('tensorflow').setLevel(logging.ERROR)
    use_one_cpu_thread()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _train(training: Training) -> Outcome:
    name = training.contender
    if name not in _ready:
        _ready[name] = _contenders[name].start()
        _ready[name](UpdateRule.parse('sgd'))
    return _ready[name](training.rule)


def argument_parser(description: str) -> argparse.ArgumentParser:
    """Returns a parser of the arguments that both benchmarks take."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--gin_files', nargs='+', default=['gin/cifar10_small.gin'])
    parser.add_argument('--gin_bindings', nargs='+', default=[])
    parser.add_argument('--workers', type=_positive, default=ProcessPool().workers, help='one for each core')
    parser.add_argument('--rungs', type=_rung, nargs='+', default=RUNGS, metavar='SHARE:RATES', help='of Child.rungs')
    return parser


def _positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


def _rung(text: str) -> Rung:
    share, _, rates = text.partition(':')
    return Rung(float(share), int(rates))
