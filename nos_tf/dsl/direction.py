"""Rules that are equal up to a factor: `adam + adam` is `adam` at twice the rate, and a tuned rate makes up for it.

A value is written as a positive number times a form, from the leaves up. The rows of the primitives say what a number
passes through: products, numerators and what is homogeneous. It ends at `exp`, `log`, `clip`, `drop` and denominators,
whose arguments stay as they are.
"""

import math
from typing import NamedTuple

from nos_tf.dsl.equivalence import simplify
from nos_tf.dsl.expression import Apply, Combine, Expression, Leaf, arguments, row_of, spell, walk
from nos_tf.dsl.primitives import NUMPY, OPERANDS, Inputs


class Multiple(NamedTuple):
    """A positive number times a form; they are the value, but for rounding."""

    form: Expression
    factor: float = 1.0


_WEIGHTS = next(row for row in reversed(OPERANDS) if row.reads_weights)  # of which the others are multiples
_NOTHING = Inputs(g=None, w=None, averages={})


def direction(expression: Expression) -> Multiple:
    """Returns the canonical form of an expression's direction, and the factor that is positive.

    Equal sub-expressions of a stochastic one draw the same numbers by their place in it: where taking factors out would
    change what a `drop` draws, the expression stays as it is.

    Args:
        expression: in canonical form.
    """
    form, factor = _multiple(expression)
    form = simplify(form)
    return Multiple(form, factor) if _draws(form).items() <= _draws(expression).items() else Multiple(expression)


def _draws(expression: Expression) -> dict[Expression, str]:
    """Returns the operand of each random function: it decides, with the function, which numbers that draws."""
    names = spell(expression)[1]
    drops = [e for e in walk(expression) if isinstance(e, Apply) and row_of(e).is_random]
    return {e: e.argument.token if isinstance(e.argument, Leaf) else names[e.argument] for e in drops}


def _multiple(e: Expression) -> Multiple:
    row, values = row_of(e), [_multiple(x) for x in arguments(e)]
    if row.reads_weights:
        return Multiple(Leaf(_WEIGHTS.token), float(row.parameter) / float(_WEIGHTS.parameter))
    if row.degrees:
        passed = [(x, degree) for x, degree in zip(values, row.degrees, strict=True) if degree is not None]
        forms = [x if d is None else v.form for x, v, d in zip(arguments(e), values, row.degrees, strict=True)]
        return Multiple(_of(e, *forms), math.prod(x.factor**degree for x, degree in passed))
    if row.is_homogeneous:
        return _homogeneous(e, *values)
    return Multiple(e)


def _homogeneous(e: Expression, x: Multiple, y: Multiple) -> Multiple:
    """Takes the factor out that two values share, or the form if the function is linear."""
    row, (left, left_sign), (right, right_sign) = row_of(e), _without_minus(x.form), _without_minus(y.form)
    if row.is_linear and left == right:
        total = row.compute(NUMPY, _NOTHING, left_sign * x.factor, right_sign * y.factor)
        if total:
            return Multiple(left if total > 0 else Apply('-x', left), abs(total))
    if math.isclose(x.factor, y.factor, rel_tol=1e-15):
        return Multiple(_of(e, x.form, y.form), x.factor)
    return Multiple(e)


def _of(e: Expression, *forms: Expression) -> Expression:
    """Returns the function at the root of `e`, of other arguments."""
    return Apply(e.token, *forms) if isinstance(e, Apply) else Combine(e.token, *forms)


def _without_minus(form: Expression) -> tuple[Expression, float]:
    """Returns the canonical form without its minus, and the sign that it had."""
    form = simplify(form)
    return (form.argument, -1.0) if isinstance(form, Apply) and form.token == '-x' else (form, 1.0)
