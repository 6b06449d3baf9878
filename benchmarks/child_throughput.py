"""Training a child: our graph beside Keras' `fit` and PyTorch, one thread, rounds interleaved.

python benchmarks/child_throughput.py --rounds 7
python benchmarks/child_throughput.py --rounds 7 --kinds
python benchmarks/child_throughput.py --rounds 7 --kinds GRU transformer

With --kinds, six kinds of Keras model, as `KerasTask` trains them, with XLA and without, beside `fit` of the same model
on the same data in batches of the same size, with momentum. The paper's ConvNet is there as people write it in Keras.
Where XLA takes more than ten times as long for a step, as it does for large convolutions on a CPU, it is timed once.

Without, every contender trains the ConvNet of Section 4.2 on the same images in batches of 100, with momentum.
Milliseconds are those of a step, the median of the rounds. The share is of the machine's peak, the rate at which one
thread multiplies large matrices, measured in the same rounds; the work of a step is counted as the multiplications of
its convolutions and of its classifier, forward and backward. Real CIFAR-10 is used where tensorflow-datasets finds it,
noise otherwise; PyTorch where it is installed.
"""

import argparse
import dataclasses
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import keras
import numpy as np
import tensorflow as tf
from optimizer_step import machine

from nos_tf import UpdateRule, output
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.evaluation.machine import use_one_cpu_thread
from nos_tf.evaluation.speed import clocked
from nos_tf.tasks import builtin
from nos_tf.tasks.child import Child, ChildSetup
from nos_tf.tasks.convnet import ConvNet, ImageClassification
from nos_tf.tasks.data import Images, Split, TfdsImages
from nos_tf.tasks.keras_task import KerasTask
from nos_tf.tasks.task import Task

BATCH = 100
STEPS = 30
VALIDATION = 10  # images: what is timed is training
FILTERS = 32
SIDE, CHANNELS, CLASSES = 32, 3, 10
PEAK = 'matrix product'
PRODUCTS = 16  # of a round: as long as a round of steps takes, for a processor is faster in short bursts
LEARNING_RATE = 0.01


@dataclass(frozen=True)
class FewImages:
    """An image source of a few arrays."""

    split: Split

    def load(self) -> Images:
        """The images."""
        return Images('few', CLASSES, self.split, self.split.head(VALIDATION), self.split.head(VALIDATION))


def load_split() -> Split:
    """Enough images for one round."""
    try:
        return TfdsImages('cifar10', download=False).load().train.head(BATCH * STEPS)
    except (FileNotFoundError, ValueError) as error:
        print(f'{error}\nNoise takes the place of CIFAR-10: the time of a step does not depend on it.')
        random = np.random.default_rng(0)
        images = random.normal(size=[BATCH * STEPS, SIDE, SIDE, CHANNELS]).astype(np.float32)
        return Split(images, random.integers(0, CLASSES, BATCH * STEPS).astype(np.int32))


def ours(split: Split, **network: bool) -> Callable[[], object]:
    """One epoch of our own child."""
    task = ImageClassification(FewImages(split), ConvNet(FILTERS, **network), epochs=1, batch_size=BATCH)
    trainer = ChildSetup(Child((LEARNING_RATE,)), task, Vocabulary(1)).trainer()
    return lambda: trainer.train(UpdateRule.parse('momentum'))


def fit(split: Split, *, pipeline: bool, jit: bool | str) -> Callable[[], object]:
    """One epoch of the same network as people write it in Keras."""
    model = convnet()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(LEARNING_RATE, momentum=0.9), loss, jit_compile=jit)
    if pipeline:
        data = tf.data.Dataset.from_tensor_slices((split.images, split.labels)).shuffle(BATCH * STEPS)
        batches = data.batch(BATCH).prefetch(1)
        return lambda: model.fit(batches, epochs=1, shuffle=False, verbose=0)
    return lambda: model.fit(split.images, split.labels, batch_size=BATCH, epochs=1, verbose=0)


def torch_eager(split: Split, *, channels_last: bool) -> Callable[[], object]:
    """One epoch of the same network in PyTorch."""
    import torch

    torch.set_num_threads(1)
    layers = [
        layer
        for channels in (CHANNELS, FILTERS)
        for layer in (
            torch.nn.Conv2d(channels, FILTERS, 3, padding=1, bias=False),
            torch.nn.BatchNorm2d(FILTERS),
            torch.nn.ReLU(),
        )
    ]
    model = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(SIDE * SIDE * FILTERS, CLASSES))
    images = torch.from_numpy(split.images.transpose(0, 3, 1, 2).copy())
    labels = torch.from_numpy(split.labels.astype(np.int64))
    if channels_last:
        model, images = model.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, momentum=0.9)

    def epoch() -> None:
        for batch in torch.randperm(len(labels)).split(BATCH):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()

    return epoch


def paper_convnet() -> KerasTask:
    """The network of Section 4.2 as people write it in Keras, on noise: the time does not depend on what it sees."""
    random = np.random.default_rng(0)
    x = random.normal(size=[BATCH * STEPS, SIDE, SIDE, CHANNELS]).astype(np.float32)
    y = random.integers(0, CLASSES, BATCH * STEPS)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    few = x[:VALIDATION], y[:VALIDATION]
    return KerasTask(convnet, (x, y), few, loss=loss, steps=STEPS, batch_size=BATCH)


def convnet() -> keras.Model:
    """The network of Section 4.2 of layers of Keras."""
    layers = keras.layers
    blocks = [
        layer
        for _ in range(2)
        for layer in (
            layers.Conv2D(FILTERS, 3, padding='same', use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
        )
    ]
    return keras.Sequential([keras.Input([SIDE, SIDE, CHANNELS]), *blocks, layers.Flatten(), layers.Dense(CLASSES)])


KINDS: dict[str, Callable[[], KerasTask]] = {
    'MLP 64-32-10, batch 64': builtin.digits_mlp,
    'MLP 64-128-128-10, batch 64': lambda: builtin.digits_mlp(large=True),
    'convolutions of 6 and 12 filters with normalisation, 8x8, batch 32': builtin.digits_convnet,
    'GRU of 24 units, 16 characters, batch 16': builtin.text_gru,
    'transformer, 2 blocks of 24 units, 16 characters, batch 16': builtin.text_transformer,
    'encoder and decoder of 24 units, batch 32': builtin.number_words,
    'ConvNet of the paper, 32x32x3, batch 100, as a `KerasTask`': paper_convnet,
}
PAPER = 'the same as an `ImageClassification`, whose normalisation is fused'


def compare_kind(keras_task: KerasTask, task: Task, rounds: int) -> dict[str, float]:
    """Returns the milliseconds of a step by who trains: medians of rounds in which all take turns.

    Args:
        keras_task: whose model and data `fit` is given.
        task: the same, as we train it; XLA is tried where it leaves that open.
        rounds: after one that warms up.
    """
    rule = UpdateRule.parse('momentum')
    steps = min(task.load().steps, STEPS * 8)
    choices = {'nos_tf': False, 'nos_tf, XLA': True} if isinstance(task, KerasTask) else {'nos_tf': None}
    ours = {
        name: clocked(ChildSetup(Child((LEARNING_RATE,)), task_with(task, choice), Vocabulary(1)).trainer(), rule)
        for name, choice in choices.items()
    }
    model, (x, y, *_) = keras_task.build(), keras_task.load().data.train
    model.compile(keras.optimizers.SGD(LEARNING_RATE, momentum=0.9), keras_task.loss)
    size = keras_task.batch_size
    x, y = (keras.tree.map_structure(lambda part: part.numpy()[: steps * size], part) for part in (x, y))
    epochs = max(1, round(steps * size / len(y)))

    def fit(steps: int) -> float:
        start = time.perf_counter()
        model.fit(x, y, batch_size=size, epochs=epochs, verbose=0)
        return (time.perf_counter() - start) * steps / (epochs * -(-len(y) // size))

    runs = {**ours, 'fit': fit}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for name, run in ours.items():
        run(1)  # compiles
        if (once := run(1)) > 10 * runs['nos_tf'](1) and name != 'nos_tf':
            times[name].append(once * steps)
            del runs[name]
    for run in runs.values():
        run(steps)
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(run(steps))
    return {name: 1000 * statistics.median(values) / steps for name, values in times.items()}


def task_with(task: Task, jit_compile: bool | None) -> Task:
    """Returns the task with a choice of XLA; None where it has none."""
    return task if jit_compile is None else dataclasses.replace(task, jit_compile=jit_compile)  # type: ignore[type-var]


def compare_kinds(wanted: Sequence[str], rounds: int) -> None:
    """Prints a table of kinds of model, of those whose name has one of the words, or of all."""
    print(f'{machine()}; one thread, {rounds} rounds\n')
    print('| model | nos_tf, ms a step | with XLA | fit | fit takes longer by | and than XLA by |')
    print('|---|--:|--:|--:|--:|--:|')
    for name in (*KINDS, PAPER):
        if wanted and not any(word in name for word in wanted):
            continue
        keras_task: KerasTask = KINDS.get(name, paper_convnet)()
        task: Any = keras_task
        if name == PAPER:
            task = ImageClassification(FewImages(load_split()), ConvNet(FILTERS), epochs=1, batch_size=BATCH)
        found = compare_kind(keras_task, task, rounds)
        ratios = [found['fit'] / ms for key, ms in found.items() if key != 'fit']
        ours, xla, fit = (found.get(key) for key in ('nos_tf', 'nos_tf, XLA', 'fit'))
        cells = [told(x) for x in (ours, xla, fit, *(ratios if xla else (*ratios, None)))]
        print('| ' + ' | '.join([name, *cells]) + ' |', flush=True)


def told(number: float | None) -> str:
    """Three digits of a number, a dash for none."""
    return '–' if number is None else f'{number:.3g}'


def matrix_product(size: int = 2048) -> Callable[[], object]:
    """Products of large matrices."""
    a, b = tf.random.normal([2, size, size])
    product = tf.function(lambda: tf.matmul(a, b), autograph=False)
    return lambda: [product() for _ in range(PRODUCTS)]


def step_flops() -> float:
    """Floating-point operations of a step: the first layer has no gradient with respect to its input."""
    pixels = BATCH * SIDE * SIDE
    first, second, dense = 9 * CHANNELS * FILTERS, 9 * FILTERS * FILTERS, FILTERS * CLASSES
    return 2.0 * pixels * (2 * first + 3 * second + 3 * dense)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument(
        '--kinds', nargs='*', metavar='WORD', help='kinds of Keras model instead, those so called or all'
    )
    arguments = parser.parse_args()
    rounds = arguments.rounds
    use_one_cpu_thread()
    if arguments.kinds is not None:
        compare_kinds(arguments.kinds, rounds)
        return
    split = load_split()
    contenders = {
        'nos_tf': ours(split),
        'nos_tf, bfloat16': ours(split, bfloat16=True),
        'keras fit, NumPy': fit(split, pipeline=False, jit='auto'),
        'keras fit, tf.data': fit(split, pipeline=True, jit='auto'),
        'keras fit, NumPy, jit_compile=True': fit(split, pipeline=False, jit=True),
    }
    if find_spec('torch'):
        contenders['torch eager'] = torch_eager(split, channels_last=False)
        contenders['torch eager, channels_last'] = torch_eager(split, channels_last=True)
    contenders[PEAK] = matrix_product()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for run in contenders.values():
        run()
    for _ in range(rounds):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    peak = PRODUCTS * 2 * 2048**3 / medians.pop(PEAK)
    print(f'{machine()}; one thread, {rounds} rounds of {STEPS} steps; peak {peak / 1e9:.0f} GFLOP/s\n')
    print('| trained by | ms a step | examples/s | nos_tf is faster by | share of the peak |\n|---|---|---|---|---|')
    for name, seconds in medians.items():
        step = seconds / STEPS
        cells = [
            name,
            f'{1000 * step:.1f}',
            f'{BATCH / step:.0f}',
            f'{seconds / medians["nos_tf"]:.2f}',
            f'{step_flops() / step / peak:.0%}',
        ]
        print('| ' + ' | '.join(cells) + ' |')


if __name__ == '__main__':
    output.command(main)
