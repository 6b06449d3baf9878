"""The network: its size, what padding does to it, and that its two ways to decode are one."""

import math

import numpy as np
import pytest
import tensorflow as tf

from gnmt.model import Gnmt, advance, encode, start
from gnmt.text import BEGIN, END, PAD

V = 11
SMALL = Gnmt(layers=3, units=8, dropout=0.5, initial=0.5)
SOURCE = tf.constant([[5, 6, 7, END], [8, END, PAD, PAD]])
TARGET = tf.constant([[9, END, PAD], [4, 10, END]])


@pytest.fixture(scope='module')
def model():
    return SMALL.model(V, seed=1)


@pytest.mark.parametrize('size', [SMALL, Gnmt(2, 6), Gnmt(5, 4)])
def test_the_arithmetic_of_the_size(size):
    counted = sum(math.prod(v.shape) for v in size.model(V, 0).trainable_variables)
    assert counted == size.parameters(V)


def test_weights_follow_from_the_seed_and_keep_to_their_range(model):
    again, other = SMALL.model(V, seed=1), SMALL.model(V, seed=2)
    weights = [np.concatenate([np.ravel(w) for w in m.get_weights()]) for m in (model, again, other)]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert np.mean(weights[0] == weights[2]) < 0.01
    assert 0.49 < np.max(weights[0]) <= 0.5 and -0.5 <= np.min(weights[0]) < -0.49
    assert len(np.unique(weights[0])) > 0.99 * len(weights[0])  # no two weights share their draws


def test_padding_changes_no_loss_and_no_gradient(model):
    def at(source, target):
        with tf.GradientTape() as tape:
            losses = model.losses_of(source, target)
        gradients = tape.gradient(losses, [w.value for w in model.trainable_variables])
        return losses, [tf.convert_to_tensor(g) for g in gradients]

    losses, gradients = at(SOURCE, TARGET)
    padded, same = at(tf.pad(SOURCE, [[0, 0], [0, 5]]), tf.pad(TARGET, [[0, 0], [0, 3]]))
    np.testing.assert_allclose(padded[:, :3], losses, rtol=1e-5, atol=1e-6)
    assert not np.any(padded[:, 3:]) and losses[0, 2] == 0 and np.all(losses.numpy()[TARGET.numpy() != PAD] > 0)
    for one, other in zip(gradients, same, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    alone, _ = at(SOURCE[1:, :2], TARGET[1:])
    np.testing.assert_allclose(alone[0], losses[1], rtol=1e-5, atol=1e-6)


def test_every_weight_learns(model):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model.losses_of(SOURCE, TARGET))
    for weight, g in zip(
        model.trainable_variables, tape.gradient(loss, [w.value for w in model.trainable_variables]), strict=True
    ):
        g = tf.convert_to_tensor(g).numpy()
        assert np.any(g), weight.name
        if weight.name.startswith('decoder') and weight.name.endswith('kernel') and 'recurrent' not in weight.name:
            assert np.any(g[8:]), f'no context comes into {weight.name}'


def test_the_target_is_known_up_to_the_token_before(model):
    logits = model((SOURCE, TARGET))
    changed = model((SOURCE, tf.tensor_scatter_nd_update(TARGET, [[1, 1]], [3])))
    np.testing.assert_array_equal(logits[1, :2], changed[1, :2])
    assert not np.allclose(logits[1, 2], changed[1, 2])


def test_teacher_forcing_is_decoding_step_by_step(model):
    weights = model.read()
    memory, logits = encode(weights, SOURCE), model((SOURCE, TARGET))
    states, before = start(weights, memory), tf.fill([2], BEGIN)
    for t in range(3):
        at, states, attention = advance(weights, memory, states, before)
        np.testing.assert_allclose(at, logits[:, t], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(tf.reduce_sum(attention, 1), 1, rtol=1e-6)
        assert not np.any(attention.numpy()[SOURCE.numpy() == PAD])
        before = TARGET[:, t]


@pytest.mark.parametrize('side', ['encoder', 'decoder'])
def test_input_and_output_are_added_from_the_third_layer_on(side):
    """A layer without weights gives zeros, so one that is added to its input is as if it were not there."""
    deep, weights = SMALL.model(V, seed=4), {}
    for weight in deep.trainable_variables:
        if weight.name.startswith(f'{side}_3'):
            weight.assign(tf.zeros_like(weight.value))
        weights[weight.name] = weight
    shallow = Gnmt(layers=2, units=8).model(V, seed=0)
    for weight in shallow.trainable_variables:
        weight.assign(weights[weight.name].value)
    read, of_shallow = deep.read(), shallow.read()
    above = getattr(read, side)[-1:]
    three = of_shallow._replace(**{side: [*getattr(of_shallow, side), *above]})
    memory = encode(three, SOURCE)
    np.testing.assert_allclose(memory.values, encode(of_shallow, SOURCE).values, rtol=1e-6)
    tokens = tf.constant([3, 4])
    logits = [advance(w, memory, start(w, memory), tokens)[0] for w in (three, of_shallow)]
    np.testing.assert_allclose(*logits, rtol=1e-6)


def test_dropout_is_of_training_and_follows_from_its_seed(model):
    def losses(**keywords):
        return model.losses_of(SOURCE, TARGET, **keywords).numpy()

    first = losses(training=True, seed=tf.constant([1, 2]))
    np.testing.assert_array_equal(first, losses(training=True, seed=tf.constant([1, 2])))
    assert not np.allclose(first, losses(training=True, seed=tf.constant([1, 3])))
    assert not np.allclose(first, losses())
    plain = Gnmt(3, 8, dropout=0.0, initial=0.5).model(V, 1)
    np.testing.assert_array_equal(losses(), plain.losses_of(SOURCE, TARGET, training=True, seed=tf.constant([1, 2])))


def test_embeddings_may_start_from_a_scale_of_their_own(model):
    wider = Gnmt(3, 8, initial=0.5, initial_embeddings=5.0).model(V, 1)
    for weight, usual in zip(wider.trainable_variables, model.trainable_variables, strict=True):
        scale = 10.0 if 'embedding' in weight.name else 1.0
        np.testing.assert_allclose(weight, scale * np.asarray(usual), rtol=1e-6, atol=1e-6)
        assert np.abs(weight).max() <= 0.5 * scale


def test_bfloat16_is_close_and_for_training_alone(model):
    half = Gnmt(3, 8, dropout=0.0, initial=0.5, bfloat16=True).model(V, 1)
    exact, rounded = (half.losses_of(SOURCE, TARGET, training=training) for training in (False, True))
    assert rounded.dtype == tf.float32 and all(w.dtype == 'float32' for w in half.trainable_variables)
    np.testing.assert_array_equal(exact, model.losses_of(SOURCE, TARGET))
    np.testing.assert_allclose(rounded, exact, rtol=0.03, atol=0.03)
    assert not np.array_equal(rounded, exact)


def test_gradients_in_bfloat16_are_close():
    found = []
    for bfloat16 in (False, True):
        model = Gnmt(3, 8, dropout=0.0, initial=0.5, bfloat16=bfloat16).model(V, 1)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model.losses_of(SOURCE, TARGET, training=True))
        gradients = tape.gradient(loss, [weight.value for weight in model.trainable_variables])
        found.append(np.concatenate([tf.reshape(g, [-1]) for g in map(tf.convert_to_tensor, gradients)]))
    exact, rounded = found
    assert 0 < np.linalg.norm(rounded - exact) < 0.03 * np.linalg.norm(exact)


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        ({'layers': 1}, 'Gnmt.layers = 1: must be a whole number, at least 2'),
        ({'units': 0.5}, 'Gnmt.units = 0.5'),
        ({'dropout': 1}, 'Gnmt.dropout = 1: must be a number, at least 0 and below 1'),
        ({'initial': float('nan')}, 'Gnmt.initial = nan'),
        ({'initial_embeddings': -1.0}, 'Gnmt.initial_embeddings = -1.0: must be None, or a number, at least 0'),
        ({'bfloat16': 1}, 'Gnmt.bfloat16 = 1: must be True or False'),
    ],
)
def test_sizes_that_cannot_be(arguments, said):
    with pytest.raises(ValueError, match=said):
        Gnmt(**arguments)
