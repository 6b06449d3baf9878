"""More seeds for the rules that seem best, so that the learner does not chase those that were lucky once.

After each batch, the best rules so far train on one more seed each, until they have had so many. What the learner is
told is the mean so far, and above the mean of the promising it is shrunk towards that by the noise between seeds: the
best of a thousand single rewards is mostly luck, and the best of a few means of five is not.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from nos_tf.controller.agent import State
from nos_tf.dsl.rule import UpdateRule
from nos_tf.evaluation.jobs import Job
from nos_tf.search.trials import Queue

PREFIX = 'seeds_'  # begins the names of the arrays in a checkpoint
FIRST = 1000  # the first seed more is so much above that of the search; rescoring takes those between


class Noise(NamedTuple):
    """The statistics of rules that have had several seeds; no noise is known where fewer than two have."""

    centre: float  # mean of their means
    between_seeds: float  # variance of one reward
    between_rules: float  # variance of what they are worth

    @classmethod
    def of(cls, rewards: Iterable[Sequence[float]]) -> 'Noise':
        """Returns the statistics of rules, by the analysis of variance."""
        several = [np.array(values) for values in rewards if len(values) > 1]
        if len(several) < 2:
            return cls(math.inf, 0.0, 0.0)
        means = np.array([values.mean() for values in several])
        noise = sum(values.var() * len(values) for values in several) / sum(len(values) - 1 for values in several)
        of_means = np.mean([noise / len(values) for values in several])
        return cls(float(means.mean()), float(noise), max(float(means.var(ddof=1) - of_means), 0.0))


class Seeds:
    """The rewards of all rules so far, on one seed or on several.

    Args:
        queue: where rules become rewards; says which are one.
        seed: the first.
        most: seeds of a rule.
        promising: how many of the best rules may have more than one.
    """

    def __init__(self, queue: Queue, seed: int, most: int, promising: int) -> None:
        self._queue, self._first_seed, self._most, self._promising = queue, seed, most, promising
        self._rewards: dict[UpdateRule, list[float]] = {}  # by what stands for them
        self._first: dict[UpdateRule, UpdateRule] = {}  # the program that was sampled first, of each
        self._noise = Noise.of([])

    def add(self, programs: Iterable[UpdateRule]) -> None:
        """Takes in programs whose outcomes with the first seed are on file."""
        for program in programs:
            form = self._queue.shared(program)
            self._first.setdefault(form, program)
            if form not in self._rewards:
                self._rewards[form] = [self._queue.known(Job(program, self._first_seed)).reward]

    def train(self, report: Callable[[int], None]) -> None:
        """Trains each of the best rules on one more seed, if it has not had them all.

        Args:
            report: as of `Queue.train`.
        """
        forms = map(self._queue.shared, self.best(self._promising))
        due = {form: len(self._rewards[form]) for form in forms}
        jobs = {form: Job(form, self._seed(count)) for form, count in due.items() if count < self._most}
        outcomes = self._queue.train(list(jobs.values()), report)
        for form, job in jobs.items():
            self._rewards[form].append(outcomes[job].reward)
        self._noise = Noise.of(self._rewards.values())

    def best(self, count: int) -> dict[UpdateRule, float]:
        """Returns the best rules with their rewards, the best first; of equals the first sampled."""
        rewards = {self._first[form]: self._shrunk(values) for form, values in self._rewards.items()}
        return dict(sorted(rewards.items(), key=lambda item: -item[1])[:count])

    def reward(self, program: UpdateRule) -> float:
        """Returns what the learner is told of a program."""
        return self._shrunk(self._rewards[self._queue.shared(program)])

    def _seed(self, number: int) -> int:
        return self._first_seed + (FIRST + number if number else 0)

    def _shrunk(self, values: list[float]) -> float:
        """Returns the mean of rewards; the part above that of the promising counts by how much of it is no noise."""
        mean = float(np.mean(values))
        centre, noise, spread = self._noise
        if mean <= centre or not noise:
            return mean
        return centre + (mean - centre) * spread / (spread + noise / len(values))

    @property
    def more(self) -> int:
        """The number of seeds that rules have had beside their first."""
        return sum(len(values) - 1 for values in self._rewards.values())

    def state(self) -> State:
        """Returns which rules have had more than one seed, and how many."""
        several = {form: len(values) for form, values in self._rewards.items() if len(values) > 1}
        return {
            f'{PREFIX}rules': np.array([' '.join(form.tokens) for form in several], np.str_),
            f'{PREFIX}counts': np.array(list(several.values()), np.int64),
        }

    def restore(self, state: State, programs: Iterable[UpdateRule]) -> None:
        """Takes up a state: what a batch that was not saved has trained besides is on file, and not known here.

        Args:
            state: of `state`.
            programs: of all children so far, in their order.
        """
        self.add(programs)
        for tokens, count in zip(state.get(f'{PREFIX}rules', ()), state.get(f'{PREFIX}counts', ()), strict=True):
            form = UpdateRule(tuple(str(tokens).split()))
            jobs = [Job(form, self._seed(number)) for number in range(1, int(count))]
            self._rewards[form] += [self._queue.known(job).reward for job in jobs]
        self._noise = Noise.of(self._rewards.values())
