r"""The primitives of the language (Section 4.1), a row each: all that this package knows of a primitive is in its row.

The formula of a row, `compute`, is written once and runs on any arithmetic: on NumPy, here; on tensors of any backend
of Keras, in `optimizers/semantics.py`; and on pieces of source code, in `optimizers/source.py`, which prints it. To add
a primitive is to add a row, under an id that no row has had before, and its tests.
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

BRACKETS = [0.48**j / j / (1.0 - 0.96**j) for j in range(1, 41)]
"""The c_j of `nesterov`; what is left out is below 1e-14."""

PERIODS = 4
"""How often the operand `restart` falls from 1 to 0 in a training."""

FIRST_TEMPORARY = 16
"""The id of the operand `t1`, which is the value of the first iteration; `t2` is 17, and so on up to 25."""


class Slot(NamedTuple):
    """A running average that an optimizer keeps for each weight: that of a power of the gradient."""

    name: str
    power: int
    decay: str | float  # the name of its constant, or a number that is part of its name

    @property
    def meaning(self) -> str:
        """The line that says it in words."""
        power = 'g' if self.power == 1 else f'g^{self.power}'
        decay = f' with the decay {self.decay}' if isinstance(self.decay, float) else ''
        return f'{self.name}: the bias-corrected running average of {power}{decay}'


SLOTS = {
    slot.name: slot
    for slot in (
        Slot('m', 1, 'beta_1'),
        Slot('v', 2, 'beta_2'),
        Slot('gamma', 3, 'beta_3'),
        Slot('m99', 1, 0.99),
        Slot('v99', 2, 0.99),
        Slot('v95', 2, 0.95),
    )
}


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
            is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
            if not is_number or not 0 <= value < below:
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
        before: by slot, as they were before this step's gradient, and not corrected.
        step: 1, 2, ...: the number of this step, a float.
        progress: the fraction of training that is done, from 0 at the first step to 1; None where it is not known.
    """

    g: Any
    w: Any
    averages: Mapping[str, Any]
    constants: Any = field(default_factory=RuleConstants)
    draw: Any = None
    sign_decay: Any = None
    before: Mapping[str, Any] = field(default_factory=dict)
    step: Any = None
    progress: Any = None


class Arithmetic:
    """The functions that formulas call.

    Args:
        library: has functions of NumPy's names.
        own: functions to take instead. `sign(x)` and `power(x, n)` are to be among them, and `nesterov`.
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
        reads_progress: whether it reads how much of the training is done, and so needs a number of steps.
        is_random: whether it draws random numbers.
        gives_sign: whether its value is a sign, which is -1, 0 or 1, whatever it is applied to: `sign`.
        keeps_sign: whether its value is a sign if its arguments are: the product, the minus.
        of_sign: a faster formula where the argument is a sign, not bit for bit the same; NOSOptimizer takes it
            (`evaluate(of_signs=True)`), the interpreter, to which rules come as ids, does not.
        of_leaf: the operand that it is of another operand, by the token of that.
        is_even: whether it is the same of x and of -x, bit for bit.
        is_choice: whether it is one of its two arguments, in whatever order they are.
        degrees: by which power a positive factor of each argument comes out, None for not; () for none of them.
        is_homogeneous: whether a positive factor that all arguments share comes out.
        is_linear: whether it is, besides, a sum of multiples of its arguments.
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
    reads_progress: bool = False
    is_random: bool = False
    gives_sign: bool = False
    keeps_sign: bool = False
    of_sign: Callable[..., Any] | None = None
    of_leaf: Mapping[str, str] = field(default_factory=dict)
    is_even: bool = False
    is_choice: bool = False
    degrees: tuple[float | None, ...] = ()
    is_homogeneous: bool = False
    is_linear: bool = False
    version: int = 1


def sign(x: np.ndarray) -> np.ndarray:
    """Returns -1, 0 or 1; NaN stays NaN."""
    return np.where(np.abs(x) <= SMALLEST_NORMAL, 0.0, np.sign(x))


def nesterov(m: Any, g: Any, step: Any, beta_1: Any) -> Any:
    """Returns the numerator of Nadam: m with Nesterov's look-ahead, and a momentum that grows (Dozat 2016).

    With u_t = β1 (1 − .96^t / 2) and P_t = u_1 ... u_t it is u_{t+1} M / (1 − P_{t+1}) + (1 − u_t) g / (1 − P_t), where
    M = (1 − β1^t) m is not corrected. The product of the brackets is exp(−Σ_j c_j (1 − .96^{jt})), a polynomial.

    Args:
        m: bias-corrected.
        g: the gradient.
        step: t, a float.
        beta_1: the decay of m.
    """
    warmth, power, polynomial = 0.96**step, beta_1**step, 0.0
    for c in reversed(BRACKETS):
        polynomial = (polynomial + c) * warmth
    product = power * math.e ** (polynomial - sum(BRACKETS))
    now, later = beta_1 * (1.0 - 0.5 * warmth), beta_1 * (1.0 - 0.48 * warmth)
    return later * (1.0 - power) / (1.0 - product * later) * m + (1.0 - now) / (1.0 - product) * g


NUMPY = Arithmetic(np, sign=sign, power=operator.pow, nesterov=nesterov)


def _operand(id: int, token: str, latex: str, compute: Callable, **properties: Any) -> Primitive:
    """An operand that depends on gradients, unless it is said that it does not."""
    name = token if token.isidentifier() else ''
    return Primitive(id, token, token, latex, compute, **{'name': name, 'reads_gradient': True, **properties})


def _average(id: int, slot: str, letter: str, *spellings: str, **properties: Any) -> Primitive:
    return _operand(
        id, slot, rf'\hat{{{letter}}}', lambda xp, i: i.averages[slot], slots=(slot,), spellings=spellings, **properties
    )


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


def _adaptive(
    id: int, name: str, latex: str, slots: tuple[str, ...], numerator: Callable[[Inputs], Any], version: int = 1
) -> Primitive:
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
        version=version,
    )


def _schedule(id: int, token: str, compute: Callable, meaning: str) -> Primitive:
    """A number that falls from 1 to 0 in the course of the training."""
    return _operand(
        id,
        token,
        rf'\text{{{token}}}',
        lambda xp, i: xp.ones_like(i.g) * compute(xp, i.progress),
        meaning=f'{token}: {meaning}, where progress is the fraction of training that is done',
        reads_gradient=False,
        reads_progress=True,
        version=2,
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


def _of_two(id: int, name: str, compute: Callable, meaning: str = '', **properties: Any) -> Primitive:
    """A function of two values of version 2, written `name(x, y)`."""
    latex = rf'\operatorname{{{name}}}(%s, %s)'
    symbol = rf'\mathrm{{{name}}}'
    return Primitive(
        id, name, f'{name}(%s, %s)', latex, compute, meaning, name=name, symbol=symbol, version=2, **properties
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
    _average(64, 'm99', 'm_{.99}', version=2),
    _operand(
        65, 'm99_before', r'm_{.99}^{t-1}', lambda xp, i: i.before['m99'], slots=('m99',), version=2,
        meaning='m99_before: the average m99 as it was before this step, not corrected',
    ),  # Chen et al. 2023 (Lion)
    _adaptive(66, 'adam99', r'\text{ADAM}_{.99}', ('m', 'v99'), lambda i: i.averages['m'], 2),
    _adaptive(67, 'rmsprop99', r'\text{RMSProp}_{.99}', ('v99',), lambda i: i.g, 2),
    _adaptive(68, 'adam95', r'\text{ADAM}_{.95}', ('m', 'v95'), lambda i: i.averages['m'], 2),
    _adaptive(69, 'rmsprop95', r'\text{RMSProp}_{.95}', ('v95',), lambda i: i.g, 2),
    _operand(
        70, 'm_nesterov', r'\tilde{m}', lambda xp, i: xp.nesterov(i.averages['m'], i.g, i.step, i.constants.beta_1),
        slots=('m',), constants=('beta_1',), version=2,
        meaning="m_nesterov: m with Nesterov's look-ahead and a momentum that grows, as in Nadam",
    ),  # Dozat 2016 (Nadam)
    _schedule(71, 'linear', lambda xp, progress: 1.0 - progress, '1 - progress'),
    _schedule(
        72, 'cosine', lambda xp, progress: 0.5 * (1.0 + xp.cos(math.pi * progress)), '(1 + cos(pi progress)) / 2'
    ),
    _schedule(
        73, 'restart', lambda xp, progress: 0.5 * (1.0 + xp.cos(math.pi * (PERIODS * progress % 1.0))),
        f'(1 + cos(pi ({PERIODS} progress mod 1))) / 2',
    ),  # Loshchilov & Hutter 2017
)  # fmt: skip

UNARIES: tuple[Primitive, ...] = (
    Primitive(0, 'x', '%s', '%s', lambda xp, i, x: x, keeps_sign=True),
    Primitive(
        1, '-x', '-%s', '-%s', lambda xp, i, x: -x, precedence=NEGATION, symbol='-', keeps_sign=True, degrees=(1,)
    ),
    _function(2, 'exp', lambda xp, i, x: xp.exp(x), latex='e^{%s}', of_sign=_exp_of_sign),
    _function(
        3, 'log', lambda xp, i, x: xp.log(xp.maximum(xp.abs(x), i.constants.epsilon)), latex=r'\log |%s|',
        meaning='log(x): log(max(|x|, epsilon))', symbol=r'\log|\cdot|', spellings=('ln',), constants=('epsilon',),
        is_even=True,
    ),
    _clip(4, '1e-5'),
    _clip(5, '1e-4'),
    _clip(6, '1e-3'),
    _drop(7, '0.1'),
    _drop(8, '0.3'),
    _drop(9, '0.5'),
    _function(
        10, 'sign', lambda xp, i, x: xp.sign(x), gives_sign=True,
        meaning='sign(x): -1, 0 or 1; 0 for denormals, NaN for NaN', of_leaf={'g': 'sign(g)', 'm': 'sign(m)'},
        degrees=(0,),
    ),
    _function(
        11, 'sqrt', lambda xp, i, x: xp.sqrt(xp.abs(x)), latex=r'\sqrt{|%s|}', symbol=r'\sqrt{|\cdot|}', version=2,
        meaning='sqrt(x): the root of |x|', is_even=True, degrees=(0.5,),
    ),
    _function(
        12, 'abs', lambda xp, i, x: xp.abs(x), latex='|%s|', symbol=r'|\cdot|', version=2, is_even=True, degrees=(1,)
    ),
    _function(
        13, 'square', lambda xp, i, x: x * x, latex='(%s)^2', symbol=r'(\cdot)^2', version=2, is_even=True,
        of_leaf={'g': 'g^2'}, degrees=(2,),
    ),
)  # fmt: skip

LINEAR: dict[str, Any] = {'is_homogeneous': True, 'is_linear': True}

BINARIES: tuple[Primitive, ...] = (
    Primitive(0, '+', '%s + %s', '%s + %s', lambda xp, i, x, y: x + y, precedence=SUM, symbol='+', **LINEAR),
    Primitive(1, '-', '%s - %s', '%s - %s', lambda xp, i, x, y: x - y, precedence=SUM, symbol='-', **LINEAR),
    Primitive(
        2, '*', '%s * %s', r'%s \cdot %s', lambda xp, i, x, y: x * y, precedence=PRODUCT, symbol=r'\times',
        keeps_sign=True, degrees=(1, 1),
    ),
    Primitive(
        3, '/', '%s / %s', r'\frac{%s}{%s + \epsilon}', lambda xp, i, x, y: x / (y + i.constants.epsilon),
        'x / y: x / (y + epsilon)', PRODUCT, ATOM, symbol=r'\div', constants=('epsilon',),
        degrees=(1, None),
    ),
    Primitive(4, 'left', '%s%.0s', '%s%.0s', lambda xp, i, x, y: x),
    _of_two(5, 'max', lambda xp, i, x, y: xp.maximum(x, y), is_choice=True, is_homogeneous=True),
    _of_two(6, 'min', lambda xp, i, x, y: xp.minimum(x, y), is_choice=True, is_homogeneous=True),
    _of_two(7, 'lerp', lambda xp, i, x, y: 0.9 * x + 0.1 * y, 'lerp(x, y): 0.9 x + 0.1 y', **LINEAR),
    _of_two(
        8, 'agree', lambda xp, i, x, y: xp.where(x * y > 0.0, x, xp.zeros_like(x)),
        'agree(x, y): x where x y is above 0, else 0', degrees=(1, 0),
    ),  # Liang et al. 2024 (cautious optimizers)
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


def leaf_node(operand: int) -> int:
    """Returns the node at which a random operand draws: 0 for `noise`, the only one of version 1.

    Others have the node of a function that draws nothing: the identity, of id 0.
    """
    return 0 if operand == OPERAND['noise'].id else draw_node(operand, 0)
