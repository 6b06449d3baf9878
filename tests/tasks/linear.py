"""A network and a recipe that learn in a moment."""

import dataclasses

import keras

from nos_tf.tasks.data import Digits
from nos_tf.tasks.training import Recipe


@dataclasses.dataclass(frozen=True)
class Linear:
    """The smallest network that learns."""

    def model(self, image_shape, classes, seed):
        start = keras.initializers.GlorotUniform(seed)
        layers = [
            keras.Input(image_shape),
            keras.layers.Flatten(),
            keras.layers.Dense(classes, kernel_initializer=start),
        ]
        return keras.Sequential(layers)


RECIPE = Recipe(Digits(0.1, 200), Linear(), epochs=4, batch_size=30, flips=True, shift=1, weight_decay=1e-3)

OF_EVERY_OPTIMIZER = (
    'weight_decay=0.5',
    'clipnorm=0.01',
    'clipvalue=0.001',
    'global_clipnorm=0.01',
    'use_ema=1',
    'use_ema=1, ema_momentum=0.5',
    'use_ema=1, ema_overwrite_frequency=3',
    'gradient_accumulation_steps=2',
)
"""Constants that every optimizer of Keras takes: each has its effect in every kind of training."""
