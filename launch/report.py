"""Draws the report of a finished search anew.

python launch/report.py --run_dir runs/quickstart
"""

import commandline
from nos_tf.report import report


def draw() -> None:
    """Writes report.html and its figure into the run directory."""
    arguments = commandline.argument_parser(__doc__).parse_args()
    print(report.write(arguments.run_dir))


if __name__ == '__main__':
    commandline.main(draw)
