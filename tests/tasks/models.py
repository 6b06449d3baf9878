"""Models of every kind that people bring, each with its data, small enough for tests."""

import keras
import numpy as np

from nos_tf.tasks.keras_task import KerasTask

layers = keras.layers
CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
EXAMPLES, HELD_OUT = 160, 50


def regression():
    return keras.Sequential([layers.Dense(16, activation='relu'), layers.Dense(1)])


def two_inputs():
    a, b = keras.Input((4,), name='a'), keras.Input((3,), name='b')
    hidden = layers.Concatenate()([layers.Dense(8)(a), layers.Dense(8)(b)])
    return keras.Model({'a': a, 'b': b}, layers.Dense(3)(layers.ReLU()(hidden)))


def recurrent():
    return keras.Sequential([layers.Embedding(20, 8, mask_zero=True), layers.GRU(8), layers.Dense(20)])


def transformer():
    tokens = keras.Input((6,), dtype='int32')
    x = layers.Embedding(20, 8)(tokens)
    attention = layers.MultiHeadAttention(2, 4, dropout=0.1, use_bias=False)
    x = layers.LayerNormalization()(x + attention(x, x))
    x = layers.LayerNormalization()(x + layers.Dropout(0.1)(layers.Dense(8, activation='gelu')(x)))
    return keras.Model(tokens, layers.Dense(20)(x))


def convolutional():
    return keras.Sequential(
        [
            layers.Conv2D(4, 3, padding='same', use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(5),
        ]
    )


class Subclassed(keras.Model):
    """Adds a loss of its own, and has two outputs by name."""

    def __init__(self):
        super().__init__()
        self.hidden, self.p, self.q = layers.Dense(8, activation='relu'), layers.Dense(1), layers.Dense(2)

    def call(self, x):
        hidden = self.hidden(x)
        self.add_loss(0.01 * keras.ops.mean(hidden**2))
        return {'p': self.p(hidden), 'q': self.q(hidden)}


def _data(kind, count, random):
    normal, whole = random.normal, random.integers
    x = normal(size=(count, 5)).astype(np.float32)
    tokens = whole(0, 20, (count, 6)).astype(np.int32)
    return {
        'regression': lambda: (x, x[:, :1] ** 2),
        'two inputs': lambda: ({'a': x[:, :4], 'b': x[:, 2:]}, whole(0, 3, count)),
        'recurrent': lambda: (tokens, tokens[:, 0]),
        'transformer': lambda: (tokens, tokens),
        'convolutional': lambda: (normal(size=(count, 6, 6, 1)).astype(np.float32), whole(0, 5, count)),
        'subclassed': lambda: (x, {'p': x[:, :1], 'q': whole(0, 2, count)}, np.ones(count, np.float32)),
    }[kind]()


MODELS = {
    'regression': (regression, 'mse'),
    'two inputs': (two_inputs, CROSSENTROPY),
    'recurrent': (recurrent, CROSSENTROPY),
    'transformer': (transformer, CROSSENTROPY),
    'convolutional': (convolutional, CROSSENTROPY),
    'subclassed': (Subclassed, {'p': 'mse', 'q': CROSSENTROPY}),
}


def make(kind, **settings):
    """A task of a kind of model."""
    build, loss = MODELS[kind]
    random = np.random.default_rng(0)
    train, validation = _data(kind, EXAMPLES, random), _data(kind, HELD_OUT, random)
    return KerasTask(build, train, validation, **{'loss': loss, 'epochs': 2, 'batch_size': 16} | settings)
