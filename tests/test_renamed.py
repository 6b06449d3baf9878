"""What was written in names of before means the same in those of today: identities on file, and lines of gin."""

import dataclasses
import json

import pytest

from nos_tf.config import differences
from nos_tf.renamed import NAMES, rename_bindings, renamed
from tests.tasks.linear import RECIPE
from tests.tasks.small import SETUP, TASK

OF_CHILD = {
    'Child.images': {'source': 'Digits', 'noise': 0.25, 'train_examples': 400, 'seed': 0},
    'Child.network': {'filters': 4, 'statistics_momentum': 0.9, 'statistics_epsilon': 1e-3, 'bfloat16': False},
    'Child.learning_rates': [0.01, 0.1, 1.0],
    'Child.sweep_epochs': 1,
    'Child.epochs': 3,
    'Child.train_examples': 200,
    'Child.batch_size': 50,
    'Child.rungs': [],
    'Child.constants': dataclasses.asdict(SETUP.child.constants),
    'Child.seed': 0,
    'images': TASK.images.load().fingerprint(),
}
"""As a search of version 0.1 filed SETUP."""

OF_RECIPE = {
    'Recipe.images': {'kind': 'Digits', 'noise': 0.1, 'train_examples': 200, 'seed': 0},
    'Recipe.network': {'kind': 'Linear'},
    'Recipe.batch_size': 30,
    'Recipe.train_examples': None,
    'Recipe.test_examples': None,
    'Recipe.flips': True,
    'Recipe.shift': 1,
    'Recipe.weight_decay': 1e-3,
    'images': RECIPE.images.load().fingerprint(),
}


LATER = ('Child.refine',)  # names that came since


@pytest.mark.parametrize(('before', 'today'), [(OF_CHILD, SETUP), (OF_RECIPE, RECIPE)])
def test_an_identity_of_before_is_that_of_today(before, today):
    known_then = json.loads(json.dumps({k: v for k, v in today.identity().items() if k not in LATER}))
    assert renamed(before) == known_then
    assert differences(renamed(before), today.identity()) == ''


def test_one_of_another_task_differs_by_the_names_of_today():
    other = renamed({**OF_CHILD, 'Child.epochs': 4, 'Child.network': {**OF_CHILD['Child.network'], 'filters': 8}})
    assert differences(other, SETUP.identity()) == (
        'ConvNet.filters is 8 there and 4 here; ImageClassification.epochs is 4 there and 3 here'
    )


def test_names_of_today_and_others_stay():
    for identity in (
        SETUP.identity(),
        RECIPE.identity(),
        {'hostile': {'a': 1}, 'Child.seed': 3, 'list': [{'kind': 1}]},
    ):
        assert renamed(identity) == identity
    assert renamed(renamed(OF_CHILD)) == renamed(OF_CHILD)


def test_every_name_of_today_is_a_field():
    fields = {f'ImageClassification.{field.name}' for field in dataclasses.fields(TASK)}
    assert set(NAMES.values()) == fields
    assert not {name.partition('.')[2] for name in NAMES} & {field.name for field in dataclasses.fields(SETUP.child)}


@pytest.mark.parametrize(
    ('line', 'today'),
    [
        ('Child.epochs = 3', 'ImageClassification.epochs = 3'),
        ('  Child.epochs=3', '  ImageClassification.epochs=3'),
        ('Child.images = @Digits()  # Child.epochs = 3', 'ImageClassification.images = @Digits()  # Child.epochs = 3'),
        ('Child.network = \\\n    @ConvNet()', 'ImageClassification.network = \\\n    @ConvNet()'),
    ],
)
def test_lines_of_before_are_rewritten_and_told(line, today):
    text, found = rename_bindings(f'a = 1\n{line}\nb = 2\n')
    assert text == f'a = 1\n{today}\nb = 2\n'
    assert list(found) == [line.split()[0].partition('=')[0]] and found == {old: NAMES[old] for old in found}


@pytest.mark.parametrize(
    'line',
    [
        'Child.seed = 3',
        'Child.epochs_more = 3',
        'MyChild.epochs = 3',
        '# Child.epochs = 3',
        'x = "Child.epochs = 3"',
        '',
    ],
)
def test_other_lines_stay(line):
    assert rename_bindings(line) == (line, {})
