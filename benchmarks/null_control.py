"""The reference of `nos-tf bench` against itself on fresh seeds, on every built-in task: a straight ruler reads 1.00.

python benchmarks/null_control.py --run_dir runs/null [--share .5]

Tasks whose seeds differ most have more of them.
"""

import argparse

from nos_tf import output
from nos_tf.compare.bench import Bench
from nos_tf.compare.speedups import SpeedUp, geometric_mean, interquartile_mean
from nos_tf.tasks.builtin import TASKS

SEEDS = {  # so that the interval of the geometric mean is below .05; seeds differ most where they are many
    'digits_mlp': 140,
    'digits_convnet': 140,
    'number_words': 140,
    'diabetes': 400,
    'deep_tanh': 300,
    'wine': 140,
    'ill_conditioned': 140,
}
OTHERS = 30


def main() -> None:
    """Prints the speed-up on each task, and the geometric mean."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0] if __doc__ else None)
    parser.add_argument('--run_dir', required=True)
    parser.add_argument('--share', type=float, default=1.0, help='of the seeds')
    given = parser.parse_args()
    found: dict[str, SpeedUp] = {}
    output.say(f'{"task":20}{"seeds":>5}  {"AdamW":42}{"speed-up of AdamW":22}')
    for name in TASKS:
        seeds = round(given.share * SEEDS.get(name, OTHERS))
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
