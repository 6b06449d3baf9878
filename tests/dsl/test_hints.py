"""Suggestions for words that nobody can read."""

import pytest

from nos_tf.dsl.hints import about_name, did_you_mean
from nos_tf.dsl.known import KNOWN_RULES
from nos_tf.dsl.rule import UpdateRule

REFUSALS = {
    'powersing': r"at character 1 \('p'\): expected an operand .*; did you mean 'powersign'\?$",
    'momentun': r"; did you mean 'momentum'\?$",
    'momentun * exp(v)': r"; did you mean 'momentum'\?$",
    'g + sing(g)': r"at character 5 \('s'\): .*; did you mean 'sign'\?$",
    r'\expp(g)': r"; did you mean 'exp'\?$",
    'Adamm': r"; did you mean 'adam'\?$",
    'g / (m + epsilom)': r"; did you mean 'epsilon'\?$",
    'tanh(v)': 'or the name of a known rule$',
    'sqr(v)': r"; did you mean 'sqrt'\?$",
    'q': 'or the name of a known rule$',
    'g * ': 'or the name of a known rule$',
    'g g x exq +': r"token 4 .* is 'exq': choose from .*; did you mean 'exp'\?$",
    'g g x clip(1e-6) +': r"token 4 .*; did you mean 'clip\(1e-\d\)'\?$",
    'g g x x %': r"token 5 .* is '%': choose from \+, -, \*, /, left, max, min, lerp, agree$",
    'momentum * exp(v)': r"at character 1 \('m'\): 'momentum' is the name of a rule, which stands alone: "
    'in an expression write m$',
    'adam * PowerSign': r"at character 8 \('P'\): 'PowerSign' is .*: in an expression write "
    r'\(g \* exp\(sign\(g\) \* sign\(m\)\)\)$',
}


@pytest.mark.parametrize('text', REFUSALS)
def test_refusals_suggest_what_may_be_meant(text):
    with pytest.raises(ValueError, match=REFUSALS[text]):
        UpdateRule.parse(text)


@pytest.mark.parametrize('name', sorted(KNOWN_RULES.keys() - {'adam', 'rmsprop'}))
def test_what_to_write_for_a_name_is_its_rule(name):
    with pytest.raises(ValueError, match='in an expression write ') as error:
        UpdateRule.parse(f'1 - {name}')
    _, _, written = str(error.value).partition('in an expression write ')
    rule = UpdateRule.parse(f'1 - {written}').expression
    assert rule.left.token == '1'
    assert rule.right == UpdateRule.parse(name).expression


def test_two_letters_resemble_too_much():
    assert did_you_mean('gm', ['g', 'm']) == ''
    assert did_you_mean('', ['g']) == ''
    assert about_name('tiger') == about_name('') == ''
