"""How worker processes begin: with the main module if that may be imported, else with what they need of it by value.

A process that is spawned imports the main module again, so that it finds the classes that are defined there. A script
that begins a search outside of `if __name__ == '__main__':` would begin it again in each worker; one that is read from
standard input, `-c` or a notebook cannot be imported at all.
"""

import ast
import pickle
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cloudpickle

_ADVICE = 'define its parts in a module of your own, at its top level'


def main_is_guarded() -> bool:
    """Returns whether the running statement of the main module stands in an `if` that tests `__name__`.

    An import leaves it out then. It is False, too, where that cannot be told.
    """
    names = vars(sys.modules['__main__'])
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None and not (frame.f_globals is names and frame.f_code.co_name == '<module>'):
        frame = frame.f_back
    if frame is None:
        return False
    try:
        statements = ast.parse(Path(frame.f_code.co_filename).read_bytes()).body
    except (OSError, SyntaxError, ValueError):  # it is no file, or has changed
        return False
    return any(
        isinstance(statement, ast.If)
        and '__name__' in ast.unparse(statement.test)
        and statement.lineno <= frame.f_lineno <= (statement.end_lineno or 0)
        for statement in statements
    )


_hiding = threading.RLock()


@contextmanager
def without_main(hidden: bool = True) -> Iterator[None]:
    """Hides the main module from processes that are spawned within, so that they do not import it.

    A pool spawns its processes when it is given work (`ProcessPoolExecutor.submit`).
    """
    if not hidden:
        yield
        return
    with _hiding:  # of two threads, the second would take what the first has hidden for what there was
        names = vars(sys.modules['__main__'])
        kept: dict[str, Any] = {name: names[name] for name in ('__spec__', '__file__') if name in names}
        names.update(dict.fromkeys(kept))
        try:
            yield
        finally:
            names.update(kept)


def pack(value: Any, *, by_value: bool) -> bytes:
    """Returns a value as bytes, for `unpack` in another process.

    Args:
        value: anything that pickles.
        by_value: send the classes and functions of the main module along; otherwise that process imports them, as far
            as they can be imported.

    Raises:
        ValueError: the value cannot be sent.
    """
    try:
        if not by_value:
            with suppress(Exception):  # a lambda, a class within a function: those go by value
                return pickle.dumps(value)
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
