"""Draws the report of a search, finished or under way, of a comparison or of a bench anew.

nos-tf report --run_dir runs/quickstart
"""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from nos_tf.cli import commandline
from nos_tf import output
from nos_tf.report import bench_report, comparison_report, report
from nos_tf.store import trainings as training_run
from nos_tf.tasks.training import Trained

REPORTS = {training_run.name_of(Trained): comparison_report}
"""What draws comparisons, by the kind of their trainings."""


def draw(reports: Mapping[str, ModuleType] = REPORTS) -> None:
    """Writes report.html and its figures into the run directory.

    Args:
        reports: what draws comparisons, by the kind of their trainings.
    """
    parser = commandline.argument_parser(__doc__)
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
    if bench_report.is_bench(arguments.run_dir):
        output.say(str(bench_report.write(arguments.run_dir)))
    elif kind is None:
        drawers = {name: module.draw for name, module in reports.items()}
        output.say(str(report.write(arguments.run_dir, arguments.beside, drawers)))
    elif arguments.beside:
        parser.error(f'argument --beside: {arguments.run_dir} holds a comparison itself, and no search')
    else:
        output.say(str(reports.get(kind, comparison_report).write(arguments.run_dir)))


def main() -> None:
    """Runs the command."""
    commandline.main(draw)
