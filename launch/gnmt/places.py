"""Where one translator at a time is trained: on all of a machine, or on the workers of a cluster.

Several at a time, one thread each, are the other choice: `nos_tf.evaluation.pool.ProcessPool`.
"""

from collections import deque
from dataclasses import dataclass
from typing import Annotated, Any

import gin
import tensorflow as tf

from gnmt.recipe import Trained
from gnmt.trainer import TranslationSetup
from nos_tf.config import Configured, Count, Incidental
from nos_tf.errors import RunError
from nos_tf.evaluation import machine
from nos_tf.evaluation.cluster.connection import connect, raise_if_lost
from nos_tf.evaluation.jobs import reason
from nos_tf.store.trainings import Training


@gin.register
@dataclass
class OneAtATime(Configured):
    """Trains in this process on all the threads and GPUs that TensorFlow finds, or on a cluster whose chief it is.

    Args:
        on_cluster: have the workers that TF_CONFIG names train, each updating the weights when it is ready.
        start_seconds: to wait for their servers at the beginning.

    Raises:
        ValueError: a value out of range; the message names the binding.
    """

    on_cluster: bool = False
    start_seconds: Annotated[Count, Incidental] = 120

    workers = 1

    def identity(self, setup: TranslationSetup) -> dict[str, Any]:
        """Returns the identity of the setup and of this machine; trainings on a cluster are others than elsewhere."""
        return setup.identity() | machine.identity() | ({'OneAtATime.on_cluster': True} if self.on_cluster else {})

    def start(self, setup: TranslationSetup) -> None:
        """Waits for the servers, if there are any, and loads the data.

        Raises:
            RunError: as `nos_tf.evaluation.cluster.connection.connect`.
        """
        self._queue: deque[Training] = deque()
        coordinator = connect(self.start_seconds)[1] if self.on_cluster else None
        self._trainer = setup.trainer(coordinator=coordinator)

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

    def status(self) -> dict[str, float]:
        """Returns no figures."""
        return {}

    def close(self) -> None:
        """Forgets the queue."""
        self._queue.clear()
