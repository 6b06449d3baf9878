"""The two normalised convolutions of the child, with gradients by hand.

A step is bound by memory: the activations of the paper's batch are 13 MB a tensor, larger than what a cache leaves a
core, and automatic differentiation passes over them once an operation. Two things here spare it most of these passes.

- `FirstLayer`: what the first convolution computes is linear in patches of the images, so the moments of its output,
  and every sum in the gradient of its normalisation, follow from the moments of the patches, which are known before
  training. Convolution, normalisation and ReLU become one convolution.
- `InChunks`: what comes between the global sums of the second normalisation is done chunk by chunk of the batch
  (`in_turn`), so that an operation finds in the cache what the one before it wrote.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

SIDE = 3  # of a kernel, in pixels


class Moments(NamedTuple):
    """Of a layer's output over batch and pixels, float32 [F] each."""

    mean: tf.Tensor
    variance: tf.Tensor  # over N - 1, as the running statistics want it


def convolve(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """The convolution of x [B, H, W, C] with a kernel [3, 3, C, F], zeros around the image: [B, H, W, F]."""
    return tf.nn.conv2d(x, kernel, 1, 'SAME')


def kernel_gradient(x: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    """The gradient of `convolve` with respect to its kernel, float32 [3, 3, C, F]."""
    gradient = tf.raw_ops.Conv2DBackpropFilter(
        input=x,
        filter_sizes=[SIDE, SIDE, x.shape[-1], upstream.shape[-1]],
        out_backprop=upstream,
        strides=[1, 1, 1, 1],
        padding='SAME',
    )
    return tf.cast(gradient, tf.float32)


def input_gradient(x: tf.Tensor, kernel: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    """The gradient of `convolve` with respect to x."""
    return tf.raw_ops.Conv2DBackpropInput(
        input_sizes=tf.shape(x), filter=kernel, out_backprop=upstream, strides=[1, 1, 1, 1], padding='SAME'
    )


def relu_gradient(x: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    """What of a gradient comes back through a ReLU whose output is x."""
    if x.dtype == tf.bfloat16:
        return _compiled_relu_gradient(x, upstream)
    return tf.raw_ops.ReluGrad(gradients=upstream, features=x)


@tf.function(jit_compile=True, autograph=False)  # half the time of the operation, which computes element by element
def _compiled_relu_gradient(x: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    return tf.where(x > 0, upstream, tf.zeros([], x.dtype))


def in_turn(phase: Callable[..., tuple], *chunked: Sequence[Any]) -> list[list[Any]]:
    """Does a phase chunk by chunk, each after the one before it: left alone, TensorFlow does an operation on all first.

    Args:
        phase: takes an item of each list, tensors or tuples of them, and returns a tuple, whose last part is what the
            next chunk waits for. (Activations should not be in it: what is waited for is not fused with its ReLU.)
        chunked: lists of one item a chunk.

    Returns:
        a list for each part of what the phase returns, of one item a chunk.
    """
    results: list[tuple] = []
    for chunk in zip(*chunked, strict=True):
        if results:
            with tf.control_dependencies(tf.nest.flatten(results[-1][-1])):
                chunk = tf.nest.map_structure(tf.identity, chunk)
        results.append(phase(*chunk))
    return [list(parts) for parts in zip(*results, strict=True)]


def patch_moments(images: tf.Tensor) -> tf.Tensor:
    """Sums over the 3x3 patches p of each image, a 1 appended: of p p^T, float32 [B, 9 C + 1, 9 C + 1].

    The last row holds the sums of p itself, and in the corner their number.
    """
    window = [1, SIDE, SIDE, 1]
    patches = tf.image.extract_patches(images, window, [1, 1, 1, 1], [1, 1, 1, 1], 'SAME')
    patches = tf.reshape(patches, [-1, images.shape[1] * images.shape[2], patches.shape[-1]])
    patches = tf.concat([patches, tf.ones_like(patches[..., :1])], -1)
    return tf.matmul(patches, patches, transpose_a=True)


def all_patch_moments(images: tf.Tensor, at_once: int = 100) -> tf.Tensor:
    """`patch_moments` of any number of images, the patches of so many at a time in memory."""
    return tf.concat([patch_moments(images[i : i + at_once]) for i in range(0, len(images), at_once)], 0)


class FirstLayer:
    """relu(normalise(convolve(images, kernel))) for images whose patches have known moments.

    With y = p k for a patch p and a kernel k, the mean of y is mean(p) k and its variance k^T Cov(p) k. These products
    are taken in float64, for the covariance of the patches of natural images is nearly singular; the moments themselves
    are float32, so the images should be standardised, as those of `tasks/images.py` are.

    Args:
        kernel: [3, 3, C, F].
        scale: [F].
        offset: [F].
        moments: `patch_moments` of the batch, summed over it: [9 C + 1, 9 C + 1].
        epsilon: added to the variance.
    """

    def __init__(
        self, kernel: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, moments: tf.Tensor, epsilon: float
    ) -> None:
        self._kernel_shape = kernel.shape
        moments = tf.cast(moments, tf.float64)
        self._kernel = tf.cast(tf.reshape(kernel, [-1, kernel.shape[-1]]), tf.float64)
        count = moments[-1, -1]
        self._patch_mean = moments[-1, :-1] / count
        covariance = moments[:-1, :-1] / count - tf.tensordot(self._patch_mean, self._patch_mean, 0)
        self._covariance_with_output = tf.matmul(covariance, self._kernel)  # Cov(p) k: [9 C, F]
        self._mean = tf.linalg.matvec(self._kernel, self._patch_mean, transpose_a=True)
        variance = tf.maximum(tf.reduce_sum(self._kernel * self._covariance_with_output, 0), 0.0)
        self._inverse_deviation = tf.math.rsqrt(variance + epsilon)
        self._gain = tf.cast(scale, tf.float64) * self._inverse_deviation
        self._offset = tf.cast(offset, tf.float64)
        unbiased = variance * count / tf.maximum(count - 1.0, 1.0)
        self.moments = Moments(tf.cast(self._mean, tf.float32), tf.cast(unbiased, tf.float32))

    def folded(self, dtype: tf.DType) -> tuple[tf.Tensor, tf.Tensor]:
        """The kernel [3, 3, C, F] and the bias [F] that convolve and normalise at once."""
        kernel = tf.reshape(self._kernel * self._gain, self._kernel_shape)
        return tf.cast(kernel, dtype), tf.cast(self._offset - self._mean * self._gain, dtype)

    def gradients(self, products: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The gradients with respect to kernel, scale and offset, float32.

        Args:
            products: `kernel_gradient` of the images and of the gradient d that comes back through the ReLU.
            total: d summed over batch and pixels, [F].
        """
        products = tf.cast(tf.reshape(products, self._kernel.shape), tf.float64)
        offset = tf.cast(total, tf.float64)
        scale = self._inverse_deviation * (tf.reduce_sum(self._kernel * products, 0) - self._mean * offset)
        kernel = self._gain * (
            products
            - tf.tensordot(self._patch_mean, offset, 0)
            - self._covariance_with_output * self._inverse_deviation * scale
        )
        kernel, scale, offset = (tf.cast(x, tf.float32) for x in (kernel, scale, offset))
        return tf.reshape(kernel, self._kernel_shape), scale, offset


class WholeBatch:
    """Batch normalisation and ReLU of one chunk that is the whole batch: fused kernels, forward and backward.

    The methods are called in their order, all of them for each chunk but those that `settle`.

    Args:
        scale: [F].
        offset: [F].
        epsilon: added to the variance.
    """

    moments: Moments

    def __init__(self, scale: tf.Tensor, offset: tf.Tensor, epsilon: float) -> None:
        self._scale, self._offset, self._epsilon = scale, offset, epsilon

    def observe(self, y: tf.Tensor) -> tuple[tuple, Moments]:
        """What to keep of a chunk of the layer's output y, and its moments."""
        normal, mean, variance, *reserved = tf.raw_ops.FusedBatchNormV3(
            x=y, scale=self._scale, offset=self._offset, mean=[], variance=[], epsilon=self._epsilon
        )
        return (y, tf.nn.relu(normal), *reserved), Moments(mean, variance)

    def settle(self, moments: Sequence[Moments]) -> None:
        """Takes the moments of all chunks."""
        (self.moments,) = moments

    def normalise(self, kept: tuple) -> tf.Tensor:
        """The activations of a chunk."""
        return kept[1]

    def backward(self, kept: tuple, upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Takes the gradient that comes back through the ReLU; also returns those of scale and offset, [F] each."""
        y, _, *reserved = kept
        gradient, scale, offset, *_ = tf.raw_ops.FusedBatchNormGradV3(
            y_backprop=upstream,
            x=y,
            scale=self._scale,
            reserve_space_1=reserved[0],
            reserve_space_2=reserved[1],
            reserve_space_3=reserved[2],
            epsilon=self._epsilon,
        )
        return gradient, scale, offset

    def settle_gradient(self, scale: tf.Tensor, offset: tf.Tensor) -> None:
        """Takes the gradients of scale and offset, those of all chunks added."""

    def finish(self, kept: tuple, gradient: tf.Tensor) -> tf.Tensor:
        """The gradient with respect to y, from what `backward` returned."""
        return gradient


class InChunks(WholeBatch):
    """The same of several chunks of one size: moments are merged, and a gradient finished once its sums are known."""

    def observe(self, y: tf.Tensor) -> tuple[tuple, Moments]:
        """What to keep of a chunk of the layer's output y, and its moments."""
        (y, *_), moments = super().observe(y)
        self._chunk_size = y.shape.num_elements() // y.shape[-1]
        return (y,), moments

    def settle(self, moments: Sequence[Moments]) -> None:
        """Merges the moments of all chunks."""
        means, variances = (tf.stack(parts) for parts in zip(*moments, strict=True))
        within = tf.reduce_mean(variances, 0) * ((self._chunk_size - 1) / self._chunk_size)
        self._size = self._chunk_size * len(moments)
        self._mean = tf.reduce_mean(means, 0)
        self._variance = within + tf.reduce_mean(tf.square(means - self._mean), 0)
        self.moments = Moments(self._mean, self._variance * (self._size / (self._size - 1)))

    def normalise(self, kept: tuple) -> tf.Tensor:
        """The activations of a chunk."""
        return tf.nn.relu(self._affine(kept[0], self._scale, self._offset))

    def _affine(self, y: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
        """scale * (y normalised) + offset."""
        return tf.raw_ops.FusedBatchNormV3(
            x=y,
            scale=scale,
            offset=offset,
            mean=self._mean,
            variance=self._variance,
            epsilon=self._epsilon,
            is_training=False,
        )[0]

    def backward(self, kept: tuple, upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Takes the gradient that comes back through the ReLU; also returns this chunk's part of the other two."""
        gradient, scale, offset, *_ = tf.raw_ops.FusedBatchNormGradV3(
            y_backprop=upstream,
            x=kept[0],
            scale=self._scale,
            reserve_space_1=self._mean,
            reserve_space_2=self._variance,
            reserve_space_3=[],
            epsilon=self._epsilon,
            is_training=False,
        )
        return gradient, scale, offset

    def settle_gradient(self, scale: tf.Tensor, offset: tf.Tensor) -> None:
        """Takes the gradients of scale and offset, those of all chunks added."""
        gain = self._scale * tf.math.rsqrt(self._variance + self._epsilon) / self._size
        self._through_deviation, self._through_mean = gain * scale, gain * offset

    def finish(self, kept: tuple, gradient: tf.Tensor) -> tf.Tensor:
        """The gradient with respect to y: less what goes through the mean and the deviation of the batch."""
        return gradient - self._affine(kept[0], self._through_deviation, self._through_mean)
