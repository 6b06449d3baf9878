"""The picture of a rule: the plane against closed forms, robust colours, title, caption, files."""

import io
import warnings

import numpy as np
import pytest
from matplotlib.colors import Normalize, SymLogNorm
from matplotlib.figure import Figure

from nos_tf.dsl.known import KNOWN_RULES
from nos_tf.dsl.rule import UpdateRule
from nos_tf.report.rule_picture import CELLS, colour_scale, plane, rule_picture, save
from tests.rules import random_rules

AXIS = np.linspace(-1 + 1 / CELLS, 1 - 1 / CELLS, CELLS)
M, G = np.meshgrid(AXIS, AXIS, indexing='ij')
V, GAMMA = M**2 + 1 / 4, M**3 + 3 * M / 4


def picture(text: str) -> Figure:
    return rule_picture(UpdateRule.parse(text))


def caption(text: str) -> str:
    return picture(text).get_supxlabel()


def test_powersign_in_the_four_quadrants():
    axis, values = plane(UpdateRule.parse('powersign'))
    np.testing.assert_allclose(axis, AXIS, atol=1e-12)
    low, high = axis < 0, axis > 0
    np.testing.assert_allclose(values[np.ix_(high, high)], np.e * G[np.ix_(high, high)])
    np.testing.assert_allclose(values[np.ix_(low, low)], np.e * G[np.ix_(low, low)])
    np.testing.assert_allclose(values[np.ix_(high, low)], G[np.ix_(high, low)] / np.e)
    np.testing.assert_allclose(values[np.ix_(low, high)], G[np.ix_(low, high)] / np.e)


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('adam', M / (np.sqrt(V) + 1e-8)),
        ('g * v - gamma', G * V - GAMMA),
        ('1e-1*w + g', 0.1 + G),
        ('drop(m, 0.5) * exp(drop(g, 0.3)) + noise', M * np.exp(G)),
        ('1', np.ones_like(G)),
        ('abs(lerp(m99_before, g))', np.abs(0.9 * M + 0.1 * G)),  # Lion takes its sign
        ('adam99 * linear', M / (np.sqrt(V) + 1e-8)),
        ('m_nesterov', 0.9 * M + 0.1 * G),
    ],
)
def test_the_plane_of_other_rules(text, expected):
    np.testing.assert_allclose(plane(UpdateRule.parse(text))[1], expected, rtol=1e-12, atol=1e-14)


def test_v_and_gamma_are_moments_of_one_distribution():
    """Gradients of mean m and standard deviation 1/2, here two equally likely ones."""
    for operand, power in (('v', 2), ('gamma', 3)):
        two_points = ((M - 0.5) ** power + (M + 0.5) ** power) / 2
        np.testing.assert_allclose(plane(UpdateRule.parse(operand))[1], two_points, atol=1e-12)


def test_zero_is_the_middle_of_the_colours():
    scale = colour_scale(np.linspace(-1, 3, 1000))
    assert (type(scale), scale.vmin, scale.vmax) == (Normalize, -3, 3)
    assert float(scale(0.0)) == 0.5


def test_a_few_extreme_values_do_not_bleach_the_rest():
    values = np.concatenate([np.linspace(0, 1, 1000), [1e9]])
    scale = colour_scale(values)
    assert type(scale) is Normalize
    assert 0.9 < scale.vmax < 1.1


def test_values_of_all_sizes_have_logarithmic_colours():
    scale = colour_scale(10.0 ** np.linspace(-5, 20, 1000))
    assert type(scale) is SymLogNorm
    assert scale.vmin == -scale.vmax
    assert 1e18 < scale.vmax < 1e20
    assert float(scale(0.0)) == pytest.approx(0.5)


@pytest.mark.parametrize('values', [np.array([]), np.zeros(5)])
def test_nothing_and_zeros_have_a_scale(values):
    assert (colour_scale(values).vmin, colour_scale(values).vmax) == (-1, 1)


def test_infinite_values_are_grey():
    left = picture('exp(exp(exp(exp(g + 1))))').axes[0]
    (image,) = left.images
    shown = image.get_array()
    assert shown.mask[:, -1].all() and not shown.mask[:, 0].any()
    np.testing.assert_allclose(image.cmap(shown)[:, -1], np.tile([0.7, 0.7, 0.7, 1.0], (CELLS, 1)))
    assert 'grey: infinite, or not a number' in caption('exp(exp(exp(exp(g + 1))))')


def test_what_is_shown_is_the_plane():
    rule = UpdateRule.parse('exp(g) - exp(m)')
    figure = rule_picture(rule)
    left, right, bar = figure.axes
    (image,) = left.images
    np.testing.assert_array_equal(image.get_array(), plane(rule)[1])
    assert (image.origin, image.get_extent()) == ('lower', [-1, 1, -1, 1])
    assert (left.get_xlabel(), left.get_ylabel()) == ('gradient $g$', r'running average $\hat{m}$')
    assert bar.get_ylabel() == r'update $\Delta w / \lambda$'
    assert sorted(text.get_text() for text in right.texts).count(r'$\mathrm{exp}$') == 2


def test_contours_follow_a_level():
    """On the line of level 0 of exp(g) - exp(m), g = m."""
    left = picture('exp(g) - exp(m)').axes[0]
    lines = [
        segment
        for contours in left.collections
        for level, segments in zip(contours.levels, contours.allsegs, strict=True)
        if level == 0
        for segment in segments
    ]
    assert len(lines) == 2
    for segment in lines:
        np.testing.assert_allclose(segment[:, 0], segment[:, 1], atol=1e-9)


def test_the_title_is_the_rule():
    assert picture('powersign').get_suptitle() == (
        r'$\Delta w / \lambda = g \cdot e^{\operatorname{sign}(g) \cdot \operatorname{sign}(\hat{m})}$'
    )


def test_the_title_of_a_rule_without_end_is_its_tokens():
    tokens = ['g', 'm', 'x', 'x', '*']
    for k in range(1, 10):
        tokens += [f't{k}', f't{k}', 'x', 'exp', '*']
    assert picture(' '.join(tokens)).get_suptitle().split() == tokens


@pytest.mark.parametrize(
    ('text', 'says'),
    [
        ('powersign', []),
        ('rmsprop', [r'\hat{v} = \hat{m}^2 + 1/4']),
        ('v - gamma', [r'\hat{v} = \hat{m}^2 + 1/4', r'\hat{\gamma} = \hat{m}^3 + 3\hat{m}/4']),
        ('1e-3*w', ['$w = 1$']),
        ('drop(g, 0.1)', ['drops nothing']),
    ],
)
def test_the_caption_says_what_is_held(text, says):
    everything = [r'\hat{v} =', r'\hat{\gamma} =', '$w = 1$', 'drops nothing', 'grey']
    shown = caption(text)
    assert all(part in shown for part in says)
    assert sum(part in shown for part in everything) == len(says)


@pytest.mark.parametrize('tokens', random_rules(12, seed=8)[2::3], ids=' '.join)
def test_random_rules_are_drawn_without_a_warning(tokens):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        rule_picture(UpdateRule(tokens)).savefig(io.BytesIO(), dpi=30)


@pytest.mark.slow
@pytest.mark.parametrize(
    'rule',
    [*map(UpdateRule.parse, KNOWN_RULES), *map(UpdateRule, random_rules(60, seed=9)[2::3])],
    ids=str,
)
def test_every_rule_is_drawn_without_a_warning(rule):
    test_random_rules_are_drawn_without_a_warning(rule.tokens)


@pytest.mark.parametrize(
    ('name', 'begins'), [('a.png', b'\x89PNG'), ('a.PDF', b'%PDF'), ('a.svg', b'<?xml'), ('b.c.jpg', b'\xff\xd8')]
)
def test_files(name, begins, tmp_path):
    save(UpdateRule.parse('powersign'), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(begins)


@pytest.mark.parametrize(
    ('name', 'says'),
    [
        ('a.xyz', r'a\.xyz has the suffix \.xyz: a picture has one of .*\.pdf, \.png, '),
        ('a', r'a has no suffix: a picture has one of '),
        ('a.rgba', r'has the suffix \.rgba'),
        ('nowhere/a.png', r'cannot write .*nowhere/a\.png \(No such file or directory\): name a file in a directory'),
        ('folder.png', r'cannot write .*folder\.png \(Is a directory\)'),
    ],
)
def test_files_that_cannot_be(name, says, tmp_path):
    (tmp_path / 'folder.png').mkdir()
    with pytest.raises(ValueError, match=says):
        save(UpdateRule.parse('g'), tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['folder.png']
