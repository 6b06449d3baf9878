"""The best rule of a search, ready to train with, and all of its rules as a table."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nos_tf.config import differences
from nos_tf.dsl.rule import UpdateRule
from nos_tf.errors import RunError
from nos_tf.optimizers.nos_optimizer import NOSOptimizer
from nos_tf.search.rescore import Score
from nos_tf.store.results import Run, best_rules, read_run
from nos_tf.store.schema import Row
from nos_tf.store.summary import read_summary
from nos_tf.tasks.child import ChildSetup
from nos_tf.tasks.suite import Suite
from nos_tf.tasks.sweep import bowls

BAR = 30  # characters


@dataclass(frozen=True)
class Found:
    """A rule that a search has found; printed, it shows what it is worth and how the learning rate matters.

    Args:
        rule: canonical.
        reward: that the search saw.
        sweep: learning rate -> measure at the end of its sweep; None where it was given up.
        gains: task -> measure, where the task is a suite; None where the rule was spared one; else {}.
        finer: learning rate -> measure of whole trainings around the best, where the child looks finer; else {}.
        learning_rate: that won, most often where there were fresh seeds; NaN on a suite, where each task has its own.
        score: on fresh seeds; None where it was not rescored.
        baseline: the best known rule on the same seeds, if there is one.
        setup: the task, and the procedure that the rule was trained by.
    """

    rule: UpdateRule
    reward: float
    sweep: Mapping[float, float | None]
    finer: Mapping[float, float]
    gains: Mapping[str, float | None]
    learning_rate: float
    score: Score | None
    baseline: Score | None
    setup: ChildSetup

    def optimizer(
        self, steps: int | None = None, *, learning_rate: float | None = None, **arguments: Any
    ) -> NOSOptimizer:
        """Returns a new optimizer; that of a `KerasTask` has its schedule, clipping and weight decay.

        Args:
            steps: updates of the training to come, for schedules and rules that read how much of it is done; None for
                as many as the task has.
            learning_rate: another than the one that won.
            **arguments: of `NOSOptimizer`.
        """
        rate = self.learning_rate if learning_rate is None else learning_rate
        if math.isnan(rate):
            raise ValueError('learning_rate = None: a suite has found a rule, and no rate for your model: give one')
        arguments = {**asdict(self.setup.child.constants), **arguments}
        task: Any = None if isinstance(self.setup.task, Suite) else self.setup.task.load()
        if hasattr(task, 'optimizer'):
            return task.optimizer(self.rule, rate, steps, **arguments)
        if self.rule.reads_progress:
            arguments.setdefault('total_steps', steps or getattr(task, 'steps', None))
        return NOSOptimizer(self.rule, rate, **arguments)

    def __str__(self) -> str:
        lines = [f'{self.rule.infix}', f'reward in the search  {self.reward:.4g}']
        if self.score:
            seeds = len(self.score.rewards)
            lines.append(f'{f"on {seeds} fresh seeds":21} {_interval(self.score)}')
        if self.baseline:
            lines.append(f'best known rule       {_interval(self.baseline)}  {self.baseline.name}')
        if self.score and self.score.difference is not None:
            lines.append(
                f'difference            {self.score.difference:+.4g} ± {self.score.difference_half_width:.2g}, paired'
            )
        told = [f'{"spared" if gain is None else f"{gain:+.3f}":>8}  {task}' for task, gain in self.gains.items()]
        for name, bowl in (('sweep', self.sweep), ('training', self.finer)):
            told += ['', *_bowl(name, bowl, self.learning_rate)] if bowl else []
        return '\n'.join([*lines, *([''] if self.gains else []), *told])


def _interval(score: Score) -> str:
    return f'{score.mean:.4g} ± {score.half_width:.2g}'


def _bowl(name: str, measures: Mapping[float, float | None], best: float) -> list[str]:
    """Returns a line of text for each learning rate, with a bar that is the longer the better."""
    known = [measure for measure in measures.values() if measure is not None]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    lines = [f'learning rate  measure after the {name}']
    for rate, measure in measures.items():
        share = 1.0 if high == low else (0.0 if measure is None else (measure - low) / (high - low))
        told = 'given up' if measure is None else f'{measure:<10.4g} {"█" * (1 + round(share * (BAR - 1)))}'
        lines.append(f'{rate:<13g}  {told}{"  <- chosen" if rate == best else ""}')
    return lines


def best_of(run_dir: Path, setup: ChildSetup) -> Found:
    """Returns the best rule of a search: on fresh seeds where there are any, else by the reward that the search saw.

    Raises:
        RunError: there is no search in the directory, or nothing was trained in it yet.
    """
    run = read_run(run_dir)
    here = setup.task.identity()
    there = {name: run.configuration[name] for name in here if name in run.configuration}
    if differing := differences(there, here):
        raise RunError(f'{run_dir} holds a search on another task: {differing}')
    scores = _scores(run_dir, run)
    rows = {row.program: row for row in reversed(run.rows) if json.loads(row.sweep)}
    found = [score for score in scores if score.search_reward is not None]  # not those that are but baselines
    score = max(found, key=lambda score: score.mean, default=None)
    ranked = best_rules(rows.values(), 1)
    rule = UpdateRule.parse(score.rule).canonical() if score else next(iter(ranked), None)
    row = rows.get(' '.join(rule.tokens)) if rule else None
    if rule is None or row is None:
        raise RunError(f'{run_dir} holds no rule that was trained yet: let the search go on')
    measures, factor = json.loads(row.sweep), setup.child.form_of(rule)[1]
    rate = score.learning_rate if score else row.learning_rate
    gains: dict[str, float | None] = {}
    if isinstance(setup.task, Suite):
        gains, measures = dict(zip(map(str, setup.task.tasks), measures, strict=True)), []
    sweep, finer = bowls(run.configuration['Child.learning_rates'], measures, factor)
    return Found(
        rule=rule,
        reward=score.search_reward if score and score.search_reward is not None else row.reward,
        sweep=sweep,
        finer=finer,
        gains=gains,
        learning_rate=math.nan if rate is None else rate,
        score=score,
        baseline=max((s for s in scores if s.name), key=lambda s: s.mean, default=None),
        setup=setup,
    )


def _scores(run_dir: Path, run: Run) -> list[Score]:
    """Returns the scores on fresh seeds, if those on file are of all that the search has sampled."""
    summary = read_summary(run_dir, 'Search.run', 'children', 'configuration')
    if not summary or summary['children'] != len(run.rows):
        return []
    return [Score(**score) for score in summary.get('rescored', ())]


def table_of(run_dir: Path) -> Any:
    """Returns all distinct rules of a search, the best first: a pandas.DataFrame, or dicts where pandas is not there.

    Raises:
        RunError: there is no search in the directory.
    """
    distinct: dict[str, Row] = {}
    times: dict[str, int] = {}
    for row in read_run(run_dir).rows:
        distinct.setdefault(row.program, row)
        times[row.program] = times.get(row.program, 0) + 1
    rows = [
        {
            'rule': UpdateRule(tuple(program.split())).infix,
            'reward': row.reward,
            'learning_rate': row.learning_rate,
            'sampled': times[program],
            'first': row.id,
            'seconds': row.seconds,
            'origin': row.origin,
            'tokens': program,
        }
        for program, row in sorted(distinct.items(), key=lambda item: -item[1].reward)
    ]
    if find_spec('pandas') is None:
        return rows
    return import_module('pandas').DataFrame(rows)  # not one of our requirements
