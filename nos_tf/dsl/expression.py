"""A rule as a tree: the form between tokens and text (Figure 2).

An expression says what a rule computes. The identity function, the binary function `left`, iterations that nothing
reads and the sharing of an iteration's value are ways to spell an expression in tokens, and vanish here: equal
sub-expressions are one value, computed once a step, random ones (`drop`, `noise`) included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from nos_tf.dsl.primitives import (
    BINARIES,
    BINARY_IDS,
    OPERAND_IDS,
    OPERANDS,
    UNARIES,
    UNARY_IDS,
    temporary,
    temporary_index,
)


@dataclass(frozen=True)
class Leaf:
    """An operand, by its token."""

    token: str
    depth: int = field(default=1, init=False, compare=False)
    size: int = field(default=1, init=False, compare=False)


@dataclass(frozen=True)
class Apply:
    """A unary function, by its token, of an expression."""

    token: str
    argument: Expression
    depth: int = field(init=False, compare=False)
    size: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, 'depth', 1 + self.argument.depth)
        object.__setattr__(self, 'size', 1 + self.argument.size)


@dataclass(frozen=True)
class Combine:
    """A binary function, by its token, of two expressions."""

    token: str
    left: Expression
    right: Expression
    depth: int = field(init=False, compare=False)
    size: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, 'depth', 1 + max(self.left.depth, self.right.depth))
        object.__setattr__(self, 'size', 1 + self.left.size + self.right.size)


Expression = Leaf | Apply | Combine

ATOM = 4  # precedence of what never needs parentheses
NEGATION = 3
PRODUCT = 2


def from_tokens(tokens: Sequence[str]) -> Expression:
    """The expression that the last iteration of a rule computes."""
    values: list[Expression] = []

    def argument(operand: str, unary: str) -> Expression:
        k = temporary_index(operand)
        value = values[k - 1] if k else Leaf(operand)
        return value if unary == 'x' else Apply(unary, value)

    for i in range(0, len(tokens), 5):
        op1, op2, u1, u2, b = tokens[i : i + 5]
        left = argument(op1, u1)
        values.append(left if b == 'left' else Combine(b, left, argument(op2, u2)))
    return values[-1]


def to_tokens(expression: Expression) -> tuple[str, ...]:
    """The shortest spelling of an expression, iterations in the order in which a reader from the left needs them."""
    tokens: list[str] = []
    names: dict[Expression, str] = {}

    def argument(e: Expression) -> tuple[str, str]:
        """The operand and the unary function that select the value of `e`."""
        if isinstance(e, Apply):
            return operand(e.argument), e.token
        return operand(e), 'x'

    def operand(e: Expression) -> str:
        """The token that stands for a value; the iterations that compute it come before."""
        if isinstance(e, Leaf):
            return e.token
        if e not in names:
            iteration(e)
            names[e] = temporary(len(tokens) // 5)
        return names[e]

    def iteration(e: Expression) -> None:
        op1, u1 = argument(e.left if isinstance(e, Combine) else e)
        op2, u2, b = (*argument(e.right), e.token) if isinstance(e, Combine) else (op1, 'x', 'left')
        tokens.extend((op1, op2, u1, u2, b))

    iteration(expression)
    return tuple(tokens)


def arguments(e: Expression) -> tuple[Expression, ...]:
    """What a node reads, the left one first."""
    if isinstance(e, Combine):
        return e.left, e.right
    return (e.argument,) if isinstance(e, Apply) else ()


def walk(expression: Expression) -> Iterator[Expression]:
    """Every node of the tree, the root first."""
    yield expression
    for argument in arguments(expression):
        yield from walk(argument)


def to_infix(expression: Expression) -> str:
    """The expression as one would type it, with no parentheses but those that it needs."""

    def leaf(token: str) -> tuple[str, int]:
        return token, PRODUCT if token.endswith('*w') else ATOM

    def combine(token: str, left: str, right: str) -> str:
        return f'{left} {token} {right}'

    return _print(expression, leaf, lambda row: row.infix, combine)[0]


def to_latex(expression: Expression) -> str:
    """The expression in LaTeX, in the paper's typography, without the surrounding dollars."""

    def leaf(token: str) -> tuple[str, int]:
        return OPERANDS[OPERAND_IDS[token]].latex, PRODUCT if token.endswith('*w') else ATOM

    def combine(token: str, left: str, right: str) -> str:
        return BINARIES[BINARY_IDS[token]].latex % (left, right)

    return _print(expression, leaf, lambda row: row.latex, combine, fractions=True)[0]


def _print(
    e: Expression,
    leaf: Callable[[str], tuple[str, int]],
    unary: Callable,
    combine: Callable[[str, str, str], str],
    fractions: bool = False,
) -> tuple[str, int]:
    """The text of `e` and the precedence of its outermost operator."""

    def text(child: Expression, least: int) -> str:
        inner, precedence = _print(child, leaf, unary, combine, fractions)
        return inner if precedence >= least else f'({inner})'

    if isinstance(e, Leaf):
        return leaf(e.token)
    if isinstance(e, Apply):
        is_negation = e.token == '-x'
        template = unary(UNARIES[UNARY_IDS[e.token]])
        return template % text(e.argument, ATOM if is_negation else 0), NEGATION if is_negation else ATOM
    if fractions and e.token == '/':
        return combine(e.token, text(e.left, 0), text(e.right, 0)), ATOM
    precedence = BINARIES[BINARY_IDS[e.token]].precedence
    return combine(e.token, text(e.left, precedence), text(e.right, precedence + 1)), precedence
