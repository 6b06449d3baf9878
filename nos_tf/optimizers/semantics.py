"""What each primitive computes on tensors: the one place, for the Keras optimizer and for the interpreter alike.

The three tables stand in the order of `dsl/primitives.py`. All is written on `keras.ops`, random bits included: they
are an integer hash of (seed, step, node, element), so that a rule draws the same masks on every backend, eager or
compiled, in one variable or in a flat vector of all, after a restore and on another machine.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
from keras import ops

from nos_tf.dsl.primitives import (
    BINARIES,
    OPERANDS,
    SLOTS,
    SMALLEST_NORMAL,
    UNARIES,
    UNARY_IDS,
    RuleConstants,
    operand_id,
    temporary_index,
)

Tensor = Any  # of whichever backend Keras runs on

NOISE_NODE = 0
_RANDOM_BITS = 24  # exact in a float32


@dataclass(frozen=True)
class Draws:
    """The random numbers of one step: functions of the element and of the node of the rule that asks.

    Args:
        seed: int32 scalar.
        step: int32 scalar, 1 for the first update.
        elements: int32 [...], the index of each element in the sequence of all weights.
    """

    seed: Tensor
    step: Tensor
    elements: Tensor

    def bits(self, node: Tensor) -> Tensor:
        """Uniform integers in [0, 2^24), of the shape of `elements`, independent between nodes, steps and seeds."""
        step = ops.cast(self.step, 'int32')
        key = _mix(ops.bitwise_xor(_mix(ops.bitwise_xor(_mix(self.seed), step)), ops.cast(node, 'int32')))
        bits = _mix(_mix(ops.bitwise_xor(self.elements, key)) + _mix(key))
        return _logical_shift(bits, 32 - _RANDOM_BITS)

    def keep(self, node: Tensor, drop_probability: float) -> Tensor:
        """A boolean mask, False with the given probability."""
        return self.bits(node) >= math.ceil(drop_probability * 2**_RANDOM_BITS)

    def normal(self, node: int, dtype: str) -> Tensor:
        """Standard normal numbers by the transform of Box and Muller."""
        wide = dtype if dtype == 'float64' else 'float32'  # the bits do not fit into 16

        def uniform(bits: Tensor) -> Tensor:
            return (ops.cast(bits, wide) + 0.5) * 2.0**-_RANDOM_BITS

        radius = ops.sqrt(-2.0 * ops.log(uniform(self.bits(node))))
        return ops.cast(radius * ops.cos(2.0 * math.pi * uniform(self.bits(~node))), dtype)


def _mix(x: Tensor) -> Tensor:
    """A bijection of the 32-bit integers in which every input bit flips every output bit half of the time."""
    x = ops.bitwise_xor(x, _logical_shift(x, 16)) * _signed(0x7FEB352D)
    x = ops.bitwise_xor(x, _logical_shift(x, 15)) * _signed(0x846CA68B)
    return ops.bitwise_xor(x, _logical_shift(x, 16))


def _logical_shift(x: Tensor, bits: int) -> Tensor:
    """Shifts a signed integer to the right, filling with zeros."""
    return ops.bitwise_and(ops.right_shift(x, ops.cast(bits, 'int32')), 2 ** (32 - bits) - 1)


def _signed(x: int) -> Tensor:
    """A 32-bit pattern as the int32 that has it."""
    return ops.convert_to_tensor(x - 2**32 if x >= 2**31 else x, 'int32')


@dataclass(frozen=True)
class Inputs:
    """All that a rule can read at one step: floating tensors of one shape and type; averages are bias-corrected."""

    g: Tensor
    w: Tensor  # None for a rule that does not read the weights
    averages: dict[str, Tensor]  # by slot: those that the rule reads
    draws: Any  # Draws; None for a rule that draws nothing
    constants: RuleConstants
    sign_decay: Tensor | None = None  # scalar; the factor of every product of signs

    @property
    def dtype(self) -> str:
        """The name of the type of all tensors, e.g. 'float32'."""
        return ops.dtype(self.g)


def update_average(slot: str, average: Tensor, gradient: Tensor, constants: RuleConstants) -> Tensor:
    """The running average of g, g^2 or g^3 after one more gradient: βa + (1 − β) g^k."""
    beta = _decay(slot, constants)
    return beta * average + (1.0 - beta) * _power_of(gradient, SLOTS.index(slot) + 1)


def bias_correction(slot: str, step: Tensor, constants: RuleConstants, dtype: str) -> Tensor:
    """The factor 1 / (1 − β^t) at step t = 1, 2, ...: a scalar; exact in float32 too, where 1 − β^t would not be."""
    beta = _decay(slot, constants)
    if beta == 0.0:
        return ops.ones([], dtype)
    return -1.0 / ops.expm1(ops.cast(step, dtype) * math.log(beta))


def _decay(slot: str, constants: RuleConstants) -> float:
    return dict(zip(SLOTS, (constants.beta_1, constants.beta_2, constants.beta_3), strict=True))[slot]


def _power_of(g: Tensor, power: int) -> Tensor:
    return g if power == 1 else g * _power_of(g, power - 1)


def sign(x: Tensor) -> Tensor:
    """-1, 0 or 1; 0 for denormals, NaN for NaN, on every backend.

    Rounding makes 0 of what is up to SMALLEST_NORMAL: kernels disagree on denormals, and comparisons are slow unless
    they are compiled. A float16 has no number as small that is not 0. The minimum changes no sign: it keeps TensorFlow
    from multiplying the large factor with one that `x` is a product of, which would make infinity, and NaN of 0.
    """
    if ops.dtype(x) == 'float16':
        value = ops.sign(x)
    else:
        value = ops.sign(ops.round(ops.minimum(x, 1.0) * (0.5 / SMALLEST_NORMAL)))
    return ops.where(ops.isnan(x), x, value) if keras.backend.backend() == 'torch' else value


def _over_root(x: Tensor, i: Inputs) -> Tensor:
    return x / (ops.sqrt(i.averages['v']) + i.constants.epsilon)


def _weights(factor: float) -> Callable[[Inputs], Tensor]:
    return lambda i: factor * i.w


def _clip(limit: float) -> Callable:
    return lambda x, i, node: ops.clip(x, -limit, limit)


def _drop(probability: float) -> Callable:
    return lambda x, i, node: ops.where(i.draws.keep(node, probability), x, ops.zeros_like(x))


OPERAND_FUNCTIONS: dict[str, Callable[[Inputs], Tensor]] = {
    'g': lambda i: i.g,
    'g^2': lambda i: _power_of(i.g, 2),
    'g^3': lambda i: _power_of(i.g, 3),
    'm': lambda i: i.averages['m'],
    'v': lambda i: i.averages['v'],
    'gamma': lambda i: i.averages['gamma'],
    'sign(g)': lambda i: sign(i.g),
    'sign(m)': lambda i: sign(i.averages['m']),
    '1': lambda i: ops.ones_like(i.g),
    'noise': lambda i: i.constants.noise_stddev * i.draws.normal(NOISE_NODE, i.dtype),
    '1e-4*w': _weights(1e-4),
    '1e-3*w': _weights(1e-3),
    '1e-2*w': _weights(1e-2),
    '1e-1*w': _weights(1e-1),
    'adam': lambda i: _over_root(i.averages['m'], i),
    'rmsprop': lambda i: _over_root(i.g, i),
}
"""The value of an operand."""

UNARY_FUNCTIONS: dict[str, Callable[[Tensor, Inputs, Tensor], Tensor]] = {
    'x': lambda x, i, node: x,
    '-x': lambda x, i, node: -x,
    'exp': lambda x, i, node: ops.exp(x),
    'log': lambda x, i, node: ops.log(ops.maximum(ops.abs(x), i.constants.epsilon)),
    'clip(1e-5)': _clip(1e-5),
    'clip(1e-4)': _clip(1e-4),
    'clip(1e-3)': _clip(1e-3),
    'drop(0.1)': _drop(0.1),
    'drop(0.3)': _drop(0.3),
    'drop(0.5)': _drop(0.5),
    'sign': lambda x, i, node: sign(x),
}
"""The value of a unary function of x at a node of the rule, a scalar that only the random ones read."""

BINARY_FUNCTIONS: dict[str, Callable[[Tensor, Tensor, Inputs], Tensor]] = {
    '+': lambda x, y, i: x + y,
    '-': lambda x, y, i: x - y,
    '*': lambda x, y, i: x * y,
    '/': lambda x, y, i: x / (y + i.constants.epsilon),
    'left': lambda x, y, i: x,
}
"""The value of a binary function of x and y."""

assert list(OPERAND_FUNCTIONS) == [row.token for row in OPERANDS]
assert list(UNARY_FUNCTIONS) == [row.token for row in UNARIES]
assert list(BINARY_FUNCTIONS) == [row.token for row in BINARIES]


def node_id(operand: Tensor, unary: Tensor) -> Tensor:
    """The node of a canonical rule at which a random function draws: equal sub-expressions draw the same numbers."""
    return 1 + operand * len(UNARIES) + unary


def evaluate(tokens: tuple[str, ...], inputs: Inputs) -> Tensor:
    """The update Δw / λ of a canonical rule, of the shape of the inputs."""
    values: list[_Value] = []

    def argument(operand: str, unary: str) -> _Value:
        """A unary function of an operand; signs that it does not keep as signs fade before it."""
        k = temporary_index(operand)
        x = values[k - 1] if k else _Value(OPERAND_FUNCTIONS[operand](inputs), operand in ('sign(g)', 'sign(m)'))
        if unary == 'exp' and x.is_sign:
            return _Value(_exp_of_sign(x.tensor, inputs.sign_decay))
        keeps_sign = x.is_sign and unary in ('x', '-x')
        node = node_id(operand_id(operand), UNARY_IDS[unary])
        result = UNARY_FUNCTIONS[unary](x.tensor if keeps_sign else x.faded(inputs), inputs, node)
        return _Value(result, keeps_sign or unary == 'sign')

    for start in range(0, len(tokens), 5):
        op1, op2, u1, u2, b = tokens[start : start + 5]
        x = argument(op1, u1)
        if b != 'left':
            y = argument(op2, u2)
            if b == '*' and x.is_sign and y.is_sign:
                x = _Value(x.tensor * y.tensor, is_sign=True)
            else:
                x = _Value(BINARY_FUNCTIONS[b](x.faded(inputs), y.faded(inputs), inputs))
        values.append(x)
    return values[-1].faded(inputs)


class _Value(NamedTuple):
    """A value within a rule, and whether it is a sign or a product of signs: -1, 0 or 1."""

    tensor: Tensor
    is_sign: bool = False

    def faded(self, inputs: Inputs) -> Tensor:
        """The value as all but a product of signs reads it: signs times their decay."""
        decays = self.is_sign and inputs.sign_decay is not None
        return self.tensor * inputs.sign_decay if decays else self.tensor


def _exp_of_sign(x: Tensor, decay: Tensor | None) -> Tensor:
    """e^(dx) for x = -1, 0, 1 (or NaN): the parabola through its three values."""
    sinh, cosh = (math.sinh(1.0), math.cosh(1.0)) if decay is None else (ops.sinh(decay), ops.cosh(decay))
    return 1.0 + x * (sinh + x * (cosh - 1.0))
