"""What an update rule is: `python -m nos_tf RULE` (the language of Section 3.1, the named rules of Table 1)."""

import argparse
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from nos_tf import output
from nos_tf.dsl.known import HAND_MADE, KNOWN_RULES, TABLE_1, VERSION_2, read_learning_rates
from nos_tf.dsl.rule import UpdateRule
from nos_tf.optimizers.export import FRAMEWORKS, export

BAD_RULE = 2  # exit code, that of argparse for a bad command
FLOAT32_BYTES = 4
LABEL_WIDTH = 16  # characters
NOTE_WIDTH = 110
PLAIN_WIDTH = 200  # characters; a table in a file need not fit a narrow terminal

DESCRIPTION = 'Says what an update rule is: its spellings, its memory, and the known rules that it equals.'
EPILOG = """\
Example: python -m nos_tf 'g * exp(sign(g) * sign(m))'

Rules that are equal by canonical form are one program, bit for bit; rules that are equal by fingerprint have the same
values on random probes, up to rounding; rules of one direction are equal up to a factor.
A rule that begins with -- is given after a -- of its own.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Prints what a rule is, its source for another framework, or the table of known rules.

    Args:
        argv: the arguments; None for those of the process.

    Returns:
        The exit code: 0, or 2 for a text that is no rule, or what cannot be drawn or exported here.
    """
    arguments = _parse_arguments(sys.argv[1:] if argv is None else argv)
    console = output.console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    if arguments.list:
        console.print(_known_rules())
        console.print(_notes(), soft_wrap=True)
        return 0
    try:
        rule = UpdateRule.parse(' '.join(arguments.rule).strip())
        if arguments.plot is not None:
            _plot(rule, Path(arguments.plot.strip()))
        if arguments.export:
            print(export(rule, arguments.export, arguments.name), end='')
            return 0
    except (ValueError, ModuleNotFoundError) as error:
        output.warn(f'error: {error}')
        return BAD_RULE
    drawn = [('picture', arguments.plot.strip())] if arguments.plot else []
    for label, value in (*_describe(rule), *drawn):
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
    parser.add_argument('--export', choices=FRAMEWORKS, help='print an optimizer that needs only this framework')
    parser.add_argument('--name', help='of the optimizer that --export prints')
    parser.add_argument('--plot', metavar='FILE', help='draw the update over g and m, and the rule as a tree')
    # '-x' is a token and '-g' a rule: behind a space, argparse does not take them for options.
    arguments = parser.parse_args([f' {word}' if re.match('-[^-h]', word) else word for word in argv])
    if bool(arguments.rule) == arguments.list:
        parser.error('give a rule, or --list, not both')
    if (arguments.list and arguments.export) or (arguments.name is not None and not arguments.export):
        parser.error('--export goes with a rule, and --name with --export')
    if arguments.list and arguments.plot is not None:
        parser.error('--plot goes with a rule')
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
    direction, factor = rule.direction()
    yield 'direction', f'{direction.infix}{"" if factor == 1 else f", {factor:g} times"}'
    yield 'language', f'version {rule.version}'
    yield 'equals', ', '.join(_equals(rule)) or 'no known rule'


def _slots(rule: UpdateRule) -> str:
    return ' '.join(rule.slots) or 'none'


def _slot_bytes(rule: UpdateRule) -> int:
    return FLOAT32_BYTES * len(rule.slots)


def _equals(rule: UpdateRule) -> Iterator[str]:
    """The known rules that are the same, and how we know; the fingerprint of a stochastic rule knows no more."""
    direction, factor = rule.direction()
    for name in KNOWN_RULES:
        known = UpdateRule.parse(name)
        if known.canonical() == rule.canonical():
            yield f'{name} (by canonical form)'
        elif known.fingerprint() == rule.fingerprint():
            yield f'{name} (by fingerprint)'
        elif known.direction()[0] == direction:
            yield f'{name} ({factor / known.direction()[1]:g} times, by direction)'


def _known_rules() -> Table:
    """A row for each rule, a column for each task that it was tried on."""
    rates = {(row.task, row.rule): f'{row.learning_rate:g}' for row in read_learning_rates()}
    tasks = dict.fromkeys(task for task, _ in rates)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ('name', 'infix', 'slots', 'language'):
        table.add_column(column, no_wrap=column != 'infix', overflow='fold')
    for task in tasks:
        table.add_column(task, justify='right', no_wrap=True)
    for known in KNOWN_RULES.values():
        rule = UpdateRule.parse(known.name)
        version = str(rule.version)
        table.add_row(
            known.name, rule.infix, _slots(rule), version, *(rates.get((task, known.name), '') for task in tasks)
        )
    return table


def _notes() -> str:
    """Says what the columns of tasks are, and where the rules are from."""
    by_hand = ', '.join(f'{known.name} ({known.source})' for known in (*HAND_MADE, *VERSION_2))
    notes = (
        'The column of a task has the learning rate that most often won the sweep of a rule there, one sweep a seed; '
        'rewards and seeds are in nos_tf/dsl/learning_rates.csv, and benchmarks/known_rules.py makes another column.',
        f'From {TABLE_1[0].source}, but for: {by_hand}.',
    )
    return '\n' + '\n'.join(textwrap.fill(note, NOTE_WIDTH) for note in notes)


def _plot(rule: UpdateRule, path: Path) -> None:
    from nos_tf.report import rule_picture  # matplotlib takes its time, and few commands need it

    rule_picture.save(rule, path)


if __name__ == '__main__':
    output.command(main)
