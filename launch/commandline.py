"""What every launcher shares: argv -> gin -> one call, and one clear line when that cannot be."""

import argparse
import contextlib
import difflib
import inspect
import logging
import os
import re
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

import gin

from unread import check_bindings


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """For imports: hides what TensorFlow prints, which heeds no log level, and lets Ctrl-C end them without a trace."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    with contextlib.ExitStack() as stack:
        stack.callback(signal.signal, signal.SIGINT, handler)
        with contextlib.suppress(OSError):  # standard error is closed
            kept = os.dup(2)
            stack.callback(os.close, kept)
            null = os.open(os.devnull, os.O_WRONLY)
            stack.callback(os.close, null)
            os.dup2(null, 2)
            stack.callback(os.dup2, kept, 2)
        yield


os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
with _quiet():
    import tensorflow as _  # noqa: F401

    from nos_tf.search import ClusterLostError, RunError, heartbeat

INTERRUPTED = 130
GRACE = 10.0  # seconds from an interruption to the end at the latest
_INTERRUPTED_MESSAGE = 'interrupted: what was finished is saved, the same command goes on from there'
FAILED = 2
TRY_AGAIN = 75  # as sysexits.h has it: whoever supervises this process begins it again
MISTAKES = (RunError, OSError, sqlite3.Error)
_NO_CONFIGURABLE = re.compile(r"No configurable matching (?:reference )?'@?(?:[^']*/)?([\w.]+)")  # as gin says it
_NO_PARAMETER = re.compile(r"Configurable '([^']+)' doesn't have a parameter named '([^']+)'")
_IN_CALL = re.compile(r"\s*In call to configurable '([^']*)'[^\n]*")  # as gin adds it

Root = TypeVar('Root')


def bare_parser(description: str) -> argparse.ArgumentParser:
    """A parser that knows `--help`: a sentence, and an example after an empty line."""
    summary, _, example = description.partition('\n\n')  # empty under `python -OO`, which drops docstrings
    shown = f'Example: {example.strip()}\n\n' if example else ''
    return argparse.ArgumentParser(
        description=summary,
        epilog=f'{shown}NOS_TF_TRACEBACK=1 in the environment shows where an error was raised.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def argument_parser(description: str) -> argparse.ArgumentParser:
    """A parser with `--run_dir`, for launchers that read what a run left; the others call `parse_arguments`."""
    parser = bare_parser(description)
    parser.add_argument('--run_dir', type=_directory, required=True, metavar='DIR', help='of the run')
    return parser


def configured_parser(description: str) -> argparse.ArgumentParser:
    """A parser with `--gin_files`, `--gin_bindings`, which may be given several times, `--run_dir` and `--allow_mixed`.

    Args:
        description: a sentence, an empty line and an example.
    """
    parser = argument_parser(description)
    parser.usage = '%(prog)s --gin_files FILE ... [--gin_bindings BINDING ...] --run_dir DIR [--allow_mixed]'
    parser.add_argument(
        '--gin_files', nargs='+', action='extend', default=[], metavar='FILE', help='configurations; the later ones win'
    )
    parser.add_argument(
        '--gin_bindings',
        nargs='+',
        action='extend',
        default=[],
        metavar='BINDING',
        help="what is to differ from the files, such as 'Search.children = 50' or \"Search.baselines = ('adam',)\"",
    )
    parser.add_argument(
        '--allow_mixed',
        action='store_true',
        help='go on with a run that began on another kind of CPU or with other versions; its results are then of both',
    )
    return parser


def parse_arguments(
    description: str | argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> argparse.Namespace:
    """What was given to a launcher that gin configures.

    Args:
        description: as of `configured_parser`, or such a parser.
        argv: the arguments; None for those of the process.
    """
    parser = configured_parser(description) if isinstance(description, str) else description
    arguments = parser.parse_args(argv)
    if not arguments.gin_files and not arguments.gin_bindings:
        parser.error('no configuration: give --gin_files, such as gin/quickstart.gin or gin/search.gin')
    return arguments


def _directory(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError('is empty')
    return Path(text)


def configure(arguments: argparse.Namespace, root: Callable[[], Root]) -> Root:
    """Parses the configuration, and makes what it describes.

    Args:
        arguments: of `parse_arguments`.
        root: a gin configurable that is complete by its bindings.

    Raises:
        RunError: a file or a name that does not exist, a syntax error, a missing binding, or an unfit value.
    """
    gin.add_config_file_search_path(str(Path(__file__).parents[1]))  # for 'gin/...' wherever the command is given
    logging.disable(logging.ERROR)  # gin logs each path where a file is not
    try:
        gin.parse_config_files_and_bindings(arguments.gin_files, arguments.gin_bindings)
        made = root()
        check_bindings(arguments.gin_bindings)
        return made
    except SyntaxError as error:
        reason = str(error).splitlines()[-1].strip()
        raise RunError(f'cannot read the configuration: {reason} {error.text or ""}') from error
    except UnicodeError as error:
        raise RunError(f'cannot read the configuration, it is no text: {error}') from error
    except ValueError as error:
        raise RunError(_in_one_place(error) + _suggestion(str(error))) from error
    except (OSError, AttributeError, TypeError, RuntimeError) as error:
        raise RunError(f'cannot use the configuration: {_in_one_place(error)}') from error
    finally:
        logging.disable(logging.NOTSET)


def _suggestion(message: str) -> str:
    """What may have been meant, where gin does not know a name; of the parameters all, if none is like it."""
    registry = gin.config._REGISTRY  # gin has no other list
    if found := _NO_CONFIGURABLE.search(message):
        given = found[1]
        names = [selector.rpartition('.')[2] for selector, _ in registry.items()]
    elif found := _NO_PARAMETER.search(message):
        given = found[2]
        names = list(inspect.signature(registry.get_match(found[1]).wrapped).parameters)
    else:
        return ''
    by_lower_case = {name.lower(): name for name in names}
    if close := difflib.get_close_matches(given.lower(), by_lower_case, 1):
        return f'; did you mean {by_lower_case[close[0]]!r}?'
    return f'; it has {", ".join(names)}' if found.re is _NO_PARAMETER else ''


def _in_one_place(error: Exception) -> str:
    """The message, with no more of what gin adds to it than the name of the configurable, if that is not in it."""
    text, *names = _IN_CALL.split(str(error))
    return text if not names or names[0] in text else f'{text} (in {names[0]})'


def main(run: Callable[[], None]) -> None:
    """Runs a launcher; turns mistakes and Ctrl-C into one line and an exit code. NOS_TF_TRACEBACK=1 shows more."""
    heartbeat.start()
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not so where it is ignored, as by a shell's &
        signal.signal(signal.SIGINT, _interrupt)
    try:
        run()
        if os.environ.get('TF_CONFIG'):  # TensorFlow would wait for servers that are just out of reach
            _leave('', 0)
    except KeyboardInterrupt:
        _leave(_INTERRUPTED_MESSAGE, INTERRUPTED)
    except BrokenPipeError:
        _leave('stopped, for nobody reads the output any more: the same command goes on from there', FAILED)
    except MISTAKES as error:
        if os.environ.get('NOS_TF_TRACEBACK'):
            raise
        code = TRY_AGAIN if isinstance(error, ClusterLostError) else FAILED
        _leave(f'error: {" ".join(_in_one_place(error).split())}', code)


def _interrupt(*_: object) -> NoReturn:
    """Begins to leave, once: a second Ctrl-C does not disturb what the first one closes, which takes no second.

    The exception is lost if Python is just in a destructor or a callback of a library, hence the timer.
    """
    for interruption in (signal.SIGINT, signal.SIGTERM):
        signal.signal(interruption, signal.SIG_IGN)
    timer = threading.Timer(GRACE, _leave, (_INTERRUPTED_MESSAGE, INTERRUPTED))
    timer.daemon = True
    timer.start()
    raise KeyboardInterrupt


def _leave(message: str, code: int) -> NoReturn:
    """Ends the process at once: there may be a child in training that nobody waits for."""
    for stream, text in ((sys.stderr, message and f'{message}\n'), (sys.stdout, '')):
        with contextlib.suppress(OSError, AttributeError):  # closed, or nobody reads it
            stream.write(text)
            stream.flush()
    os._exit(code)
