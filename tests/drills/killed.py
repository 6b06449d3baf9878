"""A drill: a bench, and a search on a suite with more seeds for the best, killed with -9 again and again.

python tests/drills/killed.py --folder /tmp/killed

Each runs to its end; then again, killed three times at random numbers of trainings, and taken up each time. Both have
to leave the same bits, but for the time that things took. Ends with code 1 if anything differs.
"""

import argparse
import csv
import json
import os
import random
import signal
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.ten_lines import finish, kill_when, rewards, start

KILLS = 3
BENCH = """
from nos_tf import bench
from nos_tf.tasks.builtin import digits_mlp, diabetes

tasks = {{'mlp': digits_mlp(), 'diabetes': diabetes()}}
bench(tasks, ('keras.Lion', 'adam_powersign', 'drop10_powersign'), run_dir={run_dir!r}, quick=True)
"""
SUITE = """
from nos_tf import Gain, Search, Suite
from nos_tf.controller.learners import Evolution
from nos_tf.tasks.builtin import diabetes, suite
from nos_tf.tasks.child import Child

first = suite().tasks[0].compiled(False)
second = Gain(diabetes(), reference=0.5, spread=0.1, optimizer='adam', learning_rate=0.03).compiled(False)
learner = Evolution(batch_size=6, population=12, tournament=4)
arguments = {{'child': Child(refine=True), 'seeds': 3, 'promising': 3, 'rescored': 2, 'rescore_seeds': 2}}
Search(Suite([first, second]), run_dir={run_dir!r}, children={children}, learner=learner, **arguments).run()
"""


def trainings(run_dir: Path) -> int:
    """Returns how many trainings of a bench are on file."""
    found = 0
    for path in run_dir.rglob('trainings.sqlite'):
        try:
            with closing(sqlite3.connect(f'{path.as_uri()}?mode=ro', uri=True)) as db:
                found += db.execute('SELECT count(*) FROM trainings').fetchone()[0]
        except sqlite3.OperationalError:  # it has just begun
            continue
    return found


def curves(run_dir: Path) -> list:
    """Returns what a bench has left, without the time it took."""
    with (run_dir / 'curves.csv').open(encoding='utf-8', newline='') as file:
        rows = [{**row, 'step_seconds': ''} for row in csv.DictReader(file)]
    summary = json.loads((run_dir / 'summary.json').read_text(encoding='utf-8'))
    return [rows, [{**task, 'step_seconds': {}} for task in summary['bench']]]


def drill_bench(folder: Path, _: int) -> tuple[bool, int]:
    """Returns whether a bench that was killed has left the same, and how many trainings it had."""
    whole, killed = folder / 'whole', folder / 'killed'
    finish(start(BENCH.format(run_dir=str(whole)), folder), 3600)
    for number in sorted(random.sample(range(1, trainings(whole)), KILLS)):
        process = start(BENCH.format(run_dir=str(killed)), folder)
        while trainings(killed) < number:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    finish(start(BENCH.format(run_dir=str(killed)), folder), 3600)
    return curves(whole) == curves(killed), trainings(whole)


def drill_suite(folder: Path, children: int) -> tuple[bool, int]:
    """Returns whether a search that was killed has left the same, and how many trainings it had."""
    whole, killed = folder / 'whole', folder / 'killed'
    finish(start(SUITE.format(run_dir=str(whole), children=children), folder), 3600)
    expected = rewards(whole)
    for outcomes in sorted(random.sample(range(1, len(expected[1])), KILLS)):
        kill_when(start(SUITE.format(run_dir=str(killed), children=children), folder), killed, outcomes, 3600)
    finish(start(SUITE.format(run_dir=str(killed), children=children), folder), 3600)
    return rewards(killed) == expected, len(expected[1])


DRILLS = {'suite': drill_suite, 'bench': drill_bench}


def main() -> int:
    """Prints a line for each; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--folder', type=Path, required=True)
    parser.add_argument('--children', type=int, default=36)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--only', choices=('suite', 'bench'))
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    whole = True
    for name in ('suite', 'bench') if arguments.only is None else (arguments.only,):
        (arguments.folder / name).mkdir(parents=True)
        same, count = DRILLS[name](arguments.folder / name, arguments.children)
        print(f'{name}: {count} trainings, killed {KILLS} times: the same bits: {same}', flush=True)
        whole &= same
    return int(not whole)


if __name__ == '__main__':
    sys.exit(main())
