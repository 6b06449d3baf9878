"""Trains translators, in this process or on parameter servers, by the same step (Section 5.3).

In one process everything that is random follows from the seed and the number of the step, so that a training that is
taken up from its checkpoint ends with the same bits as one that never stopped. On parameter servers each worker updates
the weights when it is ready, as the paper's twelve did: no two runs are the same.
"""

import contextlib
import hashlib
import math
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from gnmt.corpora import Pairs
from gnmt.recipe import Point, Scheduled, Trained, TranslationRecipe, perplexity
from gnmt.text import Vocabulary, batches, bleu, encode
from nos_tf.optimizers.contender import Contender

SAMPLES = 5  # validation sentences that TensorBoard shows
TRANSLATED_AT_ONCE = 100
IDS, SEED = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([2], tf.int32)

Batch = tuple[tf.Tensor, tf.Tensor]


@dataclass
class Course:
    """What a process that trains is told.

    Args:
        recipe: of all trainings.
        run_dir: gets checkpoints and TensorBoard's event files.
    """

    recipe: TranslationRecipe
    run_dir: Path

    def trainer(self, _: int = 1, coordinator: Any = None) -> 'TranslatorTrainer':
        """Loads the data, and gets ready to train."""
        return TranslatorTrainer(self.recipe, self.run_dir, coordinator)


class TranslatorTrainer:
    """Trains one translator after the other.

    Args:
        recipe: what to do.
        run_dir: gets checkpoints and TensorBoard's event files.
        coordinator: of parameter servers (`tf.distribute.coordinator.ClusterCoordinator`); None for this process.

    Raises:
        ValueError, FileNotFoundError: as `TranslationRecipe.load`, or the text does not fit the vocabulary.
    """

    def __init__(self, recipe: TranslationRecipe, run_dir: Path, coordinator: Any = None) -> None:
        self.recipe, self._run_dir, self._coordinator = recipe, run_dir, coordinator
        corpus = recipe.load()
        self.vocabulary = Vocabulary.learn(corpus.train, recipe.subwords)
        self.train_set, self._validation_set = (
            encode(self.vocabulary, part, recipe.longest) for part in (corpus.train, corpus.validation)
        )
        self.corpus = corpus
        self.dropped = {'train': self.train_set.dropped, 'validation': self._validation_set.dropped}
        self._state: tuple[tuple[str, float, int], _State] | None = None

    def train(self, contender: str, rate: float, seed: int, steps: int) -> Trained:
        """Trains until there have been so many steps in all, validation gets no better, or it diverges.

        Args:
            contender: an optimizer as text (`nos_tf.optimizers.contender`).
            rate: its learning rate.
            seed: of weights, batches and dropout.
            steps: of which those in the checkpoint have been done.
        """
        key = (contender, rate, seed)
        if self._state is None or self._state[0] != key:
            self._state = None  # before the next is made: two may not fit
            self._state = key, _State(self, Contender(contender), rate, seed)
        state = self._state[1]
        folder = f'{"".join(c if c.isalnum() or c in ".-_" else "_" for c in contender)}/{rate:g}-{seed}'
        path = self.checkpoint(*key)
        trained = state.restore(path)
        title = f'{contender} at {rate:g}, seed {seed}'
        with tf.summary.create_file_writer(str(self._run_dir / 'tensorboard' / folder)).as_default():
            hparams.hparams({'optimizer': contender, 'learning_rate': rate, 'seed': seed})
            begun, before = time.monotonic(), trained.points[-1].step if trained.points else 0
            while not trained.is_over and state.steps < steps:
                trained = self._to_next_point(state, trained, min(steps, state.steps + self.recipe.evaluate_every))
                state.save(path, trained)
                pace = (time.monotonic() - begun) / (state.steps - before)
                _tell(title, trained.points[-1], steps, pace * (steps - state.steps))
        if trained.is_over or steps >= self.recipe.steps:
            trained = self._tested(state, trained)
        return trained

    def checkpoint(self, contender: str, rate: float, seed: int) -> Path:
        """Where the state of a training lies."""
        name = hashlib.sha256(f'{contender}\n{rate!r}\n{seed}'.encode()).hexdigest()[:16]
        return self._run_dir / 'checkpoints' / f'{name}.npz'

    def batches_of(self, epoch: int, seed: int) -> tf.data.Dataset:
        """Those of one epoch: the same seed and number give the same."""
        random = np.random.Generator(np.random.PCG64([seed, epoch]))
        order = random.permutation(len(self.train_set.source))
        return batches(self.train_set, self.recipe.batch_size, self.recipe.bounds, order)

    def _to_next_point(self, state: '_State', trained: Trained, steps: int) -> Trained:
        begun, waited = time.monotonic(), 0.0
        state.forget_losses()
        while state.steps < steps:
            asked = time.monotonic()
            batch = state.next_batch()
            waited += time.monotonic() - asked
            state.update(*batch)
        loss, of_target, of_source = state.losses()
        seconds = time.monotonic() - begun
        model = state.readable_model()
        train = perplexity(loss / of_target) if math.isfinite(loss) else math.inf
        validation = self._perplexity(model) if math.isfinite(train) else math.inf
        diverged = not math.isfinite(validation)
        sentences = self.corpus.validation
        translations = [''] * len(sentences.source) if diverged else self.translate(model, sentences.source)
        score = 0.0 if diverged else bleu(translations, sentences.target)[0]
        speed = (of_source + of_target) / seconds
        point = Point(
            state.steps, train, validation, score, _exact(translations, sentences.target), speed, waited / seconds
        )
        for name, value in point._asdict().items():
            tf.summary.scalar(name, value, step=state.steps)
        tf.summary.text('samples', _samples(sentences, translations), step=state.steps)
        points = (*trained.points, point)
        trained = trained._replace(points=points, diverged=diverged)
        if trained.best == len(points) - 1:
            state.keep_as_best()
        return trained._replace(stopped=len(points) - 1 - trained.best >= self.recipe.patience)

    def _perplexity(self, model: keras.Model) -> float:
        losses = _evaluated(model)
        total = tokens = 0.0
        order = np.arange(len(self._validation_set.source))
        for source, target in batches(self._validation_set, self.recipe.batch_size, self.recipe.bounds, order):
            total += float(losses(source, target))
            tokens += int(tf.math.count_nonzero(target))
        return perplexity(total / tokens)

    def translate(self, model: keras.Model, sentences: Sequence[str]) -> list[str]:
        """Translations, in the same order; a sentence that is too long is translated all the same."""
        ids = self.vocabulary.encode(sentences)
        order = np.argsort([len(row) for row in ids], kind='stable')
        found = [''] * len(ids)
        search = _searched(model, self.recipe)
        for start in range(0, len(order), TRANSLATED_AT_ONCE):
            rows = order[start : start + TRANSLATED_AT_ONCE]
            source = tf.ragged.constant([ids[row].tolist() for row in rows], dtype=tf.int32).to_tensor()
            for row, text in zip(rows, self.vocabulary.decode(search(source).numpy()), strict=True):
                found[row] = text
        return found

    def _tested(self, state: '_State', trained: Trained) -> Trained:
        """With what the best weights make of the test set."""
        if trained.diverged:
            return trained._replace(test_bleu=0.0, test_exact=0.0)
        test = self.corpus.test
        translations = self.translate(state.best_model(), test.source)
        score, signature = bleu(translations, test.target)
        right = _exact(translations, test.target)
        return trained._replace(test_bleu=score, test_exact=right, signature=signature)


class _State:
    """A model with its optimizer, and how far it has come."""

    def __init__(self, trainer: TranslatorTrainer, contender: Contender, rate: float, seed: int) -> None:
        self._trainer, self._recipe, self._seed = trainer, trainer.recipe, seed
        self._coordinator = trainer._coordinator
        strategy = self._coordinator.strategy if self._coordinator else None
        with strategy.scope() if strategy else contextlib.nullcontext():
            self._model = self._new_model()
            self._optimizer = contender.optimizer(Scheduled(rate, self._recipe.schedule), seed)
            self._optimizer.build(self._model.trainable_variables)
            self._seen = tf.Variable(tf.zeros([3], tf.float64), trainable=False)  # loss, target and source tokens
        if strategy:
            _count_atomically(self._optimizer)
        self._copy = self._new_model() if strategy else self._model  # of the weights, in this process
        weights = self._model.trainable_variables
        self._variables = [*weights, *self._optimizer.variables]
        self._start = list(map(_array, self._variables))
        kept = sum(math.prod(v.shape) for v in self._optimizer.variables if len(v.shape))
        self.memory = kept / sum(math.prod(v.shape) for v in weights)
        self._step = tf.function(self._run(strategy), [IDS, IDS, SEED], autograph=False)

    def _new_model(self) -> keras.Model:
        return self._recipe.network.model(self._trainer.vocabulary.size, self._seed)

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
        self._optimizer.apply_gradients(zip(gradients, weights, strict=True))
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
        self._batches: Iterator[Batch] = iter(self._trainer.batches_of(epoch, self._seed).skip(batch))

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
        """The model as it is now, with weights in this process."""
        if self._copy is not self._model:
            _assign(self._copy.trainable_variables, map(_array, self._model.trainable_variables))
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
        draft = path.with_suffix('.draft')
        arrays = {f'v{i}': _array(variable) for i, variable in enumerate(self._variables)}
        arrays |= {f'b{i}': value for i, value in enumerate(self._best)}
        arrays['at'] = np.array([self.steps, self._epoch, self._batch])
        arrays['points'] = np.array(trained.points)
        arrays['over'] = np.array([trained.diverged, trained.stopped])
        with open(draft, 'wb') as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # its stubs take each for allow_pickle
        draft.replace(path)

    def restore(self, path: Path) -> Trained:
        """Takes up a training from its checkpoint, or from the beginning; a damaged checkpoint is none."""
        values, best, at = self._start, self._start[: len(self._model.trainable_variables)], (0, 0, 0)
        trained = Trained((), False, False, None, None, '', self.memory)
        with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile), np.load(path) as file:
            points = tuple(Point(int(step), *rest) for step, *rest in file['points'].tolist())
            diverged, stopped = file['over'].tolist()
            found = [file[f'v{i}'] for i in range(len(values))], [file[f'b{i}'] for i in range(len(best))]
            at = file['at'].tolist()
            (values, best), trained = found, trained._replace(points=points, diverged=diverged, stopped=stopped)
        _assign(self._variables, values)
        self._best = best
        self.steps = at[0]
        self._open_epoch(*at[1:])
        return trained


def _samples(pairs: Pairs, translations: Sequence[str]) -> str:
    """A table for TensorBoard."""
    rows = list(zip(*pairs, translations, strict=True))[:SAMPLES]
    lines = [' | '.join(text.replace('|', '/') for text in row) for row in rows]
    return '\n'.join(f'| {line} |' for line in ('source | reference | translation', '---|---|---', *lines))


def _exact(translations: Sequence[str], references: Sequence[str]) -> float:
    return float(np.mean([ours == theirs for ours, theirs in zip(translations, references, strict=True)]))


def _array(variable: Any) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(variable))


def _assign(variables: Any, values: Any) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _count_atomically(optimizer: keras.optimizers.Optimizer) -> None:
    """Has the steps of several workers all counted: Keras reads, adds and writes; the variable of TensorFlow adds."""
    counter = optimizer.iterations
    counter.assign_add = lambda value: counter.value.assign_add(tf.cast(value, counter.value.dtype))


def _evaluated(model: keras.Model) -> Callable[..., tf.Tensor]:
    """The sum of the losses of a batch, as a graph that is traced once for a model."""
    if not hasattr(model, 'evaluation_graph'):

        def total(source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
            return tf.reduce_sum(model.losses_of(source, target))

        model.evaluation_graph = tf.function(total, [IDS, IDS], autograph=False)
    return model.evaluation_graph


def _searched(model: keras.Model, recipe: TranslationRecipe) -> Callable[..., tf.Tensor]:
    if not hasattr(model, 'search_graph'):
        model.search_graph = tf.function(
            lambda source: recipe.beam.search(model.read(), source)[0], [IDS], autograph=False
        )
    return model.search_graph


def _tell(title: str, point: Point, steps: int, seconds: float) -> None:
    print(
        f'{title}: step {point.step} of {steps}, perplexity {point.train_perplexity:.2f} in training, '
        f'{point.validation_perplexity:.2f} on validation, BLEU {point.validation_bleu:.1f}, '
        f'{point.validation_exact:.1%} exact, {point.tokens_per_second:,.0f} tokens/s, {seconds / 60:.0f} min left',
        flush=True,
    )
