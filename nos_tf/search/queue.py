"""The queue of trainings (Section 3.3): rules go in, outcomes are on file when they come out, in any order.

Nothing is trained twice: not what is on file, not what is under way, and, where that is wished, not what an equal
function has shown already or what cannot train.
"""

import math
import time

from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.screening import why_untrainable
from nos_tf.search import RunError
from nos_tf.search.jobs import Evaluator, Job
from nos_tf.search.schema import MERGED, REJECTED
from nos_tf.search.store import Result, Store
from nos_tf.tasks.child import Child, Outcome


class Queue:
    """Jobs between a search and its evaluator.

    Args:
        store: files the outcomes.
        evaluator: has been started.
        child: turns a rule into a reward.
        reject_untrainable: give rules that cannot train the reward of chance.
        merge_equal_functions: give a program the outcome of one that computes the same function.
    """

    def __init__(
        self,
        store: Store,
        evaluator: Evaluator,
        child: Child,
        *,
        reject_untrainable: bool = False,
        merge_equal_functions: bool = False,
    ) -> None:
        self._store, self._evaluator, self._child = store, evaluator, child
        self._reject, self._merge = reject_untrainable, merge_equal_functions
        self._running: dict[Job, str | None] = {}  # and the function of each, where functions are merged
        self._busy, self._start = 0.0, time.monotonic()
        self._followers: dict[Job, list[Job]] = {}  # what waits for the outcome of a running job of its function

    @property
    def running(self) -> int:
        """How many jobs the evaluator has."""
        return len(self._running)

    def status(self) -> dict[str, float]:
        """Utilisation, the share of their time that workers have trained; queue, jobs that wait for a worker."""
        workers = self._evaluator.workers or 1
        seconds = max(time.monotonic() - self._start, 1e-9)
        return {
            'utilisation': min(1.0, self._busy / (workers * seconds)),
            'queue': float(max(0, self.running - workers)),
        }

    def put(self, job: Job, *, by_name: bool = False) -> bool:
        """Sees to it that a job gets an outcome.

        Args:
            job: may be under way already.
            by_name: this very program is to be trained.

        Returns:
            whether there is an outcome already.
        """
        if self.outcome(job) is not None:
            return True
        if job in self._running or any(job in waiting for waiting in self._followers.values()):
            return False
        if self._reject and not by_name and self._is_rejected(job):
            return True
        function = self._function(job.program) if self._merge and not by_name else None
        if function is not None and self._take_over(job, function):
            return True
        leader = function and next((j for j, f in self._running.items() if f == function and j.seed == job.seed), None)
        if leader:
            self._followers.setdefault(leader, []).append(job)
        else:
            self._evaluator.submit(job)
            self._running[job] = function
        return False

    def wait(self) -> dict[Job, Outcome]:
        """Waits for at least one job to end, if any is under way; what is returned is on file."""
        outcomes = dict(self._evaluator.collect())
        self._busy += sum(outcome.seconds for outcome in outcomes.values())
        self._store.save_outcomes(
            Result(*job, outcome, self._evaluator.origin(job), self._function(job.program))
            for job, outcome in outcomes.items()
        )
        for job in list(outcomes):
            function = self._running.pop(job) or ''  # that of its followers, if there are any
            for follower in self._followers.pop(job, ()):
                self._take_over(follower, function)
                outcomes[follower] = self.known(follower)
        return outcomes

    def outcome(self, job: Job) -> Outcome | None:
        """The outcome of a job, if it is on file."""
        return self._store.outcome(*job)

    def known(self, job: Job) -> Outcome:
        """The outcome of a job that has ended.

        Raises:
            RunError: the file has lost it.
        """
        outcome = self.outcome(job)
        if outcome is None:
            raise RunError(
                f'the outcome of {job.program} at seed {job.seed} is no longer on file: does another write to it?'
            )
        return outcome

    def _is_rejected(self, job: Job) -> bool:
        """Files the reward of chance for a rule that cannot train."""
        why = why_untrainable(job.program, self._child.constants)
        if why:
            chance = 1 / self._child.images.load().classes
            self._file(job, Outcome(chance, math.nan, (), 0.0), REJECTED + why)
        return bool(why)

    def _take_over(self, job: Job, function: str) -> bool:
        """Files for a job the outcome of an equal function, if one is on file."""
        found = self._store.equal_outcome(function, job.seed)
        if found is None:
            return False
        program, outcome = found
        self._file(job, outcome._replace(seconds=0.0), MERGED + ' '.join(program.tokens))
        return True

    def _function(self, program: UpdateRule) -> str | None:
        """The fingerprint of what a program computes; random ones have none, for probes cannot tell them apart."""
        return None if program.is_stochastic else program.fingerprint(self._child.constants)

    def _file(self, job: Job, outcome: Outcome, origin: str) -> None:
        self._store.save_outcomes([Result(*job, outcome, origin, self._function(job.program))])
