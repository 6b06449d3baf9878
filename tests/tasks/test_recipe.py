"""Long trainings: the same bits with and without a stop, augmentation, divergence, and what does not fit."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from nos_tf.optimizers.contender import Contender
from nos_tf.tasks.images import Digits
from nos_tf.tasks.recipe import Recipe, RecipeTrainer, _Model

ADAM, DROP = 'keras.Adam', 'drop(m, 0.3) * exp(1e-3*w)'


@dataclasses.dataclass(frozen=True)
class Linear:
    """The smallest network that learns."""

    def model(self, image_shape, classes, seed):
        start = keras.initializers.GlorotUniform(seed)
        layers = [
            keras.Input(image_shape),
            keras.layers.Flatten(),
            keras.layers.Dense(classes, kernel_initializer=start),
        ]
        return keras.Sequential(layers)


RECIPE = Recipe(Digits(0.1, 200), Linear(), epochs=4, batch_size=30, flips=True, shift=1, weight_decay=1e-3)


@pytest.mark.parametrize('contender', [ADAM, DROP])
def test_a_training_that_was_stopped_ends_with_the_same_bits(tmp_path, contender):
    whole = RecipeTrainer(RECIPE, tmp_path / 'a').train(contender, 0.01, 3, 4)
    RecipeTrainer(RECIPE, tmp_path / 'b').train(contender, 0.01, 3, 2)
    resumed = RecipeTrainer(RECIPE, tmp_path / 'b').train(contender, 0.01, 3, 4)
    assert resumed.curve == whole.curve and whole.curve.epochs == 4 and not whole.diverged
    assert whole.curve.loss[-1] < whole.curve.loss[0]


def test_a_training_learns(tmp_path):
    plain = Recipe(Digits(0.1), Linear(), batch_size=50)
    curve = RecipeTrainer(plain, tmp_path).train(ADAM, 0.01, 0, 8).curve
    assert min(curve.validation[-1], curve.test[-1]) > 0.8
    assert curve.validation != curve.test


def test_rates_and_seeds_do_not_touch_each_other(tmp_path):
    trainer = RecipeTrainer(RECIPE, tmp_path / 'a')
    trainer.train(DROP, 0.1, 0, 2)
    again = trainer.train(DROP, 0.01, 0, 2)
    assert again.curve == RecipeTrainer(RECIPE, tmp_path / 'b').train(DROP, 0.01, 0, 2).curve
    assert again.curve != trainer.train(DROP, 0.01, 1, 2).curve


def test_a_damaged_checkpoint_is_none(tmp_path):
    trainer = RecipeTrainer(RECIPE, tmp_path)
    first = trainer.train(ADAM, 0.01, 0, 1)
    trainer.checkpoint(ADAM, 0.01, 0).write_bytes(b'PK\x03\x04 cut off')
    assert trainer.train(ADAM, 0.01, 0, 1).curve == first.curve


def test_one_that_diverges_ends_at_chance(tmp_path):
    trained = RecipeTrainer(dataclasses.replace(RECIPE, weight_decay=1e30), tmp_path).train('keras.SGD', 1e30, 0, 4)
    assert trained.diverged and trained.curve.epochs < 4
    assert trained.curve.validation[-1] == trained.curve.test[-1] == 0.1


def test_an_update_is_that_of_keras_with_an_l2_penalty(tmp_path):
    model = _Model(RECIPE, Contender('keras.SGD'), 0, (8, 8, 1), 10)
    model._optimizer.learning_rate.assign(0.5)
    kernel, bias = (variable.numpy() for variable in model._model.trainable_variables)
    images, labels = tf.random.stateless_normal([5, 8, 8, 1], [1, 2]), tf.range(5)
    chances = tf.nn.softmax(tf.reshape(images, [5, 64]) @ kernel + bias).numpy()
    error = (chances - np.eye(10)[labels.numpy()]) / 5
    model._update(images, labels)
    expected = kernel - 0.5 * (np.reshape(images, [5, 64]).T @ error + 1e-3 * kernel)
    np.testing.assert_allclose(model._model.trainable_variables[0].numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(model._model.trainable_variables[1].numpy(), bias - 0.5 * error.sum(0), atol=1e-6)


def test_augmentation_mirrors_and_shifts_and_reflects():
    model = _Model(dataclasses.replace(RECIPE, shift=2), Contender('keras.SGD'), 0, (8, 8, 1), 10)
    image = np.arange(64, dtype=np.float32).reshape(8, 8, 1)
    padded = np.pad(image, [(2, 2), (2, 2), (0, 0)], mode='reflect')
    mirrored = np.pad(image[:, ::-1], [(2, 2), (2, 2), (0, 0)], mode='reflect')
    crops = {p[i : i + 8, j : j + 8].tobytes() for p in (padded, mirrored) for i in range(5) for j in range(5)}
    seen = {part.tobytes() for part in model._augmented(tf.constant([image] * 600), tf.constant([1, 2])).numpy()}
    assert seen == crops and len(crops) == 50


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
def test_what_does_not_fit_is_named(tmp_path, change, said):
    with pytest.raises(ValueError, match=said):
        RecipeTrainer(dataclasses.replace(RECIPE, **change), tmp_path)


def test_the_identity_knows_all_but_the_length():
    assert RECIPE.identity() == dataclasses.replace(RECIPE, epochs=9).identity()
    assert RECIPE.identity() != dataclasses.replace(RECIPE, weight_decay=0.0).identity()
    assert RECIPE.identity()['Recipe.network'] == {'kind': 'Linear'}
