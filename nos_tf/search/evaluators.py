"""Where children train: in this process, or in a pool of local processes, behind one interface.

Whichever it is, an evaluating process computes on one thread, so that a rule earns the same reward in all of them.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import gin

from nos_tf.dsl.rule import UpdateRule
from nos_tf.search import RunError
from nos_tf.tasks.child import Child, Outcome, Trainer
from nos_tf.tasks.machine import use_one_thread


class Job(NamedTuple):
    """A training to be done."""

    program: UpdateRule  # canonical
    seed: int


class Evaluator(Protocol):
    """Trains children; any number may be under way."""

    workers: int

    def start(self, child: Child, iterations: int) -> None:
        """Gets ready to train rules of at most so many iterations."""

    def submit(self, job: Job) -> None:
        """Adds a job to the queue."""

    def collect(self) -> list[tuple[Job, Outcome]]:
        """Waits for at least one job to end; returns those that have. Each job is returned once.

        Raises:
            RunError: a job cannot be done; the message says why.
        """

    def close(self) -> None:
        """Drops what is queued and ends what runs."""


@gin.register
@dataclass
class InProcess:
    """Trains in the process of the controller, one job after the other; for debugging, and for a single core."""

    workers = 1

    def start(self, child: Child, iterations: int) -> None:
        """Builds the trainer."""
        use_one_thread()
        self._trainer = child.trainer(iterations)
        self._thread = ThreadPoolExecutor(1)  # so that Ctrl-C need not wait for the end of a child
        self._jobs: dict[Future[Outcome], Job] = {}

    def submit(self, job: Job) -> None:
        """Queues the job."""
        self._jobs[self._thread.submit(self._trainer.train, *job)] = job

    def collect(self) -> list[tuple[Job, Outcome]]:
        """Waits for the job that is being trained."""
        done = wait(self._jobs, return_when=FIRST_COMPLETED).done
        return [(job, _result(future, job)) for future in done for job in [self._jobs.pop(future)]]

    def close(self) -> None:
        """Forgets the queue."""
        self._thread.shutdown(wait=False, cancel_futures=True)


@gin.register
@dataclass
class ProcessPool:
    """Trains in local processes, one thread each; replaces those that die.

    Args:
        workers: number of processes; None means one for each core.
        attempts: how often a job may lose its worker before the search gives up.
    """

    workers: int | None = None
    attempts: int = 3

    def __post_init__(self) -> None:
        if self.workers is None:
            self.workers = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
        for name in ('workers', 'attempts'):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f'ProcessPool.{name} = {getattr(self, name)!r}: must be a whole number, at least 1')

    def start(self, child: Child, iterations: int) -> None:
        """Gets ready to start processes; they import TensorFlow and trace their graph with the first job."""
        child.trainer(iterations)  # what is wrong with it is said here, once
        self._arguments = (child, iterations)
        self._jobs: dict[Future[Outcome], tuple[Job, int]] = {}
        self._open()

    def _open(self) -> None:
        self._pool = ProcessPoolExecutor(
            self.workers, multiprocessing.get_context('spawn'), initializer=_start_worker, initargs=self._arguments
        )

    def submit(self, job: Job) -> None:
        """Queues the job for the next idle worker."""
        self._submit(job, 1)

    def _submit(self, job: Job, attempt: int) -> None:
        try:
            future = self._start_job(job)
        except BrokenProcessPool:  # a worker died before this job came
            self._replace_workers()
            future = self._start_job(job)
        self._jobs[future] = job, attempt

    def _start_job(self, job: Job) -> Future[Outcome]:
        with _deaf_to_interrupts():
            return self._pool.submit(_train, job)

    def collect(self) -> list[tuple[Job, Outcome]]:
        """Waits for workers; a job whose worker died goes to another one."""
        while True:
            done = wait(self._jobs, return_when=FIRST_COMPLETED).done
            if any(isinstance(future.exception(), BrokenProcessPool) for future in done):
                done = self._replace_workers()
            ended = [(job, _result(future, job)) for future in done for job, _ in [self._jobs.pop(future)]]
            if ended:
                return ended

    def _replace_workers(self) -> set[Future[Outcome]]:
        """Begins a new pool, since one dead worker breaks all; returns the futures that had ended before."""
        wait(self._jobs)
        lost = {f: entry for f, entry in self._jobs.items() if isinstance(f.exception(), BrokenProcessPool)}
        for job, attempt in lost.values():
            if attempt >= self.attempts:
                raise RunError(
                    f'workers died {self.attempts} times (killed, out of memory, or unable to start), the last time '
                    f'when {job.program} was to be trained; nothing is lost, the same command goes on'
                )
        self._pool.shutdown(wait=False)
        self._open()
        for future in lost:
            del self._jobs[future]
        for job, attempt in lost.values():
            self._submit(job, attempt + 1)
        return {future for future in self._jobs if future.done()}

    def close(self) -> None:
        """Ends all workers at once: what they were training is trained again after a restart."""
        processes = list((getattr(self._pool, '_processes', None) or {}).values())
        for process in processes:
            process.kill()
        self._pool.shutdown()
        del self._pool  # and its semaphores, which would be reported as leaked
        self._jobs.clear()


def _result(future: 'Future[Outcome]', job: Job) -> Outcome:
    error = future.exception()
    if error is None:
        return future.result()
    reason = ' '.join(f'{type(error).__name__}: {error}'.split())[:300]
    raise RunError(f'the rule {job.program} could not be trained: {reason}') from error


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
    use_one_thread()
    _trainer = child.trainer(iterations)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _train(job: Job) -> Outcome:
    assert _trainer is not None
    return _trainer.train(*job)
