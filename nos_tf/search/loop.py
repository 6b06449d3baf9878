"""The search: sample rules, evaluate them, learn from their rewards, log, save (Figure 1 of the paper)."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gin
import numpy as np

from nos_tf.controller.learners import Learner
from nos_tf.dsl.known import KNOWN_RULES
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.space import SearchSpace
from nos_tf.search.display import Display, scores_table
from nos_tf.search.evaluators import Evaluator, Job
from nos_tf.search.journal import Journal
from nos_tf.search.rescore import Score, best_rules, rescore
from nos_tf.search.store import Checkpoint, Store
from nos_tf.search.store import Child as StoredChild
from nos_tf.search.tally import Tally
from nos_tf.tasks.child import Child, Outcome
from nos_tf.tasks.machine import use_one_thread

gin.external_configurable(SearchSpace)


@gin.configurable
@dataclass
class Search:
    """A neural optimizer search: a space, a learner that samples from it, a task that rewards, and a budget.

    Args:
        space: of the rules.
        learner: samples rules and learns from their rewards.
        child: turns a rule into a reward.
        evaluator: trains children, here or elsewhere.
        children: to sample in all; a finished search goes on when there are to be more.
        seed: of the learner.
        rescored: how many of the best distinct rules are trained again at the end.
        rescore_seeds: on how many fresh seeds; 0 for none, else two or more.
        baselines: names of known rules that are scored beside them.

    Raises:
        ValueError: a number out of range, or an unknown baseline; the message names the binding.
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

    def __post_init__(self) -> None:
        for name, verb in (('space', 'rule'), ('learner', 'start'), ('child', 'trainer'), ('evaluator', 'submit')):
            value = getattr(self, name)
            if isinstance(value, type) or not hasattr(value, verb):
                raise ValueError(f'Search.{name} = {value!r}: is no {name}; write @Name(), with brackets')
        for name, least in (('children', 1), ('seed', 0), ('rescored', 0), ('rescore_seeds', 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f'Search.{name} = {value!r}: must be a whole number, at least {least}')
        if self.rescore_seeds == 1:
            raise ValueError('Search.rescore_seeds = 1: one seed gives no interval; use 2 or more, or 0 for none')
        self.baselines = (self.baselines,) if isinstance(self.baselines, str) else tuple(self.baselines)
        unknown = [name for name in self.baselines if name not in KNOWN_RULES]
        if unknown:
            raise ValueError(f'Search.baselines has {unknown[0]!r}: choose from {", ".join(KNOWN_RULES)}')

    def identity(self) -> dict[str, Any]:
        """All that decides what a search finds, by the names of the gin bindings. Budget and evaluator do not."""
        return {'Search.seed': self.seed, **_bindings(self.space), **_bindings(self.learner), **self.child.identity()}

    def run(self, run_dir: Path) -> dict[str, Any]:
        """Runs the search in a directory, or takes it up where it stopped: the same search, bit for bit.

        Args:
            run_dir: gets config.gin, results.sqlite, TensorBoard event files and summary.json.

        Returns:
            the content of summary.json.

        Raises:
            RunError: the directory holds another run, or the run cannot go on.
        """
        use_one_thread()
        identity = self.identity()
        with ExitStack() as stack:
            task = _fingerprint(self.child.identity())
            self.store = stack.enter_context(closing(Store(run_dir, identity, task)))
            _write(run_dir / 'config.gin', gin.operative_config_str())
            self.tally = Tally()
            for row in self.store.results():
                self.tally.add(row)
            self.journal = stack.enter_context(closing(Journal(run_dir, identity, self.tally.children)))
            self.display = stack.enter_context(Display(self.children, self.tally.children))
            self.display.note(
                f'{self.space.size:,} rules in the space; {self.tally.children} of {self.children} children'
            )
            self.evaluator.start(self.child, max(self.space.iterations, self._baseline_depth()))
            stack.callback(self.evaluator.close)
            seconds = self._sample_and_learn()
            scores, more_seconds = self._rescore()
            summary = self._summary(scores, seconds + more_seconds)
        _write(run_dir / 'summary.json', json.dumps(summary, indent=2))
        if scores:
            self.display.console.print(scores_table(scores, self.rescore_seeds))
        return summary

    def _sample_and_learn(self) -> float:
        """Samples children until the budget is spent; returns the seconds that it took, earlier sessions included."""
        agent = self.learner.start(self.space, self.seed)
        checkpoint = self.store.checkpoint() or Checkpoint(0, 0.0, {})
        if self.tally.children:
            agent.restore(checkpoint.state)
        iteration, seconds = checkpoint.iteration, checkpoint.seconds
        while self.tally.children < self.children:
            start = time.monotonic()
            count = min(self.learner.batch_size, self.children - self.tally.children)
            samples = agent.propose(count, iteration)
            rules = [self.space.rule(choices) for choices in samples.choices]
            rewards = self._evaluate(rules)
            metrics = agent.update(samples.choices, np.array(rewards, np.float32), samples.log_probs)
            iteration, seconds = iteration + 1, seconds + time.monotonic() - start
            children = [
                StoredChild(iteration - 1, *pair) for pair in zip(rules, map(float, samples.log_probs), strict=True)
            ]
            rows = self.store.save_batch(children, self.child.seed, Checkpoint(iteration, seconds, agent.state()))
            for row in rows:
                self.tally.add(row)
            self.display.show(self.tally)
            self.journal.write(self.tally, rewards, metrics, self.display.per_hour(self.tally.children))
        return seconds

    def _evaluate(self, rules: list[UpdateRule]) -> list[float]:
        """The reward of each rule; equal programs train once, and never again."""
        jobs = [Job(rule.canonical(), self.child.seed) for rule in rules]
        outcomes = self._train(jobs, lambda done: self.display.show(self.tally, under_way=done))
        return [outcomes[job].reward for job in jobs]

    def _train(self, jobs: Sequence[Job], report: Callable[[int], None]) -> dict[Job, Outcome]:
        """The outcomes of jobs: those on file, and those that are trained now, filed the moment they come."""
        outcomes: dict[Job, Outcome] = {}
        missing = 0
        for job in dict.fromkeys(jobs):
            known = self.store.outcome(*job)
            if known is None:
                self.evaluator.submit(job)
                missing += 1
            else:
                outcomes[job] = known
        while missing:
            for job, outcome in self.evaluator.collect():
                self.store.save_outcome(*job, outcome)
                outcomes[job] = outcome
                missing -= 1
            report(len(outcomes))
        return outcomes

    def _rescore(self) -> tuple[list[Score], float]:
        """The best distinct rules and the baselines on fresh seeds, and the seconds that it took."""
        start = time.monotonic()
        if not self.rescore_seeds:
            return [], 0.0
        candidates = best_rules(self.store.results(), self.rescored)
        seeds = [self.child.seed + 1 + i for i in range(self.rescore_seeds)]
        total = (len(candidates) + len(self.baselines)) * len(seeds)
        scores = rescore(
            candidates,
            self.baselines,
            seeds,
            lambda jobs: self._train(jobs, lambda done: self.display.busy('rescoring', done, total)),
        )
        return scores, time.monotonic() - start

    def _summary(self, scores: list[Score], seconds: float) -> dict[str, Any]:
        return {
            **self.tally.summary(),
            'baselines': {score.name: score.mean for score in scores if score.name},
            'rescored': [dataclasses.asdict(score) for score in scores],
            'seconds': seconds,
            'space_size': self.space.size,
            'configuration': self.identity(),
        }

    def _baseline_depth(self) -> int:
        return max((UpdateRule.parse(name).canonical().iterations for name in self.baselines), default=1)


def _bindings(value: Any) -> dict[str, Any]:
    """The fields of a dataclass by the names of their gin bindings, those of its parts included."""
    name, bindings = type(value).__name__, {}
    for field in dataclasses.fields(value):
        part = getattr(value, field.name)
        if dataclasses.is_dataclass(part):
            bindings[f'{name}.{field.name}'] = f'@{type(part).__name__}()'
            bindings.update(_bindings(part))
        else:
            bindings[f'{name}.{field.name}'] = part
    return {**({'learner': name} if hasattr(value, 'batch_size') else {}), **bindings}


def _fingerprint(identity: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _write(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    draft = path.with_suffix('.draft')
    draft.write_text(text, encoding='utf-8')
    draft.replace(path)
