"""The loop of our own against the layer of Keras, forwards and backwards."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gnmt.recurrent import LstmState, LstmWeights, sequence, step


@pytest.fixture(scope='module')
def layer():
    layer = keras.layers.LSTM(5, return_sequences=True, bias_initializer='random_normal', seed=3)
    layer.build((None, None, 4))
    return layer


def inputs(steps=7):
    return tf.random.stateless_normal([steps, 3, 4], [1, 2])


def weights_of(layer):
    return LstmWeights(*(tf.convert_to_tensor(weight.value) for weight in layer.trainable_variables))


def test_outputs_and_gradients_are_those_of_keras(layer):
    x, weights = inputs(), weights_of(layer)
    upstream = tf.random.stateless_normal([7, 3, 5], [3, 4])
    with tf.GradientTape() as tape:
        tape.watch([x, *weights])
        ours = sequence(weights, x)
    gradients = tape.gradient(ours, [x, *weights], upstream)
    variables = [variable.value for variable in layer.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(x)
        theirs = tf.transpose(layer(tf.transpose(x, [1, 0, 2])), [1, 0, 2])
    expected = tape.gradient(theirs, [x, *variables], upstream)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    for gradient, other in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, other, rtol=1e-4, atol=1e-5)


def test_step_by_step_is_the_sequence(layer):
    x, weights = inputs(), weights_of(layer)
    state = LstmState(tf.zeros([3, 5]), tf.zeros([3, 5]))
    for t, expected in enumerate(sequence(weights, x)):
        state = step(weights, x[t], state)
        np.testing.assert_allclose(state.h, expected, rtol=1e-5, atol=1e-6)
