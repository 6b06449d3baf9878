"""A drill: the ten lines of the README on six kinds of model, as scripts that are killed with -9, and as notebooks.

python tests/drills/own_models.py --folder /tmp/own_models

The script runs to its end; then again, killed three times at random numbers of trainings, and taken up each time; then
as a notebook. All three have to leave the same children, rewards and learner, bit for bit. Whether XLA compiles is left
to them: what the first decides, the others are told, for it is decided by time. Ends with code 1 if anything differs.
"""

import argparse
import random
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.tasks.models import MODELS
from tests.ten_lines import finish, kill_when, rewards, run_notebook, script, start

KILLS = 3


def drill(kind: str, folder: Path, children: int) -> str:
    """Returns what became of a kind of model, in a line."""
    whole, killed, notebook = (folder / name for name in ('whole', 'killed', 'notebook'))
    finish(start(script(kind, whole, children), folder))
    expected = rewards(whole)
    with closing(sqlite3.connect(whole / 'results.sqlite')) as db:
        query = "SELECT value FROM meta WHERE key = 'KerasTask.jit_compile'"
        compiled = db.execute(query).fetchone()[0] == 'true'
    text = script(kind, killed, children, jit_compile=compiled)
    total = len(expected[1])
    for outcomes in sorted(random.sample(range(1, total), KILLS)):
        kill_when(start(text, folder), killed, outcomes)
    finish(start(text, folder))
    run_notebook(script(kind, notebook, children, jit_compile=compiled), folder)
    same = [rewards(run_dir) == expected for run_dir in (killed, notebook)]
    return f'{kind}: {total} trainings, XLA {compiled}, killed {KILLS} times {same[0]}, notebook {same[1]}'


def main() -> int:
    """Prints a line for each kind; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--folder', type=Path, required=True)
    parser.add_argument('--kinds', nargs='+', choices=MODELS, default=list(MODELS))
    parser.add_argument('--children', type=int, default=30)
    parser.add_argument('--seed', type=int, default=0)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    failed = 0
    for kind in arguments.kinds:
        folder = arguments.folder / kind.replace(' ', '_')
        folder.mkdir(parents=True)
        line = drill(kind, folder, arguments.children)
        failed += 'False, notebook' in line or line.endswith('False')
        print(line, flush=True)
    return int(failed > 0)


if __name__ == '__main__':
    sys.exit(main())
