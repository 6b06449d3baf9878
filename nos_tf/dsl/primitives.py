r"""The primitives of the language (Section 4.1), a row each: all that this package knows of a primitive is in its row.

The formula of a row, `compute`, is written once and runs on any arithmetic: on NumPy, here; on tensors of any backend
of Keras, in `optimizers/semantics.py`; and on text, which is how `optimizers/export.py` prints source code. To add a
primitive is to add a row, under an id that no row has had before, and its tests.
"""

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

SMALLEST_NORMAL = 1.2e-38
"""Up to this magnitude `sign` is 0: float32 denormals are flushed by some kernels and not by others."""

SUM, PRODUCT, NEGATION, ATOM = 1, 2, 3, 4
"""Precedences of an operator; an ATOM never needs parentheses."""

FIRST_TEMPORARY = 16
"""The id of the operand `t1`, which is the value of the first iteration; `t2` is 17, and so on up to 25."""


class Slot(NamedTuple):
    """A running average that an optimizer keeps for each weight: that of a power of the gradient."""

    name: str
    power: int
    decay: str  # the name of its constant

    @property
    def meaning(self) -> str:
        """The line that says it in words."""
        power = 'g' if self.power == 1 else f'g^{self.power}'
        return f'{self.name}: the bias-corrected running average of {power}'


SLOTS = {slot.name: slot for slot in (Slot('m', 1, 'beta_1'), Slot('v', 2, 'beta_2'), Slot('gamma', 3, 'beta_3'))}


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
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            below = 1.0 if name.startswith('beta') else math.inf
            if not isinstance(value, int | float | np.number) or not 0 <= value < below:
                raise ValueError(f'{name} = {value!r}: must be a number in [0, {below:g})')
            object.__setattr__(self, name, float(value))


@dataclass(frozen=True)
class Inputs:
    """All that a rule can read at one step: arrays or tensors of one shape and type, or what stands for them.

    Args:
        g: the gradient.
        w: the weights; None if the rule does not read them.
        averages: by slot, bias-corrected; at least those that the rule reads.
        constants: the hyper-parameters of rules.
        draw: has `drop(x, probability)` and `normal_like(x)`; None where nothing is random.
        sign_decay: a scalar that every product of signs is multiplied by; None for none.
    """

    g: Any
    w: Any
    averages: Mapping[str, Any]
    constants: Any = field(default_factory=RuleConstants)
    draw: Any = None
    sign_decay: Any = None


class Arithmetic:
    """The functions that formulas call.

    Args:
        library: has functions of NumPy's names.
        own: functions to take instead. `sign(x)` and `power(x, n)` are to be among them.
    """

    def __init__(self, library: Any, **own: Callable) -> None:
        self._library = library
        vars(self).update(own)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)


@dataclass(frozen=True, eq=False)  # a row is itself alone
class Primitive:
    r"""A word of the language.

    Args:
        id: stores, tables and random draws know the word by it: it is never changed, and never given to another.
        token: how it is spelled in a list of tokens.
        infix: how people write it, %s for each argument.
        latex: likewise.
        compute: `compute(xp, inputs, *arguments)` is its value, by the functions of an `Arithmetic`.
        meaning: the line that says it in words, where its infix does not; in words that other rows explain.
        precedence: of its operator in infix notation.
        latex_precedence: likewise in LaTeX; None if it is the same.
        symbol: the LaTeX of the word alone, for pictures; None if it is `latex`.
        name: what the infix notation calls it, with `spellings` besides: an identifier, or '' for none.
        parameter: the number that is part of it, as text: the last argument of a function, or a factor.
        spellings: other names.
        slots: the averages that it reads.
        constants: the fields of `RuleConstants` that it reads, the decays of its slots aside.
        reads_gradient: whether its value depends on gradients.
        reads_weights: whether it reads the weights.
        is_random: whether it draws random numbers.
        gives_sign: whether its value is -1, 0 or 1 whatever it is applied to.
        keeps_sign: whether its value is one if its arguments are.
        of_sign: a faster formula, where the argument is such a value and `evaluate` is told to use it.
        version: of the language, the first to have it.
    """

    id: int
    token: str
    infix: str
    latex: str
    compute: Callable[..., Any]
    meaning: str = ''
    precedence: int = ATOM
    latex_precedence: int | None = None
    symbol: str | None = None
    name: str = ''
    parameter: str = ''
    spellings: tuple[str, ...] = ()
    slots: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()
    reads_gradient: bool = False
    reads_weights: bool = False
    is_random: bool = False
    gives_sign: bool = False
    keeps_sign: bool = False
    of_sign: Callable[..., Any] | None = None
    version: int = 1


def sign(x: np.ndarray) -> np.ndarray:
    """Returns -1, 0 or 1; NaN stays NaN."""
    return np.where(np.abs(x) <= SMALLEST_NORMAL, 0.0, np.sign(x))


NUMPY = Arithmetic(np, sign=sign, power=operator.pow)


def _operand(id: int, token: str, latex: str, compute: Callable, **properties: Any) -> Primitive:
    """An operand that depends on gradients, unless it is said that it does not."""
    name = token if token.isidentifier() else ''
    return Primitive(id, token, token, latex, compute, **{'name': name, 'reads_gradient': True, **properties})


def _average(id: int, slot: str, letter: str, *spellings: str) -> Primitive:
    latex = rf'\hat{{{letter}}}'
    return _operand(id, slot, latex, lambda xp, i: i.averages[slot], slots=(slot,), spellings=spellings)


def _decayed_weights(id: int, factor: str) -> Primitive:
    return _operand(
        id,
        f'{factor}*w',
        rf'10^{{{factor.removeprefix("1e")}}} w',
        lambda xp, i: float(factor) * i.w,
        precedence=PRODUCT,
        parameter=factor,
        meaning='w: the weights',
        reads_gradient=False,
        reads_weights=True,
    )


def _adaptive(id: int, name: str, latex: str, slots: tuple[str, ...], numerator: Callable[[Inputs], Any]) -> Primitive:
    """An operand over the root of the last of its slots, an average of g^2."""
    *_, root = slots
    above = slots[0] if len(slots) > 1 else 'g'
    return _operand(
        id,
        name,
        latex,
        lambda xp, i: numerator(i) / (xp.sqrt(i.averages[root]) + i.constants.epsilon),
        meaning=f'{name}: {above} / (sqrt({root}) + epsilon)',
        slots=slots,
        constants=('epsilon',),
    )


def _function(id: int, name: str, compute: Callable, parameter: str = '', **properties: Any) -> Primitive:
    """A function that is written `name(x)`, or `name(x, parameter)`."""
    shown = rf'10^{{{parameter[2:]}}}' if parameter.startswith('1e') else parameter
    return Primitive(
        id,
        f'{name}({parameter})' if parameter else name,
        f'{name}(%s, {parameter})' if parameter else f'{name}(%s)',
        compute=compute,
        name=name,
        parameter=parameter,
        **{
            'latex': rf'\operatorname{{{name}}}(%s, {shown})' if parameter else rf'\operatorname{{{name}}}(%s)',
            'symbol': rf'\mathrm{{{name}}}\;{shown}' if parameter else rf'\mathrm{{{name}}}',
            **properties,
        },
    )


def _clip(id: int, limit: str) -> Primitive:
    meaning = 'clip(x, c): x, limited to [-c, c]'
    return _function(id, 'clip', lambda xp, i, x: xp.clip(x, -float(limit), float(limit)), limit, meaning=meaning)


def _drop(id: int, probability: str) -> Primitive:
    meaning = 'drop(x, p): 0 with probability p, else x, not rescaled; fresh at each step'
    return _function(
        id, 'drop', lambda xp, i, x: i.draw.drop(x, float(probability)), probability, is_random=True, meaning=meaning
    )


def _exp_of_sign(xp: Arithmetic, i: Inputs, x: Any) -> Any:
    """e^(dx) for x = -1, 0, 1 (or NaN): the parabola through its three values."""
    d = i.sign_decay
    sinh, cosh = (math.sinh(1.0), math.cosh(1.0)) if d is None else (xp.sinh(d), xp.cosh(d))
    return 1.0 + x * (sinh + x * (cosh - 1.0))


OPERANDS: tuple[Primitive, ...] = (
    _operand(0, 'g', 'g', lambda xp, i: i.g, meaning='g: the gradient'),
    _operand(1, 'g^2', 'g^2', lambda xp, i: xp.power(i.g, 2)),
    _operand(2, 'g^3', 'g^3', lambda xp, i: xp.power(i.g, 3)),
    _average(3, 'm', 'm', 'm_hat', 'mhat', 'm\u0302'),
    _average(4, 'v', 'v', 'v_hat', 'vhat', 'v\u0302'),
    _average(5, 'gamma', r'\gamma', 'gamma_hat', 'γ', 'γ\u0302'),
    _operand(6, 'sign(g)', r'\operatorname{sign}(g)', lambda xp, i: xp.sign(i.g), gives_sign=True),
    _operand(
        7, 'sign(m)', r'\operatorname{sign}(\hat{m})', lambda xp, i: xp.sign(i.averages['m']), slots=('m',),
        gives_sign=True,
    ),
    _operand(8, '1', '1', lambda xp, i: xp.ones_like(i.g), reads_gradient=False),
    _operand(
        9, 'noise', r'\text{noise}', lambda xp, i: i.constants.noise_stddev * i.draw.normal_like(i.g),
        meaning='noise: normal numbers of deviation noise_stddev, fresh at each step', constants=('noise_stddev',),
        reads_gradient=False, is_random=True,
    ),
    _decayed_weights(10, '1e-4'),
    _decayed_weights(11, '1e-3'),
    _decayed_weights(12, '1e-2'),
    _decayed_weights(13, '1e-1'),
    _adaptive(14, 'adam', r'\text{ADAM}', ('m', 'v'), lambda i: i.averages['m']),
    _adaptive(15, 'rmsprop', r'\text{RMSProp}', ('v',), lambda i: i.g),
    # 16 to 25 are temporaries; the operands of later versions begin at 64
)  # fmt: skip

UNARIES: tuple[Primitive, ...] = (
    Primitive(0, 'x', '%s', '%s', lambda xp, i, x: x, keeps_sign=True),
    Primitive(1, '-x', '-%s', '-%s', lambda xp, i, x: -x, precedence=NEGATION, symbol='-', keeps_sign=True),
    _function(2, 'exp', lambda xp, i, x: xp.exp(x), latex='e^{%s}', of_sign=_exp_of_sign),
    _function(
        3, 'log', lambda xp, i, x: xp.log(xp.maximum(xp.abs(x), i.constants.epsilon)), latex=r'\log |%s|',
        meaning='log(x): log(max(|x|, epsilon))', symbol=r'\log|\cdot|', spellings=('ln',), constants=('epsilon',),
    ),
    _clip(4, '1e-5'),
    _clip(5, '1e-4'),
    _clip(6, '1e-3'),
    _drop(7, '0.1'),
    _drop(8, '0.3'),
    _drop(9, '0.5'),
    _function(
        10, 'sign', lambda xp, i, x: xp.sign(x), gives_sign=True,
        meaning='sign(x): -1, 0 or 1; 0 for denormals, NaN for NaN',
    ),
)  # fmt: skip

BINARIES: tuple[Primitive, ...] = (
    Primitive(0, '+', '%s + %s', '%s + %s', lambda xp, i, x, y: x + y, precedence=SUM, symbol='+'),
    Primitive(1, '-', '%s - %s', '%s - %s', lambda xp, i, x, y: x - y, precedence=SUM, symbol='-'),
    Primitive(
        2, '*', '%s * %s', r'%s \cdot %s', lambda xp, i, x, y: x * y, precedence=PRODUCT, symbol=r'\times',
        keeps_sign=True,
    ),
    Primitive(
        3, '/', '%s / %s', r'\frac{%s}{%s + \epsilon}', lambda xp, i, x, y: x / (y + i.constants.epsilon),
        'x / y: x / (y + epsilon)', PRODUCT, ATOM, symbol=r'\div', constants=('epsilon',),
    ),
    Primitive(4, 'left', '%s%.0s', '%s%.0s', lambda xp, i, x, y: x),
)  # fmt: skip

OPERAND, UNARY, BINARY = ({row.token: row for row in rows} for rows in (OPERANDS, UNARIES, BINARIES))
"""Rows by their tokens."""


def temporary(k: int) -> str:
    """Returns the token of the value of iteration k, counted from 1."""
    return f't{k}'


def temporary_index(token: str) -> int:
    """Returns the k of a token `tk`, or 0 for any other text."""
    digits = token[1:]
    return int(digits) if token[:1] == 't' and digits.isascii() and digits.isdigit() and len(digits) < 5 else 0


def operand_id(token: str) -> int:
    """Returns the id of an operand or of a temporary: that of `g` is 0, that of `t1` is 16."""
    k = temporary_index(token)
    return FIRST_TEMPORARY - 1 + k if k else OPERAND[token].id


def draw_node(operand: int, unary: int) -> int:
    """Returns the node at which a random function of an operand draws: equal sub-expressions draw the same numbers.

    The first formula is that of version 1, which had 11 functions; both together give no two pairs the same node.

    Args:
        operand: the id of an operand or of a temporary, below 4,096.
        unary: the id of the function, below 4,096.
    """
    return 1 + 11 * operand + unary if unary < 11 else 2**16 + 2**12 * operand + unary
