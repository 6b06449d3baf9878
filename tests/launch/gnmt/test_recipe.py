"""What a training is: its schedule, its identity, and what it leaves."""

import dataclasses
import doctest
import json
import math

import keras
import pytest

from gnmt import model, recipe
from gnmt.beam import Beam
from gnmt.corpora import NumberWords, TextFiles
from gnmt.model import Gnmt
from gnmt.recipe import Schedule, Scheduled, perplexity
from tests.launch.gnmt.small import RECIPE, point, trained


@pytest.mark.parametrize(
    ('schedule', 'expected'),
    [
        (Schedule(), {0: 1.0, 10**6: 1.0}),
        (Schedule(warmup_steps=4), {0: 0.25, 2: 0.75, 3: 1.0, 50: 1.0}),
        (Schedule(0, 1_200_000, 200_000, 4), {1_199_999: 1.0, 1_200_000: 0.5, 1_400_000: 0.25, 10**7: 1 / 16}),
    ],
)
def test_the_rate_warms_up_and_is_halved(schedule, expected):
    scheduled = Scheduled(0.5, schedule)
    assert {step: float(scheduled(step)) for step in expected} == {s: 0.5 * f for s, f in expected.items()}
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(scheduled))
    assert again.get_config() == scheduled.get_config()


def test_the_best_point_and_the_five_near_the_peak():
    scores = [1, 2, 9, 3, 4, 5, 6]
    run = trained(*(point(i, 10 - s, s) for i, s in enumerate(scores)))
    assert run.best == 2 and run.near_peak == (1 + 2 + 9 + 3 + 4) / 5
    late = trained(*(point(i, 10 - i, i) for i in range(7)))
    assert late.best == 6 and late.near_peak == (2 + 3 + 4 + 5 + 6) / 5
    assert trained(point(1, 3.0, 8.0)).near_peak == 8.0


def test_where_a_corpus_lies_is_no_part_of_what_it_is(tmp_path):
    identities = []
    for place in ('here', 'there'):
        (tmp_path / place).mkdir()
        for stem in ('train', 'val', 'test_2016_flickr'):
            for suffix in ('en', 'de'):
                (tmp_path / place / f'{stem}.{suffix}').write_text('a b\n' * 3)
        corpus = TextFiles(str(tmp_path / place))
        identities.append(dataclasses.replace(RECIPE, corpus=corpus).identity())
    assert identities[0] == identities[1] and identities[0]['TextFiles.source'] == 'en'


def test_the_identity_is_all_but_the_length():
    identity = RECIPE.identity()
    json.dumps(identity)
    assert identity == dataclasses.replace(RECIPE, steps=99).identity()
    assert (identity['TranslationRecipe.corpus'], identity['NumberWords.below']) == ('@NumberWords()', 1000)
    for change in ({'subwords': 61}, {'network': Gnmt(2, 17)}, {'corpus': NumberWords(300)}, {'clip_norm': 1.0}):
        assert dataclasses.replace(RECIPE, **change).identity() != identity


def test_perplexity_does_not_overflow():
    assert perplexity(math.log(3)) == pytest.approx(3) and perplexity(1e4) == math.inf


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'bounds': (10, 10)}, r'TranslationRecipe.bounds = \(10, 10\): must be growing whole numbers'),
        ({'clip_norm': float('inf')}, 'TranslationRecipe.clip_norm = inf'),
        ({'bounds': 1}, 'TranslationRecipe.bounds = 1: must be whole numbers, at least 2, at least one'),
        ({'bounds': ()}, r'TranslationRecipe.bounds = \(\): must be whole numbers, at least 2, at least one'),
        ({'bounds': (10, 20.5)}, r'TranslationRecipe.bounds = \(10, 20.5\): must be whole numbers'),
        ({'clip_norm': 0}, r'TranslationRecipe.clip_norm = 0: must be a number, above 0 and below 1e\+38'),
        ({'beam': Beam(61)}, 'Beam.width = 61: must be at most the 60 subwords'),
        ({'subwords': 1.5}, 'TranslationRecipe.subwords = 1.5'),
        (
            {'corpus': NumberWords},
            r'TranslationRecipe.corpus = .*: must be a CorpusSource: an instance, in gin @Name\(\) with brackets',
        ),
    ],
)
def test_recipes_that_cannot_be(change, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(RECIPE, **change)


@pytest.mark.parametrize(
    ('arguments', 'said'), [({'decay_every': 0}, 'decay_every'), ({'decay_from': -1}, 'decay_from')]
)
def test_schedules_that_cannot_be(arguments, said):
    with pytest.raises(ValueError, match=f'Schedule.{said}'):
        Schedule(**arguments)


@pytest.mark.parametrize('module', [model, recipe])
def test_the_examples_in_docstrings(module):
    failed, attempted = doctest.testmod(module)
    assert attempted and not failed
