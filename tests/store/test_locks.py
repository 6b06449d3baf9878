import errno
import os
from types import SimpleNamespace

import pytest

from nos_tf.errors import RunError
from nos_tf.store.locks import file_system, is_local, lock_directory


def test_a_directory_is_locked_until_the_file_is_closed(tmp_path):
    held = lock_directory(tmp_path / 'new' / 'run')
    with pytest.raises(RunError, match='another process is running in'):
        lock_directory(tmp_path / 'new' / 'run')
    held.close()
    lock_directory(tmp_path / 'new' / 'run').close()


def test_what_is_no_directory_cannot_be_locked(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(RunError, match='cannot be a run directory'):
        lock_directory(tmp_path / 'file')


@pytest.mark.parametrize(
    'number, says',
    [
        (
            errno.ENOLCK,
            'is on a file system that cannot lock files (No locks available): choose a --run_dir on a local',
        ),
        (
            errno.ENOSYS,
            'is on a file system that cannot lock files (Function not implemented): choose a --run_dir on a',
        ),
        (
            errno.EOPNOTSUPP,
            'is on a file system that cannot lock files (Operation not supported): choose a --run_dir o',
        ),
        (errno.EDQUOT, 'has no space left (Disk quota exceeded): make room and run the same command again'),
        (errno.EIO, 'cannot be a run directory (Input/output error): choose another run directory'),
        (errno.EWOULDBLOCK, 'another process is running in'),
    ],
)
def test_what_keeps_a_directory_from_being_locked_is_named(tmp_path, monkeypatch, number, says):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr('fcntl.flock', fail)
    with pytest.raises(RunError) as caught:
        lock_directory(tmp_path)
    assert says in str(caught.value) and str(tmp_path) in str(caught.value)


def mount(monkeypatch, *table):
    parts = [SimpleNamespace(mountpoint=str(place), fstype=kind) for place, kind in table]
    monkeypatch.setattr('psutil.disk_partitions', lambda all: parts)


def test_the_file_system_of_a_directory_is_the_innermost_and_the_last(tmp_path, monkeypatch):
    (tmp_path / 'home').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'home')
    mount(monkeypatch, ('/', 'ext4'), (tmp_path / 'home', 'autofs'), (tmp_path / 'home', 'nfs4'), ('/proc', 'proc'))
    assert file_system(tmp_path) == 'ext4' and is_local(tmp_path)
    for directory in ('home', 'home/new/run', 'link/run'):
        assert file_system(tmp_path / directory) == 'nfs4' and not is_local(tmp_path / directory)
    assert file_system(tmp_path / 'homework') == 'ext4'


@pytest.mark.parametrize('kind', ['nfs', 'cifs', 'smb3', 'lustre', 'gpfs', 'fuse.sshfs', '9p', 'ceph', 'virtiofs', ''])
def test_what_is_not_known_to_be_local_is_not(tmp_path, monkeypatch, kind):
    mount(monkeypatch, ('/', kind))
    assert not is_local(tmp_path)


def test_a_machine_that_tells_nothing_of_its_file_systems(tmp_path, monkeypatch):
    def fail(all):
        raise PermissionError(13, 'Permission denied', '/proc/self/mounts')

    monkeypatch.setattr('psutil.disk_partitions', fail)
    assert file_system(tmp_path) == '' and not is_local(tmp_path)
