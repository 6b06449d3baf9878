"""Workers that do not exist: they take as long as real ones would, by a clock that does not make anybody wait.

The search, its queue, its store and its learner are the real ones. What they spend of real time passes for the workers
too, and when there is nothing left to do but wait, the clock jumps to the next event.
"""

import heapq
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nos_tf.evaluation.jobs import Job
from nos_tf.evaluation.table import RewardTable, Table
from nos_tf.tasks.child import ChildSetup, Outcome

HICCUP = 0.999  # quantile of the measured times above which the machine was asleep, and no child slow


class Training(NamedTuple):
    """How one attempt at a child goes."""

    seconds: float  # if nothing happens to the worker
    fails: bool


@dataclass(frozen=True)
class Times:
    """Draws how long trainings take: measured times, scaled and made heavy-tailed.

    seconds = mean * measured / mean(measured) * exp(spread * n - spread^2 / 2) * s / mean(s), n ~ N(0, 1) and s is
    `slowdown` for the share of stragglers, 1 otherwise.

    Args:
        measured: seconds of real children, in any order.
        mean: seconds, of what is drawn.
        spread: standard deviation of the logarithm of the factor.
        stragglers: share of the trainings.
        slowdown: of those.
        failures: share of the trainings whose worker is lost half way.
        seed: of all draws.
    """

    measured: np.ndarray
    mean: float = 300.0
    spread: float = 0.5
    stragglers: float = 0.02
    slowdown: float = 5.0
    failures: float = 0.01
    seed: int = 0

    @classmethod
    def of_table(cls, table: RewardTable, **how: float) -> 'Times':
        """The times that the children of a table took, but for the longest thousandth."""
        seconds = table.first.seconds[table.first.right >= 0].astype(np.float64)
        return cls(seconds[seconds <= np.quantile(seconds, HICCUP)], **how)  # type: ignore[arg-type]

    def draw(self, job: Job, attempt: int) -> Training:
        """How an attempt at a job goes: a pure function of both, and of the seed."""
        name = zlib.crc32(' '.join(job.program.tokens).encode())
        random = np.random.default_rng([self.seed, name, job.seed, attempt])
        seconds = self.mean * random.choice(self.measured) / self.measured.mean()
        seconds *= np.exp(self.spread * random.standard_normal() - self.spread**2 / 2)
        slow = self.slowdown if random.random() < self.stragglers else 1.0
        seconds *= slow / (1 + self.stragglers * (self.slowdown - 1))
        return Training(float(seconds), bool(random.random() < self.failures))


class Moment(NamedTuple):
    """The state of the crew at a time: seconds by the virtual clock, and sums over all workers up to then."""

    now: float
    busy: float  # seconds that workers have trained
    lost: float  # of those, for nothing: the worker failed


NEVER = Moment(0.0, 0.0, 0.0)


class VirtualWorkers:
    """An evaluator that looks outcomes up, and hands them out when a worker would have been done.

    A job begins when a worker is idle; one whose worker fails is the next to begin. `status`, which a search asks for
    once after each batch, notes the time.

    Args:
        table: knows the outcomes.
        times: says how long they take.
        workers: how many.
        away: seconds that a worker which failed is missing.
        clock: of the search's own time, in seconds.
    """

    def __init__(
        self,
        table: Table,
        times: Times,
        workers: int,
        *,
        away: float = 60.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.workers: int | None = workers
        self._table, self._times, self._away, self._clock = table, times, away, clock
        self._idle = self._crew = workers
        self._now = self._busy = self._lost = 0.0
        self._events: list[tuple[float, int, Job | None, bool]] = []  # time, number, job (None: a worker is back), ends
        self._attempts: Counter[Job] = Counter()
        self._waiting: deque[Job] = deque()
        self._ended: list[Job] = []
        self._training = self._number = self._submitted = 0
        self._left = clock()  # when the search was last given the word
        self.batches: list[float] = []  # when each batch had been learned from, in virtual seconds
        self.manned: Moment | None = None  # when as many jobs were there as workers
        self.last: Moment | None = None  # when the last job was submitted
        self.thinking = 0.0  # seconds that the search itself has taken

    @property
    def moment(self) -> Moment:
        """The present state."""
        return Moment(self._now, self._busy, self._lost)

    def identity(self, setup: ChildSetup) -> dict[str, Any]:
        """That of the table: when an outcome comes does not change it."""
        return self._table.identity(setup)

    def start(self, setup: ChildSetup) -> None:
        """Reads the table; the clock begins."""
        self._table.start(setup)
        self._left = self._clock()

    def submit(self, job: Job) -> None:
        """Gives the job to an idle worker, or lets it wait for one."""
        self._catch_up()
        self._waiting.append(job)
        self._begin()
        self._submitted += 1
        self.last = self.moment
        if self._submitted == self._crew:
            self.manned = self.moment
        self._left = self._clock()

    def collect(self) -> list[tuple[Job, Outcome]]:
        """Jumps to the next time that a job ends, if none has meanwhile."""
        self._catch_up()
        while not self._ended and self._events:
            self._pass_until(self._events[0][0])
        ended, self._ended = self._ended, []
        for job in ended:
            self._table.submit(job)
        outcomes = self._table.collect()
        self._left = self._clock()
        return outcomes

    def status(self) -> dict[str, float]:
        """The virtual hours; they are also noted in `batches`."""
        self._catch_up()
        self.batches.append(self._now)
        self._left = self._clock()
        return {'virtual_hours': self._now / 3600}

    def close(self) -> None:
        """There is nothing to end."""

    def utilisation(self, begin: Moment, end: Moment) -> float:
        """The share of the time between two moments that workers trained."""
        return (end.busy - begin.busy) / max(self._crew * (end.now - begin.now), 1e-9)

    def _catch_up(self) -> None:
        """Lets the time pass that the search has taken for itself."""
        seconds = self._clock() - self._left
        self.thinking += seconds
        self._pass_until(self._now + seconds)

    def _pass_until(self, then: float) -> None:
        """Moves the clock on, and does what is due on the way."""
        while self._events and self._events[0][0] <= then:
            due, _, job, ends = heapq.heappop(self._events)
            self._move(due)
            if job is None:
                self._idle += 1
            else:
                self._leave(job, ends)
            self._begin()
        self._move(then)

    def _move(self, then: float) -> None:
        self._busy += self._training * (then - self._now)
        self._now = then

    def _leave(self, job: Job, ends: bool) -> None:
        """A worker stops training."""
        self._training -= 1
        if ends:
            self._idle += 1
            self._ended.append(job)
            return
        self._lost += self._times.draw(job, self._attempts[job]).seconds / 2
        self._attempts[job] += 1
        self._waiting.appendleft(job)
        self._schedule(self._away, None, ends=False)

    def _begin(self) -> None:
        """Gives idle workers what waits."""
        while self._idle and self._waiting:
            job = self._waiting.popleft()
            seconds, fails = self._times.draw(job, self._attempts[job])
            self._idle -= 1
            self._training += 1
            self._schedule(seconds / 2 if fails else seconds, job, ends=not fails)

    def _schedule(self, seconds: float, job: Job | None, *, ends: bool) -> None:
        self._number += 1
        heapq.heappush(self._events, (self._now + seconds, self._number, job, ends))
