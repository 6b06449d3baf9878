"""The hand-written layers against automatic differentiation in float64, and the order of chunks."""

import numpy as np
import pytest
import tensorflow as tf

from nos_tf.tasks.layers import (
    FirstLayer,
    InChunks,
    WholeBatch,
    all_patch_moments,
    convolve,
    in_turn,
    kernel_gradient,
    patch_moments,
)

EPSILON = 1e-3
BATCH, HEIGHT, WIDTH, CHANNELS, FILTERS = 6, 5, 4, 2, 3
PIXELS = BATCH * HEIGHT * WIDTH


def normalised(y, scale, offset):
    """Batch normalisation, written out."""
    mean, variance = tf.nn.moments(y, [0, 1, 2])
    return (y - mean) * tf.math.rsqrt(variance + EPSILON) * scale + offset


@pytest.fixture(scope='module')
def draws():
    """Images [B, H, W, C] that are not centred, a kernel, scale and offset, and an upstream gradient [B, H, W, F]."""
    random = np.random.default_rng(3)
    shapes = [
        [BATCH, HEIGHT, WIDTH, CHANNELS],
        [3, 3, CHANNELS, FILTERS],
        [FILTERS],
        [FILTERS],
        [BATCH, HEIGHT, WIDTH, FILTERS],
    ]
    return [tf.constant(random.normal(0.7, 1.0, shape), tf.float32) for shape in shapes]


def expected_gradients(values, forward, upstream):
    """What automatic differentiation says in float64."""
    values = [tf.cast(value, tf.float64) for value in values]
    with tf.GradientTape() as tape:
        tape.watch(values)
        out = forward(*values)
    return out, tape.gradient(out, values, tf.cast(upstream, tf.float64))


def test_the_first_layer_is_one_convolution(draws):
    images, kernel, scale, offset, upstream = draws
    layer = FirstLayer(kernel, scale, offset, tf.reduce_sum(patch_moments(images), 0), EPSILON)
    folded, bias = layer.folded(tf.float32)
    out, expected = expected_gradients(
        (kernel, scale, offset), lambda k, s, o: normalised(convolve(tf.cast(images, tf.float64), k), s, o), upstream
    )
    np.testing.assert_allclose(convolve(images, folded) + bias, out, atol=1e-5)
    gradients = layer.gradients(kernel_gradient(images, upstream), tf.reduce_sum(upstream, [0, 1, 2]))
    for ours, theirs in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    mean, variance = tf.nn.moments(convolve(images, kernel), [0, 1, 2])
    np.testing.assert_allclose(layer.moments.mean, mean, rtol=1e-4)
    np.testing.assert_allclose(layer.moments.variance, variance * PIXELS / (PIXELS - 1), rtol=1e-4)


def test_the_first_layer_of_images_whose_patches_hardly_vary():
    """The variance is 1e-6 of the mean square: more than standardised images ask of moments in float32."""
    random = np.random.default_rng(0)
    images = tf.constant(1.0 + 1e-3 * random.normal(size=[4, 6, 6, 1]), tf.float32)[:, 1:-1, 1:-1]
    kernel = np.zeros([3, 3, 1, 1], np.float32)
    kernel[1, 1] = 1.0
    moments = tf.reduce_sum(patch_moments(images), 0)
    layer = FirstLayer(tf.constant(kernel), tf.ones(1), tf.zeros(1), moments, EPSILON)
    np.testing.assert_allclose(layer.moments.variance, np.var(images, ddof=1), rtol=0.05)


def test_an_output_without_variance_is_its_offset():
    kernel = tf.zeros([3, 3, 1, 1])
    images = tf.random.stateless_normal([3, 4, 4, 1], [1, 2])
    layer = FirstLayer(kernel, tf.ones(1), tf.constant([0.5]), tf.reduce_sum(patch_moments(images), 0), EPSILON)
    folded, bias = layer.folded(tf.float32)
    np.testing.assert_array_equal(convolve(images, folded) + bias, np.full([3, 4, 4, 1], 0.5, np.float32))


def test_a_single_value_has_no_variance():
    image = tf.ones([1, 1, 1, 1])
    layer = FirstLayer(tf.ones([3, 3, 1, 1]), tf.ones(1), tf.zeros(1), patch_moments(image)[0], EPSILON)
    assert layer.moments.mean.numpy() == [1.0]
    assert layer.moments.variance.numpy() == [0.0]


def test_patch_moments_by_hand():
    """One image of one row, 1 2: its patches are 0 1 2 and 1 2 0 in their middle row."""
    moments = patch_moments(tf.reshape(tf.constant([1.0, 2.0]), [1, 1, 2, 1]))[0].numpy()
    patches = np.zeros([2, 10])
    patches[0, 3:6], patches[1, 3:6], patches[:, 9] = [0, 1, 2], [1, 2, 0], 1
    np.testing.assert_array_equal(moments, patches.T @ patches)


def test_patch_moments_of_many_images_at_a_time(draws):
    images = draws[0]
    np.testing.assert_allclose(all_patch_moments(images, at_once=4), patch_moments(images), rtol=1e-6)


@pytest.mark.parametrize(('make', 'chunks'), [(WholeBatch, 1), (InChunks, 2), (InChunks, 3)])
def test_normalisation_of_a_batch_in_chunks(draws, make, chunks):
    _, _, scale, offset, upstream = draws
    y = tf.constant(np.random.default_rng(5).normal(2.0, 3.0, upstream.shape), tf.float32)
    out, expected = expected_gradients((y, scale, offset), lambda *a: tf.nn.relu(normalised(*a)), upstream)

    layer = make(scale, offset, EPSILON)
    kept, moments = zip(*map(layer.observe, tf.split(y, chunks)), strict=True)
    layer.settle(moments)
    x = [layer.normalise(part) for part in kept]
    np.testing.assert_allclose(tf.concat(x, 0), out, atol=1e-5)
    mean, variance = tf.nn.moments(y, [0, 1, 2])
    np.testing.assert_allclose(layer.moments.mean, mean, rtol=1e-4)
    np.testing.assert_allclose(layer.moments.variance, variance * PIXELS / (PIXELS - 1), rtol=1e-4)

    through_relu = [tf.where(a > 0, b, 0.0) for a, b in zip(x, tf.split(upstream, chunks), strict=True)]
    gradients, scales, offsets = zip(*map(layer.backward, kept, through_relu), strict=True)
    total_scale, total_offset = tf.add_n(scales), tf.add_n(offsets)
    layer.settle_gradient(total_scale, total_offset)
    finished = tf.concat([layer.finish(*pair) for pair in zip(kept, gradients, strict=True)], 0)
    for ours, theirs in zip((finished, total_scale, total_offset), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_a_chunk_waits_for_the_one_before():
    order = []

    @tf.function(autograph=False)
    def run(xs):
        def note(x):
            return tf.py_function(lambda value: order.append(int(value)) or value, [x], tf.float32)

        first, second = in_turn(lambda x: (note(x), (note(x + 10),)), tf.unstack(xs))
        return first, second

    first, second = run(tf.range(4.0))
    assert order.index(1) > order.index(10)
    assert order.index(2) > order.index(11)
    assert order.index(3) > order.index(12)
    assert [float(x) for x in first] == [0, 1, 2, 3]
    assert [float(x) for (x,) in second] == [10, 11, 12, 13]
