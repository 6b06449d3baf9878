"""The child network (Section 4.2): two 3x3 convolutions with batch normalisation and ReLU, a linear softmax classifier.

All trainable weights are one flat vector, as the interpreter of rules wants them; the running statistics of the batch
normalisation are another. Functions are pure: what training changes is passed in and returned. The gradient is written
by hand, for speed (`layers.py` says how), and tested against that of Keras.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import gin
import keras
import tensorflow as tf

from nos_tf.tasks.checks import check_counts
from nos_tf.tasks.keras_layers import FusedBatchNormalization
from nos_tf.tasks.layers import (
    FirstLayer,
    InChunks,
    Moments,
    WholeBatch,
    convolve,
    in_turn,
    input_gradient,
    kernel_gradient,
    relu_gradient,
)

CHUNK_BYTES = 3 * 2**20  # of one activation tensor; larger batches go through the network in chunks


class Batch(NamedTuple):
    """What a step trains on."""

    images: tf.Tensor  # float32 [B, H, W, C]
    labels: tf.Tensor  # int32 [B]
    moments: tf.Tensor  # `patch_moments` of the images, [B, 9 C + 1, 9 C + 1]


class Gradient(NamedTuple):
    """What a step computes."""

    loss: tf.Tensor  # mean over the batch, []
    gradient: tf.Tensor  # of the loss with respect to the weights, [P]
    statistics: tf.Tensor  # the running ones after the batch


@gin.register
@dataclass(frozen=True)
class ConvNet:
    """The hyper-parameters of the network.

    Args:
        filters: of each convolution.
        statistics_momentum: of the running mean and variance; Keras' 0.99 would leave a one-epoch sweep at chance.
        statistics_epsilon: added to the variance.
        bfloat16: compute activations and products in bfloat16; weights, statistics and logits stay float32.
    """

    filters: int = 32
    statistics_momentum: float = 0.9
    statistics_epsilon: float = 1e-3
    bfloat16: bool = False

    def __post_init__(self) -> None:
        check_counts(self, 'filters')
        for name, most in (('statistics_momentum', 1.0), ('statistics_epsilon', math.inf)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < most:
                raise ValueError(f'ConvNet.{name} = {value!r}: must be a number from 0 to below {most:g}')
        if not isinstance(self.bfloat16, bool):
            raise ValueError(f'ConvNet.bfloat16 = {self.bfloat16!r}: must be True or False')

    def model(self, image_shape: tuple[int, int, int], classes: int, seed: int) -> keras.Model:
        """The same network of Keras layers, for trainings with any optimizer; the same seed gives the same weights.

        Args:
            image_shape: H, W, C.
            classes: their number.
            seed: of the initial weights.
        """
        policy = keras.DTypePolicy('mixed_bfloat16' if self.bfloat16 else 'float32')
        starts = [keras.initializers.GlorotUniform(1000 * seed + i) for i in range(3)]
        inputs = x = keras.Input(image_shape, dtype='float32')
        for start in starts[:2]:
            x = keras.layers.Conv2D(
                self.filters,
                3,
                padding='same',
                data_format='channels_last',
                use_bias=False,
                kernel_initializer=start,
                dtype=policy,
            )(x)
            x = FusedBatchNormalization(
                momentum=self.statistics_momentum, epsilon=self.statistics_epsilon, dtype=policy
            )(x)
            x = keras.layers.ReLU(dtype=policy)(x)
        x = keras.layers.Flatten(data_format='channels_last', dtype=policy)(x)
        logits = keras.layers.Dense(classes, kernel_initializer=starts[2], dtype=policy)(x)
        return keras.Model(inputs, keras.layers.Activation('linear', dtype='float32')(logits))

    def shapes(self, image_shape: tuple[int, int, int], classes: int) -> dict[str, tuple[int, ...]]:
        """The trainable tensors in the order of the flat vector. No bias before a normalisation, which removes it."""
        height, width, channels = image_shape
        f = self.filters
        return {
            'kernel_1': (3, 3, channels, f),
            'scale_1': (f,),
            'offset_1': (f,),
            'kernel_2': (3, 3, f, f),
            'scale_2': (f,),
            'offset_2': (f,),
            'dense': (classes, height * width * f),
            'bias': (classes,),
        }

    def initial_weights(self, image_shape: tuple[int, int, int], classes: int, seed: tf.Tensor) -> tf.Tensor:
        """Glorot-uniform kernels, unit scales, zero offsets: float32 [P]. `seed` is int32 []."""
        parts = []
        for i, (name, shape) in enumerate(self.shapes(image_shape, classes).items()):
            if len(shape) > 1:
                receptive = math.prod(shape[:-2])
                limit = math.sqrt(6 / (receptive * (shape[-2] + shape[-1])))
                part = tf.random.stateless_uniform([math.prod(shape)], tf.stack([seed, i]), -limit, limit)
            else:
                part = tf.fill([math.prod(shape)], 1.0 if name.startswith('scale') else 0.0)
            parts.append(part)
        return tf.concat(parts, 0)

    def initial_statistics(self) -> tf.Tensor:
        """Mean 0 and variance 1 for both normalisations: float32 [2, 2, filters], layer by moment."""
        layer = tf.stack([tf.zeros([self.filters]), tf.ones([self.filters])])
        return tf.stack([layer, layer])

    def logits(self, weights: tf.Tensor, statistics: tf.Tensor, images: tf.Tensor, classes: int) -> tf.Tensor:
        """The unnormalised log-probabilities [B, classes], normalised with the running statistics.

        Args:
            weights: [P].
            statistics: [2, 2, filters].
            images: [B, H, W, C], of static H, W and C.
            classes: their number.
        """
        w = self._tensors(weights, images.shape, classes)
        x = tf.cast(images, self._dtype)
        for i, (mean, variance) in enumerate(map(tf.unstack, tf.unstack(statistics))):
            x, *_ = tf.raw_ops.FusedBatchNormV3(
                x=convolve(x, tf.cast(w[f'kernel_{i + 1}'], self._dtype)),
                scale=w[f'scale_{i + 1}'],
                offset=w[f'offset_{i + 1}'],
                mean=mean,
                variance=variance,
                epsilon=self.statistics_epsilon,
                is_training=False,
            )
            x = tf.nn.relu(x)
        return self._classify(x, tf.cast(w['dense'], self._dtype), w['bias'])

    def gradient(self, weights: tf.Tensor, statistics: tf.Tensor, batch: Batch, classes: int) -> Gradient:
        """The gradient of the mean cross-entropy, normalised with the moments of the batch.

        Args:
            weights: [P].
            statistics: [2, 2, filters].
            batch: of static shapes.
            classes: their number.
        """
        w = self._tensors(weights, batch.images.shape, classes)
        size = batch.images.shape[0]
        first = FirstLayer(
            w['kernel_1'], w['scale_1'], w['offset_1'], tf.reduce_sum(batch.moments, 0), self.statistics_epsilon
        )
        kernel_1, bias_1 = first.folded(self._dtype)
        kernel_2, dense = tf.cast(w['kernel_2'], self._dtype), tf.cast(w['dense'], self._dtype)
        chunks = self._chunks(batch.images.shape)
        second = (InChunks if chunks > 1 else WholeBatch)(w['scale_2'], w['offset_2'], self.statistics_epsilon)

        def up_to_second(images: tf.Tensor) -> tuple:
            x = tf.nn.relu(tf.nn.bias_add(convolve(images, kernel_1), bias_1))
            return x, *second.observe(convolve(x, kernel_2))

        def back_to_second(kept: tuple, labels: tf.Tensor) -> tuple:
            """The loss, and its gradient down to the second normalisation."""
            x = second.normalise(kept)
            loss, error = tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(
                features=self._classify(x, dense, w['bias']), labels=labels
            )
            error /= size
            bias = tf.reduce_sum(error, 0)
            error = tf.cast(error, self._dtype)
            flat = tf.reshape(x, [x.shape[0], -1])
            dense_gradient = tf.cast(tf.matmul(error, flat, transpose_a=True), tf.float32)
            upstream = relu_gradient(x, tf.reshape(tf.matmul(error, dense), x.shape))
            through, scale, offset = second.backward(kept, upstream)
            return through, (tf.reduce_sum(loss) / size, scale, offset, dense_gradient, bias)

        def back_to_first(through: tf.Tensor, kept: tuple, x: tf.Tensor, images: tf.Tensor) -> tuple:
            """Gradients of the second convolution, and what the first normalisation needs for its own."""
            upstream = second.finish(kept, through)
            kernel = kernel_gradient(x, upstream)
            upstream = relu_gradient(x, input_gradient(x, kernel_2, upstream))
            rows = tf.reshape(upstream, [x.shape[0], -1])
            total = tf.matmul(tf.ones([1, x.shape[0]], rows.dtype), rows)  # faster than reduce_sum
            total = tf.reduce_sum(tf.cast(tf.reshape(total, [-1, self.filters]), tf.float32), 0)
            return ((kernel, kernel_gradient(images, upstream), total),)

        images = tf.split(tf.cast(batch.images, self._dtype), chunks)
        x, kept, moments = in_turn(up_to_second, images)
        second.settle(moments)
        through, parts = in_turn(back_to_second, kept, tf.split(batch.labels, chunks))
        loss, scale_2, offset_2, dense_gradient, bias = _added(parts)
        second.settle_gradient(scale_2, offset_2)
        (parts,) = in_turn(back_to_first, through, kept, x, images)
        kernel_2_gradient, products, total = _added(parts)
        gradients = (*first.gradients(products, total), kernel_2_gradient, scale_2, offset_2, dense_gradient, bias)
        flat = tf.concat([tf.reshape(tf.cast(part, tf.float32), [-1]) for part in gradients], 0)
        return Gradient(loss, flat, self._moved(statistics, first.moments, second.moments))

    @property
    def _dtype(self) -> tf.DType:
        return tf.bfloat16 if self.bfloat16 else tf.float32

    def _tensors(self, weights: tf.Tensor, image_shape: tf.TensorShape, classes: int) -> dict[str, tf.Tensor]:
        shapes = self.shapes(tuple(image_shape[1:]), classes)
        parts = tf.split(weights, [math.prod(shape) for shape in shapes.values()])
        return {name: tf.reshape(part, shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}

    @staticmethod
    def _classify(x: tf.Tensor, dense: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        """The logits, float32 [B, classes], of activations."""
        flat = tf.reshape(x, [-1, dense.shape[1]])
        logits = tf.transpose(tf.matmul(dense, flat, transpose_b=True))  # faster than the other way round
        return tf.cast(logits, tf.float32) + bias

    def _chunks(self, shape: tf.TensorShape) -> int:
        """In how many chunks of one size a batch goes through: as few as fit. In bfloat16 it does not pay."""
        size, height, width, _ = shape
        if self.bfloat16:
            return 1
        image_bytes = height * width * self.filters * 4
        sensible = [n for n in range(1, size + 1) if size % n == 0 and size // n * image_bytes >= CHUNK_BYTES / 4]
        return next((n for n in sensible if size // n * image_bytes <= CHUNK_BYTES), max(sensible, default=1))

    def _moved(self, statistics: tf.Tensor, *layers: Moments) -> tf.Tensor:
        """The running statistics after a batch of these moments."""
        keep = self.statistics_momentum
        return keep * statistics + (1.0 - keep) * tf.stack([tf.stack(moments) for moments in layers])


def _added(parts: list[tuple]) -> list[tf.Tensor]:
    """The parts of all chunks, added."""
    return [tf.add_n(part) for part in zip(*parts, strict=True)]
