"""Children by the hundred at once, for an accelerator: what one child leaves idle, the others use.

The network, the procedure and the rules are those of `nos_tf.tasks.child` and `nos_tf.tasks.training`; what is
different is that the models of many rules and learning rates train side by side, each on its own row of every tensor,
on the JAX backend of Keras. The primitives are the one implementation that the package has,
`nos_tf.optimizers.semantics`; initial weights and batches are drawn by NumPy, so rewards are those of the other
evaluators but for the luck of a seed.

A few optimizers that the language cannot spell, or spells otherwise than Keras computes them, have a number instead of
tokens (`HAND_MADE`).
"""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nos_tf.dsl.primitives import Inputs, RuleConstants
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.vocabulary import VERSION_1
from nos_tf.optimizers import semantics
from nos_tf.optimizers.semantics import Draws

ITERATIONS = 3  # of the deepest rule
CONSTANTS = RuleConstants()
KERAS_EPSILON = 1e-7
EVALUATED = 100  # images at a time


class Optimizer(NamedTuple):
    """What updates a model: a rule, or one of `HAND_MADE`."""

    token_ids: tuple[int, ...] = (0,) * 5 * ITERATIONS
    kind: int = 0  # 0: a rule
    beta_1: float = CONSTANTS.beta_1
    beta_2: float = CONSTANTS.beta_2
    epsilon: float = KERAS_EPSILON

    @classmethod
    def of(cls, text: str) -> 'Optimizer':
        """The one that a text denotes: a name in `HAND_MADE`, or a rule in any notation."""
        if text in HAND_MADE:
            return HAND_MADE[text]
        return cls(tuple(UpdateRule.parse(text).canonical().padded_ids(ITERATIONS).tolist()))


HAND_MADE = {
    'keras.SGD with momentum=0.9': Optimizer(kind=1),
    **{
        f'keras.Adam{told}': Optimizer(kind=2, epsilon=epsilon)
        for told, epsilon in (('', 1e-7), (' with epsilon=0.0001', 1e-4), (' with epsilon=0.01', 1e-2))
    },
    'keras.RMSprop': Optimizer(kind=3, beta_2=0.9),
    'keras.Lion': Optimizer(kind=4, beta_1=0.99),
}


Job = tuple[Optimizer, float]  # and its learning rate


class Models(NamedTuple):
    """What updates each of K models."""

    token_ids: Any  # int32 [K, 5 ITERATIONS]
    kind: Any  # int32 [K]
    beta_1: Any  # float32 [K]
    beta_2: Any
    epsilon: Any
    rate: Any

    @classmethod
    def of(cls, jobs: Sequence[Job]) -> 'Models':
        """Those of optimizers with learning rates."""
        ids, kinds, *floats = zip(*((*optimizer, rate) for optimizer, rate in jobs), strict=True)
        return cls(jnp.array(ids, jnp.int32), jnp.array(kinds, jnp.int32), *(jnp.array(f, jnp.float32) for f in floats))


class State(NamedTuple):
    """What training changes: a row for each model."""

    weights: Any  # float32 [K, P]
    m: Any  # not bias-corrected, as the next two
    v: Any
    gamma: Any
    statistics: Any  # float32 [K, 2, 2, F]: layer by moment


@dataclass(frozen=True)
class Task:
    """Images [N, H, W, C] and labels [N], and the network that classifies them.

    Args:
        train: all of it is used.
        validation: chooses learning rates, and is the reward; a multiple of `EVALUATED` images.
        filters: of each convolution.
        batch_size: in examples.
        dtype: of activations and products.
    """

    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    filters: int = 16
    batch_size: int = 100
    dtype: Any = jnp.bfloat16
    classes: int = 10
    statistics_momentum: float = 0.9
    statistics_epsilon: float = 1e-3

    @property
    def steps_per_epoch(self) -> int:
        """Updates in which every example is seen once."""
        return len(self.train[1]) // self.batch_size

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The trainable tensors in the order of the flat vector."""
        height, width, channels = self.train[0].shape[1:]
        f = self.filters
        return {
            'kernel_1': (9 * channels, f),
            'scale_1': (f,),
            'offset_1': (f,),
            'kernel_2': (9 * f, f),
            'scale_2': (f,),
            'offset_2': (f,),
            'dense': (self.classes, height * width * f),
            'bias': (self.classes,),
        }

    def initial_weights(self, seed: int) -> np.ndarray:
        """Glorot-uniform kernels, unit scales, zero offsets: float32 [P]."""
        rng = np.random.default_rng([seed, 0])
        parts = []
        for name, shape in self.shapes().items():
            if len(shape) > 1:
                fans = shape[0] + shape[1] * (9 if name.startswith('kernel') else 1)
                limit = math.sqrt(6 / fans)
                parts.append(rng.uniform(-limit, limit, math.prod(shape)))
            else:
                parts.append(np.full(shape, float(name.startswith('scale'))))
        return np.concatenate(parts).astype(np.float32)

    def order(self, seed: int, steps: int) -> np.ndarray:
        """Which examples each step trains on: int32 [steps, B]."""
        epochs = -(-steps // self.steps_per_epoch)
        size = self.steps_per_epoch * self.batch_size
        shuffled = [np.random.default_rng([seed, 1, e]).permutation(len(self.train[1]))[:size] for e in range(epochs)]
        return np.concatenate(shuffled).reshape(-1, self.batch_size)[:steps].astype(np.int32)


def patches(images: Any) -> Any:
    """The 3x3 surroundings of every pixel, zeros beyond the edge: [B, H, W, 9 C]."""
    _, height, width, _ = images.shape
    wide = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return jnp.concatenate([wide[:, i : i + height, j : j + width] for i in range(3) for j in range(3)], -1)


class Network:
    """The network of one model, and its training step; `jax.vmap` makes rows of it."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def logits(self, weights: Any, statistics: Any, seen: Any, training: bool) -> tuple[Any, Any]:
        """Logits float32 [B, classes] of patches, and the moments of the batch [2, 2, F] (or the statistics)."""
        task, w, at = self.task, {}, 0
        for name, shape in task.shapes().items():
            w[name] = weights[at : at + math.prod(shape)].reshape(shape)
            at += math.prod(shape)
        moments = []
        x = seen
        for i in (1, 2):
            x = jnp.dot(x.astype(task.dtype), w[f'kernel_{i}'].astype(task.dtype))
            wide = x.astype(jnp.float32)
            if training:
                mean = wide.mean((0, 1, 2))
                variance = jnp.square(wide - mean).mean((0, 1, 2))
            else:
                mean, variance = statistics[i - 1]
            factor = w[f'scale_{i}'] * lax.rsqrt(variance + task.statistics_epsilon)
            x = jnp.maximum((wide - mean) * factor + w[f'offset_{i}'], 0).astype(task.dtype)
            moments.append(jnp.stack([mean, variance]))
            if i == 1:
                x = patches(x)
        flat = x.reshape(x.shape[0], -1)
        product = jnp.dot(flat, w['dense'].T.astype(task.dtype), preferred_element_type=jnp.float32)
        return product + w['bias'], jnp.stack(moments)

    def loss(self, weights: Any, seen: Any, labels: Any) -> tuple[Any, Any]:
        """Mean cross-entropy, and the moments of the batch."""
        logits, moments = self.logits(weights, None, seen, training=True)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)
        return -chosen.mean(), lax.stop_gradient(moments)

    def step(self, model: Models, state: State, seen: Any, labels: Any, seed: Any, t: Any) -> State:
        """One update of one model, its t-th."""
        gradient, moments = jax.grad(self.loss, has_aux=True)(state.weights, seen, labels)
        betas = model.beta_1, model.beta_2, CONSTANTS.beta_3
        slots = [
            beta * slot + (1 - beta) * gradient**power
            for power, (beta, slot) in enumerate(zip(betas, state[1:4], strict=True), 1)
        ]
        delta = _delta(model, state, gradient, slots, seed, t)
        keep = self.task.statistics_momentum
        statistics = keep * state.statistics + (1 - keep) * moments
        m, v, gamma = slots
        return State(state.weights - model.rate * delta, m, v, gamma, statistics)


def _delta(model: Models, state: State, gradient: Any, slots: Sequence[Any], seed: Any, t: Any) -> Any:
    """The update of one model for a learning rate of 1: what its rule says, or its optimizer of `HAND_MADE`."""
    time = t.astype(jnp.float32)
    # 1 - beta^t, as semantics.bias_correction has it
    warmth = [-jnp.expm1(time * jnp.log(beta)) for beta in (model.beta_1, model.beta_2, CONSTANTS.beta_3)]
    averages = {name: slot / warm for name, slot, warm in zip(VERSION_1.slots, slots, warmth, strict=True)}
    m, v, _ = slots
    draws = Draws(seed, t, jnp.arange(gradient.size, dtype=jnp.int32))
    inputs = Inputs(gradient, state.weights, averages, CONSTANTS)
    return lax.switch(
        model.kind,
        [
            lambda: semantics.run(model.token_ids, inputs, draws, lax.switch),
            lambda: m / (1 - model.beta_1),
            lambda: m * jnp.sqrt(warmth[1]) / warmth[0] / (jnp.sqrt(v) + model.epsilon),
            lambda: gradient * lax.rsqrt(v + model.epsilon),
            lambda: jnp.sign(0.9 * state.m + 0.1 * gradient),
        ],
    )


class Lab:
    """Trains models on a task, so many at a time that one compiled program serves for all.

    Args:
        task: of all models.
        models: K, how many train side by side; fewer are filled up.
    """

    def __init__(self, task: Task, models: int) -> None:
        self.task, self._side_by_side = task, models
        parts = (task.train, task.validation)
        self._data = [(jnp.asarray(images, jnp.float32), jnp.asarray(labels, jnp.int32)) for images, labels in parts]
        network = Network(task)
        step = jax.vmap(network.step, in_axes=(0, 0, None, None, None, None))
        logits = jax.vmap(functools.partial(network.logits, training=False), in_axes=(0, 0, None))

        @functools.partial(jax.jit, donate_argnums=1)
        def train(models: Models, state: State, data: Any, order: Any, seed: Any, first: Any, end: Any) -> State:
            """All steps from `first` to before `end`, in one compiled loop."""
            images, labels = data

            def one(i: Any, state: State) -> State:
                return step(models, state, patches(images[order[i]]), labels[order[i]], seed, i + 1)

            return lax.fori_loop(first, end, one, state)

        @jax.jit
        def accuracy(state: State, data: Any) -> Any:
            """The share that each model classifies rightly, [K]; chance for one that is not finite."""
            images, labels = (part.reshape(-1, EVALUATED, *part.shape[1:]) for part in data)

            def one(i: Any, right: Any) -> Any:
                found = logits(state.weights, state.statistics, patches(images[i]))[0].argmax(-1)
                return right + (found == labels[i]).sum(-1)

            right = lax.fori_loop(0, len(images), one, jnp.zeros(len(state.weights), jnp.int32))
            finite = jnp.isfinite(state.weights).all(-1)
            return jnp.where(finite, right / data[1].size, 1 / task.classes)

        self._train, self._accuracy = train, accuracy

    def start(self, seed: int, models: int) -> State:
        """The states of so many models before training: all the same."""
        weights = jnp.tile(self.task.initial_weights(seed), (models, 1))
        layer = jnp.stack([jnp.zeros(self.task.filters), jnp.ones(self.task.filters)])
        statistics = jnp.tile(jnp.stack([layer, layer]), (models, 1, 1, 1))
        nothing = jnp.zeros_like(weights)
        return State(weights, nothing, nothing, nothing, statistics)

    def _pieces(self, state: State) -> Iterator[tuple[np.ndarray, State, int]]:
        """Which rows train side by side, their states, and how many of them are no filling."""
        count = len(state.weights)
        for at in range(0, count, self._side_by_side):
            rows = np.minimum(np.arange(at, at + self._side_by_side), count - 1)
            yield rows, _rows(state, rows), min(count - at, self._side_by_side)

    def train(self, jobs: Sequence[Job], state: State, order: Any, seed: int, first: int, end: int) -> State:
        """The states of models, one a job, after the steps from `first` to before `end`.

        Args:
            jobs: K of them.
            state: after the step before `first`.
            order: of the task, for at least `end` steps; another length is compiled anew.
            seed: of what rules draw.
            first: counted from 0.
            end: likewise.
        """
        trained = []
        for rows, piece, count in self._pieces(state):
            models = Models.of([jobs[row] for row in rows])
            done = self._train(models, piece, self._data[0], order, jnp.int32(seed), first, end)
            trained.append(_rows(done, np.arange(count)))
        return jax.tree.map(lambda *x: jnp.concatenate(x), *trained)

    def accuracy(self, state: State) -> np.ndarray:
        """Of each model on validation, float [K]."""
        found = [np.asarray(self._accuracy(piece, self._data[1]))[:count] for _, piece, count in self._pieces(state)]
        return np.concatenate(found)

    def race(
        self, optimizers: Sequence[Optimizer], rates: Sequence[float], rungs: Sequence[tuple[int, int]], seed: int
    ) -> tuple[State, np.ndarray, np.ndarray]:
        """Trains optimizers at all rates; after each rung the better rates of each go on, by validation accuracy.

        Args:
            optimizers: R of them.
            rates: the same for all.
            rungs: (steps so far, rates that go on), the last one with one rate.
            seed: of weights, batches and what rules draw.

        Returns:
            states, validation accuracy and learning rate of each optimizer: [R].
        """
        jobs = [(i, rate) for i in range(len(optimizers)) for rate in rates]
        order = jnp.asarray(self.task.order(seed, rungs[-1][0]))
        state, first = self.start(seed, len(jobs)), 0
        for end, kept in rungs:
            state = self.train([(optimizers[i], rate) for i, rate in jobs], state, order, seed, first, end)
            found = self.accuracy(state)
            numbers, tried = np.array(jobs).T
            ranked = np.lexsort(np.stack([tried, -found, numbers]))  # an optimizer has as many jobs as any other
            rows = ranked.reshape(len(optimizers), -1)[:, :kept].ravel()
            state, found = _rows(state, rows), found[rows]
            jobs, first = [jobs[row] for row in rows], end
        return state, found, np.array([rate for _, rate in jobs])


def _rows(state: State, rows: np.ndarray) -> State:
    return jax.tree.map(lambda x: x[rows], state)
