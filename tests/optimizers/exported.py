"""What the tests of exported sources share: the sources at work, and the walks that they are to take."""

import importlib
import itertools
import os
import sys
import types

import numpy as np
import pytest

from nos_tf.dsl.rule import UpdateRule
from nos_tf.optimizers.export import export
from tests.optimizers import oracle
from tests.optimizers.walks import STEPS, gradients, keep_of, start, uniforms

_counter = itertools.count()

HALVES = ('float16', 'bfloat16')
BAD_OPTIONS = [
    ('beta_1', 1.0), ('beta_1', 1.5), ('beta_1', -0.1), ('beta_2', float('nan')), ('beta_3', 1.0),
    ('epsilon', -1e-8), ('epsilon', float('inf')), ('noise_stddev', -1.0),
]  # fmt: skip
ALL_OPTIONS = 'm + v * gamma / g + noise'
"""A rule that reads every hyper-parameter."""


def needed(framework):
    """The framework, if it is installed; else the test is skipped, or fails if backends are required."""
    if os.environ.get('NOS_TF_BACKENDS') == 'required':
        return importlib.import_module(framework)
    return pytest.importorskip(framework, reason=f'{framework} is not installed: make test-backends')


def source_of(rule, framework, name='Exported'):
    """What the source of an exported rule defines under `name`; in a module of its own, which torch.compile imports."""
    module = types.ModuleType(f'exported_{next(_counter)}')
    sys.modules[module.__name__] = module
    exec(export(rule, framework, name), vars(module))  # noqa: S102 - it is what is tested
    return getattr(module, name)


def length_of(rule):
    """The arguments that an exported rule takes for the length of the walk: none if it does not read it."""
    return [STEPS] if UpdateRule.parse(rule).reads_progress else []


def expected_walk(rule, of=None):
    """float64 [steps, 16], by the oracle; masks come from `uniforms`."""
    tokens = UpdateRule.parse(rule).canonical().tokens
    of = gradients(dtype='float64') if of is None else of
    return oracle.train(tokens, start(dtype='float64'), of, 0.0625, keep=keep_of(uniforms()))


def half_type(dtype):
    """The type of NumPy, and its rounding."""
    import ml_dtypes

    return (np.dtype('float16'), 2**-10) if dtype == 'float16' else (np.dtype(ml_dtypes.bfloat16), 2**-7)


def expected_half_walk(rule, dtype):
    """The walk of a rule that does not read the weights: updates by the oracle, weights rounded after each."""
    narrow, _ = half_type(dtype)
    walk = expected_walk(rule, of=gradients().astype(narrow).astype('float64'))
    weights, trajectory = start().astype(narrow), []
    for change in np.diff(np.vstack([start(dtype='float64'), walk]), axis=0):
        weights = (weights.astype('float64') + change).astype(narrow)
        trajectory.append(weights.astype('float32'))
    return np.array(trajectory)
