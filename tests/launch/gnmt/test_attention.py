"""The layer that attends as it goes, against the same step by step, forwards and backwards."""

import numpy as np
import pytest
import tensorflow as tf

from gnmt.attention import AttentionWeights, attend, attended, remember
from gnmt.recurrent import LstmState, LstmWeights, step

H, N, S, T = 4, 3, 5, 6
LENGTHS = [5, 2, 3]


def tensors(dtype=tf.float32):
    random = np.random.default_rng(0)

    def tensor(*shape):
        return tf.constant(random.normal(size=shape), tf.float32)

    weights = AttentionWeights(tensor(H, H), tensor(H, H), tensor(H))
    layer = LstmWeights(tensor(2 * H, 4 * H), tensor(H, 4 * H), tensor(4 * H))
    values, inputs = tensor(N, S, H), tensor(T, N, H)
    matrices = [*weights[:2], *layer[:2], values, inputs]
    query, key, kernel, recurrent, values, inputs = (tf.cast(matrix, dtype) for matrix in matrices)
    return query, key, weights.energy, kernel, recurrent, layer.bias, values, inputs


def whole(query, key, energy, kernel, recurrent, bias, values, inputs):
    weights = AttentionWeights(query, key, energy)
    memory = remember(weights, values, tf.sequence_mask(LENGTHS, S))
    return attended(weights, memory, LstmWeights(kernel, recurrent, bias), inputs)


def step_by_step(query, key, energy, kernel, recurrent, bias, values, inputs):
    weights = AttentionWeights(query, key, energy)
    memory = remember(weights, values, tf.sequence_mask(LENGTHS, S))
    zeros = tf.zeros([N, H])
    state, context, found = LstmState(tf.cast(zeros, inputs.dtype), zeros), tf.cast(zeros, inputs.dtype), []
    for x in inputs:
        state = step(LstmWeights(kernel, recurrent, bias), tf.concat([x, context], -1), state)
        context, attention = attend(weights, memory, state.h)
        np.testing.assert_allclose(tf.reduce_sum(attention, -1), np.ones(N), rtol=1e-6)
        assert not np.any(attention.numpy()[~tf.sequence_mask(LENGTHS, S).numpy()])
        found.append((state.h, context))
    return tuple(map(tf.stack, zip(*found, strict=True)))


def gradients(run, arguments):
    upstream = [tf.random.stateless_normal([T, N, H], [seed, 0]) for seed in (1, 2)]
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        results = run(*arguments)
        loss = tf.add_n([tf.reduce_sum(u * tf.cast(r, tf.float32)) for u, r in zip(upstream, results, strict=True)])
    return results, tape.gradient(loss, arguments)


@pytest.mark.parametrize(('dtype', 'error'), [(tf.float32, 1e-5), (tf.bfloat16, 0.05)])
def test_the_loop_is_its_steps(dtype, error):
    expected, of_steps = gradients(step_by_step, tensors())
    found, of_loop = gradients(whole, tensors(dtype))
    for ours, theirs in zip((*found, *of_loop), (*expected, *of_steps), strict=True):
        difference = np.linalg.norm(tf.cast(ours, tf.float32) - theirs)
        assert difference < error * np.linalg.norm(theirs)


def test_gradients_of_one_result_alone():
    arguments = tensors()
    for run in (0, 1):
        found = []
        for way in (whole, step_by_step):
            with tf.GradientTape() as tape:
                tape.watch(arguments)
                loss = tf.reduce_sum(way(*arguments)[run] ** 2)
            found.append(tape.gradient(loss, arguments))
        for ours, theirs in zip(*found, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
