"""A search at work: an open run directory, an evaluator that trains, and what a person sees of both."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import gin
import numpy as np

from nos_tf.controller.agent import Agent, Metrics, Samples
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.screening import why_untrainable
from nos_tf.search.display import Display
from nos_tf.search.evaluators import Evaluator, Job
from nos_tf.search.files import write_whole
from nos_tf.search.journal import Journal
from nos_tf.search.schema import MERGED, REJECTED, Checkpoint
from nos_tf.search.schema import Child as StoredChild
from nos_tf.search.store import Result, Store
from nos_tf.search.tally import Tally
from nos_tf.tasks.child import Child, Outcome


class Session:
    """What `Search.run` holds open; closing it ends the evaluator and lets others have the directory.

    Args:
        run_dir: of the run.
        child: turns a rule into a reward.
        evaluator: trains children.
        iterations: the largest depth of the rules to come.
        identity: all that the results depend on, by name.
        task: the fingerprint that outcomes are filed under.
        children: to sample in all.
        reject_untrainable: give rules that cannot train the reward of chance.
        merge_equal_functions: give a program the outcome of one that computes the same function.

    Raises:
        RunError: the directory cannot be used, or holds another run.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        child: Child,
        evaluator: Evaluator,
        iterations: int,
        identity: Mapping[str, Any],
        task: str,
        children: int,
        reject_untrainable: bool = False,
        merge_equal_functions: bool = False,
    ) -> None:
        self._evaluator, self._child, self._seed = evaluator, child, child.seed
        self._reject, self._merge = reject_untrainable, merge_equal_functions
        with ExitStack() as stack:
            self.store = stack.enter_context(closing(Store(run_dir, identity, task)))
            if gin.config_str():
                write_whole(run_dir / 'config.gin', gin.operative_config_str())
            self.tally = Tally()
            for row in self.store.results():
                self.tally.add(row)
            self._checkpoint = self.store.checkpoint() or Checkpoint(0, 0.0, {})
            self._journal = stack.enter_context(closing(Journal(run_dir, identity, self.tally.children)))
            self.display = stack.enter_context(Display(children, self.tally.children))
            self._start = time.monotonic()
            evaluator.start(child, iterations)
            stack.callback(evaluator.close)
            self._held = stack.pop_all()

    def close(self) -> None:
        """Ends the evaluator and closes the store."""
        self._held.close()

    @property
    def seconds(self) -> float:
        """The time that the search has taken, earlier sessions included."""
        return self._checkpoint.seconds + time.monotonic() - self._start

    def resume(self, agent: Agent) -> int:
        """Gives a new agent the state that was saved last, if any; returns the number of the next iteration."""
        if self.tally.children:
            agent.restore(self._checkpoint.state)
        return self._checkpoint.iteration

    def evaluate(self, rules: Sequence[UpdateRule]) -> np.ndarray:
        """The rewards of rules, float32 [B]; equal programs train once, and never again."""
        jobs = [Job(rule.canonical(), self._seed) for rule in rules]
        if self._reject:
            self._reject_untrainable(jobs)
        trained = self._one_of_each_function(jobs) if self._merge else jobs
        outcomes = self.train(trained, lambda done: self.display.show(self.tally, under_way=done))
        for job in dict.fromkeys(jobs):
            if job not in outcomes:
                outcomes[job] = self._take_over(job)
        return np.array([outcomes[job].reward for job in jobs], np.float32)

    def _reject_untrainable(self, jobs: Sequence[Job]) -> None:
        """Files the reward of chance for rules that cannot train."""
        for job in dict.fromkeys(jobs):
            if self.store.outcome(*job) is None and (why := why_untrainable(job.program, self._child.constants)):
                chance = 1 / self._child.images.load().classes
                self._file(job, Outcome(chance, math.nan, (), 0.0), REJECTED + why)

    def _one_of_each_function(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs without those whose function is on file, or comes before them, under another program."""
        chosen: dict[Job, str | None] = {}
        for job in dict.fromkeys(jobs):
            function = self._function(job.program)
            is_known = function is not None and (
                function in chosen.values() or self.store.equal_outcome(function, self._seed) is not None
            )
            if not is_known or self.store.outcome(*job) is not None:
                chosen[job] = function
        return list(chosen)

    def _take_over(self, job: Job) -> Outcome:
        """Files for a job the outcome of an equal function, which is on file."""
        function = self._function(job.program)
        assert function is not None
        found = self.store.equal_outcome(function, self._seed)
        assert found is not None
        program, outcome = found
        self._file(job, outcome._replace(seconds=0.0), MERGED + ' '.join(program.tokens))
        return outcome

    def _function(self, program: UpdateRule) -> str | None:
        """The fingerprint of what a program computes; random ones have none, for probes cannot tell them apart."""
        return None if program.is_stochastic else program.fingerprint(self._child.constants)

    def _file(self, job: Job, outcome: Outcome, origin: str) -> None:
        self.store.save_outcomes([self._result(job, outcome, origin)])

    def _result(self, job: Job, outcome: Outcome, origin: str) -> Result:
        return Result(*job, outcome, origin, self._function(job.program))

    def train(self, jobs: Sequence[Job], report: Callable[[int], None]) -> dict[Job, Outcome]:
        """The outcomes of jobs: those on file, and those that are trained now, filed the moment they come.

        Args:
            jobs: may repeat.
            report: is told how many outcomes there are, whenever there are more.
        """
        outcomes: dict[Job, Outcome] = {}
        missing = 0
        for job in dict.fromkeys(jobs):
            known = self.store.outcome(*job)
            if known is None:
                self._evaluator.submit(job)
                missing += 1
            else:
                outcomes[job] = known
        while missing:
            ended = self._evaluator.collect()
            self.store.save_outcomes(self._result(job, outcome, self._evaluator.origin) for job, outcome in ended)
            outcomes.update(ended)
            missing -= len(ended)
            report(len(outcomes))
        return outcomes

    def save(self, iteration: int, rules: Sequence[UpdateRule], samples: Samples, agent: Agent) -> None:
        """Files the children of an iteration and the agent that has learned from them, both or neither."""
        children = [
            StoredChild(iteration, rule, float(log_prob))
            for rule, log_prob in zip(rules, samples.log_probs, strict=True)
        ]
        checkpoint = Checkpoint(iteration + 1, self.seconds, agent.state())
        for row in self.store.save_batch(children, self._seed, checkpoint):
            self.tally.add(row)

    def log(self, rewards: np.ndarray, metrics: Metrics) -> None:
        """Shows a batch that is saved, its rewards [B] and the metrics of its update."""
        self.display.show(self.tally)
        self._journal.write(self.tally, rewards, metrics, self.display.per_hour(self.tally.children))
