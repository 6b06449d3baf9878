"""How a command imports the frameworks: without their messages, on TensorFlow, and with one line if it cannot."""

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from nos_tf.cli import streams

FAILED = 2
BACKEND = 'tensorflow'
KERAS_READS = ('config', 'backend')  # modules of Keras, and of TensorFlow's copy of it, that read keras.json


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """For imports: hides what TensorFlow prints, which heeds no log level, and lets Ctrl-C end them without a trace."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    with contextlib.ExitStack() as stack:
        stack.callback(signal.signal, signal.SIGINT, handler)
        kept = os.dup(2)
        stack.callback(os.close, kept)
        null = os.open(os.devnull, os.O_WRONLY)
        stack.callback(os.close, null)
        os.dup2(null, 2)
        stack.callback(os.dup2, kept, 2)
        yield


def choose_backend() -> None:
    """Has Keras use TensorFlow, whatever keras.json says; ends the process if KERAS_BACKEND names another backend."""
    asked = os.environ.get('KERAS_BACKEND') or BACKEND
    if asked != BACKEND:
        streams.leave(
            f'error: KERAS_BACKEND={asked}: this command runs on {BACKEND} alone: unset KERAS_BACKEND', FAILED
        )
    os.environ['KERAS_BACKEND'] = BACKEND


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Adds to an error of Keras' import the name of its configuration file, which that import reads."""
    try:
        yield
    except ImportError:
        raise
    except Exception as error:
        raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        if not ('keras' in raised_in.parts and raised_in.stem in KERAS_READS):
            raise
        path = Path(os.environ.get('KERAS_HOME') or Path.home() / '.keras', 'keras.json')
        reason = str(error) or type(error).__name__
        raise ImportError(f'Keras does not accept {path} ({reason}): mend that file, or move it away') from error


def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ends the process with one line if an import has failed: an `excepthook`. NOS_TF_TRACEBACK=1 shows where."""
    if os.environ.get('NOS_TF_TRACEBACK') or not isinstance(error, ImportError):
        sys.__excepthook__(kind, error, trace)
        return
    advice = (
        ': install what requirements.txt lists, as make .venv does' if error.name else ''
    )  # Python's own has a name
    streams.leave(f'error: {" ".join(str(error).split())}{advice}', FAILED)
