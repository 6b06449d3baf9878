"""A rule as a vector of token ids, run by one traced graph: no retrace, no variable, no Keras object for a rule.

The weights of a network, and each running average, are one flat vector: every primitive is element-wise, and one long
vector is faster than many short ones. Which primitive runs is decided in the graph, by `tf.switch_case`.
"""

from functools import partial
from typing import NamedTuple

import tensorflow as tf

from nos_tf.dsl.primitives import SLOTS, RuleConstants
from nos_tf.optimizers import semantics
from nos_tf.optimizers.semantics import BINARY_FUNCTIONS, OPERAND_FUNCTIONS, UNARY_FUNCTIONS, Draws, Inputs


class State(NamedTuple):
    """What training changes: a point on a trajectory (P weights)."""

    weights: tf.Tensor  # floating [P]
    slots: tuple[tf.Tensor, ...]  # m, v and gamma, not bias-corrected, each [P]
    step: tf.Tensor  # int32 [], the number of updates done


def initial_state(weights: tf.Tensor) -> State:
    """The state before the first update."""
    return State(weights, tuple(tf.zeros_like(weights) for _ in SLOTS), tf.constant(0))


def update(
    token_ids: tf.Tensor,
    state: State,
    gradient: tf.Tensor,
    learning_rate: tf.Tensor,
    *,
    seed: tf.Tensor,
    constants: RuleConstants,
) -> State:
    """One step of a rule: w − λ Δw.

    Args:
        token_ids: int32 [5n], the ids of a canonical rule, padded to the depth n of the graph.
        state: the weights [P], slots and step before the update.
        gradient: [P], of the type of the weights.
        learning_rate: λ, a scalar of the same type.
        seed: int32 [], of the random primitives.
        constants: the hyper-parameters of the rule.
    """
    step = state.step + 1
    slots, averages = [], {}
    for name, slot in zip(SLOTS, state.slots, strict=True):
        slots.append(semantics.update_average(name, slot, gradient, constants))
        correction = semantics.bias_correction(name, step, constants, gradient.dtype.name)
        averages[name] = slots[-1] * correction
    draws = Draws(seed, step, tf.range(tf.size(gradient)))
    delta = _run(token_ids, Inputs(gradient, state.weights, averages, draws, constants))
    return State(state.weights - learning_rate * delta, tuple(slots), step)


def _run(token_ids: tf.Tensor, inputs: Inputs) -> tf.Tensor:
    values: list[tf.Tensor] = []
    leaves = [partial(function, inputs) for function in OPERAND_FUNCTIONS.values()]
    shape = inputs.g.shape

    def argument(operand: tf.Tensor, unary: tf.Tensor) -> tf.Tensor:
        """The unary of the operand; both are indices, known only when the graph runs."""
        branches = leaves + [partial(tf.identity, value) for value in values]
        x = tf.ensure_shape(tf.switch_case(operand, branches), shape)
        node = semantics.node_id(operand, unary)
        return tf.ensure_shape(
            tf.switch_case(unary, [partial(function, x, inputs, node) for function in UNARY_FUNCTIONS.values()]), shape
        )

    for op1, op2, u1, u2, b in _iterations(token_ids):
        x, y = argument(op1, u1), argument(op2, u2)
        value = tf.switch_case(b, [partial(function, x, y, inputs) for function in BINARY_FUNCTIONS.values()])
        values.append(tf.ensure_shape(value, shape))
    return values[-1]


def _iterations(token_ids: tf.Tensor) -> list[list[tf.Tensor]]:
    """The five tokens of each iteration, as scalars."""
    scalars = tf.unstack(token_ids)
    return [scalars[i : i + 5] for i in range(0, len(scalars), 5)]
