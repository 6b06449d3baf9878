"""Attention by a one-layer network, and the LSTM layer that attends as it goes (Wu et al., 2016, Section 3).

Energies, their softmax and the contexts are in float32, whatever the matrix products are in. The gradient of the loop
is written by hand, as that of `gnmt.recurrent`: what sums over steps is one product, last.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from gnmt.recurrent import LstmState, LstmWeights, cell, cell_gradient

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


@tf.custom_gradient
def _loop(
    projected: tf.Tensor,
    of_contexts: tf.Tensor,
    recurrent: tf.Tensor,
    query: tf.Tensor,
    energy: tf.Tensor,
    values: tf.Tensor,
    keys: tf.Tensor,
    mask: tf.Tensor,
) -> tuple[tuple[tf.Tensor, tf.Tensor], Callable]:
    """h and contexts, [T, N, H] each, of what inputs and bias bring to the gates, float32 [T, N, 4H]."""
    dtype, units = recurrent.dtype, recurrent.shape[0]
    steps, count = tf.shape(projected)[0], tf.shape(projected)[1]
    h_zeros, c_zeros = tf.zeros([count, units], dtype), tf.zeros([count, units])

    def array(dtype: tf.DType = tf.float32, width: int | None = units) -> tf.TensorArray:
        return tf.TensorArray(dtype, steps, element_shape=[None, width])

    def forward(t: tf.Tensor, h: tf.Tensor, c: tf.Tensor, context: tf.Tensor, *arrays: tf.TensorArray) -> tuple:
        """A step forwards, with what the way back needs."""
        z = tf.cast(context @ of_contexts + h @ recurrent, tf.float32) + projected[t]
        (h, c), gates = cell(z, c)
        h = tf.cast(h, dtype)
        asked = tf.cast(h @ query, tf.float32)
        attention = _attention(energy, keys, mask, asked)
        context = _context(attention, values, dtype)
        seen = h, context, c, gates, asked, attention
        return t + 1, h, c, context, *(a.write(t, v) for a, v in zip(arrays, seen, strict=True))

    arrays = array(dtype), array(dtype), array(), array(width=4 * units), array(), array(width=None)
    _, _, _, _, *arrays = tf.while_loop(
        lambda t, *_: t < steps, forward, (0, h_zeros, c_zeros, h_zeros, *arrays), parallel_iterations=1
    )
    hs, contexts, cs, gates, asked, attentions = (a.stack() for a in arrays)

    def gradient(of_h: tf.Tensor, of_context: tf.Tensor) -> tuple[tf.Tensor | None, ...]:
        """Of all arguments, from those of both results."""
        h_before, c_before, context_before = (
            tf.concat([zeros[None], after[:-1]], 0)
            for zeros, after in ((h_zeros, hs), (c_zeros, cs), (h_zeros, contexts))
        )

        def backward(
            t: tf.Tensor, dh: tf.Tensor, dc: tf.Tensor, dx: tf.Tensor, *rest: tf.Tensor | tf.TensorArray
        ) -> tuple:
            """A step back in time."""
            of_energy, of_keys, *arrays = rest
            d_context = dx + tf.cast(of_context[t], tf.float32)
            squashed = tf.tanh(keys + asked[t][:, tf.newaxis])
            d_attention = tf.linalg.matvec(values, d_context)
            d_energy, d_keys = _attention_gradient(attentions[t], squashed, energy, d_attention)
            d_asked = tf.cast(tf.reduce_sum(d_keys, 1), dtype)
            dh += tf.cast(of_h[t] + tf.matmul(d_asked, query, transpose_b=True), tf.float32)
            delta, dc = cell_gradient(gates[t], c_before[t], cs[t], LstmState(dh, dc))
            rounded = tf.cast(delta, dtype)
            dh, dx = (tf.cast(tf.matmul(rounded, w, transpose_b=True), tf.float32) for w in (recurrent, of_contexts))
            seen = delta, d_context, d_asked
            sums = of_energy + d_energy, of_keys + d_keys
            return t - 1, dh, dc, dx, *sums, *(a.write(t, v) for a, v in zip(arrays, seen, strict=True))

        start = (steps - 1, c_zeros, c_zeros, c_zeros, tf.zeros_like(energy), tf.zeros_like(keys))
        arrays = array(width=4 * units), array(), array(dtype)
        *_, of_energy, of_keys, deltas, d_contexts, d_asked = tf.while_loop(
            lambda t, *_: t >= 0, backward, (*start, *arrays), parallel_iterations=1
        )
        delta, asked_delta = deltas.stack(), d_asked.stack()
        rounded = tf.cast(delta, dtype)
        of_values = tf.einsum('tns,tnh->nsh', attentions, d_contexts.stack())
        pairs = (context_before, rounded), (h_before, rounded), (hs, asked_delta)
        of_kernels = [tf.tensordot(a, b, [[0, 1], [0, 1]]) for a, b in pairs]
        return delta, *of_kernels, of_energy, of_values, of_keys, None

    return (hs, contexts), gradient
