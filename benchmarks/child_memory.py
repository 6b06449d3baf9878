"""Whether children leave anything behind: memory and traces over many different rules, in one process.

python benchmarks/child_memory.py --rules 200

Trains random rules of two iterations on the digits, as gin/digits.gin does, and prints the resident memory of the
process on the way. Half a minute.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import numpy as np

from nos_tf import SearchSpace, output
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.evaluation.machine import use_one_cpu_thread
from nos_tf.tasks.child import Child, ChildSetup
from nos_tf.tasks.convnet import ConvNet, ImageClassification
from nos_tf.tasks.data import Digits

MIB = 2**20


def resident() -> float:
    """Memory of this process, in MiB (Linux)."""
    pages = int(Path('/proc/self/statm').read_text(encoding='utf-8').split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE') / MIB


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rules', type=int, default=200)
    rules = parser.parse_args().rules
    use_one_cpu_thread()
    task = ImageClassification(Digits(noise=0.25), ConvNet(filters=8), epochs=3, train_examples=1000)
    space, random = SearchSpace(iterations=2), np.random.default_rng(0)
    trainer = ChildSetup(Child(), task, Vocabulary.of(space)).trainer()
    seen: dict[str, None] = {}
    print('| rules trained | resident MiB | traces |\n|---|---|---|')
    while len(seen) < rules:
        rule = space.rule([int(random.integers(len(choices))) for choices in space.choices])
        if rule.infix in seen:
            continue
        trainer.train(rule)
        seen[rule.infix] = None
        if len(seen) in (1, 20, rules) or len(seen) % 100 == 0:
            print(f'| {len(seen)} | {resident():.0f} | {trainer.traces} |', flush=True)


if __name__ == '__main__':
    output.command(main)
