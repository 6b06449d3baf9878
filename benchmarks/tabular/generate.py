"""Trains every function of one iteration, and packs the outcomes into a table that searches can run on.

python benchmarks/tabular/generate.py --run_dir runs/tabular --output benchmarks/tabular/digits.npz

The task and the space are those of gin/digits.gin and gin/space_1.gin: 154,880 programs on the digits. Their
classes (nos_tf/dsl/classes.py) train once each, in random order. Then train, to know how far to trust that: programs
that were merged with another; the best classes and the known rules on more seeds; and random programs of two
iterations. No short cut is taken: whatever the table holds was trained.

Outcomes are filed in the run directory as they come, and the same command goes on where it was stopped. A tenth of a
second a training, 91,000 of them: an hour and a half on two cores. With --limit the table says that it is not complete.
"""

import argparse
import dataclasses
import functools
import itertools
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import table_columns
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from nos_tf.cli import commandline
from nos_tf import Search, UpdateRule, output
from nos_tf.dsl.classes import Classes, draw_deeper, draw_merged, find_classes, program_of
from nos_tf.dsl.known import KNOWN_RULES
from nos_tf.dsl.space import SearchSpace
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.errors import RunError
from nos_tf.evaluation.jobs import Job
from nos_tf.evaluation.machine import use_one_cpu_thread
from nos_tf.evaluation.pool import ProcessPool
from nos_tf.evaluation.table import FORMAT, Columns, RewardTable
from nos_tf.store.results import Result, Store
from nos_tf.tasks.child import ChildSetup, Outcome
from nos_tf.tasks.convnet import ImageClassification

SEED = 20170806  # of the order of training and of what is drawn
MORE_SEEDS = 4
AHEAD = 4  # jobs in the queue for each worker: all of them at once would fill the memory
PLAIN_INTERVAL = 30.0  # seconds between lines where there is no terminal


class Trainings:
    """The trainings of a run directory: those on file, and those that are done now.

    Args:
        store: what has been paid for.
        setup: of the trainings.
        workers: processes.
        total: trainings of all phases, for the time that is left.
    """

    def __init__(self, store: Store, setup: ChildSetup, workers: int, total: int) -> None:
        self._store, self._setup, self._workers = store, setup, workers
        self._total, self._done, self._trained = total, 0, 0
        self._iterations, self._held = 0, ExitStack()  # of the pool
        self._start = self._last_line = time.monotonic()
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn('left'), TimeRemainingColumn())
        self._bar = Progress(TextColumn('{task.description}'), *columns, speed_estimate_period=600)
        self._task = self._bar.add_task('', total=total)

    def train(self, phase: str, jobs: Sequence[Job], iterations: int = 1) -> list[Outcome]:
        """The outcomes of jobs of at most so many iterations, in their order."""
        missing = [job for job in jobs if self._store.outcome(*job) is None]
        self._done += len(jobs) - len(missing)
        self._show(phase)
        if missing and self._iterations != iterations:  # one iteration trains faster without room for a second
            self._iterations = iterations
            self._held.close()
            self._pool = self._held.enter_context(closing(ProcessPool(self._workers)))
            self._pool.start(dataclasses.replace(self._setup, vocabulary=Vocabulary(iterations)))
        if missing:
            self._train(phase, iter(missing))
        return [outcome for job in jobs if (outcome := self._store.outcome(*job))]

    def _train(self, phase: str, missing: Iterator[Job]) -> None:
        pool = self._pool
        for job in itertools.islice(missing, AHEAD * self._workers):
            pool.submit(job)
        while ended := pool.collect():
            self._store.save_outcomes(Result(job.program, job.seed, outcome) for job, outcome in ended)
            self._done += len(ended)
            self._trained += len(ended)
            self._show(phase)
            for job in itertools.islice(missing, len(ended)):
                pool.submit(job)

    def _show(self, phase: str) -> None:
        self._bar.update(self._task, description=phase, completed=self._done)
        if self._bar.console.is_terminal:
            self._bar.start()
        elif time.monotonic() - self._last_line >= PLAIN_INTERVAL or self._done == self._total:
            self._last_line = time.monotonic()
            seconds = (self._last_line - self._start) / max(self._trained, 1) * (self._total - self._done)
            output.say(f'{phase} {self._done}/{self._total}, {seconds / 60:.0f} minutes left')

    def close(self) -> None:
        """Ends the workers and leaves the terminal."""
        self._held.close()
        self._bar.stop()


def best_classes(
    space: SearchSpace, classes: Classes, trained: Sequence[int], rewards: Sequence[float], count: int
) -> np.ndarray:
    """Trained classes: those of the known rules, and beside them the ones of the highest rewards: int32 [count]."""
    known = set()
    for name in KNOWN_RULES:
        with suppress(ValueError):  # more than one iteration, or primitives that the space lacks
            choices = space.encode(UpdateRule.parse(name).canonical())
            known.add(int(classes.of[np.ravel_multi_index(choices, tuple(map(len, space.choices)))]))
    unknown = np.array([one not in known for one in trained])
    return np.asarray(trained, np.int32)[np.lexsort((-np.asarray(rewards), unknown))[:count]]


def generate(search: Search, store: Store, arguments: argparse.Namespace) -> RewardTable:
    """Trains what is missing, phase by phase, and gathers the table."""
    child, space, task = search.child, search.space, search.task
    if not isinstance(task, ImageClassification):
        raise RunError(f'Search.task is {task}: a table counts images, of @ImageClassification()')
    classes = find_classes(space, child.constants)
    order = np.random.default_rng(SEED).permutation(len(classes.representatives)).tolist()[: arguments.limit]
    trained = np.isin(np.arange(len(classes.representatives)), order)
    merged = draw_merged(classes, space, trained, arguments.audited, SEED)
    deeper = draw_deeper(space, arguments.deeper, SEED)
    seeds = [child.seed + 1 + i for i in range(MORE_SEEDS)]
    print(
        f'{space.size:,} programs, {classes.forms:,} canonical forms, {classes.random_forms:,} of them random, '
        f'{len(classes.representatives):,} classes; {len(order):,} of these train'
    )
    representatives = classes.representatives
    total = len(order) + len(merged) + len(deeper) + len(seeds) * min(arguments.rescored, len(order))
    with closing(Trainings(store, search.setup, arguments.workers, total)) as trainings:
        first = trainings.train('classes', [Job(representatives[one], child.seed) for one in order])
        programs = [program_of(space, program).canonical() for program in merged]
        audit = trainings.train('audit', [Job(program, child.seed) for program in programs])
        rescored = best_classes(space, classes, order, [outcome.reward for outcome in first], arguments.rescored)
        again = trainings.train('more seeds', [Job(representatives[one], seed) for one in rescored for seed in seeds])
        deep = trainings.train('two iterations', [Job(program, child.seed) for program in deeper], iterations=2)
    images = len(task.images.load().validation.labels)
    columns = functools.partial(table_columns.columns_of, rates=child.learning_rates, images=images)
    by_class = dict(zip(order, first, strict=True))
    metadata: dict[str, Any] = {
        'format': FORMAT,
        'task': ProcessPool().identity(search.setup),
        'space': {name: list(getattr(space, name)) for name in ('operands', 'unaries', 'binaries')},
        'seeds': seeds,
        'complete': len(order) == len(representatives),
        'programs': space.size,
        'forms': classes.forms,
        'random_forms': classes.random_forms,
        'classes': len(representatives),
        'training_seconds': math.fsum(outcome.seconds for outcome in (*first, *audit, *again, *deep)),
        'command': ' '.join(['python', 'benchmarks/tabular/generate.py', *sys.argv[1:]]),
    }
    return RewardTable(
        metadata=metadata,
        accuracies=table_columns.accuracies([*first, *audit, *again, *deep], images),
        class_of=classes.of,
        origin=classes.origin,
        representatives=np.array([rule.token_ids for rule in representatives], np.uint8),
        first=columns([by_class.get(one) for one in range(len(representatives))]),
        rescored=rescored,
        again=Columns(*(x.reshape(len(rescored), len(seeds), *x.shape[1:]) for x in columns(again))),
        audited=merged,
        audit=columns(audit),
        deeper=np.array([rule.token_ids for rule in deeper], np.uint8).reshape(-1, 10),
        deep=columns(deep),
    )


def report(table: RewardTable) -> None:
    """Says what is in the table, and how far merged programs are from their classes."""
    off = np.abs(table.first.right[table.class_of[table.audited]].astype(int) - table.audit.right)
    images = len(table.accuracies) - 1
    print(f'{table}; {table.metadata["training_seconds"] / 3600:.1f} hours of training')
    if len(off):
        print(
            f'audit: {np.count_nonzero(off)} of {len(off)} merged programs earn another reward than their class, '
            f'{off.max() / images:.3f} off at most, {off.mean() / images:.4f} on average'
        )


def _count(text: str) -> int:
    if int(text) < 0:
        raise ValueError
    return int(text)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--run_dir', type=Path, default=Path('runs/tabular'))
    parser.add_argument('--output', type=Path, default=Path('benchmarks/tabular/digits.npz'))
    parser.add_argument('--gin_files', nargs='+', default=['gin/digits.gin', 'gin/space_1.gin'])
    parser.add_argument('--gin_bindings', nargs='+', action='extend', default=[])
    parser.add_argument('--workers', type=_count, default=ProcessPool().workers, help='one for each core')
    parser.add_argument('--limit', type=_count, help='classes to train; all unless it is given')
    parser.add_argument('--audited', type=_count, default=500, help='merged programs to train themselves')
    parser.add_argument('--rescored', type=_count, default=2000, help='best classes to train with more seeds')
    parser.add_argument('--deeper', type=_count, default=5000, help='programs of two iterations')
    return parser.parse_args()


def main() -> None:
    """Trains, packs, and reads back what it wrote."""
    arguments = _parse_arguments()
    search = commandline.configure(arguments, Search)
    use_one_cpu_thread()
    try:
        identity = ProcessPool().identity(search.setup)
        with closing(Store(arguments.run_dir, identity, identity, str(search.task))) as store:
            table = generate(search, store, arguments)
    except ValueError as error:
        raise RunError(str(error)) from error
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    table_columns.save(table, arguments.output)
    report(RewardTable.load(arguments.output))
    print(f'{arguments.output}: {arguments.output.stat().st_size / 1e6:.2f} MB')


if __name__ == '__main__':
    commandline.main(main)
