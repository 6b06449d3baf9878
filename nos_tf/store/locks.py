"""The files of a run directory: who may write them, and what is said when that fails."""

import errno
import fcntl
import io
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil

from nos_tf.errors import RunError

LOCAL = frozenset(
    {'apfs', 'bcachefs', 'btrfs', 'ext2', 'ext3', 'ext4', 'f2fs', 'hfs', 'overlay', 'tmpfs', 'xfs', 'zfs'}
)
ON_LOCAL_DISK = 'choose a --run_dir on a local disk (what is here can be copied there)'
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)


def lock_directory(run_dir: Path) -> io.TextIOWrapper:
    """An open file that keeps other processes out until it is closed, or its process ends."""
    with ExitStack() as stack:
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(run_dir / '.lock', 'w', encoding='utf-8'))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(
                f'another process is running in {run_dir}: wait for it, or choose another run directory'
            ) from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                says = 'has no space left', 'make room and run the same command again'
            elif error.errno in _NO_LOCKS:
                says = 'is on a file system that cannot lock files', ON_LOCAL_DISK
            else:
                says = 'cannot be a run directory', 'choose another run directory'
            raise RunError(f'{run_dir} {says[0]} ({error.strerror}): {says[1]}') from error
        stack.pop_all()  # it is held as long as the store
    return file


def file_system(directory: Path) -> str:
    """Returns the type of the file system of a directory, as 'ext4' or 'nfs4'; '' if the machine does not tell.

    Of two that are mounted at one place, the later one is seen.
    """
    with suppress(OSError, NotImplementedError):
        places = [directory.resolve(), *directory.resolve().parents]
        mounted = [part for part in psutil.disk_partitions(all=True) if Path(part.mountpoint) in places]
        if mounted:
            return max(reversed(mounted), key=lambda part: len(part.mountpoint)).fstype
    return ''


def is_local(directory: Path) -> bool:
    """Whether the file system is known to be of this machine alone, with locks and shared memory that work."""
    return file_system(directory).lower() in LOCAL
