"""The files of a run directory: who may write them, and what is said when that fails."""

import fcntl
import io
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nos_tf.search import RunError


def lock_directory(run_dir: Path) -> io.TextIOWrapper:
    """An open file that keeps other processes out until it is closed, or its process ends."""
    with ExitStack() as stack:
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(run_dir / '.lock', 'w', encoding='utf-8'))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(
                f'another process is running in {run_dir}: wait for it, or choose another --run_dir'
            ) from error
        except OSError as error:
            raise RunError(
                f'{run_dir} cannot be a run directory ({error.strerror}): choose another --run_dir'
            ) from error
        stack.pop_all()  # it is held as long as the store
    return file


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns what goes wrong with a store into one line."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise  # a mistake of ours, not of the file
    except sqlite3.Error as error:
        text = str(error)
        if 'full' in text:
            raise RunError(
                f'no space left to write {path} ({text}): make room and run the same command again'
            ) from error
        if 'disk I/O' in text:
            raise RunError(f'{path} cannot be read or written ({text}): is the disk full or failing?') from error
        if 'locked' in text or 'busy' in text:
            raise RunError(f'{path} is locked by another program ({text}): close that and try again') from error
        if 'readonly' in text or 'unable to open' in text:
            raise RunError(f'{path} cannot be opened or written to ({text}): see to its permissions') from error
        raise RunError(f'{path} is corrupted ({text}): move it away, or restore a copy') from error


def write_whole(path: Path, text: str) -> None:
    """Writes a small file whole or not at all."""
    draft = path.with_suffix('.draft')
    draft.write_text(text, encoding='utf-8')
    draft.replace(path)
