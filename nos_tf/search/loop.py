"""The search: sample rules, evaluate them, learn from their rewards, save, log (Figure 1 of the paper)."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gin

from nos_tf.controller.learners import Learner
from nos_tf.dsl.known import KNOWN_RULES
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.space import SearchSpace
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.search import RunError
from nos_tf.search.cluster import Cluster  # noqa: F401 (for gin)
from nos_tf.search.display import scores_table
from nos_tf.search.evaluators import ProcessPool  # noqa: F401 (for gin)
from nos_tf.search.files import write_whole
from nos_tf.search.flight import Flight
from nos_tf.search.jobs import Evaluator
from nos_tf.search.rescore import Score, best_rules, rescore
from nos_tf.search.session import Session
from nos_tf.search.table import Table  # noqa: F401 (for gin)
from nos_tf.tasks.bindings import bindings_of
from nos_tf.tasks.child import Child
from nos_tf.tasks.machine import check_backend, use_one_cpu_thread

gin.external_configurable(SearchSpace)


@gin.configurable
@dataclass
class Search:
    """A neural optimizer search: a space, a learner that samples from it, a task that rewards, and a budget.

    Args:
        space: of the rules.
        learner: samples rules and learns from their rewards.
        child: turns a rule into a reward.
        evaluator: trains children, here or elsewhere, or looks up what became of them.
        children: to sample in all; a finished search goes on when there are to be more. Where this is no multiple of
            the learner's batch, the last batch is smaller, and a search that goes on after it is not the same as one
            that was longer from the beginning.
        seed: of the learner.
        rescored: how many of the best distinct rules are trained again at the end.
        rescore_seeds: on how many fresh seeds; 0 for none, else two or more.
        baselines: names of known rules that are scored beside them.
        reject_untrainable: give rules that cannot train the reward of chance, 1 / classes, and do not train them.
        asynchronous: keep workers busy: learn from the first rewards to arrive, whichever batch they were sampled in;
            what is found then depends on who is quick. Otherwise a search is the same whoever trains.
        max_staleness: asynchronously, batches that may be taken between the sampling of a child and its reward; a later
            one counts as a child, but is not learned from. None for a hundred times the average.
        merge_equal_functions: give a program the outcome of an earlier one that computes the same function up to
            rounding; the learner may then see another reward than training would have given.

    Raises:
        ValueError: a value out of range, or an unknown baseline; the message names the binding.
    """

    space: SearchSpace = gin.REQUIRED
    learner: Learner = gin.REQUIRED
    child: Child = gin.REQUIRED
    evaluator: Evaluator = gin.REQUIRED
    children: int = 1000
    seed: int = 0
    rescored: int = 10
    rescore_seeds: int = 5
    baselines: Sequence[str] = ('sgd', 'momentum', 'rmsprop', 'adam')
    reject_untrainable: bool = False
    merge_equal_functions: bool = False
    asynchronous: bool = False
    max_staleness: int | None = None

    def __post_init__(self) -> None:
        for name, verb in (('space', 'rule'), ('learner', 'start'), ('child', 'trainer'), ('evaluator', 'submit')):
            value = getattr(self, name)
            if isinstance(value, type) or not hasattr(value, verb):
                raise ValueError(f'Search.{name} = {value!r}: is no {name}; write @Name(), with brackets')
        for name, least in (('children', 1), ('seed', 0), ('rescored', 0), ('rescore_seeds', 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f'Search.{name} = {value!r}: must be a whole number, at least {least}')
        if self.max_staleness is not None and (
            isinstance(self.max_staleness, bool) or not isinstance(self.max_staleness, int) or self.max_staleness < 0
        ):
            raise ValueError(
                f'Search.max_staleness = {self.max_staleness!r}: must be None, or a whole number from 0 on'
            )
        for name in ('reject_untrainable', 'merge_equal_functions', 'asynchronous'):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f'Search.{name} = {getattr(self, name)!r}: must be True or False')
        if self.rescore_seeds == 1:
            raise ValueError('Search.rescore_seeds = 1: one seed gives no interval; use 2 or more, or 0 for none')
        self.baselines = (self.baselines,) if isinstance(self.baselines, str) else tuple(self.baselines)
        unknown = [name for name in self.baselines if name not in KNOWN_RULES]
        if unknown:
            raise ValueError(f'Search.baselines has {unknown[0]!r}: choose from {", ".join(KNOWN_RULES)}')

    def identity(self) -> dict[str, Any]:
        """All that decides what a search finds, by the names of the gin bindings.

        The budget does not, nor which evaluator trains; one that looks rewards up does, and so does a cluster whose
        machines may differ.
        """
        return {
            'Search.seed': self.seed,
            'Search.reject_untrainable': self.reject_untrainable,
            'Search.merge_equal_functions': self.merge_equal_functions,
            'Search.asynchronous': self.asynchronous,
            'Search.max_staleness': self.max_staleness,
            'Search.learner': f'@{type(self.learner).__name__}()',
            **bindings_of(self.space),
            **bindings_of(self.learner),
            **self.evaluator.identity(self.child),
            **self._vocabulary.identity(),
        }

    @property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary.of(self.space, map(UpdateRule.parse, self.baselines))

    def run(self, run_dir: Path | str, *, allow_mixed: bool = False) -> dict[str, Any]:
        """Runs the search in a directory, or takes it up where it stopped.

        It goes on as the same search, bit for bit, unless it is asynchronous.

        Args:
            run_dir: gets results.sqlite, TensorBoard event files, summary.json, and config.gin where gin was used.
            allow_mixed: take up a search also on another kind of CPU, or with other versions, than it began with;
                rewards are then of both, which the directory says. A rule that both sample trains on both.

        Returns:
            the content of summary.json.

        Raises:
            RunError: the directory holds another run, or the run cannot go on.
        """
        try:
            check_backend('a search')
        except ValueError as error:
            raise RunError(str(error)) from error
        use_one_cpu_thread()
        run_dir = Path(run_dir)
        session = self._open(run_dir, allow_mixed)
        with closing(session):
            self._search(session)
            scores = self._rescore(session)
            summary = self._summary(session, scores)
        write_whole(run_dir / 'summary.json', json.dumps(summary, indent=2))
        if scores:
            with suppress(BrokenPipeError):  # all is on file, and a report of it may be to come
                session.display.console.print(scores_table(scores, self.rescore_seeds))
        return summary

    def _open(self, run_dir: Path, allow_mixed: bool) -> Session:
        """Loads the data and gets ready to train; what is unfit in the configuration is said here at the latest."""
        try:
            return Session(
                run_dir,
                child=self.child,
                evaluator=self.evaluator,
                vocabulary=self._vocabulary,
                identity=self.identity(),
                task=_fingerprint({**self.evaluator.identity(self.child), **self._vocabulary.identity()}),
                children=self.children,
                reject_untrainable=self.reject_untrainable,
                merge_equal_functions=self.merge_equal_functions,
                allow_mixed=allow_mixed,
            )
        except ValueError as error:
            raise RunError(str(error)) from error

    def _search(self, session: Session) -> None:
        """Samples, evaluates, learns, saves and logs until the budget is spent."""
        done = session.tally.children
        session.display.note(f'{self.space.size:,} rules in the space; {done} of {self.children} children are there')
        try:
            agent = self.learner.start(self.space, self.seed)
        except ValueError as error:
            raise RunError(str(error)) from error
        flight = self._flight(session)
        session.resume(agent, flight)
        while (missing := self.children - session.tally.children) > 0:
            flight.fill(agent.propose, missing)
            arrivals = session.take(flight, missing)
            metrics = agent.update(*arrivals.batch()) if arrivals.fresh.any() else {}
            session.save(arrivals, agent, metrics, flight)
            session.log(arrivals, metrics, flight)

    def _flight(self, session: Session) -> Flight:
        """What will have been sampled and not yet taken."""
        return Flight(
            session.queue,
            self.space,
            self.child.seed,
            batch_size=self.learner.batch_size,
            workers=(self.evaluator.workers or 1) if self.asynchronous else None,
            max_staleness=self.max_staleness,
        )

    def _rescore(self, session: Session) -> list[Score]:
        """The best distinct rules and the baselines on fresh seeds."""
        if not self.rescore_seeds:
            return []
        candidates = best_rules(session.store.results(), self.rescored)
        seeds = [self.child.seed + 1 + i for i in range(self.rescore_seeds)]
        total = (len(candidates) + len(self.baselines)) * len(seeds)
        return rescore(
            candidates,
            self.baselines,
            seeds,
            lambda jobs: session.train(jobs, lambda done: session.display.busy('rescoring', done, total)),
        )

    def _summary(self, session: Session, scores: list[Score]) -> dict[str, Any]:
        return {
            **session.tally.summary(),
            'trained': session.store.trained(self.child.seed),
            'baselines': {score.name: score.mean for score in scores if score.name},
            'rescored': [dataclasses.asdict(score) for score in scores],
            'seconds': session.seconds,
            'space_size': self.space.size,
            'configuration': session.store.identity,
        }


def _fingerprint(identity: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
