"""The fused normalisation beside that of Keras."""

import keras
import numpy as np
import tensorflow as tf

from nos_tf.tasks.convnet import FusedBatchNormalization

IMAGES = tf.random.stateless_normal([6, 5, 4, 3], [1, 2], mean=2.0, stddev=3.0)


def seen_by(layer, dtype=tf.float32):
    """Outputs in training and after it, gradients of a loss, running statistics."""
    images = tf.cast(IMAGES, dtype)
    layer.build(IMAGES.shape)
    layer.gamma.assign([0.5, 1.0, 2.0])
    layer.beta.assign([-1.0, 0.0, 1.0])
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = layer(images, training=True)
        loss = tf.reduce_sum(tf.cast(outputs, tf.float32) ** 3)
    gradients = tape.gradient(loss, [images, layer.gamma.value, layer.beta.value])
    return [outputs, *gradients, layer.moving_mean, layer.moving_variance, layer(images, training=False)]


def test_it_computes_what_the_layer_of_keras_does():
    n = 6 * 5 * 4
    *expected, mean, variance, _ = seen_by(keras.layers.BatchNormalization(momentum=0.9))
    *actual, our_mean, our_variance, _ = seen_by(FusedBatchNormalization(momentum=0.9))
    for ours, theirs in zip([*actual, our_mean], [*expected, mean], strict=True):
        np.testing.assert_allclose(np.array(ours), np.array(theirs), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose((our_variance - 0.9) * (n - 1) / n + 0.9, variance, rtol=1e-5)


def test_bfloat16_keeps_statistics_in_float32():
    layer = FusedBatchNormalization(momentum=0.9, dtype='mixed_bfloat16')
    outputs, *_, mean, _, later = seen_by(layer, tf.bfloat16)
    assert outputs.dtype == later.dtype == tf.bfloat16 and mean.dtype == 'float32'
    (exact, *_) = seen_by(FusedBatchNormalization(momentum=0.9))
    np.testing.assert_allclose(tf.cast(outputs, tf.float32), exact, atol=0.1)
