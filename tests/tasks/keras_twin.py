"""The child network built of Keras layers, and its weights as the flat vector of ours."""

import keras
import numpy as np


def keras_model(network, shape, classes):
    """The layers of Section 4.2; gives logits."""
    model = keras.Sequential([keras.Input(shape)])
    for _ in range(2):
        model.add(keras.layers.Conv2D(network.filters, 3, padding='same', use_bias=False))
        model.add(keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-3))
        model.add(keras.layers.ReLU())
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(classes))
    return model


def set_weights(model, weights):
    """Gives a model the weights of the flat vector."""
    start = 0
    for variable in model.trainable_variables:
        part = weights[start : start + variable.value.shape.num_elements()]
        variable.assign(_turned(part.reshape(_turned(np.empty(variable.shape)).shape)))
        start += len(part)
    assert start == len(weights)


def flat(tensors):
    """The flat vector of trainable variables, or of their gradients."""
    return np.concatenate([np.ravel(_turned(keras.ops.convert_to_numpy(tensor))) for tensor in tensors])


def set_statistics(model, statistics):
    """Gives a model running statistics [layer, moment, filter]."""
    for variable, value in zip(
        model.non_trainable_variables, np.reshape(statistics, [4, *np.shape(statistics)[2:]]), strict=True
    ):
        variable.assign(value)


def statistics_of(model):
    """[layer, moment, filter] as `ConvNet` keeps them."""
    return np.reshape([variable.numpy() for variable in model.non_trainable_variables], [2, 2, -1])


def _turned(array):
    """The matrix of the classifier is [classes, features] in ours."""
    return array.T if array.ndim == 2 else array
