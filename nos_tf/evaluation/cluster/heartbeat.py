"""A sign of life to the process that supervises this one, if there is one: a byte a second through a pipe."""

import os
import threading
from collections.abc import Callable

VARIABLE = 'NOS_TF_HEARTBEAT_FD'  # number of the pipe's end for writing
SECONDS = 1.0


def start(watch: Callable[[], object] | None = None, seconds: float = SECONDS) -> None:
    """Beats in a thread until the process ends; ends the process when its supervisor is gone.

    Args:
        watch: called before each beat, supervised or not; if it raises, the beating ends.
        seconds: between two beats.
    """
    number = os.environ.pop(VARIABLE, '')  # the pipe is of this process, not of those that it begins
    pipe = int(number) if number else None
    if pipe is not None:
        os.set_inheritable(pipe, False)
        os.set_blocking(pipe, False)
    if pipe is not None or watch is not None:
        threading.Thread(target=_beat, args=(pipe, watch, seconds), name='heartbeat', daemon=True).start()


def _beat(pipe: int | None, watch: Callable[[], object] | None, seconds: float) -> None:
    pause = threading.Event()
    while True:
        if watch is not None:
            watch()
        if pipe is not None:
            try:
                os.write(pipe, b'.')
            except BlockingIOError:  # full: the supervisor does not read just now
                pass
            except OSError:
                os._exit(1)
        pause.wait(seconds)
