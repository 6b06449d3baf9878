"""The data of a Keras task: arrays, datasets that are held in memory, and streams; and what tells tasks apart."""

import ast
import hashlib
import inspect
import itertools
import json
import re
import textwrap
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf


class Data(NamedTuple):
    """Tensors of one length each: (x,), (x, y) or (x, y, sample_weight), in whatever structure."""

    train: Any
    validation: Any


def count(examples: Any) -> int:
    """Returns the number of examples."""
    return tf.nest.flatten(examples)[0].shape[0]


def at(examples: Any, indices: Any) -> Any:
    """Returns a minibatch."""
    return tf.nest.map_structure(lambda part: tf.gather(part, indices), examples)


def fingerprint(examples: Any) -> str:
    """Returns a hash of all values."""
    digest = hashlib.sha256()
    for part in tf.nest.flatten(examples):
        digest.update(f'{part.dtype.name} {part.shape}'.encode())
        values = part.numpy()
        digest.update(b'\0'.join(values.ravel().tolist()) if part.dtype == tf.string else np.ascontiguousarray(values))
    return digest.hexdigest()[:16]


def examples(name: str, given: Any, memory: int) -> Any:
    """Returns the data of an argument as tensors.

    Raises:
        ValueError: they do not fit each other, are none, or need too much memory.
    """
    if isinstance(given, tf.data.Dataset):
        given = _held(name, given, memory)
    if not isinstance(given, list | tuple) or not 1 <= len(given) <= 3:
        raise ValueError(
            f'KerasTask.{name}: must be (x, y), (x, y, sample_weight) or a tf.data.Dataset of such batches, and is a '
            f'{type(given).__name__}'
        )
    if any(part is None for part in given[:-1]):
        raise ValueError(f'KerasTask.{name}: has None before the end: give (x,), (x, y) or (x, y, sample_weight)')
    given = tuple(_array(part) for part in given if part is not None)
    try:
        found = tf.nest.map_structure(tf.convert_to_tensor, given)
    except (TypeError, ValueError) as error:
        raise ValueError(f'KerasTask.{name}: must be arrays of numbers or texts ({error})') from error
    lengths = sorted({part.shape[0] if part.shape.rank else 0 for part in tf.nest.flatten(found)})
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            f'KerasTask.{name}: arrays of {lengths} examples: must all have the same number, not 0; a dataset must be '
            'batched'
        )
    return found


def _array(part: Any) -> Any:
    """A list of numbers or texts as an array; a list of arrays is several inputs."""
    is_plain = isinstance(part, list) and not any(hasattr(each, 'shape') or isinstance(each, Mapping) for each in part)
    return np.asarray(part) if is_plain else part


def _held(name: str, dataset: tf.data.Dataset, memory: int) -> Any:
    """All batches of a dataset, joined."""
    batches, size = [], 0
    for batch in dataset:
        size += sum(part.numpy().nbytes for part in tf.nest.flatten(batch))
        if size > memory:
            raise ValueError(
                f'KerasTask.{name}: the dataset takes more than the {memory:,} bytes of KerasTask.memory: allow more, '
                'or take a part of it (does it end?)'
            )
        batches.append(batch)
    if not batches:
        raise ValueError(f'KerasTask.{name}: the dataset is empty')
    try:
        return tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *batches)
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(
            f'KerasTask.{name}: its batches cannot be joined ({error.message}): a dataset must be batched, its '
            'examples of one shape'
        ) from error


def weighed(examples: Any, class_weight: Mapping[int, float] | None) -> Any:
    """Returns the examples with weights that are those of their classes."""
    if class_weight is None:
        return examples
    x, y, weights = keras.utils.unpack_x_y_sample_weight(examples)
    if y is None or tf.nest.is_nested(y):
        raise ValueError('KerasTask.class_weight: needs a single y, of classes')
    classes = tf.argmax(y, -1) if len(y.shape) > 1 and y.shape[-1] > 1 else tf.reshape(y, [-1])
    found = sum(tf.where(classes == tf.cast(c, classes.dtype), w - 1.0, 0.0) for c, w in class_weight.items()) + 1.0
    return x, y, found if weights is None else found * tf.cast(weights, tf.float32)


class Stream:
    """Batches of a function of (seed, epoch), one after the other; whoever asks for an earlier one begins anew."""

    def __init__(self, function: Callable[[int, int], tf.data.Dataset]) -> None:
        self._function, self._lock = function, threading.Lock()
        self.failure: Exception | None = None
        self._at: tuple[int, int] | None = None  # the seed, and the step of the last batch
        self.batch = next(self._epoch(0, 0), None)
        if self.batch is None:
            raise ValueError('KerasTask.train: the dataset of epoch 0 is empty')
        self._shapes = [part.shape for part in tf.nest.flatten(self.batch)]

    def _epoch(self, seed: int, epoch: int) -> Any:
        try:
            dataset = self._function(seed, epoch)
        except Exception as error:  # whatever it raises
            text = f'{type(error).__name__}: {error}'
            raise ValueError(f'KerasTask.train: the function of (seed, epoch) raised {text}') from error
        if not isinstance(dataset, tf.data.Dataset):
            raise ValueError(f'KerasTask.train: the function returned a {type(dataset).__name__}, no tf.data.Dataset')
        return iter(dataset)

    def _all(self, seed: int) -> Any:
        for epoch in itertools.count():
            empty = True
            for batch in self._epoch(seed, epoch):
                empty = False
                yield batch
            if empty:
                raise ValueError(f'KerasTask.train: the dataset of epoch {epoch} is empty')

    def get(self, seed: np.ndarray, step: np.ndarray) -> list[np.ndarray]:
        """Returns the batch of a step."""
        with self._lock:  # a cell of a notebook that was interrupted may still train
            try:
                return self._get(seed, step)
            except Exception as error:  # TensorFlow would bury it
                self.failure = error
                raise

    def _get(self, seed: np.ndarray, step: np.ndarray) -> list[np.ndarray]:
        at = int(seed), int(step)
        if self._at is None or at != (self._at[0], self._at[1] + 1):
            self._batches = itertools.islice(self._all(at[0]), at[1], None)
        self._at, parts = at, tf.nest.flatten(next(self._batches))
        if [part.shape for part in parts] != self._shapes:
            raise ValueError('KerasTask.train: batches of other shapes than the first: drop the remainder')
        return [part.numpy() for part in parts]


def compiled_loss(model: keras.Model) -> Any:
    """Returns the loss that a model came compiled with."""
    return getattr(getattr(model, '_compile_loss', None), '_user_loss', None)


def spelled(value: Any) -> Any:
    """Returns a loss or a metric as JSON."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return {name: spelled(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [spelled(part) for part in value]
    kind = value if inspect.isfunction(value) else type(value)
    code = _code(kind)
    config = _nameless(json.loads(json.dumps(value.get_config(), default=spelled))) if _has_config(value) else None
    return {kind.__qualname__: [part for part in (config, code) if part is not None]}


def _has_config(value: Any) -> bool:
    try:
        value.get_config()
    except Exception:  # one's own may have none
        return False
    return True


def _nameless(config: Any) -> Any:
    """A configuration without names, which Keras counts up from model to model."""
    if isinstance(config, Mapping):
        return {key: _nameless(value) for key, value in config.items() if key != 'name'}
    return list(map(_nameless, config)) if isinstance(config, list | tuple) else config


def _code(function_or_class: Any) -> str | None:
    """A hash of what one's own code does, whatever its comments; None for that of Keras."""
    if (getattr(function_or_class, '__module__', None) or '').split('.')[0] == 'keras':
        return None
    try:
        text = ast.dump(ast.parse(textwrap.dedent(inspect.getsource(function_or_class))))
    except (OSError, TypeError, SyntaxError):  # it was typed into an interpreter, or is a part of a statement
        code: Any = getattr(function_or_class, '__code__', None)
        text = f'{code.co_code.hex()} {code.co_consts} {code.co_names}' if code else function_or_class.__qualname__
        text = re.sub(r' at 0x\w+', '', text)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def describe(model: keras.Model) -> str:
    """Returns a hash of a model: its variables as the seed 0 has them, its layers, how they are joined, own code."""
    variables = [
        (v.path.rpartition('/')[2], tuple(v.shape), v.dtype, v.trainable, f'{_norm(v):.4g}') for v in model.variables
    ]
    layers = list(model._flatten_layers())
    kinds = [(type(layer).__name__, _code(type(layer))) for layer in layers]
    configs = [layer.get_config() for layer in (model, *layers) if _has_config(layer)]
    text = json.dumps([variables, kinds, _nameless(configs)], default=_plain, sort_keys=True)
    for number, part in enumerate((*layers, *getattr(model, 'operations', ()))):  # joints refer to them by name
        text = text.replace(f'"{part.name}"', f'"{number}"')
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _norm(variable: keras.Variable) -> float:
    """The norm of the values; its first digits are those of any processor."""
    values = variable.numpy()
    return float(np.linalg.norm(values.astype(np.float64))) if np.issubdtype(values.dtype, np.number) else 0.0


def _plain(value: Any) -> str:
    """Spells a value that JSON cannot, without its address in memory, which changes from run to run."""
    return _code(value) or value.__name__ if inspect.isfunction(value) else re.sub(r' at 0x\w+', '', str(value))
