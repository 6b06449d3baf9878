"""The control experiment of Section 5.1: optimizers on the Rosenbrock function, f(x, y) = (1 - x)^2 + 100 (y - x^2)^2.

A long, curved, narrow valley; the optimum is (1, 1). Optimizers of Keras and rules run in the same traced loop.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from nos_tf.optimizers.averages import finalised
from nos_tf.optimizers.contender import Contender
from nos_tf.tasks.task import check_backend

START = (-1.2, 1.0)  # Rosenbrock 1960; the paper does not say where it starts
OPTIMUM = (1.0, 1.0)
LOST = 1e100  # a distance from which there is no way back, and which can still be drawn


class Walk(NamedTuple):
    """The way of an optimizer at one learning rate."""

    contender: str
    rate: float
    points: np.ndarray  # float64 [steps + 1, 2], from the start on

    @property
    def distances(self) -> np.ndarray:
        """From the optimum, after each step: float64 [steps + 1]; infinite from the first on that is beyond `LOST`."""
        with np.errstate(over='ignore', invalid='ignore'):
            distances = np.hypot(*(self.points - OPTIMUM).T)
        return np.where(np.logical_and.accumulate(distances < LOST), distances, np.inf)

    @property
    def diverged(self) -> bool:
        """Whether it was ever that far."""
        return not np.isfinite(self.distances[-1])


def rosenbrock(x: Any, y: Any) -> Any:
    """The function, of numbers, arrays or tensors."""
    return (1.0 - x) ** 2 + 100.0 * (y - x**2) ** 2


def suited(text: str) -> Contender:
    """Returns an optimizer that can walk as itself.

    Raises:
        ValueError: the text is no optimizer, a constant of it changes nothing, or it would be another one here.
    """
    contender = Contender(text)
    contender.check(has_embeddings=False)
    if text.startswith('keras.Muon'):
        raise ValueError(
            f'optimizer {text!r}: x and y are no matrix, which Muon is for: write keras.AdamW, as it would be'
        )
    return contender


def walk(contender: str, rates: Sequence[float], steps: int, start: tuple[float, float] = START) -> list[Walk]:
    """Lets an optimizer go from the start at each learning rate, in float64.

    Args:
        contender: an optimizer as text (`nos_tf.optimizers.contender`).
        rates: learning rates.
        steps: updates at each.
        start: x, y.

    Raises:
        ValueError: as `suited`, or the backend of Keras is not TensorFlow.
    """
    check_backend('a walk')
    place = keras.Variable(start, dtype='float64')
    optimizer = suited(contender).optimizer(1.0, seed=0, total_steps=steps)
    optimizer.build([place])
    variables = [place, *optimizer.variables]
    beginning = [keras.ops.convert_to_numpy(variable) for variable in variables]

    def step(i: tf.Tensor, points: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        """One update."""
        with tf.GradientTape() as tape:
            value = rosenbrock(*tf.unstack(place.value))
        optimizer.apply([tape.gradient(value, place.value)], [place])
        with finalised(optimizer, [place]):
            point = tf.identity(place.value)
        return i + 1, points.write(i, point)

    @tf.function(autograph=False)
    def go() -> tf.Tensor:
        """All of them."""
        points = tf.TensorArray(tf.float64, steps, element_shape=[2])
        return tf.while_loop(lambda i, _: i < steps, step, (0, points), parallel_iterations=1)[1].stack()

    way = go.get_concrete_function()
    walks = []
    for rate in rates:
        for variable, value in zip(variables, beginning, strict=True):
            variable.assign(value)
        optimizer.learning_rate.assign(rate)
        walks.append(Walk(contender, rate, np.concatenate([[start], way().numpy()])))
    return walks
