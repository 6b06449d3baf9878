"""The point of a rule says what the rule does, at any scale, and not how it is spelled."""

import numpy as np
import pytest

from nos_tf.dsl.embedding import ALIKE, embedding
from nos_tf.dsl.embedding import distance as embedding_distance
from nos_tf.dsl.known import KNOWN_RULES
from nos_tf.dsl.primitives import RuleConstants
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.space import SearchSpace


def point(text, **constants):
    return embedding(UpdateRule.parse(text), RuleConstants(**constants) if constants else None)


@pytest.mark.parametrize('name', KNOWN_RULES)
def test_a_point_has_a_mean_square_of_one(name):
    x = point(name)
    assert x.shape == (256,)
    assert np.mean(x**2) == pytest.approx(1)


def test_spelling_does_not_matter_and_scale_does_not():
    assert (point('m * exp(v)') == point('exp(v) * m')).all()
    np.testing.assert_allclose(point('1e-3*w'), point('1e-1*w'))
    np.testing.assert_allclose(point('m + m'), point('m'))


def test_rules_that_change_weights_alike_are_near():
    def distance(one, other):
        return embedding_distance(UpdateRule.parse(one), UpdateRule.parse(other))

    assert distance('m', 'm') == 0 and distance('g', 'noise * noise') <= 2 == pytest.approx(distance('g', '-g'))
    assert distance('g', 'g + clip(1e-3*w, 1e-5)') < ALIKE < distance('sgd', 'powersign')
    assert distance('adam', 'adam + 1e-3*w') < distance('adam', 'rmsprop') < distance('adam', '-adam')
    assert distance('sign(m)', 'sign(m) + clip(g, 1e-5)') < 0.1 < distance('sign(m)', 'm')


def test_random_rules_have_a_point_of_their_own():
    assert (point('drop(g, 0.5)') == point('drop(g, 0.5)')).all()
    assert (point('drop(g, 0.5)') != point('drop(g, 0.3)')).any()
    assert 0.3 < np.mean(point('drop(g, 0.5)') == 0) < 0.7


def test_constants_matter():
    assert (point('m / (v + eps)') != point('m / (v + eps)', epsilon=0.1)).any()


def test_every_point_is_finite():
    space, random = SearchSpace(iterations=2), np.random.default_rng(0)
    for _ in range(300):
        rule = space.rule([random.integers(len(bank)) for bank in space.choices])
        assert np.isfinite(embedding(rule)).all(), rule
    assert not point('g - g').any()


def test_nobody_can_change_a_point_that_others_read():
    with pytest.raises(ValueError, match='read-only'):
        point('adam')[0] = 0.0
