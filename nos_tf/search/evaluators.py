"""Where children train: in this process, or in a pool of local processes, behind one interface.

Whichever it is, an evaluating process computes on one thread, so that a rule earns the same reward in all of them.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import gin

from nos_tf.dsl.rule import UpdateRule
from nos_tf.search import RunError
from nos_tf.tasks.child import Child, Outcome, Trainer
from nos_tf.tasks.machine import use_one_cpu_thread


class Job(NamedTuple):
    """A training to be done."""

    program: UpdateRule  # canonical
    seed: int


class Evaluator(Protocol):
    """Trains children; any number may be under way."""

    def start(self, child: Child, iterations: int) -> None:
        """Gets ready to train rules of at most so many iterations."""

    def submit(self, job: Job) -> None:
        """Adds a job to the queue."""

    def collect(self) -> list[tuple[Job, Outcome]]:
        """Waits for at least one job to end; returns those that have, each once; [] if there is none to wait for.

        Raises:
            RunError: a job cannot be done; the message says why.
        """

    def close(self) -> None:
        """Drops what is queued and ends what runs."""


@gin.register
@dataclass
class InProcess:
    """Trains in the process of the controller, one job after the other; for debugging, and for a single core."""

    def start(self, child: Child, iterations: int) -> None:
        """Builds the trainer."""
        use_one_cpu_thread()
        self._trainer = child.trainer(iterations)
        self._thread = ThreadPoolExecutor(1)  # so that Ctrl-C need not wait for the end of a child
        self._jobs: dict[Future[Outcome], Job] = {}

    def submit(self, job: Job) -> None:
        """Queues the job."""
        self._jobs[self._thread.submit(self._trainer.train, *job)] = job

    def collect(self) -> list[tuple[Job, Outcome]]:
        """Waits for the job that is being trained."""
        done = wait(self._jobs, return_when=FIRST_COMPLETED).done
        return _harvest(self._jobs, done)

    def close(self) -> None:
        """Forgets the queue."""
        self._thread.shutdown(wait=False, cancel_futures=True)


@gin.register
@dataclass
class ProcessPool:
    """Trains in local processes, one thread each; replaces those that die.

    Args:
        workers: number of processes; None means one for each core.
        attempts: how often workers may die, with no job finished in between, before the search gives up.
    """

    workers: int | None = None
    attempts: int = 3

    def __post_init__(self) -> None:
        if self.workers is None:
            self.workers = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
        for name in ('workers', 'attempts'):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f'ProcessPool.{name} = {value!r}: must be a whole number, at least 1')

    def start(self, child: Child, iterations: int) -> None:
        """Gets ready to start processes; they import TensorFlow and trace their graph with the first job."""
        child.trainer(iterations)  # what is wrong with it is said here, once
        self._arguments = (child, iterations)
        self._jobs: dict[Future[Outcome], Job] = {}
        self._deaths = 0  # since a job was finished
        self._open()

    def _open(self) -> None:
        self._pool = ProcessPoolExecutor(
            self.workers, multiprocessing.get_context('spawn'), initializer=_start_worker, initargs=self._arguments
        )

    def submit(self, job: Job) -> None:
        """Queues the job for the next idle worker."""
        try:
            self._submit(job)
        except BrokenProcessPool:  # a worker died before this job came
            self._replace_workers(job)
            self._submit(job)

    def _submit(self, job: Job) -> None:
        with _deaf_to_interrupts():
            self._jobs[self._pool.submit(_train, job)] = job

    def collect(self) -> list[tuple[Job, Outcome]]:
        """Waits for workers; a job whose worker died goes to another one."""
        while self._jobs:
            done = wait(self._jobs, return_when=FIRST_COMPLETED).done
            broken = [future for future in done if isinstance(future.exception(), BrokenProcessPool)]
            ended = _harvest(self._jobs, done.difference(broken))
            if ended:
                self._deaths = 0
                return ended
            self._replace_workers(self._jobs[broken[0]])
        return []

    def _replace_workers(self, waiting: Job) -> None:
        """Begins a new pool, since one dead worker breaks all, with the jobs that the old one has lost."""
        wait(self._jobs)
        lost = [future for future in self._jobs if isinstance(future.exception(), BrokenProcessPool)]
        while True:
            self._deaths += 1
            if self._deaths >= self.attempts:
                raise RunError(
                    f'workers died {self.attempts} times (killed, out of memory, or unable to start), the last time '
                    f'when {waiting.program} was to be trained; nothing is lost, the same command goes on'
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


def _harvest(jobs: 'dict[Future[Outcome], Job]', done: 'Iterable[Future[Outcome]]') -> list[tuple[Job, Outcome]]:
    """Takes what has ended well out of `jobs`; says what has failed only when there is nothing else to hand over."""
    ended = [(jobs.pop(future), future.result()) for future in done if future.exception() is None]
    for future in () if ended else done:
        error = future.exception()
        reason = ' '.join(f'{type(error).__name__}: {error}'.split())[:300]
        raise RunError(f'the rule {jobs.pop(future).program} could not be trained: {reason}') from error
    return ended


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Ctrl-C reaches the whole group, but the parent decides: processes that start in here never hear of it."""
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


_trainer: Trainer | None = None  # of this worker process


def _start_worker(child: Child, iterations: int) -> None:
    global _trainer
    threading.Thread(target=_die_with_parent, daemon=True).start()
    use_one_cpu_thread()
    _trainer = child.trainer(iterations)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _train(job: Job) -> Outcome:
    assert _trainer is not None
    return _trainer.train(*job)
