"""Rewards by look-up: a file that has the outcome of every program of a space, trained once and for all.

What NAS-Bench is for architectures, this is for optimizer search: learners compare at the price of their own thought,
and what the best rule would have been is known. `benchmarks/tabular/generate.py` makes the file.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import gin
import numpy as np

from nos_tf import files
from nos_tf.config import Configured, differences
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.space import SearchSpace
from nos_tf.errors import RunError
from nos_tf.evaluation import machine
from nos_tf.evaluation.jobs import Job
from nos_tf.renamed import renamed
from nos_tf.tasks.child import LOOKED_UP, ChildSetup, Outcome

FORMAT = 1
GENERATOR = 'python benchmarks/tabular/generate.py'


UNTRAINED = -1


class Columns(NamedTuple):
    """Outcomes as arrays of one leading shape [...]; where nothing was trained `right` is -1."""

    right: np.ndarray  # int16 [...]: validation images that were classified rightly after the last epoch
    winner: np.ndarray  # int8 [...]: the index of the learning rate that won the sweep
    sweep: np.ndarray  # int16 [..., R]: the same as `right` for each learning rate; -1 where it was given up
    seconds: np.ndarray  # float16 [...]: of the training

    def outcome(self, index: Any, rates: Sequence[float], told: np.ndarray) -> Outcome | None:
        """One of the outcomes, accuracies as they were, bit for bit; None where nothing was trained.

        Args:
            index: of the leading shape.
            rates: as `of` was given.
            told: the accuracy of each number of rightly classified images.
        """
        right = int(self.right[index])
        if right == UNTRAINED:
            return None
        sweep = tuple(None if count == UNTRAINED else float(told[count]) for count in self.sweep[index].tolist())
        return Outcome(float(told[right]), rates[int(self.winner[index])], sweep, float(self.seconds[index]))


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
        """Returns the space of the programs, of one iteration."""
        return SearchSpace(**self.metadata['space'])

    @property
    def fingerprint(self) -> str:
        """A hash of all that the table holds."""
        digest = hashlib.sha256(json.dumps(self.metadata, sort_keys=True).encode())
        for name, array in self.arrays().items():
            digest.update(f'{name} {array.dtype.str} {array.shape}'.encode() + array.tobytes())
        return digest.hexdigest()[:16]

    def index(self, choices: np.ndarray) -> np.ndarray:
        """The programs that choices [B, 5] spell: int [B], from 0 to P - 1."""
        return np.ravel_multi_index(tuple(np.asarray(choices).T), tuple(map(len, self.space.choices)))

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

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays, by the names that they have in the file."""
        arrays: dict[str, np.ndarray] = {}
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            parts = {f'{field.name}_{k}': v for k, v in value._asdict().items()} if isinstance(value, Columns) else {}
            arrays.update(parts or {field.name: value})
        return arrays

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
