"""Formulas as source code: what is printed computes what the rule does, and reads as one would write it."""

import numpy as np
import pytest

from nos_tf.dsl import equivalence
from nos_tf.dsl.expression import Combine, Leaf
from nos_tf.dsl.primitives import SLOTS, Inputs, RuleConstants, sign
from nos_tf.dsl.rule import UpdateRule
from nos_tf.optimizers.source import KEY, Code, Spelling, formula_of
from tests.rules import random_rules

NUMPY = Spelling('np', {'sign': 'sign(%s)'}, drop=f'drop(%s, %s, {KEY})', normal=f'normal(%s, {KEY})')


def run(expression, inputs, uniform):
    """The value of the code that is printed for NumPy."""
    formula = formula_of(expression, NUMPY)
    constants = {name: getattr(inputs.constants, name) for name in RuleConstants.__dataclass_fields__}
    names = {
        'np': np,
        'sign': sign,
        'drop': lambda x, p, key: np.where(uniform >= p, x, 0.0),
        'normal': lambda x, key: inputs.draw.normal,
        'key': 0,
        'keys': range(formula.draws),
        **constants,
        **inputs.averages,
        'g': inputs.g,
        'w': inputs.w,
    }
    code = '\n'.join([*formula.assignments, f'result = {formula.text}'])
    with np.errstate(all='ignore'):
        exec(code, names)  # noqa: S102 - it is what is tested
    return names['result']


def test_the_code_of_a_thousand_rules_computes_what_they_do():
    random = np.random.default_rng(17)
    g, w, m, v, gamma, normal = random.standard_normal([6, 50])
    inputs = Inputs(g, w, {'m': m, 'v': v**2, 'gamma': gamma}, RuleConstants(), equivalence.Draws(normal))
    uniform = random.random(50)
    for tokens in random_rules(1000, seed=18):
        expression = UpdateRule(tokens).canonical().expression
        expected = equivalence.evaluate(expression, inputs, lambda drop: uniform)
        found = run(expression, inputs, uniform)
        np.testing.assert_allclose(found, expected, rtol=1e-12, err_msg=str(tokens))


@pytest.mark.parametrize(
    ('rule', 'text'),
    [
        ('adam', 'm / (np.sqrt(v) + epsilon)'),
        ('(g - m) - (v - 1)', 'g - m - (v - 1.0)'),
        ('1 / (1 + g)', '1.0 / (1.0 + g + epsilon)'),
        ('g / 1', 'g / (np.ones_like(g) + epsilon)'),
        ('exp(1)', 'np.exp(np.ones_like(g))'),
        ('-(g^3) * (1e-1*w)', '-(g**3) * (0.1 * w)'),
        ('1e-3*w - clip(g, 1e-5)', '1e-3 * w - np.clip(g, -1e-5, 1e-5)'),
    ],
)
def test_a_formula_reads_as_one_would_write_it(rule, text):
    assert formula_of(UpdateRule.parse(rule).expression, NUMPY).text == text


def test_a_tensor_of_ones_is_a_number_beside_another_alone():
    ones = Leaf('1')
    assert formula_of(Combine('+', ones, ones), NUMPY).text == 'np.ones_like(g) + np.ones_like(g)'


def test_what_is_long_or_occurs_twice_has_a_name():
    text = 'exp(drop(m, 0.1)) * drop(m, 0.1) - sign(rmsprop) / exp(rmsprop)'
    formula = formula_of(UpdateRule.parse(text).expression, NUMPY)
    assert formula.assignments == (
        't1 = drop(m, 0.1, key)',
        'rmsprop = g / (np.sqrt(v) + epsilon)',
        't2 = sign(rmsprop) / (np.exp(rmsprop) + epsilon)',
    )
    assert (formula.text, formula.draws) == ('np.exp(t1) * t1 - t2', 1)


def test_each_draw_has_a_key():
    formula = formula_of(UpdateRule.parse('drop(g, 0.1) + drop(m, 0.3) * noise').expression, NUMPY)
    assert formula.draws == 3
    code = ' '.join([*formula.assignments, formula.text])
    assert all(code.count(f'keys[{k}]') == 1 for k in range(3)), code


def test_functions_that_no_table_has_are_the_librarys():
    """So a row may call what none has called yet."""
    assert NUMPY.hypot(Code('g'), 0.5) == Code('np.hypot(g, 0.5)')
    assert set(NUMPY.inputs().averages) == set(SLOTS)
