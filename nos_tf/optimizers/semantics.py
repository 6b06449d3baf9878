"""The arithmetic of rules on tensors of any backend of Keras: functions, running averages, and random numbers.

The formulas of the primitives are in `nos_tf/dsl/primitives.py`; they run on `KERAS`. Random bits are written on
`keras.ops` too: they are an integer hash of (seed, step, node, element), so that a rule draws the same masks on every
backend, eager or compiled, in one variable or in a flat vector of all, after a restore and on another machine.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from nos_tf.dsl.expression import Apply, Expression, Leaf, row_of, spell
from nos_tf.dsl.primitives import (
    FIRST_TEMPORARY,
    SLOTS,
    SMALLEST_NORMAL,
    Arithmetic,
    Inputs,
    Primitive,
    RuleConstants,
    draw_node,
    leaf_node,
    nesterov,
    operand_id,
)
from nos_tf.dsl.vocabulary import VERSION_1, Vocabulary

Tensor = Any  # of whichever backend Keras runs on

_RANDOM_BITS = 24  # exact in a float32


def sign(x: Tensor) -> Tensor:
    """Returns -1, 0 or 1; 0 for denormals, NaN for NaN, on every backend.

    Rounding makes 0 of what is up to SMALLEST_NORMAL: kernels disagree on denormals, and comparisons are slow unless
    they are compiled. A float16 has no number as small that is not 0. The minimum changes no sign: it keeps TensorFlow
    from multiplying the large factor with one that `x` is a product of, which would make infinity, and NaN of 0.
    """
    if ops.dtype(x) == 'float16':
        value = ops.sign(x)
    else:
        value = ops.sign(ops.round(ops.minimum(x, 1.0) * (0.5 / SMALLEST_NORMAL)))
    return ops.where(ops.isnan(x), x, value) if keras.backend.backend() == 'torch' else value


def _power(x: Tensor, n: int) -> Tensor:
    return x if n == 1 else x * _power(x, n - 1)


KERAS = Arithmetic(ops, sign=sign, power=_power, nesterov=nesterov)


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
        """Returns uniform integers in [0, 2^24), independent between nodes, steps, seeds and elements."""
        step = ops.cast(self.step, 'int32')
        key = _mix(ops.bitwise_xor(_mix(ops.bitwise_xor(_mix(self.seed), step)), ops.cast(node, 'int32')))
        bits = _mix(_mix(ops.bitwise_xor(self.elements, key)) + _mix(key))
        return _logical_shift(bits, 32 - _RANDOM_BITS)

    def keep(self, node: Tensor, drop_probability: float) -> Tensor:
        """Returns a boolean mask, False with the given probability."""
        return self.bits(node) >= math.ceil(drop_probability * 2**_RANDOM_BITS)

    def normal(self, node: int, dtype: str) -> Tensor:
        """Returns standard normal numbers, by the transform of Box and Muller."""
        wide = dtype if dtype == 'float64' else 'float32'  # the bits do not fit into 16

        def uniform(bits: Tensor) -> Tensor:
            return (ops.cast(bits, wide) + 0.5) * 2.0**-_RANDOM_BITS

        radius = ops.sqrt(-2.0 * ops.log(uniform(self.bits(node))))
        return ops.cast(radius * ops.cos(2.0 * math.pi * uniform(self.bits(~node))), dtype)

    def of_nodes(self, expression: Expression) -> Callable[[Expression], 'Draw']:
        """Returns a function from the random nodes of a canonical expression to what each draws from."""
        names = spell(expression)[1]

        def node(e: Expression) -> int:
            """Returns the node that a random expression draws at."""
            if not isinstance(e, Apply):
                return leaf_node(row_of(e).id)
            argument = e.argument
            operand = argument.token if isinstance(argument, Leaf) else names[argument]
            return draw_node(operand_id(operand), row_of(e).id)

        return lambda e: Draw(self, node(e))


class Draw(NamedTuple):
    """Draws for one node of a rule: a row's `Inputs.draw`."""

    draws: Draws
    node: Tensor

    def drop(self, x: Tensor, probability: float) -> Tensor:
        """Returns x, with each element set to 0 with the probability."""
        return ops.where(self.draws.keep(self.node, probability), x, ops.zeros_like(x))

    def normal_like(self, x: Tensor) -> Tensor:
        """Returns standard normal numbers of the type of x."""
        return self.draws.normal(self.node, ops.dtype(x))


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


def run(
    ids: Sequence[Tensor],
    inputs: Inputs,
    draws: Draws,
    switch: Callable[[Tensor, list], Tensor],
    vocabulary: Vocabulary = VERSION_1,
) -> Tensor:
    """Returns the update Δw / λ of a rule that is known only when a graph runs.

    Args:
        ids: the token ids of a canonical rule, 5n integer scalars.
        inputs: all that any rule reads.
        draws: the random numbers of the step.
        switch: `switch(index, branches)` is the value of the branch, a function without arguments, at an index.
        vocabulary: what the rule may consist of.
    """
    operands, unaries, binaries = vocabulary.tables
    values: list[Tensor] = []

    def select(rows: Sequence[Primitive], id: Tensor, *arguments: Tensor, operand: Tensor = None) -> Tensor:
        """Returns what the row with an id computes."""

        def branch(row: Primitive) -> Tensor:
            node = leaf_node(row.id) if operand is None else draw_node(operand, row.id)
            own = replace(inputs, draw=Draw(draws, node)) if row.is_random else inputs
            return row.compute(KERAS, own, *arguments)

        earlier = values if rows is operands else []
        branches = {row.id: partial(branch, row) for row in rows}
        branches |= {FIRST_TEMPORARY + k: partial(ops.copy, value) for k, value in enumerate(earlier)}
        return switch(_place(id, list(branches)), list(branches.values()))

    def argument(operand: Tensor, unary: Tensor) -> Tensor:
        return select(unaries, unary, select(operands, operand), operand=operand)

    for start in range(0, len(ids), 5):
        op1, op2, u1, u2, b = ids[start : start + 5]
        values.append(select(binaries, b, argument(op1, u1), argument(op2, u2)))
    return values[-1]


def _place(id: Tensor, ids: list[int]) -> Tensor:
    """Returns the index of an id: a switch wants its branches without gaps."""
    if ids == list(range(len(ids))):
        return id
    places = [ids.index(i) if i in ids else 0 for i in range(max(ids) + 1)]
    return ops.take(ops.convert_to_tensor(places, 'int32'), id)


class Decay(NamedTuple):
    """The decay β of a running average, and what has to be computed of it in double precision."""

    beta: Any
    rest: Any  # 1 − β
    log: Any  # of β

    @classmethod
    def of(cls, beta: float) -> 'Decay':
        """Returns the decay of a number."""
        return cls(beta, 1.0 - beta, math.log(beta) if beta else -math.inf)


class GivenConstants:
    """The constants of a rule as tensors: a graph that is given them trains with any, and takes the same steps.

    Args:
        values: float32 [11], `values_of` the constants.
    """

    def __init__(self, values: Tensor) -> None:
        for i, name in enumerate(_CONSTANTS):
            setattr(self, name, values[i])
        for i, name in enumerate(_DECAYS):
            first = len(_CONSTANTS) + 2 * i
            setattr(self, f'{name}_decay', Decay(getattr(self, name), values[first], values[first + 1]))

    @staticmethod
    def values_of(constants: RuleConstants) -> np.ndarray:
        """Returns the constants as the vector that a graph is given."""
        decays = (Decay.of(getattr(constants, name)) for name in _DECAYS)
        told = [getattr(constants, name) for name in _CONSTANTS]
        return np.array([*told, *(x for decay in decays for x in decay[1:])], np.float32)


_CONSTANTS = tuple(field.name for field in fields(RuleConstants))
_DECAYS = tuple(name for name in _CONSTANTS if name.startswith('beta'))


def update_average(slot: str, average: Tensor, gradient: Tensor, constants: RuleConstants | GivenConstants) -> Tensor:
    """Returns the running average of a power of g after one more gradient: βa + (1 − β) g^k."""
    decay = _decay(slot, constants)
    return decay.beta * average + decay.rest * _power(gradient, SLOTS[slot].power)


def bias_correction(slot: str, step: Tensor, constants: RuleConstants | GivenConstants, dtype: str) -> Tensor:
    """Returns 1 / (1 − β^t) at step t = 1, 2, ...: a scalar; exact in float32 too, where 1 − β^t would not be."""
    decay = _decay(slot, constants)
    if isinstance(decay.log, float) and math.isinf(decay.log):
        return ops.ones([], dtype)
    return -1.0 / ops.expm1(ops.cast(step, dtype) * decay.log)


def _decay(slot: str, constants: RuleConstants | GivenConstants) -> Decay:
    decay = SLOTS[slot].decay
    if not isinstance(decay, str):
        return Decay.of(decay)
    return getattr(constants, f'{decay}_decay', None) or Decay.of(getattr(constants, decay))
