"""A rule as a vector of token ids, run by one traced graph: no retrace, no variable, no Keras object for a rule.

The weights of a network, and each running average, are one flat vector: every primitive is element-wise, and one long
vector is faster than many short ones. Which primitive runs is decided in the graph, by `tf.switch_case`.
"""

from typing import NamedTuple

import tensorflow as tf

from nos_tf.dsl.primitives import Inputs, RuleConstants
from nos_tf.dsl.vocabulary import VERSION_1, Vocabulary
from nos_tf.optimizers import semantics
from nos_tf.optimizers.semantics import Draws, GivenConstants


class State(NamedTuple):
    """What training changes: a point on a trajectory (P weights)."""

    weights: tf.Tensor  # floating [P]
    slots: tuple[tf.Tensor, ...]  # the averages of the vocabulary, not bias-corrected, each [P]
    step: tf.Tensor  # int32 [], the number of updates done


def initial_state(weights: tf.Tensor, vocabulary: Vocabulary = VERSION_1) -> State:
    """Returns the state before the first update."""
    return State(weights, tuple(tf.zeros_like(weights) for _ in vocabulary.slots), tf.constant(0))


def update(
    token_ids: tf.Tensor,
    state: State,
    gradient: tf.Tensor,
    learning_rate: tf.Tensor,
    *,
    seed: tf.Tensor,
    constants: RuleConstants | GivenConstants,
    vocabulary: Vocabulary = VERSION_1,
    total_steps: int | None = None,
) -> State:
    """One step of a rule: w − λ Δw.

    Args:
        token_ids: int32 [5n], the ids of a canonical rule, padded to the depth n of the graph.
        state: the weights [P], slots and step before the update.
        gradient: [P], of the type of the weights.
        learning_rate: λ, a scalar of the same type.
        seed: int32 [], of the random primitives.
        constants: the hyper-parameters of the rule, as numbers or as tensors.
        vocabulary: what the rule may consist of; the state is of the same.
        total_steps: of the training; needed where the vocabulary has words that read how much of it is done.
    """
    step = state.step + 1
    slots, averages = [], {}
    for name, slot in zip(vocabulary.slots, state.slots, strict=True):
        slots.append(semantics.update_average(name, slot, gradient, constants))
        correction = semantics.bias_correction(name, step, constants, gradient.dtype.name)
        averages[name] = slots[-1] * correction
    inputs = Inputs(
        gradient,
        state.weights,
        averages,
        constants,
        before=dict(zip(vocabulary.slots, state.slots, strict=True)),
        step=tf.cast(step, gradient.dtype),
        progress=tf.cast(state.step, gradient.dtype) / total_steps if total_steps else None,
    )

    def switch(index: tf.Tensor, branches: list) -> tf.Tensor:
        return tf.ensure_shape(tf.switch_case(index, branches), gradient.shape)

    draws = Draws(seed, step, tf.range(tf.size(gradient)))
    delta = semantics.run(tf.unstack(token_ids), inputs, draws, switch, vocabulary)
    return State(state.weights - learning_rate * delta, tuple(slots), step)
