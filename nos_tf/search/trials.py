"""Trials: children between sampling and learning, and the queue where they become rewards (Section 3.3).

Synchronously, a batch is sampled, and when all of it has been rewarded it is learned from, in the order of sampling:
the same search whoever trains. Asynchronously, so many programs are kept under way that no worker waits, and the first
rewards to arrive make a batch: their rules may have been sampled by an older policy, and how much older is bounded.

Nothing is trained twice: not what is on file, not what is under way, and, where that is wished, not what an equal
function has shown already or what cannot train.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from nos_tf.controller.agent import Samples, State
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.screening import why_untrainable
from nos_tf.dsl.space import SearchSpace
from nos_tf.errors import RunError
from nos_tf.evaluation.jobs import Evaluator, Job
from nos_tf.store.results import Result, Store
from nos_tf.tasks.child import MERGED, REJECTED, ChildSetup, Outcome

PREFIX = 'flight_'  # begins the names of the arrays of trials in a checkpoint
STALENESS = 100  # times the average if every child trained, that is allowed where nothing is said; hits make it grow


class Sample(NamedTuple):
    """A child that has been sampled."""

    number: int  # in the order of sampling
    choices: np.ndarray  # int32 [T]
    log_prob: float  # under the policy that sampled it
    version: int  # of that policy: how many batches had been taken when it sampled
    rule: UpdateRule
    job: Job


class Arrivals(NamedTuple):
    """Children with their rewards, in the order in which they count."""

    samples: list[Sample]
    rewards: np.ndarray  # float32 [N]
    staleness: np.ndarray  # int64 [N]: batches taken since the child was sampled
    fresh: np.ndarray  # bool [N]: whether it may be learned from

    def batch(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Choices [B, T], rewards [B] and log-probabilities [B] of those that may be learned from."""
        fresh = [sample for sample, learns in zip(self.samples, self.fresh, strict=True) if learns]
        choices = np.array([sample.choices for sample in fresh], np.int32)
        return choices, self.rewards[self.fresh], np.array([sample.log_prob for sample in fresh], np.float32)


class Trials:
    """Samples, and hands out what has arrived.

    Args:
        queue: where children become rewards.
        space: of the rules.
        seed: of the children.
        batch_size: children of one batch.
        workers: that are never to wait; None to wait for each batch as a whole.
        max_staleness: batches that may be taken between the sampling of a child and its arrival; one that comes later
            counts, but is not learned from. None for a hundred times the average.

    Raises:
        RunError: a bound on staleness that most children would break.
    """

    def __init__(
        self,
        queue: 'Queue',
        space: SearchSpace,
        seed: int,
        *,
        batch_size: int,
        workers: int | None = None,
        max_staleness: int | None = None,
    ) -> None:
        self._queue, self._space, self._seed = queue, space, seed
        self._batch_size = batch_size
        self._target = None if workers is None else workers + batch_size  # so that `workers` remain when a batch leaves
        average = math.ceil((self._target or 0) / batch_size)
        if max_staleness is not None and max_staleness < average:
            raise RunError(
                f'Search.max_staleness = {max_staleness}: with {workers} workers and batches of {batch_size} the '
                f'average will be about {average}; allow more, or make batches larger'
            )
        self._max_staleness = STALENESS * max(1, average) if max_staleness is None else max_staleness
        self._waiting: dict[Job, list[Sample]] = {}
        self._arrived: list[Sample] = []
        self._sampled = 0
        self._taken = 0
        self.version = 0  # batches that were taken
        self._draws = 0  # times that the agent was asked for samples

    def __len__(self) -> int:
        """Returns the number of children that were sampled and not handed out."""
        return self._sampled - self._taken

    def fill(self, propose: Callable[[int, int], Samples], budget: int) -> None:
        """Samples as many children as there is need for, in whole batches.

        Args:
            propose: (count, number of the draw) -> samples of the present policy.
            budget: children that may be sampled and not handed out, at most.
        """
        while len(self) < budget and self._has_room():
            samples = propose(min(self._batch_size, budget - len(self)), self._draws)
            self._draws += 1
            for choices, log_prob in zip(samples.choices, samples.log_probs, strict=True):
                self._put(choices, float(log_prob), self.version)

    def _has_room(self) -> bool:
        if self._target is None:
            return not len(self)
        return self._queue.running < self._target and len(self._arrived) < self._batch_size

    def _put(self, choices: np.ndarray, log_prob: float, version: int) -> None:
        rule = self._space.rule(choices)
        sample = Sample(self._sampled, choices, log_prob, version, rule, Job(rule.canonical(), self._seed))
        self._sampled += 1
        if self._queue.put(sample.job):
            self._arrived.append(sample)
        else:
            self._waiting.setdefault(sample.job, []).append(sample)

    def take(self, budget: int, report: Callable[[int], None]) -> Arrivals:
        """Waits for a batch; stale children count in it, for while others were waited for, workers would be idle.

        Args:
            budget: children that may be taken, at most.
            report: is told how many there are, whenever there are more.
        """
        while (count := self._batch(budget)) is None:
            for job in self._queue.wait():
                self._arrived += self._waiting.pop(job, [])  # what is shared may not have been sampled itself
            report(len(self._arrived))
        if self._target is None:
            self._arrived.sort(key=lambda sample: sample.number)
        samples, self._arrived = self._arrived[:count], self._arrived[count:]
        self._taken += len(samples)
        rewards = [self._queue.known(sample.job).reward for sample in samples]
        staleness = np.array([self.version - sample.version for sample in samples])
        return Arrivals(samples, np.array(rewards, np.float32), staleness, staleness <= self._max_staleness)

    def _batch(self, budget: int) -> int | None:
        """Returns how many of the arrived make a batch; None if they are too few."""
        if self._target is None:
            return None if self._waiting else len(self._arrived)
        is_enough = len(self._arrived) >= min(self._batch_size, budget) or not self._waiting
        return min(len(self._arrived), self._batch_size, budget) if is_enough else None

    def status(self, arrivals: Arrivals) -> dict[str, float]:
        """Returns the children in progress and the staleness of a batch; {} if the search is synchronous."""
        if self._target is None:
            return {}
        staleness = arrivals.staleness
        return {
            'in_flight': float(len(self)),
            'staleness': float(staleness.mean()),
            'largest_staleness': float(staleness.max()),
        }

    def state(self) -> State:
        """Returns the children that were sampled and not handed out; {} if the search is synchronous."""
        if self._target is None:
            return {}
        samples = [*self._arrived, *(sample for waiting in self._waiting.values() for sample in waiting)]
        samples.sort(key=lambda sample: sample.number)
        return {
            f'{PREFIX}choices': np.array([s.choices for s in samples], np.int32).reshape(-1, self._space.num_steps),
            f'{PREFIX}log_probs': np.array([s.log_prob for s in samples], np.float32),
            f'{PREFIX}versions': np.array([s.version for s in samples], np.int64),
            f'{PREFIX}draws': np.array(self._draws),
        }

    def restore(self, state: State, version: int) -> None:
        """Takes up what `state` had, after so many batches: what has no reward yet goes to the queue again."""
        self.version = version
        self._draws = int(state.get(f'{PREFIX}draws', version))
        for choices, log_prob, sampled in zip(
            *(state.get(PREFIX + name, ()) for name in ('choices', 'log_probs', 'versions')), strict=True
        ):
            self._put(choices, float(log_prob), int(sampled))


class Queue:
    """Jobs between a search and its evaluator.

    Args:
        store: files the outcomes.
        evaluator: has been started.
        setup: of the trainings.
        reject_untrainable: give rules that cannot train the reward of chance.
        merge_equal_functions: give a program the outcome of one that computes the same function.
    """

    def __init__(
        self,
        store: Store,
        evaluator: Evaluator,
        setup: ChildSetup,
        *,
        reject_untrainable: bool = False,
        merge_equal_functions: bool = False,
    ) -> None:
        self._store, self._evaluator, self._setup = store, evaluator, setup
        self._reject, self._merge = reject_untrainable, merge_equal_functions
        self._running: dict[Job, str | None] = {}  # and the function of each, where functions are merged
        self._busy, self._start = 0.0, time.monotonic()
        self._first: dict[str, UpdateRule] = {}  # that `shared` was asked for, of each function
        self._followers: dict[Job, list[Job]] = {}  # what waits for the outcome of a running job of its function

    @property
    def running(self) -> int:
        """The number of jobs that the evaluator has."""
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
        if self._store.outcome(*job) is not None:
            return True
        if job in self._running or any(job in waiting for waiting in self._followers.values()):
            return False
        if self._reject and not by_name and self._is_rejected(job):
            return True
        form, _ = self._setup.child.form_of(job.program)
        if form != job.program:  # all that are equal up to a factor have one outcome
            shared = Job(form, job.seed)
            if self.put(shared, by_name=by_name):
                self._inherit(job, shared)
                return True
            self._followers.setdefault(shared, []).append(job)
            return False
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
            Result(*job, outcome, self._function(job.program)) for job, outcome in outcomes.items()
        )
        ended = list(outcomes)
        for job in ended:  # grows, as those that wait for one end with it
            function = self._running.pop(job, None)
            for follower in self._followers.pop(job, ()):
                if self._setup.child.form_of(follower.program)[0] == job.program:
                    self._inherit(follower, job)
                else:
                    self._take_over(follower, function or '')
                outcomes[follower] = self.known(follower)
                ended.append(follower)
        return outcomes

    def train(self, jobs: Sequence[Job], report: Callable[[int], None]) -> dict[Job, Outcome]:
        """Returns the outcomes of jobs: those on file, and those that are trained now, by name.

        Args:
            jobs: may repeat.
            report: is told how many outcomes there are, whenever there are more.
        """
        jobs = list(dict.fromkeys(jobs))
        outcomes = {job: self.known(job) for job in jobs if self.put(job, by_name=True)}
        while self.running:
            outcomes.update(self.wait())
            report(len(outcomes))
        return outcomes

    def known(self, job: Job) -> Outcome:
        """The outcome of a job that has ended.

        Raises:
            RunError: the file has lost it.
        """
        outcome = self._store.outcome(*job)
        if outcome is None:
            raise RunError(
                f'the outcome of {job.program} at seed {job.seed} is no longer on file: does another write to it?'
            )
        return outcome

    def shared(self, program: UpdateRule) -> UpdateRule:
        """Returns the program that stands for all that train alike, or for all of its function if those are merged."""
        form, _ = self._setup.child.form_of(program)
        function = self._function(form) if self._merge else None
        return form if function is None else self._first.setdefault(function, form)

    def _is_rejected(self, job: Job) -> bool:
        """Files the reward of chance for a rule that cannot train."""
        why = why_untrainable(job.program, self._setup.child.constants)
        chance = self._setup.task.chance if why else None
        if why is None or chance is None:
            return False
        self._file(job, Outcome.untrained(chance, REJECTED + why))
        return True

    def _take_over(self, job: Job, function: str) -> bool:
        """Files for a job the outcome of an equal function, if one is on file."""
        found = self._store.equal_outcome(function, job.seed)
        if found is None:
            return False
        program, outcome = found
        self._file(job, outcome._replace(seconds=0.0, origin=MERGED + ' '.join(program.tokens)))
        return True

    def _inherit(self, job: Job, shared: Job) -> None:
        """Files for a job the outcome of what it is a multiple of."""
        outcome = self.known(shared).of_multiple(self._setup.child.form_of(job.program)[1])
        self._file(job, outcome._replace(seconds=0.0, origin=MERGED + ' '.join(shared.program.tokens)))

    def _function(self, program: UpdateRule) -> str | None:
        """The fingerprint of what a program computes; random ones have none, for probes cannot tell them apart."""
        return None if program.is_stochastic else program.fingerprint(self._setup.child.constants)

    def _file(self, job: Job, outcome: Outcome) -> None:
        self._store.save_outcomes([Result(*job, outcome, self._function(job.program))])
