"""Training in a pool of local processes, one thread each, so that a rule earns the same reward in all of them."""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, NoReturn

import gin

from nos_tf.config import Count, Incidental
from nos_tf.evaluation import machine
from nos_tf.evaluation.in_process import Jobs, OnThisMachine, harvest, try_again
from nos_tf.evaluation.jobs import Patience, Setup
from nos_tf.evaluation.machine import use_one_cpu_thread
from nos_tf.evaluation.spawning import pack, unpack, without_main


@gin.register
@dataclass
class ProcessPool(OnThisMachine):
    """Trains in local processes, one thread each; replaces those that die.

    Args:
        workers: number of processes; None means one for each core.
        attempts: how often workers may die, or a job run out of memory, with no job finished in between, before the
            search gives up.
    """

    workers: Annotated[Count | None, Incidental] = None
    attempts: Annotated[Count, Incidental] = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.workers is None:
            self.workers = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1

    def start(self, setup: Setup) -> None:
        """Gets ready to start processes; they import TensorFlow and trace their graph with the first job."""
        setup.trainer()  # what is wrong with it is said here, once
        self._packed = pack(setup)
        self._jobs: Jobs = {}
        self._patience = Patience(self.attempts)
        self._open()

    def _open(self) -> None:
        self._pool = ProcessPoolExecutor(
            self.workers,
            multiprocessing.get_context('spawn'),
            initializer=exec,  # which a worker has before it has imported anything
            initargs=(_BEGIN, {'packed': self._packed, 'settings': machine.settings()}),
        )

    def submit(self, job: Any) -> None:
        """Queues the job for the next idle worker."""
        try:
            self._submit(job)
        except BrokenProcessPool:  # a worker died before this job came
            self._replace_workers(job)
            self._submit(job)

    def _submit(self, job: Any) -> None:
        with _deaf_to_interrupts(), without_main():
            self._jobs[self._pool.submit(_train, job)] = job

    def collect(self) -> list[tuple[Any, Any]]:
        """Waits for workers; a job whose worker died, or had too little memory, is trained again."""
        while self._jobs:
            done = wait(self._jobs, return_when=FIRST_COMPLETED).done
            broken = [future for future in done if isinstance(future.exception(), BrokenProcessPool)]
            if ended := harvest(self._jobs, done.difference(broken)):
                self._patience.failures.clear()
                return ended
            if broken:
                self._replace_workers(self._jobs[broken[0]])
            else:
                try_again(self._jobs, done, self.submit, self._patience)
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


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Ctrl-C reaches the whole group, but the parent decides: processes that start in here never hear of it."""
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


_BEGIN = """
import os
from contextlib import ExitStack, suppress

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')  # XLA tells of each start
with ExitStack() as stack:
    with suppress(OSError):  # standard error may be closed; what TensorFlow's import prints heeds no log level
        stack.callback(os.dup2, os.dup(2), 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    from nos_tf.evaluation.pool import _start_worker
_start_worker(packed, settings)
"""

_trainer: Any  # of this worker process


class _CannotStart(NamedTuple):
    """Stands for the trainer of a worker that has none, and says why to whoever gives it a job."""

    error: Exception

    def train(self, *_: Any) -> NoReturn:
        raise self.error


def _start_worker(packed: bytes, settings: Mapping[str, Any]) -> None:
    global _trainer
    threading.Thread(target=_die_with_parent, daemon=True).start()
    logging.getLogger('tensorflow').setLevel(logging.ERROR)  # it takes the graphs of several tasks for one
    try:
        use_one_cpu_thread()
        machine.adopt(settings)  # before anything is made that may read them
        _trainer = unpack(packed).trainer()
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
