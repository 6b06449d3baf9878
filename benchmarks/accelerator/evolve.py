"""A search by regularised evolution whose children train by the hundred on an accelerator, on one task or on several.

KERAS_BACKEND=jax python benchmarks/accelerator/evolve.py --images runs/images.npz --output runs/long.json --task long

A child is a race of the paper's seven learning rates (a share of the steps each, by validation accuracy) and a whole
training at the best one; its reward is the validation accuracy after the last step, the mean over the tasks. Best rules
and baselines train again on seeds that the search has not seen. `--seconds` is the time for sampling.
"""

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from children import HAND_MADE, Lab, Optimizer, Task
from pack import read_split

from nos_tf import output
from nos_tf.controller.evolution import EvolutionAgent
from nos_tf.dsl.known import KNOWN_RULES
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.screening import why_untrainable
from nos_tf.dsl.space import SearchSpace

RATES = tuple(10.0**i for i in range(-5, 2))
MODELS = 56  # side by side: seven rates of eight rules
CHANCE = 0.1
SPACE = SearchSpace(iterations=2, distinct_operands=True, no_final_addition=True, reuse_temporaries=True)
BASELINES = (*HAND_MADE, *(name for name in KNOWN_RULES if UpdateRule.parse(name).version == 1))


class Regime(NamedTuple):
    """How a child trains on one task: so many of its images, and the rungs of its race."""

    images: int
    filters: int
    rungs: tuple[tuple[int, int], ...]  # steps so far, rates that go on
    validation: int = 5_000  # images


REGIMES = {
    'tiny': Regime(200, 2, ((1, 3), (2, 1)), 100),  # to try it out
    'short': Regime(10_000, 16, ((100, 1), (500, 1))),  # that of gin/cifar10_reduced.gin
    'long': Regime(5_000, 16, ((50, 3), (250, 1), (1500, 1))),  # 30 epochs: long enough to learn by heart
    'half': Regime(20_000, 32, ((400, 3), (1500, 1), (6000, 1))),  # half of gin/convnet_reduced.gin
}


class Judge:
    """Rewards of rules on tasks; no program is trained twice on a seed."""

    def __init__(self, images: Path, regimes: Sequence[str]) -> None:
        self._labs = []
        for name in regimes:
            regime = REGIMES[name]
            train = read_split(images, 'train', regime.images)
            task = Task(train, read_split(images, 'validation', regime.validation), filters=regime.filters)
            self._labs.append((Lab(task, MODELS), regime))
        self.found: dict[tuple[str, int], tuple[float, list[float], list[float]]] = {}

    def rewards(self, texts: Iterable[str], seed: int) -> list[float]:
        """The mean over tasks of the validation accuracy; the parts and the rates are in `found`."""
        texts = list(texts)
        new = [text for text in dict.fromkeys(texts) if (text, seed) not in self.found]
        for at in range(0, len(new), MODELS):
            piece = new[at : at + MODELS]
            optimizers = [Optimizer.of(text) for text in piece]
            parts, rates = [], []
            for lab, regime in self._labs:
                _, accuracies, chosen = lab.race(optimizers, RATES, regime.rungs, seed)
                parts.append(accuracies)
                rates.append(chosen)
            for i, text in enumerate(piece):
                values = [float(part[i]) for part in parts]
                self.found[text, seed] = float(np.mean(values)), values, [float(rate[i]) for rate in rates]
        return [self.found[text, seed][0] for text in texts]


def search(
    judge: Judge, seconds: float, begin: Sequence[str], seeds: Sequence[int], population: int
) -> dict[str, float]:
    """Lets a population evolve for so long: the mean reward over the seeds of each program."""
    agent = EvolutionAgent(SPACE, seeds[0], population=population, tournament=max(1, population // 20))
    mean: dict[str, float] = {}
    start, iteration = time.monotonic(), 0
    waiting = [choices for text in begin if (choices := _spelled(text)) is not None]
    if begin:
        output.say(f'{len(waiting)} of {len(begin)} rules to begin with are in the space')
    while time.monotonic() - start < seconds:
        batch: list[tuple[int, ...]] = []
        programs: list[str] = []
        while len(batch) < MODELS:
            choices = waiting.pop() if waiting else tuple(agent.propose(1, iteration).choices[0].tolist())
            iteration += 1
            program = ' '.join(SPACE.rule(choices).canonical().tokens)
            if program in programs or program in mean:
                continue
            if why_untrainable(UpdateRule.parse(program)):
                mean[program] = CHANCE
                continue
            batch.append(choices)
            programs.append(program)
        rewards = np.mean([judge.rewards(programs, seed) for seed in seeds], 0)
        mean.update(zip(programs, rewards.tolist(), strict=True))
        agent.update(np.array(batch, np.int32), rewards, np.zeros(len(batch), np.float32))
        output.say(
            f'{time.monotonic() - start:.0f} s, {len(mean)} rules: mean {rewards.mean():.4f}, best of batch '
            f'{rewards.max():.4f} {UpdateRule.parse(programs[int(rewards.argmax())]).infix}'
        )
    return mean


def _spelled(text: str) -> tuple[int, ...] | None:
    """A rule as choices of the space; None if neither it nor its canonical form is in it."""
    rule = UpdateRule.parse(text)
    for spelling in (rule, rule.canonical()):
        with suppress(ValueError):
            return SPACE.encode(UpdateRule.from_ids(spelling.padded_ids(SPACE.iterations)))
    return None


def main() -> None:
    """Searches, and leaves all rewards in a file."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').partition('\n')[0])
    parser.add_argument('--images', type=Path, required=True, help='of pack.py')
    parser.add_argument('--output', type=Path, required=True, help='a JSON file')
    parser.add_argument('--task', nargs='+', choices=REGIMES, default=['long'], help='whose mean accuracy is rewarded')
    parser.add_argument('--seconds', type=float, default=180.0, help='for sampling')
    parser.add_argument('--begin', type=Path, help='a text file of rules to begin with, one a line')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0], help='over which a reward is the mean')
    parser.add_argument('--population', type=int, default=280, help='of rules; a tournament is of a twentieth of them')
    parser.add_argument('--again', nargs='+', choices=REGIMES, help='tasks of the second training; default: the same')
    parser.add_argument('--best', type=int, default=MODELS, help='rules that train again')
    parser.add_argument('--more_seeds', type=int, default=4)
    arguments = parser.parse_args()
    begin = arguments.begin.read_text(encoding='utf-8').splitlines() if arguments.begin else []
    judge = Judge(arguments.images, arguments.task)
    start = time.monotonic()
    mean = search(judge, arguments.seconds, begin, arguments.seeds, arguments.population)
    best = sorted(mean, key=lambda text: -mean[text])[: arguments.best]
    again = Judge(arguments.images, arguments.again) if arguments.again else judge
    for number in range(arguments.more_seeds + 1):
        _save(arguments, judge, again, time.monotonic() - start)
        if number < arguments.more_seeds:
            again.rewards([*best, *BASELINES], max(arguments.seeds) + 1 + number)
            output.say(f'{time.monotonic() - start:.0f} s: another seed')


def _save(arguments: argparse.Namespace, judge: Judge, again: Judge, seconds: float) -> None:
    content: dict[str, Any] = {
        'tasks': {name: REGIMES[name]._asdict() for name in arguments.task},
        'again': {name: REGIMES[name]._asdict() for name in arguments.again or arguments.task},
        'seeds': arguments.seeds,
        'seconds': seconds,
        'rewards': [[*key, *value] for key, value in judge.found.items() if key[1] in arguments.seeds],
        'rewards again': [[*key, *value] for key, value in again.found.items() if key[1] not in arguments.seeds],
    }
    arguments.output.write_text(json.dumps(content), encoding='utf-8')


if __name__ == '__main__':
    output.command(main)
