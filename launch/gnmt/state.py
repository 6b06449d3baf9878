"""A translator under training: weights, optimizer, the batch that comes next, and the checkpoint of all that."""

import contextlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gnmt.recipe import Point, Scheduled, Trained, TranslationRecipe
from nos_tf import files, output
from nos_tf.errors import RunError
from nos_tf.optimizers.averages import finalised
from nos_tf.optimizers.contender import Contender

IDS, SEED = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([2], tf.int32)

Batch = tuple[tf.Tensor, tf.Tensor]
"""Source and target, int32 [B, S] and [B, T]."""


class State:
    """A model with its optimizer, and how far it has come.

    Args:
        recipe: what to do.
        subwords: V of the vocabulary.
        identity: of recipe and text; a checkpoint of another one is refused.
        contender: the optimizer.
        rate: its learning rate, which the schedule multiplies.
        seed: of weights, batches and dropout.
        batches_of: those of the epoch with that number, from 0.
        coordinator: of parameter servers; None for this process.
    """

    def __init__(
        self,
        recipe: TranslationRecipe,
        subwords: int,
        identity: str,
        contender: Contender,
        rate: float,
        seed: int,
        *,
        batches_of: Callable[[int], tf.data.Dataset],
        coordinator: Any = None,
    ) -> None:
        self._recipe, self._subwords, self._seed = recipe, subwords, seed
        self._batches_of, self._coordinator = batches_of, coordinator
        self._identity = identity
        strategy = coordinator.strategy if coordinator else None
        with strategy.scope() if strategy else contextlib.nullcontext():
            self._model = self._new_model()
            self.optimizer = contender.optimizer(Scheduled(rate, recipe.schedule), seed, recipe.steps)
            self.optimizer.build(self._model.trainable_variables)
            self._seen = tf.Variable(tf.zeros([3], tf.float64), trainable=False)  # loss, target and source tokens
        if strategy:
            count_atomically(self.optimizer)
        is_apart = strategy or self.optimizer.use_ema  # weights elsewhere, or others than those that are judged
        self._copy = self._new_model() if is_apart else self._model
        weights = self._model.trainable_variables
        self._variables = [*weights, *self.optimizer.variables]
        self._start = list(map(_array, self._variables))
        kept = sum(math.prod(v.shape) for v in self.optimizer.variables if len(v.shape))
        self.memory = kept / sum(math.prod(v.shape) for v in weights)
        self._step = tf.function(self._run(strategy), [IDS, IDS, SEED], autograph=False)

    def _new_model(self) -> keras.Model:
        return self._recipe.network.model(self._subwords, self._seed)

    def _run(self, strategy: Any) -> Callable[..., None]:
        if strategy is None:
            return self._update
        return lambda *batch: strategy.run(self._update, args=batch)

    def _update(self, source: tf.Tensor, target: tf.Tensor, seed: tf.Tensor) -> None:
        """One step, wherever it runs."""
        weights = self._model.trainable_variables
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(self._model.losses_of(source, target, training=True, seed=seed))
            of_sentence = loss / tf.cast(tf.shape(source)[0], tf.float32)
        gradients = [tf.convert_to_tensor(g) for g in tape.gradient(of_sentence, [weight.value for weight in weights])]
        gradients, _ = tf.clip_by_global_norm(gradients, self._recipe.clip_norm)
        self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        tokens = [tf.math.count_nonzero(side, dtype=tf.int32) for side in (target, source)]
        self._seen.assign_add(tf.cast(tf.stack([loss, *(tf.cast(n, tf.float32) for n in tokens)]), tf.float64))

    def update(self, source: tf.Tensor, target: tf.Tensor) -> None:
        """One step, or the request to some worker to do it."""
        arguments = (source, target, tf.constant([self._seed, self.steps], tf.int32))
        if self._coordinator:
            self._coordinator.schedule(self._step, args=arguments)
        else:
            self._step(*arguments)
        self.steps += 1

    def next_batch(self) -> Batch:
        """The batches of all epochs, one after the other."""
        while True:
            with contextlib.suppress(StopIteration):
                batch = next(self._batches)
                self._batch += 1
                return batch
            self._open_epoch(self._epoch + 1, 0)

    def _open_epoch(self, epoch: int, batch: int) -> None:
        self._epoch, self._batch = epoch, batch
        self._batches: Iterator[Batch] = iter(self._batches_of(epoch).skip(batch))

    def forget_losses(self) -> None:
        """Begins to add them up anew."""
        self._seen.assign(tf.zeros([3], tf.float64))

    def losses(self) -> tuple[float, float, float]:
        """Loss, target tokens and source tokens since then, once all that was asked for is done."""
        if self._coordinator:
            self._coordinator.join()
        loss, target, source = self._seen.numpy().tolist()
        return loss, target, source

    def readable_model(self) -> keras.Model:
        """Returns the model as it would be were this the last step, with weights in this process."""
        weights = self._model.trainable_variables
        if self._copy is not self._model:
            with finalised(self.optimizer, weights):
                _assign(self._copy.trainable_variables, map(_array, weights))
        return self._copy

    def keep_as_best(self) -> None:
        """Keeps the weights as they are now."""
        self._best = list(map(_array, self.readable_model().trainable_variables))

    def best_model(self) -> keras.Model:
        """The model with the weights that were kept; it is not to be trained on."""
        _assign(self._copy.trainable_variables, self._best)
        return self._copy

    def save(self, path: Path, trained: Trained) -> None:
        """Writes a checkpoint whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {f'v{i}': _array(variable) for i, variable in enumerate(self._variables)}
        arrays |= {f'b{i}': value for i, value in enumerate(self._best)}
        arrays['at'] = np.array([self.steps, self._epoch, self._batch])
        arrays['points'] = np.array(trained.points)
        arrays['over'] = np.array([trained.diverged, trained.stopped])
        arrays['identity'] = np.array(self._identity)
        files.save(path, arrays)

    def restore(self, path: Path) -> Trained:
        """Takes up a training from its checkpoint, or from the beginning; a damaged checkpoint is said, and is none.

        Raises:
            RunError: it is of another recipe or text.
            OSError: there is one that cannot be read now.
        """
        arrays, at = [*self._start, *self._start[: len(self._model.trainable_variables)]], (0, 0, 0)
        trained = Trained((), False, False, None, None, '', self.memory)
        if path.exists():
            try:
                stored = files.load(path)
                found = [array for key, array in stored.items() if key[0] in 'vb' and key[1:].isdigit()]
                points = tuple(Point(int(step), *rest) for step, *rest in stored['points'].tolist())
                diverged, stopped = stored['over'].tolist()
                steps, epoch, batch = map(int, stored['at'].tolist())
                identity = str(stored['identity'])
            except (ValueError, KeyError, TypeError) as error:  # an array that is missing, or of another shape
                output.warn(f'{path} is damaged ({error}): this training begins anew')
            else:
                if identity != self._identity:
                    raise RunError(
                        f'{path} is a checkpoint of another model, vocabulary or text: move it away, or choose another '
                        '--run_dir'
                    )
                arrays, at = found, (steps, epoch, batch)
                trained = trained._replace(points=points, diverged=diverged, stopped=stopped)
        _assign(self._variables, arrays[: len(self._variables)])
        self._best = arrays[len(self._variables) :]
        self.steps = at[0]
        self._open_epoch(*at[1:])
        return trained


def _array(variable: Any) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(variable))


def _assign(variables: Any, values: Any) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def count_atomically(optimizer: keras.optimizers.Optimizer) -> None:
    """Has the steps of several workers all counted: Keras reads, adds and writes; the variable of TensorFlow adds."""
    counter = optimizer.iterations
    counter.assign_add = lambda value: counter.value.assign_add(tf.cast(value, counter.value.dtype))
