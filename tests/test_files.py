"""Files are written whole or not at all; damage is one error, and what keeps a file from being read is another."""

import io
import random

import numpy as np
import pytest

from nos_tf import files

ARRAYS = {'a': np.arange(50.0), 'b': np.array([True]), 'c': np.array('text'), 'd': np.zeros([3, 2], np.float32)}


def equal(one, other):
    return [*one] == [*other] and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize('compressed', [False, True])
def test_what_is_saved_is_loaded(tmp_path, compressed):
    path = tmp_path / 'x.npz'
    files.save(path, ARRAYS, compressed=compressed)
    for source in (path, str(path), io.BytesIO(path.read_bytes())):
        assert equal(files.load(source), ARRAYS)
    assert [*tmp_path.iterdir()] == [path]


def test_an_archive_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / 'x.npz'
    files.save(path, ARRAYS)

    def half(file, **arrays):
        file.write(b'PK')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(np, 'savez', half)
    with pytest.raises(OSError, match='No space left'):
        files.save(path, {'a': np.zeros(3)})
    assert equal(files.load(path), ARRAYS)
    assert list(tmp_path.iterdir()) == [path]


def test_a_text_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / 'summary.json'
    files.write_text(path, 'old ε')

    def full(_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('os.fsync', full)
    with pytest.raises(OSError, match='No space left'):
        files.write_text(path, 'new and longer')
    assert path.read_text(encoding='utf-8') == 'old ε'
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('compressed', [False, True])
def test_whatever_the_damage_it_is_one_error(tmp_path, compressed):
    path = tmp_path / 'x.npz'
    files.save(path, ARRAYS, compressed=compressed)
    content, generator, causes, messages = path.read_bytes(), random.Random(1), set(), []
    for _ in range(1500):
        damaged = bytearray(content)
        if generator.random() < 0.3:
            damaged = damaged[: generator.randrange(len(damaged))]
        else:
            for _ in range(generator.choice([1, 2, 8])):
                damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        path.write_bytes(damaged)
        try:
            files.load(path)  # a change may be of no consequence
        except files.DamagedError as error:
            causes.add(type(error.__cause__))
            messages.append(str(error))
        except MemoryError:  # of a shape that is damaged
            pass
    assert len(causes) >= 4
    assert not any('\n' in message for message in messages)


def test_an_array_alone_and_a_text_are_no_archives(tmp_path):
    for content in (b'', b'no archive' * 100):
        (tmp_path / 'x.npz').write_bytes(content)
        with pytest.raises(files.DamagedError):
            files.load(tmp_path / 'x.npz')
    np.save(tmp_path / 'x.npy', np.zeros(3))
    with pytest.raises(files.DamagedError):
        files.load(tmp_path / 'x.npy')


@pytest.mark.parametrize(
    'path, error', [('no such file', FileNotFoundError), ('.', IsADirectoryError), ('/proc/self/mem', OSError)]
)
def test_a_file_that_cannot_be_read_is_not_called_damaged(tmp_path, path, error):
    with pytest.raises(error):  # a DamagedError is a ValueError
        files.load(tmp_path / path)


def test_too_little_memory_is_not_damage(tmp_path, monkeypatch):
    files.save(tmp_path / 'x.npz', ARRAYS)

    def starve(*_, **__):
        raise MemoryError

    monkeypatch.setattr('numpy.lib.format.read_array', starve)
    monkeypatch.setattr('zipfile.ZipFile.open', starve)
    with pytest.raises(MemoryError):
        files.load(tmp_path / 'x.npz')
