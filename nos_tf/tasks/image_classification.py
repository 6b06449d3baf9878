"""The paper's task: a small ConvNet that classifies images, and its accuracy on a validation set (Section 4.2)."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import gin
import tensorflow as tf

from nos_tf.config import Configured, Count, bindings_of
from nos_tf.tasks.convnet import ConvNet
from nos_tf.tasks.data import Digits, ImageSource
from nos_tf.tasks.task import Gradient


@gin.register
@dataclass(frozen=True)
class ImageClassification(Configured):
    """Images, a ConvNet, and how long it trains on them; the defaults are the paper's, but for the data.

    Args:
        images: the source of the data.
        network: what is trained.
        epochs: of a whole training.
        train_examples: how many of the training images are used, every epoch the same; None for all.
        batch_size: in examples; must divide the number of training examples.
    """

    images: ImageSource = Digits()
    network: ConvNet = ConvNet()
    epochs: Count = 5
    train_examples: Count | None = None
    batch_size: Count = 100

    @property
    def chance(self) -> float:
        """The accuracy of a guess, 1 / classes."""
        return 1 / self.images.load().classes

    def identity(self) -> dict[str, Any]:
        """Returns the bindings, and a hash of the images."""
        return {**bindings_of(self), 'images': self.images.load().fingerprint()}

    def load(self) -> '_Loaded':
        """Returns the task with its images."""
        return _Loaded(self)

    def __str__(self) -> str:
        count = 'all' if self.train_examples is None else f'{self.train_examples:,}'
        source = {k.partition('.')[2]: v for k, v in bindings_of(self.images).items() if v is not None}
        told = ', '.join(f'{k} = {v}' for k, v in {'source': type(self.images).__name__, **source}.items())
        return (
            f'a ConvNet with {self.network.filters} filters on {count} training images ({told}); '
            'measured is the accuracy on validation images'
        )


class _Examples(NamedTuple):
    images: tf.Tensor
    labels: tf.Tensor


class _Data(NamedTuple):
    train: _Examples
    validation: _Examples


class _Loaded:
    """The task at work."""

    def __init__(self, task: ImageClassification) -> None:
        images = task.images.load()
        self.task, self.network, self.shape = task, task.network, images.shape
        train = images.train.head(task.train_examples)
        count = len(train.labels)
        if count < (task.train_examples or 1):
            raise ValueError(f'ImageClassification.train_examples = {task.train_examples}: {images.name} has {count}')
        if count % task.batch_size:
            raise ValueError(f'ImageClassification.batch_size = {task.batch_size}: must divide {count} examples')
        self.classes, self.steps_per_epoch = images.classes, count // task.batch_size
        self.steps = task.epochs * self.steps_per_epoch
        parts = train, images.validation
        self.data = _Data(*(_Examples(tf.constant(part.images), tf.constant(part.labels)) for part in parts))

    def __str__(self) -> str:
        return f'a batch of {self.task.batch_size} images of {"x".join(map(str, self.shape))} on {self.network}'

    def start(self, seed: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns weights, and the running statistics of both normalisations."""
        return self.network.initial_weights(self.shape, self.classes, seed), self.network.initial_statistics()

    def batches(self, seed: tf.Tensor) -> tf.Tensor:
        """Returns the examples of each step, every epoch shuffled anew: int32 [steps, batch]."""
        examples = tf.range(self.steps_per_epoch * self.task.batch_size)
        shuffle = partial(tf.random.experimental.stateless_shuffle, examples)
        shuffled = [shuffle(tf.stack([seed, 1000 + epoch])) for epoch in range(self.task.epochs)]
        return tf.reshape(tf.concat(shuffled, 0), [-1, self.task.batch_size])

    def gradient(
        self, data: _Data, batches: tf.Tensor, step: tf.Tensor, weights: tf.Tensor, state: tf.Tensor
    ) -> Gradient:
        """Returns the gradient of the mean cross-entropy of a minibatch."""
        images, labels = (tf.gather(part, batches[step]) for part in data.train)
        return self.network.gradient(weights, state, images, labels, self.classes)

    def measure(self, data: _Data, weights: tf.Tensor, state: tf.Tensor) -> tf.Tensor:
        """Returns the share of the validation set that is classified rightly."""
        images, labels = data.validation
        batch = self.task.batch_size
        count = labels.shape[0]

        def count_right(start: tf.Tensor, right: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            """Classifies a batch."""
            logits = self.network.logits(weights, state, images[start : start + batch], self.classes)
            hits = tf.argmax(logits, axis=-1, output_type=tf.int32) == labels[start : start + batch]
            return start + batch, right + tf.math.count_nonzero(hits, dtype=tf.int32)

        _, right = tf.while_loop(lambda start, _: start < count, count_right, (0, 0), parallel_iterations=1)
        return tf.cast(right, tf.float32) / count
