"""Where one translator at a time is trained: on all of a machine, or on the workers of a cluster.

Several at a time, one thread each, are the other choice: `nos_tf.search.evaluators.ProcessPool`.
"""

from collections import deque
from typing import Any

import gin
import tensorflow as tf

from gnmt.recipe import Trained
from gnmt.trainer import Course
from nos_tf.search import RunError
from nos_tf.search.connection import connect, raise_if_lost
from nos_tf.search.jobs import reason
from nos_tf.search.training_run import Training
from nos_tf.tasks import machine
from nos_tf.tasks.checks import check_counts


@gin.register
class OneAtATime:
    """Trains in this process on all the threads and GPUs that TensorFlow finds, or on a cluster whose chief it is.

    Args:
        on_cluster: have the workers that TF_CONFIG names train, each updating the weights when it is ready.
        start_seconds: to wait for their servers at the beginning.

    Raises:
        ValueError: a value out of range; the message names the binding.
    """

    def __init__(self, on_cluster: bool = False, start_seconds: int = 120) -> None:
        if not isinstance(on_cluster, bool):
            raise ValueError(f'OneAtATime.on_cluster = {on_cluster!r}: must be True or False')
        self.on_cluster, self.start_seconds = on_cluster, start_seconds
        check_counts(self, 'start_seconds')
        self._queue: deque[Training] = deque()

    def machine(self) -> dict[str, Any]:
        """As of `nos_tf.search.evaluators.ProcessPool`; trainings on a cluster are others than those of one process."""
        return machine.identity() | ({'OneAtATime.on_cluster': True} if self.on_cluster else {})

    def start(self, course: Course, _: int) -> None:
        """Waits for the servers, if there are any, and loads the data.

        Raises:
            RunError: as `nos_tf.search.connection.connect`.
        """
        coordinator = connect(self.start_seconds)[1] if self.on_cluster else None
        self._trainer = course.trainer(coordinator=coordinator)

    def submit(self, job: Training) -> None:
        """Queues a training."""
        self._queue.append(job)

    def collect(self) -> list[tuple[Training, Trained]]:
        """Trains the next; what a worker was doing when it died is done by another.

        Raises:
            ClusterLostError: the parameter server is gone; there is a checkpoint.
            RunError: TensorFlow cannot do it.
        """
        job = self._queue.popleft()
        try:
            return [(job, self._trainer.train(*job))]
        except tf.errors.OpError as error:
            raise_if_lost(error)
            raise RunError(f'{job.contender} at {job.rate:g} cannot be trained: {reason(error)}') from error

    def close(self) -> None:
        """Forgets the queue."""
        self._queue.clear()
