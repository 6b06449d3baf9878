"""A task that is none of images: what the protocol asks for is enough for a child, a race and a search."""

import json
import pickle
import subprocess
import sys
from dataclasses import dataclass, replace

import gin
import numpy as np
import pytest
import tensorflow as tf

from nos_tf.controller.learners import RandomSearch
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.space import SearchSpace
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.errors import RunError
from nos_tf.evaluation.in_process import InProcess
from nos_tf.evaluation.pool import ProcessPool
from nos_tf.search.search import Search
from nos_tf.store.results import read_run
from nos_tf.tasks.child import Child, ChildSetup
from nos_tf.tasks.task import Gradient, Task, check_backend

CURVATURE = (0.5, 1.0, 2.0)
NOISE, LOST = 0.1, 1e6


@gin.register
@dataclass(frozen=True)
class Quadratic:
    """Three weights in a bowl, whose bottom is at 1, 2 and 3; five steps an epoch, of noisy gradients."""

    epochs: int = 4
    chance: float | None = None
    is_bounded: bool = True

    def identity(self):
        return {'Quadratic.epochs': self.epochs}

    def load(self):
        return Bowl(self.epochs, self.is_bounded)

    def __str__(self):
        return 'a bowl'


class Bowl:
    """It at work; the state counts the steps."""

    steps_per_epoch = 5

    def __init__(self, epochs=4, is_bounded=True):
        self.steps, self.is_bounded = 5 * epochs, is_bounded
        self.data = {'bottom': tf.constant([1.0, 2.0, 3.0])}

    def start(self, seed):
        return tf.random.stateless_normal([3], [seed, 0]), {'steps': tf.constant(0)}

    def batches(self, seed):
        return NOISE * tf.random.stateless_normal([self.steps, 3], tf.stack([seed, 1]))

    def gradient(self, data, batches, step, weights, state):
        away = weights - data['bottom']
        gradient = CURVATURE * away + batches[step]
        return Gradient(tf.reduce_sum(CURVATURE * away**2) / 2, gradient, {'steps': state['steps'] + 1})

    def measure(self, data, weights, state):
        away = tf.reduce_sum((weights - data['bottom']) ** 2)
        steps = tf.cast(state['steps'], tf.float32)  # to see that it arrives here
        return 100 * steps - (tf.where(away < LOST, away, LOST) if self.is_bounded else away)


TASK = Quadratic()
CHILD = Child(learning_rates=(0.01, 0.3, 0.6))
parse = UpdateRule.parse


def by_hand(rate, steps, seed=0):
    """Gradient descent in NumPy."""
    bowl, bottom = Bowl(), np.array([1.0, 2.0, 3.0])
    weights, noise = bowl.start(seed)[0].numpy(), bowl.batches(seed).numpy()
    for step in range(steps):
        weights = weights - rate * (CURVATURE * (weights - bottom) + noise[step])
    return 100 * steps - np.sum((weights - bottom) ** 2)


def test_the_protocol_is_all_that_it_needs():
    assert isinstance(TASK, Task)
    assert pickle.loads(pickle.dumps(TASK)) == TASK


@pytest.mark.parametrize('seed', [0, 7])
def test_a_child_is_trained_as_by_hand(seed):
    trainer = ChildSetup(CHILD, TASK, Vocabulary(1)).trainer()
    outcome = trainer.train(parse('sgd'), seed)
    sweep = [by_hand(rate, 5, seed) for rate in CHILD.learning_rates]
    np.testing.assert_allclose(outcome.sweep, sweep, rtol=1e-5)
    assert outcome.learning_rate == CHILD.learning_rates[np.argmax(sweep)] != 0.01
    assert outcome.reward == pytest.approx(by_hand(outcome.learning_rate, 20, seed), rel=1e-6)
    assert trainer.train(parse('g - g'), seed).sweep[0] < outcome.sweep[0]
    assert (trainer.chance, trainer.traces) == (None, 1)


def test_continuing_and_racing_give_the_bits_of_starting_anew():
    whole = ChildSetup(CHILD, TASK, Vocabulary(1)).trainer()
    anew = ChildSetup(replace(CHILD, continue_sweep=False), TASK, Vocabulary(1)).trainer()
    race = ChildSetup(replace(CHILD, rungs=((0.4, 1),)), TASK, Vocabulary(1)).trainer()
    for rule in map(parse, ('sgd', 'adam', 'drop(m, 0.5)', 'g + noise')):
        outcome = whole.train(rule)
        assert outcome[:3] == anew.train(rule)[:3]
        raced = race.train(rule)
        assert [measure is None for measure in raced.sweep].count(True) == 2
        assert set(raced.sweep) - {None} <= set(outcome.sweep)


def test_a_training_that_diverges_is_measured_too():
    trainer = ChildSetup(replace(CHILD, learning_rates=(0.3, 1e30)), TASK, Vocabulary(1)).trainer()
    outcome = trainer.train(parse('sgd'))
    assert outcome.learning_rate == 0.3 and outcome.sweep[0] > 480 and -LOST <= outcome.sweep[1] <= 500 - LOST


@pytest.mark.parametrize('rates', [(1e30,), (0.3, 1e30)])
def test_a_measure_that_is_no_number_is_said_to_be_the_fault_of_the_task(rates):
    task = replace(TASK, is_bounded=False)
    trainer = ChildSetup(replace(CHILD, learning_rates=rates), task, Vocabulary(1)).trainer()
    with pytest.raises(RunError, match='^the task has measured what is no number: its measure must be one whatever'):
        trainer.train(parse('sgd'))


def search_of(evaluator, **values):
    return Search(
        values.pop('task', TASK),
        space=SearchSpace(iterations=1, operands=('g', 'm', 'sign(g)', 'noise', '1')),
        learner=RandomSearch(batch_size=8),
        child=CHILD,
        evaluator=evaluator,
        children=24,
        rescored=2,
        rescore_seeds=2,
        baselines=('sgd',),
        **values,
    )


def test_a_search_finds_rules_in_process(tmp_path):
    summary = search_of(InProcess()).run(tmp_path)
    run = read_run(tmp_path)
    assert len(run.rows) == 24 and run.task == 'a bowl'
    assert json.loads((tmp_path / 'summary.json').read_text())['configuration']['Quadratic.epochs'] == 4
    trainer = ChildSetup(CHILD, TASK, Vocabulary(1)).trainer()
    best = max(run.rows, key=lambda row: row.reward)
    assert trainer.train(UpdateRule(tuple(best.program.split()))).reward == best.reward
    assert 1990 < best.reward < 2000 and len({row.reward for row in run.rows}) > 10
    means = [by_hand(rate, 20, seed) for seed in (1, 2) for rate in CHILD.learning_rates]
    assert summary['baselines']['sgd'] in [pytest.approx((a + b) / 2) for a in means[:3] for b in means[3:]]


def test_a_search_whose_task_measures_no_number_ends_with_one_line(tmp_path):
    search = search_of(InProcess(), task=replace(TASK, is_bounded=False))
    search.child = replace(CHILD, learning_rates=(1e30,))
    with pytest.raises(RunError, match='^the rule .* could not be trained: RunError: the task has measured what'):
        search.run(tmp_path)


@pytest.mark.slow
def test_processes_train_to_the_same_bits(tmp_path):
    search_of(InProcess()).run(tmp_path / 'here')
    search_of(ProcessPool(2)).run(tmp_path / 'there')
    here, there = ([row[:7] for row in read_run(tmp_path / name).rows] for name in ('here', 'there'))
    assert here == there


def test_neither_protocol_nor_procedure_imports_images():
    code = 'import sys, nos_tf.tasks.task, nos_tf.tasks.child; print(*sorted(m for m in sys.modules if "nos_tf" in m))'
    loaded = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.split()
    rooms = {'nos_tf.tasks.convnet', 'nos_tf.tasks.data'}
    assert 'nos_tf.tasks.child' in loaded and not rooms & set(loaded)


def test_another_backend_is_refused(monkeypatch):
    check_backend('a search')
    monkeypatch.setattr('keras.backend.backend', lambda: 'jax')
    with pytest.raises(ValueError, match='^a search needs the TensorFlow backend of Keras, and this is jax: set KERAS'):
        check_backend('a search')
