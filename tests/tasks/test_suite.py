"""A gain: log of how much lower the loss is than a reference, in units of the spread of known rules."""

import dataclasses
import math
import pickle

import keras
import numpy as np
import pytest

from nos_tf.dsl.primitives import RuleConstants
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.errors import RunError
from nos_tf.tasks.child import Child, ChildSetup
from nos_tf.tasks.keras_task import KerasTask
from nos_tf.tasks.suite import Gain, Suite, of_part
from nos_tf.tasks.sweep import bowls
from nos_tf.tasks.task import Task
from tests.tasks.models import make

ADAM = UpdateRule.parse('adam')


@pytest.fixture(scope='module')
def task():
    return make('regression', jit_compile=False)


def trained(task, rule=ADAM):
    return ChildSetup(Child((1e-3, 1e-2)), task, Vocabulary(1)).trainer().train(rule)


def test_a_gain_is_the_log_of_reference_over_loss_in_units_of_the_spread(task):
    loss = -trained(task).reward
    gain = Gain(task, reference=2 * loss, spread=0.5)
    assert isinstance(gain, Task)
    assert trained(gain).reward == pytest.approx(math.log(2) / 0.5, rel=1e-5)
    assert trained(gain).learning_rate == trained(task).learning_rate
    at_work = gain.load()
    untrained = float(at_work.untrained(at_work.start(0)[1]))
    assert untrained == pytest.approx(math.log(2 * loss / -task.chance) / 0.5, rel=1e-5)
    assert gain.chance == pytest.approx(max(untrained, -3.0), rel=1e-5)
    hard = dataclasses.replace(gain, reference=loss / 1e9)
    far = trained(hard)
    assert far.reward == hard.lowest == hard.chance == -3.0
    fine = ChildSetup(Child((1e-3, 1e-2), refine=True), hard, Vocabulary(1)).trainer().train(ADAM)
    assert len(bowls((1e-3, 1e-2), fine.sweep)[1]) > 4  # it has learned, though its reward is clipped
    assert max(far.sweep) < -40 and far.sweep[0] != far.sweep[1]  # or the best rate could not be told


@pytest.mark.parametrize('loss', ['validation', 'training'])
@pytest.mark.parametrize('over', ['end', 'mean'])
def test_the_reference_against_itself_is_zero_on_every_seed(task, loss, over):
    setting = {'optimizer': 'adam with beta_2=0.9', 'learning_rate': 1e-2}
    gain = Gain(task, reference=1.0, spread=0.1, loss=loss, over=over, **setting)
    child = Child((1e-2,), constants=RuleConstants(beta_2=0.9))
    trainer = ChildSetup(child, gain, Vocabulary(1)).trainer()
    assert [trainer.train(ADAM, seed).reward for seed in (0, 1)] == pytest.approx([0.0, 0.0], abs=1e-5)
    assert trainer.train(UpdateRule.parse('sgd'), 1).reward != 0


def test_what_a_seed_does_to_both_cancels(task):
    paired = Gain(task, reference=0.5, spread=0.1, optimizer='adam', learning_rate=1e-2)
    alone = ChildSetup(Child((1e-2,)), task, Vocabulary(1)).trainer()
    trainer = ChildSetup(Child((1e-2,)), paired, Vocabulary(1)).trainer()
    rule = UpdateRule.parse('sgd')
    for seed in (0, 3):
        ours, theirs = (-alone.train(each, seed).reward for each in (rule, ADAM))
        assert trainer.train(rule, seed).reward == pytest.approx(math.log(theirs / ours) / 0.1, abs=1e-4)


def test_a_gain_may_be_the_mean_over_the_training_or_on_its_own_loss(task):
    losses = {}
    for loss, over in (('validation', 'end'), ('validation', 'mean'), ('training', 'end'), ('training', 'mean')):
        gain = Gain(task, reference=1.0, spread=1.0, lowest=-99.0, loss=loss, over=over)
        losses[loss, over] = math.exp(-ChildSetup(Child((1e-3,)), gain, Vocabulary(1)).trainer().train(ADAM).reward)
    assert losses['validation', 'end'] < losses['validation', 'mean'] < -task.chance  # it learns on the way
    assert losses['training', 'end'] < losses['training', 'mean']


def test_a_gain_is_a_value_and_says_what_it_depends_on(task):
    gain = Gain(task, reference=0.5, spread=0.1)
    there = pickle.loads(pickle.dumps(dataclasses.replace(gain, lowest=-2.0)))
    assert (there.reference, there.spread, there.lowest) == (0.5, 0.1, -2.0)
    own = {
        'Gain.reference': 0.5,
        'Gain.spread': 0.1,
        'Gain.lowest': -3.0,
        'Gain.loss': 'validation',
        'Gain.over': 'end',
    }
    assert gain.identity() == {**task.identity(), **own, 'Gain.optimizer': None, 'Gain.learning_rate': None}
    assert str(gain) == f'the gain over tuned Adam on {task}'
    assert Gain(make('regression')).jit_compile == 'auto'
    assert Gain(make('regression')).compiled(True).task.jit_compile is True


def test_an_open_gain_can_be_tried_but_measures_nothing(task):
    gain = Gain(task)
    assert gain.is_open and not gain.provisional.is_open
    assert gain.provisional.chance == 0.0
    for ask in (lambda: gain.chance, gain.load):
        with pytest.raises(ValueError, match=r'^Gain.reference = None: it is not known yet'):
            ask()


@pytest.mark.parametrize(
    ('given', 'said'),
    [
        ({'reference': 0.0, 'spread': 1.0}, r'^Gain.reference = 0.0: must be None, or a number, above 0$'),
        ({'reference': 1.0, 'spread': -1.0}, r'^Gain.spread = -1.0: must be'),
        ({'reference': 1.0}, r'^Gain.reference = 1.0, spread = None: give both, or none'),
        ({'task': Gain(make('regression'))}, r'^Gain.task: must be a task that measures a loss, and is the gain over'),
        (
            {'reference': 1.0, 'spread': 1.0, 'optimizer': 'adam'},
            r"^Gain.optimizer = 'adam', learning_rate = None: give",
        ),
        ({'optimizer': 'adam', 'learning_rate': 0.1}, '^Gain.optimizer = .* and reference and spread with them'),
        (
            {'reference': 1.0, 'spread': 1.0, 'optimizer': 'keras.Adam', 'learning_rate': 0.1},
            r"^Gain.optimizer = 'keras.Adam': must be a rule",
        ),
        ({'loss': 'test'}, r"^Gain.loss = 'test': choose from validation, training$"),
        ({'over': 'all'}, r"^Gain.over = 'all': choose from end, mean$"),
        ({'lowest': 0.0}, r'^Gain.lowest = 0.0: must be a number, below 0$'),
        ({'task': 'digits_mlp'}, r"^Gain.task = 'digits_mlp': must be a Task"),
    ],
)
def test_what_does_not_fit_is_said(task, given, said):
    with pytest.raises(ValueError, match=said):
        Gain(**{'task': task, **given})


def test_only_a_loss_above_zero_can_be_compared():
    accuracy = make('two inputs', measure='accuracy')
    with pytest.raises(ValueError, match=r"^Gain.task: its measure before training is .*measure='loss'"):
        Gain(accuracy, reference=1.0, spread=1.0).load()


def test_a_loss_that_falls_below_zero_ends_in_one_sentence():
    x = np.ones((16, 1), np.float32)
    task = KerasTask(
        lambda: keras.Sequential([keras.layers.Dense(1, use_bias=False, kernel_initializer='ones')]),
        (x, x), (x, x), loss=lambda y, output: output, epochs=200, batch_size=4, jit_compile=False,
    )  # fmt: skip
    with pytest.raises(RunError, match=r'^Gain.task: its loss has become zero or negative'):
        trained(Gain(task, reference=1.0, spread=1.0), UpdateRule.parse('sign(g)'))


# Suites


@pytest.fixture(scope='module')
def suite(task):
    other = make('two inputs', jit_compile=False)
    return Suite((Gain(task, reference=0.5, spread=0.5), Gain(other, reference=1.0, spread=0.1)), hopeless=-3.0)


def test_a_suite_rewards_by_the_mean_of_its_tasks(suite):
    both = trained(suite)
    alone = [trained(part).reward for part in suite.tasks]
    assert both.sweep == tuple(alone) and both.reward == pytest.approx(sum(alone) / 2)
    assert math.isnan(both.learning_rate)
    assert suite.chance == pytest.approx(sum(part.chance for part in suite.tasks) / 2)


def test_a_rule_that_is_hopeless_on_the_first_task_is_spared_the_others(suite):
    first = trained(suite.tasks[0]).reward
    spared = trained(dataclasses.replace(suite, hopeless=first))
    assert spared.sweep == (first, None) and spared.reward == first


def test_a_suite_is_known_by_its_tasks(suite):
    identity = suite.identity()
    assert (identity['Suite.tasks'], identity['Suite.hopeless']) == (2, -3.0)
    for i, part in enumerate(suite.tasks):
        assert of_part(identity, i) == part.identity()
    assert identity != dataclasses.replace(suite, tasks=suite.tasks[::-1]).identity()


def test_a_suite_says_what_does_not_fit(suite, task):
    with pytest.raises(ValueError, match=r'^Suite.tasks: the one with number 2 is there twice'):
        Suite((task, task))
    with pytest.raises(ValueError, match=r'^Suite.tasks = \(\): must be'):
        Suite(())
    with pytest.raises(ValueError, match='a suite of 2 tasks has no model of its own'):
        suite.load()
