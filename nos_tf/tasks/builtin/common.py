"""What the built-in tasks share: their register, and the making of noise and of dense layers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import gin
import keras
import numpy as np
from keras import layers

from nos_tf.tasks.keras_task import KerasTask

Build = Callable[[], keras.Model]
Examples = tuple[Any, np.ndarray]  # x and y
Function = TypeVar('Function', bound=Callable[..., KerasTask])

TASKS: dict[str, Callable[..., KerasTask]] = {}
"""The built-in tasks by name, in the order of their definition."""

FIGURES = Path(__file__).with_name('figures.csv')
"""Their sizes, seconds, and what tuned optimizers reach (benchmarks/builtin_tasks.py)."""

CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def builtin(function: Function) -> Function:
    """Adds a task to `TASKS` and to gin, by the name of its function."""
    TASKS[function.__name__] = gin.register(function)
    return function


def fixed_random() -> np.random.Generator:
    """Returns a generator of random numbers, the same ones each time that a task is made."""
    return np.random.Generator(np.random.PCG64(0))


def mislabelled(y: np.ndarray, share: float, labels: range, random: np.random.Generator) -> np.ndarray:
    """Returns labels of which a share is drawn at random; some of them happen to be right."""
    drawn = random.integers(labels.start, labels.stop, y.shape)
    return np.where(random.random(y.shape) < share, drawn, y).astype(np.int32)


def dense(widths: Sequence[int], activation: str = 'relu', dropout: float = 0.0) -> keras.Model:
    """Dense layers, the last of them linear, after a dropout of the inputs."""
    hidden = [layers.Dense(width, activation) for width in widths[:-1]]
    return keras.Sequential([layers.Flatten(), layers.Dropout(dropout), *hidden, layers.Dense(widths[-1])])
