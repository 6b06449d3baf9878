"""Trains any optimizer on any task, and leaves a curve of the measure: a rule, one of Keras, or somebody's own."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from nos_tf.errors import RunError
from nos_tf.optimizers.averages import finalised
from nos_tf.optimizers.contender import Contender
from nos_tf.optimizers.schedule import Schedule
from nos_tf.tasks.task import Task

MOST_KEPT, WEIGHTS_KEPT = 32, 4_000_000

Own = Callable[[float], keras.optimizers.Optimizer]  # takes the learning rate


class Curve(NamedTuple):
    """A training, measured on the way; where it diverges, its measures stay as they were found then."""

    steps: tuple[int, ...]  # updates done at each measure
    measures: tuple[float, ...]  # of the task, on validation data: the higher, the better
    losses: tuple[float, ...]  # mean training loss of the updates since the measure before; NaN where it diverged
    step_seconds: float  # of one update: the lower quartile over what lies between two measures, for others disturb
    diverged: bool

    def at(self, step: int) -> float:
        """Returns the measure after so many updates, of those that were measured."""
        return self.measures[self.steps.index(step)]

    def as_json(self) -> dict[str, Any]:
        """It as JSON values."""
        return {**self._asdict(), 'losses': [None if math.isnan(loss) else loss for loss in self.losses]}

    @classmethod
    def of_json(cls, fields: Mapping[str, Any]) -> 'Curve':
        """The inverse of `as_json`."""
        losses = tuple(math.nan if loss is None else loss for loss in fields['losses'])
        return cls(
            **{**fields, 'steps': tuple(fields['steps']), 'measures': tuple(fields['measures']), 'losses': losses}
        )


@dataclass(frozen=True)
class CurveSetup:
    """All that a process needs to train optimizers on a task.

    Args:
        task: what is trained, for as many updates as a training may have.
        measured: updates after which it is measured, ascending.
        own: optimizers of somebody's own by name; all others are texts (`nos_tf.optimizers.contender`).
        schedule: of the learning rate over the updates of a training, times that of the task: 'constant', or 'linear'
            or 'cosine' to zero.
    """

    task: Task
    measured: tuple[int, ...]
    own: Mapping[str, Own]
    schedule: str = 'constant'

    def identity(self) -> dict[str, Any]:
        """Returns all that a curve depends on but the machine."""
        return {**self.task.identity(), 'Bench.measured': list(self.measured), 'Bench.schedule': self.schedule}

    def trainer(self) -> 'CurveTrainer':
        """Returns what trains."""
        return CurveTrainer(self)


class CurveTrainer:
    """Trains optimizers as Keras has them, each on variables of the shapes of the model.

    The gradient is traced once, and the optimizer once for each that comes: the last `MOST_KEPT` are kept, but no more
    than have `WEIGHTS_KEPT` weights between them.

    Raises:
        ValueError: the data do not fit the task.
    """

    def __init__(self, setup: CurveSetup) -> None:
        self._setup, self.task = setup, setup.task.load()
        self._compiled = {'autograph': False, 'jit_compile': getattr(self.task, 'jit_compile', False) or None}
        self.gradient = tf.function(self.task.gradient, autograph=False)
        self.measure = tf.function(self.task.measure, **self._compiled)
        self._batches = tf.function(self.task.batches, autograph=False)
        self._trainings: dict[Any, _Training] = {}  # the last used is the last
        self._kept = min(MOST_KEPT, max(1, WEIGHTS_KEPT // int(self.task.start(0)[0].shape[0])))

    def train(self, contender: str, rate: float, seed: int, length: int) -> Curve:
        """Returns the curve of a training.

        Args:
            contender: an optimizer as text, or the name of one of somebody's own.
            rate: its learning rate, at its highest.
            seed: of weights, order and whatever the optimizer draws.
            length: updates.

        Raises:
            RunError: the optimizer cannot be made, or the task measures what is no number.
        """
        own = self._setup.own.get(contender)
        rule = None if own else Contender(contender).rule
        reads_progress, is_stochastic = bool(rule and rule.reads_progress), bool(rule and rule.is_stochastic)
        key = contender, seed if is_stochastic else 0, length if reads_progress else 0, own and rate
        training = self._trainings.pop(key, None)
        if training is None:
            while len(self._trainings) >= self._kept:
                del self._trainings[next(iter(self._trainings))]
            made = made_by(contender, own, rate) if own else Contender(contender).optimizer(1.0, key[1], length)
            training = _Training(self, made, self._compiled)
        self._trainings[key] = training
        return self._curve(training, Schedule(rate, length, self._setup.schedule), seed, length)

    def _curve(self, training: '_Training', schedule: Schedule, seed: int, length: int) -> Curve:
        weights, state = self.task.start(seed)
        training.begin(weights)
        batches = self._batches(tf.constant(seed))
        rates = np.full(length, schedule.learning_rate, np.float32) * np.float32(schedule.factor(np.arange(length)))
        steps = [step for step in self._setup.measured if step <= length]
        measures, losses, seconds, lost = [], [], [], False
        for first, last in zip([0, *steps], steps, strict=False):
            if not lost:
                start = time.perf_counter()
                state, loss, lost = training.advance(batches, rates, state, first, last)
                seconds.append((time.perf_counter() - start) / (last - first))
                measure = float(training.measured(state))
                if not math.isfinite(measure):
                    raise RunError(getattr(self.task, 'undefined', '') or f'{self.task} has measured what is no number')
            measures.append(measure)
            losses.append(math.nan if lost else loss)
        return Curve(tuple(steps), tuple(measures), tuple(losses), float(np.quantile(seconds, 0.25)), lost)


class _Training:
    """A model with an optimizer, and what trains them, traced once."""

    def __init__(
        self, trainer: CurveTrainer, optimizer: keras.optimizers.Optimizer, compiled: Mapping[str, Any]
    ) -> None:
        self._trainer, self._optimizer = trainer, optimizer
        size = int(trainer.task.start(0)[0].shape[0])
        variables = getattr(trainer.task, 'variables', None) or [('weights', (size,))]
        self._variables = [keras.Variable(np.zeros(shape, np.float32), name=name) for name, shape in variables]
        self._sizes = [math.prod(shape) for _, shape in variables]
        optimizer.build(self._variables)
        self._begin = [keras.ops.copy(variable) for variable in optimizer.variables]
        self._advance = tf.function(self._steps, **compiled)

    def begin(self, weights: tf.Tensor) -> None:
        """Sets the weights, and the optimizer as it was made."""
        for variable, part in zip(self._variables, tf.split(weights, self._sizes), strict=True):
            variable.assign(tf.reshape(part, variable.shape))
        for variable, value in zip(self._optimizer.variables, self._begin, strict=True):
            variable.assign(value)

    def advance(self, batches: Any, rates: np.ndarray, state: Any, first: int, last: int) -> tuple[Any, float, bool]:
        """Returns the state of the model after more updates, their mean loss, and whether all weights are lost."""
        bounds = tf.constant(first), tf.constant(last)
        state, loss = self._advance(self._trainer.task.data, batches, tf.constant(rates), state, *bounds)
        lost = math.isnan(loss) and bool(tf.reduce_all(tf.math.is_nan(self._weights())))
        return state, float(loss), lost

    def measured(self, state: Any) -> tf.Tensor:
        """Returns the measure of the model, were this the end of the training."""
        with finalised(self._optimizer, self._variables):
            return self._trainer.measure(self._trainer.task.data, self._weights(), state)

    def _weights(self) -> tf.Tensor:
        return tf.concat([tf.reshape(variable.value, [-1]) for variable in self._variables], 0)

    def _steps(
        self, data: Any, batches: Any, rates: tf.Tensor, state: Any, first: tf.Tensor, last: tf.Tensor
    ) -> tuple[Any, tf.Tensor]:
        task, optimizer = self._trainer.task, self._optimizer
        schedule, decay = (getattr(task, name, None) for name in ('schedule', 'decay'))

        def step(i: tf.Tensor, state: Any, total: tf.Tensor) -> tuple[tf.Tensor, Any, tf.Tensor]:
            """Does one update."""
            weights = self._weights()
            loss, gradient, state = self._trainer.gradient(data, batches, i, weights, state)
            rate = rates[i] if schedule is None else rates[i] * schedule(i)
            if decay is not None:
                for variable, part in zip(self._variables, tf.split(1.0 - rate * decay, self._sizes), strict=True):
                    variable.assign(variable.value * tf.reshape(part, variable.shape))
            optimizer.learning_rate.assign(rate)
            gradients = zip(tf.split(gradient, self._sizes), self._variables, strict=True)
            optimizer.apply([tf.reshape(part, variable.shape) for part, variable in gradients], self._variables)
            return i + 1, state, total + loss

        loop = tf.while_loop(lambda i, *_: i < last, step, (first, state, 0.0), parallel_iterations=1)
        return loop[1], loop[2] / tf.cast(last - first, tf.float32)


def made_by(name: str, make: Own, rate: float) -> keras.optimizers.Optimizer:
    """Returns an optimizer of somebody's own.

    Raises:
        ValueError: there is none, or its learning rate cannot be set.
    """
    try:
        made = make(rate)
    except Exception as error:  # whatever it raises
        raise ValueError(f'optimizer {name!r}: raised {type(error).__name__}: {error}') from error
    if not isinstance(made, keras.optimizers.Optimizer):
        raise ValueError(
            f'optimizer {name!r}: returned {made!r}: must be a function of a learning rate that returns a '
            'keras.optimizers.Optimizer'
        )
    if not isinstance(made.learning_rate, keras.Variable):
        raise ValueError(
            f'optimizer {name!r}: has a schedule of its own: let it take the learning rate as it is given, '
            'and use Bench.schedule'
        )
    return made
