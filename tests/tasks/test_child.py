"""The procedure of a child as a value: what it refuses, and what its identity holds."""

import dataclasses
import json
import os
import pickle

import keras
import pytest
import tensorflow as tf

from nos_tf.dsl.primitives import RuleConstants
from nos_tf.dsl.rule import UpdateRule
from nos_tf.tasks.child import PAPER_LEARNING_RATES, Child
from nos_tf.tasks.convnet import ConvNet
from nos_tf.tasks.data import Digits, Images, Split, TfdsImages
from tests.tasks.small import CHILD

VALIDATION = 500

parse = UpdateRule.parse


# What cannot be trained


@pytest.mark.parametrize(
    'arguments',
    [
        {'learning_rates': ()},
        {'learning_rates': 'abc'},
        {'learning_rates': (0.1, -1.0)},
        {'learning_rates': (0.0,)},
        {'learning_rates': (float('nan'),)},
        {'learning_rates': (float('inf'),)},
        {'epochs': 0},
        {'sweep_epochs': 0},
        {'sweep_epochs': 6},
        {'epochs': 2.5},
        {'batch_size': 0},
        {'batch_size': None},
        {'train_examples': 0},
        {'train_examples': 10.5},
        {'rungs': ((0.5,),)},
        {'rungs': 3},
        {'rungs': (('a', 2),)},
        {'rungs': (0.5, 2)},
        {'rungs': ((1.0, 2),)},
        {'rungs': ((0.0, 2),)},
        {'rungs': ((0.5, 7),)},
        {'rungs': ((0.5, 0),)},
        {'rungs': ((0.5, 3), (0.25, 2))},
        {'rungs': ((0.25, 3), (0.5, 3))},
    ],
    ids=str,
)
def test_a_procedure_out_of_range_names_its_binding(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=rf'^Child.{name} = .*must'):
        Child(**arguments)


def test_an_unknown_setting_is_refused():
    with pytest.raises(TypeError, match='learning_rate'):
        Child(learning_rate=0.1)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'train_examples': 401}, 'Child.train_examples = 401: digits has 400'),
        ({'batch_size': 60}, 'Child.batch_size = 60: must divide 200 examples'),
        ({'batch_size': 201}, 'Child.batch_size = 201: must divide 200 examples'),
        ({'train_examples': None, 'batch_size': 800}, 'Child.batch_size = 800: must divide 400 examples'),
    ],
    ids=str,
)
def test_data_that_do_not_fit_are_refused_before_anything_trains(arguments, message):
    child = dataclasses.replace(CHILD, **arguments)
    with pytest.raises(ValueError, match=f'^{message}$'):
        child.trainer(1)


def test_missing_data_are_refused_before_anything_trains(tmp_path):
    child = Child(images=TfdsImages('cifar10', data_dir=str(tmp_path / 'none'), download=False))
    with pytest.raises(FileNotFoundError, match='cifar10'):
        child.trainer(1)
    with pytest.raises(FileNotFoundError, match='cifar10'):
        child.identity()


def test_none_trains_on_every_example():
    assert dataclasses.replace(CHILD, train_examples=None).trainer(1).steps_per_epoch == 8
    assert CHILD.trainer(1).steps_per_epoch == 4


# The procedure as a value


def test_the_defaults_are_those_of_section_4_2():
    child = Child()
    assert child.learning_rates == pytest.approx((1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 10), rel=1e-12)
    assert child.learning_rates == PAPER_LEARNING_RATES
    assert (child.sweep_epochs, child.epochs, child.train_examples, child.batch_size) == (1, 5, None, 100)
    assert child.network.filters == 32
    assert child.constants == RuleConstants(0.9, 0.999, 0.999, 1e-8)
    assert TfdsImages().validation_examples == 5000


def test_a_child_is_a_value():
    assert pickle.loads(pickle.dumps(CHILD)) == CHILD
    assert hash(CHILD) == hash(dataclasses.replace(CHILD))
    assert dataclasses.replace(CHILD, learning_rates=[0.01, 0.1, 1.0]) == CHILD


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """The images of CHILD, from a source that has settings of place."""

    data_dir: str
    download: bool = True
    directory: str = 'here'

    def load(self):
        return CHILD.images.load()


def test_identity_is_json_and_holds_all_that_a_reward_depends_on():
    identity = json.loads(json.dumps(CHILD.identity()))
    assert identity == json.loads(json.dumps(dataclasses.replace(CHILD).identity()))
    assert identity['images'] == CHILD.images.load().fingerprint()
    assert identity['Child.images'] == {'source': 'Digits', 'noise': 0.25, 'train_examples': 400, 'seed': 0}
    assert identity['Child.learning_rates'] == [0.01, 0.1, 1.0]
    assert identity['Child.network']['filters'] == 4
    assert identity['Child.constants']['epsilon'] == 1e-8
    assert identity['tensorflow'] == tf.__version__
    assert identity['keras'] == keras.__version__
    assert identity['nos_tf']
    assert identity['processor']
    assert identity['intra_op threads'] >= 1


@pytest.mark.parametrize(
    'change',
    [
        {'images': Digits(noise=0.3, train_examples=400)},
        {'images': Digits(seed=1, train_examples=400)},
        {'network': ConvNet(filters=5)},
        {'network': ConvNet(filters=4, statistics_momentum=0.99)},
        {'learning_rates': (0.1,)},
        {'sweep_epochs': 2},
        {'epochs': 2},
        {'train_examples': 100},
        {'batch_size': 100},
        {'constants': RuleConstants(noise_stddev=0.02)},
        {'seed': 1},
    ],
    ids=str,
)
def test_identity_sees_every_change_of_the_procedure(change):
    assert dataclasses.replace(CHILD, **change).identity() != CHILD.identity()


def test_identity_overlooks_what_changes_no_bit():
    assert dataclasses.replace(CHILD, continue_sweep=False).identity() == CHILD.identity()
    places = [dataclasses.replace(CHILD, images=Elsewhere(*place)) for place in (('a', True), ('b', False, 'there'))]
    assert places[0].identity() == places[1].identity()


def test_identity_sees_other_pixels_behind_the_same_settings(monkeypatch):
    before = CHILD.identity()
    images = CHILD.images.load()
    labels = images.validation.labels.copy()
    labels[0] = (labels[0] + 1) % 10
    other = dataclasses.replace(images, validation=Split(images.validation.images, labels))
    assert isinstance(other, Images)
    monkeypatch.setattr(Digits, 'load', lambda self: other)
    assert {key for key, value in CHILD.identity().items() if value != before[key]} == {'images'}


def test_identity_sees_the_threads_whether_configured_or_of_the_environment(monkeypatch):
    monkeypatch.setattr(tf.config.threading, 'get_intra_op_parallelism_threads', lambda: 3)
    assert CHILD.identity()['intra_op threads'] == 3
    monkeypatch.setattr(tf.config.threading, 'get_intra_op_parallelism_threads', lambda: 0)
    monkeypatch.setenv('TF_NUM_INTRAOP_THREADS', '1')
    assert CHILD.identity()['intra_op threads'] == 1
    monkeypatch.delenv('TF_NUM_INTRAOP_THREADS')
    assert CHILD.identity()['intra_op threads'] == os.cpu_count()


def test_identity_sees_the_kind_of_processor(monkeypatch):
    before = CHILD.identity()
    monkeypatch.setattr('nos_tf.evaluation.machine.processor', lambda: 'another')
    assert CHILD.identity() != before
