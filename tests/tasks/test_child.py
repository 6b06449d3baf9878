"""The procedure of a child as a value: what it refuses, and what its identity holds."""

import dataclasses
import json
import pickle

import pytest

from nos_tf.dsl.primitives import RuleConstants
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.evaluation.machine import is_of_machine
from nos_tf.tasks.child import MERGED, PAPER_LEARNING_RATES, QUARANTINED, REJECTED, TRAINED, Child, ChildSetup, Outcome
from nos_tf.tasks.convnet import ImageClassification
from nos_tf.tasks.data import TfdsImages
from tests.tasks.small import CHILD, SETUP, TASK

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
        {'sweep_epochs': 0},
        {'sweep_epochs': 1.5},
        {'continue_sweep': 1},
        {'refine': 1},
        {'constants': RuleConstants},
        {'seed': -1},
        {'seed': 2**30},
        {'seed': 0.5},
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
    with pytest.raises(ValueError, match=rf'^Child.{name}\b.*must'):
        Child(**arguments)


def test_a_sweep_longer_than_the_training_is_refused_before_anything_trains():
    setup = dataclasses.replace(SETUP, child=dataclasses.replace(CHILD, sweep_epochs=4))
    with pytest.raises(ValueError, match=r'^Child.sweep_epochs = 4: must be at most the 3 epochs of the task$'):
        setup.trainer()


def test_an_unknown_setting_is_refused():
    with pytest.raises(TypeError, match='learning_rate'):
        Child(learning_rate=0.1)


def test_missing_data_are_refused_before_anything_trains(tmp_path):
    task = ImageClassification(images=TfdsImages('cifar10', data_dir=str(tmp_path / 'none'), download=False))
    with pytest.raises(FileNotFoundError, match='cifar10'):
        ChildSetup(CHILD, task).trainer()
    with pytest.raises(FileNotFoundError, match='cifar10'):
        ChildSetup(CHILD, task).identity()


# The procedure as a value


def test_the_defaults_are_those_of_section_4_2():
    child = Child()
    assert child.learning_rates == pytest.approx((1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 10), rel=1e-12)
    assert child.learning_rates == PAPER_LEARNING_RATES
    assert (child.sweep_epochs, child.rungs, child.seed) == (1, (), 0)
    assert child.constants == RuleConstants(0.9, 0.999, 0.999, 1e-8)


def test_a_child_is_a_value():
    assert pickle.loads(pickle.dumps(CHILD)) == CHILD
    assert pickle.loads(pickle.dumps(SETUP)) == SETUP
    assert hash(CHILD) == hash(dataclasses.replace(CHILD))
    assert dataclasses.replace(CHILD, learning_rates=[0.01, 0.1, 1.0]) == CHILD
    assert dataclasses.replace(CHILD, learning_rates=(1, 0.1, 0.01)) == CHILD
    assert Child(rungs=[[0.25, 3]]) == Child(rungs=((0.25, 3),))


def test_identity_is_json_and_holds_all_that_a_reward_depends_on_but_the_machine():
    identity = json.loads(json.dumps(SETUP.identity()))
    assert identity == json.loads(json.dumps(dataclasses.replace(SETUP).identity()))
    assert identity.items() >= json.loads(json.dumps(TASK.identity())).items()
    assert identity['Child.learning_rates'] == [0.01, 0.1, 1.0]
    assert identity['Child.sweep_epochs'] == 1
    assert identity['Child.constants'] == '@RuleConstants()'
    assert identity['RuleConstants.epsilon'] == 1e-8
    assert not any(map(is_of_machine, identity))


@pytest.mark.parametrize(
    'change',
    [
        {'learning_rates': (0.1,)},
        {'sweep_epochs': 2},
        {'rungs': ((0.5, 2),)},
        {'refine': True},
        {'constants': RuleConstants(noise_stddev=0.02)},
        {'seed': 1},
    ],
    ids=str,
)
def test_identity_sees_every_change_of_the_procedure(change):
    changed = dataclasses.replace(SETUP, child=dataclasses.replace(CHILD, **change))
    assert changed.identity() != SETUP.identity()


def test_identity_sees_another_task_and_words_of_later_versions():
    other = dataclasses.replace(TASK, batch_size=100)
    assert dataclasses.replace(SETUP, task=other).identity() != SETUP.identity()
    later = Vocabulary(2, SETUP.vocabulary.words | {'m99'})
    assert dataclasses.replace(SETUP, vocabulary=later).identity() != SETUP.identity()


def test_identity_overlooks_what_changes_no_bit():
    anew = dataclasses.replace(SETUP, child=dataclasses.replace(CHILD, continue_sweep=False))
    deeper = dataclasses.replace(SETUP, vocabulary=Vocabulary(3))
    assert anew.identity() == deeper.identity() == SETUP.identity()


# What becomes of a child


def test_an_outcome_says_how_it_was_come_by():
    assert Outcome(0.5, 0.1, (0.5,), 1.0).origin == TRAINED
    for word in (REJECTED, QUARANTINED, MERGED):
        outcome = Outcome.untrained(0.1, f'{word}because')
        assert (outcome.reward, outcome.sweep, outcome.seconds) == (0.1, (), 0.0)
        assert outcome.learning_rate != outcome.learning_rate
        assert outcome.origin.startswith(word)
