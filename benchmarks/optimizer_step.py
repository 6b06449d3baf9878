"""The time of one update: our rules beside Keras' optimizers, side by side in one run, rounds interleaved.

python benchmarks/optimizer_step.py --rounds 15

Rows are variables of three kinds: those of the child ConvNet, 10 million weights in five matrices, 300 small vectors.
Every cell is a graph of one update, plain or compiled by XLA, fed with constant gradients: milliseconds, the median of
the rounds, and in brackets the ratio to the optimizer that it is compared with. The floor is the time of copying as
many bytes as the update has to move: gradient and weights read, weights written, each slot read and written.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import keras
import numpy as np
import tensorflow as tf

from nos_tf import NOSOptimizer

SHAPES: dict[str, list[tuple[int, ...]]] = {
    'child ConvNet': [(3, 3, 3, 32), (32,), (32,), (3, 3, 32, 32), (32,), (32,), (32768, 10), (10,)],
    '10M in 5 matrices': [(2000, 1000)] * 5,
    '300 small vectors': [(100,)] * 300,
}
OPTIMIZERS: dict[str, tuple[Callable[[], keras.optimizers.Optimizer], str]] = {  # and what each is compared with
    'keras Adam': (lambda: keras.optimizers.Adam(1e-3), ''),
    'rule adam': (lambda: NOSOptimizer('adam', 1e-3), 'keras Adam'),
    'keras Lion': (lambda: keras.optimizers.Lion(1e-3), ''),
    'rule powersign': (lambda: NOSOptimizer('powersign', 1e-3), 'keras Lion'),
    'keras SGD(momentum)': (lambda: keras.optimizers.SGD(1e-3, momentum=0.9), ''),
    'rule momentum': (lambda: NOSOptimizer('momentum', 1e-3), 'keras SGD(momentum)'),
}


def step_of(optimizer: keras.optimizers.Optimizer, shapes: list[tuple[int, ...]], jit: bool) -> Callable[[], None]:
    """A traced update of new variables of the given shapes."""
    random = np.random.default_rng(0)
    variables = [keras.Variable(random.normal(size=shape).astype(np.float32)) for shape in shapes]
    gradients = [tf.constant(random.normal(size=shape).astype(np.float32)) for shape in shapes]
    optimizer.build(variables)

    @tf.function(jit_compile=jit, autograph=False)
    def step() -> None:
        optimizer.apply(gradients, variables)

    for _ in range(3):
        step()
    return step


def floor_of(shapes: list[tuple[int, ...]], slots: int) -> Callable[[], None]:
    """Copies as many bytes as an update with so many slots must read and write."""
    weights = sum(int(np.prod(shape)) for shape in shapes)
    source = np.ones(weights * (3 + 2 * slots) // 2, np.float32)  # a copy reads and writes each byte
    target = np.empty_like(source)
    return lambda: np.copyto(target, source)


def main() -> None:
    """Prints a table for each kind of variables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=15)
    arguments = parser.parse_args()
    for title, shapes in SHAPES.items():
        for jit in (False, True):
            runs = {name: step_of(make(), shapes, jit) for name, (make, _) in OPTIMIZERS.items()}
            runs |= {f'floor, {slots} slots': floor_of(shapes, slots) for slots in (1, 2)}
            times: dict[str, list[float]] = {name: [] for name in runs}
            for _ in range(arguments.rounds):
                for name, run in runs.items():
                    start = time.perf_counter()
                    run()
                    times[name].append(1000 * (time.perf_counter() - start))
            print(f'\n{title}, {"jit_compile=True" if jit else "plain"}, ms')
            for name, values in times.items():
                _, other = OPTIMIZERS.get(name, (None, ''))
                ratios = [mine / theirs for mine, theirs in zip(values, times.get(other, []), strict=False)]
                shown = f'  ({statistics.median(ratios):.2f} of {other})' if ratios else ''
                print(f'{name:22}{statistics.median(values):9.3f}{shown}')


if __name__ == '__main__':
    main()
