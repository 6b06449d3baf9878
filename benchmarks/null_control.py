"""The reference of `nos-tf bench` against itself on fresh seeds, on every built-in task: a straight ruler reads 1.00.

python benchmarks/null_control.py --run_dir runs/null [--share .5] [--first_seed 1000]

Tasks whose seeds differ most have more of them. One null control can be lucky; so the same curves are parted anew at
random, many times, and each time one part is held against the other.
"""

import argparse
from collections.abc import Sequence

import numpy as np

from nos_tf import output
from nos_tf.compare.bench import Bench
from nos_tf.compare.bench_result import TaskResult
from nos_tf.compare.speedups import SpeedUp, geometric_mean, interquartile_mean, speed_up
from nos_tf.tasks.builtin import TASKS

SEEDS = {  # so that the interval of the geometric mean is below .05; seeds differ most where they are many
    'digits_mlp': 140,
    'digits_convnet': 560,
    'number_words': 280,
    'diabetes': 800,
    'deep_tanh': 140,
    'wine': 280,
}
OTHERS = 30
PARTITIONS, GROUP = 40, 30


def main() -> None:
    """Prints the speed-up on each task, and the geometric mean."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0] if __doc__ else None)
    parser.add_argument('--run_dir', required=True)
    parser.add_argument('--share', type=float, default=1.0, help='factor of the number of seeds; at least .5')
    parser.add_argument(
        '--first_seed',
        type=int,
        default=0,
        help='how many to pass over: seeds of an earlier draw',
    )
    given = parser.parse_args()
    found: dict[str, SpeedUp] = {}
    curves: dict[str, tuple[np.ndarray, TaskResult]] = {}
    output.say(f'{"task":20}{"seeds":>5}  {"AdamW":42}{"speed-up of AdamW":22}')
    for name in TASKS:
        seeds = round(given.share * SEEDS.get(name, OTHERS))
        bench = Bench(tasks={name: TASKS[name]()}, contenders=(), seeds=seeds, first_seed=given.first_seed)
        result = bench.run(given.run_dir)
        (task,) = result.tasks
        text, rate = task.setting(result.reference)
        found[name] = result.speed_ups[result.null][name]
        curves[name] = np.concatenate([np.array(task.losses[who]) for who in (result.reference, result.null)]), task
        output.say(f'{name:20}{seeds:5}  {f"{text} at {rate:g}":42}{found[name].estimate!s:22}')
    mean = geometric_mean(list(found.values()))
    output.say(f'geometric mean {mean}, an interval of {mean.high - mean.low:.3f}')
    output.say(f'interquartile mean {interquartile_mean(list(found.values()))}')
    means, covered = partitions(list(curves.values()))
    output.say(
        f'the same curves parted anew at random into two groups of {GROUP}, {PARTITIONS} times: geometric means '
        f'{means.mean():.3f} on average, ± {means.std(ddof=1):.3f} (standard deviation); 1.00 is in {covered:.0%} of '
        'the intervals of a task'
    )


def partitions(tasks: Sequence[tuple[np.ndarray, TaskResult]]) -> tuple[np.ndarray, float]:
    """Returns geometric means of many null controls, [PARTITIONS], and the share of intervals that 1.00 is in.

    Args:
        tasks: all curves of AdamW on a task, [seeds, measures], and the task.
    """
    random = np.random.default_rng(0)
    means, covered = [], []
    for draw in range(PARTITIONS):
        found = []
        for curves, task in tasks:
            ours, theirs = np.split(random.permutation(len(curves))[: 2 * GROUP], 2)
            found.append(speed_up(curves[ours], curves[theirs], np.array(task.steps), task.target, draw=draw))
        means.append(geometric_mean(found).value)
        covered += [one.estimate.low <= 1 <= one.estimate.high for one in found]
    return np.array(means), float(np.mean(covered))


if __name__ == '__main__':
    output.command(main)
