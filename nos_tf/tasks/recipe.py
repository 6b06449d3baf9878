"""Long trainings of Keras models on images, as transfer experiments need them (Section 5).

Everything that is random follows from the seed and the number of the epoch, so a training that is taken up from its
checkpoint ends with the same bits as one that never stopped, on the same machine.
"""

import contextlib
import dataclasses
import hashlib
import math
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import gin
import keras
import numpy as np
import tensorflow as tf

from nos_tf.optimizers.contender import Contender
from nos_tf.tasks import machine
from nos_tf.tasks.images import ImageSource, Split

SAVE_SECONDS = 60.0  # between two checkpoints of one training, which end an epoch
EVALUATION_BATCH = 500


class Network(Protocol):
    """A family of networks."""

    def model(self, image_shape: tuple[int, int, int], classes: int, seed: int) -> keras.Model:
        """A new model that gives logits float32 [B, classes]; the same seed gives the same weights."""


class Curve(NamedTuple):
    """What was seen after each epoch."""

    loss: tuple[float, ...] = ()  # mean cross-entropy over the epoch, without weight decay
    validation: tuple[float, ...] = ()  # accuracy
    test: tuple[float, ...] = ()  # accuracy; for reports, never to choose by

    @property
    def epochs(self) -> int:
        """How many there have been."""
        return len(self.loss)


class Trained(NamedTuple):
    """A training that has ended."""

    curve: Curve  # shorter than was asked for if it diverged
    seconds: float
    diverged: bool


@gin.register
@dataclass(frozen=True)
class Recipe:
    """All of a training but the optimizer, its learning rate and the seed.

    Args:
        images: what to classify.
        network: what is trained.
        epochs: of a whole training.
        batch_size: examples of an update; what is left of an epoch is dropped.
        train_examples: the first so many; None for all.
        test_examples: likewise.
        flips: mirror half of the training images.
        shift: move training images by up to so many pixels each way, reflecting at the edge.
        weight_decay: factor of the kernels that is added to their gradients, as an L2 penalty would.

    Raises:
        ValueError: a value out of range; the message names the binding.
    """

    images: ImageSource = gin.REQUIRED
    network: Network = gin.REQUIRED
    epochs: int = 300
    batch_size: int = 100
    train_examples: int | None = None
    test_examples: int | None = None
    flips: bool = False
    shift: int = 0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        for name, verb in (('images', 'load'), ('network', 'model')):
            value = getattr(self, name)
            if isinstance(value, type) or not hasattr(value, verb):
                raise ValueError(f'Recipe.{name} = {value!r}: write @Name(), with brackets')
        for name, least in (
            ('epochs', 1),
            ('batch_size', 1),
            ('train_examples', 1),
            ('test_examples', 1),
            ('shift', 0),
        ):
            value = getattr(self, name)
            if value is None and name.endswith('examples'):
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f'Recipe.{name} = {value!r}: must be a whole number, at least {least}')
        if not isinstance(self.flips, bool):
            raise ValueError(f'Recipe.flips = {self.flips!r}: must be True or False')
        decay = self.weight_decay
        if isinstance(decay, bool) or not isinstance(decay, int | float) or not 0 <= decay < math.inf:
            raise ValueError(f'Recipe.weight_decay = {decay!r}: must be a number, at least 0')

    def identity(self) -> dict[str, Any]:
        """All that a curve depends on but its length, the machine included: name of each part -> JSON value."""
        parts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del parts['epochs']  # a longer training goes on from a shorter one
        for name in ('images', 'network'):
            values = dataclasses.asdict(parts[name])
            kept = {key: value for key, value in values.items() if key not in ('data_dir', 'download')}
            parts[name] = {'kind': type(parts[name]).__name__, **kept}
        return {
            **{f'Recipe.{name}': value for name, value in parts.items()},
            'images': self.images.load().fingerprint(),
            **machine.identity(),
        }


class RecipeTrainer:
    """Trains; the last model is kept, so that another rate of the same optimizer and seed needs no new trace.

    Args:
        recipe: what to do.
        checkpoints: folder for unfinished trainings; made if it does not exist.

    Raises:
        ValueError: the data do not fit the recipe.
        FileNotFoundError: the data are not there.
    """

    def __init__(self, recipe: Recipe, checkpoints: Path) -> None:
        self.recipe, self._checkpoints = recipe, checkpoints
        images = recipe.images.load()
        self._classes, self._shape = images.classes, images.shape
        for name, split in (('train_examples', images.train), ('test_examples', images.test)):
            wanted = getattr(recipe, name)
            if wanted is not None and wanted > len(split.labels):
                raise ValueError(f'Recipe.{name} = {wanted}: {images.name} has {len(split.labels)}')
        train = images.train.head(recipe.train_examples)
        if recipe.batch_size > len(train.labels):
            raise ValueError(f'Recipe.batch_size = {recipe.batch_size}: there are {len(train.labels)} examples')
        if recipe.shift >= min(images.shape[:2]):
            raise ValueError(f'Recipe.shift = {recipe.shift}: images have {min(images.shape[:2])} pixels a side')
        self._train = _tensors(train)
        self._held_out = [_tensors(images.validation), _tensors(images.test.head(recipe.test_examples))]
        self._models: dict[tuple[str, int], _Model] = {}

    def train(self, contender: str, rate: float, seed: int, epochs: int) -> Trained:
        """Trains until there have been so many epochs in all, or until it diverges.

        Args:
            contender: an optimizer as text.
            rate: its learning rate.
            seed: of weights, batches, augmentation and whatever the optimizer draws.
            epochs: of which those in the checkpoint have been done.
        """
        key = (contender, seed)
        if key not in self._models:
            self._models = {key: _Model(self.recipe, Contender(contender), seed, self._shape, self._classes)}
        model = self._models[key]
        path = self.checkpoint(contender, rate, seed)
        trained = model.begin(rate, path)
        saved = time.monotonic()
        while trained.curve.epochs < epochs and not trained.diverged:
            trained = self._epoch(model, trained)
            if time.monotonic() - saved > SAVE_SECONDS:
                model.save(path, trained)
                saved = time.monotonic()
        model.save(path, trained)
        return trained

    def _epoch(self, model: '_Model', trained: Trained) -> Trained:
        start = time.perf_counter()
        curve = trained.curve
        loss = float(model.epoch(*self._train, tf.constant(curve.epochs)))
        diverged = not math.isfinite(loss) or not model.is_finite()
        chance = 1 / self._classes
        accuracies = [chance if diverged else float(model.accuracy(*part)) for part in self._held_out]
        validation, test = accuracies
        curve = Curve(
            (*curve.loss, math.inf if diverged else loss), (*curve.validation, validation), (*curve.test, test)
        )
        return Trained(curve, trained.seconds + time.perf_counter() - start, diverged)

    def checkpoint(self, contender: str, rate: float, seed: int) -> Path:
        """Where the state of a training lies."""
        name = hashlib.sha256(f'{contender}\n{rate!r}\n{seed}'.encode()).hexdigest()[:16]
        return self._checkpoints / f'{name}.npz'


class _Model:
    """A model with its optimizer and what trains them, traced once."""

    def __init__(self, recipe: Recipe, contender: Contender, seed: int, shape: tuple[int, int, int], classes: int):
        self._recipe, self._seed = recipe, seed
        self._model = recipe.network.model(shape, classes, seed)
        self._optimizer = contender.optimizer(1.0, seed)
        self._optimizer.build(self._model.trainable_variables)
        self._variables = [*self._model.variables, *self._optimizer.variables]
        self._start = [np.array(keras.ops.convert_to_numpy(variable)) for variable in self._variables]
        self.epoch = tf.function(self._train_epoch, autograph=False)
        self.accuracy = tf.function(self._accuracy, autograph=False)

    def begin(self, rate: float, path: Path) -> Trained:
        """Takes up a training from its checkpoint, or from the beginning; a damaged checkpoint is none."""
        values, trained = self._start, Trained(Curve(), 0.0, False)
        with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile), np.load(path) as file:
            curve = Curve(*(tuple(part.tolist()) for part in file['curve']))
            values = [file[f'v{i}'] for i in range(len(self._variables))]
            trained = Trained(curve, float(file['seconds']), bool(file['diverged']))
        for variable, value in zip(self._variables, values, strict=True):
            variable.assign(value)
        self._optimizer.learning_rate.assign(rate)
        return trained

    def save(self, path: Path, trained: Trained) -> None:
        """Writes a checkpoint whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix('.draft')
        values = {f'v{i}': keras.ops.convert_to_numpy(variable) for i, variable in enumerate(self._variables)}
        with open(draft, 'wb') as file:
            np.savez(file, curve=np.array(trained.curve), seconds=trained.seconds, diverged=trained.diverged, **values)
        draft.replace(path)

    def is_finite(self) -> bool:
        """Whether all weights are."""
        return all(bool(tf.reduce_all(tf.math.is_finite(v.value))) for v in self._model.trainable_variables)

    def _train_epoch(self, images: tf.Tensor, labels: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        """Updates on every example once; the mean loss, float32 []."""
        size = self._recipe.batch_size
        steps = images.shape[0] // size
        order = tf.random.experimental.stateless_shuffle(tf.range(images.shape[0]), tf.stack([self._seed, number]))
        order = tf.reshape(order[: steps * size], [steps, size])

        def step(i: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            """One update."""
            batch = self._augmented(tf.gather(images, order[i]), tf.stack([self._seed, 1 + number * steps + i]))
            return i + 1, total + self._update(batch, tf.gather(labels, order[i]))

        _, total = tf.while_loop(lambda i, _: i < steps, step, (0, 0.0), parallel_iterations=1)
        return total / steps

    def _update(self, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        weights = self._model.trainable_variables
        with tf.GradientTape() as tape:
            logits = tf.cast(self._model(images, training=True), tf.float32)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        gradients = tape.gradient(loss, [weight.value for weight in weights])
        if self._recipe.weight_decay:
            gradients = [
                gradient + self._recipe.weight_decay * weight.value if len(weight.shape) > 1 else gradient
                for gradient, weight in zip(gradients, weights, strict=True)
            ]
        self._optimizer.apply(gradients, weights)
        return loss

    def _augmented(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        count, height, width, _ = images.shape
        if self._recipe.flips:
            mirrored = tf.random.stateless_uniform([count, 1, 1, 1], seed) < 0.5
            images = tf.where(mirrored, images[:, :, ::-1], images)
        if s := self._recipe.shift:
            images = tf.pad(images, [[0, 0], [s, s], [s, s], [0, 0]], 'REFLECT')
            corner = tf.random.stateless_uniform([2, count, 1], seed, 0, 2 * s + 1, tf.int32)
            images = tf.gather(images, corner[0] + tf.range(height), axis=1, batch_dims=1)
            images = tf.gather(images, corner[1] + tf.range(width), axis=2, batch_dims=1)
        return images

    def _accuracy(self, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """The share that is classified rightly, float32 []."""
        count = images.shape[0]

        def count_right(start: tf.Tensor, right: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            """Classifies a batch."""
            logits = self._model(images[start : start + EVALUATION_BATCH], training=False)
            hits = tf.argmax(logits, -1, tf.int32) == labels[start : start + EVALUATION_BATCH]
            return start + EVALUATION_BATCH, right + tf.math.count_nonzero(hits, dtype=tf.int32)

        _, right = tf.while_loop(lambda start, _: start < count, count_right, (0, 0), parallel_iterations=1)
        return tf.cast(right, tf.float32) / count


def _tensors(split: Split) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.constant(split.images), tf.constant(split.labels)
