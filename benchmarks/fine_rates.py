"""Decades against quarter decades: what a rule gains over Adam by where it sits on the grid of learning rates.

python benchmarks/fine_rates.py --run_dir runs/fine_rates
python benchmarks/fine_rates.py --run_dir runs/fine_rates --search runs/digits

The child of gin/digits.gin trains each rule with ten seeds that its search has not seen: with the rates of its sweep
alone, and looking finer around the best. Printed are means, and differences to Adam that are paired by seed, with 95%
intervals by Student's t; p is of the paired t-test, corrected for the number of rules by Holm's method.
With --search the best rules of a run are there too. What was trained is kept.
"""

import argparse
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from optimizer_step import machine

from nos_tf.cli import commandline
from nos_tf.compare.funnel import best_of_search
from nos_tf.compare.paired import Difference, holm
from nos_tf.compare.tuning import TuningSetup, tune
from nos_tf.search.search import Search

REFERENCE = 'adam'
RULES = (REFERENCE, 'adam + adam', 'sign(g) + sign(m)', 'm', 'g', 'rmsprop', 'adam_powersign', 'powersign')


def columns(measures: dict[str, np.ndarray]) -> dict[str, list[str]]:
    """Returns the mean of each rule, its difference to Adam and the corrected p, as text."""
    differences = {text: Difference.of(values, measures[REFERENCE]) for text, values in measures.items()}
    ps = holm({text: difference.p for text, difference in differences.items() if text != REFERENCE})
    cells = {}
    for text, (mean, half_width, _) in differences.items():
        compared = (
            ['', '']
            if text == REFERENCE
            else [f'{mean:+.4f} ± {half_width:.4f}', '–' if math.isnan(ps[text]) else f'{ps[text]:.2g}']
        )
        cells[text] = [f'{measures[text].mean():.4f}', *compared]
    return cells


def main() -> None:
    """Trains what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--gin_files', nargs='+', default=['gin/digits.gin'])
    parser.add_argument('--gin_bindings', nargs='+', default=[])
    parser.add_argument('--run_dir', type=Path, required=True)
    parser.add_argument('--search', type=Path, help='a run whose best ten rules are compared as well')
    parser.add_argument('--seeds', type=int, default=10)
    arguments = parser.parse_args()
    search = commandline.configure(arguments, Search)
    found = best_of_search(str(arguments.search), 10) if arguments.search else {}
    rules = tuple(dict.fromkeys([*RULES, *found]))
    seeds = range(search.child.seed + 101, search.child.seed + 101 + arguments.seeds)
    tables = []
    for name, refine in (('decades', False), ('quarters', True)):
        setup = TuningSetup(search.task, replace(search.child, refine=refine), rules)
        tuned = tune(setup, seeds, search.evaluator, arguments.run_dir / name, title=name)
        tables.append(columns({text: np.array([each.measure for each in of]) for text, of in tuned.items()}))
    print(f'{machine()}; {len(seeds)} seeds\n')
    print('| rule | decades | to Adam | p | quarter decades | to Adam | p |\n|---|--:|--:|--:|--:|--:|--:|')
    for text in rules:
        print('| ' + ' | '.join([f'`{text}`', *(cell for table in tables for cell in table[text])]) + ' |')


if __name__ == '__main__':
    commandline.main(main)
