"""The primitives that one graph can run: those of a space, of rules besides it, and of the canonical forms of all.

A canonical form may have words that its rule lacks (`g * g` is `g^2`), but none of another average. So a vocabulary has
all words of version 1 whose averages it keeps, and those of later versions that are asked for.

Rewards of the paper's language are for good: where no later word is asked for, a graph has all of version 1, with all
averages. Leaving one out would change the last bits of others, since TensorFlow optimises a graph as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from nos_tf.dsl.primitives import BINARIES, OPERANDS, SLOTS, UNARIES, Primitive
from nos_tf.dsl.rule import MAX_ITERATIONS, UpdateRule
from nos_tf.dsl.space import SearchSpace

_TABLES = OPERANDS, UNARIES, BINARIES
_ALL_OF_VERSION_1 = frozenset(row.token for rows in _TABLES for row in rows if row.version == 1)


@dataclass(frozen=True)
class Vocabulary:
    """The words that rules may consist of, and how deep the rules may be.

    Args:
        iterations: the depth of the deepest of them.
        words: tokens; the default are all of version 1.
    """

    iterations: int = MAX_ITERATIONS
    words: frozenset[str] = field(default=_ALL_OF_VERSION_1)

    @classmethod
    def of(cls, space: SearchSpace | None, rules: Iterable[UpdateRule] = ()) -> Vocabulary:
        """Returns the vocabulary of all rules of a space, if one is given, and of rules besides it."""
        programs = [rule.canonical() for rule in rules]
        depths = [program.iterations for program in programs]
        words = {row.token for program in programs for row in program.primitives}
        if space is not None:
            depths.append(space.iterations)
            words |= {*space.operands, *space.unaries, *space.binaries}
        depth = max(depths, default=1)
        return cls(depth) if words <= _ALL_OF_VERSION_1 else cls(depth, frozenset(words))

    def identity(self) -> dict[str, list[str]]:
        """Returns what a reward depends on, by name: nothing where there is but version 1."""
        return {} if self.words == _ALL_OF_VERSION_1 else {'vocabulary': sorted(self.words)}

    def __reduce__(self) -> tuple[type[Vocabulary], tuple[int, frozenset[str]]]:
        return Vocabulary, (self.iterations, self.words)  # without `tables`, whose functions do not pickle

    @cached_property
    def slots(self) -> tuple[str, ...]:
        """The averages that these rules keep."""
        kept = {slot for row in OPERANDS if row.token in self.words for slot in row.slots}
        return tuple(slot for slot in SLOTS if slot in kept)

    @cached_property
    def tables(self) -> tuple[Sequence[Primitive], Sequence[Primitive], Sequence[Primitive]]:
        """The rows of the operands, of the unary and of the binary functions that a graph must have."""
        operands, unaries, binaries = (
            [row for row in rows if row.token in self.words or (row.version == 1 and set(row.slots) <= set(self.slots))]
            for rows in _TABLES
        )
        return operands, unaries, binaries

    def ids_of(self, rule: UpdateRule) -> np.ndarray:
        """Returns what such a graph is told of a rule: the ids of its canonical form, int32 [5 iterations].

        Raises:
            ValueError: the rule has words that the vocabulary lacks, or too many iterations.
        """
        program = rule.canonical()
        known = {row for rows in self.tables for row in rows}
        if unknown := [row.token for row in program.primitives if row not in known]:
            raise ValueError(f'{rule}: {", ".join(sorted(unknown))} was not announced; give the vocabulary that has it')
        return program.padded_ids(self.iterations)


VERSION_1 = Vocabulary()
"""All words of the paper's language."""
