"""What a comparison of optimizers shows: on a page of its own, and in the report of the search that found some of them.

Which of many optimizers a figure shows, and how, is the same for every kind of comparison.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nos_tf.optimizers.contender import Contender
from nos_tf.report.figures import TAB_10
from nos_tf.report.page import Section, image, readable, write_page
from nos_tf.report.paired_table import Scores, paired_section


class Drawn(NamedTuple):
    """A comparison as a reader sees it."""

    curves: bytes  # PNG
    caption: str
    scores: Scores
    main: Section  # of all optimizers, the best first
    stages: Sequence[Section]  # how well each foretells the next, if there are any
    others: Sequence[Section]  # the last is the configuration

    @property
    def beside_main(self) -> list[Section]:
        """What the report of a search shows too: the differences by seed, and the stages."""
        paired = paired_section(self.scores)
        return [*([paired] if paired else []), *self.stages]


def write_drawn(run_dir: Path, kind: str, drawn: Drawn) -> Path:
    """Writes report.html, curves.png and, without the configuration, tables.md; returns the path of the page."""
    sections = [drawn.main, *drawn.beside_main, *drawn.others]
    (run_dir / 'curves.png').write_bytes(drawn.curves)
    tables = '\n'.join(section.markdown() for section in sections[:-1])
    (run_dir / 'tables.md').write_text(readable(tables), encoding='utf-8')
    body = [image(drawn.curves, drawn.caption), *(section.html() for section in sections)]
    return write_page(run_dir, kind, body)


def in_figure(ranked: Sequence[str]) -> list[str]:
    """The optimizers that a figure has colours for, in the same order: found rules, and the best that have a name."""
    first = sorted(ranked, key=lambda text: Contender(text).is_known)[: len(TAB_10)]
    return [text for text in ranked if text in first]


def dashed_in_figure(shown: Sequence[str]) -> list[str]:
    """Those that have a name, where there are found rules to be told from them."""
    named = [text for text in shown if Contender(text).is_known]
    return named if len(named) < len(shown) else []


def caption_of(what: str, shown: Sequence[str], ranked: Sequence[str]) -> str:
    """What stands below a figure of curves.

    >>> caption_of('accuracy by epoch', ['g * exp(m)', 'keras.SGD'], ['keras.SGD', 'g * exp(m)'])[:73]
    'accuracy by epoch of 2 of 2 optimizers: the mean over seeds, and shaded w'
    """
    how = '; dashed those that have a name' if dashed_in_figure(shown) else ''
    return (
        f'{what} of {len(shown)} of {len(ranked)} optimizers: the mean over seeds, and shaded what lies between the '
        f'least and the most{how}'
    )
