"""A built-in task of translation: numbers into words."""

from functools import partial

import keras
import numpy as np
from keras import layers

from nos_tf.tasks.builtin.common import Examples, builtin, fixed_random, mislabelled
from nos_tf.tasks.keras_task import KerasTask

NUMERALS = (
    'zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen '
    'eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand'
)
PAD, START, END = range(3)  # the codes of words; numerals follow


@builtin
def number_words(large: bool = False, noisy: bool = False) -> KerasTask:
    """An encoder and a decoder with teacher forcing spell numbers, 7042 as 'seven thousand forty two'.

    There is one right answer, so the loss has no floor but zero, and optimisation is the limit. Gradients carry little
    noise.

    Args:
        large: numbers below a million and 96 units in place of below ten thousand and 24, and five times the steps.
        noisy: minibatches of 4 in place of 32, and a tenth of the words to predict in training drawn at random.
    """
    digits, width, steps = (6, 96, 1500) if large else (4, 24, 300)
    random = fixed_random()
    held_out, numbers = np.split(random.choice(10**digits, 3300, replace=False), [300])
    x, y = _spelled(numbers, digits)
    if noisy:
        y = np.where(y == PAD, PAD, mislabelled(y, 0.1, range(END, len(_codes())), random))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=PAD)
    build, batch_size = partial(_translator, width), 4 if noisy else 32
    return KerasTask(build, (x, y), _spelled(held_out, digits), loss=loss, steps=steps, batch_size=batch_size)


def _spell(number: int) -> list[str]:
    """Returns the words of a number below a million."""
    for unit, name in ((1000, 'thousand'), (100, 'hundred')):
        if number >= unit:
            return [*_spell(number // unit), name, *(_spell(number % unit) if number % unit else [])]
    numerals = NUMERALS.split()
    if number >= 20:
        return [numerals[18 + number // 10], *(_spell(number % 10) if number % 10 else [])]
    return [numerals[number]]


def _codes() -> dict[str, int]:
    return {word: code for code, word in enumerate(('<pad>', '<start>', '<end>', *NUMERALS.split()))}


def _spelled(numbers: np.ndarray, digits: int) -> Examples:
    """Returns the digits and the words of numbers as codes; the words to predict are one place ahead."""
    codes = _codes()
    x = np.array([list(map(int, f'{number:0{digits}}')) for number in numbers], np.int32)
    words = np.full((len(numbers), 2 * digits), PAD, np.int32)
    for row, number in zip(words, numbers, strict=True):
        spelled = [START, *(codes[word] for word in _spell(int(number))), END]
        row[: len(spelled)] = spelled
    return {'digits': x, 'words': words[:, :-1]}, words[:, 1:]


def _translator(width: int) -> keras.Model:
    """A GRU reads the digits, and its state is where the GRU that writes the words begins."""
    digits, words = (keras.Input((None,), dtype='int32', name=name) for name in ('digits', 'words'))
    state = layers.GRU(width)(layers.Embedding(10, width)(digits))
    writer = layers.GRU(width, return_sequences=True)
    hidden = writer(layers.Embedding(len(_codes()), width)(words), initial_state=state)
    return keras.Model({'digits': digits, 'words': words}, layers.Dense(len(_codes()))(hidden))
