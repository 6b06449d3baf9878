"""The paper's task (Section 4.2): a small ConvNet that classifies images, and its accuracy on a validation set.

The network is two 3x3 convolutions with batch normalisation and ReLU, and a linear softmax classifier.

All trainable weights are one flat vector, as the interpreter of rules wants them; the running statistics of the batch
normalisation are another. Functions are pure: what training changes is passed in and returned. The normalisation is one
fused operation of TensorFlow; that of Keras, which takes several, costs half as much time again.
"""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, NamedTuple

import gin
import keras
import tensorflow as tf

from nos_tf.config import Configured, Count, at_least, below, bindings_of
from nos_tf.tasks.data import Digits, ImageSource
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


@gin.register
@dataclass(frozen=True)
class ImageClassification(Configured):
    """Images, a ConvNet, and how long it trains on them; the defaults are the paper's, but for the data.

    Args:
        images: the source of the data.
        network: what is trained.
        epochs: of a whole training.
        train_examples: how many of the training images are used, every epoch the same; None for all.
        batch_size: in examples; must divide the number of training examples.
    """

    images: ImageSource = Digits()
    network: ConvNet = ConvNet()
    epochs: Count = 5
    train_examples: Count | None = None
    batch_size: Count = 100

    @property
    def chance(self) -> float:
        """The accuracy of a guess, 1 / classes."""
        return 1 / self.images.load().classes

    def identity(self) -> dict[str, Any]:
        """Returns the bindings, and a hash of the images."""
        return {**bindings_of(self), 'images': self.images.load().fingerprint()}

    def load(self) -> '_Loaded':
        """Returns the task with its images."""
        return _Loaded(self)

    def of_steps(self, steps: int) -> 'ImageClassification':
        """Returns the task with as many epochs as have so many updates."""
        return replace(self, epochs=math.ceil(steps / self.load().steps_per_epoch))

    def __str__(self) -> str:
        count = 'all' if self.train_examples is None else f'{self.train_examples:,}'
        source = {k.partition('.')[2]: v for k, v in bindings_of(self.images).items() if v is not None}
        told = ', '.join(f'{k} = {v}' for k, v in {'source': type(self.images).__name__, **source}.items())
        return (
            f'a ConvNet with {self.network.filters} filters on {count} training images ({told}); '
            'measured is the accuracy on validation images'
        )


class _Examples(NamedTuple):
    images: tf.Tensor
    labels: tf.Tensor


class _Data(NamedTuple):
    train: _Examples
    validation: _Examples


class _Loaded:
    """The task at work."""

    def __init__(self, task: ImageClassification) -> None:
        images = task.images.load()
        self.task, self.network, self.shape = task, task.network, images.shape
        train = images.train.head(task.train_examples)
        count = len(train.labels)
        if count < (task.train_examples or 1):
            raise ValueError(f'ImageClassification.train_examples = {task.train_examples}: {images.name} has {count}')
        if count % task.batch_size:
            raise ValueError(f'ImageClassification.batch_size = {task.batch_size}: must divide {count} examples')
        self.classes, self.steps_per_epoch = images.classes, count // task.batch_size
        self.steps = task.epochs * self.steps_per_epoch
        self.variables = list(task.network.shapes(self.shape, self.classes).items())
        parts = train, images.validation
        self.data = _Data(*(_Examples(tf.constant(part.images), tf.constant(part.labels)) for part in parts))

    def __str__(self) -> str:
        return f'a batch of {self.task.batch_size} images of {"x".join(map(str, self.shape))} on {self.network}'

    def start(self, seed: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns weights, and the running statistics of both normalisations."""
        return self.network.initial_weights(self.shape, self.classes, seed), self.network.initial_statistics()

    def batches(self, seed: tf.Tensor) -> tf.Tensor:
        """Returns the examples of each step, every epoch shuffled anew: int32 [steps, batch]."""
        examples = tf.range(self.steps_per_epoch * self.task.batch_size)
        shuffle = partial(tf.random.experimental.stateless_shuffle, examples)
        shuffled = [shuffle(tf.stack([seed, 1000 + epoch])) for epoch in range(self.task.epochs)]
        return tf.reshape(tf.concat(shuffled, 0), [-1, self.task.batch_size])

    def gradient(
        self, data: _Data, batches: tf.Tensor, step: tf.Tensor, weights: tf.Tensor, state: tf.Tensor
    ) -> Gradient:
        """Returns the gradient of the mean cross-entropy of a minibatch."""
        images, labels = (tf.gather(part, batches[step]) for part in data.train)
        return self.network.gradient(weights, state, images, labels, self.classes)

    def measure(self, data: _Data, weights: tf.Tensor, state: tf.Tensor) -> tf.Tensor:
        """Returns the share of the validation set that is classified rightly."""
        images, labels = data.validation
        batch = self.task.batch_size
        count = labels.shape[0]

        def count_right(start: tf.Tensor, right: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            """Classifies a batch."""
            logits = self.network.logits(weights, state, images[start : start + batch], self.classes)
            hits = tf.argmax(logits, axis=-1, output_type=tf.int32) == labels[start : start + batch]
            return start + batch, right + tf.math.count_nonzero(hits, dtype=tf.int32)

        _, right = tf.while_loop(lambda start, _: start < count, count_right, (0, 0), parallel_iterations=1)
        return tf.cast(right, tf.float32) / count
