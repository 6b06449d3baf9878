"""What every launcher shares: argv -> gin -> one call, and one clear line when that cannot be."""

import argparse
import contextlib
import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import gin


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps off standard error what TensorFlow prints while it is imported, which heeds no log level."""
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
with _quiet():
    import tensorflow as _  # noqa: F401

from nos_tf.search.errors import RunError  # noqa: E402

INTERRUPTED = 130
FAILED = 2
MISTAKES = (RunError, ValueError, OSError, sqlite3.Error)


def parse_arguments(description: str, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """`--gin_files`, `--gin_bindings` and `--run_dir`; the first two may be given several times."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('--gin_files', nargs='+', action='extend', default=[], help='configurations, later ones win')
    parser.add_argument(
        '--gin_bindings', nargs='+', action='extend', default=[], help="overrides, e.g. 'Search.children = 50'"
    )
    parser.add_argument('--run_dir', type=Path, required=True, help='where results go; taken up again if it exists')
    return parser.parse_args(argv)


def configure(arguments: argparse.Namespace) -> None:
    """Parses the configuration.

    Raises:
        ValueError: a file or a name that does not exist, or a syntax error.
    """
    gin.add_config_file_search_path(str(Path(__file__).parents[1]))  # for include 'gin/...'
    try:
        gin.parse_config_files_and_bindings(arguments.gin_files, arguments.gin_bindings)
    except (OSError, SyntaxError, AttributeError, TypeError) as error:
        raise ValueError(f'cannot read the configuration: {error}') from error


def save_configuration(run_dir: Path) -> None:
    """Writes what was used, defaults included, as a file that gin reads."""
    (run_dir / 'config.gin').write_text(gin.operative_config_str(), encoding='utf-8')


def main(run: Callable[[], None]) -> None:
    """Runs a launcher; turns mistakes and Ctrl-C into one line and an exit code. NOS_TF_TRACEBACK=1 shows more."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run()
    except KeyboardInterrupt:
        _leave('interrupted: what was finished is saved, the same command goes on from there', INTERRUPTED)
    except MISTAKES as error:
        if os.environ.get('NOS_TF_TRACEBACK'):
            raise
        _leave(f'error: {" ".join(str(error).split())}', FAILED)


def _leave(message: str, code: int) -> None:
    """Ends the process at once: there may be a child in training that nobody waits for."""
    print(message, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(code)
