"""Long short-term memory over whole sequences, time first, and one step of it.

A loop of our own: what does not depend on the step before is one product over all steps, forwards and backwards. It is
the fastest of the paths that benchmarks/gnmt_step.py measures on a CPU. Without masks: padding comes last, and what
comes later changes nothing before it.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf


class LstmWeights(NamedTuple):
    """Of one layer, the gates in the order of Keras: input, forget, candidate, output."""

    kernel: tf.Tensor  # [I, 4H]
    recurrent: tf.Tensor  # [H, 4H]
    bias: tf.Tensor  # [4H]


class LstmState(NamedTuple):
    """What a layer hands to its next step."""

    h: tf.Tensor  # [N, H], its output
    c: tf.Tensor  # [N, H]


def step(weights: LstmWeights, inputs: tf.Tensor, state: LstmState) -> LstmState:
    """One step for inputs [N, I]."""
    z = inputs @ weights.kernel + state.h @ weights.recurrent + weights.bias
    return _cell(z, state.c)[0]


def sequence(weights: LstmWeights, inputs: tf.Tensor) -> tf.Tensor:
    """The outputs [T, N, H] for inputs [T, N, I], from a state of zeros."""
    return _loop(tf.tensordot(inputs, weights.kernel, 1) + weights.bias, weights.recurrent)


def _cell(z: tf.Tensor, c: tf.Tensor) -> tuple[LstmState, tf.Tensor]:
    """The new state and the gates [N, 4H], from what goes into the gates."""
    i, f, g, o = tf.split(z, 4, -1)
    i, f, g, o = tf.sigmoid(i), tf.sigmoid(f), tf.tanh(g), tf.sigmoid(o)
    c = f * c + i * g
    return LstmState(o * tf.tanh(c), c), tf.concat([i, f, g, o], -1)


@tf.custom_gradient
def _loop(projected: tf.Tensor, recurrent: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """h [T, N, H] of what the inputs bring to the gates [T, N, 4H].

    With δ_t the gradient at the gates of step t, that of the recurrent kernel is Σ h_{t-1}ᵀ δ_t: one product, last.
    """
    steps, count, units = tf.shape(projected)[0], tf.shape(projected)[1], recurrent.shape[0]
    zeros = tf.zeros([count, units], projected.dtype)

    def array(width: int) -> tf.TensorArray:
        return tf.TensorArray(projected.dtype, steps, element_shape=[None, width])

    def forward(t: tf.Tensor, h: tf.Tensor, c: tf.Tensor, *arrays: tf.TensorArray) -> tuple:
        state, gates = _cell(projected[t] + h @ recurrent, c)
        return t + 1, *state, *(a.write(t, v) for a, v in zip(arrays, (*state, gates), strict=True))

    start = (0, zeros, zeros, array(units), array(units), array(4 * units))
    _, _, _, *arrays = tf.while_loop(lambda t, *_: t < steps, forward, start, parallel_iterations=1)
    hs, cs, gates = (a.stack() for a in arrays)

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Of both inputs, from that of h."""
        h_before, c_before = (tf.concat([zeros[None], values[:-1]], 0) for values in (hs, cs))

        def backward(t: tf.Tensor, dh: tf.Tensor, dc: tf.Tensor, deltas: tf.TensorArray) -> tuple:
            """A step back in time."""
            i, f, g, o = tf.split(gates[t], 4, -1)
            squashed = tf.tanh(cs[t])
            dh += upstream[t]
            dc += dh * o * (1 - squashed * squashed)
            of_gates = dc * g * i * (1 - i), dc * c_before[t] * f * (1 - f), dc * i * (1 - g * g)
            delta = tf.concat([*of_gates, dh * squashed * o * (1 - o)], -1)
            return t - 1, tf.matmul(delta, recurrent, transpose_b=True), dc * f, deltas.write(t, delta)

        start = (steps - 1, zeros, zeros, array(4 * units))
        *_, deltas = tf.while_loop(lambda t, *_: t >= 0, backward, start, parallel_iterations=1)
        delta = deltas.stack()
        flat = tf.reshape(h_before, [-1, units]), tf.reshape(delta, [-1, 4 * units])
        return delta, tf.matmul(*flat, transpose_a=True)

    return hs, gradient
