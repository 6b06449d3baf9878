"""The time of one update: our rules beside Keras' optimizers, side by side in one run, rounds interleaved.

python benchmarks/optimizer_step.py --rounds 30

Rows are variables of three kinds: those of the child ConvNet, 10 million weights in five matrices, 300 small vectors.
Every cell is a graph of one update, plain or compiled by XLA, fed with constant gradients: milliseconds, the median of
all rounds of all instances, and the ratio of that median to the one of the optimizer that it is compared with. Two
instances of the same optimizer differ by a tenth, by where their memory and their code happen to lie: so there are
several of each, called in an order that changes every round. The floor is the time in which all cores together copy as
many bytes as the update has to move: gradient and weights read, weights written, each slot read and written.
"""

import argparse
import gc
import os
import platform
import random
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import keras
import numpy as np
import tensorflow as tf

from nos_tf import NOSOptimizer, output

SHAPES: dict[str, list[tuple[int, ...]]] = {
    'child ConvNet': [(3, 3, 3, 32), (32,), (32,), (3, 3, 32, 32), (32,), (32,), (32768, 10), (10,)],
    '10M in 5 matrices': [(2000, 1000)] * 5,
    '300 small vectors': [(100,)] * 300,
}
OPTIMIZERS: dict[str, tuple[Callable[[], keras.optimizers.Optimizer], str, int]] = {  # compared with, slots
    'keras Adam': (lambda: keras.optimizers.Adam(1e-3), '', 2),
    'rule adam': (lambda: NOSOptimizer('adam', 1e-3), 'keras Adam', 2),
    'keras Lion': (lambda: keras.optimizers.Lion(1e-3), '', 1),
    'rule powersign': (lambda: NOSOptimizer('powersign', 1e-3), 'keras Lion', 1),
    'keras SGD(momentum)': (lambda: keras.optimizers.SGD(1e-3, momentum=0.9), '', 1),
    'rule momentum': (lambda: NOSOptimizer('momentum', 1e-3), 'keras SGD(momentum)', 1),
}
Step = Callable[[], object]


def step_of(optimizer: keras.optimizers.Optimizer, shapes: list[tuple[int, ...]], jit: bool) -> tuple[Step, float]:
    """A traced update of new variables of the given shapes, and the seconds that its first call took."""
    numbers = np.random.default_rng(0)
    variables = [keras.Variable(numbers.normal(size=shape).astype(np.float32)) for shape in shapes]
    gradients = [tf.constant(numbers.normal(size=shape).astype(np.float32)) for shape in shapes]
    optimizer.build(variables)

    @tf.function(jit_compile=jit, autograph=False)
    def step() -> None:
        optimizer.apply(gradients, variables)

    start = time.perf_counter()
    step()
    seconds = time.perf_counter() - start
    step()
    return step, seconds


def floor_of(shapes: list[tuple[int, ...]], slots: int, pool: ThreadPoolExecutor) -> Step:
    """Copies as many bytes as an update with so many slots must read and write, on all cores."""
    weights = sum(int(np.prod(shape)) for shape in shapes)
    source = np.ones(weights * (3 + 2 * slots) // 2, np.float32)  # a copy reads and writes each byte
    target = np.empty_like(source)
    cores = os.cpu_count() or 1
    parts = list(zip(np.array_split(target, cores), np.array_split(source, cores), strict=True))
    return lambda: list(pool.map(lambda part: np.copyto(*part), parts))


def time_rounds(runs: dict[str, list[Step]], rounds: int) -> dict[str, float]:
    """The median time of each name, in milliseconds, over its instances and all rounds."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    steps = [(name, step) for name, instances in runs.items() for step in instances]
    for _ in range(rounds):
        for name, step in random.sample(steps, len(steps)):
            start = time.perf_counter()
            step()
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def rows_of(title: str, jit: bool, instances: int, rounds: int) -> list[list[str]]:
    """One table row an optimizer: variables, mode, name, milliseconds, ratio and to what, floor, first step."""
    shapes = SHAPES[title]
    with ThreadPoolExecutor() as pool:
        made = {
            name: [step_of(make(), shapes, jit) for _ in range(instances)] for name, (make, _, _) in OPTIMIZERS.items()
        }
        runs = {name: [step for step, _ in steps] for name, steps in made.items()}
        floors = {slots: f'floor, {slots} slot{"s"[: slots - 1]}' for slots in (1, 2)}
        medians = time_rounds(
            runs | {name: [floor_of(shapes, slots, pool)] * instances for slots, name in floors.items()}, rounds
        )
    gc.collect()
    rows = []
    for name, (_, other, slots) in OPTIMIZERS.items():
        ratio = f'{medians[name] / medians[other]:.2f} of {other}' if other else ''
        over_floor = f'{medians[name] / medians[floors[slots]]:.2f}'
        first = f'{statistics.median(seconds for _, seconds in made[name]):.1f}'
        rows.append([title, 'jit' if jit else 'plain', name, f'{medians[name]:.3f}', ratio, over_floor, first])
    return rows


def machine() -> str:
    """Names the machine and the versions of what was measured."""
    path = Path('/proc/cpuinfo')
    models = (
        [
            line.partition(': ')[2]
            for line in path.read_text(encoding='utf-8').splitlines()
            if line.startswith('model name')
        ]
        if path.exists()
        else []
    )
    versions = f'Python {platform.python_version()}, TensorFlow {tf.__version__}, Keras {keras.__version__}'
    return f'{models[0] if models else platform.processor()}, {os.cpu_count()} cores; {versions}'


def main() -> None:
    """Prints the table, and writes it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=30)
    parser.add_argument('--instances', type=int, default=3, help='of each optimizer')
    arguments = parser.parse_args()
    print(f'{machine()}; {arguments.instances} instances, {arguments.rounds} rounds\n')
    header = ['variables', 'mode', 'optimizer', 'ms', 'ratio', 'ms / floor', 'first step, s']
    print('| ' + ' | '.join(header) + ' |\n' + '|---' * len(header) + '|')
    for title in SHAPES:
        for jit in (False, True):
            for row in rows_of(title, jit, arguments.instances, arguments.rounds):
                print('| ' + ' | '.join(row) + ' |', flush=True)


if __name__ == '__main__':
    output.command(main)
