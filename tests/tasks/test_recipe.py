"""A recipe knows what it cannot be, and what a curve depends on."""

import dataclasses
from typing import Annotated

import numpy as np
import pytest
import tensorflow as tf

from nos_tf.compare.curves import CurveSetup
from nos_tf.config import Incidental
from nos_tf.tasks.training import Curve, Trained
from tests.tasks.linear import RECIPE, Linear


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'epochs': 0}, 'Recipe.epochs = 0'),
        ({'batch_size': 2.5}, 'Recipe.batch_size = 2.5'),
        ({'shift': -1}, 'Recipe.shift = -1'),
        ({'flips': 'yes'}, 'Recipe.flips'),
        ({'weight_decay': float('nan')}, 'Recipe.weight_decay = nan'),
        ({'network': Linear}, 'with brackets'),
        ({'images': 'cifar10'}, 'with brackets'),
        ({'test_examples': 10_000}, 'Recipe.test_examples = 10000: digits has'),
        ({'train_examples': 201}, 'Recipe.train_examples = 201: digits has 200'),
        ({'batch_size': 201}, 'Recipe.batch_size = 201'),
        ({'shift': 8}, 'Recipe.shift = 8'),
    ],
)
def test_what_does_not_fit_is_named(change, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(RECIPE, **change).load()


def test_the_identity_knows_all_but_the_length():
    assert RECIPE.identity() == dataclasses.replace(RECIPE, epochs=9).identity()
    assert RECIPE.identity() != dataclasses.replace(RECIPE, weight_decay=0.0).identity()
    assert RECIPE.identity()['Recipe.network'] == '@Linear()'
    assert RECIPE.identity()['Digits.noise'] == 0.1
    assert RECIPE.identity()['images'] == RECIPE.images.load().fingerprint()


def test_until_an_epoch_nothing_of_later_is_known():
    values = (0.5, 0.75, 0.1)
    run = Trained(Curve(values, values, values), 9.0, True)
    assert run.until(2) == Trained(Curve(*[values[:2]] * 3), 9.0, False)
    assert run.until(3) == run.until(4) == run


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """The images of RECIPE, in files somewhere."""

    directory: Annotated[str, Incidental]

    def load(self):
        return RECIPE.images.load()


def test_where_the_images_lie_is_no_part_of_what_they_are():
    here, there = (dataclasses.replace(RECIPE, images=Elsewhere(place)).identity() for place in ('here', 'there'))
    assert here == there and here['Recipe.images'] == '@Elsewhere()'
    assert not any(name.startswith('Elsewhere') for name in here)


def test_a_recipe_is_a_task_that_any_optimizer_trains():
    task = RECIPE.task()
    plain = dataclasses.replace(RECIPE, weight_decay=0.0, flips=False, shift=0).task()
    at_work, bare = task.load(), plain.load()
    assert at_work.steps == RECIPE.epochs * (200 // RECIPE.batch_size) and plain.augment is None
    weights, state = at_work.start(0)
    assert not np.array_equal(weights, at_work.start(1)[0]) and np.array_equal(weights, bare.start(0)[0])
    assert at_work.measure(at_work.data, weights, state) == bare.measure(bare.data, weights, state)  # without penalty
    penalised = dataclasses.replace(RECIPE, flips=False, shift=0).task().load()
    batches, step = bare.batches(tf.constant(0)), tf.constant(0)
    with_it, without = (each.gradient(each.data, batches, step, weights, state) for each in (penalised, bare))
    kernel = int(np.prod(bare.variables[0][1]))
    expected = without.gradient[:kernel] + RECIPE.weight_decay * weights[:kernel]
    np.testing.assert_allclose(with_it.gradient[:kernel], expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(with_it.gradient[kernel:], without.gradient[kernel:])
    trainer = CurveSetup(task, (at_work.steps,), {}).trainer()
    assert trainer.train('keras.SGD', 0.1, 0, at_work.steps).measures[-1] > task.chance
    assert task.identity() == RECIPE.task().identity() != plain.identity()
