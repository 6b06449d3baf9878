"""Built-in tasks on text: the documentation that every Python carries. Other versions of Python have another."""

import string
from collections import Counter
from functools import lru_cache, partial

import keras
import numpy as np
from keras import layers, ops

from nos_tf.tasks.builtin.common import CROSSENTROPY, Build, builtin, fixed_random
from nos_tf.tasks.keras_task import KerasTask

ALPHABET = string.ascii_lowercase + string.digits + string.punctuation + ' '
SYMBOLS = len(ALPHABET) + 1  # the codes of characters: 0 is any that the alphabet lacks


@builtin
def text_gru(large: bool = False, noisy: bool = False) -> KerasTask:
    """A recurrent language model predicts the characters of Python's documentation.

    Training ends far from convergence and gradients carry some noise: it is fast early progress that counts. The text
    is that of the Python which runs, and other versions have another.

    Args:
        large: 128 units and windows of 48 characters in place of 24 and 16, and five times the steps.
        noisy: minibatches of 4 windows in place of 16, and dropout of a fifth.
    """
    width, window, steps = (128, 48, 1200) if large else (24, 16, 240)
    return _model_language(partial(_recurrent, width, 0.2 * noisy), window, steps, batch_size=4 if noisy else 16)


@builtin
def text_transformer(large: bool = False, noisy: bool = False) -> KerasTask:
    """A language model of two attention blocks predicts the characters of Python's documentation.

    Gradients carry some noise and differ in scale from layer to layer, which adaptive rules make up for. The text is
    that of the Python which runs, and other versions have another.

    Args:
        large: 4 blocks of 64 units and windows of 64 characters in place of 2 of 24 and 16, and five times the steps.
        noisy: minibatches of 4 windows in place of 16, and dropout of a fifth.
    """
    blocks, width, window, steps = (4, 64, 64, 1200) if large else (2, 24, 16, 240)
    build = partial(_transformer, blocks, width, window, 0.2 * noisy)
    return _model_language(build, window, steps, batch_size=4 if noisy else 16)


@builtin
def text_words(large: bool = False, noisy: bool = False) -> KerasTask:
    """A network predicts a word of Python's documentation from the two before it, by a table of vectors.

    Most rows of the table have no gradient in a step, those of rare words hardly ever, and yet a rule with running
    averages moves them. Gradients carry some noise. The text is that of the Python which runs.

    Args:
        large: 3,000 words and vectors of 96 in place of 500 and 16, and five times the steps.
        noisy: minibatches of 8 in place of 64, and dropout of a fifth.
    """
    count, width, steps = (3000, 96, 1500) if large else (500, 16, 300)
    texts = [' '.join(part).split() for part in _paragraphs()]
    common = Counter(texts[0]).most_common(count - 1)
    codes = {word: code for code, (word, _) in enumerate(common, start=1)}  # 0 is any other
    words = (np.array([codes.get(word, 0) for word in text], np.int32) for text in texts)
    train, validation = ((np.stack([w[:-2], w[1:-1]], 1), w[2:]) for w in words)
    build, batch_size = partial(_bag, count, width, 0.2 * noisy, 2 * width), 8 if noisy else 64
    few = tuple(part[:2000] for part in validation)
    return KerasTask(build, train, few, loss=CROSSENTROPY, steps=steps, batch_size=batch_size)


@builtin
def text_characters(large: bool = False, noisy: bool = False) -> KerasTask:
    """A perceptron predicts a character of Python's documentation from the eight before it.

    The cheapest of the language models. Gradients carry some noise, and those of rare characters are rare. The text is
    that of the Python which runs, and other versions have another.

    Args:
        large: 32 characters, vectors of 32 and 256 hidden units in place of 8, 8 and 48, and five times the steps.
        noisy: minibatches of 8 in place of 64, and dropout of a fifth.
    """
    window, width, hidden, steps = (32, 32, 256, 1500) if large else (8, 8, 48, 300)
    texts = (np.lib.stride_tricks.sliding_window_view(text, window + 1) for text in _text())
    train, held_out = (text[:: len(text) // count] for text, count in zip(texts, (50_000, 2000), strict=True))
    train = _apart(train, held_out)
    build, batch_size = partial(_bag, SYMBOLS, width, 0.2 * noisy, hidden), 8 if noisy else 64
    examples, validation = ((part[:, :-1].copy(), part[:, -1].copy()) for part in (train, held_out))
    return KerasTask(build, examples, validation, loss=CROSSENTROPY, steps=steps, batch_size=batch_size)


def _model_language(build: Build, window: int, steps: int, batch_size: int) -> KerasTask:
    """A model predicts each next character of windows of the text, which do not overlap."""
    size = window + 1
    train, held_out = (part[: len(part) // size * size].reshape(-1, size) for part in _text())
    held_out = held_out[:: len(held_out) // 200]
    train = _apart(train, held_out)
    examples, validation = ((part[:, :-1], part[:, 1:]) for part in (train, held_out))
    return KerasTask(build, examples, validation, loss=CROSSENTROPY, steps=steps, batch_size=batch_size)


def _apart(windows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the windows whose inputs are not among those of others, for some phrases are in both texts."""
    known = {bytes(row[:-1]) for row in others}
    return windows[[bytes(row[:-1]) not in known for row in windows]]


@lru_cache(maxsize=1)
def _paragraphs() -> tuple[list[str], list[str]]:
    """Returns the paragraphs of two texts, of which the second validates; none is in both."""
    from pydoc_data.topics import topics

    split = (' '.join(part.split()).lower() for topic in topics.values() for part in topic.split('\n\n'))
    paragraphs = list(dict.fromkeys(split))  # topics quote each other
    texts: tuple[list[str], list[str]] = [], []
    for paragraph, held_out in zip(paragraphs, fixed_random().random(len(paragraphs)) < 0.1, strict=True):
        texts[int(held_out)].append(paragraph)
    return texts


def _text() -> list[np.ndarray]:
    """Returns the codes of the characters of both texts, int32 [N]."""
    codes = {character: code for code, character in enumerate(ALPHABET, start=1)}
    return [np.array([codes.get(c, 0) for part in text for c in f'{part} '], np.int32) for text in _paragraphs()]


def _recurrent(width: int, dropout: float) -> keras.Model:
    embedding, memory = layers.Embedding(SYMBOLS, width), layers.GRU(width, return_sequences=True)
    return keras.Sequential([embedding, memory, layers.Dropout(dropout), layers.Dense(SYMBOLS)])


def _bag(symbols: int, width: int, dropout: float, hidden: int) -> keras.Model:
    vectors = [layers.Embedding(symbols, width), layers.Flatten(), layers.Dropout(dropout)]
    return keras.Sequential([*vectors, layers.Dense(hidden, 'relu'), layers.Dense(symbols)])


def _transformer(blocks: int, width: int, window: int, dropout: float) -> keras.Model:
    """Blocks of two heads, normalised before attention and before the layer of twice the width."""
    characters = keras.Input((window,), dtype='int32')
    places = ops.cumsum(ops.ones_like(characters), -1) - 1
    x = layers.Embedding(SYMBOLS, width)(characters) + layers.Embedding(window, width)(places)
    for _ in range(blocks):
        normal = layers.LayerNormalization()(x)
        attended = layers.MultiHeadAttention(2, width // 2)(normal, normal, use_causal_mask=True)
        x = x + layers.Dropout(dropout)(attended)
        hidden = layers.Dense(2 * width, 'gelu')(layers.LayerNormalization()(x))
        x = x + layers.Dropout(dropout)(layers.Dense(width)(hidden))
    return keras.Model(characters, layers.Dense(SYMBOLS)(layers.LayerNormalization()(x)))
