"""The child network (Section 4.2): two 3x3 convolutions with batch normalisation and ReLU, a linear softmax classifier.

All trainable weights are one flat vector, as the interpreter of rules wants them; the running statistics of the batch
normalisation are another. Functions are pure: what training changes is passed in and returned. The normalisation is one
fused operation of TensorFlow; that of Keras, which takes several, costs half as much time again.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any

import gin
import keras
import tensorflow as tf

from nos_tf.config import Configured, Count, at_least, below
from nos_tf.tasks.task import Gradient


@keras.saving.register_keras_serializable('nos_tf')
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation of the last axis of images [B, H, W, C], by one fused operation of TensorFlow.

    It computes what the layer of Keras computes, which takes several operations; but the running variance is that of a
    sample, greater by n / (n - 1) for n = B H W values, as in other frameworks.
    """

    def call(self, inputs: tf.Tensor, training: bool = False, mask: Any = None) -> tf.Tensor:
        """The normalised images; in training by their own moments, which the running ones follow."""
        if not training:
            return super().call(inputs, training=False, mask=mask)
        images, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=tf.cast(inputs, self.compute_dtype),
            scale=tf.convert_to_tensor(self.gamma),
            offset=tf.convert_to_tensor(self.beta),
            mean=(),
            variance=(),
            epsilon=self.epsilon,
            is_training=True,
        )
        for running, seen in ((self.moving_mean, mean), (self.moving_variance, variance)):
            running.assign(running * self.momentum + seen * (1 - self.momentum))
        return images


@gin.register
@dataclass(frozen=True)
class ConvNet(Configured):
    """The hyper-parameters of the network.

    Args:
        filters: of each convolution.
        statistics_momentum: of the running mean and variance; Keras' 0.99 would leave a one-epoch sweep at chance.
        statistics_epsilon: added to the variance.
        bfloat16: compute activations and products in bfloat16; weights, statistics and logits stay float32.
    """

    filters: Count = 32
    statistics_momentum: Annotated[float, at_least(0), below(1)] = 0.9
    statistics_epsilon: Annotated[float, at_least(0)] = 1e-3
    bfloat16: bool = False

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

    def initial_weights(self, image_shape: tuple[int, int, int], classes: int, seed: int) -> tf.Tensor:
        """Glorot-uniform kernels, unit scales, zero offsets: float32 [P]."""
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
        return self._forward(weights, images, classes, statistics)[0]

    def gradient(
        self, weights: tf.Tensor, statistics: tf.Tensor, images: tf.Tensor, labels: tf.Tensor, classes: int
    ) -> Gradient:
        """The gradient of the mean cross-entropy, normalised with the moments of the batch.

        Args:
            weights: [P].
            statistics: [2, 2, filters].
            images: [B, H, W, C], of a static shape.
            labels: int32 [B].
            classes: their number.
        """
        with tf.GradientTape() as tape:
            tape.watch(weights)
            logits, moments = self._forward(weights, images, classes)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        keep = self.statistics_momentum
        return Gradient(loss, tape.gradient(loss, weights), keep * statistics + (1.0 - keep) * moments)

    def _forward(
        self, weights: tf.Tensor, images: tf.Tensor, classes: int, statistics: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Logits [B, classes], and the moments of both layers [2, 2, filters]: given, or those of the batch."""
        dtype = tf.bfloat16 if self.bfloat16 else tf.float32
        shapes = self.shapes(tuple(images.shape[1:]), classes)
        parts = tf.split(weights, [math.prod(shape) for shape in shapes.values()])
        w = {name: tf.reshape(part, shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
        x, seen = tf.cast(images, dtype), []
        for i in (0, 1):
            mean, variance = ((), ()) if statistics is None else tf.unstack(statistics[i])
            x, *moments = tf.raw_ops.FusedBatchNormV3(
                x=tf.nn.conv2d(x, tf.cast(w[f'kernel_{i + 1}'], dtype), 1, 'SAME'),
                scale=w[f'scale_{i + 1}'],
                offset=w[f'offset_{i + 1}'],
                mean=mean,
                variance=variance,
                epsilon=self.statistics_epsilon,
                is_training=statistics is None,
            )
            x = tf.nn.relu(x)
            seen.append(tf.stack(moments[:2]))
        flat = tf.reshape(x, [-1, w['dense'].shape[1]])
        logits = tf.transpose(tf.matmul(tf.cast(w['dense'], dtype), flat, transpose_b=True))  # faster than flat dense^T
        return tf.cast(logits, tf.float32) + w['bias'], tf.stack(seen)
