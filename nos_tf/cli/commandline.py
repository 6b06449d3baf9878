"""What every launcher shares: argv -> gin -> one call, and one clear line when that cannot be."""

import argparse
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from nos_tf.cli import loading, streams

streams.keep_numbers()
sys.excepthook = loading.report
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
loading.choose_backend()
with loading.quiet(), loading.explained():
    import tensorflow as _  # noqa: F401

    from nos_tf import output
    from nos_tf.cli.configuration import configure, in_one_place
    from nos_tf.errors import ClusterLostError, RunError
    from nos_tf.evaluation.cluster import heartbeat

__all__ = ['argument_parser', 'bare_parser', 'configure', 'configured_parser', 'main', 'parse_arguments']

INTERRUPTED = 130
GRACE = 10.0  # seconds from an interruption to the end at the latest
_INTERRUPTED_MESSAGE = 'interrupted: what was finished is saved, the same command goes on from there'
FAILED = 2
TRY_AGAIN = 75  # as sysexits.h has it: whoever supervises this process begins it again
MISTAKES = (RunError, OSError, sqlite3.Error)


def bare_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that knows `--help`: a sentence, and an example after an empty line; None is a docstring under -OO."""
    summary, _, example = (description or '').partition('\n\n')
    example = f'Example: {example.strip()}\n\n' if example else ''
    return argparse.ArgumentParser(
        description=summary,
        epilog=f'{example}NOS_TF_TRACEBACK=1 in the environment shows where an error was raised.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with `--run_dir`, for launchers that read what a run left; the others call `parse_arguments`."""
    parser = bare_parser(description)
    parser.add_argument('--run_dir', type=_directory, required=True, metavar='DIR', help='of the run')
    return parser


def configured_parser(description: str | None) -> argparse.ArgumentParser:
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
    description: str | argparse.ArgumentParser | None, argv: Sequence[str] | None = None
) -> argparse.Namespace:
    """Parses the arguments of a launcher that gin configures.

    Args:
        description: as of `configured_parser`, or such a parser.
        argv: the arguments; None for those of the process.
    """
    parser = description if isinstance(description, argparse.ArgumentParser) else configured_parser(description)
    arguments = parser.parse_args(argv)
    if not arguments.gin_files and not arguments.gin_bindings:
        parser.error('no configuration: give --gin_files, such as gin/quickstart.gin or gin/search.gin')
    return arguments


def _directory(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError('is empty')
    return Path(text)


def main(run: Callable[[], None]) -> None:
    """Runs a launcher; turns mistakes and Ctrl-C into one line and an exit code. NOS_TF_TRACEBACK=1 shows more."""
    heartbeat.start()
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not so where it is ignored, as by a shell's &
        signal.signal(signal.SIGINT, _interrupt)
    output.spell_what_streams_lack()
    try:
        try:
            run()
        except SystemExit:  # of argparse, which may have printed its help
            _finish()
            raise
        _finish()
        if os.environ.get('TF_CONFIG'):  # TensorFlow would wait for servers that are just out of reach
            streams.leave('', 0)
    except KeyboardInterrupt:
        streams.leave(_INTERRUPTED_MESSAGE, INTERRUPTED)
    except BrokenPipeError:
        streams.leave('stopped, for nobody reads the output any more: the same command goes on from there', FAILED)
    except MISTAKES as error:
        if os.environ.get('NOS_TF_TRACEBACK'):
            raise
        code = TRY_AGAIN if isinstance(error, ClusterLostError) else FAILED
        streams.leave(f'error: {" ".join(in_one_place(error).split())}', code)


def _finish() -> None:
    """Writes out what was printed; leaves without a word if nobody reads it, for there is nothing to go on with."""
    try:
        output.finish()
    except BrokenPipeError:
        streams.leave('', output.NOBODY_READS)


def _interrupt(*_: object) -> NoReturn:
    """Begins to leave, once: a second Ctrl-C does not disturb what the first one closes, which takes no second.

    The exception is lost if Python is just in a destructor or a callback of a library, hence the timer.
    """
    for interruption in (signal.SIGINT, signal.SIGTERM):
        signal.signal(interruption, signal.SIG_IGN)
    timer = threading.Timer(GRACE, streams.leave, (_INTERRUPTED_MESSAGE, INTERRUPTED))
    timer.daemon = True
    timer.start()
    raise KeyboardInterrupt
