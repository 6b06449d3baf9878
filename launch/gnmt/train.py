r"""Compares update rules in machine translation with a network as GNMT's (Section 5.3, Table 2); goes on where it was.

python launch/gnmt/train.py --gin_files gin/gnmt_numbers.gin --run_dir runs/numbers --rules keras.Adam powersign
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # launch/, whose commandline and gnmt this is part of

from nos_tf.cli import commandline
from gnmt import corpora as _corpora  # noqa: F401  (gin files name what these modules register)
from gnmt import places as _places  # noqa: F401
from gnmt import report
from gnmt.transfer import Transfer
from nos_tf.errors import RunError
from nos_tf.evaluation.cluster.config import check_used


def transfer() -> None:
    """Runs the comparison that gin describes, or takes it up where it stopped, and reports."""
    parser = commandline.configured_parser(__doc__ or '')
    parser.add_argument('--rules', nargs='+', metavar='RULE', help='optimizers, in place of those that gin names')
    parser.usage = f'{parser.usage} [--rules RULE ...]'
    arguments = commandline.parse_arguments(parser)
    if arguments.rules:
        arguments.gin_bindings.append(f'Transfer.rules = {tuple(arguments.rules)!r}')
    try:
        comparison = commandline.configure(arguments, Transfer)
        check_used(getattr(comparison.evaluator, 'on_cluster', False), 'add gin/gnmt_cluster.gin to --gin_files')
        comparison.run(arguments.run_dir, allow_mixed=arguments.allow_mixed)
    except ValueError as error:
        raise RunError(str(error)) from error
    print(report.write(arguments.run_dir))


if __name__ == '__main__':
    commandline.main(transfer)
