"""The controller RNN: an LSTM that writes a rule token by token, one softmax a step (Sections 3.2, 4.1, 4.2; Figure 3).

Axes: `B` children, `T = 5 n` tokens of a rule, `K` the longest of the banks that a token is chosen from. The logits of
a batch are one tensor `[B, T, K]`: what a constraint forbids, and what lies beyond the end of a shorter bank, holds
`FORBIDDEN`. The paper sets these logits to minus infinity; but p log p is then 0 * inf = NaN wherever a formula does
not guard it. exp(-1e9) is 0 too, so the probabilities are the same, and every derivative is finite.
"""

import sys
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

try:
    import tensorflow_probability as tfp
except AttributeError as error:  # it imports tf_keras, which edits docstrings
    if sys.flags.optimize < 2:
        raise
    raise ImportError('TensorFlow Probability needs docstrings, which python -OO drops: use python -O') from error

from nos_tf.dsl.space import SearchSpace

FORBIDDEN = -1e9  # a logit whose probability is exactly 0 in float32 and float64
CHOICES = tf.TensorSpec([None, None], tf.int32)  # [B, T]


def log_prob(logits: tf.Tensor, choices: tf.Tensor) -> tf.Tensor:
    """Returns log p(rule) = sum_t log p(choice_t | those before), `[B]`, of logits `[B, T, K]`, choices `[B, T]`."""
    return tf.reduce_sum(tfp.distributions.Categorical(logits=logits).log_prob(choices), axis=-1)


def entropy(logits: tf.Tensor) -> tf.Tensor:
    """Returns the entropy in nats of the softmaxes, summed over steps, averaged over children: a scalar of `[B, T, K]`.

    On prefixes sampled from the policy this estimates the entropy of its distribution over rules without bias. Its
    derivative holds the prefixes fixed, as the entropy bonus of policy gradients does.
    """
    return tf.reduce_mean(tf.reduce_sum(tfp.distributions.Categorical(logits=logits).entropy(), axis=-1))


def kl_divergence(old: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
    """Returns KL(old || new) in nats on the same prefixes, summed over steps, averaged over children: a scalar.

    Args:
      old: logits `[B, T, K]`.
      new: logits `[B, T, K]` of another policy that read the same choices.
    """
    kl = tfp.distributions.kl_divergence(
        tfp.distributions.Categorical(logits=old), tfp.distributions.Categorical(logits=new)
    )
    return tf.reduce_mean(tf.reduce_sum(kl, axis=-1))


class Policy(keras.Model):
    """p(rule) = prod_t softmax(W_t h_t + b_t), h_t = LSTM(h_{t-1}, E_{t-1}[choice_{t-1}]).

    Every step has a softmax head and an embedding of its own, because the operand bank grows by one at each iteration.
    Nothing is chosen before the first step: its input, like the LSTM's first state, is zero (a learned start vector
    would only add to the LSTM's bias). All weights and biases, the forget gate's too, start uniform in [-0.08, 0.08].

    Args:
      space: the language that is written; it says what may follow what.
      seed: of the initial weights: the same seed gives the same weights, bit for bit.
      units: size of the LSTM and of the embeddings.
      weight_range: half-width of the initial weights.
      dtype: "float32", or "float64" where a test needs the digits.
    """

    def __init__(
        self,
        space: SearchSpace,
        seed: int = 0,
        units: int = 150,
        weight_range: float = 0.08,
        dtype: str = 'float32',
    ) -> None:
        super().__init__(name='policy', dtype=dtype)
        uniform = _initializers(seed, weight_range)
        self.space, self.units = space, units
        self.masks = _padded(space.masks)
        self.cell = keras.layers.LSTMCell(
            units,
            kernel_initializer=next(uniform),
            recurrent_initializer=next(uniform),
            bias_initializer=next(uniform),
            unit_forget_bias=False,
            dtype=dtype,
        )
        banks = [len(bank) for bank in space.choices]
        self.heads = [
            keras.layers.Dense(bank, kernel_initializer=next(uniform), bias_initializer=next(uniform), dtype=dtype)
            for bank in banks
        ]
        self.embeddings = [
            keras.layers.Embedding(bank, units, embeddings_initializer=next(uniform), dtype=dtype)
            for bank in banks[:-1]
        ]
        self(np.zeros([1, len(banks)], np.int32))  # builds every layer

    def call(self, choices: tf.Tensor) -> tf.Tensor:
        """Returns the logits `[B, T, K]` of every step, each given the choices `[B, T]` before it."""
        prefix = tf.unstack(choices, num=len(self.heads), axis=1)
        states = self._first_states(tf.shape(choices)[0])
        logits = []
        for step in range(len(self.heads)):
            here, states = self._advance(step, prefix, states)
            logits.append(here)
        return tf.stack(logits, axis=1)

    def logits_at(self, weights: list[tf.Tensor], choices: tf.Tensor) -> tf.Tensor:
        """Returns `call(choices)`, `[B, T, K]`, as a pure function of the weights, ordered as `trainable_variables`."""
        logits, _ = self.stateless_call(weights, self.non_trainable_variables, choices)
        return logits

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([], tf.int32), tf.TensorSpec([2], tf.int32)])
    def sample(self, count: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Writes rules: a pure function of (weights, count, seed), so that a resumed run needs no state of a generator.

        Args:
          count: B, how many.
          seed: int32 `[2]`, both numbers of any value.

        Returns:
          choices, int32 `[B, T]`, and log p(rule), `[B]`.
        """
        states = self._first_states(count)
        prefix: list[tf.Tensor] = []
        logits = []
        for step in range(len(self.heads)):
            here, states = self._advance(step, prefix, states)
            logits.append(here)
            step_seed = tf.random.experimental.stateless_fold_in(seed, step)
            prefix.append(tfp.distributions.Categorical(logits=here).sample(seed=step_seed))
        choices = tf.stack(prefix, axis=1)
        return choices, log_prob(tf.stack(logits, axis=1), choices)

    @tf.function(autograph=False, input_signature=[CHOICES])
    def logits(self, choices: tf.Tensor) -> tf.Tensor:
        """Returns `call(choices)`, the logits `[B, T, K]` of every step, by a graph that is traced once."""
        return self(choices)

    @tf.function(autograph=False, input_signature=[CHOICES])
    def log_prob(self, choices: tf.Tensor) -> tf.Tensor:
        """Returns log p(rule) `[B]` of choices `[B, T]`; that of a rule that the constraints forbid is below -1e8."""
        return log_prob(self(choices), choices)

    @tf.function(autograph=False, input_signature=[CHOICES])
    def entropy(self, choices: tf.Tensor) -> tf.Tensor:
        """Returns the entropy in nats, a scalar, on the prefixes of sampled choices `[B, T]`."""
        return entropy(self(choices))

    @tf.function(autograph=False, reduce_retracing=True)
    def kl(self, choices: tf.Tensor, old: tf.Tensor) -> tf.Tensor:
        """Returns KL(old || this policy), a scalar, of old `logits(choices)` `[B, T, K]` kept from before an update."""
        return kl_divergence(old, self(choices))

    def _first_states(self, count: tf.Tensor) -> list[tf.Tensor]:
        zeros = tf.zeros([count, self.units], self.compute_dtype)
        return [zeros, zeros]

    def _advance(
        self, step: int, prefix: list[tf.Tensor], states: list[tf.Tensor]
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Returns the logits `[B, K]` of one step, and the next states; prefix: `[B]` for each choice before it."""
        inputs = self.embeddings[step - 1](prefix[step - 1]) if step else tf.zeros_like(states[0])
        hidden, states = self.cell(inputs, states)
        output = self.heads[step](hidden)
        mask = self.masks[step]  # [1, K]; for a second operand [R, K], whose row is the choice of the first
        allowed = tf.gather(mask, prefix[step - 1]) if len(mask) > 1 else mask
        output = tf.pad(output, [[0, 0], [0, mask.shape[-1] - output.shape[-1]]])
        return tf.where(allowed, output, FORBIDDEN), states


def _initializers(seed: int, weight_range: float) -> Iterator[keras.initializers.Initializer]:
    """Yields uniform initializers without end, each with a seed of its own: equal seeds would give equal weights."""
    seeds = np.random.default_rng(seed)
    while True:
        yield keras.initializers.RandomUniform(-weight_range, weight_range, seed=int(seeds.integers(2**31)))


def _padded(masks: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    """Returns the masks, bool `[R_t, K_t]`, widened to `[R_t, K]` with False."""
    width = max(mask.shape[-1] for mask in masks)
    return [np.pad(mask, [(0, 0), (0, width - mask.shape[-1])]) for mask in masks]
