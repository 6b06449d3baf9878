"""Built-in tasks: small trainings of several kinds, on data that come with Python and scikit-learn.

Each is a function that returns a `KerasTask`, and has a name in gin: `Search.task = @digits_autoencoder()`. A new task
is one more function with the decorator `builtin` and its Args in the docstring, and nothing elsewhere. What is measured
is always minus the validation loss, and validation data are never noised. Steps are multiples of six, so that a sweep
of six epochs is a whole training.

`lists` says which of them reward rules in a search, and which choose between rewards, learners and rules.
"""

from nos_tf.tasks.builtin.common import FIGURES, TASKS
from nos_tf.tasks.builtin.digits import deep_tanh, digits_autoencoder, digits_convnet, digits_mlp
from nos_tf.tasks.builtin.lists import (
    decayed,
    frozen_gain,
    ruled_tasks,
    suite,
    suite_tasks,
    validation,
    validation_tasks,
)
from nos_tf.tasks.builtin.number_words import number_words
from nos_tf.tasks.builtin.tables import diabetes, ill_conditioned, wine
from nos_tf.tasks.builtin.text import text_characters, text_gru, text_transformer, text_words

__all__ = [
    'FIGURES',
    'TASKS',
    'decayed',
    'deep_tanh',
    'diabetes',
    'digits_autoencoder',
    'digits_convnet',
    'digits_mlp',
    'frozen_gain',
    'ill_conditioned',
    'number_words',
    'ruled_tasks',
    'suite',
    'suite_tasks',
    'text_characters',
    'text_gru',
    'text_transformer',
    'text_words',
    'validation',
    'validation_tasks',
    'wine',
]
