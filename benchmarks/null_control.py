"""The reference of `nos-tf bench` against itself on fresh seeds, on every built-in task: a straight ruler reads 1.00.

python benchmarks/null_control.py --run_dir runs/null [--seeds 30]

Tasks whose seeds differ most have more of them.
"""

import argparse

from nos_tf import output
from nos_tf.compare.bench import Bench
from nos_tf.compare.speedups import SpeedUp, geometric_mean, interquartile_mean
from nos_tf.tasks.builtin import TASKS

NOISY = ('digits_mlp', 'digits_convnet', 'number_words', 'diabetes', 'deep_tanh')  # whose seeds differ most


def main() -> None:
    """Prints the speed-up on each task, and the geometric mean."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0] if __doc__ else None)
    parser.add_argument('--run_dir', required=True)
    parser.add_argument('--seeds', type=int, default=30)
    parser.add_argument('--noisy_seeds', type=int, default=140, help=f'on {", ".join(NOISY)}')
    given = parser.parse_args()
    found: dict[str, SpeedUp] = {}
    output.say(f'{"task":20}{"seeds":>5}  {"AdamW":42}{"speed-up of AdamW":22}')
    for name in sorted(TASKS, key=lambda name: name not in NOISY):
        seeds = given.noisy_seeds if name in NOISY else given.seeds
        result = Bench(tasks={name: TASKS[name]()}, contenders=(), seeds=seeds).run(given.run_dir)
        (task,) = result.tasks
        text, rate = task.setting(result.reference)
        found[name] = result.speed_ups[result.null][name]
        output.say(f'{name:20}{seeds:5}  {f"{text} at {rate:g}":42}{found[name].estimate!s:22}')
    mean = geometric_mean(list(found.values()))
    output.say(f'geometric mean {mean}, an interval of {mean.high - mean.low:.3f}')
    output.say(f'interquartile mean {interquartile_mean(list(found.values()))}')


if __name__ == '__main__':
    output.command(main)
