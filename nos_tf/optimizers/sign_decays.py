"""Sign decays: factors by which the signs within a rule fade as training goes on: g * exp(sign(g) * sign(m)) ends as g.

A decay is a Keras schedule from the number of steps done to a factor; each product of signs in the rule is multiplied
by it (`nos_tf.dsl.expression.evaluate`). A schedule of Keras serves as well, such as
`keras.optimizers.schedules.CosineDecay(1.0, 500)`.

Reference:
    PowerSignOptimizer, AddSignOptimizer and sign_decay of tf.contrib.opt (TensorFlow 1), by the authors of the paper.
"""

import math
from dataclasses import asdict, dataclass, fields
from numbers import Real
from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

Tensor = Any  # of whichever backend Keras runs on


@dataclass(frozen=True)
class _SignDecay(LearningRateSchedule):
    """A schedule whose fields are positive numbers or, where that is the default, None."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.default is None:
                continue
            if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < math.inf:
                raise ValueError(f'{field.name} = {value!r}: must be a positive number')
            object.__setattr__(self, field.name, float(value))

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return asdict(self)


@keras.saving.register_keras_serializable('nos_tf')
@dataclass(frozen=True)
class LinearSignDecay(_SignDecay):
    """1 − t/T, and 0 from step T on.

    Args:
        decay_steps: T, in steps.

    Raises:
        ValueError: T is no positive number.

    >>> [float(LinearSignDecay(4)(step)) for step in (0, 1, 4, 9)]
    [1.0, 0.75, 0.0, 0.0]
    """

    decay_steps: float

    def __call__(self, step: Tensor) -> Tensor:
        """The factor after `step` updates."""
        return 1.0 - _fraction(step, self.decay_steps)


@keras.saving.register_keras_serializable('nos_tf')
@dataclass(frozen=True)
class CosineSignDecay(_SignDecay):
    """(1 + cos(2πp t/T)) / 2, and what it is at T from there on.

    Args:
        decay_steps: T, in steps.
        num_periods: p, of the cosine within T steps; 1/2 ends at 0.
        zero_after: the number of periods after which the factor is 0; None for never.

    Raises:
        ValueError: an argument is no positive number.

    >>> [round(float(CosineSignDecay(4)(step)), 3) for step in (0, 1, 2, 4, 9)]
    [1.0, 0.854, 0.5, 0.0, 0.0]
    """

    decay_steps: float
    num_periods: float = 0.5
    zero_after: float | None = None

    def __call__(self, step: Tensor) -> Tensor:
        """The factor after `step` updates."""
        periods = self.num_periods * _fraction(step, self.decay_steps)
        return _zero_after(self.zero_after, periods, _half_cosine(2.0 * periods))


@keras.saving.register_keras_serializable('nos_tf')
@dataclass(frozen=True)
class RestartSignDecay(_SignDecay):
    """(1 + cos(π (pt/T mod 1))) / 2: falls from 1 to 0 p times in T steps (Loshchilov & Hutter 2017).

    Args:
        decay_steps: T, in steps; from there on the factor is what it is at T: 1 for a whole number of periods, which
            is where the next would begin.
        num_periods: p, in T steps.
        zero_after: the number of periods after which the factor is 0; None for never.

    Raises:
        ValueError: an argument is no positive number.

    >>> [round(float(RestartSignDecay(8, num_periods=2)(step)), 3) for step in (0, 1, 3, 4, 7)]
    [1.0, 0.854, 0.146, 1.0, 0.146]
    """

    decay_steps: float
    num_periods: float = 1.0
    zero_after: float | None = None

    def __call__(self, step: Tensor) -> Tensor:
        """The factor after `step` updates."""
        periods = self.num_periods * _fraction(step, self.decay_steps)
        return _zero_after(self.zero_after, periods, _half_cosine(periods % 1.0))


def _fraction(step: Tensor, decay_steps: float) -> Tensor:
    return ops.minimum(ops.cast(step, 'float32') / decay_steps, 1.0)


def _half_cosine(half_turns: Tensor) -> Tensor:
    return 0.5 * (1.0 + ops.cos(math.pi * half_turns))


def _zero_after(limit: float | None, periods: Tensor, factor: Tensor) -> Tensor:
    return factor if limit is None else ops.where(periods >= limit, 0.0, factor)
