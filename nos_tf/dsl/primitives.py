"""The primitives of the language (Section 4.1): three tables of operands, unary functions and binary functions.

A primitive is a row. Its position in its table is its token id, everywhere and for good: the store, the interpreter and
the fingerprint of a rule depend on the order below. The value of iteration k of a rule is the operand `tk`, id 15 + k.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

SMALLEST_NORMAL = 1.2e-38
"""Up to this magnitude `sign` is 0: float32 denormals are flushed by some kernels and not by others."""

SLOTS = ('m', 'v', 'gamma')
"""The running averages of g, g^2 and g^3 that a rule may keep, each of the size of the weights."""


@dataclass(frozen=True)
class RuleConstants:
    """The hyper-parameters that every rule shares (Section 4.2; the noise is "small constant noise", our size).

    Raises:
        ValueError: a decay outside [0, 1), or an epsilon or a deviation that is negative or not finite.
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    beta_3: float = 0.999
    epsilon: float = 1e-8
    noise_stddev: float = 0.01

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            below = 1.0 if field.name.startswith('beta') else math.inf
            if not isinstance(value, int | float | np.number) or not 0 <= value < below:
                raise ValueError(f'{field.name} = {value!r}: must be a number in [0, {below:g})')
            object.__setattr__(self, field.name, float(value))


@dataclass(frozen=True)
class Inputs:
    """All that a rule can read at one step: float64 arrays of one shape, m, v and gamma bias-corrected."""

    g: np.ndarray
    w: np.ndarray
    m: np.ndarray
    v: np.ndarray
    gamma: np.ndarray
    normal: np.ndarray  # standard normal draws of this step
    constants: RuleConstants = RuleConstants()


@dataclass(frozen=True)
class Operand:
    """A leaf of a rule: `define(inputs)` is its value in float64."""

    token: str
    latex: str
    define: Callable[[Inputs], np.ndarray]
    slots: tuple[str, ...] = ()
    reads_gradient: bool = True
    is_random: bool = False


@dataclass(frozen=True)
class Unary:
    """An element-wise function: `define(x, uniform, constants)`, and only `drop` reads the uniform draws in [0, 1)."""

    token: str
    infix: str  # with %s for the argument
    latex: str
    define: Callable[[np.ndarray, np.ndarray, RuleConstants], np.ndarray]
    is_random: bool = False


@dataclass(frozen=True)
class Binary:
    """An element-wise function of two values: `define(x, y, constants)`."""

    token: str
    latex: str  # with %s for each of the two arguments
    precedence: int  # of the infix operator: 1 for sums, 2 for products
    define: Callable[[np.ndarray, np.ndarray, RuleConstants], np.ndarray]


def sign(x: np.ndarray) -> np.ndarray:
    """-1, 0 or 1; NaN stays NaN."""
    return np.where(np.abs(x) <= SMALLEST_NORMAL, 0.0, np.sign(x))


def _decayed_weights(power: int) -> Operand:
    return Operand(f'1e-{power}*w', rf'10^{{-{power}}} w', lambda i: 10.0**-power * i.w, slots=(), reads_gradient=False)


def _clip(limit: str) -> Unary:
    bound, exponent = float(limit), limit.removeprefix('1e')
    latex = rf'\operatorname{{clip}}(%s, 10^{{{exponent}}})'
    return Unary(f'clip({limit})', f'clip(%s, {limit})', latex, lambda x, _, k: np.clip(x, -bound, bound))


def _drop(probability: str) -> Unary:
    p = float(probability)
    return Unary(
        f'drop({probability})',
        f'drop(%s, {probability})',
        rf'\operatorname{{drop}}(%s, {probability})',
        lambda x, uniform, k: np.where(uniform >= p, x, 0.0),
        is_random=True,
    )


OPERANDS: tuple[Operand, ...] = (
    Operand('g', 'g', lambda i: i.g),
    Operand('g^2', 'g^2', lambda i: i.g**2),
    Operand('g^3', 'g^3', lambda i: i.g**3),
    Operand('m', r'\hat{m}', lambda i: i.m, ('m',)),
    Operand('v', r'\hat{v}', lambda i: i.v, ('v',)),
    Operand('gamma', r'\hat{\gamma}', lambda i: i.gamma, ('gamma',)),
    Operand('sign(g)', r'\operatorname{sign}(g)', lambda i: sign(i.g)),
    Operand('sign(m)', r'\operatorname{sign}(\hat{m})', lambda i: sign(i.m), ('m',)),
    Operand('1', '1', lambda i: np.ones_like(i.g), reads_gradient=False),
    Operand(
        'noise', r'\text{noise}', lambda i: i.constants.noise_stddev * i.normal, reads_gradient=False, is_random=True
    ),
    _decayed_weights(4),
    _decayed_weights(3),
    _decayed_weights(2),
    _decayed_weights(1),
    Operand('adam', r'\text{ADAM}', lambda i: i.m / (np.sqrt(i.v) + i.constants.epsilon), ('m', 'v')),
    Operand('rmsprop', r'\text{RMSProp}', lambda i: i.g / (np.sqrt(i.v) + i.constants.epsilon), ('v',)),
)

UNARIES: tuple[Unary, ...] = (
    Unary('x', '%s', '%s', lambda x, _, k: x),
    Unary('-x', '-%s', '-%s', lambda x, _, k: -x),
    Unary('exp', 'exp(%s)', r'e^{%s}', lambda x, _, k: np.exp(x)),
    Unary('log', 'log(%s)', r'\log |%s|', lambda x, _, k: np.log(np.maximum(np.abs(x), k.epsilon))),
    _clip('1e-5'),
    _clip('1e-4'),
    _clip('1e-3'),
    _drop('0.1'),
    _drop('0.3'),
    _drop('0.5'),
    Unary('sign', 'sign(%s)', r'\operatorname{sign}(%s)', lambda x, _, k: sign(x)),
)

BINARIES: tuple[Binary, ...] = (
    Binary('+', '%s + %s', 1, lambda x, y, k: x + y),
    Binary('-', '%s - %s', 1, lambda x, y, k: x - y),
    Binary('*', r'%s \cdot %s', 2, lambda x, y, k: x * y),
    Binary('/', r'\frac{%s}{%s + \epsilon}', 2, lambda x, y, k: x / (y + k.epsilon)),
    Binary('left', '%s%.0s', 3, lambda x, y, k: x),
)

OPERAND_IDS = {row.token: i for i, row in enumerate(OPERANDS)}
UNARY_IDS = {row.token: i for i, row in enumerate(UNARIES)}
BINARY_IDS = {row.token: i for i, row in enumerate(BINARIES)}


def temporary(k: int) -> str:
    """The token of the value of iteration k, counted from 1."""
    return f't{k}'


def temporary_index(token: str) -> int:
    """The k of a token `tk`, or 0 for any other text."""
    digits = token[1:]
    return int(digits) if token[:1] == 't' and digits.isascii() and digits.isdigit() and len(digits) < 5 else 0


def operand_id(token: str) -> int:
    """The id of an operand or of a temporary: `g` is 0, `t1` is 16."""
    k = temporary_index(token)
    return len(OPERANDS) - 1 + k if k else OPERAND_IDS[token]
