"""What a run leaves at its end, whole or damaged."""

import json

import pytest

from nos_tf.errors import RunError
from nos_tf.store.summary import read_summary


def test_a_summary_is_read_once_there_is_one(tmp_path):
    assert read_summary(tmp_path, 'launch/search.py', 'children') is None
    (tmp_path / 'summary.json').write_text(json.dumps({'children': 5, 'more': 1}))
    assert read_summary(tmp_path, 'launch/search.py', 'children') == {'children': 5, 'more': 1}


@pytest.mark.parametrize(
    ('content', 'said'),
    [
        (b'{"children": 5', 'is damaged'),
        (b'', 'is damaged'),
        (b'\xff\xfe', 'is damaged'),
        (b'[]', 'is not what launch/search.py leaves, which has children'),
        (b'{"standings": []}', 'is not what launch/search.py leaves, which has children'),
    ],
)
def test_a_damaged_one_is_said_and_what_to_do(tmp_path, content, said):
    (tmp_path / 'summary.json').write_bytes(content)
    with pytest.raises(RunError, match=said) as error:
        read_summary(tmp_path, 'launch/search.py', 'children')
    assert 'run launch/search.py with this --run_dir again' in str(error.value)


def test_a_configuration_of_before_is_read_in_the_names_of_today(tmp_path):
    before = {'Recipe.network': {'kind': 'WideResNet', 'depth': 16}, 'Child.epochs': 3, 'Recipe.epochs': 300}
    (tmp_path / 'summary.json').write_text(json.dumps({'standings': [], 'configuration': before}))
    assert read_summary(tmp_path, 'launch/cifar10.py', 'standings') == {
        'standings': [],
        'configuration': {
            'Recipe.network': '@WideResNet()',
            'WideResNet.depth': 16,
            'ImageClassification.epochs': 3,
            'Recipe.epochs': 300,
        },
    }
