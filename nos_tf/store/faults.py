"""Translates errors of SQLite into one line that names the fault of a store, and what to do about it.

Only `SQLITE_CORRUPT` and `SQLITE_NOTADB` are damage, and the first of them only if the file still looks damaged when it
is read again: SQLite gives that code also to what a disk or a network failed to deliver. Python 3.10 knows no codes, so
there the text of the error stands for the primary one.
"""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from nos_tf.errors import RunError
from nos_tf.store.locks import ON_LOCAL_DISK, file_system, is_local

# Primary codes, and below them extended ones, as https://sqlite.org/rescode.html has them
ERROR, BUSY, LOCKED, NOMEM, READONLY, IOERR, CORRUPT, FULL = 1, 5, 6, 7, 8, 10, 11, 13
CANTOPEN, PROTOCOL, TOOBIG, NOLFS, NOTADB = 14, 15, 18, 22, 26
PRIMARY = 0xFF

_TEXTS = {
    'database is locked': BUSY,
    'database table is locked': LOCKED,
    'attempt to write a readonly database': READONLY,
    'disk I/O error': IOERR,
    'database disk image is malformed': CORRUPT,
    'malformed database schema': CORRUPT,
    'database or disk is full': FULL,
    'unable to open database file': CANTOPEN,
    'locking protocol': PROTOCOL,
    'string or blob too big': TOOBIG,
    'large file support is disabled': NOLFS,
    'file is not a database': NOTADB,
    'no such table': ERROR,
    'no such column': ERROR,
    'Could not decode to UTF-8': NOTADB,  # of Python, which gives it no code
}

_CORRUPTED = '{path} is corrupted ({text}): move it away, or restore a copy'
_NO_LOCKS = f'the file system of {{path}} cannot lock files, or not share memory ({{text}}): {ON_LOCAL_DISK}'
_HALF_WRITTEN = (
    '{path} was left in the middle of a write ({text}): the command that writes it puts it right, and goes on'
)
_SENTENCES = {
    ERROR: (
        '{path} holds nothing yet, or is a file of another program or version ({text}): wait for its run to begin, or '
        'choose another run directory'
    ),
    **dict.fromkeys((BUSY, LOCKED), '{path} is locked by another program ({text}): close that and try again'),
    NOMEM: 'too little memory to read or write {path} ({text}): make room there and run the same command again',
    READONLY: '{path} cannot be written to ({text}): see to its permissions, and to those of its directory',
    IOERR: '{path} cannot be read or written ({text}): is the disk full or failing, a quota spent, the network down?',
    FULL: 'no space left to write {path} ({text}): make room and run the same command again',
    CANTOPEN: (
        '{path} cannot be opened, or the journal beside it not made ({text}): see to its permissions, to the room for '
        'files on its disk, and to how many a process may open'
    ),
    PROTOCOL: _NO_LOCKS,
    TOOBIG: '{path} cannot hold a value as large as that ({text}): choose a smaller configuration',
    NOLFS: 'the file system of {path} cannot hold a file as large as that ({text}): choose another run directory',
    **dict.fromkeys((CORRUPT, NOTADB), _CORRUPTED),
}
_EXTENDED = {
    # IOERR_UNLOCK, RDLOCK, BLOCKED, CHECKRESERVEDLOCK, LOCK, SHMOPEN, SHMLOCK, SHMMAP
    **dict.fromkeys((2058, 2314, 2826, 3594, 3850, 4618, 5130, 5386), _NO_LOCKS),
    **dict.fromkeys((264, 520, 776, 1288), _HALF_WRITTEN),  # READONLY_RECOVERY, CANTLOCK, ROLLBACK, CANTINIT
    1032: '{path} was moved or deleted while it was in use ({text}): put it back and run the same command again',
}
_OTHER = '{path} cannot be used ({text}): run the same command again'
_CODE_IN_VERDICT = re.compile(r'error code=(\d+)')


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns what goes wrong with a store into one line that says what it is.

    Raises:
        RunError: in place of an error of SQLite that the file, its disk or its file system caused.
    """
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise  # a mistake of ours, not of the file
    except sqlite3.Error as error:
        code, text = _code(error), str(error)
        if code & PRIMARY == ERROR and not text.startswith(('no such table', 'no such column')):
            raise  # so is SQL that SQLite cannot read
        if code & PRIMARY == CORRUPT:
            code = _code_on_second_look(path)
        name = getattr(error, 'sqlite_errorname', None)
        raise _fault(path, code, f'{text}, {name}' if name else text) from error


def check_integrity(db: sqlite3.Connection, path: Path) -> None:
    """Raises RunError if the file is damaged, or cannot be read."""
    verdict = _verdict(db)
    if verdict != 'ok':
        raise _fault(path, _code_in(verdict), verdict)


def _fault(path: Path, code: int, text: str) -> RunError:
    sentence = _EXTENDED.get(code) or _SENTENCES.get(code & PRIMARY, _OTHER)
    line = sentence.format(path=path, text=' '.join(text.split()))
    if ON_LOCAL_DISK not in line and code & PRIMARY in (BUSY, IOERR, CORRUPT, CANTOPEN) and not is_local(path.parent):
        kind = file_system(path.parent) or 'a file system of an unknown kind'
        line = f'{line.removesuffix("?")}; it lies on {kind}, where locks may fail: {ON_LOCAL_DISK}'
    return RunError(line)


def _code(error: sqlite3.Error) -> int:
    """The extended code of an error; the primary one where Python does not know the other; 0 where it is not known."""
    code = getattr(error, 'sqlite_errorcode', None)
    if code is None:
        code = next((code for text, code in _TEXTS.items() if text in str(error)), 0)
    return code


def _code_on_second_look(path: Path) -> int:
    """Returns the code of a second, fresh read: SQLite says CORRUPT where a read failed, too."""
    try:
        with closing(sqlite3.connect(f'{path.absolute().as_uri()}?mode=ro', uri=True)) as db:
            verdict = _verdict(db)
    except sqlite3.Error as error:
        return _code(error)
    return IOERR if verdict == 'ok' else _code_in(verdict)


def _verdict(db: sqlite3.Connection) -> str:
    return db.execute('PRAGMA quick_check(1)').fetchone()[0]


def _code_in(verdict: str) -> int:
    """The error that kept SQLite from looking at a page; CORRUPT if it has seen all, and they are wrong."""
    found = _CODE_IN_VERDICT.search(verdict)
    return int(found[1]) if found else CORRUPT
