"""Parts of report.html: one self-contained page, whatever it is about, its tables and their cells."""

import base64
import html
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

EDGE = 'Of a learning rate at the edge of those tried (*), one beyond might be better.'

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
div.table {{ overflow-x: auto; margin: 1rem 0 }}
table {{ border-collapse: collapse }}
th, td {{ padding: .25rem .75rem; text-align: left; border-bottom: 1px solid #ddd; vertical-align: top }}
td:first-child {{ white-space: nowrap }}
td.number, th.number {{ text-align: right }}
td.number {{ font-variant-numeric: tabular-nums; white-space: nowrap }}
tr.baseline {{ background: #f3f3f3 }}
figure {{ margin: 1rem 0 2rem }}
figcaption {{ color: #555 }}
img {{ max-width: 100% }}
code {{ font-size: .9em }}
</style>
<h1>{title}</h1>
{body}
</html>
"""


def readable(text: str) -> str:
    r"""Returns a text with names of files in it as UTF-8 has them, whatever the locale they were read in.

    >>> readable(b'l\xc3\xa4uf-\xff'.decode('ascii', 'surrogateescape'))
    'läuf-\\xff'
    """
    return text.encode('utf-8', 'surrogateescape').decode('utf-8', 'backslashreplace')


def write_page(run_dir: Path, kind: str, body: Sequence[str]) -> Path:
    """Writes report.html into a run directory, whose name it bears, and returns its path."""
    page = run_dir / 'report.html'
    title = html.escape(f'{kind}: {run_dir.resolve().name}')
    page.write_text(readable(_PAGE.format(title=title, body='\n'.join(body))), encoding='utf-8')
    return page


def image(png: bytes, alternative: str) -> str:
    """A picture as HTML; the alternative says what it shows, and stands below it."""
    says = html.escape(alternative)
    picture = f'<img alt="{says}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
    return f'<figure>{picture}<figcaption>{says}</figcaption></figure>'


def paragraph(text: str) -> str:
    """Text as HTML."""
    return f'<p>{html.escape(text)}</p>'


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = (), shaded: Sequence[int] = ()
) -> str:
    """A table as HTML.

    Args:
        head: of each column.
        rows: of as many cells.
        numbers: columns that are set flush right.
        shaded: rows on a darker ground.
    """

    def cells(tag: str, row: Sequence[str]) -> str:
        return ''.join(
            f'<{tag}{" class=number" if i in numbers else ""}>{html.escape(cell)}</{tag}>' for i, cell in enumerate(row)
        )

    lines = [f'<tr>{cells("th", head)}</tr>']
    for i, row in enumerate(rows):
        lines.append(f'<tr{" class=baseline" if i in shaded else ""}>{cells("td", row)}</tr>')
    return '<div class=table><table>\n' + '\n'.join(lines) + '\n</table></div>'


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table as Markdown: what `table` takes."""
    rule = ['--:' if i in numbers else '---' for i in range(len(head))]
    lines = [[cell.replace('|', r'\|') for cell in row] for row in (head, rule, *rows)]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines) + '\n'


@dataclass(frozen=True)
class Section:
    """A table under a heading, with a sentence or two that say what it is; without rows they stand alone.

    Args:
        title: heading.
        says: what stands between heading and table; '' for nothing.
        head: of each column.
        rows: of as many cells.
        numbers: columns that are set flush right.
        shaded: rows on a darker ground, where there are any.
    """

    title: str
    says: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[int] = ()
    shaded: Sequence[int] = ()

    def html(self) -> str:
        """It as a part of a page."""
        heading = f'<h2>{html.escape(self.title)}</h2>'
        said = [paragraph(self.says)] if self.says else []
        shown = [table(self.head, self.rows, self.numbers, self.shaded)] if self.rows else []
        return '\n'.join([heading, *said, *shown])

    def markdown(self) -> str:
        """It as Markdown."""
        said = [f'{self.says}\n'] if self.says else []
        shown = [markdown(self.head, self.rows, self.numbers)] if self.rows else []
        return '\n'.join([f'### {self.title}\n', *said, *shown])


def spread(values: Sequence[float], digits: int) -> str:
    """Mean and standard deviation.

    >>> spread([1.0, 2.0], 1), spread([1.0], 1)
    ('1.5 ± 0.7', '1.0')
    """
    deviation = f' ± {np.std(values, ddof=1):.{digits}f}' if len(values) > 1 else ''
    return f'{np.mean(values):.{digits}f}{deviation}'


def at_edge(rate: float, tried: Collection[float]) -> str:
    """A mark for the largest or the smallest of several learning rates: `EDGE` explains it.

    >>> at_edge(1.0, (0.1, 1.0)), at_edge(0.1, (0.01, 0.1, 1.0)), at_edge(1.0, (1.0,))
    ('*', '', '')
    """
    return '*' if len(tried) > 1 and rate in (min(tried), max(tried)) else ''
