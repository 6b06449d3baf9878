"""A rule as a tree: the form between tokens and text (Figure 2).

An expression says what a rule computes. The identity function, the binary function `left`, iterations that nothing
reads and the sharing of an iteration's value are ways to spell an expression in tokens, and vanish here: equal
sub-expressions are one value, computed once a step, random ones (`drop`, `noise`) included.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from nos_tf.dsl.primitives import (
    ATOM,
    BINARY,
    NEGATION,
    OPERAND,
    UNARY,
    Arithmetic,
    Inputs,
    Primitive,
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


def row_of(e: Expression) -> Primitive:
    """Returns the primitive at the root of an expression."""
    return {Leaf: OPERAND, Apply: UNARY, Combine: BINARY}[type(e)][e.token]


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
    """Returns the shortest spelling of an expression, iterations in the order in which a reader needs them."""
    return spell(expression)[0]


def spell(expression: Expression) -> tuple[tuple[str, ...], dict[Expression, str]]:
    """Returns `to_tokens`, and the temporary of each sub-expression that is the value of an iteration."""
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
    return tuple(tokens), names


def arguments(e: Expression) -> tuple[Expression, ...]:
    """Returns what a node reads, the left one first."""
    if isinstance(e, Combine):
        return e.left, e.right
    return (e.argument,) if isinstance(e, Apply) else ()


def walk(expression: Expression) -> Iterator[Expression]:
    """Every node of the tree, the root first."""
    yield expression
    for argument in arguments(expression):
        yield from walk(argument)


def evaluate(
    expression: Expression,
    xp: Arithmetic,
    inputs: Inputs,
    draw: Callable[[Expression], Any] | None = None,
    of_signs: bool = False,
) -> Any:
    """Returns the value of an expression, by the formulas of its primitives; equal sub-expressions are computed once.

    Args:
        expression: what to compute.
        xp: the functions that it is computed by.
        inputs: what it reads. Where they have a `sign_decay`, products of signs are multiplied by it before anything
            but a product of signs reads them.
        draw: gives each random node what it draws from: `Inputs.draw`.
        of_signs: whether functions of signs may take the faster formulas that some rows have (`Primitive.of_sign`).
    """
    values: dict[Expression, Any] = {}
    decay = inputs.sign_decay

    def value(e: Expression) -> Any:
        if e not in values:
            values[e] = compute(e)
        return values[e]

    def compute(e: Expression) -> Any:
        """Computes an expression from the values of its arguments."""
        row = row_of(e)
        own = dataclasses.replace(inputs, draw=draw(e)) if draw and row.is_random else inputs
        if of_signs and row.of_sign and is_sign(*arguments(e)):
            return row.of_sign(xp, own, *map(value, arguments(e)))
        read = value if is_sign(e) and row.keeps_sign else faded
        return row.compute(xp, own, *map(read, arguments(e)))

    def faded(e: Expression) -> Any:
        return value(e) if decay is None or not is_sign(e) else value(e) * decay

    return faded(expression)


def is_sign(e: Expression) -> bool:
    """Returns whether an expression is -1, 0 or 1: a sign, or a product of signs."""
    row = row_of(e)
    return row.gives_sign or (row.keeps_sign and all(map(is_sign, arguments(e))))


def to_infix(expression: Expression) -> str:
    """Returns the expression as one would type it, with no parentheses but those that it needs."""
    return _print(expression, lambda row: (row.infix, row.precedence))[0]


def to_latex(expression: Expression) -> str:
    """Returns the expression in LaTeX, in the paper's typography, without the surrounding dollars."""
    return _print(expression, lambda row: (row.latex, row.latex_precedence or row.precedence))[0]


def _print(e: Expression, notation: Callable[[Primitive], tuple[str, int]]) -> tuple[str, int]:
    """Returns the text of `e` and the precedence of its outermost operator."""
    template, precedence = notation(row_of(e))
    least = 0 if precedence == ATOM else ATOM if precedence == NEGATION else precedence
    texts = []
    for place, argument in enumerate(arguments(e)):
        text, inner = _print(argument, notation)
        texts.append(text if inner >= least + place else f'({text})')
    return template % tuple(texts) if texts else template, precedence
