"""The reference of `nos-tf bench` against itself on fresh seeds, on every built-in task: a straight ruler reads 1.00.

python benchmarks/null_control.py --run_dir runs/null [--seeds 30]
"""

import argparse

from nos_tf import output
from nos_tf.compare.bench import Bench
from nos_tf.tasks.builtin import TASKS


def main() -> None:
    """Prints the speed-up on each task, and the geometric mean."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0] if __doc__ else None)
    parser.add_argument('--run_dir', required=True)
    parser.add_argument('--seeds', type=int, default=30)
    parser.add_argument('--tuning_seeds', type=int, default=2)
    parser.add_argument('--schedule', default='constant')
    parser.add_argument('--tasks', nargs='*', default=list(TASKS))
    given = parser.parse_args()
    bench = Bench(
        tasks={name: TASKS[name]() for name in given.tasks},
        contenders=(),
        seeds=given.seeds,
        tuning_seeds=given.tuning_seeds,
        schedule=given.schedule,
    )
    result = bench.run(given.run_dir)
    (null,) = result.rows
    output.say(f'{"task":20}{"AdamW at":40}{"speed-up of AdamW":22}')
    for task in result.tasks:
        text, rate = task.setting(result.reference)
        output.say(f'{task.name:20}{f"{rate:g}, {text}":40}{result.speed_ups[result.null][task.name].estimate!s:22}')
    width = null.mean.high - null.mean.low
    output.say(f'geometric mean {null.mean}, an interval of {width:.3f}; interquartile mean {null.interquartile}')


if __name__ == '__main__':
    output.command(main)
