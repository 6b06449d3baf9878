"""A rule in, a reward out: the learning-rate sweep, the training and the validation of a child network (Section 4.2).

`Child` is the procedure, a value that pickles. `Trainer` is the procedure at work: one traced graph, a pure function of
(rule, seed), that trains every rule. Nothing random but the seed, which belongs to the task: the same rule earns the
same reward, bit for bit, in any order and in any process of the same kind.
"""

import dataclasses
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import gin
import keras
import numpy as np
import tensorflow as tf

from nos_tf.dsl.primitives import RuleConstants
from nos_tf.dsl.rule import UpdateRule
from nos_tf.optimizers import interpreter
from nos_tf.optimizers.interpreter import State
from nos_tf.tasks.convnet import ConvNet
from nos_tf.tasks.images import Digits, ImageSource, Split
from nos_tf.tasks.machine import processor, threads
from nos_tf.version import __version__

gin.external_configurable(RuleConstants)

PAPER_LEARNING_RATES = tuple(10.0**i for i in range(-5, 2))


class Outcome(NamedTuple):
    """What became of a child: accuracies are fractions of the validation set."""

    reward: float  # after the last epoch
    learning_rate: float  # the rate that won the sweep
    sweep: tuple[float, ...]  # the accuracy of each rate after the sweep's epochs
    seconds: float


@gin.register
@dataclass(frozen=True)
class Child:
    """The procedure of Section 4.2; its defaults are the paper's, but for the data.

    Args:
        images: the source of the data.
        network: what is trained.
        learning_rates: tried in ascending order; of equally good ones the smallest wins.
        sweep_epochs: for which each learning rate is tried.
        epochs: for which the winner trains, those of the sweep included.
        train_examples: how many of the training images are used, every epoch the same; None for all.
        batch_size: in examples; must divide the number of training examples.
        continue_sweep: let the winner go on from where its sweep ended instead of starting anew. Both give the same
            bits, since sweep and training share weights, order and random numbers.
        constants: the hyper-parameters of rules.
        seed: of weights, order and random primitives: a part of the task, not of the sample.

    Raises:
        ValueError: a value out of range; the message names the binding.
    """

    images: ImageSource = Digits()
    network: ConvNet = ConvNet()
    learning_rates: Sequence[float] = PAPER_LEARNING_RATES
    sweep_epochs: int = 1
    epochs: int = 5
    train_examples: int | None = None
    batch_size: int = 100
    continue_sweep: bool = True
    constants: RuleConstants = RuleConstants()
    seed: int = 0

    def __post_init__(self) -> None:
        for name, verb in (('images', 'load'), ('network', 'logits')):
            value = getattr(self, name)
            if isinstance(value, type) or not hasattr(value, verb):
                raise ValueError(f'Child.{name} = {value!r}: write @Name(), with brackets')
        rates = np.sort(np.atleast_1d(np.asarray(self.learning_rates, float)))
        if not rates.size or not all(0 < rate < np.inf for rate in rates):
            raise ValueError(f'Child.learning_rates = {self.learning_rates}: must be positive numbers, at least one')
        object.__setattr__(self, 'learning_rates', tuple(rates.tolist()))
        for name in ('sweep_epochs', 'epochs', 'batch_size', 'train_examples'):
            value = getattr(self, name)
            if not (value is None and name == 'train_examples') and (
                isinstance(value, bool) or not isinstance(value, int) or value < 1
            ):
                raise ValueError(f'Child.{name} = {value!r}: must be a whole number, at least 1')
        if not isinstance(self.seed, int) or not 0 <= self.seed < 2**30:
            raise ValueError(f'Child.seed = {self.seed!r}: must be a whole number from 0 to 2^30 - 1')
        if self.sweep_epochs > self.epochs:
            raise ValueError(f'Child.sweep_epochs = {self.sweep_epochs}: must not exceed Child.epochs = {self.epochs}')

    def identity(self) -> dict[str, Any]:
        """All that a reward depends on, the machine included: name of each part -> JSON value."""
        procedure = dataclasses.asdict(self)
        del procedure['continue_sweep']  # same bits
        source = {k: v for k, v in procedure.pop('images').items() if k not in ('data_dir', 'download')}
        return {
            **{f'Child.{name}': value for name, value in procedure.items()},
            'Child.images': {'source': type(self.images).__name__, **source},
            'images': self.images.load().fingerprint(),
            'intra_op threads': threads(),
            'processor': processor(),
            'nos_tf': __version__,
            'tensorflow': tf.__version__,
            'keras': keras.__version__,
            'numpy': np.__version__,
            'TF_ENABLE_ONEDNN_OPTS': os.environ.get('TF_ENABLE_ONEDNN_OPTS', '1'),
        }

    def trainer(self, iterations: int) -> 'Trainer':
        """The procedure at work, for rules of at most so many iterations."""
        return Trainer(self, iterations)


class _Run(NamedTuple):
    """What stays the same while a network trains."""

    token_ids: tf.Tensor  # int32 [5n]
    rate: tf.Tensor
    seed: tf.Tensor
    order: tf.Tensor  # int32 [steps, batch], the examples of each step


class Trainer:
    """Trains children, one after the other; built once a process. The first child waits for the trace, a few seconds.

    Args:
        child: the procedure.
        iterations: the largest depth of the rules to come.

    Raises:
        ValueError: the data do not fit the procedure.
        FileNotFoundError: the data are not there.
    """

    def __init__(self, child: Child, iterations: int) -> None:
        self.child = child
        self.iterations = iterations
        images = child.images.load()
        self.classes, self.image_shape = images.classes, images.shape
        train = images.train.head(child.train_examples)
        if len(train.labels) < (child.train_examples or 1):
            raise ValueError(f'Child.train_examples = {child.train_examples}: {images.name} has {len(train.labels)}')
        if len(train.labels) % child.batch_size:
            raise ValueError(f'Child.batch_size = {child.batch_size}: must divide {len(train.labels)} examples')
        self.steps_per_epoch = len(train.labels) // child.batch_size
        self._train = _constants(train)
        self._validation = _constants(images.validation)
        self._outcome = tf.function(
            self._trace,
            input_signature=[tf.TensorSpec([5 * iterations], tf.int32), tf.TensorSpec([], tf.int32)],
            autograph=False,
        )

    def train(self, rule: UpdateRule, seed: int | None = None) -> Outcome:
        """The outcome of a rule, or of an equal program: its canonical form is what trains.

        Args:
            rule: of at most `iterations` iterations.
            seed: another than the task's, to see how much luck there is in a reward.
        """
        start = time.perf_counter()
        seed = self.child.seed if seed is None else seed
        reward, rate, sweep = self._outcome(rule.canonical().padded_ids(self.iterations), seed)
        seconds = time.perf_counter() - start
        return Outcome(float(reward), self.child.learning_rates[int(rate)], tuple(map(float, sweep.numpy())), seconds)

    def _trace(self, token_ids: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Reward [], index of the winning rate [], sweep [R]."""
        child = self.child
        order = self._order(seed)
        weights = child.network.initial_weights(self.image_shape, self.classes, seed)
        start = (interpreter.initial_state(weights), child.network.initial_statistics())
        rates = tf.constant(child.learning_rates, tf.float32)
        sweep_steps, all_steps = (
            tf.constant(epochs * self.steps_per_epoch) for epochs in (child.sweep_epochs, child.epochs)
        )

        @tf.function(autograph=False)
        def train(
            state: State, statistics: tf.Tensor, rate: tf.Tensor, last_step: tf.Tensor
        ) -> tuple[State, tf.Tensor, tf.Tensor]:
            run = _Run(token_ids, rate, seed, order)
            state, statistics = self._steps(state, statistics, run, last_step)
            return state, statistics, self._accuracy(state.weights, statistics)

        def try_rate(i: tf.Tensor, sweep: tf.Tensor, best: tf.Tensor, winner: tuple) -> tuple:
            *candidate, accuracy = train(*start, rates[i], sweep_steps)
            better = accuracy > best
            winner = tf.nest.map_structure(lambda new, old: tf.where(better, new, old), tuple(candidate), winner)
            sweep = tf.tensor_scatter_nd_update(sweep, [[i]], [accuracy])
            return i + 1, sweep, tf.maximum(best, accuracy), winner

        _, sweep, _, winner = tf.while_loop(
            lambda i, *_: i < len(child.learning_rates),
            try_rate,
            (0, tf.zeros(len(child.learning_rates)), -1.0, start),
            parallel_iterations=1,
        )
        rate = tf.argmax(sweep, output_type=tf.int32)
        origin = winner if child.continue_sweep else start
        *_, reward = train(*origin, rates[rate], all_steps)
        return reward, rate, sweep

    def _order(self, seed: tf.Tensor) -> tf.Tensor:
        """The examples of each step, every epoch shuffled anew: int32 [steps, batch]."""
        examples = tf.range(self.steps_per_epoch * self.child.batch_size)
        epochs = [
            tf.random.experimental.stateless_shuffle(examples, tf.stack([seed, 1000 + epoch]))
            for epoch in range(self.child.epochs)
        ]
        return tf.reshape(tf.concat(epochs, 0), [-1, self.child.batch_size])

    def _steps(self, state: State, statistics: tf.Tensor, run: '_Run', last_step: tf.Tensor) -> tuple[State, tf.Tensor]:
        """Trains until `last_step` updates are done in all.

        Stops early once every weight is NaN. That is for ever (NaN minus anything is NaN) and the network's answer is
        then the same whatever comes, so stopping changes no reward.
        """
        network, images, labels = self.child.network, *self._train

        def learns(state: State, statistics: tf.Tensor) -> tf.Tensor:
            return (state.step < last_step) & ~tf.reduce_all(tf.math.is_nan(state.weights))

        def step(state: State, statistics: tf.Tensor) -> tuple[State, tf.Tensor]:
            batch = run.order[state.step]
            with tf.GradientTape() as tape:
                tape.watch(state.weights)
                logits, statistics = network.logits(
                    state.weights, statistics, tf.gather(images, batch), self.classes, training=True
                )
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.gather(labels, batch), logits)
                loss = tf.reduce_mean(losses)
            gradient = tape.gradient(loss, state.weights)
            state = interpreter.update(
                run.token_ids, state, gradient, run.rate, seed=run.seed, constants=self.child.constants
            )
            return state, statistics

        return tf.while_loop(learns, step, (state, statistics), parallel_iterations=1)

    def _accuracy(self, weights: tf.Tensor, statistics: tf.Tensor) -> tf.Tensor:
        """The share of the validation set that is classified rightly, float32 []."""
        images, labels = self._validation
        batch = self.child.batch_size
        count = labels.shape[0]

        def count_right(start: tf.Tensor, right: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            logits, _ = self.child.network.logits(
                weights, statistics, images[start : start + batch], self.classes, training=False
            )
            hits = tf.argmax(logits, axis=-1, output_type=tf.int32) == labels[start : start + batch]
            return start + batch, right + tf.math.count_nonzero(hits, dtype=tf.int32)

        _, right = tf.while_loop(lambda start, _: start < count, count_right, (0, 0), parallel_iterations=1)
        return tf.cast(right, tf.float32) / count


def _constants(split: Split) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.constant(split.images), tf.constant(split.labels)
