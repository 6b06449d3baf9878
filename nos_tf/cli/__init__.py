"""The command `nos-tf`: rules, tasks, searches, comparisons, benches and reports; launch/ has a script for each."""

import sys
from collections.abc import Sequence
from importlib import import_module

from nos_tf import output

COMMANDS = {
    'rule': 'what an update rule is, in all notations; --list, --export, --plot',
    'tasks': 'the built-in tasks, and what tuned optimizers reach on them',
    'search': 'a search for update rules, or goes on with one',
    'compare': 'optimizers side by side, or goes on with it',
    'bench': 'which optimizer is better on your task, or goes on with it',
    'report': 'draws a run anew: report.html',
}
UNKNOWN = 2  # exit code, that of argparse for a bad command


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command, and ends the process.

    Args:
        argv: its name and its arguments; None for those of the process.
    """
    given = sys.argv[1:] if argv is None else argv
    name, rest = (given[0], given[1:]) if given else ('', [])
    if name in COMMANDS:
        sys.argv = [f'nos-tf {name}', *rest]
        import_module(f'nos_tf.cli.{name}').main()  # TensorFlow is imported by those that need it
        return
    text = '\n'.join(['usage: nos-tf COMMAND ...', '', *(f'  {key:8} {says}' for key, says in COMMANDS.items())])
    if name in ('-h', '--help'):
        output.say(f'{text}\n\nnos-tf COMMAND --help says more.')
        return
    output.warn(f'{text}\n\nerror: no command {name!r}' if name else text)
    sys.exit(UNKNOWN)
