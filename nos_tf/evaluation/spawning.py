"""How worker processes begin: without the main module, and with what they need of it by value.

A process that is spawned would import the main module again. A script that begins a search outside of
`if __name__ == '__main__':` would begin it again in each worker; one that is read from standard input, `-c` or a
notebook cannot be imported at all.
"""

import pickle
import sys
import threading
from collections.abc import Iterator
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
        raise ValueError(_message(error)) from error


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
