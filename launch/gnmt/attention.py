"""Attention by a one-layer network, and the LSTM layer that attends as it goes (Wu et al., 2016, Section 3).

Energies, their softmax and the contexts are in float32, whatever the matrix products are in. The gradient of the loop
is written by hand, as that of `gnmt.recurrent`: what sums over steps is one product, last.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from gnmt.recurrent import LstmState, LstmWeights, cell, cell_gradient, few_rows_times

_MINUS_INFINITY = -1e9


class AttentionWeights(NamedTuple):
    """Of the network, whose energy is v · tanh(U h + W x)."""

    query: tf.Tensor  # U [H, H], of what the decoder has
    key: tf.Tensor  # W [H, H], of what the encoder has
    energy: tf.Tensor  # v, float32 [H]


class Memory(NamedTuple):
    """What is attended to."""

    values: tf.Tensor  # float32 [N, S, H]
    keys: tf.Tensor  # float32 [N, S, H]
    mask: tf.Tensor  # bool [N, S], whether there is a token


def remember(weights: AttentionWeights, values: tf.Tensor, mask: tf.Tensor) -> Memory:
    """The outputs [N, S, H] of an encoder, to be attended to where the mask [N, S] is true."""
    keys = tf.tensordot(values, weights.key, 1)
    return Memory(tf.cast(values, tf.float32), tf.cast(keys, tf.float32), mask)


def attend(weights: AttentionWeights, memory: Memory, h: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Context [N, H] of h [N, H], and the attention that it is the mean by, float32 [N, S]."""
    query = tf.cast(h @ weights.query, tf.float32)
    attention = _attention(weights.energy, memory.keys, memory.mask, query)
    return _context(attention, memory.values, h.dtype), attention


def attended(
    weights: AttentionWeights, memory: Memory, layer: LstmWeights, inputs: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The outputs of a layer that reads inputs and contexts, and the contexts, each [T, N, H].

    A step reads the context that the output of the step before found, the first one zeros, and its own output finds the
    context that is returned.

    Args:
        weights: of the attention.
        memory: of N sources.
        layer: kernel [2H, 4H], of inputs and contexts.
        inputs: [T, N, H].
    """
    units = inputs.shape[-1]
    projected = tf.cast(tf.tensordot(inputs, layer.kernel[:units], 1), tf.float32) + layer.bias
    kernels = layer.kernel[units:], layer.recurrent, weights.query
    return _loop(projected, *kernels, weights.energy, *memory)


def _attention(energy: tf.Tensor, keys: tf.Tensor, mask: tf.Tensor, query: tf.Tensor) -> tf.Tensor:
    energies = tf.linalg.matvec(tf.tanh(keys + query[:, tf.newaxis]), energy)
    return tf.nn.softmax(tf.where(mask, energies, _MINUS_INFINITY))


def _context(attention: tf.Tensor, values: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    return tf.cast((attention[:, tf.newaxis] @ values)[:, 0], dtype)


def _attention_gradient(
    attention: tf.Tensor, squashed: tf.Tensor, energy: tf.Tensor, upstream: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Gradients of v, [H], and of what is squashed, [N, S, H], from that of the attention, [N, S]."""
    of_energies = attention * (upstream - tf.reduce_sum(attention * upstream, -1, keepdims=True))
    of_v = tf.tensordot(of_energies, squashed, [[0, 1], [0, 1]])
    return of_v, of_energies[..., tf.newaxis] * energy * (1 - squashed * squashed)


class _Given(NamedTuple):
    """What the loop reads at every step."""

    of_contexts: tf.Tensor  # kernel [H, 4H]
    recurrent: tf.Tensor  # kernel [H, 4H]
    query: tf.Tensor  # [H, H]
    energy: tf.Tensor  # [H]
    values: tf.Tensor  # [N, S, H], keys and mask as in `Memory`
    keys: tf.Tensor
    mask: tf.Tensor


class _Seen(NamedTuple):
    """What the way back needs of each step, [T, N, ...]."""

    h: tf.Tensor
    context: tf.Tensor
    c: tf.Tensor
    gates: tf.Tensor  # [T, N, 4H]
    asked: tf.Tensor  # U h
    attention: tf.Tensor  # [T, N, S]


@tf.custom_gradient
def _loop(projected: tf.Tensor, *given: tf.Tensor) -> tuple[tuple[tf.Tensor, tf.Tensor], Callable]:
    """h and contexts, [T, N, H] each, of what inputs and bias bring to the gates, float32 [T, N, 4H], and `_Given`."""
    parts = _Given(*given)
    seen = _forwards(projected, parts)
    return (seen.h, seen.context), lambda *upstream: _backwards(parts, seen, *upstream)


def _array(steps: tf.Tensor, width: int | None, dtype: tf.DType = tf.float32) -> tf.TensorArray:
    return tf.TensorArray(dtype, steps, element_shape=[None, width])


def _forwards(projected: tf.Tensor, given: _Given) -> _Seen:
    dtype, units = given.recurrent.dtype, given.recurrent.shape[0]
    steps, count = tf.shape(projected)[0], tf.shape(projected)[1]

    kernels = given.of_contexts, given.recurrent, given.query
    context_to_gates, h_to_gates, h_to_query = (few_rows_times(tf.transpose(kernel)) for kernel in kernels)

    def step(t: tf.Tensor, h: tf.Tensor, c: tf.Tensor, context: tf.Tensor, *arrays: tf.TensorArray) -> tuple:
        """Forwards by one token, written down as `_Seen`."""
        z = tf.cast(context_to_gates(context) + h_to_gates(h), tf.float32) + projected[t]
        (h, c), gates = cell(z, c)
        h = tf.cast(h, dtype)
        asked = tf.cast(h_to_query(h), tf.float32)
        attention = _attention(given.energy, given.keys, given.mask, asked)
        context = _context(attention, given.values, dtype)
        seen = _Seen(h, context, c, gates, asked, attention)
        return t + 1, h, c, context, *(a.write(t, v) for a, v in zip(arrays, seen, strict=True))

    zeros = tf.zeros([count, units], dtype)
    kinds = (units, dtype), (units, dtype), (units,), (4 * units,), (units,), (None,)  # as in `_Seen`
    start = (0, zeros, tf.zeros([count, units]), zeros, *(_array(steps, *kind) for kind in kinds))
    _, _, _, _, *arrays = tf.while_loop(lambda t, *_: t < steps, step, start, parallel_iterations=1)
    return _Seen(*(array.stack() for array in arrays))


def _backwards(given: _Given, seen: _Seen, of_h: tf.Tensor, of_context: tf.Tensor) -> tuple[tf.Tensor | None, ...]:
    """The gradients of all arguments of the loop, from those of both results."""
    dtype, units, steps = given.recurrent.dtype, given.recurrent.shape[0], tf.shape(seen.h)[0]
    h_before, context_before, c_before = (
        tf.concat([tf.zeros_like(after[:1]), after[:-1]], 0) for after in (seen.h, seen.context, seen.c)
    )

    kernels = given.query, given.recurrent, given.of_contexts
    query_to_h, gates_to_h, gates_to_context = (few_rows_times(kernel) for kernel in kernels)

    def step(t: tf.Tensor, dh: tf.Tensor, dc: tf.Tensor, dx: tf.Tensor, *rest: tf.Tensor | tf.TensorArray) -> tuple:
        """Back in time; dx is the gradient of the context that the step after read."""
        of_energy, of_keys, *arrays = rest
        d_context = dx + tf.cast(of_context[t], tf.float32)
        squashed = tf.tanh(given.keys + seen.asked[t][:, tf.newaxis])
        d_attention = tf.linalg.matvec(given.values, d_context)
        d_energy, d_keys = _attention_gradient(seen.attention[t], squashed, given.energy, d_attention)
        d_asked = tf.cast(tf.reduce_sum(d_keys, 1), dtype)
        dh += tf.cast(of_h[t] + query_to_h(d_asked), tf.float32)
        delta, dc = cell_gradient(seen.gates[t], c_before[t], seen.c[t], LstmState(dh, dc))
        dh, dx = (tf.cast(back(tf.cast(delta, dtype)), tf.float32) for back in (gates_to_h, gates_to_context))
        written = (a.write(t, v) for a, v in zip(arrays, (delta, d_context, d_asked), strict=True))
        return t - 1, dh, dc, dx, of_energy + d_energy, of_keys + d_keys, *written

    zeros = tf.zeros_like(seen.c[0])
    sums = tf.zeros_like(given.energy), tf.zeros_like(given.keys)
    arrays = _array(steps, 4 * units), _array(steps, units), _array(steps, units, dtype)
    start = (steps - 1, zeros, zeros, zeros, *sums, *arrays)
    *_, of_energy, of_keys, deltas, d_contexts, d_asked = tf.while_loop(
        lambda t, *_: t >= 0, step, start, parallel_iterations=1
    )
    delta = deltas.stack()
    rounded = tf.cast(delta, dtype)
    of_values = tf.einsum('tns,tnh->nsh', seen.attention, d_contexts.stack())
    pairs = (context_before, rounded), (h_before, rounded), (seen.h, d_asked.stack())
    of_kernels = [tf.tensordot(a, b, [[0, 1], [0, 1]]) for a, b in pairs]
    return delta, *of_kernels, of_energy, of_values, of_keys, None
