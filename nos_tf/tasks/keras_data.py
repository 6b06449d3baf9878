"""The data of a Keras task: arrays, datasets that are held in memory, and streams."""

import hashlib
import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf


class Data(NamedTuple):
    """Tensors of one length each: (x,), (x, y) or (x, y, sample_weight), in whatever structure."""

    train: Any
    validation: Any


def count(examples: Any) -> int:
    """Returns the number of examples."""
    return tf.nest.flatten(examples)[0].shape[0]


def at(examples: Any, indices: Any) -> Any:
    """Returns a minibatch."""
    return tf.nest.map_structure(lambda part: tf.gather(part, indices), examples)


def fingerprint(examples: Any) -> str:
    """Returns a hash of all values."""
    digest = hashlib.sha256()
    for part in tf.nest.flatten(examples):
        digest.update(f'{part.dtype.name} {part.shape}'.encode())
        values = part.numpy()
        digest.update(b'\0'.join(values.ravel().tolist()) if part.dtype == tf.string else np.ascontiguousarray(values))
    return digest.hexdigest()[:16]


def examples(name: str, given: Any, memory: int) -> Any:
    """Returns the data of an argument as tensors.

    Raises:
        ValueError: they do not fit each other, are none, or need too much memory.
    """
    if isinstance(given, tf.data.Dataset):
        given = _held(name, given, memory)
    if not isinstance(given, list | tuple) or not 1 <= len(given) <= 3:
        raise ValueError(
            f'KerasTask.{name}: must be (x, y), (x, y, sample_weight) or a tf.data.Dataset of such batches, and is a '
            f'{type(given).__name__}'
        )
    given = tuple(part for part in given if part is not None)
    try:
        found = tf.nest.map_structure(tf.convert_to_tensor, given)
    except (TypeError, ValueError) as error:
        raise ValueError(f'KerasTask.{name}: must be arrays of numbers or texts ({error})') from error
    lengths = sorted({part.shape[0] if part.shape.rank else 0 for part in tf.nest.flatten(found)})
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f'KerasTask.{name}: arrays of {lengths} examples: must all have the same number, not 0')
    return found


def _held(name: str, dataset: tf.data.Dataset, memory: int) -> Any:
    """All batches of a dataset, joined."""
    batches, size = [], 0
    for batch in dataset:
        size += sum(part.numpy().nbytes for part in tf.nest.flatten(batch))
        if size > memory:
            raise ValueError(
                f'KerasTask.{name}: the dataset takes more than the {memory:,} bytes of KerasTask.memory: allow more, '
                'or take a part of it (does it end?)'
            )
        batches.append(batch)
    if not batches:
        raise ValueError(f'KerasTask.{name}: the dataset is empty')
    try:
        return tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *batches)
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(
            f'KerasTask.{name}: its batches cannot be joined, pad examples to one shape ({error.message})'
        ) from error


def weighed(examples: Any, class_weight: Mapping[int, float] | None) -> Any:
    """Returns the examples with weights that are those of their classes."""
    if class_weight is None:
        return examples
    x, y, weights = keras.utils.unpack_x_y_sample_weight(examples)
    if y is None or tf.nest.is_nested(y):
        raise ValueError('KerasTask.class_weight: needs a single y, of classes')
    classes = tf.argmax(y, -1) if len(y.shape) > 1 and y.shape[-1] > 1 else tf.reshape(y, [-1])
    found = sum(tf.where(classes == tf.cast(c, classes.dtype), w - 1.0, 0.0) for c, w in class_weight.items()) + 1.0
    return x, y, found if weights is None else found * tf.cast(weights, tf.float32)


class Stream:
    """Batches of a function of (seed, epoch), one after the other; whoever asks for an earlier one begins anew."""

    def __init__(self, function: Callable[[int, int], tf.data.Dataset]) -> None:
        self._function = function
        self._at: tuple[int, int] | None = None  # the seed, and the step of the last batch
        self.batch = next(self._epoch(0, 0), None)
        if self.batch is None:
            raise ValueError('KerasTask.train: the dataset of epoch 0 is empty')
        self._shapes = [part.shape for part in tf.nest.flatten(self.batch)]

    def _epoch(self, seed: int, epoch: int) -> Any:
        dataset = self._function(seed, epoch)
        if not isinstance(dataset, tf.data.Dataset):
            raise ValueError(f'KerasTask.train: the function returned a {type(dataset).__name__}, no tf.data.Dataset')
        return iter(dataset)

    def _all(self, seed: int) -> Any:
        for epoch in itertools.count():
            empty = True
            for batch in self._epoch(seed, epoch):
                empty = False
                yield batch
            if empty:
                raise ValueError(f'KerasTask.train: the dataset of epoch {epoch} is empty')

    def get(self, seed: np.ndarray, step: np.ndarray) -> list[np.ndarray]:
        """Returns the batch of a step."""
        at = int(seed), int(step)
        if self._at is None or at != (self._at[0], self._at[1] + 1):
            self._batches = itertools.islice(self._all(at[0]), at[1], None)
        self._at, parts = at, tf.nest.flatten(next(self._batches))
        if [part.shape for part in parts] != self._shapes:
            raise ValueError('KerasTask.train: batches of other shapes than the first: drop the remainder')
        return [part.numpy() for part in parts]
