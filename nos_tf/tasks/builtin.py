"""Built-in tasks: small trainings of several kinds, on data that come with Python and scikit-learn.

Each is a function that returns a `KerasTask`, and has a name in gin: `Search.task = @digits_autoencoder()`. A new task
is one more function with the decorator `builtin` and its Args in the docstring, and nothing elsewhere. What is measured
is always minus the validation loss, and validation data are never noised. Steps are multiples of six, so that a sweep
of six epochs is a whole training.
"""

import csv
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import gin
import keras
import numpy as np
from keras import layers, ops

from nos_tf.tasks.data import Digits
from nos_tf.tasks.keras_task import KerasTask
from nos_tf.tasks.suite import Gain, Suite

Build = Callable[[], keras.Model]
Examples = tuple[Any, np.ndarray]  # x and y
Function = TypeVar('Function', bound=Callable[..., KerasTask])

TASKS: dict[str, Callable[..., KerasTask]] = {}
"""The built-in tasks by name, in the order of their definition."""

ALPHABET = string.ascii_lowercase + string.digits + string.punctuation + ' '
SYMBOLS = len(ALPHABET) + 1  # the codes of characters: 0 is any that the alphabet lacks

NUMERALS = (
    'zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen '
    'eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand'
)
PAD, START, END = range(3)  # the codes of words; numerals follow

RULERS = Path(__file__).with_name('rulers.csv')
"""What tuned Adam reaches on the tasks of `suite`, and how much known rules differ (benchmarks/suite_study.py)."""

CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def builtin(function: Function) -> Function:
    """Adds a task to `TASKS` and to gin, by the name of its function."""
    TASKS[function.__name__] = gin.register(function)
    return function


@builtin
def digits_mlp(large: bool = False, noisy: bool = False) -> KerasTask:
    """A perceptron of one hidden layer classifies 8x8 digits.

    It is the cheapest task and gradients carry little noise: it tells rules that work at all from those that do not.

    Args:
        large: two hidden layers of 128 units in place of one of 32, and five times the steps.
        noisy: minibatches of 4 in place of 64, and a fifth of the training labels drawn at random.
    """
    build = partial(_dense, (128, 128, 10) if large else (32, 10))
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
    build = partial(_dense, (*halves, *halves[-2::-1], 64), 'tanh', dropout=0.2 * noisy)
    train, validation = ((x.reshape(-1, 64),) * 2 for x, _ in _digits())
    steps, batch_size = 3000 if large else 600, 4 if noisy else 64
    return KerasTask(build, train, validation, loss='mse', steps=steps, batch_size=batch_size)


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
def number_words(large: bool = False, noisy: bool = False) -> KerasTask:
    """An encoder and a decoder with teacher forcing spell numbers, 7042 as 'seven thousand forty two'.

    There is one right answer, so the loss has no floor but zero, and optimisation is the limit. Gradients carry little
    noise.

    Args:
        large: numbers below a million and 96 units in place of below ten thousand and 24, and five times the steps.
        noisy: minibatches of 4 in place of 32, and a tenth of the words to predict in training drawn at random.
    """
    digits, width, steps = (6, 96, 1500) if large else (4, 24, 300)
    random = _random()
    held_out, numbers = np.split(random.choice(10**digits, 3300, replace=False), [300])
    x, y = _spelled(numbers, digits)
    if noisy:
        y = np.where(y == PAD, PAD, _mislabelled(y, 0.1, range(END, len(_codes())), random))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=PAD)
    build, batch_size = partial(_translator, width), 4 if noisy else 32
    return KerasTask(build, (x, y), _spelled(held_out, digits), loss=loss, steps=steps, batch_size=batch_size)


@builtin
def diabetes(large: bool = False, noisy: bool = False) -> KerasTask:
    """A small network predicts the progress of diabetes from ten measurements in the units they are in.

    Inputs that are not centred and differ in scale make it badly conditioned, as the tables of beginners are. Gradients
    carry some noise, and the measurements tell no more than half of the variance.

    Args:
        large: two hidden layers of 64 units in place of one of 16, and five times the steps.
        noisy: minibatches of 4 in place of 32, and noise of half a standard deviation on the training targets.
    """
    from sklearn.datasets import load_diabetes

    random = _random()
    (x, y), (held_out_x, held_out_y) = _table(load_diabetes(return_X_y=True, scaled=False), 142, random)
    validation = held_out_x, ((held_out_y - y.mean()) / y.std()).astype(np.float32)
    y = (y - y.mean()) / y.std() + 0.5 * noisy * random.standard_normal(len(y))
    build = partial(_dense, (64, 64, 1) if large else (16, 1), 'tanh')
    steps, batch_size = 1500 if large else 300, 4 if noisy else 32
    return KerasTask(build, (x, y.astype(np.float32)), validation, loss='mse', steps=steps, batch_size=batch_size)


@builtin
def wine(large: bool = False, noisy: bool = False) -> KerasTask:
    """A small network tells three cultivars of wine apart by thirteen measurements in the units they are in.

    One measurement is a thousand times the others, and hides them from rules that follow the gradient. Gradients carry
    some noise.

    Args:
        large: two hidden layers of 64 units in place of one of 16, and five times the steps.
        noisy: minibatches of 4 in place of 16, and a fifth of the training labels drawn at random.
    """
    from sklearn.datasets import load_wine

    random = _random()
    (x, y), validation = _table(load_wine(return_X_y=True), 58, random)
    if noisy:
        y = _mislabelled(y, 0.2, range(3), random)
    build = partial(_dense, (64, 64, 3) if large else (16, 3))
    steps, batch_size = 3000 if large else 600, 4 if noisy else 16
    return KerasTask(build, (x, y), validation, loss=CROSSENTROPY, steps=steps, batch_size=batch_size)


@builtin
def ill_conditioned(large: bool = False, noisy: bool = False) -> KerasTask:
    """A linear regression has rotated inputs whose variances span four decades, so its loss is a narrow bowl.

    Optimisation is the limit, and a rule that scales each weight alone cannot undo the rotation. Gradients carry little
    noise, that of minibatches and one of standard deviation 0.1 on the training targets.

    Args:
        large: 256 inputs and five decades in place of 32 and four, and five times the steps.
        noisy: minibatches of 4 in place of 32, and ten times the noise on the training targets.
    """
    size, decades, steps = (256, 5, 6000) if large else (32, 4, 1200)
    random = _random()
    deviations = np.logspace(0, -decades / 2, size)
    rotation, _ = np.linalg.qr(random.standard_normal((size, size)))
    independent = deviations * random.standard_normal((4500, size))
    y = independent @ (random.choice([-1.0, 1.0], size) * deviations**-0.5)  # narrow directions matter less, but do
    y[:4000] += (1.0 if noisy else 0.1) * random.standard_normal(4000)
    x, y = (independent @ rotation).astype(np.float32), y.astype(np.float32)
    train, validation = (x[:4000], y[:4000]), (x[4000:], y[4000:])
    build, batch_size = partial(_dense, (1,)), 4 if noisy else 32
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
    build = partial(_dense, (*((64,) * 20 if large else (16,) * 10), 10), 'tanh')
    return _classify_digits(build, steps=1500 if large else 300, batch_size=4 if noisy else 64, noisy=noisy)


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
    build, batch_size = partial(_bag, count, width, 0.2 * noisy), 8 if noisy else 64
    few = tuple(part[:2000] for part in validation)
    return KerasTask(build, train, few, loss=CROSSENTROPY, steps=steps, batch_size=batch_size)


@gin.register
def suite(hopeless: float = -2.0) -> Suite:
    """Returns four tasks as one reward, the cheap ones first: gains over tuned Adam, whose rulers are frozen.

    A classifier at two sizes, an autoencoder whose gradients carry little noise, and a language model whose gradients
    carry much. Rates are to be looked at finely: the rulers were found with `Child(refine=True)`.

    Args:
        hopeless: as of `Suite`.
    """
    with RULERS.open(encoding='utf-8', newline='') as file:
        rulers = {row['task']: row for row in csv.DictReader(file)}
    return Suite([_gain_of(task, rulers[name]) for name, task in tasks_of_suite().items()], hopeless)


def tasks_of_suite() -> dict[str, KerasTask]:
    """Returns the tasks of `suite` by name."""
    return {
        'digits_mlp': digits_mlp(),
        'digits_autoencoder': digits_autoencoder(),
        'digits_mlp large': digits_mlp(large=True),
        'text_gru noisy': text_gru(noisy=True),
    }


def _gain_of(task: KerasTask, ruler: Mapping[str, str]) -> Gain:
    """Returns the gain on a task by a row of rulers.csv."""
    reference, spread, rate = (float(ruler[name]) for name in ('reference', 'spread', 'learning_rate'))
    return Gain(task, reference, spread, ruler['optimizer'], rate)


def _classify_digits(build: Build, steps: int, batch_size: int, noisy: bool) -> KerasTask:
    (x, y), validation = _digits()
    if noisy:
        y = _mislabelled(y, 0.2, range(10), _random())
    return KerasTask(build, (x, y), validation, loss=CROSSENTROPY, steps=steps, batch_size=batch_size)


def _model_language(build: Build, window: int, steps: int, batch_size: int) -> KerasTask:
    """A model predicts each next character of windows of the text, which do not overlap."""
    size = window + 1
    train, held_out = (part[: len(part) // size * size].reshape(-1, size) for part in _text())
    held_out = held_out[:: len(held_out) // 200]
    known = {bytes(row[:-1]) for row in held_out}
    train = train[[bytes(row[:-1]) not in known for row in train]]  # some phrases are in both texts
    examples, validation = ((part[:, :-1], part[:, 1:]) for part in (train, held_out))
    return KerasTask(build, examples, validation, loss=CROSSENTROPY, steps=steps, batch_size=batch_size)


def _random() -> np.random.Generator:
    """Returns what a task draws its data by, the same numbers each time that it is made."""
    return np.random.Generator(np.random.PCG64(0))


def _mislabelled(y: np.ndarray, share: float, labels: range, random: np.random.Generator) -> np.ndarray:
    """Returns labels of which a share is drawn at random; some of them happen to be right."""
    drawn = random.integers(labels.start, labels.stop, y.shape)
    return np.where(random.random(y.shape) < share, drawn, y).astype(np.int32)


def _digits() -> tuple[Examples, Examples]:
    images = Digits(noise=0.0, train_examples=1200).load()
    train, validation = ((part.images, part.labels) for part in (images.train, images.validation))
    return train, validation


def _table(data: Examples, validation: int, random: np.random.Generator) -> tuple[Examples, Examples]:
    """Returns the rows of a table in two parts; all its columns are divided by one number, their standard deviation."""
    x, y = data
    held_out, train = np.split(random.permutation(len(x)), [validation])
    x = (x / x[train].std()).astype(np.float32)
    return (x[train], y[train]), (x[held_out], y[held_out])


@lru_cache(maxsize=1)
def _paragraphs() -> tuple[list[str], list[str]]:
    """Returns the paragraphs of two texts, of which the second validates; none is in both."""
    from pydoc_data.topics import topics

    split = (' '.join(part.split()).lower() for topic in topics.values() for part in topic.split('\n\n'))
    paragraphs = list(dict.fromkeys(split))  # topics quote each other
    texts: tuple[list[str], list[str]] = [], []
    for paragraph, held_out in zip(paragraphs, _random().random(len(paragraphs)) < 0.1, strict=True):
        texts[int(held_out)].append(paragraph)
    return texts


def _text() -> list[np.ndarray]:
    """Returns the codes of the characters of both texts, int32 [N]."""
    codes = {character: code for code, character in enumerate(ALPHABET, start=1)}
    return [np.array([codes.get(c, 0) for part in text for c in f'{part} '], np.int32) for text in _paragraphs()]


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


def _dense(widths: Sequence[int], activation: str = 'relu', dropout: float = 0.0) -> keras.Model:
    """Dense layers, the last of them linear, after a dropout of the inputs."""
    hidden = [layers.Dense(width, activation) for width in widths[:-1]]
    return keras.Sequential([layers.Flatten(), layers.Dropout(dropout), *hidden, layers.Dense(widths[-1])])


def _convnet(filters: int) -> keras.Model:
    def block(number: int) -> list[keras.Layer]:
        convolution = layers.Conv2D(number, 3, padding='same', use_bias=False)
        normalization = layers.BatchNormalization(momentum=0.9)  # with .99 the averages lag behind in so few steps
        return [convolution, normalization, layers.ReLU(), layers.MaxPooling2D()]

    return keras.Sequential([*block(filters), *block(2 * filters), layers.Flatten(), layers.Dense(10)])


def _recurrent(width: int, dropout: float) -> keras.Model:
    embedding, memory = layers.Embedding(SYMBOLS, width), layers.GRU(width, return_sequences=True)
    return keras.Sequential([embedding, memory, layers.Dropout(dropout), layers.Dense(SYMBOLS)])


def _bag(words: int, width: int, dropout: float) -> keras.Model:
    vectors = [layers.Embedding(words, width), layers.Flatten(), layers.Dropout(dropout)]
    return keras.Sequential([*vectors, layers.Dense(2 * width, 'relu'), layers.Dense(words)])


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


def _translator(width: int) -> keras.Model:
    """A GRU reads the digits, and its state is where the GRU that writes the words begins."""
    digits, words = (keras.Input((None,), dtype='int32', name=name) for name in ('digits', 'words'))
    state = layers.GRU(width)(layers.Embedding(10, width)(digits))
    writer = layers.GRU(width, return_sequences=True)
    hidden = writer(layers.Embedding(len(_codes()), width)(words), initial_state=state)
    return keras.Model({'digits': digits, 'words': words}, layers.Dense(len(_codes()))(hidden))
