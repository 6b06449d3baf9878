"""Rules that are equal up to a factor: on probes, their ratio is that factor."""

import hashlib

import numpy as np
import pytest

from nos_tf.dsl import equivalence
from nos_tf.dsl.direction import Multiple
from nos_tf.dsl.direction import direction as direction_of
from nos_tf.dsl.primitives import RuleConstants
from nos_tf.dsl.rule import UpdateRule
from tests.rules import random_rules


def uniform(drop):
    """The draws of a `drop`: its own, and the same wherever it occurs."""
    seed = int.from_bytes(hashlib.sha256(repr(drop).encode()).digest()[:8], 'big')
    return np.random.default_rng(seed).random(equivalence.PROBES)


def value(rule):
    return equivalence.evaluate(rule.expression, equivalence.probes(RuleConstants()), uniform)


@pytest.mark.parametrize(
    ('text', 'direction', 'factor'),
    [
        ('adam', 'adam', 1),
        ('adam + adam', 'adam', 2),
        ('m + m + m', 'm', 3),
        ('adam + (adam - adam * 1)', 'adam + (adam - adam)', 1),  # zero is no direction
        ('-g - g', '-g', 2),
        ('g - (g + g)', '-g', 1),
        ('(adam + adam) * (g + g) / v', 'g * adam / v', 4),
        ('g / (m + m)', 'g / (m + m)', 1),  # epsilon is added to what divides
        ('1e-3*w + 1e-2*w', '1e-1*w', 0.11),
        ('exp(g + g)', 'exp(g + g)', 1),
        ('log(g + g)', 'log(g + g)', 1),
        ('clip(g + g, 1e-3)', 'clip(g + g, 1e-3)', 1),
        ('drop(g + g, 0.1)', 'drop(g + g, 0.1)', 1),
        ('drop(g, 0.3) + drop(g, 0.3)', 'drop(g, 0.3)', 2),
        ('sign(g + g)', 'sign(g)', 1),
        ('sqrt(m + m)', 'sqrt(m)', 2**0.5),
        ('square(m + m)', 'square(m)', 4),
        ('abs(m + m)', 'abs(m)', 2),
        ('max(g + g, m + m)', 'max(g, m)', 2),
        ('max(g + g, m)', 'max(m, g + g)', 1),
        ('lerp(adam, adam + adam)', 'adam', 1.1),
        ('lerp(g + g, m + m)', 'lerp(g, m)', 2),
        ('agree(g + g, m + m + m)', 'agree(g, m)', 2),
    ],
)
def test_by_hand(text, direction, factor):
    found, times = UpdateRule.parse(text).direction()
    assert direction_of(UpdateRule.parse(text).canonical().expression) == Multiple(found.expression, times)
    assert (found, times) == (UpdateRule.parse(direction).canonical(), pytest.approx(factor))


def scaled(tokens, random):
    """Another rule that is this one times a number: some of its operands, or the whole, are added to themselves."""
    rule = UpdateRule(tokens)
    whole = f'({rule.infix})'
    return UpdateRule.parse(' + '.join([whole] * int(random.integers(2, 4))))


def test_a_thousand_pairs_have_the_ratio_of_their_factors():
    random = np.random.default_rng(3)
    equal = 0
    for tokens in random_rules(1000, seed=31, version=2):
        rule, other = UpdateRule(tokens), scaled(tokens, random)
        for one in (rule, other):
            direction, factor = one.direction()
            assert factor > 0
            assert direction.direction() == (direction, 1.0), one
            with np.errstate(all='ignore'):
                expected = factor * value(direction)
            np.testing.assert_allclose(value(one.canonical()), expected, rtol=1e-9, atol=1e-290, err_msg=str(one))
        equal += rule.direction()[0] == other.direction()[0]
    assert equal > 900, equal


def test_no_draw_is_moved():
    """A `drop` draws by its place: where a factor is only to be had by moving it, there is none."""
    rule = UpdateRule.parse('(g + g) / drop(m + v, 0.3)')  # of the second iteration, which would be the first
    assert rule.direction() == (rule.canonical(), 1.0)
    assert UpdateRule.parse('(g + g) / drop(m, 0.3)').direction()[1] == 2
