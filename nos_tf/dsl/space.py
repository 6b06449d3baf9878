"""The space that a controller searches (Section 4.1): a subset of the primitives, a depth, and three constraints.

A *choice* is an index into the tokens that one softmax of the controller selects from. Choices depend on the space,
token ids do not: this module alone translates between the two.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from nos_tf.dsl.primitives import BINARIES, OPERANDS, UNARIES, Primitive, temporary
from nos_tf.dsl.rule import MAX_ITERATIONS, STEPS_PER_ITERATION, UpdateRule

LANGUAGES = (1, 2)


def _all(rows: Sequence[Primitive], language: int) -> tuple[str, ...]:
    return tuple(row.token for row in rows if row.version <= language)


@dataclass(frozen=True)
class SearchSpace:
    """The strings of `iterations` iterations over a subset of the primitives, less those that constraints forbid.

    Args:
        operands: tokens that op1 and op2 select from, beside the values of earlier iterations; None for all.
        unaries: tokens that u1 and u2 select from; None for all.
        binaries: tokens that b selects from; None for all.
        iterations: n, the depth of the binary tree; a rule has 5n tokens.
        distinct_operands: forbid op1 = op2, as tokens, in each iteration.
        no_final_addition: forbid `+` as the last binary function.
        reuse_temporaries: from the second iteration on, at least one operand is the value of an earlier one.
        language: the version of the language: 1, the paper's, or 2.

    Raises:
        ValueError: an unknown or repeated token, an empty list, or constraints that leave no legal rule.
    """

    operands: Sequence[str] = None  # type: ignore[assignment]  # a tuple once it is made
    unaries: Sequence[str] = None  # type: ignore[assignment]
    binaries: Sequence[str] = None  # type: ignore[assignment]
    iterations: int = 1
    distinct_operands: bool = False
    no_final_addition: bool = False
    reuse_temporaries: bool = False
    language: int = field(default=1, metadata={'is_later': True})

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES or isinstance(self.language, bool):
            raise ValueError(f'SearchSpace.language = {self.language!r}: must be 1 or 2')
        for name, rows in (('operands', OPERANDS), ('unaries', UNARIES), ('binaries', BINARIES)):
            object.__setattr__(self, name, _checked_subset(name, getattr(self, name), rows, self.language))
        n = self.iterations
        if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= MAX_ITERATIONS:
            raise ValueError(f'SearchSpace.iterations = {n!r}: must be a whole number from 1 to {MAX_ITERATIONS}')
        if self.size == 0:
            raise ValueError(
                f'SearchSpace has no legal rule: {self._contradiction()} (operands {list(self.operands)}, '
                f'binaries {list(self.binaries)}, {n} iterations)'
            )

    def _contradiction(self) -> str:
        if self.no_final_addition and tuple(self.binaries) == ('+',):
            return 'SearchSpace.no_final_addition forbids the only binary function'
        return 'SearchSpace.distinct_operands needs two operands in the first iteration'

    @property
    def num_steps(self) -> int:
        """T = 5n, the length of a rule in tokens."""
        return STEPS_PER_ITERATION * self.iterations

    @cached_property
    def choices(self) -> tuple[tuple[str, ...], ...]:
        """The tokens that each of the T softmaxes selects from."""
        steps: list[tuple[str, ...]] = []
        for k in range(self.iterations):
            bank = (*self.operands, *(temporary(j + 1) for j in range(k)))
            steps += [bank, bank, tuple(self.unaries), tuple(self.unaries), tuple(self.binaries)]
        return tuple(steps)

    @cached_property
    def masks(self) -> tuple[np.ndarray, ...]:
        """The legal next choices of each step t: bool [R, K], K tokens to choose from.

        Where op2 is chosen (t mod 5 = 1) the row is the choice of op1 in the same iteration; elsewhere R = 1. No mask
        leads into a dead end: a choice of op1 that leaves no op2 is masked itself.
        """
        masks: list[np.ndarray] = []
        for k in range(self.iterations):
            pairs = self._legal_pairs(k)
            unaries = np.ones([1, len(self.unaries)], bool)
            binaries = np.ones([1, len(self.binaries)], bool)
            if self.no_final_addition and k == self.iterations - 1:
                binaries[0] = [token != '+' for token in self.binaries]
            masks += [np.atleast_2d(pairs.any(axis=1)), pairs, unaries, unaries, binaries]
        return tuple(masks)

    def _legal_pairs(self, k: int) -> np.ndarray:
        """Returns which (op1, op2) iteration k, counted from 0, may select: bool [K, K]."""
        count = len(self.operands) + k
        pairs = np.ones([count, count], bool)
        if self.distinct_operands:
            np.fill_diagonal(pairs, False)
        if self.reuse_temporaries and k > 0:
            pairs[: len(self.operands), : len(self.operands)] = False
        return pairs

    @cached_property
    def size(self) -> int:
        """The exact number of legal strings."""
        counts = [int(mask.sum()) for t, mask in enumerate(self.masks) if t % STEPS_PER_ITERATION]
        return math.prod(counts)

    def legal(self, prefix: Sequence[int]) -> np.ndarray:
        """The mask of the choices that may follow `prefix`, itself a sequence of choices: bool [K]."""
        t = len(prefix)
        mask = self.masks[t]
        return mask[prefix[t - 1]] if len(mask) > 1 else mask[0]

    def rule(self, choices: Iterable[int]) -> UpdateRule:
        """The rule that a sequence of T choices spells."""
        return UpdateRule(tuple(tokens[i] for tokens, i in zip(self.choices, choices, strict=True)))

    def encode(self, rule: UpdateRule) -> tuple[int, ...]:
        """The T choices that spell `rule`.

        Raises:
            ValueError: the rule has another length, a primitive outside this space, or breaks a constraint.
        """
        if len(rule.tokens) != self.num_steps:
            raise ValueError(f'{rule}: has {len(rule.tokens)} tokens, this space spells {self.num_steps}')
        choices: list[int] = []
        for token, bank in zip(rule.tokens, self.choices, strict=True):
            if token not in bank or not self.legal(choices)[bank.index(token)]:
                allowed = [word for word, ok in zip(bank, self.legal(choices), strict=True) if ok]
                raise ValueError(f'{rule}: token {len(choices) + 1} is {token}, this space allows {" ".join(allowed)}')
            choices.append(bank.index(token))
        return tuple(choices)


def _checked_subset(
    name: str, tokens: Sequence[str] | None, rows: Sequence[Primitive], language: int
) -> tuple[str, ...]:
    allowed = _all(rows, language)
    if tokens is None:
        return allowed
    tokens = (tokens,) if isinstance(tokens, str) else tuple(tokens)
    unknown = [token for token in tokens if token not in allowed]
    if unknown and set(unknown) <= set(_all(rows, LANGUAGES[-1])):
        raise ValueError(
            f'SearchSpace.{name} has {", ".join(map(repr, unknown))}, of a later version of the language: '
            f'add SearchSpace.language = {LANGUAGES[-1]}'
        )
    if unknown or not tokens:
        given = ', '.join(map(repr, unknown)) or 'nothing'
        raise ValueError(f'SearchSpace.{name} has {given}: choose from {", ".join(allowed)}')
    if len(set(tokens)) < len(tokens):
        raise ValueError(f'SearchSpace.{name} repeats a token: {", ".join(tokens)}')
    return tokens
