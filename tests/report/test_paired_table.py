"""Which optimizers are judged, by which, and what a cell says."""

import pytest

from nos_tf.report.paired_table import Scores, overview_section, paired_section

FOUND, ADAM, POWERSIGN = 'm * exp(v) + m', 'keras.Adam', 'powersign'
SPELLED = 'powersign: g * exp(sign(g) * sign(m))'


def test_found_rules_are_judged_by_all_that_have_a_name():
    scores = {ADAM: [50.0, 51.0, 52.0], FOUND: [50.5, 51.5, 53.0], POWERSIGN: [49.0, 50.0]}
    section = paired_section(Scores('test accuracy', scores))
    assert section.title == 'Differences by seed: test accuracy'
    assert section.says.endswith(
        'the best of the latter, keras.Adam: of 1, 0 are ahead of it by more than the interval, 0 are behind.'
    )
    assert section.head == ['optimizer', 'keras.Adam', SPELLED]
    # differences .5, .5, 1: mean 2/3, standard error 1/6, Student's t 4.30265 at 2 degrees of freedom, p(t = 4) = .0572
    assert section.rows == [[FOUND, '+0.7 ± 0.7 (p 0.057)', '+1.5 ± 0.0']]


def test_where_all_have_a_name_those_of_keras_judge():
    section = paired_section(Scores('test BLEU', {'drop30_powersign': [1.0], ADAM: [3.0], POWERSIGN: [4.0]}))
    assert section.head == ['optimizer', 'keras.Adam']
    assert section.rows == [['drop30_powersign: drop(g, 0.3) * exp(sign(g) * sign(m))', '-2.0'], [SPELLED, '+1.0']]


@pytest.mark.parametrize('scores', [{ADAM: [1.0]}, {FOUND: [1.0]}, {FOUND: [1.0], 'm + m * exp(g)': [2.0]}, {}])
def test_no_table_without_both(scores):
    assert paired_section(Scores('test accuracy', scores)) is None


def test_the_verdict_is_on_the_best_that_has_a_name():
    scores = {FOUND: [3.0, 4.0], 'm + m * exp(g)': [0.5, 0.75], 'm * exp(g) + g': [2.0]}  # one seed has no interval
    section = paired_section(Scores('accuracy', {**scores, ADAM: [1.0, 2.0]}))
    assert 'keras.Adam: of 3, 1 is ahead of it by more than the interval, 0 are behind.' in section.says


def test_the_best_is_one_of_those_with_the_most_seeds():
    scores = Scores('BLEU', {'keras.Lion': [9.0], ADAM: [1.0, 2.0], 'm * exp(g) + g': [8.0], FOUND: [3.0, 4.0]})
    assert overview_section({'first': scores}).rows[0][2:5] == ['keras.Adam: 1.5 ± 0.7', f'{FOUND}: 3.5 ± 0.7', '2']
    assert paired_section(scores).head == ['optimizer', 'keras.Adam', 'keras.Lion']


def test_the_overview_sets_the_best_found_against_the_best_that_has_a_name():
    first = Scores('accuracy', {ADAM: [50.0, 51.0, 52.0], FOUND: [50.5, 51.5, 53.0], POWERSIGN: [59.0, 60.0, 61.0]})
    second = Scores('BLEU', {FOUND: [3.0, 4.0], 'm + m * exp(g)': [0.5, 0.75], ADAM: [1.0, 2.0]})
    section = overview_section({'first': first, 'second': second, 'nothing found': Scores('accuracy', {ADAM: [1.0]})})
    assert section.rows == [
        ['first', 'accuracy', 'keras.Adam: 51.0 ± 1.0', f'{FOUND}: 51.7 ± 1.3', '3', '+0.7 ± 0.7 (p 0.057)', '0', '0'],
        ['second', 'BLEU', 'keras.Adam: 1.5 ± 0.7', f'{FOUND}: 3.5 ± 0.7', '2', '+2.0 ± 0.0', '1', '0'],
    ]
    assert overview_section({}) is None
