"""A search at work: an open run directory, an evaluator that trains, and what a person sees of both."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import gin

from nos_tf.controller.agent import Agent, Metrics
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.search.display import Display
from nos_tf.search.files import write_whole
from nos_tf.search.flight import FLIGHT, Arrivals, Flight
from nos_tf.search.jobs import Evaluator, Job
from nos_tf.search.journal import Journal
from nos_tf.search.queue import Queue
from nos_tf.search.schema import Checkpoint, StoredChild
from nos_tf.search.store import Store
from nos_tf.search.tally import Tally
from nos_tf.tasks.child import Child, Outcome


class Session:
    """What `Search.run` holds open; closing it ends the evaluator and lets others have the directory.

    Args:
        run_dir: of the run.
        child: turns a rule into a reward.
        evaluator: trains children.
        vocabulary: what the rules to come consist of.
        identity: all that the results depend on, by name.
        task: the fingerprint that outcomes are filed under.
        children: to sample in all.
        reject_untrainable: give rules that cannot train the reward of chance.
        merge_equal_functions: give a program the outcome of one that computes the same function.
        allow_mixed: as of `nos_tf.search.database.Database`.

    Raises:
        RunError: the directory cannot be used, or holds another run.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        child: Child,
        evaluator: Evaluator,
        vocabulary: Vocabulary,
        identity: Mapping[str, Any],
        task: str,
        children: int,
        reject_untrainable: bool = False,
        merge_equal_functions: bool = False,
        allow_mixed: bool = False,
    ) -> None:
        self._evaluator, self._seed = evaluator, child.seed
        with ExitStack() as stack:
            self.store = stack.enter_context(closing(Store(run_dir, identity, task, allow_mixed=allow_mixed)))
            if gin.config_str():
                write_whole(run_dir / 'config.gin', gin.operative_config_str())
            self.tally = Tally.of(self.store.results())
            self._checkpoint = self.store.checkpoint() or Checkpoint(0, 0.0, {})
            self._start = time.monotonic()
            evaluator.start(child, vocabulary)  # before anything else of TensorFlow: a cluster renames the devices
            stack.callback(evaluator.close)
            self._journal = stack.enter_context(closing(Journal(run_dir, identity, self.tally.children)))
            self.display = stack.enter_context(Display(children, self.tally.children))
            self.queue = Queue(
                self.store,
                evaluator,
                child,
                reject_untrainable=reject_untrainable,
                merge_equal_functions=merge_equal_functions,
            )
            self._held = stack.pop_all()

    def close(self) -> None:
        """Ends the evaluator and closes the store."""
        self._held.close()

    @property
    def seconds(self) -> float:
        """The time that the search has taken, earlier sessions included."""
        return self._checkpoint.seconds + time.monotonic() - self._start

    def resume(self, agent: Agent, flight: Flight) -> None:
        """Gives an agent and a flight, both new, the states that were saved last, if any."""
        if not self.tally.children:
            return
        state = self._checkpoint.state
        agent.restore({name: value for name, value in state.items() if not name.startswith(FLIGHT)})
        flight.restore(state, self._checkpoint.iteration)

    def take(self, flight: Flight, budget: int) -> Arrivals:
        """Waits for a batch of at most so many children, and shows what has arrived."""
        return flight.take(budget, lambda done: self.display.show(self.tally, under_way=done))

    def train(self, jobs: Sequence[Job], report: Callable[[int], None]) -> dict[Job, Outcome]:
        """The outcomes of jobs: those on file, and those that are trained now, by name.

        Args:
            jobs: may repeat.
            report: is told how many outcomes there are, whenever there are more.
        """
        jobs = list(dict.fromkeys(jobs))
        outcomes = {job: self.queue.known(job) for job in jobs if self.queue.put(job, by_name=True)}
        while self.queue.running:
            outcomes.update(self.queue.wait())
            report(len(outcomes))
        return outcomes

    def save(self, arrivals: Arrivals, agent: Agent, metrics: Metrics, flight: Flight) -> None:
        """Files children, the agent that has learned from them, its metrics and what is under way, all or nothing."""
        iteration = flight.version
        children = [StoredChild(iteration, sample.version, sample.rule, sample.log_prob) for sample in arrivals.samples]
        flight.version += 1
        checkpoint = Checkpoint(iteration + 1, self.seconds, {**agent.state(), **flight.state()})
        for row in self.store.save_batch(children, self._seed, checkpoint, metrics):
            self.tally.add(row)

    def log(self, arrivals: Arrivals, metrics: Metrics, flight: Flight) -> None:
        """Shows a batch that is saved and the metrics of its update."""
        workers = {**flight.status(arrivals), **self.queue.status(), **self._evaluator.status()}
        self.display.show(self.tally, workers=workers)
        per_hour = self.display.per_hour(self.tally.children)
        self._journal.write(self.tally, arrivals.rewards, per_hour, controller=metrics, workers=workers)
