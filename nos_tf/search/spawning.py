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
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cloudpickle

_ADVICE = "define its parts in a module of your own, or begin the work under `if __name__ == '__main__':` in a script"


def main_is_guarded() -> bool:
    """Whether what the main module is doing stands under `if __name__ == '__main__':`, and an import leaves it out."""
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


@contextmanager
def without_main(hidden: bool = True) -> Iterator[None]:
    """Processes that are spawned in here do not import the main module, if it is to be hidden."""
    names = vars(sys.modules['__main__'])
    kept: dict[str, Any] = {name: names[name] for name in ('__spec__', '__file__') if hidden and name in names}
    names.update(dict.fromkeys(kept))
    try:
        yield
    finally:
        names.update(kept)


def pack(value: Any, *, by_value: bool) -> bytes:
    """What `unpack` makes the value of again, in another process.

    Args:
        value: anything that pickles.
        by_value: send the classes and functions of the main module along; otherwise that process imports them.

    Raises:
        ValueError: the value cannot be sent.
    """
    try:
        return cloudpickle.dumps(value) if by_value else pickle.dumps(value)
    except Exception as error:  # whatever the objects raise
        raise ValueError(_says(error)) from error


def unpack(packed: bytes) -> Any:
    """The inverse of `pack`.

    Raises:
        ValueError: something that the value is made of is not there.
    """
    try:
        return pickle.loads(packed)
    except Exception as error:
        raise ValueError(_says(error)) from error


def _says(error: Exception) -> str:
    return f'worker processes cannot be told what to train ({type(error).__name__}: {error}): {_ADVICE}'
