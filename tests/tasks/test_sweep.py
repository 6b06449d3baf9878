"""The race among models that are two numbers, and the finer look at bowls that are a formula."""

import numpy as np
import pytest
import tensorflow as tf

from nos_tf.optimizers.interpreter import State
from nos_tf.tasks.sweep import QUARTERS, Progress, bowls, pick, race, rates_near, refine

RATES = [1.0, 2.0, 3.0, 4.0]


def run(losses, rungs, last_step=8, rates=RATES):
    """Models count their steps in their weights; a rate has the same loss at every rung, and its rate as measure."""
    table = tf.constant(losses, tf.float32)
    start = Progress(State(tf.zeros(1), (tf.zeros(1),), tf.constant(0)), tf.zeros(1))

    def train(model, rate, step):
        state = model.optimizer
        weights = state.weights + tf.cast(step - state.step, tf.float32)
        trained = Progress(State(weights, state.slots, step), model.state + rate)
        return trained, table[tf.cast(rate, tf.int32) - 1]

    models, sweep = race(
        start, tf.constant(rates), train, lambda model: model.state[0] / 10, rungs=rungs, last_step=last_step
    )
    return models.optimizer.weights[:, 0].numpy().tolist(), sweep.numpy().tolist()


def test_without_rungs_every_rate_runs_to_the_end():
    steps, sweep = run([4, 3, 2, 1], ())
    assert steps == [8, 8, 8, 8]
    assert sweep == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_rungs_stop_the_largest_losses_where_they_are():
    steps, sweep = run([4, 1, 3, 2], ((2, 3), (5, 1)))
    assert steps == [2, 8, 5, 5]
    assert sweep == pytest.approx([-np.inf, 0.6, -np.inf, -np.inf])  # three stages, a rate's worth each


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_losses_that_are_not_finite_are_the_largest(bad):
    steps, _ = run([bad, 1e30, bad, 5], ((2, 2),))
    assert steps == [2, 8, 2, 8]


def test_of_equal_losses_the_smaller_rates_go_on():
    assert run([1, 1, 1, 1], ((2, 2),))[0] == [8, 8, 2, 2]
    assert run([np.nan] * 4, ((2, 1),))[0] == [8, 2, 2, 2]


def test_one_rate_races_alone():
    assert run([1], (), rates=[1.0])[0] == [8]


def test_measures_may_be_of_any_sign_and_those_that_are_given_up_are_below_all():
    start = Progress(State(tf.zeros(1), (), tf.constant(0)), ())
    _, sweep = race(
        start,
        tf.constant(RATES),
        lambda model, rate, step: (Progress(State(model.optimizer.weights - rate, (), step), ()), rate),
        lambda model: 100 * model.optimizer.weights[0],
        rungs=((2, 2),),
        last_step=8,
    )
    assert sweep.numpy().tolist() == [-200, -400, -np.inf, -np.inf]


def test_a_state_may_have_any_structure_and_one_is_picked_whole():
    start = Progress(State(tf.zeros(2), (), tf.constant(0)), {'a': (tf.zeros(3), tf.constant(0))})

    def train(model, rate, step):
        vector, count = model.state['a']
        return Progress(model.optimizer._replace(step=step), {'a': (vector + rate, count + step)}), rate

    models, _ = race(start, tf.constant(RATES), train, lambda model: model.state['a'][0][0], rungs=(), last_step=3)
    model = pick(models, tf.constant(2))
    vector, count = model.state['a']
    assert (vector.numpy().tolist(), count, model.optimizer.step) == ([3.0] * 3, 3, 3)


# The finer look


def refined(sweep, lowest, is_open=True, fall=1.0):
    """Where whole trainings are measured, as (rate, quarter) in their order; and the measures.

    The rates are decades; the best is so many quarters above the first, and a quarter away costs `fall`.
    """
    order = []

    def measure(rate, quarter):
        tf.py_function(lambda *at: order.append((int(at[0]), QUARTERS[int(at[1])])), [rate, quarter], [])
        return -fall * tf.abs(tf.cast(4 * rate + quarter - QUARTERS.index(0) - lowest, tf.float32))

    graph = tf.function(lambda: refine(tf.constant(sweep, tf.float32), measure, tf.constant(is_open)), autograph=False)
    whole, finer = (measures.numpy() for measures in graph())
    return order, whole, finer


@pytest.mark.parametrize(
    ('lowest', 'order'),
    [
        (4, [(1, 0), (1, -2), (1, 2), (1, -1), (1, 1)]),
        (5, [(1, 0), (1, -2), (1, 2), (1, -1), (1, 1)]),
        (6, [(1, 0), (1, -2), (1, 2), (1, 4), (1, 1), (1, 3)]),
        (0, [(1, 0), (1, -2), (1, -4), (1, -6), (1, -5), (1, -3)]),
    ],
)
def test_a_finer_look_goes_by_halves_and_then_by_quarters(lowest, order):
    asked, whole, finer = refined([-50.0, -40.0, -45.0], lowest)
    assert asked == order
    assert 4 + QUARTERS[int(finer.argmax())] == lowest
    assert np.isfinite(whole).tolist() == [False, True, False] and np.isfinite(finer).sum() == len(order)


def test_a_rate_that_is_best_early_gives_way_to_one_that_was_better_then_than_it_is_at_the_end():
    asked, whole, finer = refined([-9.0, -8.0, -2.0], lowest=0, fall=2.0)  # the third ends with -16
    assert asked[:3] == [(2, 0), (1, 0), (1, -2)]
    assert whole.tolist() == [-np.inf, -8.0, -16.0] and 4 + QUARTERS[int(finer.argmax())] == 0


def test_rates_that_were_given_up_are_not_taken_up_again():
    asked, *_ = refined([-np.inf, -1.0, -np.inf], lowest=4, fall=3.0)
    assert {rate for rate, _ in asked} == {1}


def test_a_rule_that_is_no_better_than_chance_trains_once():
    asked, whole, finer = refined([-2.0, -1.0], lowest=7, is_open=False)
    assert asked == [(1, 0)] and np.isfinite(finer).sum() == np.isfinite(whole).sum() == 1


@pytest.mark.parametrize('measured', [-np.inf, np.nan])
def test_what_is_no_number_is_not_tried_for_ever(measured):
    sweep = tf.constant([-1.0, -2.0])
    refine(sweep, lambda rate, quarter: tf.constant(measured, tf.float32), tf.constant(True))


def test_where_all_are_equally_good_no_more_is_tried_than_beside_the_first():
    assert len(refined([0.0, 0.0, 0.0], lowest=0, fall=0.0)[0]) < 8


def test_rates_near_one_are_quarter_decades_to_three_digits():
    near = rates_near(0.1)
    assert near[6:11] == (0.0316, 0.0562, 0.1, 0.178, 0.316)
    assert len(near) == len(QUARTERS) and near[QUARTERS.index(0)] == 0.1
    assert rates_near(0.12345)[QUARTERS.index(0)] == 0.12345


def test_bowls_sort_measures_by_rate():
    rates = (0.01, 0.1, 1.0)
    assert bowls(rates, (0.1, None, 0.3)) == ({0.01: 0.1, 0.1: None, 1.0: 0.3}, {})
    whole, finer = (None, 0.5, 0.2), [None] * len(QUARTERS)
    finer[7], finer[8] = 0.4, 0.5
    coarse, trained = bowls(rates, (0.1, 0.2, 0.3, *whole, *finer))
    assert coarse == {0.01: 0.1, 0.1: 0.2, 1.0: 0.3}
    assert trained == {0.0562: 0.4, 0.1: 0.5, 1.0: 0.2} and list(trained) == sorted(trained)
    assert set(bowls(rates, (0.1, 0.2, 0.3, *whole, *finer), 2.0)[1]) == {0.0281, 0.05, 0.5}
    assert bowls(rates, ()) == ({}, {})
