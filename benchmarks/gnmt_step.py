"""Translation: paths through LSTM layers side by side, the whole step, its input pipeline, and the full model.

python benchmarks/gnmt_step.py --rounds 10
python benchmarks/gnmt_step.py --full

The first table is of a stack of LSTM layers, forwards and backwards, on the same batch of numbers; torch.nn.LSTM stands
beside them where PyTorch is installed. The second is of training steps with gin/gnmt_multi30k.gin's network on made-up
sentences of its lengths, and of batches from the input pipeline with nobody who uses them. Medians over rounds that
take turns. `--full` builds the network of gin/gnmt_wmt14.gin, and trains it for two steps.
"""

import argparse
import dataclasses
import os
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'launch'))

import gin
import keras
import numpy as np
import tensorflow as tf

from gnmt import corpora as _corpora  # noqa: F401  (gin files name what these modules register)
from gnmt import places as _places  # noqa: F401
from gnmt import transfer as _transfer  # noqa: F401
from gnmt.model import Gnmt
from gnmt.recipe import TranslationRecipe
from gnmt.recurrent import LstmWeights, sequence
from gnmt.text import END, Encoded, batches
from nos_tf import output
from nos_tf.optimizers.contender import Contender

ROOT = Path(__file__).resolve().parents[1]
LAYERS = 2
RULES = ('keras.Adam', 'powersign')
Call = Callable[[], object]


def stack_of_keras(inputs: tf.Tensor, layers: list, jit: bool) -> Call:
    """Layers of Keras, batch first."""
    batch = tf.transpose(inputs, [1, 0, 2])
    model = keras.Sequential(layers)
    model(batch)

    @tf.function(jit_compile=jit, autograph=False)
    def step() -> list[tf.Tensor]:
        """The gradients of all weights."""
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(batch) ** 2)
        return tape.gradient(loss, [weight.value for weight in model.trainable_variables])

    return step


def stack_of_ours(inputs: tf.Tensor, units: int, jit: bool) -> Call:
    """`gnmt.recurrent.sequence`, time first."""
    numbers = np.random.default_rng(0)
    shapes = (units, 4 * units), (units, 4 * units), (4 * units,)
    layers = [
        LstmWeights(*(tf.Variable(numbers.uniform(-0.05, 0.05, shape).astype(np.float32)) for shape in shapes))
        for _ in range(LAYERS)
    ]

    @tf.function(jit_compile=jit, autograph=False)
    def step() -> list[tf.Tensor]:
        """The gradients of all weights."""
        with tf.GradientTape() as tape:
            x = inputs
            for layer in layers:
                x = sequence(LstmWeights(*map(tf.convert_to_tensor, layer)), x)
            loss = tf.reduce_sum(x**2)
        return tape.gradient(loss, [weight for layer in layers for weight in layer])

    return step


def stack_of_torch(inputs: tf.Tensor, units: int, threads: int) -> Call | None:
    """torch.nn.LSTM, time first; None where it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(threads)
    model, batch = torch.nn.LSTM(units, units, LAYERS), torch.from_numpy(inputs.numpy())

    def step() -> None:
        """The gradients of all weights."""
        model.zero_grad()
        (model(batch)[0] ** 2).sum().backward()

    return step


def training_step(rule: str, size: Gnmt, subwords: int, source: tf.Tensor, target: tf.Tensor) -> Call:
    """One update of a translator."""
    model = size.model(subwords, 0)
    weights = model.trainable_variables
    optimizer = Contender(rule).optimizer(1e-3, 0)
    optimizer.build(weights)
    seed = tf.constant([0, 0])

    @tf.function(autograph=False)
    def step() -> tf.Tensor:
        """The loss, and the weights are updated."""
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model.losses_of(source, target, training=True, seed=seed))
            of_sentence = loss / tf.cast(tf.shape(source)[0], tf.float32)
        gradients = [tf.convert_to_tensor(g) for g in tape.gradient(of_sentence, [weight.value for weight in weights])]
        optimizer.apply_gradients(zip(tf.clip_by_global_norm(gradients, 5.0)[0], weights, strict=True))
        return loss

    return step


def sentences(count: int, length: int, subwords: int) -> tf.Tensor:
    """Token ids [count, length], END the last of each."""
    ids = tf.random.stateless_uniform([count, length - 1], [1, 2], END + 2, subwords, tf.int32)
    return tf.concat([ids, tf.fill([count, 1], END)], 1)


def medians(calls: Mapping[str, Call], rounds: int) -> dict[str, float]:
    """Seconds of each, its first call apart."""
    for call in calls.values():
        _finish(call())
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name in random.sample(sorted(calls), len(calls)):
            begin = time.perf_counter()
            _finish(calls[name]())
            seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(times) for name, times in seconds.items()}


def _finish(value: object) -> None:
    for tensor in tf.nest.flatten(value):
        if tf.is_tensor(tensor):
            tensor.numpy()


def compare_layers(units: int, batch: int, length: int, rounds: int, threads: int) -> None:
    """Prints the table of the paths."""
    inputs = tf.random.stateless_normal([length, batch, units], [1, 2])
    calls: dict[str, Call] = {}
    for jit in (False, True):
        suffix = ', XLA' if jit else ''
        lstms = [keras.layers.LSTM(units, return_sequences=True) for _ in range(LAYERS)]
        cells = [keras.layers.LSTMCell(units) for _ in range(LAYERS)]
        calls[f'keras.layers.LSTM{suffix}'] = stack_of_keras(inputs, lstms, jit)
        calls[f'RNN of a stacked cell{suffix}'] = stack_of_keras(
            inputs, [keras.layers.RNN(cells, return_sequences=True)], jit
        )
        calls[f'gnmt.recurrent{suffix}'] = stack_of_ours(inputs, units, jit)
    if of_torch := stack_of_torch(inputs, units, threads):
        calls['torch.nn.LSTM'] = of_torch
    found = medians(calls, rounds)
    print(f'\n{LAYERS} layers of {units}, {batch} sentences of {length} words, forwards and backwards')
    for name, seconds in sorted(found.items(), key=lambda item: item[1]):
        ratio = seconds / found['gnmt.recurrent']
        print(f'{name:30} {1000 * seconds:8.1f} ms {batch * length / seconds:9,.0f} words/s {ratio:6.2f}')


def compare_steps(rounds: int) -> None:
    """Prints the table of whole steps, and how fast batches come."""
    recipe = configured('gin/gnmt_multi30k.gin', "TextFiles.directory = '.'")
    subwords, batch, length = recipe.subwords, recipe.batch_size, 16
    size, half = (dataclasses.replace(recipe.network, bfloat16=bfloat16) for bfloat16 in (False, True))
    source, target = (sentences(batch, length, subwords) for _ in range(2))
    calls = {rule: training_step(rule, size, subwords, source, target) for rule in RULES}
    calls['powersign, bfloat16'] = training_step('powersign', half, subwords, source, target)
    found = medians(calls, rounds)
    millions = size.parameters(subwords) / 1e6
    print(f'\nTraining steps of {millions:.1f} million weights, {batch} pairs of {length} tokens')
    for name, seconds in found.items():
        print(f'{name:30} {1000 * seconds:8.1f} ms {2 * batch * length / seconds:9,.0f} tokens/s')
    rows = sentences(20 * batch, length, subwords).numpy()
    data = batches(Encoded(list(rows), list(rows), 0), batch, (12, length, 24), np.arange(len(rows)))
    begin = time.perf_counter()
    count = sum(1 for _ in data)
    seconds = (time.perf_counter() - begin) / count
    print(f'{"a batch from the pipeline":30} {1000 * seconds:8.1f} ms {2 * batch * length / seconds:9,.0f} tokens/s')


def configured(gin_file: str, *bindings: str) -> TranslationRecipe:
    """What a configuration of launch/gnmt/train.py trains."""
    gin.clear_config()
    gin.add_config_file_search_path(str(ROOT))
    gin.parse_config_files_and_bindings([gin_file], list(bindings))
    return gin.get_configurable(TranslationRecipe)()


def train_full_model() -> None:
    """Prints what two steps of the paper's network need."""
    recipe = configured('gin/gnmt_wmt14.gin')
    size, subwords, batch, length = recipe.network, recipe.subwords, 8, 10
    source, target = (sentences(batch, length, subwords) for _ in range(2))
    for rule in RULES[1:]:
        step = training_step(rule, size, subwords, source, target)
        for number in (1, 2):
            begin = time.perf_counter()
            _finish(step())
            print(f'{rule}: step {number} in {time.perf_counter() - begin:.1f} s')
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB on Linux
        print(f'{size.parameters(subwords):,} weights, {batch} pairs of {length} tokens; peak memory {peak:.1f} GiB')


def main() -> None:
    """Reads flags and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=10, help='10 by default')
    parser.add_argument('--threads', type=int, default=1, help='of the CPU; 1 by default')
    parser.add_argument('--full', action='store_true', help="two steps of the paper's network, and nothing else")
    arguments = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    if arguments.full:
        train_full_model()
        return
    for units, batch, length in ((256, 128, 16), (1024, 32, 20)):
        compare_layers(units, batch, length, arguments.rounds, arguments.threads)
    compare_steps(arguments.rounds)


if __name__ == '__main__':
    output.command(main)
