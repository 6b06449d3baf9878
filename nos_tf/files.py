"""Files written whole or not at all; and NumPy's archives (npz), whose damage is told from what cannot be had."""

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np


class DamagedError(ValueError):
    """The bytes of an archive are not what was written."""


@contextlib.contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that takes the place of another one once all is written and on the disk, or never."""
    draft = path.with_name(f'{path.name}.draft')
    try:
        with open(draft, 'wb') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a small file whole or not at all."""
    with whole(path) as file:
        file.write(text.encode())


def save(path: Path, arrays: Mapping[str, np.ndarray], *, compressed: bool = False) -> None:
    """Writes an archive whole or not at all."""
    write = np.savez_compressed if compressed else np.savez
    with whole(path) as file:
        write(file, **arrays)  # type: ignore[arg-type]  # its stubs take each for allow_pickle


def load(file: Path | str | BinaryIO) -> dict[str, np.ndarray]:
    """Returns all arrays of an archive, by name.

    Raises:
        DamagedError: the content is cut off, changed, or of another format.
        OSError: the file is not there, or cannot be read now; nothing is said of its content.
        MemoryError: likewise.
    """
    try:
        with np.load(file) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # of damage, zipfile, zlib, tokenize and NumPy raise a dozen kinds
        out_of_reach = isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)  # as a seek out of bounds
        if out_of_reach or isinstance(error, MemoryError):
            raise
        raise DamagedError(' '.join(f'{type(error).__name__}: {error}'.split())) from error
