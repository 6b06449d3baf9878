"""The documented task by hand: docs/examples/adversarial_task.py."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.tasks.child import Child, ChildSetup
from nos_tf.tasks.task import Task

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / 'docs/examples/adversarial_task.py'))


def test_each_player_learns_from_its_own_loss():
    task = EXAMPLE['Ring']()
    assert isinstance(task, Task)
    loaded = task.load()
    weights, state = loaded.start(0)
    step = loaded.gradient(loaded.data, tf.constant(0), tf.constant(0), weights, state)
    n = loaded.generator_size
    rate = 0.01

    def losses(weights):
        found = loaded.gradient(loaded.data, tf.constant(0), tf.constant(0), weights, state)
        return float(found.loss)

    only_discriminator = weights - rate * tf.concat([tf.zeros(n), step.gradient[n:]], 0)
    assert np.abs(step.gradient[:n]).max() > 0 and losses(only_discriminator) != losses(weights)
    assert float(loaded.measure(loaded.data, weights * np.nan, state)) == EXAMPLE['WORST']


@pytest.mark.slow
def test_a_generator_comes_near_the_ring():
    """By rmsprop; momentum, and so adam, is known to hurt where two play against each other."""
    task = EXAMPLE['Ring'](steps=600)
    trainer = ChildSetup(Child(learning_rates=(3e-3, 1e-2)), task, Vocabulary(1)).trainer()
    loaded = task.load()
    before = float(loaded.measure(loaded.data, *loaded.start(0)))
    outcome = trainer.train(UpdateRule.parse('rmsprop'))
    assert outcome.reward > before / 3 and trainer.traces == 1
    assert trainer.train(UpdateRule.parse('rmsprop'))[:3] == outcome[:3]
