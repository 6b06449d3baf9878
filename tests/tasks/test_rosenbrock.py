"""Walks in the valley beside the same steps in NumPy."""

import numpy as np
import pytest

from nos_tf.tasks.rosenbrock import OPTIMUM, START, Walk, rosenbrock, suited, walk
from tests.tasks.linear import OF_EVERY_OPTIMIZER


def gradient(x, y):
    return np.array([-2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)])


def test_the_function_is_zero_at_its_optimum_alone():
    assert rosenbrock(*OPTIMUM) == 0
    assert rosenbrock(*START) == pytest.approx(24.2)


def test_sgd_and_powersign_walk_as_in_numpy_at_each_rate_from_the_start():
    for text in ('keras.SGD', 'powersign'):
        for way, rate in zip(walk(text, (1e-3, 1e-4), 30), (1e-3, 1e-4), strict=True):
            place, average = np.array(START), np.zeros(2)
            expected = [place]
            for step in range(1, 31):
                g = gradient(*place)
                average = 0.9 * average + 0.1 * g
                sign = np.sign(g) * np.sign(average / (1 - 0.9**step))
                place = place - rate * g * (np.exp(sign) if text == 'powersign' else 1)
                expected.append(place)
            assert (way.contender, way.rate, way.diverged) == (text, rate, False)
            np.testing.assert_allclose(way.points, expected, rtol=1e-5)
            np.testing.assert_allclose(way.distances, np.linalg.norm(np.array(expected) - OPTIMUM, axis=1), rtol=1e-5)


def test_a_walk_that_leaves_the_numbers_is_infinitely_far_from_there_on():
    (way,) = walk('keras.SGD', (1.0,), 20, start=(3.0, 3.0))
    assert way.diverged and way.distances[-1] == np.inf and np.isfinite(way.distances[0])
    back = Walk('x', 1.0, np.array([[0, 0], [np.nan, 0], [1.0, 1.0]]))
    np.testing.assert_array_equal(np.isfinite(back.distances), [True, False, False])
    lost = Walk('x', 1.0, np.array([[0, 0], [1e200, 0], [1.0, 1.0]]))
    np.testing.assert_array_equal(np.isfinite(lost.distances), [True, False, False])


def test_a_walk_of_averages_is_that_of_its_own_points_averaged():
    (plain,), (averaged,) = (
        walk(text, (1e-3,), 12) for text in ('keras.SGD', 'keras.SGD with use_ema=1, ema_momentum=0.75')
    )
    expected = [plain.points[1]]
    for point in plain.points[2:]:
        expected.append(0.75 * expected[-1] + 0.25 * point)
    np.testing.assert_allclose(averaged.points[1:], expected, rtol=1e-12)


def test_what_keras_does_for_every_optimizer_changes_the_way():
    (plain,) = walk('keras.Adam', (1e-2,), 8)
    for constants in OF_EVERY_OPTIMIZER:
        (way,) = walk(f'keras.Adam with {constants}', (1e-2,), 8)
        assert np.isfinite(way.points).all() and np.abs(way.points - plain.points).max() > 1e-6, constants


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('keras.Muon with momentum=0.5', 'x and y are no matrix, which Muon is for: write keras.AdamW'),
        ('powersign with epsilon=1', 'epsilon changes nothing'),
        ('no such rule', 'no such rule'),
    ],
)
def test_what_would_not_walk_as_itself_is_refused(text, said):
    for refuses in (lambda: suited(text), lambda: walk(text, (1e-3,), 1)):
        with pytest.raises(ValueError, match=said):
            refuses()
