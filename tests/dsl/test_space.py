"""A search space admits exactly the strings that an independent filter admits, and leads into no dead end."""

import itertools

import numpy as np
import pytest

from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.space import SearchSpace
from tests.rules import BINARIES, OPERANDS, UNARIES

CONSTRAINTS = ('distinct_operands', 'no_final_addition', 'reuse_temporaries')
COMBINATIONS = [
    dict(zip(CONSTRAINTS, switches, strict=True)) for switches in itertools.product([False, True], repeat=3)
]


def small_space(iterations, operands=('g', 'm'), **constraints):
    return SearchSpace(operands, ('x', 'exp'), ('+', '*'), iterations, **constraints)


def is_legal(tokens, distinct_operands, no_final_addition, reuse_temporaries):
    """The constraints of Section 4.1, read off the tokens."""
    groups = [tokens[i : i + 5] for i in range(0, len(tokens), 5)]
    if distinct_operands and any(group[0] == group[1] for group in groups):
        return False
    if no_final_addition and tokens[-1] == '+':
        return False
    return not (reuse_temporaries and any('t' not in group[0] + group[1] for group in groups[1:]))


def every_string(iterations, operands):
    banks = []
    for k in range(iterations):
        bank = [*operands, *(f't{j}' for j in range(1, k + 1))]
        banks += [bank, bank, ['x', 'exp'], ['x', 'exp'], ['+', '*']]
    return itertools.product(*banks)


def strings_of(space, prefix=()):
    """All strings that the masks lead to; fails at a dead end."""
    if len(prefix) == space.num_steps:
        yield prefix
        return
    following = np.flatnonzero(space.legal(prefix))
    assert len(following), f'a dead end after {prefix}'
    for choice in following:
        yield from strings_of(space, (*prefix, int(choice)))


@pytest.mark.parametrize('constraints', COMBINATIONS, ids=lambda c: '-'.join(k for k, on in c.items() if on) or 'none')
@pytest.mark.parametrize(('iterations', 'operands'), [(1, ('g', 'm', 'v')), (2, ('g', 'm')), (2, ('m',))])
def test_masks_admit_what_the_constraints_admit(iterations, operands, constraints):
    expected = {s for s in every_string(iterations, operands) if is_legal(s, **constraints)}
    if not expected:
        with pytest.raises(ValueError, match=r'SearchSpace\.distinct_operands needs two operands'):
            small_space(iterations, operands, **constraints)
        return
    space = small_space(iterations, operands, **constraints)
    strings = list(strings_of(space))
    rules = [space.rule(choices) for choices in strings]
    assert {rule.tokens for rule in rules} == expected
    assert space.size == len(strings) == len(expected)
    for choices, rule in zip(strings[::7], rules[::7], strict=True):
        assert space.encode(rule) == choices


@pytest.mark.parametrize(
    ('iterations', 'constraints', 'size'),
    [
        (1, {}, 154_880),  # 16^2 * 11^2 * 5
        (1, {'distinct_operands': True}, 145_200),  # 16 * 15 * 11^2 * 5
        (1, {'no_final_addition': True}, 123_904),  # 16^2 * 11^2 * 4
        (2, {}, 154_880 * 174_845),  # times 17^2 * 11^2 * 5
        (2, {'reuse_temporaries': True}, 154_880 * 19_965),  # times (17^2 - 16^2) * 11^2 * 5
        (3, {}, 154_880 * 174_845 * 196_020),
    ],
)
def test_size_of_the_full_space(iterations, constraints, size):
    assert SearchSpace(iterations=iterations, **constraints).size == size


def test_default_is_every_primitive_in_the_order_of_the_tables():
    space = SearchSpace()
    assert (space.operands, space.unaries, space.binaries) == (OPERANDS, UNARIES, BINARIES)
    assert space.num_steps == 5


def test_choices_depend_on_the_space_ids_do_not():
    space = SearchSpace(('rmsprop', 'm'), ('sign', 'x'), ('left', '*'), iterations=2)
    rule = space.rule([0, 1, 1, 0, 1, 2, 0, 1, 1, 0])
    assert ' '.join(rule.tokens) == 'rmsprop m x sign * t1 rmsprop x x left'
    assert space.encode(rule) == (0, 1, 1, 0, 1, 2, 0, 1, 1, 0)
    assert rule.token_ids.tolist() == [15, 3, 0, 10, 2, 16, 15, 0, 0, 4]
    assert [len(bank) for bank in space.choices] == [2, 2, 2, 2, 2, 3, 3, 2, 2, 2]


def test_a_space_is_a_value():
    assert SearchSpace(['g', 'm'], ['x'], '*') == SearchSpace(('g', 'm'), ('x',), ('*',))
    assert hash(SearchSpace(['g', 'm'], ['x'], '*')) == hash(SearchSpace(('g', 'm'), ('x',), ('*',)))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            {'operands': ('g', 'lion', 't1')},
            r"^SearchSpace\.operands has 'lion', 't1': choose from g, g\^2, .*rmsprop$",
        ),
        ({'unaries': ('x', 'tanh')}, r"^SearchSpace\.unaries has 'tanh': choose from x, -x, .*sign$"),
        (
            {'unaries': ('x', 'sqrt')},
            r"^SearchSpace\.unaries has 'sqrt', of a later version of the language: add SearchSpace\.language = 2$",
        ),
        (
            {'operands': ('g', 'linear', 'lion')},
            r"^SearchSpace\.operands has 'linear', 'lion': choose from g, .*rmsprop$",
        ),
        ({'language': 3}, r'^SearchSpace\.language = 3: must be 1 or 2$'),
        ({'language': True}, r'^SearchSpace\.language = True: must be 1 or 2$'),
        ({'binaries': ('**',)}, r"^SearchSpace\.binaries has '\*\*': choose from \+, -, \*, /, left$"),
        ({'operands': 'g m'}, r"^SearchSpace\.operands has 'g m'"),
        ({'operands': ()}, r'^SearchSpace\.operands has nothing: choose from'),
        ({'unaries': []}, r'^SearchSpace\.unaries has nothing'),
        ({'binaries': ('+', '*', '+')}, r'^SearchSpace\.binaries repeats a token: \+, \*, \+$'),
        ({'iterations': 0}, r'^SearchSpace\.iterations = 0: must be a whole number from 1 to 10$'),
        ({'iterations': 11}, r'^SearchSpace\.iterations = 11'),
        ({'iterations': 1.5}, r'^SearchSpace\.iterations = 1\.5'),
        ({'iterations': True}, r'^SearchSpace\.iterations = True'),
        (
            {'binaries': ('+',), 'no_final_addition': True},
            r"no legal rule: SearchSpace\.no_final_addition forbids the only .*binaries \['\+'\], 1 iterations\)$",
        ),
        (
            {'operands': ('g',), 'distinct_operands': True},
            r"no legal rule: SearchSpace\.distinct_operands needs two .*operands \['g'\]",
        ),
    ],
)
def test_refuses_and_names_the_gin_binding(arguments, message):
    with pytest.raises(ValueError, match=message):
        SearchSpace(**arguments)


@pytest.mark.parametrize(
    ('rule', 'constraints', 'message'),
    [
        ('g m x x *', {}, 'has 5 tokens, this space spells 10'),
        ('g m x x * t1 v x x *', {}, 'token 7 is v, this space allows g m t1'),
        ('g m x log * t1 g x x *', {}, 'token 4 is log, this space allows x exp'),
        ('g g x x * t1 g x x *', {'distinct_operands': True}, 'token 2 is g, this space allows m'),
        ('g m x x * g m x x *', {'reuse_temporaries': True}, 'token 7 is m, this space allows t1'),
        ('g m x x * t1 m x x +', {'no_final_addition': True}, r'token 10 is \+, this space allows \*'),
    ],
)
def test_encode_refuses_rules_of_other_spaces(rule, constraints, message):
    with pytest.raises(ValueError, match=message):
        small_space(2, **constraints).encode(UpdateRule.parse(rule))
