"""Does what a search has found hold up? One rule against the optimizers that people use, by the bench.

The rule was chosen beforehand. Everyone is tuned with the same effort, then trained at frozen settings on seeds that
nobody has seen; final losses are compared by seed. The tasks of the search are held apart from those that it has not
seen.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import gin
import numpy as np
from scipy import stats

from nos_tf.compare.bench import NULL, Bench
from nos_tf.compare.bench_result import BenchResult
from nos_tf.compare.paired import CONFIDENCE, Difference, holm
from nos_tf.config import NOT_EMPTY, Configured, Count, at_least
from nos_tf.dsl.rule import UpdateRule
from nos_tf.evaluation.jobs import Evaluator
from nos_tf.evaluation.pool import ProcessPool
from nos_tf.optimizers.contender import Contender

BASELINES = (
    'keras.AdamW',
    'keras.SGD',
    'keras.SGD with momentum=0.9',
    'keras.SGD with momentum=0.9, nesterov=1',
    'keras.RMSprop',
    'keras.Adam',
    'keras.Nadam',
    'keras.Lion',
    'adam_powersign',
)
"""The optimizers that a rule is held against; the first is the reference of the bench."""

SEEN = 'search'  # the name of the search's own task
OWN = rf'{SEEN}(-\d+)?'  # with the number of one, if it is a suite

LEGEND = (
    'log(loss of the optimizer / loss of the rule) at the end, by seed; where no loss is measured, by how much the '
    'rule is better; 95% intervals; * p < .05, ** p < .01, corrected by Holm for how many optimizers there are. The '
    'null control is the first optimizer against itself, and its seeds are no pairs'
)


class Margin(NamedTuple):
    """How much lower the loss of the rule is than that of a baseline, on one task."""

    baseline: str
    task: str
    is_seen: bool  # whether the search has trained on the task
    mean: float  # of log(loss of the baseline / loss of the rule) by seed; of losses themselves if not all are above 0
    half_width: float  # of its 95% interval
    p: float  # of the paired t-test, corrected by Holm for the baselines

    @property
    def is_better(self) -> bool:
        """Returns whether the rule is significantly better, after Holm's correction."""
        return self.mean > 0 and self.p < 1 - CONFIDENCE

    @property
    def is_worse(self) -> bool:
        """Returns whether the rule is significantly worse, after Holm's correction."""
        return self.mean < 0 and self.p < 1 - CONFIDENCE

    def __str__(self) -> str:
        stars = '**' if self.p < 0.01 else '*' if self.p < 1 - CONFIDENCE else ''
        return f'{self.mean:+.3f} ± {self.half_width:.3f} {stars}'.rstrip()


@dataclass(frozen=True)
class Verdict:
    """The comparison of a rule with the baselines; printed, a sentence for each task and a table.

    Args:
        rule: infix.
        margins: against each baseline on each task, and of the reference against itself.
        seeds: that everyone was judged on.
    """

    rule: str
    margins: Sequence[Margin]
    seeds: int

    @property
    def tasks(self) -> dict[str, bool]:
        """Returns task -> whether the search has trained on it."""
        return {margin.task: margin.is_seen for margin in self.margins}

    def beats_all(self, task: str) -> bool:
        """Returns whether the rule is better than every baseline on a task."""
        return all(margin.is_better for margin in self._against_others(task))

    def _against_others(self, task: str) -> list[Margin]:
        return [margin for margin in self.margins if margin.task == task and margin.baseline != NULL]

    def sentences(self) -> Iterator[str]:
        """Yields what is true on each task."""
        for task, is_seen in self.tasks.items():
            margins = self._against_others(task)
            where = f'On {shown(task)},' if is_seen else f'On {task}, which the search has not seen,'
            better, worse = ([m.baseline for m in margins if getattr(m, how)] for how in ('is_better', 'is_worse'))
            if len(margins) in (len(better), len(worse)):
                yield f'{where} it is {"better" if better else "worse"} than all of them.'
                continue
            even = [margin.baseline for margin in margins if margin.baseline not in {*better, *worse}]
            told = [f'better than {len(better)} of {len(margins)}'] if better else ['better than none of them']
            told += [f'worse than {", ".join(worse)}'] if worse else []
            told += [f'not to be told from {", ".join(even)}'] if even else []
            yield f'{where} it is {"; ".join(told)}.'

    def __str__(self) -> str:
        cells = {(margin.baseline, margin.task): str(margin) for margin in self.margins}
        names = list(dict.fromkeys(margin.baseline for margin in self.margins))
        width, column = max(map(len, names)) + 2, max(22, *(len(task) + 2 for task in self.tasks))
        heads = ['', *self.tasks]
        rows = [[name, *(cells[name, task] for task in self.tasks)] for name in names]
        table = [f'{row[0]:{width}}' + ''.join(f'{cell:{column}}' for cell in row[1:]) for row in (heads, *rows)]
        said = f'{self.rule}, against {len(names) - 1} optimizers tuned with the same effort; {self.seeds} fresh seeds.'
        return '\n'.join([said, *self.sentences(), '', *(line.rstrip() for line in table), '', f'{LEGEND}.'])

    def as_json(self) -> dict[str, Any]:
        """Returns the verdict as JSON values."""
        return {'rule': self.rule, 'seeds': self.seeds, 'margins': [margin._asdict() for margin in self.margins]}

    @classmethod
    def of_json(cls, fields: Mapping[str, Any]) -> 'Verdict':
        """Returns the verdict that `as_json` has written."""
        return cls(fields['rule'], [Margin(**margin) for margin in fields['margins']], fields['seeds'])


@gin.register
@dataclass(frozen=True)
class Verification(Configured):
    """Holds a rule against optimizers that people use.

    Args:
        unseen: tasks by name, on which the search has not trained.
        baselines: optimizers as text; the first is the reference, and once more the null control. Those that are the
            rule itself, but for a factor, are left out.
        seeds: fresh ones, on which everyone is judged.
        tuning_seeds: on which rates and one more hyper-parameter are chosen, with the same effort for everyone.

    Raises:
        ValueError: a value out of range; the message names the binding.
    """

    unseen: Mapping[str, Any] = field(default_factory=dict)
    baselines: Annotated[Sequence[str], NOT_EMPTY] = BASELINES
    seeds: Annotated[int, at_least(2)] = 10
    tuning_seeds: Count = 2

    def bench(self, task: Any, rule: UpdateRule, evaluator: Evaluator | None = None) -> Bench:
        """Returns the bench that compares a rule with the baselines.

        Args:
            task: of the search that has found the rule.
            rule: to be verified.
            evaluator: whose processes train; None for a process on each core.

        Raises:
            ValueError: an unknown baseline, a task that cannot be made longer, or one of the name of another.
        """
        if taken := [name for name in self.unseen if re.fullmatch(OWN, str(name))]:
            raise ValueError(f'Verification.unseen: {taken[0]!r} is a name of tasks of the search: choose another')
        kept = [text for text in self.baselines if not _is(Contender(text), rule)]
        if not kept:
            raise ValueError(
                f'Verification.baselines: {rule.infix} is the only one, there is nothing to compare it with'
            )
        return Bench(
            tasks={SEEN: task, **self.unseen},
            contenders=(rule.infix, *kept[1:]),
            reference=kept[0],
            seeds=self.seeds,
            tuning_seeds=self.tuning_seeds,
            lengths=(1.0,),
            evaluator=evaluator or ProcessPool(),
        )

    def run(
        self,
        task: Any,
        rule: UpdateRule,
        run_dir: Path | str,
        *,
        evaluator: Evaluator | None = None,
        allow_mixed: bool = False,
    ) -> Verdict:
        """Returns the verdict on a rule; what is on file in the run directory is not trained again.

        Args:
            task: of the search that has found the rule.
            rule: to be verified.
            run_dir: of the bench.
            evaluator: whose processes train; None for a process on each core.
            allow_mixed: as of `Bench.run`.

        Raises:
            RunError: as of `Bench.run`.
        """
        result = self.bench(task, rule, evaluator).run(run_dir, allow_mixed=allow_mixed)
        return Verdict(rule.infix, list(_margins(result, rule.infix)), self.seeds)


def shown(task: str) -> str:
    """Returns the name of a task for people: that of the search's own says so."""
    number = task.removeprefix(SEEN).strip('-')
    own = f'task {number} of the search' if number else 'the task of the search'
    return own if re.fullmatch(OWN, task) else task


def _is(contender: Contender, rule: UpdateRule) -> bool:
    """Returns whether an optimizer is the rule at some learning rate."""
    return bool(contender.rule and not contender.constants and contender.rule.direction()[0] == rule.direction()[0])


def _margins(result: BenchResult, rule: str) -> Iterator[Margin]:
    for task in result.tasks:
        is_log = all((task.final(name) > 0).all() for name in task.losses)
        ends = {name: np.log(task.final(name)) if is_log else task.final(name) for name in task.losses}
        others = [name for name in task.losses if name not in (rule, NULL)]
        found = {name: Difference.of(ends[name], ends[rule]) for name in others}
        ps = holm({name: difference.p for name, difference in found.items()})
        null = _unpaired(ends[result.reference], ends[NULL])
        is_seen = shown(task.name) != task.name
        for name, (mean, half_width, p) in {NULL: null, **found}.items():
            yield Margin(name, task.name, is_seen, mean, half_width, ps.get(name, p))


def _unpaired(theirs: np.ndarray, ours: np.ndarray) -> Difference:
    """Returns the difference of means over seeds that are not the same, by Welch's t-test."""
    test = stats.ttest_ind(theirs, ours, equal_var=False)
    interval = test.confidence_interval(CONFIDENCE)
    return Difference(float(theirs.mean() - ours.mean()), float(interval.high - interval.low) / 2, float(test.pvalue))
