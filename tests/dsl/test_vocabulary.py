"""What one graph can run: all canonical forms of a space and of the rules beside it, and no average that none reads."""

import itertools
import pickle

import pytest

from nos_tf.dsl.known import KNOWN_RULES
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.space import SearchSpace
from nos_tf.dsl.vocabulary import VERSION_1, Vocabulary
from tests.rules import BINARIES, OPERANDS, UNARIES


def tokens(vocabulary):
    return [[row.token for row in rows] for rows in vocabulary.tables]


def test_the_first_version_is_the_papers_language():
    assert tokens(VERSION_1) == [list(OPERANDS), list(UNARIES), list(BINARIES)]
    assert VERSION_1.slots == ('m', 'v', 'gamma')


@pytest.mark.parametrize(
    ('space', 'rules', 'slots', 'depth'),
    [
        (SearchSpace(operands=('g', 'sign(g)')), (), ('m', 'v', 'gamma'), 1),
        (SearchSpace(operands=('g', 'sign(m)'), iterations=2), ('sgd',), ('m', 'v', 'gamma'), 2),
        (SearchSpace(operands=('g', 'linear'), language=2), ('sgd',), (), 1),
        (SearchSpace(operands=('g', 'adam95'), language=2), ('lion',), ('m', 'm99', 'v95'), 2),
        (None, ('lion', 'nadam'), ('m', 'v', 'm99'), 2),
    ],
)
def test_keeps_what_its_rules_read_and_all_of_version_1_where_there_is_no_other(space, rules, slots, depth):
    vocabulary = Vocabulary.of(space, map(UpdateRule.parse, rules))
    assert (vocabulary.slots, vocabulary.iterations) == (slots, depth)
    for rule in rules:
        assert len(vocabulary.ids_of(UpdateRule.parse(rule))) == 5 * depth


def test_every_canonical_form_of_a_space_can_be_run():
    """`g * g` is `g^2`, `g + -m` is `g - m`: words that the space need not have."""
    space = SearchSpace(operands=('g', 'm'), unaries=('x', '-x', 'exp', 'sqrt'), binaries=('+', '*', 'max'), language=2)
    vocabulary = Vocabulary.of(space)
    for spelled in itertools.product(*space.choices):
        vocabulary.ids_of(UpdateRule(spelled))
    assert 'adam' not in tokens(vocabulary)[0] and 'abs' not in tokens(vocabulary)[1]


def test_rewards_depend_on_what_a_graph_has_beside_version_1():
    assert Vocabulary.of(SearchSpace(operands=('g',)), [UpdateRule.parse('adam')]).identity() == {}
    found = Vocabulary.of(None, [UpdateRule.parse('lion')]).identity()
    assert found == {'vocabulary': ['g', 'lerp', 'm99_before', 'sign']}


@pytest.mark.parametrize(('rule', 'word'), [('adam', 'adam'), ('lion', 'lerp, m99_before'), ('sqrt(g)', 'sqrt')])
def test_refuses_a_rule_of_other_words(rule, word):
    with pytest.raises(ValueError, match=f'{word} was not announced'):
        Vocabulary.of(SearchSpace(operands=('g', 'linear'), language=2, binaries=('+',), unaries=('x', 'abs'))).ids_of(
            UpdateRule.parse(rule)
        )


def test_all_known_rules_have_a_vocabulary_together():
    rules = [UpdateRule.parse(name) for name in KNOWN_RULES]
    vocabulary = Vocabulary.of(None, rules)
    assert {len(vocabulary.ids_of(rule)) for rule in rules} == {5 * vocabulary.iterations}


def test_a_vocabulary_that_was_used_goes_to_other_processes():
    vocabulary = Vocabulary.of(None, [UpdateRule.parse('lion')])
    ids = vocabulary.ids_of(UpdateRule.parse('lion'))
    there = pickle.loads(pickle.dumps(vocabulary))
    assert there == vocabulary and there.ids_of(UpdateRule.parse('lion')).tolist() == ids.tolist()
