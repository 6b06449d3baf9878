"""Long trainings of Keras models on images, as transfer experiments need them (Section 5).

Everything that is random follows from the seed and the number of the epoch, so a training that is taken up from its
checkpoint ends with the same bits as one that never stopped, on the same machine.
"""

import hashlib
import json
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Protocol, runtime_checkable

import gin
import keras
import numpy as np
import tensorflow as tf

from nos_tf import files, output
from nos_tf.config import Configured, Count, Incidental, Natural, at_least, bindings_of
from nos_tf.optimizers.averages import finalised
from nos_tf.optimizers.contender import Contender
from nos_tf.tasks.data import Images, ImageSource, Split
from nos_tf.tasks.keras_task import KerasTask

SAVE_SECONDS = 60.0  # between two checkpoints of one training, which end an epoch
EVALUATION_BATCH = 500


@runtime_checkable
class Network(Protocol):
    """A family of networks."""

    def model(self, image_shape: tuple[int, int, int], classes: int, seed: int) -> keras.Model:
        """A new model that gives logits float32 [B, classes]; the same seed gives the same weights."""


class Curve(NamedTuple):
    """Measurements after each epoch."""

    loss: tuple[float, ...] = ()  # mean cross-entropy over the epoch, without weight decay
    validation: tuple[float, ...] = ()  # accuracy
    test: tuple[float, ...] = ()  # accuracy; for reports, never to choose by

    @property
    def epochs(self) -> int:
        """The number of epochs."""
        return len(self.loss)

    def until(self, epochs: int) -> 'Curve':
        """Returns the curve of the first epochs."""
        return Curve(*(values[:epochs] for values in self))


class Trained(NamedTuple):
    """A training that has ended."""

    curve: Curve  # shorter than was asked for if it diverged
    seconds: float
    diverged: bool

    def until(self, epochs: int) -> 'Trained':
        """Returns the training as it was after so many epochs, without what came later, such as that it diverged."""
        return self._replace(curve=self.curve.until(epochs), diverged=self.diverged and self.curve.epochs <= epochs)

    def as_json(self) -> dict[str, Any]:
        """It as JSON values."""
        return {**self._asdict(), 'curve': self.curve._asdict()}

    @classmethod
    def of_json(cls, fields: Mapping[str, Any]) -> 'Trained':
        """The inverse of `as_json`."""
        curve = Curve(**{name: tuple(values) for name, values in fields['curve'].items()})
        return cls(**{**fields, 'curve': curve})


@gin.register
@dataclass(frozen=True)
class Recipe(Configured):
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
    epochs: Annotated[Count, Incidental] = 300  # a longer training goes on from a shorter one
    batch_size: Count = 100
    train_examples: Count | None = None
    test_examples: Count | None = None
    flips: bool = False
    shift: Natural = 0
    weight_decay: Annotated[float, at_least(0)] = 0.0

    def load(self) -> Images:
        """The images, of which the recipe takes no more than there are.

        Raises:
            ValueError: it would; the message names the binding.
            FileNotFoundError: the data are not there; the message says how to get them.
        """
        images = self.images.load()
        for name, split in (('train_examples', images.train), ('test_examples', images.test)):
            wanted = getattr(self, name)
            if wanted is not None and wanted > len(split.labels):
                raise ValueError(f'Recipe.{name} = {wanted}: {images.name} has {len(split.labels)}')
        examples = len(images.train.head(self.train_examples).labels)
        if self.batch_size > examples:
            raise ValueError(f'Recipe.batch_size = {self.batch_size}: there are {examples} examples')
        if self.shift >= min(images.shape[:2]):
            raise ValueError(f'Recipe.shift = {self.shift}: images have {min(images.shape[:2])} pixels a side')
        return images

    @property
    def augmentation(self) -> 'Augmentation':
        """Returns the function that augments the images of a minibatch in training."""
        return Augmentation(self.flips, self.shift)

    def task(self) -> KerasTask:
        """Returns the recipe as a task, whose measure is minus the cross-entropy on validation images."""
        images = self.load()
        train = images.train.head(self.train_examples)
        return KerasTask(
            partial(_penalised, self.network, images.shape, images.classes, self.weight_decay),
            (train.images, train.labels),
            (images.validation.images, images.validation.labels),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            measure=keras.metrics.SparseCategoricalCrossentropy(from_logits=True),
            epochs=self.epochs,
            batch_size=self.batch_size,
            augment=self.augmentation if self.flips or self.shift else None,
        )

    def identity(self) -> dict[str, Any]:
        """All that a curve depends on but its length and the machine: name of each part -> JSON value."""
        return bindings_of(self) | {'images': self.load().fingerprint()}


@dataclass(frozen=True)
class Augmentation:
    """Mirrors half of the images, and moves them by up to so many pixels each way, reflecting at the edge."""

    flips: bool
    shift: int

    def __call__(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Returns images [B, H, W, C], each augmented by what follows from the seed, int32 [2]."""
        count, height, width, _ = images.shape
        if self.flips:
            mirrored = tf.random.stateless_uniform([count, 1, 1, 1], seed) < 0.5
            images = tf.where(mirrored, images[:, :, ::-1], images)
        if s := self.shift:
            images = tf.pad(images, [[0, 0], [s, s], [s, s], [0, 0]], 'REFLECT')
            corner = tf.random.stateless_uniform([2, count, 1], seed, 0, 2 * s + 1, tf.int32)
            images = tf.gather(images, corner[0] + tf.range(height), axis=1, batch_dims=1)
            images = tf.gather(images, corner[1] + tf.range(width), axis=2, batch_dims=1)
        return images

    def get_config(self) -> dict[str, Any]:
        """Returns what it is made of."""
        return asdict(self)


@gin.register
def recipe_task(recipe: Recipe = gin.REQUIRED) -> KerasTask:
    """Returns a recipe as a task, for gin.

    Args:
        recipe: images, a network and how they are trained.
    """
    return recipe.task()


def _penalised(network: Network, shape: tuple[int, int, int], classes: int, weight_decay: float) -> keras.Model:
    """Returns a network, drawn by Python's random numbers, whose kernels have an L2 penalty."""
    model = network.model(shape, classes, random.getrandbits(30))
    for weight in model.trainable_variables if weight_decay else ():
        if len(weight.shape) > 1:
            weight.regularizer = keras.regularizers.L2(weight_decay / 2)
    return model


class RecipeTrainer:
    """Trains; the last model is kept, so that another rate of the same optimizer and seed needs no new trace.

    Args:
        recipe: what to do.
        checkpoints: folder for unfinished trainings; made if it does not exist.

    Raises:
        ValueError, FileNotFoundError: as `Recipe.load`.
    """

    def __init__(self, recipe: Recipe, checkpoints: Path) -> None:
        self.recipe, self._checkpoints = recipe, checkpoints
        images = recipe.load()
        self._identity = json.dumps(recipe.identity(), sort_keys=True)
        self._classes, self._shape = images.classes, images.shape
        self._train = _tensors(images.train.head(recipe.train_examples))
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
            network = self.recipe.network.model(self._shape, self._classes, seed)
            steps = self.recipe.epochs * (len(self._train[1]) // self.recipe.batch_size)
            optimizer = Contender(contender).optimizer(1.0, seed, steps)
            self._models = {key: _Model(self.recipe, network, optimizer, seed)}
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
        validation, test = [chance] * 2 if diverged else model.accuracies(self._held_out)
        curve = Curve(
            (*curve.loss, math.inf if diverged else loss), (*curve.validation, validation), (*curve.test, test)
        )
        return Trained(curve, trained.seconds + time.perf_counter() - start, diverged)

    def checkpoint(self, contender: str, rate: float, seed: int) -> Path:
        """Returns the path of a training's state, which differs between recipes."""
        name = hashlib.sha256(f'{self._identity}\n{contender}\n{rate!r}\n{seed}'.encode()).hexdigest()[:16]
        return self._checkpoints / f'{name}.npz'


class _Model:
    """A model with its optimizer and what trains them, traced once."""

    def __init__(self, recipe: Recipe, network: keras.Model, optimizer: keras.optimizers.Optimizer, seed: int) -> None:
        self._recipe, self._model, self._optimizer, self._seed = recipe, network, optimizer, seed
        self._optimizer.build(self._model.trainable_variables)
        self._variables = [*self._model.variables, *self._optimizer.variables]
        self._start = [np.array(keras.ops.convert_to_numpy(variable)) for variable in self._variables]
        self.epoch = _traced(self._train_epoch)
        self._traced_accuracy = _traced(self._accuracy)

    def begin(self, rate: float, path: Path) -> Trained:
        """Takes up a training from its checkpoint, or from the beginning; a damaged checkpoint is said, and is none.

        Raises:
            OSError: there is one that cannot be read now.
        """
        values, trained = self._start, Trained(Curve(), 0.0, False)
        try:
            arrays = files.load(path)
            curve = Curve(*(tuple(part.tolist()) for part in arrays['curve']))
            found = Trained(curve, float(arrays['seconds']), bool(arrays['diverged']))
            there = [arrays[f'v{i}'] for i in range(len(self._variables))]
            if any(value.shape != start.shape for value, start in zip(there, self._start, strict=True)):
                raise ValueError('its arrays have other shapes')
            values, trained = there, found
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError) as error:  # an array that is missing, or no number
            output.warn(f'{path} is damaged ({error}): this training begins anew')
        for variable, value in zip(self._variables, values, strict=True):
            variable.assign(value)
        self._optimizer.learning_rate.assign(rate)
        return trained

    def save(self, path: Path, trained: Trained) -> None:
        """Writes a checkpoint whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {f'v{i}': keras.ops.convert_to_numpy(variable) for i, variable in enumerate(self._variables)}
        arrays['curve'] = np.array(trained.curve)
        arrays['seconds'], arrays['diverged'] = np.array(trained.seconds), np.array(trained.diverged)
        files.save(path, arrays)

    def accuracies(self, parts: Sequence[tuple[tf.Tensor, tf.Tensor]]) -> list[float]:
        """Returns the share of each part that is classified rightly, were this the last epoch."""
        with finalised(self._optimizer, self._model.trainable_variables):
            return [float(self._traced_accuracy(*part)) for part in parts]

    def is_finite(self) -> bool:
        """Returns whether all weights are finite."""
        return all(bool(tf.reduce_all(tf.math.is_finite(v.value))) for v in self._model.trainable_variables)

    def _train_epoch(self, images: tf.Tensor, labels: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        """Updates on every example once; the mean loss, float32 []."""
        size = self._recipe.batch_size
        steps = images.shape[0] // size
        order = tf.random.experimental.stateless_shuffle(tf.range(images.shape[0]), tf.stack([self._seed, number]))
        order = tf.reshape(order[: steps * size], [steps, size])

        def step(i: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            """One update."""
            batch = self._recipe.augmentation(
                tf.gather(images, order[i]), tf.stack([self._seed, 1 + number * steps + i])
            )
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


def _traced(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """A graph for every shape of the inputs: what `tf.function` makes, without its warning that there are several."""
    graphs = tf.function(function, autograph=False)
    return lambda *inputs: graphs.get_concrete_function(*inputs)(*inputs)


def _tensors(split: Split) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.constant(split.images), tf.constant(split.labels)
