"""Tables in HTML and in Markdown."""

from nos_tf.report.page import image, markdown, paragraph, table, write_page


def test_what_is_written_is_escaped(tmp_path):
    body = [paragraph('a < b'), table(['<'], [['&']], numbers=[0], shaded=[0]), image(b'x', '"quoted"')]
    text = write_page(tmp_path / '..' / tmp_path.name, 'Kind & sort', body).read_text(encoding='utf-8')
    assert f'<h1>Kind &amp; sort: {tmp_path.name}</h1>' in text
    assert '<p>a &lt; b</p>' in text
    assert '<tr class=baseline><td class=number>&amp;</td></tr>' in text
    assert 'alt="&quot;quoted&quot;" src="data:image/png;base64,eA=="' in text


def test_markdown_aligns_numbers_and_keeps_bars():
    assert markdown(['a', 'b'], [['x|y', '1']], numbers=[1]) == '| a | b |\n| --- | --: |\n| x\\|y | 1 |\n'
