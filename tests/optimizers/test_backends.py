"""A rule trains alike on every backend of Keras.

What is not installed is skipped, unless NOS_TF_BACKENDS=required is in the environment, as `make test-backends` has it.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.optimizers.backend_run import DETERMINISTIC, STOCHASTIC
from tests.optimizers.exported import needed
from tests.optimizers.walks import start

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def run_on(tmp_path_factory):
    """A function: backend -> the results of backend_run.py, which is run once for each."""
    folder, results = tmp_path_factory.mktemp('backends'), {}

    def run(backend):
        if backend not in results:
            path = folder / f'{backend}.npz'
            command = [sys.executable, ROOT / 'tests/optimizers/backend_run.py', path]
            environment = {**os.environ, 'KERAS_BACKEND': backend, 'JAX_PLATFORMS': 'cpu', 'CUDA_VISIBLE_DEVICES': ''}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            results[backend] = dict(np.load(path))
        return results[backend]

    return run


@pytest.mark.slow
@pytest.mark.parametrize('backend', ['jax', 'torch'])
def test_a_backend_of_keras_does_what_tensorflow_does(backend, run_on):
    needed(backend)
    found, expected = run_on(backend), run_on('tensorflow')
    assert (found['backend'], expected['backend']) == (backend, 'tensorflow')
    assert not found['sees_tensorflow'], f'nos_tf imports TensorFlow on the {backend} backend'
    for rule in DETERMINISTIC:
        assert np.abs(expected[f'walk {rule}'][-1] - start()).max() > 0.1
        for kind in ('walk', 'exported'):
            np.testing.assert_allclose(
                found[f'{kind} {rule}'], expected[f'walk {rule}'], rtol=1e-5, atol=1e-5, err_msg=f'{kind} {rule}'
            )
    for rule in STOCHASTIC:  # another mask would show: an element moves by 1/16 of its gradient, or not at all
        np.testing.assert_allclose(found[f'walk {rule}'], expected[f'walk {rule}'], rtol=1e-5, atol=1e-5, err_msg=rule)
    for name in ('rule', 'exported'):
        assert found[f'losses {name}'][-1] < 0.7 * found[f'losses {name}'][0]
        np.testing.assert_array_equal(found[f'continued {name}'], found[f'restored {name}'])


@pytest.mark.slow
def test_masks_are_the_same_bits_on_every_backend(run_on):
    """`drop(g, 0.5)` moves an element or does not."""
    for backend in ('jax', 'torch'):
        needed(backend)
        moved = [np.diff(run_on(b)['walk drop(g, 0.5)'], axis=0) != 0 for b in (backend, 'tensorflow')]
        np.testing.assert_array_equal(*moved)
        assert 0.4 < moved[0].mean() < 0.6
