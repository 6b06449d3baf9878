"""The flat child network against the same network built of Keras layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from nos_tf.tasks.convnet import ConvNet
from tests.tasks.keras_twin import flat, keras_model, set_statistics, set_weights, statistics_of

SHAPE, CLASSES, BATCH = (6, 5, 2), 4, 7
NETWORK = ConvNet(filters=3)


def twin(weights):
    model = keras_model(NETWORK, SHAPE, CLASSES)
    set_weights(model, weights)
    return model


@pytest.fixture(scope='module')
def data():
    """Weights unlike the initial ones, statistics, images and labels, all random."""
    random = np.random.default_rng(1)
    count = sum(int(np.prod(shape)) for shape in NETWORK.shapes(SHAPE, CLASSES).values())
    weights = random.normal(0.1, 0.5, [count]).astype(np.float32)
    statistics = random.uniform(0.5, 2.0, [2, 2, NETWORK.filters]).astype(np.float32)
    images = random.normal(0.3, 1.0, [BATCH, *SHAPE]).astype(np.float32)
    return weights, statistics, images, random.integers(0, CLASSES, [BATCH]).astype(np.int32)


def loss_of(logits, labels):
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))


def test_logits_are_those_of_keras(data):
    weights, statistics, images, _ = map(tf.constant, data)
    model = twin(data[0])
    set_statistics(model, data[1])
    logits = NETWORK.logits(weights, statistics, images, CLASSES)
    np.testing.assert_allclose(logits, model(images, training=False), rtol=1e-4, atol=1e-4)


def test_loss_and_gradient_are_those_of_keras(data):
    weights, statistics, images, labels = map(tf.constant, data)
    model = twin(data[0])
    with tf.GradientTape() as tape:
        keras_loss = loss_of(model(images, training=True), labels)
    expected = flat(tape.gradient(keras_loss, [variable.value for variable in model.trainable_variables]))

    loss, gradient, _ = NETWORK.gradient(weights, statistics, images, labels, CLASSES)
    np.testing.assert_allclose(loss, keras_loss, rtol=1e-5)
    assert np.abs(expected).min() < 1e-2 < 0.1 < np.abs(expected).max()
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-5)


def test_bfloat16_gives_about_the_same_gradient(data):
    weights, statistics, images, labels = map(tf.constant, data)
    exact = NETWORK.gradient(weights, statistics, images, labels, CLASSES)
    rough = ConvNet(3, bfloat16=True).gradient(weights, statistics, images, labels, CLASSES)
    assert rough.gradient.dtype == rough.loss.dtype == tf.float32
    assert np.corrcoef(exact.gradient, rough.gradient)[0, 1] > 0.99
    assert float(rough.loss) == pytest.approx(float(exact.loss), rel=0.05)
    assert rough.loss != exact.loss


def test_running_statistics_are_those_of_keras_but_for_the_unbiased_variance(data):
    """The fused kernel reports the variance over N − 1, Keras that over N = batch * height * width.

    The normalisation of the batch itself divides by N in both, so only the running variance differs, by N / (N − 1):
    one part in 102,400 for the paper's child.
    """
    weights, statistics, images, labels = map(tf.constant, data)
    model = twin(data[0])
    set_statistics(model, data[1])
    for _ in range(3):
        statistics = NETWORK.gradient(weights, statistics, images, labels, CLASSES).state
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
    labels = tf.zeros([2], tf.int32)
    _, _, statistics = network.gradient(weights, network.initial_statistics(), images, labels, 1)
    np.testing.assert_allclose(statistics[0, :, 0], [0.25 * 3, 0.75 + 0.25 * 8 / 3], rtol=1e-6)


def test_an_image_is_classified_alone_in_inference_and_in_company_in_training(data):
    weights, statistics, images, labels = map(tf.constant, data)
    whole = NETWORK.logits(weights, statistics, images, CLASSES)
    part = NETWORK.logits(weights, statistics, images[:3], CLASSES)
    np.testing.assert_allclose(whole[:3], part, atol=1e-4)
    of_each = [
        NETWORK.gradient(weights, statistics, images[i:j], labels[i:j], CLASSES).loss * (j - i)
        for i, j in ((0, 3), (3, BATCH))
    ]
    together = NETWORK.gradient(weights, statistics, images, labels, CLASSES).loss * BATCH
    assert abs(together - sum(of_each)) > 0.02


def test_number_of_weights_of_the_paper():
    """864 + 64 for 3 channels, 9,216 + 64 for 32, and 32,768 features for each of 10 classes and their bias."""
    network = ConvNet()
    shapes = network.shapes((32, 32, 3), 10)
    assert shapes['kernel_1'] == (3, 3, 3, 32)
    assert shapes['kernel_2'] == (3, 3, 32, 32)
    assert shapes['dense'] == (10, 32 * 32 * 32)
    count = sum(int(np.prod(shape)) for shape in shapes.values())
    assert count == (3 * 3 * 3 * 32 + 2 * 32) + (3 * 3 * 32 * 32 + 2 * 32) + (32 * 32 * 32 * 10 + 10) == 337_898
    assert network.initial_weights((32, 32, 3), 10, 0).shape == [count]
    assert network.initial_statistics().shape == [2, 2, 32]


def test_initial_weights_are_of_the_scale_of_glorot():
    network = ConvNet(filters=16)
    shapes = network.shapes((8, 8, 3), 10)
    weights = network.initial_weights((8, 8, 3), 10, 0).numpy()
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
    first, again, other = (NETWORK.initial_weights(SHAPE, CLASSES, seed).numpy() for seed in (3, 3, 4))
    traced = tf.function(lambda seed: NETWORK.initial_weights(SHAPE, CLASSES, seed), autograph=False)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, traced(tf.constant(3)))
    assert np.mean(first != other) > 0.8


@pytest.mark.parametrize(
    'values',
    [{'statistics_momentum': True}, {'statistics_momentum': 1.0}, {'statistics_epsilon': -1e-3}, {'bfloat16': 1}],
)
def test_values_out_of_range_are_named(values):
    ((name, value),) = values.items()
    with pytest.raises(ValueError, match=f'ConvNet.{name} = {value!r}: must be '):
        ConvNet(**values)


def test_filters_must_be_positive():
    with pytest.raises(ValueError, match=r'ConvNet.filters = 0: must be a whole number, at least 1'):
        ConvNet(filters=0)


def test_its_keras_model_computes_the_same(data):
    weights, statistics, images, labels = data
    model = NETWORK.model(SHAPE, CLASSES, 0)
    set_weights(model, weights)
    set_statistics(model, statistics)
    ours = NETWORK.logits(*map(tf.constant, (weights, statistics, images)), CLASSES)
    np.testing.assert_allclose(model(images, training=False), ours, rtol=1e-4, atol=1e-4)
    with tf.GradientTape() as tape:
        loss = loss_of(model(images, training=True), labels)
    gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    ours = NETWORK.gradient(*map(tf.constant, data), CLASSES)
    np.testing.assert_allclose(loss, ours.loss, rtol=1e-5)
    np.testing.assert_allclose(flat(gradients), ours.gradient, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(statistics_of(model), ours.state, rtol=1e-4)


def test_its_keras_model_begins_where_the_seed_says_and_may_compute_in_bfloat16():
    first, again, other = (NETWORK.model(SHAPE, CLASSES, seed).get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0]) and not np.array_equal(first[0].ravel()[:9], first[5].ravel()[:9])
    model = ConvNet(filters=3, bfloat16=True).model(SHAPE, CLASSES, 0)
    assert model(np.zeros([1, *SHAPE], 'float32')).dtype == 'float32'
    assert {variable.dtype for variable in model.variables} == {'float32'} and model.layers[
        1
    ].compute_dtype == 'bfloat16'
