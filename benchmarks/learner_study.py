"""How many rules does a learner train until it has a good one? All learners on one real reward.

python benchmarks/learner_study.py run --run_dir runs/learner_study     # goes on where it was, by seed and learner
python benchmarks/learner_study.py page                                 # the chapter of docs/controller_study.md

All learners search version 2's space of two iterations by the reward that docs/reward_fidelity.md chose, three seeds
for the rules that seem best, and share one store: nothing is trained twice. What a learner has at any time is its
incumbent, the rule of the highest reward so far, and that is worth its mean on five fresh seeds. The first bar is what
`adam_powersign` is worth there, less a tenth of a spread. A learner goes on until it is over it and has trained 500
children, each a rule on a seed, at most until 3,000 or until 10,000 rules are sampled. The five trainings of each
incumbent are not counted.
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
from nos_tf.compare.paired import half_width
from nos_tf.controller.agent import Metrics
from nos_tf.controller.learners import TRPO, Bayesian, Distinct, Evolution, Learner, RandomSearch
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.evaluation.jobs import Job
from nos_tf.evaluation.machine import use_one_cpu_thread
from nos_tf.search.search import Search  # noqa: F401 (which gin knows SearchSpace from)
from nos_tf.search.seeds import Seeds
from nos_tf.search.trials import Queue
from nos_tf.tasks.builtin import suite
from nos_tf.tasks.child import Child, ChildSetup

sys.path.append(str(Path(__file__).resolve().parent / 'tabular'))
from documents import fill, markdown

DOCS = Path(__file__).resolve().parents[1] / 'docs'
PAGE, BATCHES = DOCS / 'controller_study.md', DOCS / 'results' / 'learner_study' / 'batches.csv'
CHILD = Child(refine=True)
TASKS = ('digits_autoencoder',)  # docs/reward_fidelity.md
SEEDS, PROMISING = 3, 10  # as in gin/quickstart.gin
BATCH = 20  # rules, of every learner
ENOUGH, MOST, MOST_SAMPLED = 500, 3000, 10_000
BUDGETS = (100, 250, ENOUGH)
FRESH = tuple(range(2001, 2006))  # seeds
KNOWN, MARGIN = UpdateRule.parse('adam_powersign'), 0.1  # spreads
BARS = {'as good as adam_powersign': 0.0, 'a spread better': 1.0}  # spreads above the first
TODAY, RANDOM = 'TRPO', 'random search'

LEARNERS: dict[str, Callable[[], Learner]] = {
    RANDOM: partial(RandomSearch, batch_size=BATCH),
    TODAY: partial(TRPO, batch_size=BATCH),
    'evolution': partial(Evolution, batch_size=BATCH),
    'Bayesian': partial(Bayesian, batch_size=BATCH, initial=100, candidates=1000),
    'TRPO, elites, mutants, distinct': lambda: Distinct(learner=TRPO(batch_size=BATCH, elites=20, mutants=0.5)),
    'evolution, distinct': lambda: Distinct(learner=Evolution(batch_size=BATCH)),
    'TRPO, elites, distinct': lambda: Distinct(learner=TRPO(batch_size=BATCH, elites=20)),
    'TRPO, elites': partial(TRPO, batch_size=BATCH, elites=20),
    'TRPO, distinct': lambda: Distinct(learner=TRPO(batch_size=BATCH)),
    'TRPO, risk-seeking': partial(TRPO, batch_size=BATCH, quantile=0.75),
    'TRPO, entropy target': partial(TRPO, batch_size=BATCH, entropy_target=10.0),
    'evolution, drift': partial(Evolution, batch_size=BATCH, drift=True),
    'evolution, drift and crossover': partial(Evolution, batch_size=BATCH, drift=True, crossover=0.3),
}
"""REINFORCE and PPO are compared on the table of one iteration, where neither did better than TRPO."""


class World:
    """The rewards of rules, from the store or trained now."""

    def __init__(self, queue: Queue, space: SearchSpace) -> None:
        self._queue, self.space = queue, space
        self._bar = self._fresh(CHILD.form_of(KNOWN)[0]) - MARGIN

    def seeds(self) -> Seeds:
        """Returns the rewards of a search that begins."""
        return Seeds(self._queue, CHILD.seed, SEEDS, PROMISING)

    def train(self, rules: Sequence[UpdateRule]) -> None:
        """Trains canonical rules with the first seed; those that cannot train get the reward of an untrained model."""
        for rule in rules:
            self._queue.put(Job(rule, CHILD.seed))
        while self._queue.running:
            self._queue.wait()

    def shared(self, rule: UpdateRule) -> UpdateRule:
        """Returns the rule that stands for all whose outcomes are one."""
        return self._queue.shared(rule)

    def is_trained(self, rule: UpdateRule) -> bool:
        """Returns whether a rule was trained, and not rejected."""
        return bool(self._queue.known(Job(rule, CHILD.seed)).sweep)

    def margin(self, rule: UpdateRule) -> float:
        """Returns by how much the mean of a rule on fresh seeds is above what is asked for."""
        return self._fresh(CHILD.form_of(rule)[0]) - self._bar

    def _fresh(self, form: UpdateRule) -> float:
        jobs = [Job(form, seed) for seed in FRESH]
        found = self._queue.train(jobs, lambda _: None)
        return float(np.mean([found[job].reward for job in jobs]))


def play(world: World, learner: Learner, seed: int) -> Iterator[dict[str, Any]]:
    """Yields a row for each batch, until the learner has had enough children."""
    agent, seeds = learner.start(world.space, seed), world.seeds()
    seen: set[UpdateRule] = set()
    first = sampled = 0
    incumbent, margin, best_margin, is_last = None, -np.inf, -np.inf, False
    while not is_last:
        choices, log_probs = agent.propose(learner.batch_size, sampled // learner.batch_size)
        rules = [world.space.rule(rule).canonical() for rule in choices]
        world.train(rules)
        seeds.add(rules)
        seeds.train(lambda _: None)
        if revise := getattr(agent, 'revise', None):
            revise(lambda rule: seeds.reward(rule.canonical()))
        rewards = np.array([seeds.reward(rule) for rule in rules], np.float32)
        metrics: Metrics = agent.update(choices, rewards, log_probs)
        new = {function: rule for rule in rules if (function := world.shared(rule)) not in seen}
        seen |= new.keys()
        first += sum(map(world.is_trained, new.values()))
        sampled += len(rules)
        trained = first + seeds.more
        ((best, reward),) = seeds.best(1).items()
        if best != incumbent:
            incumbent, margin = best, world.margin(best)
            best_margin = max(best_margin, margin)
        is_last = (best_margin >= 0 and trained >= ENOUGH) or trained >= MOST or sampled >= MOST_SAMPLED
        yield {
            'sampled': sampled,
            'trained': trained,
            'new': len(new),
            'mean': f'{rewards.mean():.4g}',
            'entropy': f'{metrics.get("entropy", np.nan):.4g}',
            'best': f'{reward:.4g}',
            'margin': f'{margin:.4g}',
            'incumbent': best.infix,
            'is_last': is_last,
        }


def run(run_dir: Path, names: Sequence[str], seeds: Sequence[int]) -> None:
    """Lets every learner search with every seed; what is on file is not trained again."""
    use_one_cpu_thread()
    gin.parse_config_file('gin/space_2_v2.gin')
    space = gin.get_configurable('SearchSpace')()
    setup = ChildSetup(CHILD, suite(tasks=TASKS), Vocabulary.of(space, [KNOWN]))
    complete = read()
    with opened(run_dir, setup, MOST, reject_untrainable=True, merge_equal_functions=True) as queue:
        world = World(queue, space)
        for seed, name in itertools.product(seeds, names):
            if (name, str(seed)) in complete:
                continue
            rows = [{'learner': name, 'seed': seed, **batch} for batch in _told(play(world, LEARNERS[name](), seed))]
            complete[name, str(seed)] = rows
            write_rows(BATCHES, [row for of in complete.values() for row in of])


def _told(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        output.say(' '.join(f'{key} {value}' for key, value in row.items()))
        yield row


def read() -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Returns the rows of all searches that came to their end, by learner and seed."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in read_rows(BATCHES):
        found.setdefault((row['learner'], row['seed']), []).append(row)
    return {key: rows for key, rows in found.items() if rows[-1]['is_last'] == 'True'}


def page() -> None:
    """Fills the tables of the chapter."""
    searches = read()
    names = [name for name in LEARNERS if any(of == name for of, _ in searches)]
    runs = {name: [rows for (of, _), rows in searches.items() if of == name] for name in names}
    tables = {}
    for bar, margin in BARS.items():
        most = MOST if margin == min(BARS.values()) else ENOUGH
        needed = {name: np.array([trained_until(rows, margin, most) for rows in of]) for name, of in runs.items()}
        body = [
            [
                name,
                f'{(counts < most).sum()} of {len(counts)}',
                f'{np.median(counts):.0f}' if np.median(counts) < most else f'> {most}',
                ', '.join(f'{count:.0f}' if count < most else f'> {most}' for count in np.sort(counts)),
                *(ratio(counts, needed[other], most) if other in needed else '' for other in (TODAY, RANDOM)),
            ]
            for name, counts in needed.items()
        ]
        head = ['learner', 'there', 'median', 'trained children, by seed', f'ratio to {TODAY}', f'ratio to {RANDOM}']
        tables[f'learners: {bar}'] = markdown(head, body)
    worth = [[name, *(told(runs[name], budget) for budget in BUDGETS)] for name in names]
    tables['learners: budgets'] = markdown(['learner', *(f'after {n}' for n in BUDGETS)], worth)
    fill(PAGE, tables)


def trained_until(rows: Sequence[Mapping[str, str]], margin: float, most: float) -> float:
    """Returns the children that a search has trained when its incumbent was over a bar; most, if it was not."""
    return min([float(row['trained']) for row in rows if float(row['margin']) >= margin] + [most])


def told(searches: Sequence[Sequence[Mapping[str, str]]], budget: int) -> str:
    """Returns what incumbents are worth above the first bar after so many children: mean and interval, as text."""
    margins = [next((row for row in rows if int(row['trained']) >= budget), rows[-1])['margin'] for rows in searches]
    worth = np.array([float(margin) for margin in margins])
    return f'{worth.mean():+.2f} ± {half_width(worth):.2f}'


def ratio(ours: np.ndarray, theirs: np.ndarray, most: float) -> str:
    """Returns the ratio of median counts with a bootstrap interval, as text; a bound where a median is censored."""
    random = np.random.default_rng(0)
    drawn = [np.median(random.choice(x, (10_000, len(x))), axis=1) for x in (ours, theirs)]
    low, high = np.percentile(drawn[0] / drawn[1], [2.5, 97.5])
    censored = [np.median(x) >= most for x in (ours, theirs)]
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
