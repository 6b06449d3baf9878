"""Each primitive computes what the paper says, by numbers worked out by hand, and keeps its id for good."""

import contextlib
import dataclasses
import math

import numpy as np
import pytest

from nos_tf.dsl import primitives
from nos_tf.dsl.equivalence import Draws
from nos_tf.dsl.primitives import (
    BINARIES,
    FIRST_TEMPORARY,
    NUMPY,
    OPERANDS,
    UNARIES,
    UNARY,
    Inputs,
    RuleConstants,
    draw_node,
    leaf_node,
    operand_id,
    temporary,
    temporary_index,
)
from nos_tf.dsl.rule import MAX_ITERATIONS

INPUTS = Inputs(
    g=np.array([2.0, -0.5]),
    w=np.array([3.0, -4.0]),
    averages={
        'm': np.array([0.5, -0.25]),
        'v': np.array([4.0, 0.25]),
        'gamma': np.array([8.0, -0.125]),
        'm99': np.array([0.25, 1.0]),
        'v99': np.array([1.0, 4.0]),
        'v95': np.array([0.25, 1.0]),
    },
    draw=Draws(normal=np.array([1.0, -2.0])),
    before={'m99': np.array([0.125, -1.0])},
    step=2.0,
    progress=0.375,
)

OPERAND_VALUES = {
    'g': [2.0, -0.5],
    'g^2': [4.0, 0.25],
    'g^3': [8.0, -0.125],
    'm': [0.5, -0.25],
    'v': [4.0, 0.25],
    'gamma': [8.0, -0.125],
    'sign(g)': [1.0, -1.0],
    'sign(m)': [1.0, -1.0],
    '1': [1.0, 1.0],
    'noise': [0.01, -0.02],
    '1e-4*w': [0.0003, -0.0004],
    '1e-3*w': [0.003, -0.004],
    '1e-2*w': [0.03, -0.04],
    '1e-1*w': [0.3, -0.4],
    'adam': [0.24999999875, -0.49999999],
    'rmsprop': [0.999999995, -0.99999998],
    'm99': [0.25, 1.0],
    'm99_before': [0.125, -1.0],
    'adam99': [0.499999995, -0.124999999375],
    'rmsprop99': [1.99999998, -0.24999999875],
    'adam95': [0.99999998, -0.2499999975],
    'rmsprop95': [3.99999992, -0.499999995],
    # u = .468, .48528, .5018688...: u_3 M / (1 - u_1 u_2 u_3) + (1 - u_2) g / (1 - u_1 u_2), M = (1 - .81) m
    'm_nesterov': [1.385748672149556, -0.35988989287610684],
    'linear': [0.625, 0.625],
    'cosine': [0.6913417161825449, 0.6913417161825449],
    'restart': [0.5, 0.5],
}

X = [-2.0, 0.0, 3e-5, 0.7]
UNIFORM = [0.09, 0.1, 0.3, 0.5]
UNARY_VALUES = {
    'x': X,
    '-x': [2.0, 0.0, -3e-5, -0.7],
    'exp': [0.1353352832366127, 1.0, 1.00003000045, 2.0137527074704766],
    'log': [0.6931471805599453, -18.420680743952367, -10.41431317630212, -0.35667494393873245],
    'clip(1e-5)': [-1e-5, 0.0, 1e-5, 1e-5],
    'clip(1e-4)': [-1e-4, 0.0, 3e-5, 1e-4],
    'clip(1e-3)': [-1e-3, 0.0, 3e-5, 1e-3],
    'drop(0.1)': [0.0, 0.0, 3e-5, 0.7],
    'drop(0.3)': [0.0, 0.0, 3e-5, 0.7],
    'drop(0.5)': [0.0, 0.0, 0.0, 0.7],
    'sign': [-1.0, 0.0, 1.0, 1.0],
    'sqrt': [1.4142135623730951, 0.0, 0.005477225575051661, 0.8366600265340756],
    'abs': [2.0, 0.0, 3e-5, 0.7],
    'square': [4.0, 0.0, 9e-10, 0.49],
}

BINARY_VALUES = {
    '+': [5.0, 0.5],
    '-': [1.0, 0.5],
    '*': [6.0, 0.0],
    '/': [1.4999999925, 5e7],
    'left': [3.0, 0.5],
    'max': [3.0, 0.5],
    'min': [2.0, 0.0],
    'lerp': [2.9, 0.45],
    'agree': [3.0, 0.0],
}


VERSION_1 = {
    'g': 0, 'g^2': 1, 'g^3': 2, 'm': 3, 'v': 4, 'gamma': 5, 'sign(g)': 6, 'sign(m)': 7,
    '1': 8, 'noise': 9, '1e-4*w': 10, '1e-3*w': 11, '1e-2*w': 12, '1e-1*w': 13, 'adam': 14, 'rmsprop': 15,
}, {
    'x': 0, '-x': 1, 'exp': 2, 'log': 3, 'clip(1e-5)': 4, 'clip(1e-4)': 5, 'clip(1e-3)': 6,
    'drop(0.1)': 7, 'drop(0.3)': 8, 'drop(0.5)': 9, 'sign': 10,
}, {'+': 0, '-': 1, '*': 2, '/': 3, 'left': 4}  # fmt: skip


@pytest.mark.parametrize(('rows', 'ids'), list(zip((OPERANDS, UNARIES, BINARIES), VERSION_1, strict=True)))
def test_ids_are_for_good(rows, ids):
    """Stores, tables and random draws know a primitive by its id."""
    assert {row.token: row.id for row in rows if row.version == 1} == ids
    numbers = [row.id for row in rows]
    assert len(set(numbers)) == len({row.token for row in rows}) == len(rows)
    later = [row for row in rows if row.version > 1]
    assert all(row.id >= (64 if rows is OPERANDS else len(ids)) for row in later)


def test_temporaries_have_ids_that_no_operand_has():
    ids = {operand_id(temporary(k)) for k in range(1, MAX_ITERATIONS + 1)}
    assert ids == set(range(16, 26))
    assert FIRST_TEMPORARY == 16
    assert not ids & {row.id for row in OPERANDS}


def test_a_random_node_draws_as_it_always_has_and_like_no_other():
    """1 + 11 operand + unary for version 1; whatever is added to the tables draws otherwise, and changes no other."""
    assert [draw_node(*ids) for ids in ((0, 7), (15, 9), (16, 8), (25, 9))] == [8, 175, 185, 285]
    operands, unaries = [*range(100), 4095], [*range(30), 4095]
    nodes = {draw_node(operand, unary) for operand in operands for unary in unaries}
    assert len(nodes) == len(operands) * len(unaries)
    assert min(nodes) > 0 and max(nodes) < 2**31
    assert leaf_node(9) == 0  # noise
    assert len({leaf_node(operand) for operand in operands}) == len(operands)
    assert leaf_node(64) == draw_node(64, 0)  # at which the identity does not draw


@pytest.mark.parametrize(
    ('token', 'expected'), [('g', 0), ('sign(m)', 7), ('noise', 9), ('rmsprop', 15), ('t1', 16), ('t2', 17), ('t9', 24)]
)
def test_id_of_an_operand(token, expected):
    assert operand_id(token) == expected


def test_temporaries_are_counted_from_one():
    assert [temporary(k) for k in (1, 2, 12)] == ['t1', 't2', 't12']
    assert [temporary_index(token) for token in ('t1', 't12', 't0', 't', 'g', '', 't-1', 't1.0', 't\u0661')] == [
        1, 12, 0, 0, 0, 0, 0, 0, 0,
    ]  # fmt: skip


@pytest.mark.parametrize('row', OPERANDS, ids=lambda row: row.token)
def test_operand_by_hand(row):
    np.testing.assert_allclose(row.compute(NUMPY, INPUTS), OPERAND_VALUES[row.token], rtol=1e-14)


@pytest.mark.parametrize('row', UNARIES, ids=lambda row: row.token)
def test_unary_by_hand(row):
    inputs = dataclasses.replace(INPUTS, draw=Draws(np.zeros(4), np.array(UNIFORM)))
    value = row.compute(NUMPY, inputs, np.array(X))
    np.testing.assert_allclose(value, UNARY_VALUES[row.token], rtol=1e-14)


@pytest.mark.parametrize('row', BINARIES, ids=lambda row: row.token)
def test_binary_by_hand(row):
    value = row.compute(NUMPY, INPUTS, np.array([3.0, 0.5]), np.array([2.0, 0.0]))
    np.testing.assert_allclose(value, BINARY_VALUES[row.token], rtol=1e-14)


def test_what_each_row_says_about_itself():
    assert {row.token: row.slots for row in OPERANDS if row.slots} == {
        'm': ('m',), 'v': ('v',), 'gamma': ('gamma',), 'sign(m)': ('m',), 'adam': ('m', 'v'), 'rmsprop': ('v',),
        'm99': ('m99',), 'm99_before': ('m99',), 'adam99': ('m', 'v99'), 'rmsprop99': ('v99',), 'adam95': ('m', 'v95'),
        'rmsprop95': ('v95',), 'm_nesterov': ('m',),
    }  # fmt: skip
    assert [row.token for row in OPERANDS if not row.reads_gradient] == [
        '1', 'noise', '1e-4*w', '1e-3*w', '1e-2*w', '1e-1*w', 'linear', 'cosine', 'restart',
    ]  # fmt: skip
    assert [row.token for row in OPERANDS if row.reads_progress] == ['linear', 'cosine', 'restart']
    assert [row.token for row in OPERANDS if row.is_random] == ['noise']
    assert [row.token for row in UNARIES if row.is_random] == ['drop(0.1)', 'drop(0.3)', 'drop(0.5)']
    assert [row.token for row in OPERANDS if row.reads_weights] == ['1e-4*w', '1e-3*w', '1e-2*w', '1e-1*w']
    rows = (*OPERANDS, *UNARIES, *BINARIES)
    assert [row.token for row in rows if row.gives_sign] == ['sign(g)', 'sign(m)', 'sign']
    assert [row.token for row in rows if row.keeps_sign] == ['x', '-x', '*']


class Watched(RuleConstants):
    """Constants that know which of them were read."""

    def __getattribute__(self, name):
        if name in RuleConstants.__dataclass_fields__:
            object.__getattribute__(self, '__dict__').setdefault('read', set()).add(name)
        return object.__getattribute__(self, name)


@pytest.mark.parametrize('row', [*OPERANDS, *UNARIES, *BINARIES], ids=lambda row: row.token)
def test_each_row_names_the_constants_and_the_averages_that_it_reads(row):
    constants, x = Watched(), np.array([2.0, 3.0])
    constants.__dict__['read'] = set()  # without what its own checks have read
    asked, arguments = set(), 0 if row in OPERANDS else 1 if row in UNARIES else 2

    class Averages(dict):
        def __getitem__(self, slot):
            asked.add(slot)
            return super().__getitem__(slot)

    averages, before = Averages(INPUTS.averages), Averages(INPUTS.before)
    inputs = dataclasses.replace(
        INPUTS, averages=averages, before=before, constants=constants, draw=Draws(x, np.array([0.2, 0.8]))
    )
    row.compute(NUMPY, inputs, *(arguments * [x]))
    assert constants.__dict__['read'] == set(row.constants)
    assert asked == set(row.slots)
    with pytest.raises(TypeError) if row.reads_weights else contextlib.nullcontext():
        row.compute(NUMPY, dataclasses.replace(inputs, w=None), *(arguments * [x]))


@pytest.mark.parametrize('decay', [None, 0.0, 0.25, 1.0])
def test_the_formula_for_the_exponential_of_a_sign(decay):
    inputs, x = dataclasses.replace(INPUTS, sign_decay=decay), np.array([-1.0, 0.0, 1.0, math.nan])
    (row,) = (row for row in UNARIES if row.of_sign)
    expected = np.exp(x * (1.0 if decay is None else decay))
    np.testing.assert_allclose(row.of_sign(NUMPY, inputs, x), expected, rtol=1e-14)


@pytest.mark.parametrize('row', BINARIES, ids=lambda row: row.token)
def test_commutative_means_that_the_order_is_free(row):
    x, y = np.array([3.0, -0.1]), np.array([0.7, 5.0])
    same = np.array_equal(row.compute(NUMPY, INPUTS, x, y), row.compute(NUMPY, INPUTS, y, x))
    assert same == (row.token in ('+', '*', 'max', 'min'))


def test_sign_at_the_edges():
    x = np.array([0.0, -0.0, 5e-324, -1e-40, 1.3e-38, -1.3e-38, 1e-30, math.inf, -math.inf])
    np.testing.assert_array_equal(primitives.sign(x), [0, 0, 0, 0, 1, -1, 1, 1, -1])
    assert np.isnan(primitives.sign(np.array([math.nan]))).all()


def test_log_is_finite_at_zero():
    inputs = dataclasses.replace(INPUTS, constants=RuleConstants(epsilon=1e-4))
    assert UNARY['log'].compute(NUMPY, inputs, np.zeros(1)) == pytest.approx(-9.210340371976182)


def test_constants_of_the_paper():
    assert RuleConstants() == RuleConstants(0.9, 0.999, 0.999, 1e-8, 0.01)


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('beta_1', 1.0),
        ('beta_2', -0.1),
        ('beta_3', math.nan),
        ('epsilon', -1e-8),
        ('epsilon', math.inf),
        ('noise_stddev', -1),
        ('beta_1', '0.9'),
        ('beta_1', None),
    ],
)
def test_constants_refuse_what_makes_no_sense(name, value):
    with pytest.raises(ValueError, match=rf'^{name} = .*must be a number in \[0, '):
        RuleConstants(**{name: value})
