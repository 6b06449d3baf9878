"""The reward curve: its numbers, and that it is a picture."""

import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread

from nos_tf.report.figures import moving_average, reward_curve
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
    reward_curve(make_rows(REWARDS), {'sgd': 0.4, 'adam': 0.7, 'momentum': 0.6})
    (figure,) = figures
    (axes,) = figure.axes
    lines = {line.get_label(): line.get_xydata() for line in axes.lines}
    children = np.arange(1, 251)
    np.testing.assert_array_equal(lines['a child'], np.stack([children, REWARDS], 1))
    np.testing.assert_array_equal(lines['best so far'], np.stack([children, np.maximum.accumulate(REWARDS)], 1))
    np.testing.assert_allclose(lines['mean of the last 100'][:, 1], moving_average(REWARDS))
    np.testing.assert_array_equal(lines['adam, on fresh seeds'][:, 1], 0.7)
    assert len(lines) == 4
    shown = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert sorted(shown) == sorted(lines)


@pytest.mark.parametrize('count', [1, 2, 250])
@pytest.mark.parametrize('baselines', [{}, {'sgd': 0.5}])
def test_the_curve_is_a_picture(count, baselines):
    png = reward_curve(make_rows(REWARDS[:count]), baselines)
    assert png.startswith(b'\x89PNG\r\n\x1a\n')
    pixels = imread(io.BytesIO(png))[:, :, :3]
    assert pixels.shape == (675, 1200, 3)
    red = np.abs(pixels - to_rgb('tab:red')).max(-1) < 0.02
    assert red.any() == bool(baselines)
