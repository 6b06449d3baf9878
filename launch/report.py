"""Draws the report of a finished search anew.

python launch/report.py --run_dir runs/quickstart
"""

import argparse
from pathlib import Path

import commandline
from nos_tf.report import report


def draw() -> None:
    """Writes report.html and its figure into the run directory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--run_dir', type=Path, required=True, help='of a finished search')
    print(report.write(parser.parse_args().run_dir))


if __name__ == '__main__':
    commandline.main(draw)
