"""Wide residual networks: size, seeds, precision, learning."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from nos_tf.tasks.wide_resnet import WideResNet

SHAPE = (8, 8, 3)
IMAGES = tf.random.stateless_normal([32, *SHAPE], [1, 2])
LABELS = tf.range(32) % 10


def expected_parameters(depth, width, channels, classes):
    """By hand: kernels, two for each filter of a normalisation, and the classifier."""
    total, inner = 9 * channels * 16, 16
    for group in range(3):
        filters = 16 * width * 2**group
        for block in range((depth - 4) // 6):
            total += 2 * inner + 9 * inner * filters + 2 * filters + 9 * filters * filters
            if inner != filters or (group and not block):
                total += inner * filters
            inner = filters
    return total + 2 * inner + inner * classes + classes


def trainable(model):
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def test_wrn_28_10_has_36_5_million_parameters():
    model = WideResNet().model((32, 32, 3), 10, 0)
    assert trainable(model) == expected_parameters(28, 10, 3, 10) == 36_479_194
    assert sum(isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (3, 3) for layer in model.layers) == 25


def test_smaller_ones_and_what_they_give():
    model = WideResNet(16, 1).model(SHAPE, 10, 0)
    assert trainable(model) == expected_parameters(16, 1, 3, 10)
    assert model(IMAGES).shape == (32, 10) and model(IMAGES).dtype == tf.float32


def test_the_seed_decides_the_weights_whatever_was_made_before():
    first = WideResNet(10, 1).model(SHAPE, 10, 3)
    keras.utils.set_random_seed(99)
    again, other = (WideResNet(10, 1).model(SHAPE, 10, seed) for seed in (3, 4))
    for one, two, three in zip(
        first.trainable_variables, again.trainable_variables, other.trainable_variables, strict=True
    ):
        np.testing.assert_array_equal(one, two)
        assert 'kernel' not in one.path or not np.array_equal(one, three)


def test_bfloat16_is_close_and_its_weights_are_float32():
    exact, coarse = (WideResNet(10, 1, bfloat16=flag).model(SHAPE, 10, 0) for flag in (False, True))
    assert {variable.dtype for variable in coarse.trainable_variables} == {'float32'}
    a, b = exact(IMAGES, training=True), coarse(IMAGES, training=True)
    assert b.dtype == tf.float32 and 0 < np.abs(a - b).max() < 0.15


def test_dropout_drops_in_training_only():
    model = WideResNet(10, 1, dropout=0.5).model(SHAPE, 10, 0)
    np.testing.assert_array_equal(model(IMAGES), model(IMAGES))
    assert np.abs(model(IMAGES, training=True) - model(IMAGES, training=True)).max() > 0.01


def test_it_learns():
    model = WideResNet(10, 1).model(SHAPE, 10, 0)
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    losses = []
    for _ in range(12):
        with tf.GradientTape() as tape:
            logits = model(IMAGES, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS, logits))
        weights = model.trainable_variables
        optimizer.apply(tape.gradient(loss, [weight.value for weight in weights]), weights)
        losses.append(float(loss))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        ({'depth': 27}, r'WideResNet.depth = 27: must be 6n \+ 4'),
        ({'depth': 4}, 'WideResNet.depth = 4'),
        ({'width': 0}, 'WideResNet.width = 0'),
        ({'width': 1.5}, 'WideResNet.width = 1.5'),
        ({'dropout': 1}, 'WideResNet.dropout = 1'),
        ({'statistics_momentum': -0.1}, 'WideResNet.statistics_momentum'),
        ({'bfloat16': 1}, 'WideResNet.bfloat16 = 1'),
    ],
)
def test_what_does_not_fit_is_named(arguments, said):
    with pytest.raises(ValueError, match=said):
        WideResNet(**arguments)
