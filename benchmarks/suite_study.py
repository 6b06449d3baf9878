"""The built-in suite: its seconds a rule, and what is lost where hopeless rules are spared.

python benchmarks/suite_study.py --run_dir runs/suite_study

Known rules and random ones train on all four tasks, whatever the first of them says. Then it is read off for each
threshold how many rules it would have spared, how much time, and which of those that are worth something it would have
lost.
"""

import argparse
import statistics
from pathlib import Path

import numpy as np
from outcomes import outcomes, random_rules

from nos_tf import SearchSpace, UpdateRule, output
from nos_tf.dsl.known import KNOWN_RULES
from nos_tf.evaluation.machine import use_one_cpu_thread
from nos_tf.tasks.builtin import suite
from nos_tf.tasks.child import Child

CHILD = Child(refine=True)
SPACE = SearchSpace(iterations=2, language=2)
RANDOM, SEED = 300, 31
NEVER = -1e9
THRESHOLDS = (-2.9, -2.5, -2.0, -1.5, -1.0, -0.5)
GOOD = -0.5  # a reward, in spreads, above which it would be a pity


def study(run_dir: Path, count: int) -> None:
    """Trains known and random rules on all tasks, and prints what a threshold would have spared."""
    known = list({CHILD.form_of(rule)[0]: rule for rule in map(UpdateRule.parse, KNOWN_RULES)}.values())
    rules = known + random_rules(SPACE, CHILD, count, SEED)
    found = list(outcomes(run_dir, CHILD, suite(hopeless=NEVER), {rule: [0] for rule in rules}).values())
    seconds = statistics.mean(outcome.seconds for outcome in found)
    output.say(f'{len(known)} known rules and {count} random ones, {seconds:.1f} s a rule on all four tasks')
    report(np.array([outcome.sweep for outcome in found]), len(known))


def report(gains: np.ndarray, known: int) -> None:
    """Prints the table of thresholds.

    Args:
        gains: of each rule on each task, [rules, tasks]; the known ones first.
        known: how many these are.
    """
    whole = gains.mean(1)
    means = np.cumsum(gains, 1) / np.arange(1, gains.shape[1] + 1)
    output.say(f'worth something (mean above {GOOD:g}): {(whole > GOOD).sum()} of {len(whole)}')
    output.say('threshold  spared something  tasks not trained  of those worth something lost  of the known lost')
    for threshold in THRESHOLDS:
        stops = means[:, :-1] <= threshold
        spared = stops.any(1)
        left_out = np.where(spared, gains.shape[1] - 1 - stops.argmax(1), 0).sum() / gains.size
        lost = spared & (whole > GOOD)
        output.say(
            f'{threshold:9.1f}  {spared.mean():16.1%}  {left_out:17.1%}  {lost.sum():29}  {lost[:known].sum():17}'
        )


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0] if __doc__ else None)
    parser.add_argument('--run_dir', type=Path, required=True)
    parser.add_argument('--rules', type=int, default=RANDOM)
    given = parser.parse_args()
    use_one_cpu_thread()
    study(given.run_dir, given.rules)


if __name__ == '__main__':
    output.command(main)
