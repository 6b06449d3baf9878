"""Children an hour: the paper's procedure written down literally in Keras, beside ours, switch by switch.

python benchmarks/search_throughput.py --gin_files gin/cifar10_small.gin --rules 40 --run_dir runs/throughput

A list of rules, sampled by the untrained controller of the configuration, goes through every contender:

    a     a Keras model for each learning rate of the sweep and one more for the winner, `compile` and `fit`
    a jit the same with jit_compile=True, for the first few rules; on CPUs Keras' own choice is False
    b     ours, with every switch off: the winner starts anew, every rule trains
    c     ours, with what cannot change a reward: the winner goes on from its sweep, the same program trains once
    d     ours, with what may change it too: racing of learning rates, bfloat16, rules that cannot train are rejected,
          equal functions train once

The contenders of a rule follow each other in one worker's place, on one thread. Printed are the children an hour of one
worker, without the controller, which is the same for all; all rewards side by side; whether b and c agree bit for bit;
and how far d is from c. The rewards of a differ from ours as those of another seed do: its random numbers are others.
What a process does once, as tracing our graph, is not counted.

Trainings are filed in the run directory as they end, and the same command goes on where it was stopped. On small
CIFAR-10 images a rule takes about half a minute of one core, and a minute more with jit_compile.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from nos_tf.cli import commandline  # first: it hides what TensorFlow prints when it is imported

# isort: split
import keras
import numpy as np
from optimizer_step import machine
from trainings import Contender, Ours, Train, Training, Trainings, argument_parser, images_of, variant

from nos_tf import NOSOptimizer, Search, UpdateRule
from nos_tf.dsl.screening import why_untrainable
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.evaluation.machine import use_one_cpu_thread
from nos_tf.tasks.child import Child, Outcome
from nos_tf.tasks.convnet import ImageClassification
from nos_tf.tasks.data import Images

NAMES = {
    'a': 'Keras, literally',
    'a jit': 'Keras, literally, jit_compile=True',
    'b': 'ours, every switch off',
    'c': 'ours, exact switches on',
    'd': 'ours, all switches on',
}


@dataclass(frozen=True)
class Literal:
    """The procedure as one would write it down in Keras: a new model for each training, nothing remembered."""

    child: Child
    task: ImageClassification
    jit_compile: bool

    def start(self) -> Train:
        """Loads the images."""
        images, child = self.task.images.load(), self.child

        def train(rule: UpdateRule) -> Outcome:
            """Trains as a child does, by Keras."""
            start = time.perf_counter()
            sweep = tuple(self._fit(images, rule, rate, child.sweep_epochs) for rate in child.learning_rates)
            rate = child.learning_rates[int(np.argmax(sweep))]
            reward = self._fit(images, rule, rate, self.task.epochs)
            return Outcome(reward, rate, sweep, time.perf_counter() - start)

        return train

    def _fit(self, images: Images, rule: UpdateRule, rate: float, epochs: int) -> float:
        """The validation accuracy of a new model after so many epochs; NaNs do not stop it."""
        task, train, validation = self.task, images.train.head(self.task.train_examples), images.validation
        keras.backend.clear_session()
        keras.utils.set_random_seed(self.child.seed)
        model = self._model(images)
        model.compile(
            optimizer=NOSOptimizer(rule, rate, **dataclasses.asdict(self.child.constants)),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=['accuracy'],
            jit_compile=self.jit_compile,
        )
        model.fit(train.images, train.labels, batch_size=task.batch_size, epochs=epochs, verbose=0)
        scores = model.evaluate(
            validation.images, validation.labels, batch_size=task.batch_size, verbose=0, return_dict=True
        )
        return float(scores['accuracy'])

    def _model(self, images: Images) -> keras.Model:
        """The layers of `nos_tf.tasks.convnet`."""
        network, layers = self.task.network, keras.layers
        model = keras.Sequential([keras.Input(images.shape)])
        for _ in range(2):
            model.add(layers.Conv2D(network.filters, 3, padding='same', use_bias=False))
            model.add(
                layers.BatchNormalization(momentum=network.statistics_momentum, epsilon=network.statistics_epsilon)
            )
            model.add(layers.ReLU())
        model.add(layers.Flatten())
        model.add(layers.Dense(images.classes))
        return model


class Plan(NamedTuple):
    """What a contender does with each rule of the list.

    Args:
        trains: the position in the list of the equal rule that trains; None where the rule is rejected.
        seconds: that the decisions took.
    """

    trains: list[int | None]
    seconds: float


def plan(rules: Sequence[UpdateRule], key: Callable[[UpdateRule], str | None]) -> Plan:
    """Rules of equal keys train once; those of key None do not."""
    start = time.perf_counter()
    keys = [key(rule) for rule in rules]
    trains = [None if key is None else keys.index(key) for key in keys]
    return Plan(trains, time.perf_counter() - start)


def plans(rules: Sequence[UpdateRule], child: Child, jit_rules: int) -> dict[str, Plan]:
    """Returns the plan of every contender: for each rule, which training it takes its reward from."""

    def function(rule: UpdateRule) -> str | None:
        return None if why_untrainable(rule, child.constants) else rule.fingerprint(child.constants)

    everything = Plan(list(range(len(rules))), 0.0)
    return {
        'a': everything,
        'a jit': Plan(list(range(min(jit_rules, len(rules)))), 0.0),
        'b': everything,
        'c': plan(rules, lambda rule: ' '.join(rule.canonical().tokens)),
        'd': plan(rules, function),
    }


def sample(search: Search, count: int) -> list[UpdateRule]:
    """Rules of the untrained controller, one by one: a longer list begins with the shorter one."""
    agent = search.learner.start(search.space, search.seed)
    return [search.space.rule(agent.propose(1, i).choices[0]) for i in range(count)]


def print_rates(todo: dict[str, Plan], seconds: dict[str, list[float]]) -> None:
    """The first table: how fast each contender is; `a` is what it takes for as many rules as the contender had."""
    print('| | contender | children an hour | times a | trainings | seconds a training |\n|---|---|---|---|---|---|')
    for letter, (trains, deciding) in todo.items():
        if not trains:
            continue
        total = deciding + sum(seconds[letter])
        count = sum(i == j for i, j in enumerate(trains))
        literally = sum(seconds['a'][: len(trains)])
        each = f'{sum(seconds[letter]) / count:.2f}' if count else ''
        print(
            f'| {letter} | {NAMES[letter]} | {3600 * len(trains) / total:.0f} | {literally / total:.2f} '
            f'| {count} of {len(trains)} | {each} |'
        )


def print_rewards(rules: Sequence[UpdateRule], todo: dict[str, Plan], rewards: dict[str, list[float]]) -> None:
    """The second table: all rewards; it says which were not trained for."""

    def cell(letter: str, i: int) -> str:
        source = todo[letter].trains[i]
        note = ' (rejected)' if source is None else '' if source == i else f' (as {source + 1})'
        return f'{rewards[letter][i]:.3f}{note}'

    letters = 'abcd'
    print(f'\n| | rule | {" | ".join(letters)} |\n|---|---|---|---|---|---|')
    for i, rule in enumerate(rules):
        print(f'| {i + 1} | `{rule}` | {" | ".join(cell(letter, i) for letter in letters)} |')
    print(f'| | mean | {" | ".join(f"{np.mean(rewards[letter]):.3f}" for letter in letters)} |')
    b, c, d = (np.array(rewards[letter]) for letter in 'bcd')
    print(f'\nb and c agree bit for bit in {np.sum(b == c)} of {len(rules)} rewards.')
    off = np.abs(c - d)
    print(f'The price of d in reward: |c - d| is {off.mean():.4f} on average, {off.max():.4f} at most.')


def main() -> None:
    """Trains what is missing and prints the tables."""
    parser = argument_parser(__doc__ or '')
    parser.add_argument('--rules', type=int, default=40)
    parser.add_argument('--jit_rules', type=int, default=5, help='how many of them train with jit_compile=True too')
    parser.add_argument('--run_dir', type=Path, default=Path('runs/search_throughput'))
    arguments = parser.parse_args()
    search = commandline.configure(arguments, Search)
    use_one_cpu_thread()
    setup = variant(dataclasses.replace(search.setup, vocabulary=Vocabulary.of(search.space)))
    child, task = setup.child, images_of(setup)
    all_on = variant(setup, bfloat16=True, rungs=arguments.rungs, continue_sweep=True)
    contenders: dict[str, Contender] = {
        'a': Literal(child, task, jit_compile=False),
        'a jit': Literal(child, task, jit_compile=True),
        'b': Ours(variant(setup, continue_sweep=False)),
        'c': Ours(variant(setup, continue_sweep=True)),
        'd': Ours(all_on),
    }
    trainings = Trainings(arguments.run_dir, {**setup.identity(), 'd': all_on.identity()})
    rules = sample(search, arguments.rules)
    todo = plans(rules, child, arguments.jit_rules)
    job = [
        {letter: Training(letter, rule, rules[:i].count(rule)) for letter in contenders} for i, rule in enumerate(rules)
    ]
    rows = [
        [job[i][letter] for letter in contenders if i < len(todo[letter].trains) and todo[letter].trains[i] == i]
        for i in range(len(rules))
    ]
    outcomes = trainings.train(rows, contenders, arguments.workers)
    rewards = {
        letter: [task.chance if i is None else outcomes[job[i][letter]].reward for i in decided.trains]
        for letter, decided in todo.items()
    }
    seconds = {
        letter: [outcomes[job[i][letter]].seconds if i == j else 0.0 for i, j in enumerate(decided.trains)]
        for letter, decided in todo.items()
    }
    rungs = ' '.join(f'{share:g}:{rates}' for share, rates in arguments.rungs)
    print(f'{machine()}; {len(rules)} rules, {arguments.workers} workers of one thread, rungs {rungs}\n')
    print_rates(todo, seconds)
    print_rewards(rules, todo, rewards)


if __name__ == '__main__':
    commandline.main(main)
