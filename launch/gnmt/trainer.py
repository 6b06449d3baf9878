"""Trains translators, in this process or on parameter servers, by the same step (Section 5.3).

In one process everything that is random follows from the seed and the number of the step, so that a training that is
taken up from its checkpoint ends with the same bits as one that never stopped. On parameter servers each worker updates
the weights when it is ready, as the paper's twelve did: no two runs are the same.
"""

import hashlib
import json
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from gnmt.corpora import Pairs
from gnmt.recipe import Point, Trained, TranslationRecipe, perplexity
from gnmt.state import IDS, State
from gnmt.text import Vocabulary, batches, bleu, encode
from nos_tf import output
from nos_tf.optimizers.contender import Contender
from nos_tf.store.trainings import Key

SAMPLES = 5  # validation sentences that TensorBoard shows
TRANSLATED_AT_ONCE = 100


@dataclass
class TranslationSetup:
    """All that a process needs to train translators.

    Args:
        recipe: of all trainings.
        run_dir: gets checkpoints and TensorBoard's event files.
    """

    recipe: TranslationRecipe
    run_dir: Path

    def identity(self) -> dict[str, Any]:
        """Returns the identity of the recipe."""
        return self.recipe.identity()

    def trainer(self, coordinator: Any = None) -> 'TranslatorTrainer':
        """Loads the data, and gets ready to train."""
        return TranslatorTrainer(self.recipe, self.run_dir, coordinator)


class TranslatorTrainer:
    """Trains one translator after the other.

    Args:
        recipe: what to do.
        run_dir: gets checkpoints and TensorBoard's event files.
        coordinator: of parameter servers (`tf.distribute.coordinator.ClusterCoordinator`); None for this process.

    Raises:
        ValueError, FileNotFoundError: as `CorpusSource.load`, or the text does not fit the vocabulary or the batches.
    """

    def __init__(self, recipe: TranslationRecipe, run_dir: Path, coordinator: Any = None) -> None:
        self.recipe, self._run_dir, self._coordinator = recipe, run_dir, coordinator
        corpus = recipe.corpus.load()
        self._identity = json.dumps(recipe.identity(), sort_keys=True)
        self.vocabulary = Vocabulary.learn(corpus.train, recipe.subwords)
        self.train_set, self._validation_set = (
            encode(self.vocabulary, part, recipe.longest) for part in (corpus.train, corpus.validation)
        )
        if len(self.train_set.source) < recipe.batch_size:
            raise ValueError(
                f'TranslationRecipe.batch_size = {recipe.batch_size}: {corpus.name} has only '
                f'{len(self.train_set.source)} pairs of at most {recipe.longest} tokens to train on'
            )
        self.corpus = corpus
        self.dropped = {'train': self.train_set.dropped, 'validation': self._validation_set.dropped}
        if any(self.dropped.values()) and multiprocessing.parent_process() is None:  # one of a pool is enough
            left_out = ' and '.join(f'{count:,} of {part}' for part, count in self.dropped.items())
            output.say(f'{corpus.name}: left out, with more than {recipe.longest} tokens: {left_out}')
        self._state: tuple[tuple[str, float, int], State] | None = None

    def train(self, contender: str, rate: float, seed: int, steps: int) -> Trained:
        """Trains until there have been so many steps in all, validation gets no better, or it diverges.

        Args:
            contender: an optimizer as text (`nos_tf.optimizers.contender`).
            rate: its learning rate.
            seed: of weights, batches and dropout.
            steps: of which those in the checkpoint have been done.
        """
        key = (contender, rate, seed)
        state = self.state(*key)
        path = self.checkpoint(*key)
        trained = state.restore(path)
        title = f'{contender} at {rate:g}, seed {seed}'
        folder = self._run_dir / 'tensorboard' / Key(*key).folder
        with tf.summary.create_file_writer(os.fsencode(folder)).as_default():
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

    def state(self, contender: str, rate: float, seed: int) -> State:
        """That of a training; the last one is kept, so that going on needs no new trace."""
        key = (contender, rate, seed)
        if self._state is None or self._state[0] != key:
            self._state = None  # before the next is made: two may not fit
            state = State(
                self.recipe,
                self.vocabulary.size,
                self._identity,
                *(Contender(contender), rate, seed),
                batches_of=lambda epoch: self.batches_of(epoch, seed),
                coordinator=self._coordinator,
            )
            self._state = key, state
        return self._state[1]

    def checkpoint(self, contender: str, rate: float, seed: int) -> Path:
        """Where the state of a training lies."""
        name = hashlib.sha256(f'{contender}\n{rate!r}\n{seed}'.encode()).hexdigest()[:16]
        return self._run_dir / 'checkpoints' / f'{name}.npz'

    def batches_of(self, epoch: int, seed: int) -> tf.data.Dataset:
        """Those of one epoch: the same seed and number give the same."""
        random = np.random.Generator(np.random.PCG64([seed, epoch]))
        order = random.permutation(len(self.train_set.source))
        return batches(self.train_set, self.recipe.batch_size, self.recipe.bounds, order)

    def _to_next_point(self, state: State, trained: Trained, steps: int) -> Trained:
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

    def _tested(self, state: State, trained: Trained) -> Trained:
        """With what the best weights make of the test set."""
        if trained.diverged:
            return trained._replace(test_bleu=0.0, test_exact=0.0)
        test = self.corpus.test
        translations = self.translate(state.best_model(), test.source)
        score, signature = bleu(translations, test.target)
        right = _exact(translations, test.target)
        return trained._replace(test_bleu=score, test_exact=right, signature=signature)


def _samples(pairs: Pairs, translations: Sequence[str]) -> str:
    """A table for TensorBoard."""
    rows = list(zip(*pairs, translations, strict=True))[:SAMPLES]
    lines = [' | '.join(text.replace('|', '/') for text in row) for row in rows]
    return '\n'.join(f'| {line} |' for line in ('source | reference | translation', '---|---|---', *lines))


def _exact(translations: Sequence[str], references: Sequence[str]) -> float:
    return float(np.mean([ours == theirs for ours, theirs in zip(translations, references, strict=True)]))


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
    output.say(
        f'{title}: step {point.step} of {steps}, perplexity {point.train_perplexity:.2f} in training, '
        f'{point.validation_perplexity:.2f} on validation, BLEU {point.validation_bleu:.1f}, '
        f'{point.validation_exact:.1%} exact, {point.tokens_per_second:,.0f} tokens/s, {seconds / 60:.0f} min left'
    )
