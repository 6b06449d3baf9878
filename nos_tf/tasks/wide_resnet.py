"""Wide residual networks for small images (Zagoruyko & Komodakis 2016), the larger model of Section 5.2."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import gin
import keras

from nos_tf.config import Configured, Count, at_least, below
from nos_tf.tasks.convnet import FusedBatchNormalization


@gin.register
@dataclass(frozen=True)
class WideResNet(Configured):
    """WRN-`depth`-`width`: three groups of pre-activation blocks, of 16, 32 and 64 times `width` filters.

    Args:
        depth: layers with weights on the longest path, 6n + 4 for n blocks a group.
        width: factor of the filters.
        dropout: rate between the two convolutions of a block.
        statistics_momentum: of the running mean and variance.
        bfloat16: compute in bfloat16; weights, statistics and logits stay float32.
    """

    depth: Count = 28
    width: Count = 10
    dropout: Annotated[float, at_least(0), below(1)] = 0.0
    statistics_momentum: Annotated[float, at_least(0), below(1)] = 0.9
    bfloat16: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth < 10 or (self.depth - 4) % 6:
            raise ValueError(
                f'WideResNet.depth = {self.depth}: must be 6n + 4 for n blocks a group: 10, 16, 22, 28, ...'
            )

    def model(self, image_shape: tuple[int, int, int], classes: int, seed: int) -> keras.Model:
        """A new model that gives logits float32 [B, classes]; the same seed gives the same weights.

        Args:
            image_shape: H, W, C; sides of at least 4.
            classes: their number.
            seed: of initial weights (He-normal by fan-out, as the original) and dropout.
        """
        layers = _Layers(self, seed)
        inputs = keras.Input(image_shape, dtype='float32')
        x = layers.convolution(16)(inputs)
        for group, filters in enumerate((16, 32, 64)):
            for block in range((self.depth - 4) // 6):
                x = self._block(layers, x, filters * self.width, 2 if group and not block else 1)
        x = keras.layers.GlobalAveragePooling2D('channels_last', dtype='float32')(layers.normalised(x))
        limit = keras.initializers.GlorotUniform(next(layers.seeds))
        return keras.Model(inputs, keras.layers.Dense(classes, kernel_initializer=limit, dtype='float32')(x))

    def _block(self, layers: '_Layers', x: Any, filters: int, strides: int) -> Any:
        """Two convolutions of normalised input, added to what came in, projected if its shape changes."""
        normalised = layers.normalised(x)
        changes = strides > 1 or x.shape[-1] != filters
        shortcut = layers.convolution(filters, 1, strides)(normalised) if changes else x
        y = layers.normalised(layers.convolution(filters, 3, strides)(normalised))
        if self.dropout:
            y = keras.layers.Dropout(self.dropout, seed=next(layers.seeds), dtype=layers.policy)(y)
        return keras.layers.Add(dtype=layers.policy)([shortcut, layers.convolution(filters)(y)])


class _Layers:
    """Makes layers, each with a seed of its own."""

    def __init__(self, network: WideResNet, seed: int) -> None:
        self._momentum = network.statistics_momentum
        self.policy = keras.DTypePolicy('mixed_bfloat16' if network.bfloat16 else 'float32')
        self.seeds = itertools.count(1000 * seed)

    def convolution(self, filters: int, size: int = 3, strides: int = 1) -> Callable[[Any], Any]:
        """A convolution without bias, which the normalisation after it would remove."""
        deviation = math.sqrt(2 / (size * size * filters))
        return keras.layers.Conv2D(
            filters,
            size,
            strides,
            padding='same',
            data_format='channels_last',
            use_bias=False,
            kernel_initializer=keras.initializers.RandomNormal(stddev=deviation, seed=next(self.seeds)),
            dtype=self.policy,
        )

    def normalised(self, x: Any) -> Any:
        """Batch normalisation and ReLU."""
        x = FusedBatchNormalization(momentum=self._momentum, epsilon=1e-5, dtype=self.policy)(x)
        return keras.layers.ReLU(dtype=self.policy)(x)
