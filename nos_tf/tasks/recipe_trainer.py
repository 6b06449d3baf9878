"""Long trainings of Keras models on images, as transfer experiments need them (Section 5).

Everything that is random follows from the seed and the number of the epoch, so a training that is taken up from its
checkpoint ends with the same bits as one that never stopped, on the same machine.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from nos_tf import files, output
from nos_tf.optimizers.averages import finalised
from nos_tf.optimizers.contender import Contender
from nos_tf.tasks.data import Split
from nos_tf.tasks.recipe import Curve, Recipe, Trained

SAVE_SECONDS = 60.0  # between two checkpoints of one training, which end an epoch
EVALUATION_BATCH = 500


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
        """Where the state of a training lies: that of another recipe is not found there."""
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


def _traced(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """A graph for every shape of the inputs: what `tf.function` makes, without its warning that there are several."""
    graphs = tf.function(function, autograph=False)
    return lambda *inputs: graphs.get_concrete_function(*inputs)(*inputs)


def _tensors(split: Split) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.constant(split.images), tf.constant(split.labels)
