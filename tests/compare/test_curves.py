"""Curves of any optimizer on any task: the same training as a child's, and as Keras'."""

import dataclasses

import keras
import numpy as np
import pytest

from nos_tf.compare.curves import Curve, CurveSetup
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.tasks.child import Child, ChildSetup
from tests.tasks.models import make


@pytest.fixture(scope='module')
def task():
    return make('regression', jit_compile=False)


@pytest.fixture(scope='module')
def trainer(task):
    own = {
        'mine': lambda rate: keras.optimizers.SGD(rate),
        'none': lambda rate: 'sgd',
        'raises': lambda rate: 1 / 0,
        'scheduled': lambda rate: keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(rate, 9)),
    }
    steps = task.load().steps
    return CurveSetup(task.of_steps(2 * steps), (steps // 2, steps, 2 * steps), own).trainer()


def of_child(task, rule, rate, seed=3):
    return ChildSetup(Child((rate,)), task, Vocabulary(1)).trainer().train(UpdateRule.parse(rule), seed).reward


def test_a_rule_is_trained_as_a_child_is(task, trainer):
    steps = task.load().steps
    for rule, rate in (('adam', 0.01), ('sgd', 0.1)):
        assert trainer.train(rule, rate, 3, 2 * steps).at(steps) == pytest.approx(of_child(task, rule, rate), rel=1e-5)


def test_a_task_with_a_schedule_and_decay_of_its_own(task):
    own = dataclasses.replace(task, schedule='linear', weight_decay=0.5, warmup_steps=2)
    steps = own.load().steps
    curve = CurveSetup(own, (steps,), {}).trainer().train('sgd', 0.1, 3, steps)
    assert curve.measures[-1] == pytest.approx(of_child(own, 'sgd', 0.1), rel=1e-5)
    plain = CurveSetup(task, (steps,), {}, 'linear').trainer().train('keras.SGD', 0.1, 3, steps)
    scheduled = dataclasses.replace(task, schedule='linear')
    assert plain.measures[-1] == pytest.approx(of_child(scheduled, 'sgd', 0.1), rel=1e-5)


def test_optimizers_of_keras_and_of_ones_own(task, trainer):
    steps = task.load().steps
    sgd, mine, rule = (trainer.train(name, 0.1, 3, steps) for name in ('keras.SGD', 'mine', 'sgd'))
    assert sgd.measures == mine.measures and sgd.measures == pytest.approx(rule.measures, rel=1e-5)
    assert sgd.steps == (steps // 2, steps) and sgd.losses[1] < sgd.losses[0]
    muon, adam = (trainer.train(name, 0.01, 3, steps) for name in ('keras.Muon', 'keras.Adam'))
    assert muon.measures != adam.measures  # it reads the shapes of the weights


def test_a_training_has_the_same_bits_whatever_came_before(trainer):
    first = trainer.train('keras.AdamW', 0.01, 5, 10**6)
    trainer.train('drop10_powersign', 0.01, 5, 40)
    again = trainer.train('keras.AdamW', 0.01, 5, 10**6)
    assert (first.measures, first.losses) == (again.measures, again.losses)
    assert Curve.of_json(first.as_json()) == first


@pytest.mark.parametrize(('most', 'made'), [(2, 2), (1, 3)])
def test_the_last_optimizers_are_kept(task, monkeypatch, most, made):
    asked = []

    def own(name):
        return lambda rate: asked.append(name) or keras.optimizers.SGD(rate)

    monkeypatch.setattr('nos_tf.compare.curves.MOST_KEPT', most)
    trainer = CurveSetup(task, (1,), {name: own(name) for name in 'ab'}).trainer()
    curves = [trainer.train(name, 0.1, 3, 1) for name in 'aba']
    assert len(asked) == made and curves[0].measures == curves[2].measures


def test_one_that_diverges_keeps_what_was_found_then(trainer, task):
    curve = trainer.train('keras.SGD', 1e30, 0, 10**6)
    assert curve.diverged and np.isnan(curve.losses[-1]) and len(set(curve.measures)) == 1
    assert curve.measures[0] == pytest.approx(2 * task.chance)
    assert Curve.of_json(curve.as_json()).diverged


@pytest.mark.parametrize(
    ('name', 'said'),
    [
        ('none', r"^optimizer 'none': returned 'sgd': must be a function of a learning rate"),
        ('raises', r"^optimizer 'raises': raised ZeroDivisionError"),
        ('scheduled', r"^optimizer 'scheduled': has a schedule of its own"),
    ],
)
def test_what_is_no_optimizer_is_said(trainer, name, said):
    with pytest.raises(ValueError, match=said):
        trainer.train(name, 0.1, 0, 4)
