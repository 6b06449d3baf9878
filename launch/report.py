"""Draws the report of a search, finished or under way, or of a comparison anew.

python launch/report.py --run_dir runs/quickstart
"""

import commandline
from nos_tf.report import comparison_report, report
from nos_tf.search import trainings


def draw() -> None:
    """Writes report.html and its figure into the run directory."""
    run_dir = commandline.argument_parser(__doc__).parse_args().run_dir
    is_comparison = (run_dir / trainings.FILE_NAME).exists()
    print(comparison_report.write(run_dir) if is_comparison else report.write(run_dir))


if __name__ == '__main__':
    commandline.main(draw)
