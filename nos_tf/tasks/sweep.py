"""The sweep of learning rates (Section 4.2) as a race, and the finer look around its best rates.

In the race each rate has a model of its own, which waits at a rung until all rates have come there, and rates that fall
behind may be given up; without rungs they run one after the other to the end. The finer look trains to the end at half
and quarter decades around the best.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from nos_tf.optimizers.interpreter import State


class Progress(NamedTuple):
    """All that training changes."""

    optimizer: State  # the weights among it
    state: Any  # of the model


QUARTERS = range(-8, 9)  # how far the finer look may go: quarter decades from a rate of the sweep

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


def refine(
    sweep: tf.Tensor, measure: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], is_open: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Looks finer around the best rate of a sweep, by whole trainings.

    A sweep is short, and what is best early need not be so at the end. So first the rates of the sweep train, the best
    first, until one reaches at least what every other had in the sweep; the best of them is the middle. Around it half
    decades are tried until those on both sides of the best are worse, and then the quarters beside it. On known rules
    that finds the best of all quarter decades 99 times in a hundred, by 5.3 trainings (benchmarks/sweep_study.py).

    Args:
        sweep: measures of the rates, float32 [R], -inf where one was given up.
        measure: (index of a rate, index of a quarter) -> the measure that a whole training reaches, float32 [].
        is_open: bool []; where it is False, the best rate of the sweep is the only one to train.

    Returns:
        the measures of whole trainings, -inf where there was none: at the rates of the sweep, float32 [R], and at the
        quarters around the best of these, float32 [17].
    """
    middle = tf.constant(len(QUARTERS) // 2)

    def set_at(measures: tf.Tensor, index: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
        # Whatever a task measures, what was tried is not tried again.
        return tf.tensor_scatter_nd_update(measures, [[index]], [tf.maximum(value, tf.float32.min)])

    def untried(whole: tf.Tensor) -> tf.Tensor:
        return tf.where(whole == -np.inf, sweep, -np.inf)

    def train_next(whole: tf.Tensor) -> tuple[tf.Tensor]:
        rate = tf.argmax(untried(whole), output_type=tf.int32)
        return (set_at(whole, rate, measure(rate, middle)),)

    (whole,) = train_next(tf.fill(sweep.shape, -np.inf))
    (whole,) = tf.while_loop(
        lambda whole: is_open & (tf.reduce_max(untried(whole)) > tf.reduce_max(whole)),
        train_next,
        (whole,),
        parallel_iterations=1,
    )
    rate = tf.argmax(whole, output_type=tf.int32)

    def is_new(finer: tf.Tensor, quarter: tf.Tensor) -> tf.Tensor:
        inside = (quarter >= 0) & (quarter < len(QUARTERS))
        return is_open & inside & (finer[tf.clip_by_value(quarter, 0, len(QUARTERS) - 1)] == -np.inf)

    def try_at(finer: tf.Tensor, quarter: tf.Tensor) -> tf.Tensor:
        return set_at(finer, quarter, measure(rate, quarter))

    def best_of(finer: tf.Tensor) -> tf.Tensor:
        return tf.argmax(finer, output_type=tf.int32)

    def try_half(finer: tf.Tensor) -> tuple[tf.Tensor]:
        below, above = best_of(finer) - 2, best_of(finer) + 2
        return (try_at(finer, tf.where(is_new(finer, below), below, above)),)

    finer = set_at(tf.fill([len(QUARTERS)], -np.inf), middle, tf.reduce_max(whole))
    (finer,) = tf.while_loop(
        lambda finer: is_new(finer, best_of(finer) - 2) | is_new(finer, best_of(finer) + 2),
        try_half,
        (finer,),
        parallel_iterations=1,
    )
    half = best_of(finer)
    for quarter in (half - 1, half + 1):
        finer = tf.cond(is_new(finer, quarter), partial(try_at, finer, quarter), partial(tf.identity, finer))
    return whole, finer


def rates_near(rate: float) -> tuple[float, ...]:
    """Returns the rates that the finer look may try: one, and those around it to three digits, as people write them."""
    return tuple(_to_three_digits(rate * 10 ** (quarter / 4)) if quarter else rate for quarter in QUARTERS)


def finer_rates(measures: Mapping[float, float], centre: float) -> list[float]:
    """Returns the rates to try next around one: half decades from the best, then quarters beside it; [] at the end.

    Args:
        measures: of all rates that were tried.
        centre: where the look began, one of them.
    """
    near = rates_near(centre)
    best = max((rate for rate in near if rate in measures), key=measures.__getitem__)
    at = near.index(best)
    if (at - QUARTERS.index(0)) % 2:
        return []  # the quarters are done
    for step in (2, 1):
        beside = [near[i] for i in (at - step, at + step) if 0 <= i < len(near)]
        if new := [rate for rate in beside if rate not in measures]:
            return new
    return []


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
    sweep, whole, finer = measures[:count], measures[count : 2 * count], measures[2 * count :]
    coarse = {of_multiple(rate, factor): x for rate, x in zip(learning_rates[:count], sweep, strict=True)}
    if not finer:
        return coarse, {}
    best = int(np.argmax([-np.inf if x is None else x for x in whole]))
    rates = (*learning_rates, *rates_near(learning_rates[best]))
    trained = {rate: x for rate, x in zip(rates, (*whole, *finer), strict=True) if x is not None}
    return coarse, {of_multiple(rate, factor): x for rate, x in sorted(trained.items())}


def pick(models: Progress, i: tf.Tensor) -> Progress:
    """The model of one rate."""
    return tf.nest.map_structure(lambda x: x[i], models)
