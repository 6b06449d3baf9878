"""Rewards that tell rules apart: how much lower a loss is than that of tuned Adam, on one task or on several.

A `Gain` measures log(reference / loss) on a task, in units of how much known rules differ there, so that tasks whose
losses differ in size count alike. A `Suite` is several tasks as one, the cheap ones first.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any

import gin
import tensorflow as tf

from nos_tf.config import NOT_EMPTY, Configured, Positive, below
from nos_tf.dsl.rule import UpdateRule
from nos_tf.tasks.child import ChildSetup, Outcome
from nos_tf.tasks.task import Task


@gin.register
@dataclass(frozen=True)
class Gain(Configured):
    """A task whose measure is log(reference / loss) / spread: 0 is as good as the reference, 1 is a known rule's worth.

    Args:
        task: whose measure is minus a loss above zero, as that of a `KerasTask` is.
        reference: the loss of tuned Adam at the end of the training; None if a search is to find it before its first
            rule (`nos_tf.compare.ruler`), and to keep it.
        spread: the standard deviation of log(reference / loss) over known rules; given or found with the reference.
        lowest: rewards are clipped there, in spreads: how bad a hopeless rule is tells nothing. Measures of the sweep
            are not, or the best of its rates could not be told.

    Raises:
        ValueError: a value out of range, or one of reference and spread alone; the message names the binding.
    """

    task: Task = gin.REQUIRED
    reference: Positive | None = None
    spread: Positive | None = None
    lowest: Annotated[float, below(0)] = -3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.task, Gain | Suite):
            raise ValueError(f'Gain.task: must be a task that measures a loss, and is {self.task}')
        if (self.reference is None) != (self.spread is None):
            raise ValueError(
                f'Gain.reference = {self.reference}, spread = {self.spread}: give both, or none to have them found'
            )

    @property
    def untrained(self) -> float:
        """The loss before training.

        Raises:
            ValueError: the measure of the task is not minus a loss above zero.
        """
        measure = self.task.chance
        if measure is None or not measure < 0:
            raise ValueError(
                f'Gain.task: its measure before training is {measure}, and must be minus a loss above zero: for a '
                "KerasTask, measure='loss', and a loss that is never negative"
            )
        return -measure

    @property
    def is_open(self) -> bool:
        """Whether the reference is yet to be found."""
        return self.reference is None

    @cached_property
    def provisional(self) -> 'Gain':
        """The task with a reference that is there to try it out: the untrained model."""
        return replace(self, reference=self.untrained, spread=1.0) if self.is_open else self

    @property
    def jit_compile(self) -> Any:
        """Returns whether XLA compiles the task; 'auto' where it leaves that open."""
        return getattr(self.task, 'jit_compile', False)

    def compiled(self, choice: bool) -> 'Gain':
        """Returns the task with the use of XLA decided."""
        task: Any = self.task
        return replace(self, task=task.compiled(choice))

    @property
    def chance(self) -> float:
        """The reward of a model that has learned nothing."""
        return max(self.of_loss(self.untrained), self.lowest)

    def of_loss(self, loss: float) -> float:
        """Returns the measure of a loss above zero, not clipped."""
        if self.reference is None or self.spread is None:
            raise ValueError('Gain.reference = None: it is not known yet, a search finds it before its first rule')
        return math.log(self.reference / loss) / self.spread

    def identity(self) -> dict[str, Any]:
        """Returns all that a measure depends on but the machine."""
        own = {f'Gain.{name}': getattr(self, name) for name in ('reference', 'spread', 'lowest')}
        return {**self.task.identity(), **own}

    def load(self) -> '_LoadedGain':
        """Returns the task with its data."""
        return _LoadedGain(self)

    def __str__(self) -> str:
        return f'the gain over tuned Adam on {self.task}'


class _LoadedGain:
    """The task at work: but for its measure it is the task whose loss is compared."""

    undefined = (
        'Gain.task: its loss has become zero or negative, and there is no logarithm of it: measure another loss, or '
        'search on the task itself'
    )

    def __init__(self, gain: Gain) -> None:
        self._gain, self._task, self.lowest = gain, gain.task.load(), gain.lowest
        self.untrained = gain.of_loss(gain.untrained)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def __str__(self) -> str:
        return str(self._task)

    def measure(self, data: Any, weights: tf.Tensor, state: Any) -> tf.Tensor:
        """Returns the gain, float32 []; what is no number for a loss that is not above zero."""
        loss = -self._task.measure(data, weights, state)
        return tf.math.log(tf.constant(self._gain.reference, tf.float32) / loss) / self._gain.spread


@gin.register
@dataclass(frozen=True)
class Suite(Configured):
    """Several tasks as one: the reward of a rule is the mean of its measures.

    Args:
        tasks: in the order in which a rule meets them, so the cheap ones first; as a rule gains, whose measures are in
            one unit.
        hopeless: a rule whose mean so far is not above this is spared the rest, and the mean so far is its reward.

    Raises:
        ValueError: no task, or one twice.
    """

    tasks: Annotated[Sequence[Task], NOT_EMPTY] = gin.REQUIRED
    hopeless: float = -2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for i, task in enumerate(self.tasks):
            if task in self.tasks[:i]:
                raise ValueError(f'Suite.tasks: the one with number {i + 1} is there twice ({task})')

    @property
    def chance(self) -> float | None:
        """The reward of models that have learned nothing; None where a task has none."""
        measures = [task.chance for task in self.tasks]
        return None if None in measures else sum(m for m in measures if m is not None) / len(measures)

    def identity(self) -> dict[str, Any]:
        """Returns all that a reward depends on but the machine; `of_part` has what is of one task."""
        parts = {
            f'{_part(i)}{name}': value for i, task in enumerate(self.tasks) for name, value in task.identity().items()
        }
        return {'Suite.tasks': len(self.tasks), 'Suite.hopeless': self.hopeless, **parts}

    def load(self) -> Any:
        """Refuses: a suite has no model of its own.

        Raises:
            ValueError: always.
        """
        raise ValueError(f'a suite of {len(self.tasks)} tasks has no model of its own: ask one of its tasks')

    def trainer(self, setup: ChildSetup) -> 'SuiteTrainer':
        """Returns what trains a child on all tasks."""
        return SuiteTrainer(self, setup)

    def __str__(self) -> str:
        return f'{len(self.tasks)} tasks: ' + '; '.join(map(str, self.tasks))


class SuiteTrainer:
    """Trains children on one task after the other.

    Raises:
        ValueError, FileNotFoundError: as of `Trainer`.
    """

    def __init__(self, suite: Suite, setup: ChildSetup) -> None:
        self._suite = suite
        self._trainers = [replace(setup, task=task).trainer() for task in suite.tasks]
        self.chance = suite.chance

    def train(self, rule: UpdateRule, seed: int | None = None) -> Outcome:
        """Returns the outcome of a rule: its sweep has the measure on each task, None for those that it was spared.

        Args:
            rule: of the vocabulary.
            seed: another than the procedure's.
        """
        measures: list[float] = []
        seconds = 0.0
        for trainer in self._trainers:
            outcome = trainer.train(rule, seed)
            measures.append(outcome.reward)
            seconds += outcome.seconds
            if sum(measures) / len(measures) <= self._suite.hopeless:
                break
        spared = (None,) * (len(self._trainers) - len(measures))
        return Outcome(sum(measures) / len(measures), math.nan, (*measures, *spared), seconds)


def of_part(identity: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Returns what an identity has of one task of a suite, by the names that the task has alone."""
    prefix = _part(number)
    return {name.removeprefix(prefix): value for name, value in identity.items() if name.startswith(prefix)}


def _part(number: int) -> str:
    return f'Suite.tasks[{number}].'
