"""What the tables say of children whose rules and rewards are made up."""

from nos_tf.report.search_tables import (
    best_rules_section,
    known_rules_section,
    preferences_section,
    searches_section,
)
from nos_tf.store.results import Run
from tests.rows import make_row, make_rows


def test_the_best_rules_are_counted_in_canonical_form():
    rows = make_rows([0.5, 0.75, 0.5, 0.75, 0.5], ('g', 'm * exp(v)', 'g * 1'))
    section = best_rules_section(rows, 1)
    ((rank, rule, name, alike, reward, rate, slots, times, first),) = section.rows
    assert (rank, rule, name, alike, reward, rate) == ('1', 'm * exp(v)', 'momentum_exp_v', '', '0.750', '0.1')
    assert (slots, times, first) == ('m, v', '2', '1')
    assert [(row[1], row[7], row[8]) for row in best_rules_section(rows).rows] == [
        ('m * exp(v)', '2', '1'),
        ('g', '3', '0'),
    ]


def test_the_best_rules_say_whom_they_are_like():
    rows = make_rows([0.75, 0.5, 0.25, 0.125], ('g', 'm', 'm * exp(v)', 'g + clip(1e-3*w, 1e-5)'))
    assert [row[3] for row in best_rules_section(rows).rows] == ['', '', '2', '1']


def test_a_rule_without_a_learning_rate():
    row = make_row(0.1, 'noise', origin='rejected: reads no gradient')._replace(learning_rate=None)
    assert best_rules_section([row]).rows[0][5] == ''


def test_known_rules_are_known_in_any_spelling_and_drop_as_well():
    rules = ('exp(sign(m) * sign(g)) * g', 'drop(g, 0.3) * exp(sign(g) * sign(m))', 'g * g', 'exp(v) * m')
    section = known_rules_section(make_rows([0.5, 0.25, 0.9, 0.75], rules))
    assert [(row[0], row[2], row[3], row[4]) for row in section.rows] == [
        ('momentum_exp_v', '3', '0.750', '1'),
        ('powersign', '0', '0.500', '1'),
        ('drop30_powersign', '1', '0.250', '1'),
    ]
    assert section.says.startswith('3 of the ')


def test_preferences_are_shares_of_the_choices_of_a_kind():
    rows = [make_row(0.5, 'g + m', i) for i in range(10)] + [make_row(0.5, 'exp(v) * g', i) for i in range(10, 20)]
    shares = {(kind, token): (first, last) for kind, token, first, last in preferences_section(rows).rows}
    assert shares['operand', 'g'] == ('50.0%', '50.0%')
    assert shares['operand', 'm'] == ('50.0%', '0.0%') and shares['operand', 'v'] == ('0.0%', '50.0%')
    assert shares['binary', '+'] == ('100.0%', '0.0%') and shares['binary', '*'] == ('0.0%', '100.0%')
    assert shares['unary', 'x'] == ('100.0%', '50.0%') and shares['unary', 'exp'] == ('0.0%', '50.0%')
    assert 'the first 2 and the last 2 children' in preferences_section(rows).says


def test_searches_side_by_side_tell_what_differs():
    ours = Run(
        {'Search.learner': '@TRPO()', 'Search.seed': 0, 'TRPO.units': 8}, make_rows([0.25, 0.75], ('g', 'm')), 9.6, []
    )
    other = Run({'Search.learner': '@RandomSearch()', 'Search.seed': 0}, make_rows([0.5] * 3, ('g',)), 4.0, [])
    assert searches_section({'ours': ours, 'by chance': other}).rows == [
        ['ours', '', '2', '2', '0.250', '0.750', '0.750', '10'],
        ['by chance', 'Search.learner = "@RandomSearch()"', '3', '1', '0.500', '0.500', '0.500', '4'],
    ]
