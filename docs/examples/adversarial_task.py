"""A task by hand: two networks against each other, which no single Keras loss describes.

A generator learns to draw points from eight clouds on a circle; a discriminator learns to tell its points from real
ones. All weights of both are one vector, which one rule updates; the gradient of each half is that of its own loss.
Momentum, and so Adam, does harm here; RMSProp does not.

python docs/examples/adversarial_task.py
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from nos_tf import Search
from nos_tf.tasks.task import Gradient

NOISE, UNITS, HELD_OUT = 4, 32, 500
WORST = -4.0  # no measure is below: a training that diverges is no worse than this


@dataclass(frozen=True)
class Ring:
    """The task as a value: small, and the same wherever it is unpickled.

    Args:
        steps: updates of a training.
        batch_size: real points, and generated ones, of an update.
    """

    steps: int = 600
    batch_size: int = 64

    chance: ClassVar[None] = None  # no reward is known without training

    def identity(self) -> dict[str, Any]:
        """Returns all that a measure depends on: what is on file is used again only where this is the same."""
        return {'Ring.steps': self.steps, 'Ring.batch_size': self.batch_size}

    def load(self) -> 'LoadedRing':
        """Returns the task at work."""
        return LoadedRing(self)

    def __str__(self) -> str:
        return 'points on a circle, generated against a discriminator; measured is minus the energy distance'


class LoadedRing:
    """The task in a process that trains."""

    def __init__(self, task: Ring) -> None:
        self.steps, self.steps_per_epoch = task.steps, math.ceil(task.steps / 6)
        self.batch_size = task.batch_size
        random = np.random.default_rng(0)
        self.data = {name: tf.constant(_ring(random, count)) for name, count in (('train', 2000), ('held', HELD_OUT))}
        shapes = [(NOISE, UNITS), (UNITS,), (UNITS, 2), (2,)], [(2, UNITS), (UNITS,), (UNITS, 1), (1,)]
        self.generator, self.discriminator = shapes
        self.generator_size = sum(math.prod(shape) for shape in self.generator)

    def start(self, seed: int) -> tuple[tf.Tensor, tuple]:
        """Returns the weights that a seed starts from; there is no other state."""
        random = np.random.default_rng(seed)
        parts = [
            random.normal(0, 1 / math.sqrt(shape[0]), shape) if len(shape) > 1 else np.zeros(shape)
            for shape in (*self.generator, *self.discriminator)
        ]
        return tf.constant(np.concatenate([part.ravel() for part in parts]), tf.float32), ()

    def batches(self, seed: tf.Tensor) -> tf.Tensor:
        """Returns the seed: each step draws from it."""
        return seed

    def gradient(self, data: Any, batches: tf.Tensor, step: tf.Tensor, weights: tf.Tensor, state: tuple) -> Gradient:
        """Returns the gradient of each player's own loss, as one vector."""
        key = tf.stack([batches, step])
        real = tf.gather(data['train'], tf.random.stateless_uniform([self.batch_size], key, 0, 2000, tf.int32))
        noise = tf.random.stateless_normal([self.batch_size, NOISE], key)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(weights)
            fake = self._network(weights, self.generator, 0, noise)
            says_fake, says_real = (
                self._network(weights, self.discriminator, self.generator_size, x) for x in (fake, real)
            )
            discriminates = tf.reduce_mean(tf.nn.softplus(says_fake) + tf.nn.softplus(-says_real))
            deceives = tf.reduce_mean(tf.nn.softplus(-says_fake))
        of_generator, of_discriminator = (tape.gradient(loss, weights) for loss in (deceives, discriminates))
        own = tf.concat([of_generator[: self.generator_size], of_discriminator[self.generator_size :]], 0)
        return Gradient(discriminates + deceives, own, state)

    def measure(self, data: Any, weights: tf.Tensor, state: tuple) -> tf.Tensor:
        """Returns minus the energy distance (Székely & Rizzo 2013) between generated and held-out points."""
        noise = tf.random.stateless_normal([HELD_OUT, NOISE], [0, 1])
        fake, real = self._network(weights, self.generator, 0, noise), data['held']
        found = _distance(fake, fake) + _distance(real, real) - 2 * _distance(fake, real)
        return tf.where(tf.math.is_finite(found), tf.maximum(found, WORST), WORST)

    def _network(self, weights: tf.Tensor, shapes: list[tuple[int, ...]], first: int, x: tf.Tensor) -> tf.Tensor:
        """The output of a network whose weights begin at `first`."""
        parts = []
        for shape in shapes:
            parts.append(tf.reshape(weights[first : first + math.prod(shape)], shape))
            first += math.prod(shape)
        matrix, bias, output, offset = parts
        return tf.nn.relu(x @ matrix + bias) @ output + offset


def _ring(random: np.random.Generator, count: int) -> np.ndarray:
    angle = random.integers(0, 8, count) * (2 * np.pi / 8)
    return (np.stack([np.cos(angle), np.sin(angle)], 1) + random.normal(0, 0.05, (count, 2))).astype(np.float32)


def _distance(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """The mean distance between points of two sets."""
    return tf.reduce_mean(tf.norm(x[:, None] - y[None] + 1e-12, axis=-1))


if __name__ == '__main__':
    search = Search(Ring(), run_dir='runs/ring', children=100)
    print(search.estimate())
    search.run()
    print(search.best())
