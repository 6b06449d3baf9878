"""Searches on virtual workers: one for each way to wait for children, and what became of them."""

import contextlib
import dataclasses
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
from virtual_workers import NEVER, VirtualWorkers

from nos_tf import Search
from nos_tf.search.trials import STALENESS
from nos_tf.store.results import read_results

GOAL, WINDOW, LAST = 0.8, 100, 500  # a mean reward, of how many children; children of the mean at the end
HEAD = (
    'workers | search | utilisation | with the drain | lost | children an hour | trained | staleness | at most '
    f'| too stale (trainings) | hours to {GOAL} (children) | mean of the last {LAST} sampled | drain, h '
    '| real s of the search'
)


@dataclass(frozen=True)
class Mode:
    """How a search waits for its children."""

    asynchronous: bool
    batch: int

    def __str__(self) -> str:
        return f'{"asynchronous" if self.asynchronous else "synchronous"}, batches of {self.batch}'


def modes(workers: int) -> list[Mode]:
    """Those that are compared: the paper's minibatch, one child for each worker, and no waiting."""
    return [Mode(False, 5), Mode(False, workers), Mode(True, 5), Mode(True, 20)]


@dataclass(frozen=True)
class Played:
    """A search that was simulated. Axis N: its children, in the order in which they were learned from.

    Args:
        crew: the workers, after the search.
        rewards: float64 [N].
        hours: virtual, when each had been learned from: float64 [N].
        sampled: batches learned from before it was sampled: int64 [N].
        staleness: batches learned from since then: int64 [N].
        bound: the staleness above which a child was not learned from.
        programs: [N]; one that was on file, or under way, needed no worker.
        seconds: that the run took.
    """

    crew: VirtualWorkers
    rewards: np.ndarray
    hours: np.ndarray
    sampled: np.ndarray
    staleness: np.ndarray
    bound: int
    programs: list[str]
    seconds: float

    def reached(self) -> int | None:
        """The number of children until the mean reward of the last 100 was 0.8; None if it never was."""
        (above,) = np.nonzero(moving_average(self.rewards, WINDOW) >= GOAL)
        return int(above[0]) + WINDOW if len(above) else None

    def wasted(self) -> float:
        """The share of the trainings that nothing was learned from: whoever had asked for them came too late."""
        learned = {program for program, age in zip(self.programs, self.staleness, strict=True) if age <= self.bound}
        return 1 - len(learned) / len(set(self.programs))

    def newest(self) -> np.ndarray:
        """The rewards of the last 500 that were sampled, by the newest policies; those that were late come earlier."""
        return self.rewards[np.argsort(self.sampled, kind='stable')][-LAST:]

    def cells(self) -> list[str]:
        """A row of the table, from the utilisation on."""
        crew, end, goal = self.crew, self.crew.moment, self.reached()
        begin, last = crew.manned or NEVER, crew.last or NEVER
        return [
            f'{crew.utilisation(begin, last):.2%}',
            f'{crew.utilisation(begin, end):.0%}',
            f'{(last.lost - begin.lost) / max(last.busy - begin.busy, 1e-9):.2%}',
            f'{len(self.rewards) / self.hours[-1]:.0f}',
            f'{len(set(self.programs)) / len(self.rewards):.0%}',
            f'{self.staleness.mean():.1f}',
            f'{self.staleness.max()}',
            f'{np.mean(self.staleness > self.bound):.2%} ({self.wasted():.0%})',
            '–' if goal is None else f'{self.hours[goal - 1]:.2f} ({goal})',
            f'{self.newest().mean():.3f}',
            f'{(end.now - last.now) / 3600:.2f}',
            f'{crew.thinking:.0f} of {self.seconds:.0f}',
        ]


def play(search: Search, crew: VirtualWorkers, mode: Mode, children: int) -> Played:
    """Simulates a search.

    Args:
        search: on the table; its learner gets the batch of the mode.
        crew: new workers.
        mode: how to wait.
        children: to sample in all.
    """
    learner: Any = search.learner  # a protocol does not say that it is a dataclass
    search = dataclasses.replace(
        search,
        learner=dataclasses.replace(learner, batch_size=mode.batch),
        evaluator=crew,
        asynchronous=mode.asynchronous,
        children=children,
        rescore_seeds=0,
    )
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        search.run(folder)
        rows = read_results(Path(folder))
    iterations, sampled = np.array([(row.iteration, row.sampled) for row in rows]).T
    return Played(
        crew,
        np.array([row.reward for row in rows]),
        np.array(crew.batches)[iterations] / 3600,
        sampled,
        iterations - sampled,
        bound(search, crew.workers or 1),
        [row.program for row in rows],
        time.perf_counter() - begin,
    )


def bound(search: Search, workers: int) -> int:
    """The largest staleness that is learned from: as given, or what the search takes for it."""
    if search.max_staleness is not None:
        return search.max_staleness
    batch = search.learner.batch_size
    return STALENESS * -(-(workers + batch) // batch)


def draw(played: dict[tuple[int, Mode], Played], path: Path) -> None:
    """A panel for each number of workers: the mean reward of the last 100 children against virtual hours."""
    numbers = sorted({workers for workers, _ in played})
    figure = matplotlib.figure.Figure(figsize=(5.5 * len(numbers), 4.2), layout='constrained')
    for axes, number in zip(figure.subplots(1, len(numbers), squeeze=False)[0], numbers, strict=True):
        for (workers, mode), run in played.items():
            if workers == number:
                axes.plot(run.hours[WINDOW - 1 :], moving_average(run.rewards, WINDOW), label=str(mode), linewidth=1.4)
        shortest = min(run.hours[-1] for (workers, mode), run in played.items() if workers == number)
        axes.set(xlabel='virtual hours', ylabel=f'mean reward of the last {WINDOW} children', title=f'{number} workers')
        axes.set_xlim(0, 3 * shortest)  # the slowest takes many times as long
        axes.spines[['top', 'right']].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """The means of all runs of so many values in a row: float64 [len(values) - window + 1], [] if they are fewer."""
    if len(values) < window:
        return np.zeros(0)
    total = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    return (total[window:] - total[:-window]) / window
