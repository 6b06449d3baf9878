import json
import stat
from pathlib import Path

import pytest
import tensorflow as tf

from nos_tf.errors import RunError
from nos_tf.evaluation.cluster import notes

ADDRESS = '127.0.0.1:2222'
IDENTITY = {'threads': 1, 'processor': 'Prozessor, ä'}


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(notes, 'ROOT', tmp_path)
    return tmp_path


def test_the_folder_is_named_by_the_address():
    assert notes.folder('host-2:1') != notes.folder('host-2:2')
    assert notes.folder('[fd00::2]:1').name == 'nos_tf-_fd00::2_:1'
    assert '/' not in notes.folder('../a:1').name


def test_the_default_place_is_one_that_a_graph_can_know(monkeypatch):
    monkeypatch.undo()
    assert notes.folder(ADDRESS) == Path('/tmp/nos_tf-127.0.0.1:2222')


def test_a_server_leaves_its_identity_for_nobody_else():
    notes.write_identity(ADDRESS, IDENTITY)
    text = notes.identity_path(ADDRESS).read_text(encoding='utf-8')
    assert text == notes.identity_text(dict(reversed(IDENTITY.items())))
    assert json.loads(text) == IDENTITY
    assert stat.S_IMODE(notes.folder(ADDRESS).stat().st_mode) == 0o700
    assert [path.name for path in notes.folder(ADDRESS).iterdir()] == ['identity']


def test_a_server_that_is_started_again_begins_anew():
    notes.write_identity(ADDRESS, IDENTITY)
    notes.folder(ADDRESS).chmod(0o777)
    notes.deadline_path(ADDRESS).write_text('5 end')
    notes.write_identity(ADDRESS, {'threads': 2})
    assert json.loads(notes.identity_path(ADDRESS).read_text()) == {'threads': 2}
    assert notes.read_deadline(ADDRESS) is None
    assert stat.S_IMODE(notes.folder(ADDRESS).stat().st_mode) == 0o700


@pytest.mark.parametrize(
    'text, deadline',
    [
        ('1700000000.5 end', 1700000000.5),
        ('1700000000 end', 1700000000),
        ('', None),
        ('17000', None),
        ('1700000000.5 en', None),
        (' end', None),
        ('nan end', None),
        ('soon end', None),
        ('\udcff end', None),
    ],
)
def test_only_a_deadline_that_is_written_in_full_counts(text, deadline):
    notes.write_identity(ADDRESS, IDENTITY)
    notes.deadline_path(ADDRESS).write_bytes(text.encode('utf-8', 'surrogateescape'))
    assert notes.read_deadline(ADDRESS) == deadline


def test_no_server_no_deadline():
    assert notes.read_deadline(ADDRESS) is None


def test_a_graph_writes_deadlines_and_reads_the_identity():
    notes.write_identity(ADDRESS, IDENTITY)

    @tf.function
    def closure(seconds):
        text = tf.strings.as_string(tf.constant(1.7e9, tf.float64) + seconds) + notes.END
        tf.io.write_file(str(notes.deadline_path(ADDRESS)), text)
        return tf.io.read_file(str(notes.identity_path(ADDRESS)))

    assert closure(tf.constant(20.0, tf.float64)).numpy().decode() == notes.identity_text(IDENTITY)
    assert notes.read_deadline(ADDRESS) == 1.7e9 + 20


def test_a_link_in_place_of_the_folder_is_refused(root):
    (root / 'elsewhere').mkdir()
    notes.folder(ADDRESS).symlink_to(root / 'elsewhere')
    with pytest.raises(RunError, match='is a symbolic link'):
        notes.write_identity(ADDRESS, IDENTITY)
    assert list((root / 'elsewhere').iterdir()) == []


def test_a_folder_of_another_user_is_refused(monkeypatch):
    notes.folder(ADDRESS).mkdir()
    monkeypatch.setattr('os.getuid', lambda: 987654)
    with pytest.raises(RunError, match='belongs to another user'):
        notes.write_identity(ADDRESS, IDENTITY)


def test_what_cannot_be_written_is_said_in_one_line():
    notes.folder(ADDRESS).write_text('a file')
    with pytest.raises(RunError, match=r'cannot leave its notes in .*nos_tf-127\.0\.0\.1:2222 \(File exists\)'):
        notes.write_identity(ADDRESS, IDENTITY)


def test_nothing_is_left_behind(root):
    notes.write_identity(ADDRESS, IDENTITY)
    notes.remove(ADDRESS)
    notes.remove(ADDRESS)
    assert list(root.iterdir()) == []
