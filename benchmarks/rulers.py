"""Finds the ruler of each task on a list: tuned Adam's loss there, and how much known rules differ.

python benchmarks/rulers.py --run_dir runs/rulers      # adds rows to nos_tf/tasks/builtin/rulers.csv

Rows that are there stay: a gain is measured against them for good. What is on file in the run directory is not trained
again. A task takes as long as 76 rules with two seeds, one to ten minutes of two cores.
"""

import argparse
import csv
from pathlib import Path

from nos_tf import UpdateRule, output
from nos_tf.compare.ruler import find_ruler
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.evaluation.machine import use_one_cpu_thread
from nos_tf.evaluation.pool import ProcessPool
from nos_tf.evaluation.speed import xla_pays
from nos_tf.store.trainings import training_identity
from nos_tf.tasks.builtin import ruled_tasks
from nos_tf.tasks.builtin.lists import RULERS
from nos_tf.tasks.child import Child, ChildSetup
from nos_tf.tasks.suite import Gain

CHILD = Child(refine=True)
TRAININGS = 1000  # about as many as a ruler takes


def compiled(gain: Gain, folder: Path) -> Gain:
    """Returns a task with the use of XLA decided: as in the trainings on file, if there are any, else by trying."""
    known = training_identity(folder).get('KerasTask.jit_compile')
    if known is None:
        setup = ChildSetup(CHILD, gain.provisional, Vocabulary())
        known = xla_pays(setup, UpdateRule.parse('adam'), TRAININGS)
    return gain.compiled(known)


def main() -> None:
    """Finds what is missing, and writes it as it comes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--run_dir', type=Path, required=True)
    arguments = parser.parse_args()
    use_one_cpu_thread()
    with RULERS.open(encoding='utf-8', newline='') as file:
        rows = {row['task']: row for row in csv.DictReader(file)}
    tasks = ruled_tasks()
    for name in [name for name in tasks if name not in rows]:
        folder = arguments.run_dir / name
        gain = compiled(Gain(tasks[name]), folder)
        ruler = find_ruler(gain, gain.untrained, CHILD, ProcessPool(), folder)
        rows[name] = {'task': name, **ruler._asdict()}
        output.say(f'{name}: {ruler}')
        with RULERS.open('w', encoding='utf-8', newline='') as file:
            table = csv.DictWriter(file, rows[name], lineterminator='\n')
            table.writeheader()
            table.writerows(rows[name] for name in tasks if name in rows)


if __name__ == '__main__':
    output.command(main)
