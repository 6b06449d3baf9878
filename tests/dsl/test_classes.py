"""The classes of a space: a partition whose parts compute the same, and whose random programs stay apart."""

import itertools

import numpy as np
import pytest

from nos_tf.dsl.classes import SAME_FUNCTION, SAME_PROGRAM, draw_deeper, draw_merged, find_classes, program_of
from nos_tf.dsl.primitives import RuleConstants
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.space import SearchSpace

SPACE = SearchSpace(
    operands=('g', 'm', '1', 'rmsprop', 'sign(g)', 'sign(m)', 'g^2'),
    unaries=('x', 'drop(0.1)', 'sign'),
    binaries=('+', '-', 'left'),
)


@pytest.fixture(scope='module')
def classes():
    return find_classes(SPACE, RuleConstants())


def test_every_program_is_in_the_class_of_its_function(classes):
    """In C order: what the choices spell, and the representative, are the same by canonical form or by fingerprint."""
    ways = {SAME_PROGRAM: 0, SAME_FUNCTION: 0}
    programs = itertools.product(*(range(len(tokens)) for tokens in SPACE.choices))
    for choices, one, origin in zip(programs, classes.of, classes.origin, strict=True):
        rule, representative = SPACE.rule(choices).canonical(), classes.representatives[one]
        assert rule.fingerprint() == representative.fingerprint()
        assert (rule == representative) == (origin == SAME_PROGRAM)
        ways[int(origin)] += 1
    assert min(ways.values()) > 0


def test_classes_are_different_functions(classes):
    fingerprints = [rule.fingerprint() for rule in classes.representatives]
    assert len(set(fingerprints)) == len(fingerprints) == classes.of.max() + 1
    assert (np.diff(np.unique(classes.of, return_index=True)[1]) > 0).all(), 'in the order of the first programs'


def test_forms_are_counted_and_random_ones_are_never_merged_by_probes(classes):
    programs = itertools.product(*SPACE.choices)
    forms = {UpdateRule(tokens).canonical() for tokens in programs}
    random = {form for form in forms if form.is_stochastic}
    assert (classes.forms, classes.random_forms) == (len(forms), len(random))
    assert random < set(classes.representatives)


@pytest.mark.parametrize('space', [SearchSpace(iterations=2), SearchSpace(distinct_operands=True)])
def test_other_spaces_are_refused(space):
    with pytest.raises(ValueError, match='one iteration without constraints'):
        find_classes(space, RuleConstants())


def test_a_space_without_its_canonical_forms_is_refused():
    with pytest.raises(ValueError, match=r'lacks g\^2, g\^2, which the canonical form g\^2 g\^2 x x left needs'):
        find_classes(SearchSpace(operands=('g', 'm'), unaries=('x',), binaries=('*', 'left')), RuleConstants())


def test_merged_programs_are_drawn_from_trained_classes_each_form_once(classes):
    trained = np.arange(len(classes.representatives)) % 2 == 0
    drawn = draw_merged(classes, SPACE, trained, 10, seed=1)
    assert len(drawn) == 10 and drawn.tolist() == draw_merged(classes, SPACE, trained, 10, seed=1).tolist()
    assert drawn.tolist() != draw_merged(classes, SPACE, trained, 10, seed=2).tolist()
    forms = [program_of(SPACE, program).canonical() for program in drawn]
    assert len(set(forms)) == 10 and trained[classes.of[drawn]].all()
    for form, one in zip(forms, classes.of[drawn], strict=True):
        assert form != classes.representatives[one]
        assert form.fingerprint() == classes.representatives[one].fingerprint()
    every = draw_merged(classes, SPACE, trained, 10**6, seed=1)
    merged = {program_of(SPACE, i).canonical() for i in np.flatnonzero((classes.origin == 1) & trained[classes.of])}
    assert len(every) == len(merged)


def test_deeper_programs_need_two_iterations():
    programs = draw_deeper(SearchSpace(), 50, seed=1)
    assert len(set(programs)) == 50 and programs[:20] == draw_deeper(SearchSpace(), 20, seed=1)
    assert all(program.iterations == 2 and program.canonical() == program for program in programs)
    assert draw_deeper(SearchSpace(operands=('1',), unaries=('x',), binaries=('left',)), 3, seed=1) == []
