import sqlite3

import pytest

from nos_tf.search import RunError
from nos_tf.search.files import explained, lock_directory, write_whole


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
    'error, says',
    [
        (sqlite3.OperationalError('database or disk is full'), 'no space left to write'),
        (sqlite3.OperationalError('disk I/O error'), 'is the disk full or failing'),
        (sqlite3.OperationalError('database is locked'), 'is locked by another program'),
        (sqlite3.OperationalError('attempt to write a readonly database'), 'see to its permissions'),
        (sqlite3.DatabaseError('file is not a database'), 'is corrupted'),
    ],
)
def test_what_goes_wrong_with_a_store_is_one_line_that_names_the_file(tmp_path, error, says):
    with pytest.raises(RunError) as caught, explained(tmp_path / 'results.sqlite'):
        raise error
    assert says in str(caught.value)
    assert str(tmp_path / 'results.sqlite') in str(caught.value)
    assert '\n' not in str(caught.value)


def test_mistakes_of_ours_are_not_explained_away(tmp_path):
    with pytest.raises(sqlite3.IntegrityError), explained(tmp_path):
        raise sqlite3.IntegrityError('UNIQUE constraint failed')


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / 'summary.json'
    write_whole(path, 'old ε')
    write_text = type(path).write_text

    def half(self, text, **keywords):
        write_text(self, text[: len(text) // 2], **keywords)
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(type(path), 'write_text', half)
    with pytest.raises(OSError, match='No space left'):
        write_whole(path, 'new and longer')
    assert path.read_text(encoding='utf-8') == 'old ε'
