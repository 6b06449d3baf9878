"""Draws the report of a search, finished or under way, or of a comparison anew, in translation too.

python launch/report.py --run_dir runs/quickstart
"""

from pathlib import Path

import commandline
from gnmt import report as translation_report
from gnmt.recipe import Trained as Translator
from nos_tf.report import comparison_report, report
from nos_tf.store import trainings as training_run
from nos_tf.tasks.training import Trained

REPORTS = {training_run.name_of(Trained): comparison_report, training_run.name_of(Translator): translation_report}
"""What draws comparisons, by the kind of their trainings."""


def draw() -> None:
    """Writes report.html and its figures into the run directory."""
    parser = commandline.argument_parser(__doc__ or '')
    parser.add_argument(
        '--beside',
        nargs='+',
        action='extend',
        type=Path,
        default=[],
        metavar='DIR',
        help='to be shown with a search: other searches, and comparisons of what was found',
    )
    arguments = parser.parse_args()
    kind = training_run.kind_of(arguments.run_dir)
    if kind is None:
        drawers = {name: module.draw for name, module in REPORTS.items()}
        print(report.write(arguments.run_dir, arguments.beside, drawers))
    elif arguments.beside:
        parser.error(f'argument --beside: {arguments.run_dir} holds a comparison itself, and no search')
    else:
        print(REPORTS.get(kind, comparison_report).write(arguments.run_dir))


if __name__ == '__main__':
    commandline.main(draw)
