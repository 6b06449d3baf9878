"""An evaluator that does as it is told, for tests of what stands before it."""

from nos_tf.dsl.rule import UpdateRule
from nos_tf.errors import RunError
from nos_tf.tasks.child import Outcome

G, M = (UpdateRule.parse(name).canonical() for name in 'gm')


class Scripted:
    """Ends jobs in the reverse order, with .5 for G and .25 for others; fails where it is told to."""

    workers = 1

    def __init__(self, fail_on=(), seconds=0.0):
        self.fail_on, self.seconds, self.asked, self.closed = fail_on, seconds, [], 0

    def identity(self, setup):
        return setup.identity()

    def start(self, setup):
        self.queue = []

    def submit(self, job):
        self.asked.append(job)
        self.queue.append(job)

    def collect(self):
        if not self.queue:
            return []
        job = self.queue.pop()
        if job.program in self.fail_on:
            raise RunError('no such luck')
        return [(job, Outcome(0.5 if job.program == G else 0.25, 0.1, (0.5,), self.seconds))]

    def status(self):
        return {}

    def close(self):
        self.closed += 1
