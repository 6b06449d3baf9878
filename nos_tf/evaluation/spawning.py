"""How worker processes begin: without the main module, and with what they need of it by value.

A process that is spawned would import the main module again. A script that begins a search outside of
`if __name__ == '__main__':` would begin it again in each worker; one that is read from standard input, `-c` or a
notebook cannot be imported at all.
"""

import dataclasses
import inspect
import pickle
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import cloudpickle

_ADVICE = 'define its parts in a module of your own, at its top level'

_hiding = threading.RLock()


@contextmanager
def without_main() -> Iterator[None]:
    """Hides the main module from processes that are spawned within, so that they do not import it.

    A pool spawns its processes when it is given work (`ProcessPoolExecutor.submit`).
    """
    with _hiding:  # of two threads, the second would take what the first has hidden for what there was
        names = vars(sys.modules['__main__'])
        kept: dict[str, Any] = {name: names[name] for name in ('__spec__', '__file__') if name in names}
        names.update(dict.fromkeys(kept))
        try:
            yield
        finally:
            names.update(kept)


def pack(value: Any) -> bytes:
    """Returns a value as bytes, for `unpack` in another process; with the classes and functions of the main module.

    Raises:
        ValueError: the value cannot be sent.
    """
    try:
        return cloudpickle.dumps(value)
    except Exception as error:  # whatever the objects raise
        raise ValueError(f'{_message(error)}; what cannot be sent is {_culprit(value, "")}') from error


def _culprit(value: Any, name: str) -> str:
    """Returns what of a value cannot be sent, by the names that lead to it."""
    for part_name, part in _parts(value):
        try:
            cloudpickle.dumps(part)
        except Exception:  # whatever the objects raise
            return _culprit(part, f'{name}.{part_name}' if name else part_name)
    return f'{name or "it"}, a {type(value).__name__}'


def _parts(value: Any) -> list[tuple[str, Any]]:
    """Returns what a value consists of, by name."""
    if dataclasses.is_dataclass(value):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    if inspect.isfunction(value):
        used = inspect.getclosurevars(value)
        return [*used.nonlocals.items(), *used.globals.items()]
    if isinstance(value, Mapping):
        return [(str(key), part) for key, part in value.items()]
    if isinstance(value, list | tuple):
        return [(str(index), part) for index, part in enumerate(value)]
    return list(getattr(value, '__dict__', {}).items())


def unpack(packed: bytes) -> Any:
    """Returns the value that was packed.

    Raises:
        ValueError: something that the value is made of is not there.
    """
    try:
        return pickle.loads(packed)
    except Exception as error:
        raise ValueError(_message(error)) from error


def _message(error: Exception) -> str:
    return f'worker processes cannot be told what to train ({type(error).__name__}: {error}): {_ADVICE}'
