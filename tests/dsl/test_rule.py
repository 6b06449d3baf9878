"""An UpdateRule says the same in tokens, infix notation, LaTeX and ids, and knows what it needs."""

import numpy as np
import pytest

from nos_tf.dsl.primitives import OPERANDS
from nos_tf.dsl.rule import UpdateRule
from tests.rules import random_rules

POWERSIGN = 'sign(g) sign(m) x x * g t1 x exp *'


@pytest.mark.parametrize(('position', 'id'), [(0, 16), (1, 63), (2, 14), (4, 9), (5, 17), (0, -1)])
def test_ids_of_no_primitive_are_refused(position, id):
    """As of a newer version, or of an iteration that is yet to come."""
    ids = UpdateRule.parse(POWERSIGN).token_ids
    ids[position] = id
    with pytest.raises(ValueError, match=f'^token {position + 1} has the id {id}, which this nos_tf does not know: '):
        UpdateRule.from_ids(ids)


def test_a_thousand_rules_survive_every_notation():
    readable_latex = 0
    for tokens in random_rules(1000, seed=2):
        rule = UpdateRule(tokens)
        assert UpdateRule.parse(' '.join(tokens)) == rule
        assert UpdateRule.parse('\n' + '\t'.join(tokens) + ' ').tokens == tokens
        assert UpdateRule.parse(rule.infix).canonical() == rule.canonical()
        np.testing.assert_array_equal(UpdateRule.from_ids(rule.token_ids).tokens, tokens)
        if r'\frac' not in rule.latex:
            assert UpdateRule.parse(rule.latex).canonical() == rule.canonical()
            readable_latex += 1
    assert readable_latex > 500


def test_equal_if_spelled_alike():
    assert UpdateRule.parse('g * m') == UpdateRule(['g', 'm', 'x', 'x', '*'])
    assert UpdateRule.parse('g * m') != UpdateRule.parse('m * g')
    assert len({UpdateRule.parse('g * m'), UpdateRule(('g', 'm', 'x', 'x', '*'))}) == 1


def test_ids_are_positions_in_the_tables():
    ids = UpdateRule.parse('rmsprop noise sign clip(1e-5) left t1 g -x exp / t2 t1 drop(0.5) log -').token_ids
    assert ids.dtype == np.int32
    assert ids.tolist() == [15, 9, 10, 4, 4, 16, 0, 1, 2, 3, 17, 16, 9, 3, 1]


def test_padding_hands_the_value_on():
    rule = UpdateRule.parse('g * m')
    assert rule.padded_ids(1).tolist() == [0, 3, 0, 0, 2]
    assert rule.padded_ids(3).tolist() == [0, 3, 0, 0, 2, 16, 16, 0, 0, 4, 17, 17, 0, 0, 4]
    assert UpdateRule.from_ids(rule.padded_ids(3)).canonical() == rule
    with pytest.raises(ValueError, match='2 iterations, more than 1'):
        UpdateRule.parse(POWERSIGN).padded_ids(1)


@pytest.mark.parametrize(
    ('text', 'slots', 'reads_gradient', 'is_stochastic', 'operands'),
    [
        ('g', (), True, False, {'g'}),
        ('powersign', ('m',), True, False, {'g', 'sign(g)', 'sign(m)'}),
        ('adam', ('m', 'v'), True, False, {'adam'}),
        ('rmsprop', ('v',), True, False, {'rmsprop'}),
        ('gamma * v - m', ('m', 'v', 'gamma'), True, False, {'gamma', 'v', 'm'}),
        ('1e-3*w + noise', (), False, True, {'1e-3*w', 'noise'}),
        ('1', (), False, False, {'1'}),
        ('drop(1, 0.5)', (), False, True, {'1'}),
        ('g adam x x left', (), True, False, {'g'}),
        ('gamma gamma drop(0.1) x * g g x x left', (), True, False, {'g'}),
    ],
)
def test_what_a_rule_needs(text, slots, reads_gradient, is_stochastic, operands):
    rule = UpdateRule.parse(text)
    assert rule.slots == slots
    assert rule.reads_gradient == reads_gradient
    assert rule.is_stochastic == is_stochastic
    assert {row.token for row in rule.primitives if row in OPERANDS} == operands


@pytest.mark.parametrize(
    ('text', 'constants'),
    [
        ('g', ()),
        ('sign(m)', ('beta_1',)),
        ('gamma + noise', ('beta_3', 'noise_stddev')),
        ('log(v)', ('beta_2', 'epsilon')),
        ('g / g^2', ('epsilon',)),
        ('adam', ('beta_1', 'beta_2', 'epsilon')),
        ('rmsprop', ('beta_2', 'epsilon')),
        ('m v log x left', ('beta_1', 'epsilon')),  # v is not read
    ],
)
def test_which_constants_a_rule_reads(text, constants):
    assert UpdateRule.parse(text).constants == constants


def test_iterations_and_text():
    rule = UpdateRule.parse(POWERSIGN)
    assert rule.iterations == 2
    assert str(rule) == rule.infix == 'g * exp(sign(g) * sign(m))'
    assert rule.latex == r'g \cdot e^{\operatorname{sign}(g) \cdot \operatorname{sign}(\hat{m})}'


@pytest.mark.parametrize('name', ['powersign', 'PowerSign', ' POWERSIGN\n', 'powersign plus clip', 'Momentum-exp-v'])
def test_known_names(name):
    expected = {
        'powersign': 'g * exp(sign(g) * sign(m))',
        'powersign plus clip': '(exp(sign(g) * sign(m)) + clip(g, 1e-4)) * g',
        'momentum-exp-v': 'm * exp(v)',
    }
    assert UpdateRule.parse(name) == UpdateRule.parse_infix(expected[name.strip().lower()])


OPERANDS_1 = r'g, g\^2, g\^3, m, v, gamma, sign\(g\), sign\(m\), 1, noise, 1e-4\*w, .*, adam, rmsprop, m99, .*, restart'


@pytest.mark.parametrize(
    ('tokens', 'message'),
    [
        ('g m x x', r'^4 tokens \(g m x x\): a rule has 5 for each iteration \(op1 op2 u1 u2 b\)'),
        ('g m x x * t1', r'^6 tokens '),
        ('g m x x + g', r'^6 tokens '),
        ('g m y x *', r"^token 3 \(iteration 1\) is 'y': choose from x, -x, exp, .*, sign, sqrt, abs, square$"),
        ('g m x x ^', r"^token 5 \(iteration 1\) is '\^': choose from \+, -, \*, /, left, max, min, lerp, agree$"),
        ('g m * x x', r"^token 3 \(iteration 1\) is '\*': choose from x, "),
        ('t1 g x x +', rf"^token 1 \(iteration 1\) is 't1': choose from {OPERANDS_1}$"),
        ('g g x x + g t2 x x +', rf"^token 7 \(iteration 2\) is 't2': choose from {OPERANDS_1}, t1$"),
        ('g g x x + t3 g x x +', rf"^token 6 \(iteration 2\) is 't3': choose from {OPERANDS_1}, t1$"),
        ('g g x x + t0 g x x +', r"^token 6 \(iteration 2\) is 't0'"),
        ('g g x x + t01 g x x +', r"^token 6 \(iteration 2\) is 't01'"),
        ('g m clip(1e-2) x *', r"^token 3 \(iteration 1\) is 'clip\(1e-2\)': choose from .*clip\(1e-5\), clip\(1e-4\)"),
        ('g m x x * ' * 11, r'^55 tokens \(g m x x \* .*\.\.\.\): .* 1 to 10 iterations$'),
        ('', '^an empty text is no rule: write tokens, an infix expression or the name of a known rule$'),
        (' \n\t', '^an empty text is no rule'),
    ],
)
def test_refuses_wrong_tokens(tokens, message):
    with pytest.raises(ValueError, match=message):
        UpdateRule.parse(tokens)


def test_refuses_a_rule_of_no_tokens():
    with pytest.raises(ValueError, match=r'^0 tokens'):
        UpdateRule(())


@pytest.mark.parametrize('thing', [None, 3, b'g', ['g'], ('g', 'g', 'x', 'x', '+')])
def test_refuses_what_is_no_text(thing):
    with pytest.raises(
        TypeError, match=r'a rule is read from a string, not from .*\((NoneType|int|bytes|list|tuple)\)'
    ):
        UpdateRule.parse(thing)


def test_a_rule_is_frozen():
    with pytest.raises(AttributeError):
        UpdateRule.parse('g').tokens = ()
