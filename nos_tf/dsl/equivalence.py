"""When two rules are the same: the canonical form, and the fingerprint of the function that a rule computes.

The canonical form merges what is bit-identical in floating point, and nothing else: unread iterations, `left`, repeated
sub-expressions, the order of commutative operands, signs. It never needs more iterations than the rule it comes from.
The fingerprint goes further, and may err: it compares float64 values on probes, which are finite, and random but for
their zeros.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain, combinations
from typing import Any, NamedTuple

import numpy as np

from nos_tf.dsl import expression as expressions
from nos_tf.dsl.expression import Apply, Combine, Expression, Leaf, arguments, from_tokens, row_of, to_tokens, walk
from nos_tf.dsl.primitives import NUMPY, UNARY, Inputs, RuleConstants

PROBES = 256
SCALES = (1e-4, 1e-2, 1.0, 3.0)  # of the probes
WIDE_PROBES = 512
WIDE = (-8.0, 1.0)  # log10 of their magnitudes, from where epsilon matters to below where exp and log saturate
TINY_PROBES = 64
TINY = (-14.0, -8.0)  # log10: the cubes of such gradients vanish in float32, for `sign` too
ZERO_PROBES = 16  # of each combination of zeros
BITS = 30  # significant ones that two equal functions share on every probe

_ONE, _G = Leaf('1'), Leaf('g')
_POWERS: dict[tuple[Expression, Expression], Expression] = {(_G, _G): Leaf('g^2'), (_G, Leaf('g^2')): Leaf('g^3')}


@lru_cache(maxsize=65536)
def canonical_tokens(tokens: tuple[str, ...]) -> tuple[str, ...]:
    """The tokens of the canonical form of a rule."""
    return to_tokens(simplify(from_tokens(tokens)))


def simplify(expression: Expression) -> Expression:
    """The one representative of all expressions that are bit-identical to this one by the laws below."""
    if isinstance(expression, Leaf):
        return expression
    if isinstance(expression, Apply):
        return _simplify_unary(expression.token, simplify(expression.argument))
    left, right = simplify(expression.left), simplify(expression.right)
    laws = {'+': _sum, '-': _difference, '*': _product}
    if law := laws.get(expression.token):
        return law(left, right)
    if row_of(expression).is_choice:
        left, right = sorted((left, right), key=_order)
        return left if left == right else Combine(expression.token, left, right)
    return Combine(expression.token, left, right)


def _simplify_unary(u: str, x: Expression) -> Expression:
    inner = x.token if isinstance(x, Apply) else ''
    if isinstance(x, Apply) and UNARY[u].is_even and inner == '-x':
        return _simplify_unary(u, x.argument)
    if isinstance(x, Leaf) and x.token in UNARY[u].of_leaf:
        return Leaf(UNARY[u].of_leaf[x.token])
    if u == '-x' and isinstance(x, Apply) and inner == '-x':
        return x.argument
    if u == 'sign' and (row_of(x).gives_sign or x == _ONE):
        return x
    if isinstance(x, Apply):
        if u == 'sign' and UNARY[inner].name == 'clip':
            return _simplify_unary(u, x.argument)
        if UNARY[u].name == UNARY[inner].name == 'clip':
            return Apply(min(u, inner, key=lambda token: float(UNARY[token].parameter)), x.argument)
    return Apply(u, x)


def _sum(x: Expression, y: Expression) -> Expression:
    if _is_negative(x) and _is_negative(y):
        return Combine('-', *_place_minus(*sorted((_absolute(x), _absolute(y)), key=_order)))
    if _is_negative(y):
        return _difference(x, _absolute(y))
    if _is_negative(x):
        return _difference(y, _absolute(x))
    return Combine('+', *sorted((x, y), key=_order))


def _difference(x: Expression, y: Expression) -> Expression:
    if _is_negative(y):
        return _sum(x, _absolute(y))
    if _is_negative(x):  # (-a) - b == (-b) - a
        return Combine('-', *_place_minus(_absolute(x), y))
    return Combine('-', x, y)


def _product(x: Expression, y: Expression) -> Expression:
    negative = _is_negative(x) != _is_negative(y)
    first, second = sorted((_absolute(x), _absolute(y)), key=_order)
    if not negative:
        if _ONE in (first, second):
            return second if first == _ONE else first
        return _POWERS.get((first, second)) or Combine('*', first, second)
    if _ONE in (first, second):
        other = second if first == _ONE else first
        if not isinstance(other, Apply):
            return Apply('-x', other)
    carrier = _absolute(x) if _is_negative(x) else _absolute(y)
    minus, plus = _place_minus(carrier, second if carrier == first else first)
    return Combine('*', *sorted((minus, plus), key=_order))


def _place_minus(carrier: Expression, other: Expression) -> tuple[Expression, Expression]:
    """The pair (-a, b) that stands for a minus on either one.

    The minus goes where it costs no iteration: to an argument that carries no function yet, the first in order if both
    are such; otherwise it stays where it was.
    """
    bare = [e for e in sorted((carrier, other), key=_order) if not isinstance(e, Apply)]
    chosen = bare[0] if bare else carrier
    return Apply('-x', chosen), other if chosen == carrier else carrier


def _is_negative(e: Expression) -> bool:
    return isinstance(e, Apply) and e.token == '-x'


def _absolute(e: Expression) -> Expression:
    return e.argument if isinstance(e, Apply) and e.token == '-x' else e


def _order(e: Expression) -> tuple:
    return (Leaf, Apply, Combine).index(type(e)), row_of(e).id, *map(_order, arguments(e))


def is_stochastic(expression: Expression) -> bool:
    """Returns whether two runs of the same step may differ."""
    return any(row_of(e).is_random for e in walk(expression))


class Draws(NamedTuple):
    """What a random primitive draws from: standard normal numbers, and uniform ones in [0, 1)."""

    normal: np.ndarray
    uniform: Any = None  # an array, once it is known which primitive draws

    def drop(self, x: np.ndarray, probability: float) -> np.ndarray:
        """Returns x, and 0 where the uniform number is below the probability."""
        return np.where(self.uniform >= probability, x, 0.0)

    def normal_like(self, x: np.ndarray) -> np.ndarray:
        """Returns the normal numbers."""
        return self.normal


def evaluate(
    expression: Expression, inputs: Inputs, uniform: Callable[[Expression], np.ndarray] | None = None
) -> np.ndarray:
    """Returns the value of an expression in float64, of the shape of the inputs.

    Args:
        expression: what to compute.
        inputs: arrays; for a stochastic expression with `Draws`, whose normal numbers are the noise.
        uniform: gives each `drop` its draws in [0, 1); None for deterministic expressions alone.

    Raises:
        ValueError: the expression is stochastic, so it has no one value, and no draws were given.
    """

    def draw(e: Expression) -> Draws:
        if uniform is None:
            raise ValueError('a rule with drop or noise has no one value')
        return inputs.draw if isinstance(e, Leaf) else inputs.draw._replace(uniform=uniform(e))

    with np.errstate(all='ignore'):
        return expressions.evaluate(expression, NUMPY, inputs, draw)


@lru_cache(maxsize=8)
def probes(constants: RuleConstants, scales: Sequence[float] = SCALES, count: int = PROBES) -> Inputs:
    """Inputs of several scales around those of real gradients, as many of each, the same in every process."""
    random = np.random.Generator(np.random.PCG64(20170806))
    scale = np.repeat(scales, count // len(scales))
    draws = random.standard_normal([6, len(scale)]) * scale
    g, w, m, spread, gamma, normal = draws
    return _inputs(constants, g=g, w=w, m=m, v=m**2 + spread**2, gamma=gamma**3, normal=normal)


def _inputs(constants: RuleConstants, g: np.ndarray, w: np.ndarray, normal: np.ndarray, **averages: Any) -> Inputs:
    """Inputs of these arrays, and what version 2 reads besides: it is zero where what it is made of is."""
    random = np.random.Generator(np.random.PCG64(20261130))
    slow, before, v99, v95, step, progress = random.uniform(0.5, 2.0, [6, len(g)])
    averages |= {'m99': slow * averages['m'], 'v99': v99 * averages['v'], 'v95': v95 * averages['v']}
    return Inputs(
        g,
        w,
        averages,
        constants,
        Draws(normal),
        before={'m99': before * averages['m']},
        step=np.round(40.0 * step),
        progress=progress / 2.0,
    )


@lru_cache(maxsize=8)
def _all_probes(constants: RuleConstants) -> Inputs:
    """The probes of a fingerprint: of one scale each, of a scale for each operand, and with exact zeros."""
    wide = _wide_probes(constants, WIDE_PROBES, WIDE)
    return _joined([probes(constants), wide, _wide_probes(constants, TINY_PROBES, TINY), *_zero_probes(wide)])


def _wide_probes(constants: RuleConstants, count: int, exponents: tuple[float, float]) -> Inputs:
    """Inputs that differ in scale from each other, so that each `clip` meets either side of its limit.

    The average of g^2 is kept above the share that the last gradients have in it, as it is in a training; weights are
    ten times as large as the rest, for they are read in fractions.
    """
    random = np.random.Generator(np.random.PCG64(20170808))
    draws = 10.0 ** random.uniform(*exponents, [6, count]) * random.choice([-1.0, 1.0], [6, count])
    g, w, m, spread, gamma, normal = draws
    v = spread**2 + (1 - constants.beta_2) * (g**2 + m**2)
    return _inputs(constants, g=g, w=10 * w, m=m, v=v, gamma=gamma**3, normal=normal)


def _zero_probes(inputs: Inputs) -> list[Inputs]:
    """Probes with exact zeros in all combinations of a training: weights of a bias, gradients of a dead unit.

    Where the average of g^2 is zero there never was a gradient. Whether a zero is +0 or -0 is no matter: no function
    of the language tells them apart, for a divisor has epsilon added, and +0 is what even -0 + 0 gives.
    """
    names = ('g', 'm', 'v', 'gamma', 'w')
    subsets = chain.from_iterable(combinations(names, size) for size in range(1, len(names) + 1))
    zeros = [zero for zero in subsets if 'v' not in zero or {'g', 'm', 'gamma'} <= set(zero)]
    return [_taken(inputs, slice(i * ZERO_PROBES, (i + 1) * ZERO_PROBES), zero) for i, zero in enumerate(zeros)]


def _taken(inputs: Inputs, which: slice, zeros: Sequence[str]) -> Inputs:
    """Some of the probes, with zeros in place of what is named."""
    return _inputs(inputs.constants, **{k: x[which] * (k not in zeros) for k, x in _arrays(inputs).items()})


def _joined(parts: Sequence[Inputs]) -> Inputs:
    """The probes of all parts, one after the other."""
    columns = [_arrays(part) for part in parts]
    return _inputs(parts[0].constants, **{k: np.concatenate([x[k] for x in columns]) for k in columns[0]})


def _arrays(inputs: Inputs) -> dict[str, Any]:
    own = {slot: inputs.averages[slot] for slot in ('m', 'v', 'gamma')}
    return {'g': inputs.g, 'w': inputs.w, 'normal': inputs.draw.normal, **own}


@lru_cache(maxsize=65536)
def fingerprint(tokens: tuple[str, ...], constants: RuleConstants) -> str:
    """A hash that equal functions share: of the values on fixed probes, or of the canonical form if stochastic."""
    canonical = canonical_tokens(tokens)
    expression = from_tokens(canonical)
    if is_stochastic(expression):
        content = ('stochastic ' + ' '.join(canonical)).encode()
    else:
        content = _rounded(evaluate(expression, _all_probes(constants))).tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


def _rounded(values: np.ndarray) -> np.ndarray:
    """Float64 of BITS significant bits, with one zero and one NaN: what differs by rounding has the same bytes."""
    mantissas, exponents = np.frexp(values + 0.0)  # -0 becomes 0
    rounded = np.ldexp(np.round(mantissas * 2.0**BITS), exponents - BITS)
    return np.where(np.isnan(rounded), np.nan, rounded)
