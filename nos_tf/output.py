"""Printing: streams are given what they can take, and what they cannot take ends no run and shows no traceback."""

import codecs
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TextIO, cast

from rich.console import Console

SPELLINGS = {'±': '+-', '–': '-', '−': '-', '’': "'", '…': '...', '·': '*', '×': 'x', 'ε': 'eps', 'γ': 'gamma'}
"""Characters of ours that an encoding may lack, in ASCII; others are escaped as Python escapes them."""

SPELL = 'nos_tf.spell'  # an error handler, as `open(errors=...)` takes it
UNWRITABLE = 2  # exit code
NOBODY_READS = 141  # exit code: that of a command which SIGPIPE has ended, as shells show it


def _spell(error: UnicodeError) -> tuple[str | bytes, int]:
    """Returns what stands for a character that cannot be encoded, and where encoding goes on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if '\udc80' <= character <= '\udcff':  # a byte of a file name that is no text: that byte
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return SPELLINGS.get(character) or character.encode('ascii', 'backslashreplace').decode(), error.start + 1


codecs.register_error(SPELL, _spell)


_failures: list[OSError] = []  # by which standard output has lost something


class Lenient:
    """A text stream that spells what its encoding lacks, and drops what cannot be written, as on a full disk.

    A `BrokenPipeError` is raised all the same: nobody reads the stream any more.

    Args:
        stream: to write to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes a text; returns its length."""
        with self._dropping():
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = self._stream.encoding
                self._stream.write(text.encode(encoding, SPELL).decode(encoding, 'backslashreplace'))
        return len(text)

    def flush(self) -> None:
        """Writes what was held back."""
        with self._dropping():
            self._stream.flush()

    @contextlib.contextmanager
    def _dropping(self) -> Iterator[None]:
        try:
            yield
        except (BrokenPipeError, UnicodeError):
            raise
        except OSError as error:  # the disk is full
            if self._stream is sys.stdout and not _failures:
                _failures.append(error)
        except ValueError:  # the stream was closed
            pass


class _Console(Console):
    """A console that says so when nobody reads it any more, where Rich would end the process without a word."""

    def on_broken_pipe(self) -> None:
        """Raises again: Rich calls this while it handles a BrokenPipeError."""
        raise


def console(**options: Any) -> Console:
    """Returns a console on standard output that never fails for want of an encoding or of space.

    Args:
        **options: as `rich.console.Console` takes them.
    """
    return _Console(file=cast(TextIO, Lenient(sys.stdout)) if sys.stdout else None, **options)


def say(text: str) -> None:
    """Prints a line to standard output at once.

    Raises:
        BrokenPipeError: nobody reads it any more.
    """
    if sys.stdout:
        print(text, file=cast(TextIO, Lenient(sys.stdout)), flush=True)


def warn(text: str) -> None:
    """Prints a line to standard error at once, if somebody reads it."""
    if sys.stderr:
        with contextlib.suppress(BrokenPipeError):
            print(text, file=cast(TextIO, Lenient(sys.stderr)), flush=True)


def spell_what_streams_lack() -> None:
    """Has `print` to the standard streams of this process spell what their encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, 'reconfigure'):
            stream.reconfigure(errors=SPELL)


def finish() -> None:
    """Writes what standard output holds back.

    Raises:
        BrokenPipeError: nobody reads it any more.
        OSError: it cannot be written, as on a full disk; Python does not try again when it ends.
    """
    if sys.stdout is None or sys.stdout.closed:
        return
    try:
        sys.stdout.flush()
        if _failures:
            raise _failures.pop()
    except OSError as error:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())  # else Python would complain once more, with another exit code
        os.close(null)
        if isinstance(error, BrokenPipeError):
            raise
        raise OSError(error.errno, error.strerror, 'standard output') from error


def command(main: Callable[[], int | None]) -> NoReturn:
    """Runs a command and ends the process, without a word if nobody reads what it prints.

    Args:
        main: prints, and returns the exit code; None is 0.
    """
    spell_what_streams_lack()
    try:
        try:
            code = main() or 0
        except SystemExit:  # of argparse, which may have printed its help
            finish()
            raise
        finish()
    except BrokenPipeError:
        with contextlib.suppress(OSError):
            finish()
        code = NOBODY_READS
    except OSError as error:
        with contextlib.suppress(OSError):
            finish()
        warn(f'error: {error}')
        code = UNWRITABLE
    sys.exit(code)
