"""A configured value as the gin bindings that would make it."""

import dataclasses
from typing import Any


def bindings_of(value: Any) -> dict[str, Any]:
    """The fields of a dataclass by the names of their gin bindings, those of its parts included.

    >>> from nos_tf.tasks.images import Digits
    >>> bindings_of(Digits(noise=0.5))
    {'Digits.noise': 0.5, 'Digits.train_examples': 1000, 'Digits.seed': 0}
    """
    name, bindings = type(value).__name__, {}
    for field in dataclasses.fields(value):
        part = getattr(value, field.name)
        if field.metadata.get('is_later') and part == field.default:
            continue  # so that a run that began before there was such a field goes on
        if dataclasses.is_dataclass(part):
            bindings[f'{name}.{field.name}'] = f'@{type(part).__name__}()'
            bindings.update(bindings_of(part))
        else:
            bindings[f'{name}.{field.name}'] = part
    return bindings
