"""Which reward finds the rules that do well elsewhere? Rewards on the tasks of a search, held against other tasks.

python benchmarks/reward_study.py draw                                # rules.csv, before anything has a figure
python benchmarks/reward_study.py train --run_dir runs/reward_study   # outcomes.csv; goes on where it was
python benchmarks/reward_study.py page                                # docs/reward_fidelity.md from outcomes.csv

Both files are in docs/results/reward_study. The rules are known ones; some of the better half of what two earlier
searches trained, of the paper's language; random ones of version 2; and neighbours and mixtures of known rules, as
an evolving population has them. No two are provably equal but for a factor.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gin
import numpy as np
import reward_tables
from outcomes import outcomes, random_rules, read_rows, write_rows

from nos_tf import Search, SearchSpace, UpdateRule, output
from nos_tf.compare.ruler import PANEL
from nos_tf.controller.evolution import crossed, neighbour
from nos_tf.controller.warm_start import spelled
from nos_tf.dsl.known import KNOWN_RULES
from nos_tf.dsl.screening import why_untrainable
from nos_tf.evaluation.machine import use_one_cpu_thread
from nos_tf.store.results import read_results
from nos_tf.tasks.builtin import decayed, digits_autoencoder, suite, suite_tasks, validation, validation_tasks
from nos_tf.tasks.child import Child
from nos_tf.tasks.suite import Gain
from nos_tf.tasks.task import Task

sys.path.append(str(Path(__file__).resolve().parent / 'tabular'))
from documents import fill, markdown

RESULTS = Path(__file__).resolve().parents[1] / 'docs' / 'results'
PAGE = RESULTS.parent / 'reward_fidelity.md'
RULES, OUTCOMES = RESULTS / 'reward_study' / 'rules.csv', RESULTS / 'reward_study' / 'outcomes.csv'
SEARCHES = ('search_cifar10', 'search_cifar10_random')
DRAWS = (
    {'search_cifar10': 12, 'search_cifar10_random': 12, 'random': 16, 'neighbour': 84, 'crossed': 40},
    {'neighbour': 80, 'crossed': 40},
)
"""How many rules of each source are drawn, one draw after the other; the second was made when the first was trained."""

SPACE = SearchSpace(iterations=2, language=2)
CHILD = Child(refine=True)
SEED = 32
REWARD_SEEDS, HELD_OUT_SEEDS = 3, 2
ACCURACY, REFINED, DECAYED = 'accuracy', 'accuracy, refined', 'digits_autoencoder, linear decay'
LOGS: dict[str, dict[str, Any]] = {
    'mean over the training': {'over': 'mean'},
    'training loss': {'loss': 'training'},
    'mean training loss': {'loss': 'training', 'over': 'mean'},
}
"""Other ways to compare losses; these measure minus the logarithm of the loss, of which `page` makes gains."""

TWO = ('digits_mlp', 'digits_autoencoder')
CHOSEN, CHOSEN_ON = ' and '.join(TWO), 93
ONE = 'digits_autoencoder'
PARTS = {'suite without digits_mlp large': (*TWO, 'text_gru noisy'), CHOSEN: TWO}
"""Parts of the suite that looked better than the whole on the first 93 rules; the rest of the rules test them."""

PAPER, SUITE = 'accuracy, decades: the paper', 'suite'


def candidates(random: np.random.Generator, counts: dict[str, int]) -> Iterator[tuple[str, str, list[UpdateRule]]]:
    """Yields the beginning of names, a source, and rules in a random order, more than are wanted."""
    for name in [name for name in SEARCHES if name in counts]:
        trained = [row for row in read_results(RESULTS / name) if row.origin == 'trained']
        median = np.median([row.reward for row in trained])
        better = list(dict.fromkeys(row.program for row in trained if row.reward > median))
        rules = [UpdateRule(tuple(better[i].split())) for i in random.permutation(len(better))]
        yield name, f'the better half of docs/results/{name}', rules
    if 'random' in counts:
        yield 'random', 'uniform, version 2, two iterations', random_rules(SPACE, CHILD, 4 * counts['random'], SEED)
    known = spelled(SPACE, [UpdateRule.parse(name) for name in KNOWN_RULES])
    many = 20 * counts['neighbour']
    drawn = [neighbour(SPACE, list(known[random.integers(len(known))]), random)[0] for _ in range(many)]
    yield 'neighbour', 'a known rule with one token changed', [SPACE.rule(choices) for choices in drawn]
    pairs = (random.choice(len(known), 2, replace=False) for _ in range(20 * counts['crossed']))
    mixed = [neighbour(SPACE, crossed(SPACE, list(known[i]), list(known[j]), random), random)[0] for i, j in pairs]
    yield 'crossed', 'two known rules crossed, with one token changed', [SPACE.rule(rule) for rule in mixed]


def draw() -> None:
    """Writes rules.csv."""
    rows: dict[UpdateRule, tuple[str, str, str]] = {}  # by direction

    def add(name: str, rule: UpdateRule, source: str) -> bool:
        """Adds a rule that may train, and is no multiple of one that is there; returns whether it has."""
        form = CHILD.form_of(rule)[0]
        is_new = form not in rows and why_untrainable(rule.canonical()) is None
        if is_new:
            rows[form] = (name, rule.infix, source)
        return is_new

    for name, known in KNOWN_RULES.items():
        add(name, UpdateRule.parse(known.infix), 'known')
    numbers = dict.fromkeys(DRAWS[0], 0)
    for i, counts in enumerate(DRAWS):
        for prefix, source, rules in candidates(np.random.default_rng(SEED + i), counts):
            wanted = numbers[prefix] + counts[prefix]
            for rule in rules:
                if numbers[prefix] < wanted and add(f'{prefix} {numbers[prefix] + 1}', rule, source):
                    numbers[prefix] += 1
    write_rows(RULES, [dict(zip(('name', 'rule', 'source'), row, strict=True)) for row in rows.values()])


def stages() -> Iterator[tuple[str, Child, Task, int]]:
    """Yields all that is trained: a name, the procedure, the task and the number of seeds."""
    gin.parse_config_file('gin/digits.gin')
    paper = Search()
    gains = dict(zip(suite_tasks(), suite().tasks, strict=True))
    yield ACCURACY, paper.child, paper.task, REWARD_SEEDS
    for name in TWO:
        yield name, CHILD, gains[name], REWARD_SEEDS
    for name, task in zip(validation_tasks(), validation().tasks, strict=True):
        yield name, CHILD, task, HELD_OUT_SEEDS
    for name in [name for name in gains if name not in TWO]:
        yield name, CHILD, gains[name], REWARD_SEEDS
    yield REFINED, replace(paper.child, refine=True), paper.task, REWARD_SEEDS
    yield DECAYED, CHILD, decayed(digits_autoencoder()), REWARD_SEEDS
    for what, settings in LOGS.items():
        for name in TWO:
            yield f'{name}, {what}', CHILD, Gain(suite_tasks()[name], **settings).of_logs, REWARD_SEEDS


def train(run_dir: Path, tasks: Sequence[str]) -> None:
    """Trains what is not in outcomes.csv, and writes it after each task; tasks are names of stages, none for all."""
    use_one_cpu_thread()
    rules = {row['name']: UpdateRule.parse(row['rule']) for row in read_rows(RULES)}
    rows: dict[tuple[str, str, int], dict[str, Any]] = {
        (row['task'], row['rule'], int(row['seed'])): row for row in read_rows(OUTCOMES)
    }
    for name, child, task, seeds in stages():
        if tasks and name not in tasks:
            continue
        missing = {who: [seed for seed in range(seeds) if (name, who, seed) not in rows] for who in rules}
        wanted = {rules[who]: of for who, of in missing.items() if of}
        if not wanted:
            continue
        found = outcomes(run_dir / name, child, task, wanted)
        for who, of in missing.items():
            for seed in of:
                outcome = found[rules[who], seed]
                rows[name, who, seed] = {
                    'task': name,
                    'rule': who,
                    'seed': seed,
                    'reward': f'{outcome.reward:.6g}',
                    'learning_rate': outcome.learning_rate,
                    'seconds': f'{outcome.seconds:.3g}',
                }
        write_rows(OUTCOMES, list(rows.values()))


Compared = dict[str, tuple[np.ndarray, float]]  # name -> rewards [seeds, rules], seconds a rule
Read = tuple[list[dict[str, str]], dict[str, np.ndarray], dict[str, np.ndarray]]


def read(needed: Sequence[str], begin: int = 0) -> Read:
    """Returns the rules that are trained on tasks; rewards by task, [seeds, rules]; seconds.

    Args:
        needed: the tasks; of others, those on which all these rules are trained.
        begin: how many rules of rules.csv to leave out.
    """
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in read_rows(OUTCOMES):
        of = found.setdefault(row['task'], {}).setdefault(row['rule'], [])
        of.append((float(row['reward']), float(row['seconds'])))
    rules = [rule for rule in read_rows(RULES)[begin:] if all(rule['name'] in found[task] for task in needed)]
    complete = {task: of for task, of in found.items() if all(rule['name'] in of for rule in rules)}
    both = {task: np.array([of[rule['name']] for rule in rules]).T for task, of in complete.items()}
    for told in both.values():
        told[1][:, 0] = np.median(told[1][:, 1:])  # the first rule waited for the graph
    return rules, {task: told[0] for task, told in both.items()}, {task: told[1] for task, told in both.items()}


def page() -> None:
    """Fills the tables of docs/reward_fidelity.md, and draws its figure."""
    rules, rewards, seconds = read([ACCURACY, REFINED, *suite_tasks(), DECAYED, *validation_tasks()])
    held = np.mean([rewards[name] for name in validation_tasks()], 0)  # [seeds, rules]
    names = [rule['name'] for rule in rules]
    bar = held.mean(0)[names.index('momentum')]
    compared: Compared = {
        PAPER: (rewards[ACCURACY], seconds[ACCURACY].mean()),
        'accuracy, quarter decades': (rewards[REFINED], seconds[REFINED].mean()),
        **{f'loss or gain: {name}': (rewards[name], seconds[name].mean()) for name in (*suite_tasks(), DECAYED)},
    }
    for which, tasks in {SUITE: tuple(suite_tasks()), **PARTS}.items():
        compared |= _and_over_seeds(
            which, *_suite([rewards[name] for name in tasks], [seconds[name] for name in tasks])
        )
    noisy = {name: rewards[name] for name in (ACCURACY, *suite_tasks(), *validation_tasks())}
    panel = [names.index(name) for name in PANEL]
    for what in LOGS:
        parts = [f'{name}, {what}' for name in TWO]
        if all(part in rewards for part in parts):
            adam = names.index('adam')
            gains = [reward_tables.gains_of(rewards[part], rewards[part][:, [adam]], panel) for part in parts]
            compared |= _and_over_seeds(f'{CHOSEN}, {what}', *_suite(gains, [seconds[part] for part in parts]))
    panels = {f'{name}, one seed': compared[name][0][0] for name in (PAPER, SUITE, *PARTS)}
    sources = [rule['name'].rpartition(' ')[0] or 'known' for rule in rules]
    reward_tables.draw(panels, held.mean(0), sources, PAGE.with_suffix('.png'))

    _, rewards, seconds = read([ACCURACY, *TWO, DECAYED, *validation_tasks()], CHOSEN_ON)
    tested = _and_over_seeds(PAPER, rewards[ACCURACY], seconds[ACCURACY].mean())
    tested |= _and_over_seeds(CHOSEN, *_suite([rewards[name] for name in TWO], [seconds[name] for name in TWO]))
    for one in (ONE, DECAYED):
        tested |= _and_over_seeds(one, rewards[one], seconds[one].mean())
    held_later = np.mean([rewards[name] for name in validation_tasks()], 0)
    fill(
        PAGE,
        {
            'rewards': _table(compared, held, bar),
            'test of the choice': _table(tested, held_later, bar),
            'noise': _noise(noisy, held.mean(0) > bar),
        },
    )


def _suite(gains: Sequence[np.ndarray], seconds: Sequence[np.ndarray]) -> tuple[np.ndarray, float]:
    """Returns the reward of several tasks as one, [seeds, rules], and its seconds a rule."""
    return reward_tables.suite_reward(np.stack(gains)), reward_tables.spent(np.stack(gains), np.stack(seconds))


def _and_over_seeds(name: str, reward: np.ndarray, cost: float) -> Compared:
    """Returns a reward of one seed, and the mean over its seeds as another."""
    over_seeds = f'{name}, mean of {REWARD_SEEDS} seeds'
    return {name: (reward, cost), over_seeds: (reward.mean(0)[None], REWARD_SEEDS * cost)}


def _noise(rewards: dict[str, np.ndarray], better: np.ndarray) -> str:
    """Returns how much seeds and rules differ on each task, among the rules better than Momentum, as a table.

    Args:
        rewards: by task, [seeds, rules].
        better: bool [rules].
    """
    rows = []
    for name, of in rewards.items():
        own = of[:, better] - of[:, better].mean(1, keepdims=True)  # what a seed does to all rules is no noise
        seeds, rules = own.std(0, ddof=1), own.mean(0).std(ddof=1)
        seed = float(np.sqrt(np.mean(seeds**2)))
        rows.append([name, f'{seed:.3g}', f'{rules:.3g}', f'{rules / seed:.1f}'])
    return markdown(['task', 'between seeds', 'between rules', 'ratio'], rows)


def _table(compared: Compared, held: np.ndarray, bar: float) -> str:
    """Returns how well rewards rank rules, as a table.

    Args:
        compared: the rewards, that of the paper among them.
        held: held-out gains, [seeds, rules].
        bar: that of Momentum.
    """
    better = held.mean(0) > bar
    judged = {name: reward_tables.judge(reward, held, better, cost) for name, (reward, cost) in compared.items()}
    judged['one half of the held-out seeds, by the other'] = reward_tables.halves(held, better)
    head = ['reward', 'first five', "more than the paper's", 'Spearman among the good', 'seconds a rule']
    counts = f'{held.shape[1]} rules, of which {better.sum()} are better than Momentum on the held-out tasks.'
    return f'{markdown(head, reward_tables.table(judged, PAPER))}\n\n{counts}'


def main() -> None:
    """Does one of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=('draw', 'train', 'page'))
    parser.add_argument('--run_dir', type=Path, default=Path('runs/reward_study'))
    parser.add_argument('--tasks', nargs='+', default=[], help='to train; all by default')
    given = parser.parse_args()
    if given.what == 'train':
        train(given.run_dir, given.tasks)
    else:
        {'draw': draw, 'page': page}[given.what]()


if __name__ == '__main__':
    output.command(main)
