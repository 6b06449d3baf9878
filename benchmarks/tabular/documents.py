"""Tables in their places in a document: what a command printed, and can print again."""

from collections.abc import Mapping
from pathlib import Path


def fill(document: Path, tables: Mapping[str, str]) -> None:
    """Puts each table between `<!-- its name -->` and `<!-- end of its name -->`.

    Raises:
        SystemExit: the document has no such place.
    """
    text = document.read_text(encoding='utf-8')
    for name, table in tables.items():
        before, mark, rest = text.partition(f'<!-- {name} -->\n')
        _, end, after = rest.partition(f'<!-- end of {name} -->')
        if not mark or not end:
            raise SystemExit(f'{document} has no place for a table: <!-- {name} --> to <!-- end of {name} -->')
        text = f'{before}{mark}\n{table}\n\n{end}{after}'
    document.write_text(text, encoding='utf-8')


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table."""
    lines = [head, ['---'] * len(head), *rows]
    return '\n'.join('| ' + ' | '.join(cell.replace('|', r'\|') for cell in line) + ' |' for line in lines)
