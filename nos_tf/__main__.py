"""What an update rule is: `python -m nos_tf RULE` (the language of Section 3.1, the named rules of Table 1)."""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nos_tf.dsl.known import KNOWN_RULES
from nos_tf.dsl.rule import UpdateRule

BAD_RULE = 2  # exit code, that of argparse for a bad command
FLOAT32_BYTES = 4
LABEL_WIDTH = 16  # characters
PLAIN_WIDTH = 200  # characters; a table in a file need not fit a narrow terminal

DESCRIPTION = 'Says what an update rule is: its spellings, its memory, and the known rules that it equals.'
EPILOG = """\
Example: python -m nos_tf 'g * exp(sign(g) * sign(m))'

Rules that are equal by canonical form are one program, bit for bit; rules that are equal by fingerprint have the same
values on random probes, up to rounding. A rule that begins with -- is given after a -- of its own.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Prints what a rule is, or the table of known rules.

    Args:
        argv: the arguments; None for those of the process.

    Returns:
        The exit code: 0, or 2 for a text that is no rule.
    """
    arguments = _parse_arguments(sys.argv[1:] if argv is None else argv)
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    if arguments.list:
        console.print(_known_rules())
        return 0
    try:
        rule = UpdateRule.parse(' '.join(arguments.rule).strip())
    except ValueError as error:
        print(f'error: {error}', file=sys.stderr)
        return BAD_RULE
    for label, value in _describe(rule):
        console.print(Text.assemble((f'{label:{LABEL_WIDTH}}', 'bold'), value), soft_wrap=True)
    return 0


def _parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m nos_tf',
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        'rule', nargs='*', metavar='RULE', help='infix, tokens (with or without quotes) or the name of a known rule'
    )
    parser.add_argument('--list', action='store_true', help='the known rules, instead of one rule')
    # '-x' is a token and '-g' a rule: behind a space, argparse does not take them for options.
    arguments = parser.parse_args([f' {word}' if re.match('-[^-h]', word) else word for word in argv])
    if bool(arguments.rule) == arguments.list:
        parser.error('give a rule, or --list')
    return arguments


def _describe(rule: UpdateRule) -> Iterator[tuple[str, str]]:
    """Lines of a label and a value."""
    canonical, adam = rule.canonical(), UpdateRule.parse('adam')
    yield 'infix', rule.infix
    yield 'tokens', ' '.join(rule.tokens)
    yield 'LaTeX', rule.latex
    yield 'iterations', str(rule.iterations)
    yield 'slots', f'{_slots(rule)}: {_slot_bytes(rule)} bytes per parameter in float32 (Adam: {_slot_bytes(adam)})'
    yield 'stochastic', 'yes' if rule.is_stochastic else 'no'
    yield 'reads gradient', 'yes' if rule.reads_gradient else 'no'
    yield 'canonical form', canonical.infix
    yield '', ' '.join(canonical.tokens)
    yield 'equals', ', '.join(_equals(rule)) or 'no known rule'


def _slots(rule: UpdateRule) -> str:
    return ' '.join(rule.slots) or 'none'


def _slot_bytes(rule: UpdateRule) -> int:
    return FLOAT32_BYTES * len(rule.slots)


def _equals(rule: UpdateRule) -> Iterator[str]:
    """The known rules that are the same, and how we know; the fingerprint of a stochastic rule knows no more."""
    for name in KNOWN_RULES:
        known = UpdateRule.parse(name)
        if known.canonical() == rule.canonical():
            yield f'{name} (by canonical form)'
        elif known.fingerprint() == rule.fingerprint():
            yield f'{name} (by fingerprint)'


def _known_rules() -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ('name', 'infix', 'slots', 'source'):
        table.add_column(column, no_wrap=column in ('name', 'slots'), overflow='fold')
    for known in KNOWN_RULES.values():
        rule = UpdateRule.parse(known.name)
        table.add_row(known.name, rule.infix, _slots(rule), known.source)
    return table


if __name__ == '__main__':
    sys.exit(main())
