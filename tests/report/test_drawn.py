"""Which optimizers a figure shows, and how a comparison is written."""

from nos_tf.report.drawn import Drawn, caption_of, dashed_in_figure, in_figure, write_drawn
from nos_tf.report.page import Section
from nos_tf.report.paired_table import Scores

FOUND = ['m * exp(v) + m', 'm * exp(gamma) + m']
NAMED = [f'keras.SGD with momentum=0.{n}' for n in range(1, 10)] + ['keras.Adam']


def test_found_rules_have_a_colour_before_those_that_have_a_name_and_are_told_from_them():
    shown = in_figure([*NAMED, *FOUND])
    assert shown == [*NAMED[:8], *FOUND]  # as they were ranked
    assert dashed_in_figure(shown) == NAMED[:8] and dashed_in_figure(NAMED) == []
    assert 'dashed' in caption_of('x', shown, shown) and 'dashed' not in caption_of('x', NAMED, NAMED)


def test_the_tables_are_without_the_configuration(tmp_path):
    main, other, last = (Section(title, '', ['a'], [['b']]) for title in ('Main', 'Other', 'Configuration'))
    page = write_drawn(tmp_path, 'Kind', Drawn(b'png', 'says', Scores('', {}), main, [], [other, last])).read_text()
    tables = (tmp_path / 'tables.md').read_text()
    assert '### Other' in tables and 'Configuration' not in tables and 'Configuration' in page
    assert (tmp_path / 'curves.png').read_bytes() == b'png'
