"""The time that the controller takes: one sampling and one update, for each learner, rounds interleaved.

python benchmarks/controller_step.py --rounds 20

The operands are all sixteen, the constraints are off, the LSTM has 150 units. Rewards are made up: how often a token is
the first of its bank. `sample` is a batch drawn by the policy as it is, `update` what the learner does with its
rewards; both are milliseconds, the medians of all rounds. A rejected step of the natural gradient tries every candidate
of its line search, and ADAM stops where it leaves the trust region, so an update takes as long as its batch is
difficult. The first update also traces its graph: seconds. KL samples are fresh rules on which TRPO measures the KL
beside the batch.
"""

import argparse
import os
import random
import statistics
import time
from dataclasses import dataclass, field

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from optimizer_step import machine

from nos_tf import output
from nos_tf.controller.agent import Agent
from nos_tf.controller.learners import PPO, TRPO, Bayesian, Evolution, Reinforce
from nos_tf.controller.solvers import AdamSurrogate
from nos_tf.dsl.space import SearchSpace
from nos_tf.evaluation.machine import use_one_cpu_thread

BATCHES = (5, 20)
Learner = TRPO | PPO | Reinforce | Evolution | Bayesian


@dataclass
class Contender:
    """An agent in the middle of its search, and how long its rounds took in milliseconds."""

    agent: Agent
    batch_size: int
    first: float = 0.0  # seconds
    samples: list[float] = field(default_factory=list)
    updates: list[float] = field(default_factory=list)
    iteration: int = 0

    def round(self) -> None:
        """Samples a batch and learns from it."""
        start = time.perf_counter()
        choices, log_probs = self.agent.propose(self.batch_size, self.iteration)
        sampled = time.perf_counter()
        self.agent.update(choices, (choices == 0).mean(axis=1), log_probs)
        end = time.perf_counter()
        self.samples.append(1000 * (sampled - start))
        self.updates.append(1000 * (end - sampled))
        self.iteration += 1

    def start(self) -> None:
        """The first round, which traces, and the end of every warming up."""
        self.round()
        self.first = self.updates[0] / 1000
        self.round()
        self.samples.clear()
        self.updates.clear()


def learners_of(batch_size: int, kl_samples: int) -> dict[str, Learner]:
    """What is compared, by name."""
    made: dict[str, Learner] = {
        'TRPO, NaturalGradient': TRPO(batch_size=batch_size),
        'TRPO, AdamSurrogate': TRPO(batch_size=batch_size, max_kl=0.01, solver=AdamSurrogate()),
        'PPO': PPO(batch_size=batch_size),
        'Reinforce': Reinforce(batch_size=batch_size),
        'Evolution': Evolution(batch_size=batch_size, population=2 * batch_size, tournament=5),
        'Bayesian': Bayesian(batch_size=batch_size, initial=batch_size),
    }
    if kl_samples:
        name = f'{kl_samples} KL samples'
        made[f'TRPO, NaturalGradient, {name}'] = TRPO(batch_size=batch_size, kl_samples=kl_samples)
        made[f'TRPO, AdamSurrogate, {name}'] = TRPO(
            batch_size=batch_size, max_kl=0.01, kl_samples=kl_samples, solver=AdamSurrogate()
        )
    return made


def rows_of(iterations: int, batch_size: int, kl_samples: int, rounds: int) -> list[list[str]]:
    """One table row a learner: n, batch, learner, milliseconds of a sample and of an update, first update."""
    space = SearchSpace(iterations=iterations)
    contenders = {
        name: Contender(learner.start(space, 0), batch_size)
        for name, learner in learners_of(batch_size, kl_samples).items()
    }
    for contender in contenders.values():
        contender.start()
    for _ in range(rounds):
        for contender in random.sample(list(contenders.values()), len(contenders)):
            contender.round()
    rows = []
    for name, contender in contenders.items():
        sample, update = statistics.median(contender.samples), statistics.median(contender.updates)
        times = [f'{sample:.2f}', f'{update:.2f}', f'{contender.first:.1f}']
        rows.append([f'{iterations}', f'{batch_size}', name, *times])
    return rows


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=20)
    parser.add_argument('--iterations', type=int, nargs='+', default=[1, 2, 3], help='of a rule')
    parser.add_argument('--kl_samples', type=int, default=64, help='0 leaves the rows with KL samples out')
    arguments = parser.parse_args()
    use_one_cpu_thread()
    print(f'{machine()}; one thread, {arguments.rounds} rounds\n')
    header = ['n', 'batch', 'learner', 'sample, ms', 'update, ms', 'first update, s']
    print('| ' + ' | '.join(header) + ' |\n' + '|---' * len(header) + '|')
    for iterations in arguments.iterations:
        for batch_size in BATCHES:
            for row in rows_of(iterations, batch_size, arguments.kl_samples, arguments.rounds):
                print('| ' + ' | '.join(row) + ' |', flush=True)


if __name__ == '__main__':
    output.command(main)
