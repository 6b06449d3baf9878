"""UpdateRule: what the controller writes, the store keeps and the optimizer runs (Section 3.1).

`Δw = λ · b(u1(op1), u2(op2))`, n times over: five tokens for each iteration, whose value is an operand of later ones.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from nos_tf.dsl import equivalence
from nos_tf.dsl.direction import direction
from nos_tf.dsl.expression import Expression, from_tokens, row_of, to_infix, to_latex, to_tokens, walk
from nos_tf.dsl.hints import did_you_mean
from nos_tf.dsl.known import KNOWN_RULES
from nos_tf.dsl.primitives import BINARY, OPERAND, SLOTS, UNARY, Primitive, RuleConstants, operand_id, temporary
from nos_tf.dsl.reader import MAX_LENGTH, read_infix

STEPS_PER_ITERATION = 5
MAX_ITERATIONS = 10
_OPERAND_WORD = re.compile(r't\d+')


@dataclass(frozen=True)
class UpdateRule:
    """An update rule; equal if spelled with the same tokens.

    Args:
        tokens: `op1 op2 u1 u2 b` for each of the n iterations.

    Raises:
        ValueError: a wrong number of tokens, an unknown one, or an operand tk that is not computed yet.

    >>> rule = UpdateRule.parse('g * exp(sign(g) * sign(m))')
    >>> rule.tokens
    ('sign(g)', 'sign(m)', 'x', 'x', '*', 'g', 't1', 'x', 'exp', '*')
    >>> rule == UpdateRule.parse('sign(g) sign(m) x x * g t1 x exp *')
    True
    >>> rule.slots, rule.is_stochastic
    (('m',), False)
    """

    tokens: tuple[str, ...]

    def __post_init__(self) -> None:
        tokens = tuple(self.tokens)
        object.__setattr__(self, 'tokens', tokens)
        n, rest = divmod(len(tokens), STEPS_PER_ITERATION)
        if rest or not 1 <= n <= MAX_ITERATIONS:
            raise ValueError(
                f'{len(tokens)} tokens ({_shorten(" ".join(map(str, tokens)))}): a rule has 5 for each iteration '
                f'(op1 op2 u1 u2 b), and 1 to {MAX_ITERATIONS} iterations'
            )
        for position, token in enumerate(tokens):
            allowed = _ids(position)
            if token not in allowed:
                hint = did_you_mean(str(token), allowed)
                where = f'token {position + 1} (iteration {position // 5 + 1})'
                raise ValueError(f'{where} is {token!r}: choose from {", ".join(allowed)}{hint}')

    @classmethod
    def parse(cls, text: str) -> UpdateRule:
        """The rule that `text` denotes: tokens separated by white space, infix notation, or the name of a known rule.

        Raises:
            TypeError: `text` is not a string.
            ValueError: it denotes no rule; the message names what could not be read, where, and what is allowed.
        """
        if not isinstance(text, str):
            raise TypeError(f'a rule is read from a string, not from {text!r} ({type(text).__name__})')
        words = text.split() if len(text) <= MAX_LENGTH else []
        name = '_'.join(words).lower().replace('-', '_')
        if name in KNOWN_RULES:
            return cls.parse_infix(KNOWN_RULES[name].infix)
        if _is_token_notation(words):
            return cls(tuple(words))
        if not text.strip():
            raise ValueError('an empty text is no rule: write tokens, an infix expression or the name of a known rule')
        return cls.parse_infix(text)

    @classmethod
    def parse_infix(cls, text: str) -> UpdateRule:
        """The shortest rule that computes an infix expression."""
        tokens = to_tokens(read_infix(text))
        if len(tokens) > STEPS_PER_ITERATION * MAX_ITERATIONS:
            raise ValueError(
                f'{_shorten(text)!r} needs {len(tokens) // 5} iterations: a rule has at most {MAX_ITERATIONS}'
            )
        return cls(tokens)

    @property
    def iterations(self) -> int:
        """n, the number of iterations."""
        return len(self.tokens) // STEPS_PER_ITERATION

    @cached_property
    def expression(self) -> Expression:
        """The rule as a tree."""
        return from_tokens(self.tokens)

    @property
    def token_ids(self) -> np.ndarray:
        """The ids of the tokens, int32 [5n]."""
        return np.array([_ids(position)[token] for position, token in enumerate(self.tokens)], np.int32)

    def padded_ids(self, iterations: int) -> np.ndarray:
        """int32 [5 * iterations]: `token_ids`, then iterations that hand the value on.

        Raises:
            ValueError: the rule itself has more iterations.
        """
        if self.iterations > iterations:
            raise ValueError(f'{self}: has {self.iterations} iterations, more than {iterations}')
        tokens = list(self.tokens)
        for k in range(self.iterations, iterations):
            tokens += [temporary(k), temporary(k), 'x', 'x', 'left']
        return UpdateRule(tuple(tokens)).token_ids

    @classmethod
    def from_ids(cls, ids: np.ndarray) -> UpdateRule:
        """Returns the rule of `token_ids`.

        Raises:
            ValueError: there is no primitive of such an id, as in a file that a newer version has written.
        """
        tokens = []
        for position, number in enumerate(map(int, ids)):
            known = {id: token for token, id in _ids(position).items()}
            if number not in known:
                raise ValueError(
                    f'token {position + 1} has the id {number}, which this nos_tf does not know: if a newer one wrote '
                    'it, install that'
                )
            tokens.append(known[number])
        return cls(tuple(tokens))

    @property
    def infix(self) -> str:
        """The rule as one would type it; reading it again gives the same canonical form."""
        return to_infix(self.expression)

    @property
    def latex(self) -> str:
        """The rule in LaTeX."""
        return to_latex(self.expression)

    @property
    def primitives(self) -> frozenset[Primitive]:
        """The primitives that the canonical form consists of."""
        return frozenset(map(row_of, walk(self.canonical().expression)))

    @property
    def slots(self) -> tuple[str, ...]:
        """The running averages that the rule keeps: its memory, in floats a weight."""
        kept = {slot for row in self.primitives for slot in row.slots}
        return tuple(slot for slot in SLOTS if slot in kept)

    @property
    def constants(self) -> tuple[str, ...]:
        """The fields of `RuleConstants` that the canonical form reads, in their order: the others change nothing.

        >>> UpdateRule.parse('powersign').constants, UpdateRule.parse('adam / g').constants
        (('beta_1',), ('beta_1', 'beta_2', 'epsilon'))
        """
        decays = {SLOTS[slot].decay for slot in self.slots}
        read = decays.union(*(row.constants for row in self.primitives))
        return tuple(name for name in RuleConstants.__dataclass_fields__ if name in read)

    @property
    def reads_gradient(self) -> bool:
        """Whether the update depends on any gradient at all."""
        return any(row.reads_gradient for row in self.primitives)

    @property
    def reads_weights(self) -> bool:
        """Whether the update depends on the weights themselves."""
        return any(row.reads_weights for row in self.primitives)

    @property
    def reads_progress(self) -> bool:
        """Whether the update depends on how much of the training is done."""
        return any(row.reads_progress for row in self.primitives)

    @property
    def version(self) -> int:
        """The first version of the language that has all primitives of the canonical form."""
        return max(row.version for row in self.primitives)

    @property
    def is_stochastic(self) -> bool:
        """Whether the rule draws random numbers."""
        return any(row.is_random for row in self.primitives)

    def canonical(self) -> UpdateRule:
        """The representative of all rules that are the same program, bit for bit."""
        return UpdateRule(equivalence.canonical_tokens(self.tokens))

    def direction(self) -> tuple[UpdateRule, float]:
        """Returns the canonical form of all rules that are this one but for a positive factor, and the factor.

        Where that is provable: `nos_tf/dsl/direction.py` says how far.

        >>> rule, factor = UpdateRule.parse('adam + adam').direction()
        >>> rule.infix, factor
        ('adam', 2.0)
        """
        form, factor = direction(self.canonical().expression)
        return UpdateRule(to_tokens(form)), factor

    def fingerprint(self, constants: RuleConstants | None = None) -> str:
        """A hash of the function that the rule computes: equal functions share it, up to rounding."""
        return equivalence.fingerprint(self.tokens, constants or RuleConstants())

    def __str__(self) -> str:
        return self.infix


def _is_token_notation(words: list[str]) -> bool:
    """Whether words are meant as tokens: two operands side by side are never infix."""
    return len(words) > 1 and all(word in OPERAND or _OPERAND_WORD.fullmatch(word) for word in words[:2])


@cache
def _ids(position: int) -> dict[str, int]:
    """The tokens that may stand at a position, with their ids."""
    iteration, kind = divmod(position, STEPS_PER_ITERATION)
    if kind < 2:
        return {token: operand_id(token) for token in (*OPERAND, *(temporary(k + 1) for k in range(iteration)))}
    return {token: row.id for token, row in (UNARY if kind < 4 else BINARY).items()}


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else f'{text[:77]}...'
