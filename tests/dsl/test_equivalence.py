"""The canonical form merges what is the same program, and nothing else; the fingerprint merges equal functions."""

import numpy as np
import pytest

from nos_tf.dsl.equivalence import Draws, _all_probes, evaluate
from nos_tf.dsl.expression import Leaf, to_infix
from nos_tf.dsl.primitives import Inputs, RuleConstants
from nos_tf.dsl.rule import UpdateRule
from tests.rules import OPERANDS, RANDOM, random_rules

SAME_PROGRAM = [
    ('g * m', 'm * g'),
    ('exp(g) + log(m)', 'log(m) + exp(g)'),
    ('(g + m) * (v - gamma)', '(v - gamma) * (m + g)'),
    ('g + -m', 'g - m'),
    ('-g + m', 'm - g'),
    ('-g + -m', '-m + -g'),
    ('-exp(g) + -exp(m)', '-exp(m) + -exp(g)'),
    ('g - -m', 'g + m'),
    ('-g - m', '-m - g'),
    ('-g - -m', 'm - g'),
    ('-(-g)', 'g'),
    ('-g * m', 'g * -m'),
    ('-g * -m', 'g * m'),
    ('-(g * m) * v', '(g * m) * -v'),
    ('1 * exp(g)', 'exp(g)'),
    ('-1 * g', '-g'),
    ('g * g', 'g^2'),
    ('g * g * g', 'g^3'),
    ('g^2 * -g', '-g * g^2'),
    ('log(-m)', 'log(m)'),
    ('sign(clip(v, 1e-4))', 'sign(v)'),
    ('sign(clip(g, 1e-3))', 'sign(g)'),
    ('sign(sign(v))', 'sign(v)'),
    ('sign(sign(g))', 'sign(g)'),
    ('sign(1)', '1'),
    ('clip(clip(v, 1e-3), 1e-5)', 'clip(v, 1e-5)'),
    ('clip(clip(v, 1e-5), 1e-3)', 'clip(v, 1e-5)'),
    ('drop(g * m, 0.1)', 'drop(m * g, 0.1)'),
    ('g m x x left', 'g'),
    ('g m exp log left', 'exp(g)'),
    ('v v exp log / g m x x *', 'g * m'),
    ('g m x x * t1 t1 x x left', 'g * m'),
    ('g m x x * g m x x * t1 t2 exp log +', 'g m x x * t1 t1 exp log +'),
    ('m g x x * g m x x * t2 t1 exp log +', 'g m x x * t1 t1 exp log +'),
    ('noise * g', 'g * noise'),
    ('sqrt(-m)', 'sqrt(m)'),
    ('abs(-m)', 'abs(m)'),
    ('square(-v)', 'square(v)'),
    ('square(g)', 'g^2'),
    ('max(g, m)', 'max(m, g)'),
    ('min(g, g)', 'g'),
    ('agree(-(-g), m)', 'agree(g, m)'),
]

OTHER_PROGRAM = [
    ('g - m', 'm - g'),
    ('lerp(g, m)', 'lerp(m, g)'),
    ('agree(g, m)', 'agree(m, g)'),
    ('square(m)', 'm * m'),
    ('max(g, m)', 'min(g, m)'),
    ('g / m', 'm / g'),
    ('g / m', '-g / m'),
    ('-g * m', 'g * m'),
    ('-g - m', 'g - m'),
    ('exp(-g)', '-exp(g)'),
    ('exp(-g)', 'exp(g)'),
    ('sign(g)', 'sign(m)'),
    ('sign(g)', 'g'),
    ('sign(-g)', 'sign(g)'),
    ('clip(g, 1e-4)', 'clip(g, 1e-5)'),
    ('clip(exp(g), 1e-4)', 'exp(clip(g, 1e-4))'),
    ('clip(drop(g, 0.1), 1e-4)', 'drop(g, 0.1)'),
    ('drop(g, 0.1)', 'drop(g, 0.3)'),
    ('drop(drop(g, 0.1), 0.1)', 'drop(g, 0.1)'),
    ('drop(g, 0.1) * m', 'drop(g * m, 0.1)'),
    ('drop(g, 0.1)', 'g'),
    ('sign(drop(g, 0.1))', 'sign(g)'),
    ('noise + noise', 'noise'),
    ('noise', '1'),
    ('g^2', 'g^3'),
    ('m * m', 'v'),
    ('1e-3*w', '1e-2*w'),
    ('g * (m * v)', '(g * m) * v'),
    ('exp(g) * exp(m)', 'exp(g + m)'),
    ('g + g', 'g'),
    ('log(log(g))', 'log(g)'),
]

SAME_FUNCTION = [
    ('g * g * m', 'g * m * g'),
    ('g * (m * v)', '(g * m) * v'),
    ('(g + m) + v', 'g + (m + v)'),
    ('exp(g) * exp(m)', 'exp(g + m)'),
    ('exp(log(exp(g)))', 'exp(g)'),
    ('sign(exp(g))', '1'),
    ('g^2 * g^2', 'g * g^3'),
    ('g - m', '-(m - g)'),
    ('(g + m) * (g - m)', 'g^2 - m * m'),
    ('g - g', 'm - m'),
    ('sign(-g)', '-sign(g)'),
    ('clip(-v, 1e-4)', '-clip(v, 1e-4)'),
]

OTHER_FUNCTION = [
    ('g', 'm'),
    ('g', '-g'),
    ('g / m', 'm / g'),
    ('1 / exp(g)', 'exp(-g)'),
    ('log(g * m)', 'log(g) + log(m)'),
    ('sign(m) * m', 'm'),
    ('clip(g, 1e-3)', 'clip(g, 1e-4)'),
    ('exp(1e-4*w)', '1'),
    ('g * exp(1e-3*w)', 'g * exp(1e-4*w)'),
    ('m * m', 'v'),
    ('g^3', 'gamma'),
    ('drop(g, 0.1)', 'g'),
    ('drop(g, 0.1)', 'drop(g, 0.3)'),
    ('drop(g - g, 0.1)', 'drop(m - m, 0.1)'),  # one function, but of random numbers: never conflated by probes
    ('noise * (g * m)', '(noise * g) * m'),
    ('noise - noise', 'g - g'),
    ('sign(g) * sign(g)', '1'),  # but where the gradient is zero
]

# Pairs that agree on probes of one scale each.
OTHER_AT_ANOTHER_SCALE = [
    ('clip(rmsprop, 1e-5) / v', 'clip(sign(g), 1e-5) / v'),
    ('clip(rmsprop, 1e-5)', 'clip(sign(g), 1e-5)'),
    ('clip(adam, 1e-5)', 'clip(sign(m), 1e-5)'),
    ('clip(adam, 1e-3) - g', 'clip(sign(m), 1e-3) - g'),
    ('clip(1e-4*w, 1e-3)', '1e-4*w'),
    ('clip(1e-4*w, 1e-3) * m', '1e-4*w * m'),
    ('sign(g^3)', 'sign(g)'),
    ('sign(g^2)', 'sign(v)'),
]

# Pairs that differ only where something is exactly zero.
OTHER_AT_ZERO = [
    ('sign(v)', '1'),
    ('sign(g^2)', '1'),
    ('sign(g^2) * m', 'm'),
    ('sign(v) * exp(g)', 'exp(g)'),
    ('sign(1e-4*w) * sign(1e-4*w)', '1'),
    ('sign(m) * sign(m)', 'sign(v)'),
    ('sign(gamma) * sign(gamma)', 'sign(v)'),
]


def ids(pairs):
    return [f'{a}  |  {b}' for a, b in pairs]


@pytest.mark.parametrize(('a', 'b'), SAME_PROGRAM, ids=ids(SAME_PROGRAM))
def test_one_canonical_form(a, b):
    assert UpdateRule.parse(a).canonical() == UpdateRule.parse(b).canonical()
    assert UpdateRule.parse(a).fingerprint() == UpdateRule.parse(b).fingerprint()


@pytest.mark.parametrize(('a', 'b'), OTHER_PROGRAM, ids=ids(OTHER_PROGRAM))
def test_two_canonical_forms(a, b):
    assert UpdateRule.parse(a).canonical() != UpdateRule.parse(b).canonical()


@pytest.mark.parametrize(('a', 'b'), SAME_FUNCTION, ids=ids(SAME_FUNCTION))
def test_one_fingerprint(a, b):
    assert UpdateRule.parse(a).canonical() != UpdateRule.parse(b).canonical(), 'shows nothing about the fingerprint'
    assert UpdateRule.parse(a).fingerprint() == UpdateRule.parse(b).fingerprint()


@pytest.mark.parametrize(
    ('a', 'b'),
    [*OTHER_FUNCTION, *OTHER_AT_ANOTHER_SCALE, *OTHER_AT_ZERO],
    ids=ids([*OTHER_FUNCTION, *OTHER_AT_ANOTHER_SCALE, *OTHER_AT_ZERO]),
)
def test_two_fingerprints(a, b):
    assert UpdateRule.parse(a).fingerprint() != UpdateRule.parse(b).fingerprint()


@pytest.mark.parametrize(
    ('text', 'tokens'),
    [
        ('v v exp log / g m x x *', 'g m x x *'),
        ('m g exp x *', 'g m x exp *'),
        ('-g + m', 'm g x x -'),
        ('g * g * g', 'g^3 g^3 x x left'),
        ('sign(clip(g, 1e-3))', 'sign(g) sign(g) x x left'),
        ('m * -g', 'm g x -x *'),
        ('-m * g', 'm g x -x *'),
    ],
)
def test_canonical_form_by_hand(text, tokens):
    assert ' '.join(UpdateRule.parse(text).canonical().tokens) == tokens


def test_canonical_form_is_a_short_fixed_point():
    shorter = 0
    for tokens in random_rules(2000, seed=3):
        rule = UpdateRule(tokens)
        canonical = rule.canonical()
        assert canonical.iterations <= rule.iterations
        assert canonical.canonical() == canonical
        shorter += canonical.iterations < rule.iterations
    assert shorter > 200


def inputs_of(g, w, m, v, gamma, normal):
    """What a rule reads, in NumPy."""
    return Inputs(g, w, {'m': m, 'v': v, 'gamma': gamma}, draw=Draws(normal))


def test_canonical_form_computes_the_same():
    random = np.random.default_rng(4)
    g, w, m, v, gamma, normal = random.standard_normal([6, 64]) * 10.0 ** random.integers(-6, 2, [6, 64])
    inputs = inputs_of(g, w, m, np.abs(v), gamma, normal)
    merged = 0
    for tokens in random_rules(1000, seed=5, stochastic=False):
        rule = UpdateRule(tokens)
        canonical = rule.canonical()
        np.testing.assert_allclose(evaluate(canonical.expression, inputs), evaluate(rule.expression, inputs), rtol=1e-9)
        merged += canonical != rule
    assert merged > 500


def test_swapping_what_commutes_changes_nothing():
    for tokens in random_rules(500, seed=6):
        swapped = list(tokens)
        for i in range(0, len(tokens), 5):
            if tokens[i + 4] in '+*':
                swapped[i : i + 4] = tokens[i + 1], tokens[i], tokens[i + 3], tokens[i + 2]
        assert UpdateRule(tuple(swapped)).canonical() == UpdateRule(tokens).canonical()


def test_a_random_rule_has_no_one_value():
    with pytest.raises(ValueError, match='drop or noise'):
        evaluate(UpdateRule.parse('g * noise').expression, inputs_of(*np.ones([6, 1])))


def test_a_random_rule_has_a_value_for_given_draws():
    """Each drop is given its own draws, equal ones the same; noise is that of the inputs."""
    expression = UpdateRule.parse('drop(g, 0.1) + drop(m, 0.5) * noise - drop(g, 0.1)').expression
    inputs = inputs_of(*np.full([6, 3], 2.0))
    asked = []

    def uniform(drop):
        asked.append(drop)
        return np.array([0.05, 0.3, 0.7])

    np.testing.assert_allclose(evaluate(expression, inputs, uniform), [0, 0, 2 * 0.02], atol=1e-15)
    assert {to_infix(e) for e in asked} == {'drop(g, 0.1)', 'drop(m, 0.5)'}


def test_stochastic_means_that_a_random_primitive_is_read():
    for tokens in random_rules(500, seed=7):
        assert UpdateRule(tokens).is_stochastic == any(t in RANDOM for t in UpdateRule(tokens).canonical().tokens)


@pytest.mark.parametrize('token', [t for t in OPERANDS if t not in ('1', 'noise', 'sign(g)', 'sign(m)')])
@pytest.mark.parametrize('limit', [1e-5, 1e-4, 1e-3])
def test_probes_meet_either_side_of_every_limit(token, limit):
    values = np.abs(evaluate(Leaf(token), _all_probes(RuleConstants())))
    assert np.sum((values > 0) & (values < limit)) > 10 and np.sum(values > limit) > 10


def test_probes_are_finite_and_of_a_training():
    """No gradient is larger than the average of its square allows, and there is none where that is zero."""
    inputs = _all_probes(RuleConstants())
    g, w = inputs.g, inputs.w
    m, v, gamma = (inputs.averages[slot] for slot in ('m', 'v', 'gamma'))
    assert np.isfinite([g, w, m, v, gamma]).all() and (v >= 0).all()
    assert (evaluate(Leaf('rmsprop'), inputs)[256:] ** 2 <= 1000 * (1 + 1e-9)).all()
    never = v == 0
    assert never.any() and not g[never].any() and not m[never].any() and not gamma[never].any()
    for zero in (g, m, gamma, w):
        assert ((zero == 0) & (v > 0)).any()


def test_fingerprint_depends_on_the_constants_that_matter():
    other = RuleConstants(epsilon=1e-3)
    assert UpdateRule.parse('g / m').fingerprint(other) != UpdateRule.parse('g / m').fingerprint()
    assert UpdateRule.parse('g * m').fingerprint(other) == UpdateRule.parse('g * m').fingerprint()


@pytest.mark.parametrize(
    ('text', 'fingerprint'),
    [('g', '4e6829ee24ed3bce'), ('powersign', '3ee25123212bfa16'), ('drop30_powersign', 'f13ac8790ca50abb')],
)
def test_fingerprint_is_the_same_in_every_process(text, fingerprint):
    assert UpdateRule.parse(text).fingerprint() == fingerprint
