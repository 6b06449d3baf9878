"""Notes between a worker's server process and the closures that run in it, on the worker's own machine.

A closure is a graph: no Python runs in it, but it can read and write files. So the server writes what its machine is,
for the coordinator to compare, and a closure writes by when its child must have ended, for the server to watch.
"""

import json
import math
import os
import re
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from nos_tf.errors import RunError
from nos_tf.files import write_text

ROOT = Path('/tmp')  # not tempfile's: a closure cannot ask for TMPDIR
END = ' end'  # of a deadline that is written in full


def folder(address: str) -> Path:
    """Returns the folder with the notes of the server at this address.

    >>> str(folder('127.0.0.1:2222'))
    '/tmp/nos_tf-127.0.0.1:2222'
    """
    return ROOT / f'nos_tf-{re.sub(r"[^A-Za-z0-9.:_-]", "_", address)}'


def identity_path(address: str) -> Path:
    """Returns the path of the file with the identity of the server's machine (`identity_text`)."""
    return folder(address) / 'identity'


def deadline_path(address: str) -> Path:
    """Returns the path of the file with the deadline of the child in training: '<unix seconds> end', or nothing."""
    return folder(address) / 'deadline'


def identity_text(identity: Mapping[str, Any]) -> str:
    """The text of an identity; the same for equal identities."""
    return json.dumps(identity, sort_keys=True)


def write_identity(address: str, identity: Mapping[str, Any]) -> None:
    """Makes the folder, that only this user can enter, and begins it anew: with the identity, without a deadline.

    Raises:
        RunError: the folder cannot be written, or is another's.
    """
    path = folder(address)
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        _own(path)
        deadline_path(address).unlink(missing_ok=True)  # of a server that was killed
        write_text(identity_path(address), identity_text(identity))
    except OSError as error:
        raise RunError(f'a server cannot leave its notes in {path} ({error.strerror}): see to that folder') from error


def _own(path: Path) -> None:
    """Anyone may write into the folder above: nobody may have put something of theirs in this one's place."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise RunError(f'{path} is a symbolic link, and a server would leave its notes there: remove it')
    if status.st_uid != os.getuid():
        raise RunError(f'{path} belongs to another user: remove it, or choose another port')
    path.chmod(0o700)


def read_deadline(address: str) -> float | None:
    """Returns the deadline of the child in Unix seconds; None if there is none, or it is being written."""
    try:
        text = deadline_path(address).read_text(encoding='utf-8')
        deadline = float(text.removesuffix(END)) if text.endswith(END) else math.nan
    except (OSError, ValueError):
        return None
    return deadline if math.isfinite(deadline) else None


def remove(address: str) -> None:
    """Leaves nothing behind."""
    with suppress(OSError):
        shutil.rmtree(folder(address))
