"""The sweep of learning rates (Section 4.2) as a race, and the finer look around its winner.

In the race each rate has a model of its own, which waits at a rung until all rates have come there, and rates that fall
behind may be given up; without rungs they run one after the other to the end. The finer look climbs from the winner by
quarter decades, until the rates on both sides of the best are known to be worse.
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


QUARTERS = range(-6, 7)  # how far the finer look may go: quarter decades from the winner of the sweep

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


def climb(measure: Callable[[tf.Tensor], tf.Tensor], is_open: tf.Tensor) -> tf.Tensor:
    """Measures rates from the middle of `QUARTERS` on, until both neighbours of the best are known to be worse.

    Args:
        measure: of the rate at an index, int32 [] -> float32 [].
        is_open: bool []; where it is False, the middle one is the only one to be measured.

    Returns:
        the measures, float32 [13], -inf where a rate was not tried.
    """
    middle = tf.constant(len(QUARTERS) // 2)

    def is_new(index: tf.Tensor, measures: tf.Tensor) -> tf.Tensor:
        """Returns whether there is a rate at an index that has not been tried."""
        inside = (index >= 0) & (index < len(QUARTERS))
        return inside & (measures[tf.clip_by_value(index, 0, len(QUARTERS) - 1)] == -np.inf)

    def neighbours(measures: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns the index of the best, and whether the rates below and above it are new."""
        best = tf.argmax(measures, output_type=tf.int32)
        return best, is_new(best - 1, measures), is_new(best + 1, measures)

    def goes_on(measures: tf.Tensor) -> tf.Tensor:
        _, below, above = neighbours(measures)
        return is_open & (below | above)

    def step(measures: tf.Tensor) -> tuple[tf.Tensor]:
        best, below, _ = neighbours(measures)
        return (set_at(measures, tf.where(below, best - 1, best + 1)),)

    def set_at(measures: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        return tf.tensor_scatter_nd_update(measures, [[index]], [measure(index)])

    first = set_at(tf.fill([len(QUARTERS)], -np.inf), middle)
    (measures,) = tf.while_loop(goes_on, step, (first,), parallel_iterations=1)
    return measures


def rates_near(rate: float) -> tuple[float, ...]:
    """Returns the rates that the finer look may try: one, and those around it to three digits, as people write them."""
    return tuple(_to_three_digits(rate * 10 ** (quarter / 4)) if quarter else rate for quarter in QUARTERS)


def of_multiple(rate: float, factor: float) -> float:
    """Returns the rate at which a rule whose updates are so many times as large does the same."""
    return rate if factor == 1 else _to_three_digits(rate / factor)


def _to_three_digits(rate: float) -> float:
    return float(f'{rate:.3g}')


def bowls(
    learning_rates: Sequence[float], measures: Sequence[float | None], factor: float = 1.0
) -> tuple[dict[float, float | None], dict[float, float]]:
    """Returns the measures of an outcome by learning rate: those of the sweep, and those of the finer look, if any.

    Args:
        learning_rates: of the sweep.
        measures: `Outcome.sweep`; () of a rule that was not trained.
        factor: by which updates of the rule are larger than those of what has trained.
    """
    count = len(learning_rates) if measures else 0
    sweep, finer = measures[:count], measures[count:]
    coarse = {of_multiple(rate, factor): x for rate, x in zip(learning_rates[:count], sweep, strict=True)}
    if not finer:
        return coarse, {}
    won = int(np.argmax([-np.inf if x is None else x for x in sweep]))
    near = zip(rates_near(learning_rates[won]), finer, strict=True)
    return coarse, {of_multiple(rate, factor): x for rate, x in near if x is not None}


def pick(models: Progress, i: tf.Tensor) -> Progress:
    """The model of one rate."""
    return tf.nest.map_structure(lambda x: x[i], models)
