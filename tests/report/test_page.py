"""Tables in HTML and in Markdown."""

import math

import pytest

from nos_tf.report.page import Section, at_edge, image, markdown, paragraph, spread, table, write_page


def test_what_is_written_is_escaped(tmp_path):
    body = [paragraph('a < b'), table(['<'], [['&']], numbers=[0], shaded=[0]), image(b'x', '"quoted"')]
    text = write_page(tmp_path / '..' / tmp_path.name, 'Kind & sort', body).read_text(encoding='utf-8')
    assert f'<h1>Kind &amp; sort: {tmp_path.name}</h1>' in text
    assert '<p>a &lt; b</p>' in text
    assert '<tr class=baseline><td class=number>&amp;</td></tr>' in text
    assert 'alt="&quot;quoted&quot;" src="data:image/png;base64,eA=="' in text


def test_markdown_aligns_numbers_and_keeps_bars():
    assert markdown(['a', 'b'], [['x|y', '1']], numbers=[1]) == '| a | b |\n| --- | --: |\n| x\\|y | 1 |\n'


def test_a_section_says_the_same_in_html_and_in_markdown():
    section = Section('Heads & tails', 'What it is.', ['side', 'count'], [['head', '3']], (1,), [0])
    assert section.html().startswith('<h2>Heads &amp; tails</h2>\n<p>What it is.</p>\n<div class=table><table>')
    assert '<tr class=baseline><td>head</td><td class=number>3</td></tr>' in section.html()
    told = '### Heads & tails\n\nWhat it is.\n\n| side | count |\n| --- | --: |\n| head | 3 |\n'
    assert section.markdown() == told
    assert Section('a', '', ['b'], [['c']]).markdown() == '### a\n\n| b |\n| --- |\n| c |\n'
    empty = Section('a', 'None was found.', ['b'], [])
    assert empty.html() == '<h2>a</h2>\n<p>None was found.</p>' and empty.markdown() == '### a\n\nNone was found.\n'


def test_a_spread_is_the_standard_deviation_of_a_sample():
    # mean 5/3; deviations -7/6, 1/3, 5/6: squares add up to 13/6
    assert spread([0.5, 2.0, 2.5], 3) == f'1.667 ± {math.sqrt(13 / 12):.3f}'
    assert spread([0.75], 1) == '0.8'


@pytest.mark.parametrize(('rate', 'mark'), [(0.01, '*'), (0.1, ''), (1.0, '*')])
def test_a_rate_at_either_edge_is_marked(rate, mark):
    assert at_edge(rate, [1.0, 0.01, 0.1]) == mark


def test_a_single_rate_has_no_edge():
    assert at_edge(0.1, [0.1]) == ''
