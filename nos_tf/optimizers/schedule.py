"""The schedule of a learning rate: constant, or linear or cosine to zero, with a warm-up."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

SCHEDULES = ('constant', 'linear', 'cosine')


@keras.saving.register_keras_serializable('nos_tf')
@dataclass(frozen=True)
class Schedule(LearningRateSchedule):
    """A learning rate λ f(t) w(t): f is 1, 1 − t/T or (1 + cos(πt/T)) / 2, the latter two 0 from step T on.

    Args:
        learning_rate: λ.
        steps: T.
        kind: 'constant', 'linear' or 'cosine'.
        warmup_steps: W of the warm-up w(t) = min(1, (t + 1) / W); 0 for none.

    Raises:
        ValueError: an unknown kind.

    >>> [round(float(Schedule(0.1, 4, 'linear')(step)), 3) for step in (0, 1, 4, 9)]
    [0.1, 0.075, 0.0, 0.0]
    """

    learning_rate: float
    steps: int
    kind: str = 'constant'
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        if self.kind not in SCHEDULES:
            raise ValueError(f'Schedule.kind = {self.kind!r}: choose from {", ".join(SCHEDULES)}')

    def __call__(self, step: Any) -> Any:
        """Returns the rate after `step` updates."""
        return self.learning_rate * self.factor(step)

    def factor(self, step: Any) -> Any:
        """Returns the rate after `step` updates, as a share of λ."""
        step = ops.cast(step, 'float32')
        done = ops.minimum(step / self.steps, 1.0)
        left = {'constant': 1.0, 'linear': 1.0 - done, 'cosine': 0.5 * (1.0 + ops.cos(math.pi * done))}[self.kind]
        return left * (ops.minimum(1.0, (step + 1.0) / self.warmup_steps) if self.warmup_steps else 1.0)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return asdict(self)
