"""Children side by side on JAX do what a child does alone on TensorFlow; a search of them leaves its rewards."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from nos_tf.dsl.primitives import RuleConstants
from nos_tf.dsl.rule import UpdateRule
from nos_tf.optimizers import interpreter
from nos_tf.optimizers.contender import Contender
from nos_tf.tasks.convnet import ConvNet
from tests.benchmarks.accelerator_run import OPTIMIZERS, RATE, SEED

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / 'tests/benchmarks/accelerator_run.py'
NETWORK = ConvNet(filters=4)


def run(*command):
    """A process on the JAX backend; skipped without JAX, unless backends are required."""
    if os.environ.get('NOS_TF_BACKENDS') == 'required':
        importlib.import_module('jax')
    else:
        pytest.importorskip('jax', reason='jax is not installed: make test-backends')
    environment = {**os.environ, 'KERAS_BACKEND': 'jax', 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT)}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def trained_alone(text, found):
    """The weights after the steps, and the accuracy on all images."""
    weights, statistics = tf.constant(found['start']), NETWORK.initial_statistics()
    state = interpreter.initial_state(weights)
    by_keras = text.startswith('keras')
    if by_keras:
        variable = keras.Variable(found['start'])
        optimizer = Contender(text).optimizer(RATE, SEED)
        optimizer.build([variable])
    else:
        ids = tf.constant(UpdateRule.parse(text).canonical().padded_ids(3))
    for rows in found['order']:
        images, labels = (tf.constant(found[part][rows]) for part in ('images', 'labels'))
        _, gradient, statistics = NETWORK.gradient(weights, statistics, images, labels, 10)
        if by_keras:
            optimizer.apply([gradient], [variable])
            weights = tf.constant(keras.ops.convert_to_numpy(variable))
        else:
            state = interpreter.update(
                ids, state, gradient, tf.constant(RATE), seed=tf.constant(SEED), constants=RuleConstants()
            )
            weights = state.weights
    logits = NETWORK.logits(weights, statistics, tf.constant(found['images']), 10)
    return weights.numpy(), (logits.numpy().argmax(-1) == found['labels']).mean()


@pytest.mark.slow
def test_many_children_on_jax_are_what_each_is_on_tensorflow(tmp_path):
    run(SCRIPT, tmp_path / 'found.npz')
    found = dict(np.load(tmp_path / 'found.npz'))
    assert len(OPTIMIZERS) == len(found['weights']) == 11
    for i, text in enumerate(OPTIMIZERS):
        weights, accuracy = trained_alone(text, found)
        assert np.abs(weights - found['start']).max() > 1e-4, text
        off = np.abs(weights - found['weights'][i])
        assert np.quantile(off, 0.99) < 1e-5, text  # a sign of nearly nothing may be either
        assert abs(accuracy - found['validation'][i]) < 0.05, text
    assert (found['raced'] == found['accuracies']).all()
    assert found['accuracies'].mean() > 0.5 and set(found['rates']) <= {1e-3, 1e-2, 1e-1}
    np.testing.assert_allclose(found['raced_weights'], found['weights_alone'], atol=1e-5)  # each with its own rate


@pytest.mark.slow
def test_a_search_leaves_all_rewards_and_trains_the_best_again(tmp_path):
    rng = np.random.default_rng(0)
    content = {'range': np.array([-1, 1], np.float32)}
    for part, count in (('train', 200), ('validation', 100), ('test', 100)):
        content[f'{part}_images'] = rng.integers(256, size=[count, 4, 4, 1]).astype(np.uint8)
        content[f'{part}_labels'] = rng.integers(10, size=count).astype(np.int32)
    np.savez(tmp_path / 'images.npz', **content)
    (tmp_path / 'rules.txt').write_text('powersign\nadam * exp(sign(g) * sign(m))\n')
    files = {'images': 'images.npz', 'output': 'found.json', 'begin': 'rules.txt'}
    flags = [text for flag, name in files.items() for text in (f'--{flag}', str(tmp_path / name))]
    small = ['--task', 'tiny', '--seconds', '0.1', '--population', '8', '--best', '2', '--more_seeds', '1']
    out = run(ROOT / 'benchmarks/accelerator/evolve.py', *flags, *small)
    assert ' rules: mean 0.' in out and 'another seed' in out
    found = json.loads((tmp_path / 'found.json').read_text())
    first, again = ({(text, seed) for text, seed, *_ in found[key]} for key in ('rewards', 'rewards again'))
    assert len(first) == 56 and {seed for _, seed in first} == {0}
    assert len(again) >= 2 + 29 and {seed for _, seed in again} == {1}
    assert '2 of 2 rules to begin with are in the space' in out
    lines = run(ROOT / 'benchmarks/accelerator/table.py', tmp_path / 'found.json').strip().splitlines()
    assert lines[0].startswith('| rule | in the search | accuracy again |') and len(lines) == 2 + 2 + 12
    assert UpdateRule.parse('powersign').canonical().tokens in {tuple(text.split()) for text, _ in first}
