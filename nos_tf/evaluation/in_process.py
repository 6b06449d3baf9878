"""Training in the process of the search itself."""

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Annotated, Any

import gin
import keras

from nos_tf import output
from nos_tf.config import Configured, Count, Incidental
from nos_tf.errors import RunError
from nos_tf.evaluation import machine
from nos_tf.evaluation.jobs import Patience, Setup, reason
from nos_tf.evaluation.machine import use_one_cpu_thread

Jobs = dict[Future[Any], Any]  # jobs are of whatever kind the trainer takes: `Job` in a search


class OnThisMachine(Configured):
    """The evaluators that train on this machine, and as a rule on one thread."""

    def identity(self, setup: Setup) -> dict[str, Any]:
        """Returns the identity of the setup and of this machine, at one thread."""
        return setup.identity() | machine.identity() | {'intra_op threads': 1}

    def status(self) -> dict[str, float]:
        """Returns no figures: workers that die are replaced at once."""
        return {}


@gin.register
@dataclass
class InProcess(OnThisMachine):
    """Trains in the process of the controller, one job after the other; for debugging, notebooks and a single core.

    It takes one thread, or those that TensorFlow has if it has started already; rewards are then of so many threads,
    which the identity says.

    Args:
        attempts: how often a job may run out of memory, with no other finished in between, before the search gives up.
    """

    attempts: Annotated[Count, Incidental] = 3

    workers = 1

    def identity(self, setup: Setup) -> dict[str, Any]:
        """Returns the identity of the setup and of this machine, at the threads that this process has."""
        use_one_cpu_thread(required=False)
        return setup.identity() | machine.identity()

    def start(self, setup: Setup) -> None:
        """Builds the trainer."""
        self._patience = Patience(self.attempts)
        use_one_cpu_thread(required=False)
        self._trainer = setup.trainer()
        policy = keras.config.dtype_policy()  # which Keras keeps for each thread
        # A thread, so that Ctrl-C need not wait for the end of a child.
        self._thread = ThreadPoolExecutor(1, initializer=keras.config.set_dtype_policy, initargs=(policy,))
        self._jobs: Jobs = {}

    def submit(self, job: Any) -> None:
        """Queues the job."""
        self._jobs[self._thread.submit(self._trainer.train, *job)] = job

    def collect(self) -> list[tuple[Any, Any]]:
        """Waits for the job that is being trained; one that had too little memory is trained again."""
        while self._jobs:
            done = wait(self._jobs, return_when=FIRST_COMPLETED).done
            if ended := harvest(self._jobs, done):
                self._patience.failures.clear()
                return ended
            try_again(self._jobs, done, self.submit, self._patience)
        return []

    def close(self) -> None:
        """Forgets the queue."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def harvest(jobs: Jobs, done: Iterable[Future]) -> list[tuple[Any, Any]]:
    """Takes what has ended well out of `jobs`; if there is nothing, says what has failed but for want of memory."""
    ended = [(jobs.pop(future), future.result()) for future in done if future.exception() is None]
    for future in () if ended else done:
        error = future.exception()
        if not isinstance(error, MemoryError):
            raise RunError(f'{jobs.pop(future)} could not be trained: {reason(error)}') from error
    return ended


def try_again(jobs: Jobs, done: Iterable[Future], submit: Callable[[Any], None], patience: Patience) -> None:
    """Submits again what had too little memory, and says so: another process may have taken it for a while."""
    for future in done:
        job, why = jobs.pop(future), reason(future.exception())
        patience.fail(f'{job} could not be trained, {patience.attempts} times over: {why}', job)
        output.warn(f'{job} is trained again: {why}')
        submit(job)
