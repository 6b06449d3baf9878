"""Rewards by look-up: a file that has the outcome of every program of a space, trained once and for all.

What NAS-Bench is for architectures, this is for optimizer search: learners compare at the price of their own thought,
and what the best rule would have been is known. `benchmarks/tabular/generate.py` makes the file.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import gin
import numpy as np

from nos_tf import files
from nos_tf.config import Configured, differences
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.space import SearchSpace
from nos_tf.errors import RunError
from nos_tf.evaluation import machine
from nos_tf.evaluation.columns import UNTRAINED, Columns
from nos_tf.evaluation.jobs import Job
from nos_tf.tasks.child import LOOKED_UP, ChildSetup, Outcome
from nos_tf.tasks.renamed import renamed

FORMAT = 1
GENERATOR = 'python benchmarks/tabular/generate.py'


@dataclass(frozen=True, eq=False)
class RewardTable:
    """What was trained: P programs in C order of the choices op1, op2, u1, u2, b, in C classes.

    Args:
        metadata: `format`, `task` (the identity of the child), `space`, `seeds` (S, beside the task's),
            `complete`, and what else the generator has to say.
        accuracies: float32 [N + 1], of each number of rightly classified validation images.
        class_of: int32 [P], the class of each program.
        origin: uint8 [P], how we know: SAME_PROGRAM or SAME_FUNCTION of `nos_tf.dsl.classes`.
        representatives: uint8 [C, 5], token ids of what trained for a class.
        first: [C], with the seed of the task.
        rescored: int32 [K], the classes that trained with more seeds.
        again: [K, S], with those.
        audited: int32 [A], programs that trained themselves though their class is known by another.
        audit: [A].
        deeper: uint8 [D, 10], token ids of canonical programs of two iterations.
        deep: [D].

    Raises:
        ValueError: shapes that do not fit each other.
    """

    metadata: dict[str, Any]
    accuracies: np.ndarray
    class_of: np.ndarray
    origin: np.ndarray
    representatives: np.ndarray
    first: Columns
    rescored: np.ndarray
    again: Columns
    audited: np.ndarray
    audit: Columns
    deeper: np.ndarray
    deep: Columns

    def __post_init__(self) -> None:
        classes, seeds = len(self.representatives), len(self.metadata['seeds'])
        expected = [(classes,), (len(self.rescored), seeds), (len(self.audited),), (len(self.deeper),)]
        shapes = [columns.right.shape for columns in (self.first, self.again, self.audit, self.deep)]
        fits = shapes == expected and len(self.class_of) == len(self.origin) == self.space.size
        if not fits or not 0 <= self.class_of.min() <= self.class_of.max() < classes:
            raise ValueError(f'{len(self.class_of)} programs in {classes} classes, outcomes {shapes}, not {expected}')

    @cached_property
    def space(self) -> SearchSpace:
        """Of the programs: one iteration."""
        return SearchSpace(**self.metadata['space'])

    @property
    def fingerprint(self) -> str:
        """A hash of all that the table holds."""
        digest = hashlib.sha256(json.dumps(self.metadata, sort_keys=True).encode())
        for name, array in self._arrays().items():
            digest.update(f'{name} {array.dtype.str} {array.shape}'.encode() + array.tobytes())
        return digest.hexdigest()[:16]

    def index(self, choices: np.ndarray) -> np.ndarray:
        """The programs that choices [B, 5] spell: int [B], from 0 to P - 1."""
        return np.ravel_multi_index(tuple(np.asarray(choices).T), tuple(map(len, self.space.choices)))

    def rewards(self, choices: np.ndarray) -> np.ndarray:
        """The rewards of choices [B, 5] with the seed of the task: float32 [B], NaN where there is none."""
        return self._first_rewards[self.class_of[self.index(choices)]]

    def mean_rewards(self, choices: np.ndarray) -> np.ndarray:
        """The mean rewards of choices [B, 5] over all seeds that the table has of them: float32 [B]."""
        return self._mean_rewards[self.class_of[self.index(choices)]]

    @cached_property
    def choices(self) -> np.ndarray:
        """Those of all programs, in their order: int32 [P, 5]."""
        banks = tuple(map(len, self.space.choices))
        return np.array(np.unravel_index(np.arange(self.space.size), banks), np.int32).T

    def best(self, count: int) -> np.ndarray:
        """The programs of the highest mean rewards, best first: int [count].

        Those whose class trained with all seeds come before the others, of which one seed says little.
        """
        is_known = np.isin(self.class_of, self.rescored)
        return np.lexsort((np.arange(len(is_known)), -self.mean_rewards(self.choices), ~is_known))[:count]

    @cached_property
    def _first_rewards(self) -> np.ndarray:
        return self._told(self.first.right)

    @cached_property
    def _mean_rewards(self) -> np.ndarray:
        means = self._first_rewards.copy()
        counts = np.concatenate([self.first.right[self.rescored, None], self.again.right], axis=1)
        means[self.rescored] = self._told(counts).mean(axis=1, dtype=np.float64)
        return means

    def _told(self, counts: np.ndarray) -> np.ndarray:
        return np.where(counts == UNTRAINED, np.float32(np.nan), self.accuracies[counts])

    def outcome(self, rule: UpdateRule, seed: int | None = None) -> Outcome | None:
        """The outcome of a rule, found by its canonical form; None if the table does not hold it.

        Args:
            rule: any; of two iterations if it is one of those that were drawn.
            seed: None for that of the task.
        """
        seed = self._seed if seed is None else seed
        tokens = rule.canonical().tokens
        if len(tokens) > 5:
            row = self._deep_rows.get(tokens)
            return None if row is None or seed != self._seed else self._outcome(self.deep, row)
        choices = [bank.get(token) for bank, token in zip(self._banks, tokens, strict=True)]
        if None in choices:
            return None
        one = int(self.class_of[self.index(np.array([choices]))[0]])
        if seed == self._seed:
            return self._outcome(self.first, one)
        if one not in self._rescored_rows or seed not in self.metadata['seeds']:
            return None
        return self._outcome(self.again, (self._rescored_rows[one], self.metadata['seeds'].index(seed)))

    def _outcome(self, columns: Columns, index: Any) -> Outcome | None:
        return columns.outcome(index, self.metadata['task']['Child.learning_rates'], self.accuracies)

    @cached_property
    def _banks(self) -> list[dict[str, int]]:
        return [{token: i for i, token in enumerate(bank)} for bank in self.space.choices]

    @cached_property
    def _rescored_rows(self) -> dict[int, int]:
        return {int(one): row for row, one in enumerate(self.rescored)}

    @cached_property
    def _deep_rows(self) -> dict[tuple[str, ...], int]:
        return {UpdateRule.from_ids(ids).tokens: row for row, ids in enumerate(self.deeper)}

    @property
    def _seed(self) -> int:
        return self.metadata['task']['Child.seed']

    def __str__(self) -> str:
        return (
            f'{len(self.class_of):,} programs of one iteration with seed {self._seed}, {len(self.rescored):,} '
            f'functions among them with {self.metadata["seeds"]}, and {len(self.deeper):,} programs of two iterations'
            + ('' if self.metadata['complete'] else '; it is not complete')
        )

    def _arrays(self) -> dict[str, np.ndarray]:
        """All arrays, by the names that they have in the file."""
        arrays: dict[str, np.ndarray] = {}
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            parts = {f'{field.name}_{k}': v for k, v in value._asdict().items()} if isinstance(value, Columns) else {}
            arrays.update(parts or {field.name: value})
        return arrays

    def save(self, path: Path) -> None:
        """Writes the file, whole or not at all."""
        files.save(path, {'metadata': np.array(json.dumps(self.metadata)), **self._arrays()}, compressed=True)

    @classmethod
    def load(cls, path: Path | str) -> 'RewardTable':
        """Reads a file.

        Raises:
            RunError: there is none, it is no table or a damaged one, or a table of another format.
            OSError: it cannot be read now.
        """
        try:
            file = files.load(path)
            metadata = json.loads(str(file['metadata']))
            if metadata['format'] != FORMAT:
                raise RunError(f'{path} is a table of format {metadata["format"]}, and this version reads {FORMAT}')
            return cls(metadata, **{field.name: _read(file, field.name) for field in fields(cls)[1:]})
        except FileNotFoundError as error:
            raise RunError(f'there is no table of rewards {path}: `{GENERATOR}` makes one') from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f'{path} is no table of rewards, or a damaged one ({error}): restore it') from error


def _read(file: Mapping[str, np.ndarray], name: str) -> Any:
    """One array, or the columns that belong together."""
    if name in file:
        return file[name]
    return Columns(*(file[f'{name}_{column}'] for column in Columns._fields))


@gin.register
@dataclass
class Table(Configured):
    """An evaluator that looks outcomes up instead of training.

    Args:
        path: of the file.
    """

    path: str = gin.REQUIRED

    workers = 1

    @cached_property
    def _table(self) -> RewardTable:
        return RewardTable.load(self.path)

    def identity(self, setup: ChildSetup) -> dict[str, Any]:
        """Returns the identity of the setup, this machine and the table.

        Raises:
            RunError: the table is of another procedure or task.
        """
        identity = setup.identity()
        there = {k: v for k, v in renamed(self._table.metadata['task']).items() if not machine.is_of_machine(k)}
        if differing := differences(there, identity):
            raise RunError(f'{self.path} was made for another task: {differing}')
        return {**identity, **machine.identity(), 'Table': self._table.fingerprint}

    def start(self, setup: ChildSetup) -> None:
        """Reads the table, whose task must be that of the setup."""
        self.identity(setup)
        self._ended: list[tuple[Job, Outcome]] = []

    def submit(self, job: Job) -> None:
        """Looks the job up.

        Raises:
            RunError: it is not in the table.
        """
        outcome = self._table.outcome(*job)
        if outcome is None:
            raise RunError(f'{self.path} has no outcome of {job.program} with seed {job.seed}: it holds {self._table}')
        self._ended.append((job, outcome._replace(origin=LOOKED_UP)))

    def collect(self) -> list[tuple[Job, Outcome]]:
        """Returns all that was looked up since the last time."""
        ended, self._ended = self._ended, []
        return ended

    def status(self) -> dict[str, float]:
        """Returns no figures."""
        return {}

    def close(self) -> None:
        """Does nothing: there is nothing to end."""
