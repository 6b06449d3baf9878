"""How many rules does a learner train until it has one that is as good as the best of Table 1? On a real reward.

python benchmarks/learner_study.py run --run_dir runs/learner_study     # goes on where it was, by seed and learner
python benchmarks/learner_study.py page                                 # the chapter of docs/controller_study.md

All learners search version 2's space of two iterations by the reward of the suite, and share one store: no rule is
trained twice. A learner is done when its incumbent, the rule of the highest reward that it has seen, has on five fresh
seeds a mean that is at least that of `adam_powersign` less a tenth of a spread. One that is not by 3,000 trained rules,
or by 10,000 sampled ones, counts as if it were at 3,000. The five trainings of each incumbent are not counted.
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gin
import numpy as np
from outcomes import opened, read_rows, write_rows

from nos_tf import SearchSpace, UpdateRule, output
from nos_tf.controller.agent import Metrics
from nos_tf.controller.learners import PPO, TRPO, Bayesian, Distinct, Evolution, Learner, RandomSearch, Reinforce
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.evaluation.jobs import Job
from nos_tf.evaluation.machine import use_one_cpu_thread
from nos_tf.search.search import Search  # noqa: F401 (which gin knows SearchSpace from)
from nos_tf.search.trials import Queue
from nos_tf.tasks.builtin import suite
from nos_tf.tasks.child import Child, ChildSetup, Outcome

sys.path.append(str(Path(__file__).resolve().parent / 'tabular'))
from documents import fill, markdown

DOCS = Path(__file__).resolve().parents[1] / 'docs'
PAGE, RUNS, BATCHES = (
    DOCS / 'controller_study.md',
    DOCS / 'results' / 'learner_study' / 'runs.csv',
    DOCS / 'results' / 'learner_study' / 'batches.csv',
)
CHILD = Child(refine=True)
TASKS = ('digits_mlp', 'digits_autoencoder')  # docs/reward_fidelity.md
BATCH = 20  # rules, of every learner
MOST, MOST_SAMPLED = 3000, 10_000
FRESH = tuple(range(1001, 1006))  # seeds
KNOWN, MARGIN = UpdateRule.parse('adam_powersign'), 0.1  # spreads
TODAY, RANDOM = 'TRPO', 'random search'

LEARNERS: dict[str, Callable[[], Learner]] = {
    RANDOM: partial(RandomSearch, batch_size=BATCH),
    TODAY: partial(TRPO, batch_size=BATCH),
    'REINFORCE': partial(Reinforce, batch_size=BATCH, learning_rate=3e-3),
    'PPO': partial(PPO, batch_size=BATCH, learning_rate=1e-3, steps=5),
    'evolution': partial(Evolution, batch_size=BATCH),
    'Bayesian': partial(Bayesian, batch_size=BATCH, initial=100, candidates=1000),
    'TRPO, distinct': lambda: Distinct(learner=TRPO(batch_size=BATCH)),
    'TRPO, entropy target': partial(TRPO, batch_size=BATCH, entropy_target=10.0),
    'TRPO, elites': partial(TRPO, batch_size=BATCH, elites=20),
    'TRPO, risk-seeking': partial(TRPO, batch_size=BATCH, quantile=0.75),
    'TRPO, elites, risk-seeking': partial(TRPO, batch_size=BATCH, elites=20, quantile=0.75),
    'TRPO, elites, distinct': lambda: Distinct(learner=TRPO(batch_size=BATCH, elites=20)),
    'TRPO, all four': lambda: Distinct(learner=TRPO(batch_size=BATCH, elites=20, quantile=0.75, entropy_target=10.0)),
    'evolution, drift': partial(Evolution, batch_size=BATCH, drift=True),
    'evolution, drift and crossover': partial(Evolution, batch_size=BATCH, drift=True, crossover=0.3),
    'evolution, distinct': lambda: Distinct(learner=Evolution(batch_size=BATCH)),
    'evolution, distinct, crossover': lambda: Distinct(learner=Evolution(batch_size=BATCH, crossover=0.3)),
}


class World:
    """The rewards of rules, from the store or trained now."""

    def __init__(self, queue: Queue, space: SearchSpace) -> None:
        self._queue, self.space = queue, space
        self._bar = self._fresh(CHILD.form_of(KNOWN)[0]) - MARGIN

    def forms_of(self, choices: np.ndarray) -> list[UpdateRule]:
        """Returns what trains for rules `[B, T]`."""
        return [CHILD.form_of(self.space.rule(rule))[0] for rule in choices]

    def outcomes(self, forms: Sequence[UpdateRule]) -> list[Outcome]:
        """Returns the outcomes of rules; those that cannot train are given the reward of an untrained model."""
        jobs = [Job(form, CHILD.seed) for form in forms]
        for job in jobs:
            self._queue.put(job)
        while self._queue.running:
            self._queue.wait()
        return [self._queue.known(job) for job in jobs]

    def margin(self, form: UpdateRule) -> float:
        """Returns by how much the mean of a rule on fresh seeds is above what is asked for."""
        return self._fresh(form) - self._bar

    def _fresh(self, form: UpdateRule) -> float:
        jobs = [Job(form, seed) for seed in FRESH]
        found = self._queue.train(jobs, lambda _: None)
        return float(np.mean([found[job].reward for job in jobs]))


def play(world: World, learner: Learner, seed: int) -> Iterator[dict[str, Any]]:
    """Yields a row for each batch, until the learner is done or out of rules."""
    agent = learner.start(world.space, seed)
    known: dict[UpdateRule, float] = {}
    trained = sampled = 0
    incumbent, margin = None, -np.inf
    while margin < 0 and trained < MOST and sampled < MOST_SAMPLED:
        choices, log_probs = agent.propose(learner.batch_size, sampled // learner.batch_size)
        forms = world.forms_of(choices)
        outcomes = world.outcomes(forms)
        rewards = np.array([outcome.reward for outcome in outcomes], np.float32)
        metrics: Metrics = agent.update(choices, rewards, log_probs)
        new = {form: outcome for form, outcome in zip(forms, outcomes, strict=True) if form not in known}
        known.update({form: outcome.reward for form, outcome in new.items()})
        trained += sum(bool(outcome.sweep) for outcome in new.values())
        sampled += len(forms)
        best = max(known, key=known.__getitem__)
        if best != incumbent:
            incumbent, margin = best, world.margin(best)
        yield {
            'sampled': sampled,
            'trained': trained,
            'new': len(new),
            'mean': f'{rewards.mean():.4g}',
            'entropy': f'{metrics.get("entropy", np.nan):.4g}',
            'best': f'{known[best]:.4g}',
            'margin': f'{margin:.4g}',
            'incumbent': best.infix,
        }


def run(run_dir: Path, names: Sequence[str], seeds: Sequence[int]) -> None:
    """Lets every learner search with every seed; what is on file is not trained again."""
    use_one_cpu_thread()
    gin.parse_config_file('gin/space_2_v2.gin')
    space = gin.get_configurable('SearchSpace')()
    setup = ChildSetup(CHILD, suite(tasks=TASKS), Vocabulary.of(space, [KNOWN]))
    done = {(row['learner'], row['seed']) for row in read_rows(RUNS)}
    complete = [row for row in read_rows(BATCHES) if (row['learner'], row['seed']) in done]  # another was killed
    with opened(run_dir, setup, MOST, reject_untrainable=True) as queue:
        world = World(queue, space)
        for seed, name in itertools.product(seeds, names):
            if (name, str(seed)) in done:
                continue
            batches = _told(play(world, LEARNERS[name](), seed))
            rows = [{'learner': name, 'seed': seed, **batch} for batch in batches]
            complete += rows
            write_rows(BATCHES, complete)
            write_rows(RUNS, [*read_rows(RUNS), {**rows[-1], 'is_done': float(rows[-1]['margin']) >= 0}])


def _told(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        output.say(' '.join(f'{key} {value}' for key, value in row.items()))
        yield row


def page() -> None:
    """Fills the table of the chapter."""
    rows = read_rows(RUNS)
    needed = {
        name: np.array([trained_until_done(row) for row in rows if row['learner'] == name])
        for name in LEARNERS
        if any(row['learner'] == name for row in rows)
    }
    body = [
        [
            name,
            f'{(counts < MOST).sum()} of {len(counts)}',
            ', '.join(f'{count:.0f}' if count < MOST else f'> {MOST}' for count in np.sort(counts)),
            *(ratio(counts, needed[other]) if other in needed else '' for other in (TODAY, RANDOM)),
        ]
        for name, counts in needed.items()
    ]
    head = ['learner', 'done', 'trained rules, by seed', f'ratio to {TODAY}', f'ratio to {RANDOM}']
    fill(PAGE, {'learners': markdown(head, body)})


def trained_until_done(row: Mapping[str, str]) -> float:
    """Returns the rules that a run has trained; as many as may be, if it was not done by then."""
    return min(float(row['trained']), MOST) if row['is_done'] == 'True' else MOST


def ratio(ours: np.ndarray, theirs: np.ndarray) -> str:
    """Returns the ratio of median counts with a bootstrap interval, as text; a bound where a median is censored."""
    random = np.random.default_rng(0)
    drawn = [np.median(random.choice(x, (10_000, len(x))), axis=1) for x in (ours, theirs)]
    low, high = np.percentile(drawn[0] / drawn[1], [2.5, 97.5])
    censored = [np.median(x) >= MOST for x in (ours, theirs)]
    if all(censored):
        return ''
    sign = '> ' if censored[0] else '< ' if censored[1] else ''
    return f'{sign}{np.median(ours) / np.median(theirs):.2f} ({low:.2f} to {high:.2f})'


def main() -> None:
    """Does one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=('run', 'page'))
    parser.add_argument('--run_dir', type=Path, default=Path('runs/learner_study'))
    parser.add_argument('--learners', nargs='+', choices=list(LEARNERS), default=list(LEARNERS), metavar='NAME')
    parser.add_argument('--seeds', nargs='+', type=int, default=list(range(5)))
    given = parser.parse_args()
    if given.what == 'run':
        run(given.run_dir, given.learners, given.seeds)
    else:
        page()


if __name__ == '__main__':
    output.command(main)
