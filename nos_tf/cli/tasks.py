"""Lists the built-in tasks: what each is good for, its size, and the validation loss that tuned optimizers reach.

nos-tf tasks
"""

import csv
import inspect

from rich.table import Table

from nos_tf.cli import commandline
from nos_tf import output
from nos_tf.tasks import builtin

RATE = '_rate'  # ends the names of columns of learning rates
PLAIN_WIDTH = 200  # characters; a table in a file need not fit a narrow terminal


def tasks() -> None:
    """Prints two tables."""
    commandline.bare_parser(__doc__).parse_args()
    console = output.console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    with builtin.FIGURES.open(encoding='utf-8', newline='') as file:
        rows = list(csv.DictReader(file))
    described = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ('task', 'options', 'what it is'):
        described.add_column(heading, no_wrap=heading != 'what it is')
    for name, make in builtin.TASKS.items():
        options = ', '.join(inspect.signature(make).parameters)
        described.add_row(name, options, ' '.join((inspect.getdoc(make) or '').partition('Args:')[0].split()))
    measured = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    headings = [heading for heading in rows[0] if not heading.endswith(RATE)]
    for heading in headings:
        measured.add_column(heading, justify='left' if heading == 'task' else 'right', no_wrap=True)
    for row in rows:
        rates = {name: f' at {row[name + RATE]}' for name in headings if name + RATE in row}
        measured.add_row(*(row[name] + rates.get(name, '') for name in headings))
    console.print(described)
    console.print(
        '\nIn the small size: seconds of one training on one thread, and the validation loss of tuned optimizers, each '
        'at its best learning rate.\n'
    )
    console.print(measured)
    console.print('\nIn gin: Search.task = @digits_mlp(); in Python: nos_tf.tasks.builtin.digits_mlp(large=True).')
    console.print('Four of them as one reward: @suite(); six others, to choose by: @validation() (docs/tasks.md).')


def main() -> None:
    """Runs the command."""
    commandline.main(tasks)
