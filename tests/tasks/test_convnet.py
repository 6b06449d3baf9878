"""The flat child network against the same network built of Keras layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from nos_tf.tasks.convnet import ConvNet

SHAPE, CLASSES, BATCH = (6, 5, 2), 4, 7
NETWORK = ConvNet(filters=3)


def keras_model(network, shape, classes, weights):
    """The layers of Section 4.2, with the weights of the flat vector."""
    model = keras.Sequential([keras.Input(shape)])
    for _ in range(2):
        model.add(keras.layers.Conv2D(network.filters, 3, padding='same', use_bias=False))
        model.add(keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-3))
        model.add(keras.layers.ReLU())
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(classes))
    start = 0
    for variable in model.trainable_variables:
        size = int(np.prod(variable.shape))
        variable.assign(np.reshape(weights[start : start + size], variable.shape))
        start += size
    assert start == len(weights)
    return model


def statistics_of(model):
    """[layer, moment, filter] as `ConvNet` keeps them."""
    return np.reshape([variable.numpy() for variable in model.non_trainable_variables], [2, 2, -1])


@pytest.fixture(scope='module')
def data():
    """Weights unlike the initial ones, statistics, images and labels, all random."""
    random = np.random.default_rng(1)
    count = sum(int(np.prod(shape)) for shape in NETWORK.shapes(SHAPE, CLASSES).values())
    weights = random.normal(0.1, 0.5, [count]).astype(np.float32)
    statistics = random.uniform(0.5, 2.0, [2, 2, NETWORK.filters]).astype(np.float32)
    images = random.normal(0.3, 1.0, [BATCH, *SHAPE]).astype(np.float32)
    return weights, statistics, images, random.integers(0, CLASSES, [BATCH]).astype(np.int32)


@pytest.mark.parametrize('training', [True, False])
def test_logits_loss_and_gradient_are_those_of_keras(data, training):
    weights, statistics, images, labels = map(tf.constant, data)
    model = keras_model(NETWORK, SHAPE, CLASSES, data[0])
    for variable, value in zip(model.non_trainable_variables, data[1].reshape(4, -1), strict=True):
        variable.assign(value)

    def loss_of(logits):
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))

    with tf.GradientTape() as tape:
        tape.watch(weights)
        logits, after = NETWORK.logits(weights, statistics, images, CLASSES, training=training)
        loss = loss_of(logits)
    with tf.GradientTape() as keras_tape:
        keras_logits = model(images, training=training)
        keras_loss = loss_of(keras_logits)
    variables = [variable.value for variable in model.trainable_variables]
    keras_gradient = np.concatenate([np.ravel(g) for g in keras_tape.gradient(keras_loss, variables)])

    np.testing.assert_allclose(logits, keras_logits, rtol=1e-4, atol=1e-4)
    gradient = tape.gradient(loss, weights).numpy()
    assert np.abs(gradient).min() < 1e-2 < 0.1 < np.abs(gradient).max()
    np.testing.assert_allclose(gradient, keras_gradient, rtol=1e-3, atol=1e-5)
    assert after.shape == [2, 2, NETWORK.filters]
    if not training:
        np.testing.assert_array_equal(after, statistics)


def test_running_statistics_are_those_of_keras_but_for_the_unbiased_variance(data):
    """The fused kernel reports the variance over N − 1, Keras that over N = batch * height * width.

    The normalisation of the batch itself divides by N in both, so only the running variance differs, by N / (N − 1):
    one part in 102,400 for the paper's child.
    """
    weights, statistics, images, _ = map(tf.constant, data)
    model = keras_model(NETWORK, SHAPE, CLASSES, data[0])
    for variable, value in zip(model.non_trainable_variables, data[1].reshape(4, -1), strict=True):
        variable.assign(value)
    for _ in range(3):
        _, statistics = NETWORK.logits(weights, statistics, images, CLASSES, training=True)
        model(images, training=True)
    ours, theirs = statistics.numpy(), statistics_of(model)
    np.testing.assert_allclose(ours[:, 0], theirs[:, 0], rtol=1e-4, atol=1e-5)
    count = BATCH * SHAPE[0] * SHAPE[1]
    remaining = 0.9**3 * data[1][:, 1]
    np.testing.assert_allclose(
        (ours[:, 1] - remaining) * (count - 1) / count, theirs[:, 1] - remaining, rtol=1e-3, atol=1e-5
    )
    assert not np.allclose(ours[:, 1], theirs[:, 1], rtol=5e-4)


def test_statistics_by_hand():
    """A batch of variance 4 over N − 1 moves the running variance from 1 to 0.75 + 0.25 * 4."""
    network = ConvNet(filters=1, statistics_momentum=0.75)
    shapes = network.shapes((1, 2, 1), 1)
    kernel = np.zeros(shapes['kernel_1'], np.float32)
    kernel[1, 1] = 1.0  # the identity
    weights = tf.concat([kernel.ravel(), [1.0, 0.0], kernel.ravel(), [1.0, 0.0], tf.zeros(3)], 0)
    images = tf.reshape(tf.constant([1.0, 5.0, 3.0, 3.0]), [2, 1, 2, 1])  # mean 3, squares 4 + 4 over 3
    _, statistics = network.logits(weights, network.initial_statistics(), images, 1, training=True)
    np.testing.assert_allclose(statistics[0, :, 0], [0.25 * 3, 0.75 + 0.25 * 8 / 3], rtol=1e-6)


def test_running_statistics_carry_no_gradient(data):
    weights, statistics, images, _ = map(tf.constant, data)
    with tf.GradientTape() as tape:
        tape.watch(weights)
        _, after = NETWORK.logits(weights, statistics, images, CLASSES, training=True)
        total = tf.reduce_sum(after)
    assert tape.gradient(total, weights) is None


def test_an_image_is_classified_alone_in_inference_and_in_company_in_training(data):
    weights, statistics, images, _ = map(tf.constant, data)
    for training, alike in ((False, True), (True, False)):
        whole, _ = NETWORK.logits(weights, statistics, images, CLASSES, training=training)
        part, _ = NETWORK.logits(weights, statistics, images[:3], CLASSES, training=training)
        assert np.allclose(whole[:3], part, atol=1e-4) == alike


def test_number_of_weights_of_the_paper():
    """864 + 64 for 3 channels, 9,216 + 64 for 32, and 32,768 features for each of 10 classes and their bias."""
    network = ConvNet()
    shapes = network.shapes((32, 32, 3), 10)
    assert shapes['kernel_1'] == (3, 3, 3, 32)
    assert shapes['kernel_2'] == (3, 3, 32, 32)
    assert shapes['dense'] == (32 * 32 * 32, 10)
    count = sum(int(np.prod(shape)) for shape in shapes.values())
    assert count == (3 * 3 * 3 * 32 + 2 * 32) + (3 * 3 * 32 * 32 + 2 * 32) + (32 * 32 * 32 * 10 + 10) == 337_898
    assert network.initial_weights((32, 32, 3), 10, tf.constant(0)).shape == [count]
    assert network.initial_statistics().shape == [2, 2, 32]


def test_initial_weights_are_of_the_scale_of_glorot():
    network = ConvNet(filters=16)
    shapes = network.shapes((8, 8, 3), 10)
    weights = network.initial_weights((8, 8, 3), 10, tf.constant(0)).numpy()
    parts = dict(zip(shapes, np.split(weights, np.cumsum([np.prod(s) for s in shapes.values()])[:-1]), strict=True))
    limits = {
        'kernel_1': np.sqrt(6 / (9 * 3 + 9 * 16)),
        'kernel_2': np.sqrt(6 / (9 * 16 + 9 * 16)),
        'dense': np.sqrt(6 / (8 * 8 * 16 + 10)),
    }
    for name, limit in limits.items():
        part = parts[name]
        assert 0.98 * limit < np.abs(part).max() <= limit
        assert part.std() == pytest.approx(limit / np.sqrt(3), rel=0.1)
        assert abs(part.mean()) < 0.1 * limit
        keras_limit = np.sqrt(3 * np.var(keras.initializers.GlorotUniform(seed=0)(shapes[name])))
        assert keras_limit == pytest.approx(limit, rel=0.1)
    for i in (1, 2):
        assert set(parts[f'scale_{i}']) == {1.0}
        assert set(parts[f'offset_{i}']) == {0.0}
    assert set(parts['bias']) == {0.0}
    assert abs(np.corrcoef(parts['kernel_2'][:432], parts['kernel_1'])[0, 1]) < 0.2
    np.testing.assert_array_equal(network.initial_statistics()[:, 0], np.zeros([2, 16]))
    np.testing.assert_array_equal(network.initial_statistics()[:, 1], np.ones([2, 16]))


def test_initial_weights_are_a_function_of_the_seed():
    first, again, other = (NETWORK.initial_weights(SHAPE, CLASSES, tf.constant(seed)).numpy() for seed in (3, 3, 4))
    traced = tf.function(lambda seed: NETWORK.initial_weights(SHAPE, CLASSES, seed), autograph=False)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, traced(tf.constant(3)))
    assert np.mean(first != other) > 0.8


def test_filters_must_be_positive():
    with pytest.raises(ValueError, match=r'ConvNet.filters = 0: must be a whole number, at least 1'):
        ConvNet(filters=0)
