"""What a person sees while a search runs: a live panel in a terminal, plain lines anywhere else."""

import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from nos_tf import output
from nos_tf.search.rescore import Score
from nos_tf.search.tally import Tally

PLAIN_INTERVAL = 10.0  # seconds between plain lines
PLAIN_WIDTH = 120  # characters; a table in a file need not fit a narrow terminal


class Display:
    """Tells how far a search is.

    Args:
        total: children to come in all.
        done: children that are there already.
        console: where to write; None means standard output.
    """

    def __init__(self, total: int, done: int, console: Console | None = None) -> None:
        self.console = console or output.console()
        if not self.console.is_terminal:
            self.console.width = PLAIN_WIDTH
        self._total, self._first = total, done
        self._start = time.monotonic()
        self._last_line = 0.0
        self._workers: Mapping[str, float] = {}
        self._bar = Progress(
            TextColumn('[bold]{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn('left {task.fields[eta]}'), console=self.console,
        )  # fmt: skip
        self._task = self._bar.add_task('children', total=total, completed=done, eta='?')
        self._live = Live(self._bar, console=self.console, refresh_per_second=4, transient=True)

    def __enter__(self) -> 'Display':
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def note(self, text: str) -> None:
        """Prints a line that stays."""
        self.console.print(text, highlight=False, soft_wrap=True)

    def per_hour(self, children: int) -> float:
        """Children an hour since the display began."""
        return (children - self._first) * 3600 / max(time.monotonic() - self._start, 1e-9)

    def show(self, tally: Tally, under_way: int = 0, workers: Mapping[str, float] | None = None) -> None:
        """Brings the display up to date.

        Args:
            tally: of the children that count.
            under_way: outcomes of the present batch that are there already.
            workers: numbers about them, by name; None if they are as they were.
        """
        self._workers = self._workers if workers is None else workers
        done = tally.children + under_way
        rate = self.per_hour(done)
        eta = _duration((self._total - done) * 3600 / rate) if rate and done > self._first else '?'
        if self.console.is_terminal:
            self._bar.update(self._task, completed=done, eta=eta)
            self._live.update(Group(self._bar, _panel(tally, rate, self._workers)))
            return
        now = time.monotonic()
        if tally.children and (now - self._last_line >= PLAIN_INTERVAL or tally.children >= self._total):
            self._last_line = now
            self.note(
                f'children {done}/{self._total}, mean reward of the last 100 {tally.recent_mean:.3f}, '
                f'best {tally.best.reward if tally.best else 0:.3f} {tally.best_rule}, hits {tally.hit_rate:.0%}, '
                f'equal functions {tally.equal_function_rate:.0%}, rejected {tally.rejected_rate:.0%}, '
                f'{rate:.0f} an hour, {eta} left{_crew(self._workers)}'
            )

    def busy(self, what: str, done: int, total: int) -> None:
        """Tells of work other than sampling."""
        if self.console.is_terminal:
            self._bar.update(self._task, description=what, completed=done, total=total, eta='')
            self._live.update(self._bar)
        elif done == total or time.monotonic() - self._last_line >= PLAIN_INTERVAL:
            self._last_line = time.monotonic()
            self.note(f'{what} {done}/{total}')


def _panel(tally: Tally, rate: float, workers: Mapping[str, float]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_row('mean reward of the last 100', f'{tally.recent_mean:.3f}' if tally.best else '')
    table.add_row('best reward', f'{tally.best.reward:.3f}' if tally.best else '')
    table.add_row('best rule', tally.best_rule)
    table.add_row('cache hits', f'{tally.hits} ({tally.hit_rate:.0%})')
    table.add_row('equal functions', f'{tally.equal_functions} ({tally.equal_function_rate:.0%})')
    table.add_row('rejected', f'{tally.rejected} ({tally.rejected_rate:.0%})')
    table.add_row('children an hour', f'{rate:.0f}')
    for name, value in workers.items():
        table.add_row(name.replace('_', ' '), _number(name, value))
    return table


def _crew(workers: Mapping[str, float]) -> str:
    """Returns the figures about the workers, as a plain line has them."""
    return ''.join(f', {name.replace("_", " ")} {_number(name, value)}' for name, value in workers.items())


def _number(name: str, value: float) -> str:
    return f'{value:.0%}' if name == 'utilisation' else f'{value:.1f}' if name == 'staleness' else f'{value:.0f}'


def scores_table(scores: Sequence[Score], seeds: int) -> Table:
    """The rescored rules beside the baselines, as a table for the terminal."""
    table = Table(title=f'rewards on {seeds} fresh seeds, with 95% intervals')
    for heading in ('rule', 'in the search', 'mean', 'against the best baseline', 'learning rate'):
        table.add_column(heading, justify='left' if heading == 'rule' else 'right', overflow='fold')
    for score in scores:
        table.add_row(*score_cells(score), style='bold' if score.name else None)
    return table


def score_cells(score: Score) -> tuple[str, ...]:
    """One row of the table of scores."""
    return (
        f'{score.name}: {score.rule}' if score.name else score.rule,
        '' if score.search_reward is None else f'{score.search_reward:.3f}',
        f'{score.mean:.3f} ± {score.half_width:.3f}',
        '' if score.difference is None else f'{score.difference:+.3f} ± {score.difference_half_width:.3f}',
        '' if score.learning_rate is None else f'{score.learning_rate:g}',
    )


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'
