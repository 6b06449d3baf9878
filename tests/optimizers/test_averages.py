"""Weights that are judged are those that `fit` of Keras would end with."""

import keras
import numpy as np
import pytest

from nos_tf.optimizers.averages import finalised


def stepped(**arguments):
    """A weight of 0 after gradients 1, 1 at a rate of 1: -1, then -2."""
    weight, optimizer = keras.Variable([0.0]), keras.optimizers.SGD(1.0, **arguments)
    for _ in range(2):
        optimizer.apply([np.ones(1, 'float32')], [weight])
    return weight, optimizer


def test_weights_are_their_averages_within_and_themselves_after():
    weight, optimizer = stepped(use_ema=True, ema_momentum=0.5)
    with finalised(optimizer, [weight]):
        assert weight.numpy() == [-1.5]
    assert weight.numpy() == [-2.0]


def test_weights_without_averages_are_left_alone():
    weight, optimizer = stepped()
    with finalised(optimizer, [weight]):
        assert weight.numpy() == [-2.0]


def test_an_error_within_leaves_the_weights_as_they_were():
    weight, optimizer = stepped(use_ema=True, ema_momentum=0.5)
    with pytest.raises(KeyError), finalised(optimizer, [weight]):
        raise KeyError
    assert weight.numpy() == [-2.0]
