"""Built-in tasks on the 8x8 digits of scikit-learn."""

from functools import partial

import keras
from keras import layers

from nos_tf.tasks.builtin.common import CROSSENTROPY, Build, Examples, builtin, dense, fixed_random, mislabelled
from nos_tf.tasks.data import Digits
from nos_tf.tasks.keras_task import KerasTask


@builtin
def digits_mlp(large: bool = False, noisy: bool = False) -> KerasTask:
    """A perceptron of one hidden layer classifies 8x8 digits.

    It is the cheapest task and gradients carry little noise: it tells rules that work at all from those that do not.

    Args:
        large: two hidden layers of 128 units in place of one of 32, and five times the steps.
        noisy: minibatches of 4 in place of 64, and a fifth of the training labels drawn at random.
    """
    build = partial(dense, (128, 128, 10) if large else (32, 10))
    return _classify_digits(build, steps=600 if large else 120, batch_size=4 if noisy else 64, noisy=noisy)


@builtin
def digits_convnet(large: bool = False, noisy: bool = False) -> KerasTask:
    """A network of two convolutions with batch normalisation classifies 8x8 digits.

    Gradients carry some noise, and the loss does not depend on the scale of the weights before a normalisation, so
    that large steps do less harm than elsewhere.

    Args:
        large: 32 and 64 filters in place of 6 and 12, and five times the steps.
        noisy: minibatches of 8 in place of 32, and a fifth of the training labels drawn at random.
    """
    steps, batch_size = 1200 if large else 240, 8 if noisy else 32
    return _classify_digits(partial(_convnet, 32 if large else 6), steps, batch_size, noisy)


@builtin
def digits_autoencoder(large: bool = False, noisy: bool = False) -> KerasTask:
    """An autoencoder squeezes 8x8 digits through eight tanh units.

    Optimisation is the limit and gradients carry little noise, so rules differ by much.

    Args:
        large: layers of 256, 128, 64 and 16 units in place of 48, 24 and 8, and five times the steps.
        noisy: minibatches of 4 in place of 64, and a fifth of the inputs dropped in training.
    """
    halves = (256, 128, 64, 16) if large else (48, 24, 8)
    build = partial(dense, (*halves, *halves[-2::-1], 64), 'tanh', dropout=0.2 * noisy)
    train, validation = ((x.reshape(-1, 64),) * 2 for x, _ in _digits())
    steps, batch_size = 3000 if large else 600, 4 if noisy else 64
    return KerasTask(build, train, validation, loss='mse', steps=steps, batch_size=batch_size)


@builtin
def deep_tanh(large: bool = False, noisy: bool = False) -> KerasTask:
    """A network of ten narrow tanh layers classifies 8x8 digits.

    Gradients shrink on their way through the layers, which therefore want different learning rates, and what is lost
    by a step that is too large does not come back. They carry little noise.

    Args:
        large: 20 layers of 64 units in place of 10 of 16, and five times the steps.
        noisy: minibatches of 4 in place of 64, and a fifth of the training labels drawn at random.
    """
    build = partial(dense, (*((64,) * 20 if large else (16,) * 10), 10), 'tanh')
    return _classify_digits(build, steps=1500 if large else 300, batch_size=4 if noisy else 64, noisy=noisy)


def _classify_digits(build: Build, steps: int, batch_size: int, noisy: bool) -> KerasTask:
    (x, y), validation = _digits()
    if noisy:
        y = mislabelled(y, 0.2, range(10), fixed_random())
    return KerasTask(build, (x, y), validation, loss=CROSSENTROPY, steps=steps, batch_size=batch_size)


def _digits() -> tuple[Examples, Examples]:
    images = Digits(noise=0.0, train_examples=1200).load()
    train, validation = ((part.images, part.labels) for part in (images.train, images.validation))
    return train, validation


def _convnet(filters: int) -> keras.Model:
    def block(number: int) -> list[keras.Layer]:
        convolution = layers.Conv2D(number, 3, padding='same', use_bias=False)
        normalization = layers.BatchNormalization(momentum=0.9)  # with .99 the averages lag behind in so few steps
        return [convolution, normalization, layers.ReLU(), layers.MaxPooling2D()]

    return keras.Sequential([*block(filters), *block(2 * filters), layers.Flatten(), layers.Dense(10)])
