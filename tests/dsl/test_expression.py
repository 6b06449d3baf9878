"""Tokens and trees say the same; a tree prints as a person would write it."""

import pytest

from nos_tf.dsl.expression import Apply, Combine, Leaf, from_tokens, to_infix, to_latex, to_tokens, walk
from tests.rules import random_rules

G, M = Leaf('g'), Leaf('m')


def tokens_of(text):
    return tuple(text.split())


def test_tree_of_the_rule_of_powersign():
    tree = from_tokens(tokens_of('sign(g) sign(m) x x * g t1 x exp *'))
    assert tree == Combine('*', G, Apply('exp', Combine('*', Leaf('sign(g)'), Leaf('sign(m)'))))
    assert [getattr(e, 'token', None) for e in walk(tree)] == ['*', 'g', 'exp', '*', 'sign(g)', 'sign(m)']
    assert tree.depth == 4


@pytest.mark.parametrize(
    ('tokens', 'tree'),
    [
        ('g m x x left', G),
        ('g m -x exp left', Apply('-x', G)),
        ('g m x x + v v x x left', Leaf('v')),
        ('g m x x - t1 t1 log sign /', Combine('/', *(Apply(u, Combine('-', G, M)) for u in ('log', 'sign')))),
        ('g m x x - m g x x - t1 t2 x x *', Combine('*', Combine('-', G, M), Combine('-', M, G))),
    ],
)
def test_what_tokens_say(tokens, tree):
    assert from_tokens(tokens_of(tokens)) == tree


@pytest.mark.parametrize(
    ('tree', 'tokens'),
    [
        (G, 'g g x x left'),
        (Apply('exp', M), 'm m exp x left'),
        (Apply('log', Apply('exp', M)), 'm m exp x left t1 t1 log x left'),
        (Combine('-', Apply('exp', G), Apply('exp', M)), 'g m exp exp -'),
        (Combine('+', Combine('*', G, M), Combine('*', G, M)), 'g m x x * t1 t1 x x +'),
    ],
)
def test_shortest_tokens(tree, tokens):
    assert to_tokens(tree) == tokens_of(tokens)


def test_a_thousand_trees_survive_tokens():
    for tokens in random_rules(1000, seed=1):
        tree = from_tokens(tokens)
        shortest = to_tokens(tree)
        assert from_tokens(shortest) == tree
        assert len(shortest) <= len(tokens)


@pytest.mark.parametrize(
    ('tokens', 'infix', 'latex'),
    [
        ('g g^2 x x +', 'g + g^2', 'g + g^2'),
        ('g m exp log -', 'exp(g) - log(m)', r'e^{g} - \log |\hat{m}|'),
        ('g m x x - v t1 x x -', 'v - (g - m)', r'\hat{v} - (g - \hat{m})'),
        ('g m x x - t1 v x x -', 'g - m - v', r'g - \hat{m} - \hat{v}'),
        ('g m x x + t1 v x x *', '(g + m) * v', r'(g + \hat{m}) \cdot \hat{v}'),
        ('g m x x + t1 v x x /', '(g + m) / v', r'\frac{g + \hat{m}}{\hat{v} + \epsilon}'),
        ('g m x x / v t1 x x /', 'v / (g / m)', r'\frac{\hat{v}}{\frac{g}{\hat{m} + \epsilon} + \epsilon}'),
        ('g m x x / t1 v x x *', 'g / m * v', r'\frac{g}{\hat{m} + \epsilon} \cdot \hat{v}'),
        ('g m -x -x +', '-g + -m', r'-g + -\hat{m}'),
        ('g m x x + t1 t1 -x x left', '-(g + m)', r'-(g + \hat{m})'),
        ('1e-3*w 1e-3*w -x x left', '-(1e-3*w)', '-(10^{-3} w)'),
        ('m 1e-3*w drop(0.3) exp *', 'drop(m, 0.3) * exp(1e-3*w)',
         r'\operatorname{drop}(\hat{m}, 0.3) \cdot e^{10^{-3} w}'),
        ('rmsprop gamma clip(1e-5) sign *', 'clip(rmsprop, 1e-5) * sign(gamma)',
         r'\operatorname{clip}(\text{RMSProp}, 10^{-5}) \cdot \operatorname{sign}(\hat{\gamma})'),
    ],
)  # fmt: skip
def test_print(tokens, infix, latex):
    tree = from_tokens(tokens_of(tokens))
    assert to_infix(tree) == infix
    assert to_latex(tree) == latex
