"""The sweep of learning rates (Section 4.2) as a race: rates that fall behind may be given up on the way.

Each rate has a model of its own, which waits at a rung until all rates have come there; without rungs they run one
after the other to the end.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from nos_tf.optimizers.interpreter import State


class Progress(NamedTuple):
    """All that training changes."""

    optimizer: State  # the weights among it
    state: Any  # of the model


Train = Callable[[Progress, tf.Tensor, tf.Tensor], tuple[Progress, tf.Tensor]]


def race(
    start: Progress,
    rates: tf.Tensor,
    train: Train,
    measure: Callable[[Progress], tf.Tensor],
    *,
    rungs: Sequence[tuple[int, int]],
    last_step: int,
) -> tuple[Progress, tf.Tensor]:
    """Trains a model at each learning rate, and fewer and fewer of them.

    Args:
        start: the model before training.
        rates: float32 [R], ascending.
        train: (model, rate, step) -> the model after that step, and the mean loss on the way there.
        measure: of a model, float32 [].
        rungs: steps, and how many rates go on after each: those of the smallest loss, of equals the smaller rates.
        last_step: where the race ends.

    Returns:
        the models [R, ...], and the measures float32 [R] at the end of the race, -inf where a rate was given up.
    """
    count = rates.shape[0]

    def advance(models: Progress, runners: tf.Tensor, step: int) -> tuple[Progress, tf.Tensor]:
        """Trains the models of some rates [k], one after the other; also their losses [k], not finite ones as inf."""

        def one(k: tf.Tensor, models: Progress, losses: tf.Tensor) -> tuple[tf.Tensor, Progress, tf.Tensor]:
            """Trains the model of the k-th of them."""
            i = runners[k]
            trained, loss = train(pick(models, i), rates[i], tf.constant(step))
            models = tf.nest.map_structure(
                lambda all_, new: tf.tensor_scatter_nd_update(all_, [[i]], [new]), models, trained
            )
            return k + 1, models, tf.tensor_scatter_nd_update(losses, [[k]], [loss])

        runs = runners.shape[0]
        _, models, losses = tf.while_loop(
            lambda k, *_: k < runs, one, (0, models, tf.zeros(runs)), parallel_iterations=1
        )
        return models, tf.where(tf.math.is_finite(losses), losses, np.inf)

    models = tf.nest.map_structure(lambda x: tf.repeat(x[None], count, axis=0), start)
    runners = tf.range(count)
    for step, remaining in rungs:
        models, losses = advance(models, runners, step)
        runners = tf.sort(tf.gather(runners, tf.math.top_k(-losses, remaining).indices))
    models, _ = advance(models, runners, last_step)
    measures = tf.map_fn(
        lambda i: measure(pick(models, i)), runners, fn_output_signature=tf.float32, parallel_iterations=1
    )
    return models, tf.tensor_scatter_nd_update(tf.fill([count], -np.inf), runners[:, None], measures)


def pick(models: Progress, i: tf.Tensor) -> Progress:
    """The model of one rate."""
    return tf.nest.map_structure(lambda x: x[i], models)
