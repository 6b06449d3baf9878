"""The known rules are those of the paper, retyped here from its Table 1 in its own notation."""

import re

import pytest

from nos_tf.dsl.known import HAND_MADE, KNOWN_RULES, TABLE_1, VERSION_2, LearningRate, read_learning_rates
from nos_tf.dsl.rule import UpdateRule

PRINTED = {
    'powersign_plus_clip': r'[e^{\mathrm{sign}(g)*\mathrm{sign}(\hat{m})} + \mathrm{clip}(g, 10^{-4})] * g',
    'clip_momentum_exp_v': r'\mathrm{clip}(\hat{m}, 10^{-4}) * e^{\hat{v}}',
    'momentum_exp_v': r'\hat{m} * e^{\hat{v}}',
    'powersign': r'g * e^{\mathrm{sign}(g)*\mathrm{sign}(\hat{m})}',
    'drop30_powersign': r'\mathrm{drop}(g, 0.3) * e^{\mathrm{sign}(g)*\mathrm{sign}(\hat{m})}',
    'momentum_exp_g2': r'\hat{m} * e^{g^2}',
    'drop10_momentum_over_exp_g2': r'\mathrm{drop}(\hat{m}, 0.1) / (e^{g^2} + \epsilon)',
    'drop10_powersign': r'\mathrm{drop}(g, 0.1) * e^{\mathrm{sign}(g)*\mathrm{sign}(\hat{m})}',
    'clip_rmsprop_plus_drop30_momentum': r'\mathrm{clip}(RMSProp, 10^{-5}) + \mathrm{drop}(\hat{m}, 0.3)',
    'adam_powersign': r'ADAM * e^{\mathrm{sign}(g)*\mathrm{sign}(\hat{m})}',
    'adam_exp_m': r'ADAM * e^{\hat{m}}',
    'sgd_plus_drop30_momentum': r'g + \mathrm{drop}(\hat{m}, 0.3)',
    'drop10_momentum_exp_g3': r'\mathrm{drop}(\hat{m}, 0.1) * e^{g^3}',
    'sgd_minus_clip_g2': r'g - \mathrm{clip}(g^2, 10^{-4})',
    'exp_sgd_minus_exp_momentum': r'e^g - e^{\hat{m}}',
    'drop30_momentum_exp_w': r'\mathrm{drop}(\hat{m}, 0.3) * e^{10^{-3}w}',
}

TOKENS = {
    'sgd': 'g g x x left',
    'momentum': 'm m x x left',
    'adam': 'adam adam x x left',
    'rmsprop': 'rmsprop rmsprop x x left',
    'signsgd': 'sign(g) sign(g) x x left',
    'signum': 'sign(m) sign(m) x x left',
    'addsign': 'sign(g) sign(m) x x * 1 t1 x x + t2 g x x *',
    'powersign': 'sign(g) sign(m) x x * g t1 x exp *',
    'powersign_plus_clip': 'sign(g) sign(m) x x * t1 g exp clip(1e-4) + t2 g x x *',
    'drop10_momentum_over_exp_g2': 'm g^2 drop(0.1) exp /',
    'drop30_momentum_exp_w': 'm 1e-3*w drop(0.3) exp *',
    'lion': 'm99_before g x x lerp t1 t1 sign x left',
    'nadam': 'm_nesterov v x sqrt /',
    'cautious_adam': 'adam g x x agree',
    'grams': 'adam sign(g) abs x *',
    'sign_sum': 'sign(g) sign(m) x x +',
}


def test_all_sixteen_rules_of_table_1():
    assert [rule.name for rule in TABLE_1] == list(PRINTED)


@pytest.mark.parametrize('name', PRINTED)
def test_the_paper_prints_the_same_rule(name):
    assert UpdateRule.parse(name) == UpdateRule.parse(PRINTED[name])


@pytest.mark.parametrize('name', TOKENS)
def test_tokens_by_hand(name):
    assert ' '.join(UpdateRule.parse(name).tokens) == TOKENS[name]


def test_names_are_one_to_one():
    assert list(KNOWN_RULES) == [rule.name for rule in (*HAND_MADE, *TABLE_1, *VERSION_2)]
    assert all(re.fullmatch('[a-z][a-z0-9_]*', name) for name in KNOWN_RULES)
    assert all(rule.source for rule in KNOWN_RULES.values())
    assert len({UpdateRule.parse(name).canonical() for name in KNOWN_RULES}) == len(KNOWN_RULES) == 29


def test_every_rule_of_the_paper_is_short():
    """Section 4.1: rules of one to three iterations, in spaces of 10^6 to 10^10 strings."""
    assert {name: UpdateRule.parse(name).iterations for name in PRINTED if UpdateRule.parse(name).iterations > 1} == {
        'powersign_plus_clip': 3, 'powersign': 2, 'drop30_powersign': 2, 'drop10_powersign': 2, 'adam_powersign': 2,
    }  # fmt: skip


LEARNING_RATES = """\
task,rule,learning_rate,reward_mean,reward_sd,seeds
digits,adam,0.001,0.9,0.0125,9
cifar10,sgd,1e-05,0.5,0.25,3
"""


def test_learning_rates_are_read(tmp_path):
    path = tmp_path / 'rates.csv'
    path.write_text(LEARNING_RATES)
    assert read_learning_rates(path) == (
        LearningRate('digits', 'adam', 0.001, 0.9, 0.0125, 9),
        LearningRate('cifar10', 'sgd', 1e-5, 0.5, 0.25, 3),
    )
    assert read_learning_rates(tmp_path / 'none.csv') == ()


def test_learning_rates_on_file():
    rows = read_learning_rates()
    assert len({(row.task, row.rule) for row in rows}) == len(rows)
    assert [row.rule for row in rows if row.task == 'digits'] == [known.name for known in (*HAND_MADE, *TABLE_1)]
    for row in rows:
        assert row.rule in KNOWN_RULES
        assert row.learning_rate in (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1, 10)  # Section 4.2
        assert 0 < row.reward_mean < 1 and 0 <= row.reward_sd < 0.5 and row.seeds >= 2
