"""A network and a recipe that learn in a moment."""

import dataclasses

import keras

from nos_tf.tasks.images import Digits
from nos_tf.tasks.recipe import Recipe


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
