"""The reader understands what people and the paper write, and raises ValueError, with the place, at anything else."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nos_tf.dsl.expression import Apply, Combine, Leaf
from nos_tf.dsl.reader import read_infix
from nos_tf.dsl.rule import UpdateRule

POWERSIGN = 'sign(g) sign(m) x x * g t1 x exp *'


@pytest.mark.parametrize(
    ('text', 'tokens'),
    [
        ('g', 'g g x x left'),
        ('  G\t', 'g g x x left'),
        ('((g))', 'g g x x left'),
        ('g * exp(sign(g) * sign(m))', POWERSIGN),
        ('g*exp(sign(g)*sign(m))', POWERSIGN),
        ('g * e^{sign(g)*sign(m\u0302)}', POWERSIGN),
        (r'g \cdot e^{\operatorname{sign}(g) \cdot \operatorname{sign}(\hat{m})}', POWERSIGN),
        (r'g \times e^{\mathrm{sign}(g) \times \mathrm{sign}(\hat m)}', POWERSIGN),
        ('g × e^[sign(g) · sign(m_hat)]', POWERSIGN),
        ('g − m', 'g m x x -'),
        ('[g + m] * {v}', 'g m x x + t1 v x x *'),
        ('g - m - v', 'g m x x - t1 v x x -'),
        ('g - (m - v)', 'm v x x - g t1 x x -'),
        ('g / m / v', 'g m x x / t1 v x x /'),
        ('g + m * v', 'm v x x * g t1 x x +'),
        ('-g^2', 'g^2 g^2 -x x left'),
        ('-g * m', 'g m -x x *'),
        ('g--m', 'g m x -x -'),
        ('g ** 3', 'g^3 g^3 x x left'),
        ('g^{2}', 'g^2 g^2 x x left'),
        ('m^2', 'm m x x *'),
        ('m^3', 'm m x x * t1 m x x *'),
        ('(g+m)^2', 'g m x x + t1 t1 x x *'),
        ('ADAM * e^m', 'adam m x exp *'),
        ('RMSProp', 'rmsprop rmsprop x x left'),
        ('mhat + v_hat + γ', 'm v x x + t1 gamma x x +'),
        (r'\hat{\gamma}', 'gamma gamma x x left'),
        ('log|g|', 'g g log x left'),
        (r'\log |\log |g| + m|', 'g m log x + t1 t1 log x left'),
        ('log(|g|)', 'g g log x left'),
        ('ln(g)', 'g g log x left'),
        ('drop(m, 0.1) / (exp(g^2) + eps)', 'm g^2 drop(0.1) exp /'),
        ('m / (exp(g) + ε)', 'm g x exp /'),
        ('m / {e^g + epsilon}', 'm g x exp /'),
        ('m / (g + v + eps)', 'g v x x + m t1 x x /'),
        ('clip(g, 1e-4)', 'g g clip(1e-4) x left'),
        ('clip(g, 0.0001)', 'g g clip(1e-4) x left'),
        ('clip(g, 10^{-4})', 'g g clip(1e-4) x left'),
        ('drop(g, .3)', 'g g drop(0.3) x left'),
        ('1e-3*w', '1e-3*w 1e-3*w x x left'),
        ('1e-3w', '1e-3*w 1e-3*w x x left'),
        ('10^{-3}w', '1e-3*w 1e-3*w x x left'),
        ('10^-3 * w', '1e-3*w 1e-3*w x x left'),
        ('w * 0.1', '1e-1*w 1e-1*w x x left'),
        ('-0.01 w', '1e-2*w 1e-2*w -x x left'),
        ('g + 1', 'g 1 x x +'),
        ('1.0 - g', '1 g x x -'),
        ('-1 * g', '1 g -x x *'),
    ],
)
def test_reads(text, tokens):
    assert ' '.join(UpdateRule.parse_infix(text).tokens) == tokens


def test_equal_factors_are_one_value():
    tree = read_infix('exp(g * m) + log(g * m)')
    product = Combine('*', Leaf('g'), Leaf('m'))
    assert tree == Combine('+', Apply('exp', product), Apply('log', product))
    assert UpdateRule.parse('exp(g * m) + log(g * m)').iterations == 2


NO_RULE = [
    (
        'g * wrong',
        r"character 5 \('w'\).*expected an operand \(g, g\^2, .*restart\), a function \(exp, log, clip, .*agree\)",
    ),
    ('(' * 30 + '(m+g)' + ')^2' * 30, 'longer than 4096 terms when it is written out'),
    ('tiger', r"character 1 \('t'\).*or the name of a known rule"),
    ('(g', r"at its end: expected '\)'"),
    ('g)', r"character 2 \('\)'\): expected an operator or the end"),
    ('[g)', r"character 3 \('\)'\): expected '\]'"),
    ('exp(', 'at its end: expected an operand'),
    ('exp g', r"character 5 \('g'\): expected '\('"),
    ('g *', 'at its end: expected an operand'),
    ('g m', r'2 tokens \(g m\): a rule has 5 for each iteration'),
    ('(g) m', r"character 5 \('m'\): expected an operator or the end"),
    ('clip(g, -1)', r"character 9 \('-'\): clip takes 1e-5, 1e-4, 1e-3"),
    ('clip(g)', r"character 7 \('\)'\): expected ','"),
    ('clip(x,-1)', r"character 6 \('x'\): expected an operand"),
    ('drop(g, 1.5)', r"character 9 \('1'\): drop takes 0\.1, 0\.3, 0\.5"),
    ('drop(x, 1.5)', r"character 6 \('x'\): expected an operand \(g, .*restart\), a function \(exp, .*agree\)"),
    ('drop(g, 1.5', r"character 9 \('1'\): drop takes"),
    ('drop(g, m)', r"character 9 \('m'\): drop takes"),
    ('log(v) * 1e-3*w', r"character 10 \('1'\): the number 0\.001 is no .* are; in a product write \(1e-3\*w\)"),
    ('2 * g', r"character 1 \('2'\): the number 2 is no operand; 1, 1e-4\*w"),
    ('g + 0', r"character 5 \('0'\): no rule contains this number"),
    ('0.5 w', r"character 1 \('0'\): 0\.5\*w is no operand; 1e-4\*w, 1e-3\*w, 1e-2\*w and 1e-1\*w are"),
    ('w', r"character 1 \('w'\): w stands only as 1e-4\*w"),
    ('g^4', r"character 3 \('4'\): an exponent is 2 or 3, or stands on e"),
    ('g^m', r"character 3 \('m'\): an exponent is 2 or 3"),
    ('e', r"at its end: expected '\^'"),
    ('g + eps', r"character 1 \('g'\): eps stands only in a denominator"),
    ('g / eps', r"character 5 \('e'\): eps stands only in a denominator"),
    ("__import__('os')", r'character 12 .*no rule contains this character: write words, numbers, brackets and'),
    ('g; m', r"character 2 \(';'\): no rule contains this character"),
    ('g\x00', r'character 2 .*no rule contains this character'),
    ('1e9999999', r"character 1 \('1'\): no rule contains this number: it must lie between 1e-9 and 1e9"),
    ('-1e9999999 * w', r"character 2 \('1'\): no rule contains this number"),
    ('g * 1e99999999999999999999', 'no rule contains this number'),
    ('1' * 9000, 'no rule contains this number'),
    ('(' * 10_000, r"character 65 \('\('\): nested deeper than 64 levels"),
    (')' * 10_000, r"character 1 \('\)'\): expected an operand"),
    ('()' * 5_000, r"character 2 \('\)'\): expected an operand"),
    ('(' * 5_000 + 'g' + ')' * 4_999, r"character 65 \('\('\): nested deeper than 64 levels"),
    ('(' * 40 + 'g' + ')' * 39, r"at its end: expected '\)'"),
    ('(' * 39 + 'g' + ')' * 40, r"character 80 \('\)'\): expected an operator or the end"),
    ('t1 * g', r"character 1 \('t'\): expected an operand \(g"),
    ('-' * 9_999 + 'g', 'nested deeper than 64 levels'),
    ('exp(' * 100 + 'g' + ')' * 100, 'nested deeper than 64 levels'),
    ('g+' * 4_999 + 'g', 'nested deeper than 64 levels'),
    ('g' * 10_001, 'a rule of 10001 characters: at most 10000 are read'),
    ('+'.join(f'exp({a} * {b})' for a in ('g', 'm', 'v', 'adam') for b in ('g', 'm', 'v')), 'a rule has at most 10'),
]


@pytest.mark.parametrize(('text', 'message'), NO_RULE, ids=[text[:20] for text, _ in NO_RULE])
def test_refuses_and_says_where(text, message):
    start = time.perf_counter()
    with pytest.raises(ValueError, match=message) as error:
        UpdateRule.parse(text)
    assert type(error.value) is ValueError
    assert len(str(error.value)) < 500
    assert time.perf_counter() - start < 10  # no exponential search: that would take hours


PIECES = (
    'g', 'm', 'v', 'gamma', 'w', 'adam', 'RMSProp', 'noise', 'eps', 'e', 'sign', 'exp', 'log', 'clip', 'drop', 'm_hat',
    '1', '2', '3', '10', '0.1', '1e-3', '1e-4*w', '1e999999999', '9' * 30, 't1', 't99999', 'x', '-x', 'left',
    '+', '-', '*', '/', '^', '**', '(', ')', '[', ']', '{', '}', '|', ',', ' ', '\n', '\\', '\\hat', '\\cdot',
    '\\text{', '_', '\u0302', '\u0663', '\ud800', '\x00', '"', "'", '.', 'lambda', '__class__', 'é',
)  # fmt: skip
LONG = st.builds(
    lambda pieces, times, end: ''.join(pieces) * times + end,
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=4), st.integers(1, 2000), st.text(max_size=5),
)  # fmt: skip
TEXTS = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES), max_size=40).map(''.join), LONG)


@settings(max_examples=2500, deadline=1000, derandomize=True, database=None)
@given(TEXTS)
def test_any_text_is_a_rule_or_a_value_error(text):
    try:
        rule = UpdateRule.parse(text)
    except ValueError as error:
        refusal = error
    else:
        assert UpdateRule.parse(' '.join(rule.tokens)) == rule
        assert UpdateRule.parse(rule.infix).canonical() == rule.canonical()
        return
    assert type(refusal) is ValueError, 'a mistake of ours that slipped through as a subclass'
    assert len(str(refusal)) < 1000
