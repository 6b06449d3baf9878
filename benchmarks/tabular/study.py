"""Learners compared on the complete table of rewards: how many samples each needs to find what there is to find.

python benchmarks/tabular/study.py tune    # settings of every learner, on seeds of their own
python benchmarks/tabular/study.py run     # the best setting of each, on ten other seeds
python benchmarks/tabular/study.py draw    # figure and tables of docs/controller_study.md from what is stored

`tune` and `run` go on where they were stopped. What a run stores is the programs that it sampled, in their order;
everything else follows from them and the table.

A learner sees the reward of one training, as in a search, and the mean of what it samples is of that. What it finds is
judged by the mean over all five seeds that the table has of good programs: that of the program that looked best, and
whether one is of the best 0.1% (1%), the 155 (1,549) of the 154,880 with the highest means.
"""

import argparse
import csv
import itertools
import multiprocessing
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import documents
import numpy as np
import study_figures
import table_rewards

from nos_tf import output
from nos_tf.controller.learners import (
    PPO,
    TRPO,
    Bayesian,
    Distinct,
    Evolution,
    Learner,
    RandomSearch,
    Reinforce,
    WarmStart,
)
from nos_tf.evaluation.machine import use_one_cpu_thread
from nos_tf.evaluation.table import RewardTable

FOLDER = Path(__file__).resolve().parent
SEEDS = tuple(range(10))
TUNING_SEEDS = tuple(range(100, 105))
SAMPLES, TUNING_SAMPLES = 3000, 2000
BEST = {'top 0.1%': 0.001, 'top 1%': 0.01}


@dataclass(frozen=True)
class Contender:
    """A learner and the settings to try: every combination of them."""

    learner: Callable[..., Learner]
    grid: dict[str, tuple]

    def settings(self) -> list[dict[str, Any]]:
        """All combinations."""
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]


def warm(learner: Callable[..., Learner]) -> Callable[..., Learner]:
    """A learner that is told the known rules of one iteration first."""
    return lambda **setting: WarmStart(learner=learner(**setting))


def distinct(learner: Callable[..., Learner]) -> Callable[..., Learner]:
    """A learner that samples no update twice."""
    return lambda **setting: Distinct(learner=learner(**setting))


CONTENDERS = {
    'random search': Contender(RandomSearch, {'batch_size': (20,)}),
    'REINFORCE': Contender(Reinforce, {'batch_size': (5, 20), 'learning_rate': (3e-4, 1e-3, 3e-3, 1e-2)}),
    'PPO': Contender(PPO, {'batch_size': (5, 20), 'learning_rate': (3e-4, 1e-3, 3e-3), 'steps': (5, 20)}),
    'TRPO': Contender(TRPO, {'batch_size': (5, 10, 20), 'max_kl': (0.02, 0.05, 0.1, 0.2)}),
    'evolution': Contender(Evolution, {'batch_size': (5,), 'population': (10, 20, 50, 100), 'tournament': (2, 5, 10)}),
    'Bayesian': Contender(Bayesian, {'batch_size': (5,), 'initial': (10, 20, 40), 'candidates': (500, 1000)}),
    # past the paper
    'TRPO, replay': Contender(
        TRPO, {'batch_size': (5,), 'max_kl': (0.02, 0.05, 0.1), 'replay': (25, 100), 'steps': (1, 3)}
    ),
    'TRPO, falling entropy bonus': Contender(
        TRPO,
        {
            'batch_size': (5,),
            'max_kl': (0.05, 0.1),
            'entropy_coefficient': (0.005, 0.02),
            'entropy_half_life': (50.0, 200.0),
        },
    ),
    'TRPO, entropy target': Contender(TRPO, {'batch_size': (5,), 'max_kl': (0.05,), 'entropy_target': (3.0, 5.0, 7.0)}),
    'TRPO, elites': Contender(TRPO, {'batch_size': (5,), 'max_kl': (0.05,), 'elites': (5, 20)}),
    'TRPO, distinct': Contender(distinct(TRPO), {'batch_size': (5,), 'max_kl': (0.02, 0.05, 0.1)}),
    'TRPO, elites, distinct': Contender(
        distinct(TRPO), {'batch_size': (5,), 'max_kl': (0.02, 0.05), 'elites': (5, 20)}
    ),
    'evolution, drift': Contender(
        Evolution, {'batch_size': (5,), 'population': (50,), 'tournament': (5, 10), 'drift': (True,)}
    ),
    'evolution, drift and crossover': Contender(
        Evolution,
        {'batch_size': (5,), 'population': (50,), 'tournament': (5, 10), 'drift': (True,), 'crossover': (0.3,)},
    ),
    'evolution, distinct': Contender(
        distinct(Evolution), {'batch_size': (5,), 'population': (50,), 'tournament': (5, 10)}
    ),
    'TRPO, warm start': Contender(warm(TRPO), {'batch_size': (5,), 'max_kl': (0.05, 0.1)}),
    'Bayesian, warm start': Contender(warm(Bayesian), {'batch_size': (5,), 'initial': (10, 20)}),
}


@dataclass(frozen=True)
class Task:
    """The table as a learner's world."""

    table: RewardTable
    rewards: np.ndarray  # float32 [P], of the seed that learners see
    means: np.ndarray  # float64 [P], over all seeds
    best: dict[str, np.ndarray]  # bool [P]

    @classmethod
    def load(cls, path: Path) -> 'Task':
        """Reads a complete table."""
        table = RewardTable.load(path)
        if not table.metadata['complete']:
            raise SystemExit(f'{path} is not complete: `python benchmarks/tabular/generate.py` goes on with it')
        rewards, means = table_rewards.rewards(table), table_rewards.mean_rewards(table).astype(np.float64)
        programs = np.arange(len(means))
        best = {
            name: np.isin(programs, table_rewards.best(table, round(share * len(means))))
            for name, share in BEST.items()
        }
        return cls(table, rewards, means, best)


def play(task: Task, learner: Learner, seed: int, samples: int, *, until_found: bool = False) -> np.ndarray:
    """The programs that a learner samples, in their order: uint32 [samples].

    Args:
        task: says the rewards.
        learner: who plays.
        seed: of the learner.
        samples: in all.
        until_found: end with the batch that has a program of the best 0.1%.
    """
    agent = learner.start(task.table.space, seed)
    programs: list[np.ndarray] = []
    found = False
    for iteration in range(-(-samples // learner.batch_size)):
        batch = agent.propose(learner.batch_size, iteration)
        programs.append(task.table.index(batch.choices))
        found |= bool(task.best['top 0.1%'][programs[-1]].any())
        if until_found and found:
            break
        agent.update(batch.choices, task.rewards[programs[-1]], batch.log_probs)
    return np.concatenate(programs)[:samples].astype(np.uint32)


def first_hit(task: Task, programs: np.ndarray, name: str) -> float:
    """The number of samples up to the first of the best; infinite if there is none."""
    hits = np.flatnonzero(task.best[name][programs])
    return float(hits[0] + 1) if len(hits) else np.inf


# Tuning -----------------------------------------------------------------------------------------------------------


def tune(arguments: argparse.Namespace) -> None:
    """Appends to the file of tuning the runs that it lacks."""
    path = arguments.folder / 'tuning.csv'
    done = {(row['learner'], row['setting'], int(row['seed'])) for row in read_rows(path)}
    jobs = [
        (arguments.table, name, setting, seed, TUNING_SAMPLES, True)
        for name, contender in CONTENDERS.items()
        for setting in contender.settings()
        for seed in TUNING_SEEDS
        if (name, spelled(setting), seed) not in done and wanted(arguments, name)
    ]
    is_new = not path.exists()
    with path.open('a', newline='', encoding='utf-8') as file:
        writer = csv.writer(file, lineterminator='\n')
        if is_new:
            writer.writerow(['learner', 'setting', 'seed', 'samples to the top 0.1%'])
        for (_, name, setting, seed, *_), programs in played(jobs, arguments.workers):
            hit = first_hit(world(arguments.table), programs, 'top 0.1%')
            writer.writerow([name, spelled(setting), seed, '' if np.isinf(hit) else int(hit)])
            file.flush()


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a file; none if there is no file."""
    if not path.exists():
        return []
    with path.open(encoding='utf-8') as file:
        return list(csv.DictReader(file))


def spelled(setting: dict[str, Any]) -> str:
    """A setting in a line."""
    return ', '.join(f'{name}={value}' for name, value in setting.items())


def tuned_score(hits: Iterable[str]) -> float:
    """How bad a setting is: the geometric mean of the samples that it needed, twice the budget where it failed."""
    return float(np.exp(np.mean([np.log(float(hit) if hit else 2 * TUNING_SAMPLES) for hit in hits])))


def best_setting(folder: Path, name: str) -> dict[str, Any]:
    """The setting of a contender that tuning found best."""
    settings = {spelled(setting): setting for setting in CONTENDERS[name].settings()}
    if len(settings) == 1:
        return next(iter(settings.values()))
    scores = {}
    for setting in settings:
        rows = [r for r in read_rows(folder / 'tuning.csv') if (r['learner'], r['setting']) == (name, setting)]
        if len(rows) < len(TUNING_SEEDS):
            raise SystemExit(f'{name} with {setting} is not tuned yet: `python benchmarks/tabular/study.py tune`')
        scores[setting] = tuned_score(row['samples to the top 0.1%'] for row in rows)
    return settings[min(scores, key=lambda setting: scores[setting])]


# Runs -------------------------------------------------------------------------------------------------------------


def run(arguments: argparse.Namespace) -> None:
    """Stores the runs of each contender that are not there yet."""
    for name in CONTENDERS:
        path = run_file(arguments.folder, name)
        if not wanted(arguments, name):
            continue
        setting = best_setting(arguments.folder, name)
        if path.exists() and stored(path)[0] == spelled(setting):
            continue
        jobs = [(arguments.table, name, setting, seed, SAMPLES, False) for seed in SEEDS]
        programs = {job[3]: programs for job, programs in played(jobs, arguments.workers)}
        path.parent.mkdir(exist_ok=True)
        draft = path.with_suffix('.draft.npz')
        np.savez_compressed(draft, setting=spelled(setting), programs=np.stack([programs[seed] for seed in SEEDS]))
        draft.replace(path)


def stored(path: Path) -> tuple[str, np.ndarray]:
    """The setting of stored runs, and their programs [seeds, samples]."""
    with np.load(path) as file:
        return str(file['setting']), file['programs']


def run_file(folder: Path, name: str) -> Path:
    """Returns the path of the runs of a contender."""
    return folder / 'runs' / f'{re.sub(r"[^a-z]+", "_", name.lower())}.npz'


def wanted(arguments: argparse.Namespace, name: str) -> bool:
    """Whether the command line asks for a contender."""
    return not arguments.only or name in arguments.only


@cache
def world(table: Path) -> Task:
    """The task, once a process."""
    return Task.load(table)


def played(jobs: list[tuple], workers: int | None) -> Iterator[tuple[tuple, np.ndarray]]:
    """Plays jobs in processes of one thread each; yields each with its programs when it ends."""
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(workers, context, initializer=use_one_cpu_thread) as pool:
        for number, (job, programs) in enumerate(zip(jobs, pool.map(_play, jobs), strict=True), start=1):
            output.say(f'{number}/{len(jobs)} {job[1]} {spelled(job[2])}, seed {job[3]}')
            yield job, programs


def _play(job: tuple) -> np.ndarray:
    table, name, setting, seed, samples, until_found = job
    learner = CONTENDERS[name].learner(**setting)
    return play(world(table), learner, seed, samples, until_found=until_found)


# Figures ----------------------------------------------------------------------------------------------------------


def draw(arguments: argparse.Namespace) -> None:
    """Draws the figure, and puts the tables in their places in the document."""
    task = world(arguments.table)
    paths = {name: run_file(arguments.folder, name) for name in CONTENDERS}
    runs = {name: stored(path) for name, path in paths.items() if path.exists()}
    if not runs:
        raise SystemExit(f'{arguments.folder} has no runs: `python benchmarks/tabular/study.py run` makes them')
    study_figures.draw(runs, task.rewards, task.means, arguments.document.with_suffix('.png'))
    hits: dict[tuple[str, str], list[str]] = {}
    for row in read_rows(arguments.folder / 'tuning.csv'):
        hits.setdefault((row['learner'], row['setting']), []).append(row['samples to the top 0.1%'])
    tables = {
        'study': study_figures.table(runs, task.rewards, task.means, task.best),
        'tuning': study_figures.tuning_table([(*key, tuned_score(of_each)) for key, of_each in hits.items()]),
    }
    documents.fill(arguments.document, tables)
    print(tables['study'])


def main() -> None:
    """Does what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('verb', choices=['tune', 'run', 'draw'])
    parser.add_argument('--table', type=Path, default=FOLDER / 'digits.npz')
    parser.add_argument('--folder', type=Path, default=FOLDER, help='of tuning.csv and runs/')
    parser.add_argument('--document', type=Path, default=FOLDER.parents[1] / 'docs' / 'controller_study.md')
    parser.add_argument('--workers', type=int, help='processes; one for each core')
    parser.add_argument('--only', nargs='+', choices=list(CONTENDERS), help='these contenders alone')
    arguments = parser.parse_args()
    {'tune': tune, 'run': run, 'draw': draw}[arguments.verb](arguments)


if __name__ == '__main__':
    output.command(main)
