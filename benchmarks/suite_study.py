"""The built-in suite: its rulers, its seconds a rule, and what is lost where hopeless rules are spared.

python benchmarks/suite_study.py rulers --run_dir runs/suite_study      # writes nos_tf/tasks/rulers.csv
python benchmarks/suite_study.py spared --run_dir runs/suite_study

The second trains known rules and random ones on all four tasks, whatever the first of them says, and then reads off for
each threshold how many rules it would have spared, how much time, and which of those that are worth something it would
have lost.
"""

import argparse
import csv
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from nos_tf import SearchSpace, UpdateRule, output
from nos_tf.compare.ruler import find_ruler
from nos_tf.controller.agent import UniformAgent
from nos_tf.dsl.known import KNOWN_RULES
from nos_tf.dsl.screening import why_untrainable
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.evaluation.jobs import Job
from nos_tf.evaluation.machine import use_one_cpu_thread
from nos_tf.evaluation.pool import ProcessPool
from nos_tf.evaluation.speed import xla_pays
from nos_tf.store.results import Result, Store
from nos_tf.store.trainings import training_identity
from nos_tf.tasks.builtin import RULERS, suite, tasks_of_suite
from nos_tf.tasks.child import Child, ChildSetup
from nos_tf.tasks.suite import Gain, Suite

CHILD = Child(refine=True)
ADAM = UpdateRule.parse('adam')
SPACE = SearchSpace(iterations=2, language=2)
RANDOM = 300
NEVER = -1e9
THRESHOLDS = (-2.9, -2.5, -2.0, -1.5, -1.0, -0.5)
GOOD = -0.5  # a reward, in spreads, above which it would be a pity


def write_rulers(run_dir: Path) -> None:
    """Finds the ruler of each task of the suite; what is on file is not trained again."""
    rows = []
    for name, task in tasks_of_suite().items():
        folder = run_dir / 'rulers' / name
        gain = _compiled(Gain(task), folder)
        ruler = find_ruler(gain, gain.untrained, CHILD, ProcessPool(), folder)
        rows.append({'task': name, **ruler._asdict()})
        output.say(f'{name}: {ruler}')
    with RULERS.open('w', encoding='utf-8', newline='') as file:
        table = csv.DictWriter(file, rows[0], lineterminator='\n')
        table.writeheader()
        table.writerows(rows)


def _compiled(gain: Gain, folder: Path) -> Gain:
    """Returns the task with XLA decided, as it was when its ruler was found."""
    known = training_identity(folder).get('KerasTask.jit_compile')
    if known is None:
        known = xla_pays(ChildSetup(CHILD, gain.provisional, Vocabulary()), ADAM, 1000)
    return gain.compiled(known)


def study(run_dir: Path, count: int) -> None:
    """Trains known and random rules on all tasks, and prints what a threshold would have spared."""
    folders = [run_dir / 'rulers' / name for name in tasks_of_suite()]
    tasks: Any = [_compiled(task, folder) for task, folder in zip(suite().tasks, folders, strict=True)]
    rules = [UpdateRule.parse(name) for name in KNOWN_RULES] + _random_rules(count)
    forms = list(dict.fromkeys(CHILD.form_of(rule)[0] for rule in rules))
    setup = ChildSetup(CHILD, Suite(tasks, NEVER), Vocabulary.of(SPACE, forms))
    pool = ProcessPool()
    identity = pool.identity(setup)
    store = Store(run_dir, {'study': 'suite'}, identity, str(setup.task))
    due = [Job(form, 0) for form in forms if store.outcome(form, 0) is None]
    if due:
        pool.start(setup)
        for job in due:
            pool.submit(job)
        done = 0
        while done < len(due):
            for job, outcome in pool.collect():
                store.save_outcomes([Result(job.program, job.seed, outcome)])
                done += 1
                output.say(f'{done}/{len(due)} {outcome.reward:+.2f} {outcome.seconds:.1f} s  {job.program.infix}')
        pool.close()
    outcomes = [store.outcome(form, 0) for form in forms]
    store.close()
    gains = np.array([outcome.sweep for outcome in outcomes if outcome])
    seconds = statistics.mean(outcome.seconds for outcome in outcomes if outcome)
    known = len(dict.fromkeys(CHILD.form_of(UpdateRule.parse(name))[0] for name in KNOWN_RULES))
    output.say(f'{known} known rules and {len(forms) - known} random ones, {seconds:.1f} s a rule on all four tasks')
    report(gains, known)


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


def _random_rules(count: int) -> list[UpdateRule]:
    """Returns distinct random rules that may train."""
    found: dict[UpdateRule, UpdateRule] = {}
    draw = 0
    while len(found) < count:
        for choices in UniformAgent(SPACE, 31).propose(100, draw).choices:
            rule = SPACE.rule(choices)
            if why_untrainable(rule.canonical()) is None and len(found) < count:
                found.setdefault(CHILD.form_of(rule)[0], rule)
        draw += 1
    return list(found.values())


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0] if __doc__ else None)
    parser.add_argument('what', choices=('rulers', 'spared'))
    parser.add_argument('--run_dir', type=Path, required=True)
    parser.add_argument('--rules', type=int, default=RANDOM)
    given = parser.parse_args()
    use_one_cpu_thread()
    write_rulers(given.run_dir) if given.what == 'rulers' else study(given.run_dir, given.rules)


if __name__ == '__main__':
    output.command(main)
