"""The reward curve: its numbers, and that it is a picture."""

import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread

from nos_tf.report.figures import (
    Panel,
    controller_curves,
    moving_average,
    moving_band,
    reward_curve,
    training_curves,
)
from nos_tf.store.schema import Update
from tests.rows import make_rows

REWARDS = np.random.default_rng(0).uniform(0.1, 0.9, 250)


@pytest.mark.parametrize('count', [0, 1, 5, 99, 100, 101, 250])
@pytest.mark.parametrize('window', [1, 3, 100])
def test_moving_average(count, window):
    values = REWARDS[:count]
    naive = [np.mean(values[max(0, i + 1 - window) : i + 1]) for i in range(count)]
    np.testing.assert_allclose(moving_average(values, window), naive, rtol=1e-12)


@pytest.fixture
def figures(monkeypatch):
    """Every figure that is saved."""
    saved, save = [], Figure.savefig
    monkeypatch.setattr(Figure, 'savefig', lambda self, *a, **k: (saved.append(self), save(self, *a, **k))[1])
    return saved


def test_the_curve_shows_children_best_average_and_the_best_baseline(figures):
    others = {'by chance': make_rows([0.25] * 300)}
    reward_curve(make_rows(REWARDS), {'sgd': 0.4, 'adam': 0.7, 'momentum': 0.6}, others)
    (figure,) = figures
    (axes,) = figure.axes
    lines = {line.get_label(): line.get_xydata() for line in axes.lines}
    children = np.arange(1, 251)
    np.testing.assert_array_equal(lines['a child'], np.stack([children, REWARDS], 1))
    np.testing.assert_array_equal(lines['best so far'], np.stack([children, np.maximum.accumulate(REWARDS)], 1))
    np.testing.assert_allclose(lines['mean of the last 100'][:, 1], moving_average(REWARDS))
    np.testing.assert_array_equal(lines['adam, on fresh seeds'][:, 1], 0.7)
    np.testing.assert_array_equal(lines['mean of by chance'], np.stack([np.arange(1, 301), np.full(300, 0.25)], 1))
    assert len(lines) == 5 and axes.get_xlim() == (1, 300)
    shown = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert sorted(shown) == sorted([*lines, '80% of the last 100'])
    (band,) = axes.collections
    low, high = moving_band(REWARDS)
    vertices = {tuple(vertex) for vertex in band.get_paths()[0].vertices}
    assert {(x, y) for edge in (low, high) for x, y in zip(children, edge, strict=True)} <= vertices


def test_trainings_are_drawn_as_mean_and_range_and_some_are_dashed(figures):
    validation = {'found': [((5, 6), (0.2, 0.6)), ((5, 6, 7), (0.4, 0.8, 0.9))], 'named': [((5, 6), (0.5, 0.5))]}
    test = {name: [(x, [value / 2 for value in y]) for x, y in runs] for name, runs in validation.items()}
    training_curves([Panel('validation', validation), Panel('test', test, 'log')], 'epoch', dashed=['named'])
    (figure,) = figures
    left, right = figure.axes
    np.testing.assert_allclose(left.lines[0].get_xydata(), [(5, 0.3), (6, 0.7)])
    np.testing.assert_allclose(right.lines[0].get_ydata(), [0.15, 0.35])
    assert {(5.0, 0.2), (5.0, 0.4), (6.0, 0.6), (6.0, 0.8)} <= {
        tuple(vertex) for vertex in left.collections[0].get_paths()[0].vertices
    }
    assert [line.get_linestyle() for line in right.lines] == ['-', '--']
    assert [line.get_label() for line in right.lines] == ['found', 'named']
    assert (left.get_yscale(), right.get_yscale()) == ('linear', 'log') and left.get_ylim() != right.get_ylim()
    assert (left.get_ylabel(), right.get_xlabel()) == ('validation', 'epoch')
    training_curves([Panel('validation', validation), Panel('test', test)], 'epoch', share_y=True)
    left, right = figures[1].axes
    assert left.get_ylim() == right.get_ylim()


def test_moving_band():
    low, high = moving_band(REWARDS)
    assert (low[0], high[0]) == (REWARDS[0], REWARDS[0])
    last = np.sort(REWARDS[-100:])
    assert np.mean((low[-1] <= last) & (last <= high[-1])) == 0.8
    np.testing.assert_allclose(moving_band(np.arange(250.0))[0][[5, 249]], [0.5, 159.9])


def test_the_controller_is_drawn_by_what_it_tells(figures):
    updates = [Update(i, 5 * i, {'entropy': 9 - i / 10, 'kl': 0.01, 'step_size': 1.0}) for i in range(30)]
    assert controller_curves(updates).startswith(b'\x89PNG')
    entropy, divergence = figures[0].axes
    children = np.arange(0, 150, 5)
    np.testing.assert_allclose(entropy.lines[0].get_xydata(), np.stack([children, 9 - np.arange(30) / 10], 1))
    np.testing.assert_allclose(divergence.lines[1].get_ydata(), 0.01)
    assert controller_curves([]) is None and controller_curves([Update(0, 5, {'baseline': 0.3})]) is None
    controller_curves([*updates, Update(30, 150, {})])  # as of a batch that was not learned from
    controller_curves([Update(0, 5, {'entropy': 1.0})])
    assert len(figures[2].axes) == 1


@pytest.mark.parametrize('count', [1, 2, 250])
@pytest.mark.parametrize('baselines', [{}, {'sgd': 0.5}])
def test_the_curve_is_a_picture(count, baselines):
    png = reward_curve(make_rows(REWARDS[:count]), baselines, {})
    assert png.startswith(b'\x89PNG\r\n\x1a\n')
    pixels = imread(io.BytesIO(png))[:, :, :3]
    assert pixels.shape == (675, 1200, 3)
    red = np.abs(pixels - to_rgb('tab:red')).max(-1) < 0.02
    assert red.any() == bool(baselines)
