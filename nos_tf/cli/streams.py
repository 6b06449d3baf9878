"""The standard streams of a process, and how it leaves when there may be nobody at their other end."""

import contextlib
import os
import sys
from typing import NoReturn


def keep_numbers() -> None:
    """Opens the null device as each standard stream that is closed (`>&-`).

    The next file to be opened would get its number, and TensorFlow would write its messages into that file.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)


def leave(message: str, code: int) -> NoReturn:
    """Ends the process at once: there may be a child in training that nobody waits for.

    Args:
        message: a line for standard error; '' for none.
        code: the exit code.
    """
    for stream, text in ((sys.stderr, message and f'{message}\n'), (sys.stdout, '')):
        with contextlib.suppress(OSError, AttributeError):  # closed, full, or nobody reads it
            stream.write(text)
            stream.flush()
    os._exit(code)
