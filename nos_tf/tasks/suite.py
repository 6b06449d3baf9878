"""Rewards that tell rules apart: how much lower a loss is than that of tuned Adam, on one task or on several.

A `Gain` measures log(reference / loss) on a task, in units of how much known rules differ there, so that tasks whose
losses differ in size count alike. A `Suite` is several tasks as one, the cheap ones first.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Annotated, Any

import gin
import tensorflow as tf

from nos_tf.config import NOT_EMPTY, Configured, Positive, below
from nos_tf.dsl.primitives import RuleConstants
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.optimizers.contender import Contender
from nos_tf.tasks.child import Child, ChildSetup, Outcome
from nos_tf.tasks.sweep import Progress
from nos_tf.tasks.task import Gradient, Task

LOSSES, OVER = ('validation', 'training'), ('end', 'mean')
UNCLIPPED = -1e9
POINTS = 10  # of a training, at which a mean over it is taken; the end of a training loss is the last of as many parts


@gin.register
@dataclass(frozen=True)
class Gain(Configured):
    """A task whose measure is log(reference / loss) / spread: 0 is as good as the reference, 1 is a known rule's worth.

    Args:
        task: whose measure is minus a loss above zero, as that of a `KerasTask` is; its schedule is everybody's.
        reference: the loss of tuned Adam, the mean over seeds; None if a search is to find it before its first rule
            (`nos_tf.compare.ruler`), and to keep it.
        spread: the standard deviation of log(reference / loss) over known rules; given or found with the reference.
        optimizer: tuned Adam as text. Where it is given or found, each loss is held against that of this optimizer on
            the same seed, which cancels what a seed does to both; else against `reference`.
        learning_rate: of the optimizer.
        lowest: rewards are clipped there, in spreads: how bad a hopeless rule is tells nothing. Measures of the sweep
            are not, or the best of its rates could not be told.
        loss: 'validation', or 'training' for the mean loss of minibatches, which is what the optimizer lowers.
        over: 'end' of the training, or 'mean' over it: of log(reference / loss) at ten points, or of the training loss.

    Raises:
        ValueError: a value out of range, or one of reference and spread alone; the message names the binding.
    """

    task: Task = gin.REQUIRED
    reference: Positive | None = None
    spread: Positive | None = None
    optimizer: str | None = None
    learning_rate: Positive | None = None
    lowest: Annotated[float, below(0)] = -3.0
    loss: str = 'validation'
    over: str = 'end'

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.task, Gain | Suite):
            raise ValueError(f'Gain.task: must be a task that measures a loss, and is {self.task}')
        if (self.reference is None) != (self.spread is None):
            raise ValueError(
                f'Gain.reference = {self.reference}, spread = {self.spread}: give both, or none to have them found'
            )
        if (self.optimizer is None) != (self.learning_rate is None) or (self.optimizer and self.reference is None):
            raise ValueError(
                f'Gain.optimizer = {self.optimizer!r}, learning_rate = {self.learning_rate}: give both, and reference '
                'and spread with them, or none to have all of them found'
            )
        if self.optimizer is not None and Contender(self.optimizer).rule is None:
            raise ValueError(f'Gain.optimizer = {self.optimizer!r}: must be a rule, as a child trains')
        for name, choices in (('loss', LOSSES), ('over', OVER)):
            if getattr(self, name) not in choices:
                raise ValueError(f'Gain.{name} = {getattr(self, name)!r}: choose from {", ".join(choices)}')

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
        """The task to try something out on: held against a number, that of the untrained model where none is known."""
        reference, spread = self.reference or self.untrained, self.spread or 1.0
        return replace(self, reference=reference, spread=spread, optimizer=None, learning_rate=None)

    @property
    def of_logs(self) -> 'Gain':
        """The task that measures minus the logarithm of the loss, which is judged alike."""
        return replace(self, reference=1.0, spread=1.0, optimizer=None, learning_rate=None, lowest=UNCLIPPED)

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
        own = (field.name for field in fields(self) if field.name != 'task')
        return {**self.task.identity(), **{f'Gain.{name}': getattr(self, name) for name in own}}

    def load(self) -> '_LoadedGain':
        """Returns the task with its data."""
        return _LoadedGain(self)

    def __str__(self) -> str:
        return f'the gain over tuned Adam on {self.task}'


class _LoadedGain:
    """The task at work: but for its measure, and the reference beside its state, it is the task that is compared."""

    undefined = (
        'Gain.task: its loss has become zero or negative, and there is no logarithm of it: measure another loss, or '
        'search on the task itself'
    )

    def __init__(self, gain: Gain) -> None:
        self._gain, self._task, self.lowest = gain, gain.task.load(), gain.lowest
        self._untrained = tf.constant(gain.untrained, tf.float32)
        gain.of_loss(gain.untrained)  # says so where the reference is not known yet

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def __str__(self) -> str:
        return str(self._task)

    def start(self, seed: int) -> tuple[tf.Tensor, Any]:
        """Returns weights and state of the model, and beside the state the logarithm of the reference, float32 []."""
        weights, state = self._task.start(seed)
        return weights, (state, tf.constant(self._log_reference(seed), tf.float32))

    def _log_reference(self, seed: int) -> float:
        """Returns the logarithm of the loss that is 0: of the optimizer on this seed, which is trained for it."""
        if self._gain.optimizer is None:
            return math.log(self._gain.reference or 1.0)
        trainer, rule = self._reference
        return -trainer.train(rule, seed).reward

    @cached_property
    def _reference(self) -> tuple[Any, UpdateRule]:
        """Returns a trainer for the reference, which tries its one learning rate, and the rule of the reference."""
        gain, contender = self._gain, Contender(self._gain.optimizer or '')
        rule: Any = contender.rule
        told: Any = contender.constants
        child = Child((gain.learning_rate or 0.0,), constants=RuleConstants(**told), continue_sweep=False)
        of_logs = gain.of_logs.compiled(False) if gain.jit_compile else gain.of_logs  # XLA takes longer to begin
        return ChildSetup(child, of_logs, Vocabulary.of(None, [rule])).trainer(), rule

    def untrained(self, state: Any) -> tf.Tensor:
        """Returns the gain before training, float32 []."""
        return self._of(self._untrained, state)

    def gradient(self, data: Any, batches: Any, step: tf.Tensor, weights: tf.Tensor, state: Any) -> Gradient:
        """Returns the gradient of a training step."""
        loss, gradient, inner = self._task.gradient(data, batches, step, weights, state[0])
        return Gradient(loss, gradient, (inner, state[1]))

    def measure(self, data: Any, weights: tf.Tensor, state: Any) -> tf.Tensor:
        """Returns the gain, float32 []; what is no number for a loss that is not above zero."""
        return self._of(-self._task.measure(data, weights, state[0]), state)

    def _of(self, loss: tf.Tensor, state: Any) -> tf.Tensor:
        return (state[1] - tf.math.log(loss)) / self._gain.spread

    def judge(self, begun: Progress, train: Callable[..., Any], measure: Callable[[Progress], tf.Tensor]) -> tf.Tensor:
        """Returns the gain of a whole training, float32 [].

        Args:
            begun: the model before it.
            train: (model, step) -> the model after that step, and the mean loss on the way there.
            measure: the gain of a model, on validation data.
        """
        is_mean, steps = self._gain.over == 'mean', self._task.steps
        if self._gain.loss == 'training':
            if not is_mean:
                begun, _ = train(begun, steps - max(1, steps // POINTS))
            loss = train(begun, steps)[1]
            lost = 2 * self._gain.untrained  # as `KerasTask.measure` has it
            return self._of(tf.where(tf.math.is_finite(loss), tf.minimum(loss, lost), lost), begun.state)
        if not is_mean:
            return measure(train(begun, steps)[0])
        gains = []
        for point in range(1, POINTS + 1):
            begun, _ = train(begun, steps * point // POINTS)
            gains.append(measure(begun))
        return tf.add_n(gains) / POINTS


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
