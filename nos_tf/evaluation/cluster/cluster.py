"""Children on the workers of a cluster, any of which may die (Section 3.3).

The closure queue of TensorFlow's ClusterCoordinator is the paper's global queue: whichever worker is idle takes the
next child. What a worker was training when it died goes to another; since a training depends on nothing but rule, seed
and task, doing it twice does no harm, and the first outcome counts. A closure never raises: divergence is a reward, and
a worker that must not train, or a rule that ends every worker it comes to, are values too, for one error would throw
away all that is queued.

Only the parameter server cannot be done without: when it is gone, so is the cluster, and the search goes on from what
is on file as soon as there is a new one.
"""

import functools
import json
import queue
import threading
import time
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

import gin
import numpy as np
import tensorflow as tf

from nos_tf import output
from nos_tf.config import Configured, Count, Incidental, Positive, differences
from nos_tf.errors import RunError
from nos_tf.evaluation import machine
from nos_tf.evaluation.cluster import notes
from nos_tf.evaluation.cluster.connection import UNREACHABLE, connect, is_listening, raise_if_lost
from nos_tf.evaluation.cluster.keepalive import keep_alive
from nos_tf.evaluation.jobs import Job, Patience, reason
from nos_tf.tasks.child import QUARANTINED, ChildSetup, Outcome

SLOTS = 2**20  # counters of tries on the parameter server; they are used in turn
TRAINS, IS_REFUSED, IS_QUARANTINED = range(3)  # what a closure says
AGAIN = (*UNREACHABLE, tf.errors.CancelledError, tf.errors.ResourceExhaustedError)

_held: list[Any] = []  # coordinators that have done their work


class _Answer(NamedTuple):
    """The result of a closure."""

    verdict: Any  # int32 []
    worker: Any  # int64 []
    identity: Any  # string [], of the worker's machine; '' if its server left none
    reward: Any
    rate: Any
    sweep: Any
    seconds: Any  # float64 [], of the training, by the clock of the worker


@gin.register
@dataclass
class Cluster(Configured):
    """Trains on the workers that TF_CONFIG names; this process is the chief.

    Args:
        child_seconds: that one child may take; a worker whose child takes longer ends, and the child is tried again.
        attempts: how often a rule may be begun; one whose workers all died earns the reward of chance untrained. As
            many failures of one job that are not its workers' deaths, with none finished in between, end the search.
        start_seconds: to wait for the servers at the beginning.
        allow_mixed: let workers train whose kind of CPU, threads or versions are not those of this process; the same
            rule may then earn another reward on another worker.
    """

    child_seconds: Annotated[Positive, Incidental] = 3600.0
    attempts: Annotated[Count, Incidental] = 5
    start_seconds: Annotated[Positive, Incidental] = 120.0
    allow_mixed: bool = False
    workers: Annotated[int | None, Incidental] = field(default=None, init=False)

    def identity(self, setup: ChildSetup) -> dict[str, Any]:
        """Returns the identity of the setup and of this machine, and that workers may differ, if they may."""
        return setup.identity() | machine.identity() | ({'Cluster.allow_mixed': True} if self.allow_mixed else {})

    def start(self, setup: ChildSetup) -> None:
        """Waits for the servers, and sends them the data.

        Raises:
            RunError: TF_CONFIG is unfit, this is not its chief, or a server does not answer; the message names it.
        """
        config, self._coordinator = connect(self.start_seconds)
        self._addresses, self.workers = config.workers, len(config.workers)
        self._trainer = setup.trainer()  # not before: to connect renames the device that its tensors are on
        if not hasattr(self._trainer, 'task'):
            raise RunError(
                'Search.evaluator = @Cluster(): the workers of a cluster have one graph, of one task: train a suite by '
                '@ProcessPool()'
            )
        if getattr(self._trainer.task, 'is_local', False):
            raise RunError(
                'Search.evaluator = @Cluster(): the workers of a cluster are sent the data, and cannot call a function '
                'for them: give KerasTask.train arrays or a dataset, or train by @ProcessPool()'
            )
        with self._coordinator.strategy.scope():
            self._tries = tf.Variable(tf.zeros([SLOTS], tf.int32), trainable=False)
        data = self._coordinator.create_per_worker_dataset(
            lambda: tf.data.Dataset.from_tensors(self._trainer.data).repeat()
        )
        self._data = iter(data)
        self._closure = tf.function(self._train, autograph=False)
        self._under_way: dict[Job, float] = {}  # and when to send another to do it as well
        self._answers: queue.SimpleQueue[tuple[Job, _Answer | Exception]] = queue.SimpleQueue()
        self._slots: dict[Job, int] = {}  # of the counters
        self._submitted = 0
        self._patience = Patience(self.attempts)
        self._watch = _Watch(config.workers)

    def _train(self, token_ids: tf.Tensor, seed: tf.Tensor, slot: tf.Tensor, start: Any, data: Any) -> _Answer:
        """The closure: all of it is a graph that a worker runs, but for what it counts on the parameter server."""
        worker = tf.distribute.coordinator.experimental_get_current_worker_index()
        identity = _read(tf.gather([str(notes.identity_path(address)) for address in self._addresses], worker))
        fits = tf.equal(identity, notes.identity_text(machine.identity())) | self.allow_mixed
        self._tries.scatter_add(tf.IndexedSlices(tf.ones([1], tf.int32), slot[None]))
        is_worth_it = tf.gather(self._tries, slot) <= self.attempts
        verdict = tf.where(fits, tf.where(is_worth_it, TRAINS, IS_QUARANTINED), IS_REFUSED)
        deadline = tf.gather([str(notes.deadline_path(address)) for address in self._addresses], worker)
        train = functools.partial(self._timed, (token_ids, seed, start, next(data)), deadline)
        none = tf.zeros([self._trainer.measures])
        values = tf.cond(
            tf.equal(verdict, TRAINS),
            train,
            lambda: (tf.constant(0.0), tf.constant(0), none, tf.constant(0.0, tf.float64)),
        )
        return _Answer(verdict, worker, identity, *values)

    def _timed(self, inputs: tuple, deadline: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Trains between two notes to the worker's watchdog; returns the values of the graph, and seconds."""
        begin = tf.timestamp()
        limit = tf.strings.as_string(begin + self.child_seconds, precision=3)
        with tf.control_dependencies([tf.io.write_file(deadline, limit + notes.END)]):
            inputs = tf.nest.map_structure(tf.identity, inputs)  # nothing begins before the note
        values = self._trainer.graph(*inputs)
        with tf.control_dependencies([tf.identity(value) for value in values]):  # of a call, an edge would not wait
            seconds = tf.timestamp() - begin
        with tf.control_dependencies([seconds]), tf.control_dependencies([tf.io.write_file(deadline, '')]):
            return *map(tf.identity, values), seconds

    def submit(self, job: Job) -> None:
        """Queues the job for the next idle worker."""
        # The children before it take their time; what has not come back by then is with a worker that is out of reach.
        rounds = 2 + len(self._under_way) // len(self._addresses)
        self._under_way[job] = time.monotonic() + rounds * self.child_seconds
        self._slots[job] = self._submitted % SLOTS
        self._submitted += 1
        self._send(job)

    def _send(self, job: Job) -> None:
        values = [self._trainer.ids_of(job.program), job.seed, self._slots[job]]
        tensors = (tf.constant(value, tf.int32) for value in values)
        arguments = (*tensors, self._trainer.start(job.seed), self._data)
        while True:
            try:
                remote = self._coordinator.schedule(self._closure, args=arguments)
                break
            except tf.errors.OpError as error:  # of an earlier closure, which `collect` hears of by itself
                raise_if_lost(error)
        threading.Thread(target=self._fetch, args=(job, remote), daemon=True).start()

    def _fetch(self, job: Job, remote: Any) -> None:
        try:
            self._answers.put((job, remote.fetch()))
        except Exception as error:  # whatever it is, `collect` has to hear of it
            self._answers.put((job, error))

    def collect(self) -> list[tuple[Job, Outcome]]:
        """Waits for workers; a job whose worker does not answer is given to another as well."""
        ended: list[tuple[Job, Outcome]] = []
        while self._under_way and (not ended or not self._answers.empty()):
            wait = max(0.0, min(self._under_way.values()) - time.monotonic())
            try:
                job, answer = self._answers.get(timeout=min(wait, threading.TIMEOUT_MAX))
            except queue.Empty:
                self._send_again()
                continue
            if job not in self._under_way:  # another worker was quicker
                continue
            outcome = self._outcome(job, answer)
            if outcome is not None:
                del self._under_way[job], self._slots[job]
                ended.append((job, outcome))
        return ended

    def _send_again(self) -> None:
        now = time.monotonic()
        for job, due in self._under_way.items():
            if due <= now:
                self._under_way[job] = now + 2 * self.child_seconds
                output.warn(f'{job} is given to another worker as well: it is overdue')
                self._send(job)

    def _outcome(self, job: Job, answer: _Answer | Exception) -> Outcome | None:
        """Returns the outcome of a job; None if it has to be done again."""
        if isinstance(answer, Exception):
            self._try_again(job, answer)
            return None
        answer = _Answer(*map(np.asarray, answer))
        if answer.verdict == IS_REFUSED:
            raise RunError(_refusal(self._addresses[int(answer.worker)], answer.identity.item().decode()))
        self._patience.failures.clear()
        if answer.verdict == IS_QUARANTINED:
            died = f'its workers died {self.attempts} times'
            if self._trainer.chance is None:
                raise RunError(f'{job} cannot be trained: {died}, and the task has no reward for that')
            return Outcome.untrained(self._trainer.chance, QUARANTINED + died)
        return self._trainer.outcome(job.program, answer.reward, answer.rate, answer.sweep, float(answer.seconds))

    def _try_again(self, job: Job, error: Exception) -> None:
        """Sends a job again that was thrown away with another's error, had too little memory, or lost its worker."""
        raise_if_lost(error)
        if not isinstance(error, AGAIN):
            raise RunError(f'{job} could not be trained: {reason(error)}') from error
        self._patience.fail(f'{job} could not be trained, {self.attempts} times: {reason(error)}', job)
        self._send(job)

    def status(self) -> dict[str, float]:
        """Workers that answer, and how often one came back."""
        return {'alive': float(self._watch.alive), 'restarts': float(self._watch.restarts)}

    def close(self) -> None:
        """Leaves the cluster; what is queued there is forgotten, and ends with this process."""
        self._watch.stop()
        self._under_way.clear()
        _held.append(self._coordinator)  # to let go of it would wait for workers that are out of reach


def _read(path: tf.Tensor) -> tf.Tensor:
    """The content of a file, '' if there is none."""
    exists = tf.size(tf.io.matching_files(path)) > 0
    return tf.cond(exists, lambda: tf.io.read_file(path), lambda: tf.constant(''))


def _refusal(address: str, identity: str) -> str:
    """Why a worker cannot train for this search."""
    if not identity:
        return f'the worker {address} was not started by launch/server.py, or its notes in {notes.ROOT} were removed'
    here = json.loads(notes.identity_text(machine.identity()))
    return (
        f'the worker {address} would train otherwise than this process: {differences(json.loads(identity), here)}. '
        'Make them the same, or set Cluster.allow_mixed = True'
    )


class _Watch:
    """Looks once a second which workers answer, for people to see, and after the connections to them."""

    def __init__(self, addresses: tuple[str, ...]) -> None:
        self.alive, self.restarts = len(addresses), 0
        self._state = dict.fromkeys(addresses, True)
        self._stopped = threading.Event()
        threading.Thread(target=self._look, name='watch', daemon=True).start()

    def _look(self) -> None:
        seen: dict[str, str] = {}
        while not self._stopped.wait(1.0):
            keep_alive(seen)
            for address, was_alive in self._state.items():
                self._state[address] = is_alive = is_listening(address)
                self.restarts += is_alive and not was_alive
            self.alive = sum(self._state.values())

    def stop(self) -> None:
        """Ends the thread."""
        self._stopped.set()
