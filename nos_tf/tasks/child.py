"""A rule in, a reward out: the learning-rate sweep, the training and the validation of a child network (Section 4.2).

`Child` is the procedure, a value that pickles. `Trainer` is the procedure at work: one traced graph, a pure function of
(rule, seed), that trains every rule. Nothing random but the seed, which belongs to the task: the same rule earns the
same reward, bit for bit, in any order and in any process of the same kind.
"""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import gin
import numpy as np
import tensorflow as tf

from nos_tf.dsl.primitives import RuleConstants
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.optimizers import interpreter
from nos_tf.optimizers.interpreter import State
from nos_tf.tasks import machine
from nos_tf.tasks.convnet import Batch, ConvNet
from nos_tf.tasks.images import PLACES, Digits, ImageSource, Split
from nos_tf.tasks.layers import all_patch_moments
from nos_tf.tasks.race import Network, pick, race

gin.external_configurable(RuleConstants)

PAPER_LEARNING_RATES = tuple(10.0**i for i in range(-5, 2))


class Outcome(NamedTuple):
    """What became of a child: accuracies are fractions of the validation set."""

    reward: float  # after the last epoch
    learning_rate: float  # the rate that won the sweep
    sweep: tuple[float | None, ...]  # the accuracy of each rate after the sweep's epochs; None if it was given up
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
        rungs: where the sweep gives up learning rates, pairs of a share of its steps and a number of rates: after the
            share so many go on, those of the smallest mean training loss since the rung before. () for none.
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
    rungs: Sequence[tuple[float, int]] = ()
    continue_sweep: bool = True
    constants: RuleConstants = RuleConstants()
    seed: int = 0

    def __post_init__(self) -> None:
        for name, verb in (('images', 'load'), ('network', 'logits')):
            value = getattr(self, name)
            if isinstance(value, type) or not hasattr(value, verb):
                raise ValueError(f'Child.{name} = {value!r}: write @Name(), with brackets')
        try:
            rates = np.sort(np.atleast_1d(np.asarray(self.learning_rates, float)))
        except (TypeError, ValueError):
            rates = np.zeros(0)
        if not rates.size or not all(0 < rate < np.inf for rate in rates):
            raise ValueError(f'Child.learning_rates = {self.learning_rates!r}: must be positive numbers, at least one')
        object.__setattr__(self, 'learning_rates', tuple(rates.tolist()))
        for name in ('sweep_epochs', 'epochs', 'batch_size', 'train_examples'):
            value = getattr(self, name)
            if not (value is None and name == 'train_examples') and (
                isinstance(value, bool) or not isinstance(value, int) or value < 1
            ):
                raise ValueError(f'Child.{name} = {value!r}: must be a whole number, at least 1')
        if not isinstance(self.seed, int) or not 0 <= self.seed < 2**30:
            raise ValueError(f'Child.seed = {self.seed!r}: must be a whole number from 0 to 2^30 - 1')
        object.__setattr__(self, 'rungs', _checked_rungs(self.rungs, rates.size))
        if self.sweep_epochs > self.epochs:
            raise ValueError(f'Child.sweep_epochs = {self.sweep_epochs}: must not exceed Child.epochs = {self.epochs}')

    def identity(self) -> dict[str, Any]:
        """All that a reward depends on, the machine included: name of each part -> JSON value."""
        procedure = dataclasses.asdict(self)
        del procedure['continue_sweep']  # same bits
        source = {k: v for k, v in procedure.pop('images').items() if k not in PLACES}
        return {
            **{f'Child.{name}': value for name, value in procedure.items()},
            'Child.images': {'source': type(self.images).__name__, **source},
            'images': self.images.load().fingerprint(),
            **machine.identity(),
        }

    def trainer(self, vocabulary: Vocabulary | int) -> 'Trainer':
        """Returns the procedure at work, for rules of a vocabulary, or of version 1 with at most so many iterations."""
        return Trainer(self, Vocabulary(vocabulary) if isinstance(vocabulary, int) else vocabulary)


def _checked_rungs(rungs: Sequence[tuple[float, int]], rates: int) -> tuple[tuple[float, int], ...]:
    if not isinstance(rungs, Sequence):
        raise ValueError(f'Child.rungs = {rungs!r}: must be a sequence, such as ((0.25, 3),)')
    share, remaining = 0.0, rates
    for rung in rungs:
        numbers = isinstance(rung, Sequence) and [isinstance(value, int | float) for value in rung] == [True, True]
        if not numbers or not (share < rung[0] < 1 and 1 <= rung[1] < remaining):
            raise ValueError(
                f'Child.rungs = {rungs!r}: {rung!r} must be a share of the sweep above {share:g} and below 1, and a '
                f'number of learning rates from 1 to {remaining - 1}'
            )
        share, remaining = rung
    return tuple((float(share), int(remaining)) for share, remaining in rungs)


class Data(NamedTuple):
    """The images of a task as tensors: what a process needs to train children beside the graph."""

    train: Batch
    images: tf.Tensor  # of the validation set
    labels: tf.Tensor


class _Run(NamedTuple):
    """What stays the same while a network trains."""

    train: Batch
    token_ids: tf.Tensor  # int32 [5n]
    rate: tf.Tensor
    seed: tf.Tensor
    order: tf.Tensor  # int32 [steps, batch], the examples of each step


class Trainer:
    """Trains children, one after the other; built once a process. The first child waits for the trace, a few seconds.

    Args:
        child: the procedure.
        vocabulary: what the rules to come consist of.

    Raises:
        ValueError: the data do not fit the procedure.
        FileNotFoundError: the data are not there.
    """

    def __init__(self, child: Child, vocabulary: Vocabulary) -> None:
        self.child, self.vocabulary = child, vocabulary
        self.iterations = vocabulary.iterations
        images = child.images.load()
        self.classes, self.image_shape = images.classes, images.shape
        train = images.train.head(child.train_examples)
        if len(train.labels) < (child.train_examples or 1):
            raise ValueError(f'Child.train_examples = {child.train_examples}: {images.name} has {len(train.labels)}')
        if len(train.labels) % child.batch_size:
            raise ValueError(f'Child.batch_size = {child.batch_size}: must divide {len(train.labels)} examples')
        self.steps_per_epoch = len(train.labels) // child.batch_size
        images_and_labels = _constants(train)
        self.data = Data(
            Batch(*images_and_labels, all_patch_moments(images_and_labels[0])), *_constants(images.validation)
        )
        self._outcome = tf.function(self.graph, input_signature=self.signature, autograph=False)

    @property
    def signature(self) -> list[Any]:
        """The types and shapes of what `graph` takes."""
        data = tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), self.data)
        return [tf.TensorSpec([5 * self.iterations], tf.int32), tf.TensorSpec([], tf.int32), data]

    def train(self, rule: UpdateRule, seed: int | None = None) -> Outcome:
        """The outcome of a rule, or of an equal program: its canonical form is what trains.

        Args:
            rule: of the vocabulary.
            seed: another than the task's, to see how much luck there is in a reward.

        Raises:
            MemoryError: there is too little for the batch and the network, which the message names.
        """
        start = time.perf_counter()
        seed = self.child.seed if seed is None else seed
        try:
            reward, rate, accuracies = self._outcome(self.vocabulary.ids_of(rule), seed, self.data)
        except tf.errors.ResourceExhaustedError as error:
            batch = f'a batch of {self.child.batch_size} images of {"x".join(map(str, self.image_shape))}'
            raise MemoryError(f'out of memory: {batch} on {self.child.network} needs more than there is') from error
        return self.outcome(reward.numpy(), rate.numpy(), accuracies.numpy(), time.perf_counter() - start)

    def outcome(self, reward: np.ndarray, rate: np.ndarray, accuracies: np.ndarray, seconds: float) -> Outcome:
        """What the values of `graph` tell."""
        sweep = tuple(None if accuracy < 0 else float(accuracy) for accuracy in accuracies)
        return Outcome(float(reward), self.child.learning_rates[int(rate)], sweep, seconds)

    @property
    def traces(self) -> int:
        """How often the graph was traced: once, whatever the rules."""
        return self._outcome.experimental_get_tracing_count()

    def graph(self, token_ids: tf.Tensor, seed: tf.Tensor, data: Data) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The training of one child, to be traced once and run anywhere: it holds no variable and no data.

        Args:
            token_ids: int32 [5n], of a canonical rule.
            seed: int32 [].
            data: as `data` has them.

        Returns:
            reward [], index of the winning rate [], sweep [R], -1 where a rate was given up.
        """
        child = self.child
        order = self._order(seed)
        weights = child.network.initial_weights(self.image_shape, self.classes, seed)
        start = (interpreter.initial_state(weights, self.vocabulary), child.network.initial_statistics())
        rates = tf.constant(child.learning_rates, tf.float32)
        sweep_steps, all_steps = (epochs * self.steps_per_epoch for epochs in (child.sweep_epochs, child.epochs))

        @tf.function(autograph=False)  # traced once for the sweep and what follows it
        def train(network: Network, rate: tf.Tensor, last_step: tf.Tensor) -> tuple[Network, tf.Tensor]:
            return self._steps(*network, _Run(data.train, token_ids, rate, seed, order), last_step)

        accuracy = tf.function(lambda network: self._accuracy(network[0].weights, network[1], data), autograph=False)
        rungs = [(max(1, round(share * sweep_steps)), remaining) for share, remaining in child.rungs]
        networks, sweep = race(start, rates, train, accuracy, rungs=rungs, last_step=sweep_steps)
        best = tf.argmax(sweep, output_type=tf.int32)
        origin = pick(networks, best) if child.continue_sweep else start
        winner, _ = train(origin, rates[best], tf.constant(all_steps))
        return accuracy(winner), best, sweep

    def _order(self, seed: tf.Tensor) -> tf.Tensor:
        """The examples of each step, every epoch shuffled anew: int32 [steps, batch]."""
        examples = tf.range(self.steps_per_epoch * self.child.batch_size)
        epochs = [
            tf.random.experimental.stateless_shuffle(examples, tf.stack([seed, 1000 + epoch]))
            for epoch in range(self.child.epochs)
        ]
        return tf.reshape(tf.concat(epochs, 0), [-1, self.child.batch_size])

    def _steps(self, state: State, statistics: tf.Tensor, run: _Run, last_step: tf.Tensor) -> tuple[Network, tf.Tensor]:
        """Trains until `last_step` updates are done in all; also returns the mean loss of the updates done here.

        Stops early once every weight is NaN. That is for ever (NaN minus anything is NaN) and the network's answer is
        then the same whatever comes, so stopping changes no reward. The loss, NaN by then, says when to look.
        """
        network = self.child.network
        first_step = state.step

        def learns(state: State, statistics: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
            lost = tf.cond(
                tf.math.is_nan(total), lambda: tf.reduce_all(tf.math.is_nan(state.weights)), lambda: tf.constant(False)
            )
            return (state.step < last_step) & ~lost

        def step(state: State, statistics: tf.Tensor, total: tf.Tensor) -> tuple[State, tf.Tensor, tf.Tensor]:
            """Trains on one minibatch, and adds its loss to the total."""
            batch = Batch(*(tf.gather(part, run.order[state.step]) for part in run.train))
            loss, gradient, statistics = network.gradient(state.weights, statistics, batch, self.classes)
            state = interpreter.update(
                run.token_ids,
                state,
                gradient,
                run.rate,
                seed=run.seed,
                constants=self.child.constants,
                vocabulary=self.vocabulary,
                total_steps=self.child.epochs * self.steps_per_epoch,
            )
            return state, statistics, total + loss

        state, statistics, total = tf.while_loop(learns, step, (state, statistics, 0.0), parallel_iterations=1)
        return (state, statistics), total / tf.cast(tf.maximum(state.step - first_step, 1), tf.float32)

    def _accuracy(self, weights: tf.Tensor, statistics: tf.Tensor, data: Data) -> tf.Tensor:
        """The share of the validation set that is classified rightly, float32 []."""
        images, labels = data.images, data.labels
        batch = self.child.batch_size
        count = labels.shape[0]

        def count_right(start: tf.Tensor, right: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            logits = self.child.network.logits(weights, statistics, images[start : start + batch], self.classes)
            hits = tf.argmax(logits, axis=-1, output_type=tf.int32) == labels[start : start + batch]
            return start + batch, right + tf.math.count_nonzero(hits, dtype=tf.int32)

        _, right = tf.while_loop(lambda start, _: start < count, count_right, (0, 0), parallel_iterations=1)
        return tf.cast(right, tf.float32) / count


def _constants(split: Split) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.constant(split.images), tf.constant(split.labels)
