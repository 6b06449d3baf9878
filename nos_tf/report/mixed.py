"""What a reader has to be warned of: results that are not all of one machine."""

from collections.abc import Iterator, Mapping
from typing import Any

from nos_tf.store.database import OTHERS


def warnings(configuration: Mapping[str, Any]) -> Iterator[str]:
    """Sentences about a run.

    Args:
        configuration: what its database says of it, by name.
    """
    if configuration.get('Cluster.allow_mixed'):
        yield (
            'Workers were allowed to differ in their kind of CPU, threads or versions (Cluster.allow_mixed): '
            'the same rule might have earned another reward on another of them.'
        )
    if others := configuration.get(OTHERS):
        begun = {name: configuration.get(name) for other in others for name in other}
        told = ' and '.join(_told(other) for other in others)
        yield (
            f'Begun with {_told(begun)}, this was taken up on another machine, with {told} (--allow_mixed): the same '
            'optimizer might have done otherwise there.'
        )


def _told(values: Mapping[str, Any]) -> str:
    return ', '.join(f'{name} not set' if value is None else f'{name} = {value}' for name, value in values.items())
