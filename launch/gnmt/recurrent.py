"""Long short-term memory over whole sequences, time first, and one step of it.

A loop of our own: what does not depend on the step before is one product over all steps, forwards and backwards. It is
the fastest of TensorFlow's paths that benchmarks/gnmt_step.py measures on a CPU. Without masks: padding comes last, and
what comes later changes nothing before it. In bfloat16 only the products are: gates and cell states stay in float32,
which is more exact and, on a CPU, faster.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf


class LstmWeights(NamedTuple):
    """Of one layer, the gates in the order of Keras: input, forget, candidate, output."""

    kernel: tf.Tensor  # [I, 4H]
    recurrent: tf.Tensor  # [H, 4H]
    bias: tf.Tensor  # float32 [4H]


class LstmState(NamedTuple):
    """What a layer hands to its next step."""

    h: tf.Tensor  # [N, H], its output
    c: tf.Tensor  # float32 [N, H]


def step(weights: LstmWeights, inputs: tf.Tensor, state: LstmState) -> LstmState:
    """One step for inputs [N, I]."""
    z = tf.cast(inputs @ weights.kernel + state.h @ weights.recurrent, tf.float32) + weights.bias
    h, c = cell(z, state.c)[0]
    return LstmState(tf.cast(h, inputs.dtype), c)


def sequence(weights: LstmWeights, inputs: tf.Tensor) -> tf.Tensor:
    """The outputs [T, N, H] for inputs [T, N, I], from a state of zeros."""
    return _loop(tf.tensordot(inputs, weights.kernel, 1), weights.recurrent, weights.bias)


def few_rows_times(transposed: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
    """x -> x @ w for few rows x [N, I], where wᵀ [O, I] is given: the order in which it takes least time on a CPU.

    A product packs its right side before it begins: w is large, and x is not.
    """
    return lambda x: tf.transpose(transposed @ tf.transpose(x))


def cell(z: tf.Tensor, c: tf.Tensor) -> tuple[LstmState, tf.Tensor]:
    """The new state and the gates [N, 4H], from what goes into the gates."""
    i, f, g, o = tf.split(z, 4, -1)
    i, f, g, o = tf.sigmoid(i), tf.sigmoid(f), tf.tanh(g), tf.sigmoid(o)
    c = f * c + i * g
    return LstmState(o * tf.tanh(c), c), tf.concat([i, f, g, o], -1)


def cell_gradient(
    gates: tf.Tensor, c_before: tf.Tensor, c: tf.Tensor, upstream: LstmState
) -> tuple[tf.Tensor, tf.Tensor]:
    """Gradients of what goes into the gates, [N, 4H], and of the cell before, from those of the new state."""
    i, f, g, o = tf.split(gates, 4, -1)
    squashed = tf.tanh(c)
    dc = upstream.c + upstream.h * o * (1 - squashed * squashed)
    of_gates = dc * g * i * (1 - i), dc * c_before * f * (1 - f), dc * i * (1 - g * g)
    return tf.concat([*of_gates, upstream.h * squashed * o * (1 - o)], -1), dc * f


@tf.custom_gradient
def _loop(projected: tf.Tensor, recurrent: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """h [T, N, H] of what the inputs bring to the gates [T, N, 4H].

    With δ_t the gradient at the gates of step t, that of the recurrent kernel is Σ h_{t-1}ᵀ δ_t: one product, last.
    """
    dtype, steps, count, units = projected.dtype, tf.shape(projected)[0], tf.shape(projected)[1], recurrent.shape[0]
    h_zeros, c_zeros = tf.zeros([count, units], dtype), tf.zeros([count, units])
    h_to_gates, gates_to_h = few_rows_times(tf.transpose(recurrent)), few_rows_times(recurrent)

    def array(width: int, dtype: tf.DType = tf.float32) -> tf.TensorArray:
        return tf.TensorArray(dtype, steps, element_shape=[None, width])

    def forward(t: tf.Tensor, h: tf.Tensor, c: tf.Tensor, *arrays: tf.TensorArray) -> tuple:
        (h, c), gates = cell(tf.cast(projected[t] + h_to_gates(h), tf.float32) + bias, c)
        h = tf.cast(h, dtype)
        return t + 1, h, c, *(a.write(t, v) for a, v in zip(arrays, (h, c, gates), strict=True))

    start = (0, h_zeros, c_zeros, array(units, dtype), array(units), array(4 * units))
    _, _, _, *arrays = tf.while_loop(lambda t, *_: t < steps, forward, start, parallel_iterations=1)
    hs, cs, gates = (a.stack() for a in arrays)

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Of all inputs, from that of h."""
        h_before, c_before = (
            tf.concat([zeros[None], values[:-1]], 0) for zeros, values in ((h_zeros, hs), (c_zeros, cs))
        )

        def backward(t: tf.Tensor, dh: tf.Tensor, dc: tf.Tensor, of_bias: tf.Tensor, deltas: tf.TensorArray) -> tuple:
            """A step back in time."""
            upstream_h = tf.cast(dh + upstream[t], tf.float32)
            delta, dc = cell_gradient(gates[t], c_before[t], cs[t], LstmState(upstream_h, dc))
            of_bias += tf.reduce_sum(delta, 0)
            delta = tf.cast(delta, dtype)
            return t - 1, gates_to_h(delta), dc, of_bias, deltas.write(t, delta)

        start = (steps - 1, h_zeros, c_zeros, tf.zeros_like(bias), array(4 * units, dtype))
        *_, of_bias, deltas = tf.while_loop(lambda t, *_: t >= 0, backward, start, parallel_iterations=1)
        delta = deltas.stack()
        flat = tf.reshape(h_before, [-1, units]), tf.reshape(delta, [-1, 4 * units])
        return delta, tf.matmul(*flat, transpose_a=True), of_bias

    return hs, gradient
