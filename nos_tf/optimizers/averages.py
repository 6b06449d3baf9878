"""The weights that a training would end with, while it goes on: Keras' `fit` puts their averages in their place.

An optimizer with `use_ema` keeps an average of each weight, which `fit` assigns to it after the last epoch. A training
that is judged on its way, and may go on from there, is judged as if it ended, and then goes on with its own weights.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import keras
from keras import ops


@contextmanager
def finalised(optimizer: keras.optimizers.Optimizer, weights: Sequence[keras.Variable]) -> Iterator[None]:
    """Replaces weights by those that Keras' `fit` would end with, and puts back what they were, bit for bit.

    Args:
        optimizer: what trains them, built.
        weights: all that it was built for.
    """
    if not optimizer.use_ema:
        yield
        return
    kept = [ops.copy(weight) for weight in weights]
    try:
        optimizer.finalize_variable_values(weights)
        yield
    finally:
        for weight, value in zip(weights, kept, strict=True):
            weight.assign(value)
