"""Draws the report of a run, as `nos-tf report` does, and those of translation too.

python launch/report.py --run_dir runs/quickstart
"""

from functools import partial

from nos_tf.cli import commandline, report
from gnmt import report as translation_report
from gnmt.recipe import Trained as Translator
from nos_tf.store import trainings as training_run

REPORTS = {**report.REPORTS, training_run.name_of(Translator): translation_report}
draw = partial(report.draw, REPORTS)

if __name__ == '__main__':
    commandline.main(draw)
