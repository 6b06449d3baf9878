"""Where children train: in this process, or in a pool of local processes, behind one interface.

Whichever it is, an evaluating process computes on one thread, so that a rule earns the same reward in all of them.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import gin

from nos_tf import output
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.search import RunError
from nos_tf.search.jobs import Job, Patience, Trainable, reason
from nos_tf.search.schema import TRAINED
from nos_tf.search.spawning import main_is_guarded, pack, unpack, without_main
from nos_tf.tasks import machine
from nos_tf.tasks.checks import check_counts
from nos_tf.tasks.child import Child
from nos_tf.tasks.machine import use_one_cpu_thread

_Jobs = dict[Future[Any], Any]  # jobs are of whatever kind the trainer takes: `Job` in a search


class _Trains:
    """What evaluators that train have in common."""

    def machine(self) -> dict[str, Any]:
        """Returns the identity of this machine, at one thread."""
        return machine.identity() | {'intra_op threads': 1}

    def identity(self, child: Child) -> dict[str, Any]:
        """Returns the identity of the child, the machine included."""
        return child.identity()

    def origin(self, job: Job) -> str:
        """Returns TRAINED: these evaluators look nothing up."""
        return TRAINED

    def status(self) -> dict[str, float]:
        """Returns no figures: workers that die are replaced at once."""
        return {}


@gin.register
@dataclass
class InProcess(_Trains):
    """Trains in the process of the controller, one job after the other; for debugging, and for a single core.

    Args:
        attempts: how often a job may run out of memory, with no other finished in between, before the search gives up.
    """

    attempts: int = 3

    workers = 1

    def __post_init__(self) -> None:
        check_counts(self, 'attempts')

    def start(self, child: Trainable, vocabulary: Vocabulary) -> None:
        """Builds the trainer."""
        self._patience = Patience(self.attempts)
        use_one_cpu_thread()
        self._trainer = child.trainer(vocabulary)
        self._thread = ThreadPoolExecutor(1)  # so that Ctrl-C need not wait for the end of a child
        self._jobs: _Jobs = {}

    def submit(self, job: Any) -> None:
        """Queues the job."""
        self._jobs[self._thread.submit(self._trainer.train, *job)] = job

    def collect(self) -> list[tuple[Any, Any]]:
        """Waits for the job that is being trained; one that had too little memory is trained again."""
        while self._jobs:
            done = wait(self._jobs, return_when=FIRST_COMPLETED).done
            if ended := _harvest(self._jobs, done):
                self._patience.failures.clear()
                return ended
            _try_again(self._jobs, done, self.submit, self._patience)
        return []

    def close(self) -> None:
        """Forgets the queue."""
        self._thread.shutdown(wait=False, cancel_futures=True)


@gin.register
@dataclass
class ProcessPool(_Trains):
    """Trains in local processes, one thread each; replaces those that die.

    Args:
        workers: number of processes; None means one for each core.
        attempts: how often workers may die, or a job run out of memory, with no job finished in between, before the
            search gives up.
    """

    workers: int | None = None
    attempts: int = 3

    def __post_init__(self) -> None:
        if self.workers is None:
            self.workers = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
        check_counts(self, 'workers', 'attempts')

    def start(self, child: Trainable, vocabulary: Vocabulary) -> None:
        """Gets ready to start processes; they import TensorFlow and trace their graph with the first job."""
        child.trainer(vocabulary)  # what is wrong with it is said here, once
        self._hides_main = not main_is_guarded()
        self._packed = pack((child, vocabulary), by_value=self._hides_main)
        self._jobs: _Jobs = {}
        self._patience = Patience(self.attempts)
        self._open()

    def _open(self) -> None:
        self._pool = ProcessPoolExecutor(
            self.workers,
            multiprocessing.get_context('spawn'),
            initializer=_start_worker,
            initargs=(self._packed, machine.settings()),
        )

    def submit(self, job: Any) -> None:
        """Queues the job for the next idle worker."""
        try:
            self._submit(job)
        except BrokenProcessPool:  # a worker died before this job came
            self._replace_workers(job)
            self._submit(job)

    def _submit(self, job: Any) -> None:
        with _deaf_to_interrupts(), without_main(self._hides_main):
            self._jobs[self._pool.submit(_train, job)] = job

    def collect(self) -> list[tuple[Any, Any]]:
        """Waits for workers; a job whose worker died, or had too little memory, is trained again."""
        while self._jobs:
            done = wait(self._jobs, return_when=FIRST_COMPLETED).done
            broken = [future for future in done if isinstance(future.exception(), BrokenProcessPool)]
            if ended := _harvest(self._jobs, done.difference(broken)):
                self._patience.failures.clear()
                return ended
            if broken:
                self._replace_workers(self._jobs[broken[0]])
            else:
                _try_again(self._jobs, done, self.submit, self._patience)
        return []

    def _replace_workers(self, waiting: Any) -> None:
        """Begins a new pool, since one dead worker breaks all, with the jobs that the old one has lost."""
        wait(self._jobs)
        lost = [future for future in self._jobs if isinstance(future.exception(), BrokenProcessPool)]
        while True:
            self._patience.fail(
                f'workers died {self.attempts} times (killed, out of memory, or unable to start), the last time '
                f'when {waiting} was to be trained'
            )
            self._pool.shutdown(wait=False)
            self._open()
            with suppress(BrokenProcessPool):  # died again already
                while lost:
                    self._submit(self._jobs[lost[-1]])
                    del self._jobs[lost.pop()]
                return

    def close(self) -> None:
        """Ends all workers at once: what they were training is trained again after a restart."""
        processes = list((getattr(self._pool, '_processes', None) or {}).values())
        for process in processes:
            process.kill()
        self._pool.shutdown()
        del self._pool  # and its semaphores, which would be reported as leaked
        self._jobs.clear()


def _harvest(jobs: _Jobs, done: Iterable[Future]) -> list[tuple[Any, Any]]:
    """Takes what has ended well out of `jobs`; if there is nothing, says what has failed but for want of memory."""
    ended = [(jobs.pop(future), future.result()) for future in done if future.exception() is None]
    for future in () if ended else done:
        error = future.exception()
        if not isinstance(error, MemoryError):
            raise RunError(f'{jobs.pop(future)} could not be trained: {reason(error)}') from error
    return ended


def _try_again(jobs: _Jobs, done: Iterable[Future], submit: Callable[[Any], None], patience: Patience) -> None:
    """Submits again what had too little memory, and says so: another process may have taken it for a while."""
    for future in done:
        job, why = jobs.pop(future), reason(future.exception())
        patience.fail(f'{job} could not be trained, {patience.attempts} times over: {why}', job)
        output.warn(f'{job} is trained again: {why}')
        submit(job)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Ctrl-C reaches the whole group, but the parent decides: processes that start in here never hear of it."""
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


_trainer: Any  # of this worker process


class _CannotStart(NamedTuple):
    """Stands for the trainer of a worker that has none, and says why to whoever gives it a job."""

    error: Exception

    def train(self, *_: Any) -> NoReturn:
        raise self.error


def _start_worker(packed: bytes, settings: Mapping[str, Any]) -> None:
    global _trainer
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        use_one_cpu_thread()
        machine.adopt(settings)  # before anything is made that may read them
        child, vocabulary = unpack(packed)
        _trainer = child.trainer(vocabulary)
    except MemoryError:
        raise  # it dies, and its successor may have more
    except Exception as error:
        _trainer = _CannotStart(error)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _train(job: Any) -> Any:
    return _trainer.train(*job)
