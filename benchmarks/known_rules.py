"""The best learning rate of each known rule on a task, for `python -m nos_tf --list`.

python benchmarks/known_rules.py --gin_files gin/digits.gin --task digits --seeds 9

Every rule goes through the procedure of the child that gin describes, the sweep and the training, once a seed; the
seeds are those on which a search of the same configuration rescores. The learning rate of a rule is the one that most
often won the sweep, the smaller one of equals; the reward is that of the whole procedure, each seed at the winner of
its own sweep. The rows of the task in nos_tf/dsl/learning_rates.csv are written anew, those of other tasks stay.

Trainings are filed in the run directory as they end, and the same command goes on where it was stopped. The digits take
a minute or two on two cores.
"""

import argparse
import csv
import dataclasses
import io
import math
from collections.abc import Iterable
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np

from nos_tf.cli import commandline
from nos_tf import Search, UpdateRule
from nos_tf.dsl.known import KNOWN_RULES, LEARNING_RATES_FILE, LearningRate, read_learning_rates
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.evaluation.machine import use_one_cpu_thread
from nos_tf.files import write_text
from nos_tf.search.display import Display
from nos_tf.search.rescore import Score, rescore
from nos_tf.search.trials import Queue
from nos_tf.store.results import Store


def score_rules(search: Search, names: list[str], seeds: int, run_dir: Path) -> list[Score]:
    """Known rules on fresh seeds, the best first; only what the run directory does not hold is trained."""
    use_one_cpu_thread()
    fresh = [search.child.seed + 1 + i for i in range(seeds)]
    total = len(names) * seeds
    setup = dataclasses.replace(search.setup, vocabulary=Vocabulary.of(None, map(UpdateRule.parse, names)))
    identity = search.evaluator.identity(setup)
    with ExitStack() as stack:
        store = stack.enter_context(closing(Store(run_dir, identity, identity, str(search.task))))
        search.evaluator.start(setup)
        stack.callback(search.evaluator.close)
        say = stack.enter_context(Display(total, 0)).busy
        queue = Queue(store, search.evaluator, setup)
        return rescore({}, names, fresh, lambda jobs: queue.train(jobs, lambda done: say('trained', done, total)))


def update_table(path: Path, rows: Iterable[LearningRate]) -> None:
    """Puts rows into the file, in place of those of the same task and rule; tasks in the order of their coming."""
    table = {(row.task, row.rule): row for row in (*read_learning_rates(path), *rows)}
    tasks, names = list(dict.fromkeys(task for task, _ in table)), list(KNOWN_RULES)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(LearningRate._fields)
    for key in sorted(table, key=lambda key: (tasks.index(key[0]), names.index(key[1]))):
        row = table[key]
        writer.writerow((*key, f'{row.learning_rate:g}', f'{row.reward_mean:.4f}', f'{row.reward_sd:.4f}', row.seeds))
    write_text(path, text.getvalue())


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--gin_files', nargs='+', default=['gin/digits.gin'])
    parser.add_argument('--gin_bindings', nargs='+', default=[])
    parser.add_argument('--task', required=True, help='the name of the column')
    parser.add_argument('--seeds', type=int, default=9, help='at least 2')
    parser.add_argument('--rules', nargs='+', default=list(KNOWN_RULES), choices=list(KNOWN_RULES), metavar='NAME')
    parser.add_argument('--run_dir', type=Path, help='runs/known_rules_TASK unless it is given')
    parser.add_argument('--table', type=Path, default=LEARNING_RATES_FILE, help='the file to write')
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error('--seeds: a standard deviation needs two at least')
    arguments.run_dir = arguments.run_dir or Path('runs', f'known_rules_{arguments.task}')
    return arguments


def main() -> None:
    """Trains what is missing, writes the rows of the task and prints them, the best rule first."""
    arguments = _parse_arguments()
    search = commandline.configure(arguments, Search)
    rows = [
        LearningRate(
            task=arguments.task,
            rule=score.name,
            learning_rate=score.learning_rate or math.nan,
            reward_mean=float(np.mean(score.rewards)),
            reward_sd=float(np.std(score.rewards, ddof=1)),
            seeds=arguments.seeds,
        )
        for score in score_rules(search, arguments.rules, arguments.seeds, arguments.run_dir)
    ]
    update_table(arguments.table, rows)
    print(f'{"rule":34}{"learning rate":>13}{"reward":>9}{"sd":>8}')
    for row in rows:
        print(f'{row.rule:34}{row.learning_rate:13g}{row.reward_mean:9.3f}{row.reward_sd:8.3f}')


if __name__ == '__main__':
    commandline.main(main)
