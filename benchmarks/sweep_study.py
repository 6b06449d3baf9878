"""How to find the best learning rate at quarter decades for less than a whole grid: parabola, golden section, climbing.

python benchmarks/sweep_study.py --table runs/sweep_study.csv

Known rules train on built-in tasks at every quarter decade from 1e-5 to 10, for a sixth of the steps and for all; that
is the table, which grows and is read again. Each strategy is then played on it: it sees the decades at a sixth of the
steps, as `Child` does, and pays for each whole training that it asks for. Printed is how many it asks for, how often it
ends at the rate of the whole grid, and by how much its loss is higher (the mean of the log).
"""

import argparse
import csv
import math
import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import tensorflow as tf
from builtin_tasks import AnyRate
from optimizer_step import machine

from nos_tf import UpdateRule, output
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.evaluation.machine import use_one_cpu_thread
from nos_tf.tasks import builtin
from nos_tf.tasks.child import Child, ChildSetup
from nos_tf.tasks.sweep import QUARTERS, refine

TASKS = ('digits_mlp', 'digits_autoencoder', 'deep_tanh', 'diabetes', 'ill_conditioned', 'text_gru', 'digits_convnet')
RULES = (
    'sgd',
    'momentum',
    'rmsprop',
    'adam',
    'lion',
    'nadam',
    'powersign',
    'addsign',
    'adam_powersign',
    'sign(g) + sign(m)',
    'g + m',
    'rmsprop + adam',
)
LOW, HIGH = -20, 4  # quarter decades
SHARE = 6  # the decades train for one part in so many
Ask = Callable[[int], float]


def whole_grid(ask: Ask, decades: dict[int, float]) -> None:
    """Asks for all within three quarters around the best decade, and the decade."""
    best = min(decades, key=decades.__getitem__)
    for k in range(best - 3, best + 4):
        ask(k)


def halves(ask: Ask, decades: dict[int, float]) -> None:
    """Asks for the best decade, the halves beside it, and the quarters beside the best of these."""
    best = min(decades, key=decades.__getitem__)
    best = min((best - 2, best, best + 2), key=ask)
    min((best - 1, best, best + 1), key=ask)


def golden(ask: Ask, decades: dict[int, float]) -> None:
    """Searches between the decades beside the best one by Fibonacci numbers, which is golden section on a grid."""
    best = min(decades, key=decades.__getitem__)
    low, high = best - 4, best + 4  # eight quarters: 3, 5, 8
    while high - low > 2:
        width = high - low
        step = {8: 3, 5: 2, 3: 1}.get(width, max(1, round(0.382 * width)))
        left, right = low + step, high - step
        if left == right:
            ask(left)
            break
        if ask(left) <= ask(right):
            high = right
        else:
            low = left
    if high - low == 2:
        ask(low + 1)


def climb(ask: Ask, best: int) -> None:
    """Goes on until both neighbours of the best are known to be worse."""
    known = {best: ask(best)}
    while True:
        best = min(known, key=known.__getitem__)
        missing = [k for k in (best - 1, best + 1) if k not in known]
        if not missing:
            return
        falls = [k for k in missing if 2 * best - k in known]  # go on the way that has led down
        k = (falls or missing)[0]
        known[k] = ask(k)


def climbing(ask: Ask, decades: dict[int, float]) -> None:
    """Climbs from the best decade."""
    climb(ask, min(decades, key=decades.__getitem__))


def parabola(ask: Ask, decades: dict[int, float]) -> None:
    """Climbs from the lowest point of the parabola through the best decade and those beside it."""
    best = min(decades, key=decades.__getitem__)
    climb(ask, best + vertex(*(decades.get(k, math.inf) for k in (best - 4, best, best + 4))))


def vertex(left: float, middle: float, right: float) -> int:
    """Returns where a parabola through three points, a decade apart, is lowest: in quarters, from -2 to 2."""
    if not math.isfinite(left + right):
        return 0
    bend = left - 2 * middle + right
    return round(4 * 0.5 * (left - right) / bend) if bend > 0 else 0


def as_the_child(ask: Ask, decades: dict[int, float]) -> None:
    """Asks for what `nos_tf.tasks.sweep.refine` asks for, the best decades first, then halves and quarters."""
    starts = sorted(decades)

    def measure(rate: tf.Tensor, quarter: tf.Tensor) -> tf.Tensor:
        return tf.constant(-ask(starts[int(rate)] + QUARTERS[int(quarter)]), tf.float32)

    refine(tf.constant([-decades[k] for k in starts], tf.float32), measure, tf.constant(True))


STRATEGIES = {
    'grid of seven': whole_grid,
    'halves, then quarters': halves,
    'golden section': golden,
    'climbing': climbing,
    'parabola, climbing': parabola,
    'decades, halves, quarters: `Child.refine`': as_the_child,
}


def measured(task: str, rules: Sequence[str], seed: int) -> list[dict[str, object]]:
    """Trains rules on a task at all rates."""
    value = AnyRate(builtin.TASKS[task]())
    value.decay.assign(0.0)
    loaded = value._task.load()
    vocabulary = Vocabulary.of(None, map(UpdateRule.parse, rules))
    rows = []
    trainer = ChildSetup(Child(learning_rates=(1.0,)), value, vocabulary).trainer()
    for rule in rules:
        for k in range(LOW, HIGH + 1):
            value.rate.assign(10.0 ** (k / 4))
            outcome = trainer.train(UpdateRule.parse(rule), seed)
            rows.append(
                {
                    'task': task,
                    'rule': rule,
                    'seed': seed,
                    'quarter': k,
                    'early': -(outcome.sweep[0] or 0.0),
                    'late': -outcome.reward,
                }
            )
    print(f'{task}: {loaded.steps} steps, sweep {trainer.sweep_steps}', flush=True)
    return rows


def main() -> None:
    """Fills the table, plays all strategies on it, and prints what they cost and find."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--table', type=Path, required=True)
    parser.add_argument('--seeds', type=int, default=1)
    arguments = parser.parse_args()
    use_one_cpu_thread()
    rows: list[dict] = []
    if arguments.table.exists():
        with arguments.table.open(encoding='utf-8', newline='') as file:
            rows = list(csv.DictReader(file))
    there = {(row['task'], int(row['seed'])) for row in rows}
    for task in TASKS:
        for seed in range(1, arguments.seeds + 1):
            if (task, seed) not in there:
                new = measured(task, RULES, seed)
                is_first = not arguments.table.exists()
                with arguments.table.open('a', encoding='utf-8', newline='') as file:
                    writer = csv.DictWriter(file, list(new[0]), lineterminator='\n')
                    if is_first:
                        writer.writeheader()
                    writer.writerows(new)
                rows += new
    play(rows)


def play(rows: Sequence[dict]) -> None:
    """Prints a line for each strategy."""
    late: dict[tuple, dict[int, float]] = {}
    early: dict[tuple, dict[int, float]] = {}
    for row in rows:
        key = row['task'], row['rule'], row['seed']
        late.setdefault(key, {})[int(row['quarter'])] = float(row['late'])
        early.setdefault(key, {})[int(row['quarter'])] = float(row['early'])
    late = {key: curve for key, curve in late.items() if min(curve.values()) < 0.9 * max(curve.values())}
    print(f'{machine()}; {len(late)} bowls of rates\n')
    print('| strategy | whole trainings | the same rate | loss higher by (mean log) | by more than .02 |')
    print('|---|--:|--:|--:|--:|')
    for name, strategy in STRATEGIES.items():
        asked_for, same, excess = [], [], []
        for key, curve in late.items():
            asked: dict[int, float] = {}

            def ask(k: int, curve: dict = curve, asked: dict = asked) -> float:
                return asked.setdefault(k, curve.get(k, math.inf))

            strategy(ask, {k: loss for k, loss in early[key].items() if not k % 4})
            asked_for.append(len(asked))
            same.append(min(asked, key=asked.__getitem__) == min(curve, key=curve.__getitem__))
            excess.append(math.log(min(asked.values()) / min(curve.values())))
        shares = [f'{statistics.mean(same):.0%}', f'{statistics.mean(excess):.4f}']
        far = statistics.mean(x > 0.02 for x in excess)
        print(f'| {name} | {statistics.mean(asked_for):.2f} | {" | ".join(shares)} | {far:.0%} |')


if __name__ == '__main__':
    output.command(main)
