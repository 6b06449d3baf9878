"""The running account of a search: what the display, TensorBoard and the summary tell."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nos_tf.dsl.rule import UpdateRule
from nos_tf.store.schema import Row
from nos_tf.tasks.child import MERGED, QUARANTINED, REJECTED

WINDOW = 100  # children over which a mean reward is told


@dataclass
class Tally:
    """Counts children in the order of their ids; the same rows give the same tally, resumed or not."""

    rewards: list[float] = field(default_factory=list)
    programs: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)
    equal_functions: int = 0  # new programs whose function an earlier one computes
    merged: int = 0  # those among them that took over its outcome
    rejected: int = 0  # new programs that cannot train and did not
    quarantined: int = 0  # new programs whose workers all died
    best: Row | None = None

    @classmethod
    def of(cls, rows: Iterable[Row]) -> 'Tally':
        """Returns the tally of these children."""
        tally = cls()
        for row in rows:
            tally.add(row)
        return tally

    def add(self, row: Row) -> None:
        """Counts one child more."""
        self.rewards.append(row.reward)
        if row.program not in self.programs:
            self._add_program(row)
        if self.best is None or row.reward > self.best.reward:
            self.best = row

    def _add_program(self, row: Row) -> None:
        self.programs.add(row.program)
        self.merged += row.origin.startswith(MERGED)
        self.rejected += row.origin.startswith(REJECTED)
        self.quarantined += row.origin.startswith(QUARANTINED)
        if row.fingerprint is not None:
            self.equal_functions += row.fingerprint in self.functions
            self.functions.add(row.fingerprint)

    @property
    def children(self) -> int:
        """The number of children."""
        return len(self.rewards)

    @property
    def hits(self) -> int:
        """Children whose program another child had had before: rewards that cost no training."""
        return self.children - len(self.programs)

    @property
    def hit_rate(self) -> float:
        """The share of hits among all children."""
        return self._share(self.hits)

    @property
    def equal_function_rate(self) -> float:
        """The share among all children of new programs that compute what an earlier one computes."""
        return self._share(self.equal_functions)

    @property
    def rejected_rate(self) -> float:
        """The share among all children of new programs that were rejected without training."""
        return self._share(self.rejected)

    def _share(self, count: int) -> float:
        return count / self.children if self.children else 0.0

    @property
    def recent_mean(self) -> float:
        """The mean reward of the latest children."""
        return float(np.mean(self.rewards[-WINDOW:])) if self.rewards else float('nan')

    @property
    def best_rule(self) -> str:
        """The best rule in infix notation, the first of equals."""
        return UpdateRule(tuple(self.best.program.split())).infix if self.best else ''

    @property
    def best_reward(self) -> float:
        """The reward of the best rule; NaN before the first child."""
        return self.best.reward if self.best else float('nan')

    def summary(self) -> dict[str, Any]:
        """The counts and rewards of `summary.json`."""
        window = min(WINDOW, max(1, self.children // 2))
        return {
            'children': self.children,
            'distinct_rules': len(self.programs),
            'hits': self.hits,
            'hit_rate': self.hit_rate,
            'equal_functions': self.equal_functions,
            'equal_function_rate': self.equal_function_rate,
            'merged': self.merged,
            'rejected': self.rejected,
            'rejected_rate': self.rejected_rate,
            'quarantined': self.quarantined,
            'window': window,
            'best_rule': self.best_rule,
            'best_rule_tokens': self.best.program if self.best else '',
            'best_reward': self.best_reward,
            'mean_reward_first_100': float(np.mean(self.rewards[:window])),
            'mean_reward_last_100': float(np.mean(self.rewards[-window:])),
        }
