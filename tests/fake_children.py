"""Children that a worker process trains at once, and that misbehave where their seed says so."""

import fcntl
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

from nos_tf.dsl.rule import UpdateRule
from nos_tf.evaluation.jobs import Job
from nos_tf.tasks.child import Outcome

DIES_ONCE, DIES, RAISES, SLEEPS, HABITS, STARVES_ONCE, STARVES = range(1001, 1008)  # seeds; any other trains


@dataclass(frozen=True)
class FakeSetup:
    """Notes of its trainings are kept in a folder."""

    folder: Path

    def identity(self):
        return {'folder': str(self.folder)}

    def trainer(self):
        return FakeTrainer(self.folder)


class FakeTrainer:
    def __init__(self, folder):
        self.folder, self.alive = folder, None

    def train(self, rule, seed):
        if self.alive is None:
            self.alive = open(self.folder / f'worker-{os.getpid()}', 'w')  # noqa: SIM115 - the process holds it
            fcntl.flock(self.alive, fcntl.LOCK_EX)
        with open(self.folder / f'trainings-{seed}', 'a') as notes:
            notes.write('x')
        attempt = trainings(self.folder, seed)
        if seed == DIES or (seed == DIES_ONCE and attempt == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if seed == RAISES:
            raise ZeroDivisionError('no\nluck')
        if seed == STARVES or (seed == STARVES_ONCE and attempt == 1):
            raise MemoryError('no room for a batch of 100')
        if seed == SLEEPS:
            time.sleep(60)  # longer than any test waits
        if seed == HABITS:
            deaf = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])
            threads = tf.config.threading.get_intra_op_parallelism_threads()
            return Outcome(threads, keras.config.epsilon(), (float(deaf),), 0.0)
        return Outcome(seed / 100, 0.1, (0.0, seed / 100), 0.0)


def job(seed, rule='g'):
    return Job(UpdateRule.parse(rule).canonical(), seed)


def collect_all(evaluator, count):
    """As many results as asked for, in the order in which they come."""
    results = []
    while len(results) < count:
        ended = evaluator.collect()
        assert ended
        results += ended
    return results


def trainings(folder, seed):
    """How often a seed began to train."""
    path = folder / f'trainings-{seed}'
    return len(path.read_text()) if path.exists() else 0


def workers_alive(folder):
    """How many of the processes that ever trained here are still there; a lock dies with its process, if killed too."""
    count = 0
    for path in folder.glob('worker-*'):
        with open(path) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                count += 1
    return count


def wait_until(condition, seconds=30):
    """Waits for something to come true; says whether it did."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
