"""Long trainings: the same bits with and without a stop, augmentation, divergence, and what does not fit."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from nos_tf.optimizers.contender import Contender
from nos_tf.tasks.data import Digits
from nos_tf.tasks.training import RecipeTrainer, _Model
from tests.tasks.linear import OF_EVERY_OPTIMIZER, RECIPE

ADAM, DROP = 'keras.Adam', 'drop(m, 0.3) * exp(1e-3*w)'
AVERAGED = 'keras.Adam with use_ema=1, ema_momentum=0.9'
ALL = (
    'keras.Nadam with use_ema=1, ema_overwrite_frequency=4, gradient_accumulation_steps=3, clipnorm=1, weight_decay=0.1'
)


@pytest.mark.parametrize('contender', [ADAM, DROP, AVERAGED, ALL, 'keras.Muon', 'keras.Adafactor'])
def test_a_training_that_was_stopped_ends_with_the_same_bits(tmp_path, contender):
    whole = RecipeTrainer(RECIPE, tmp_path / 'a').train(contender, 0.01, 3, 4)
    RecipeTrainer(RECIPE, tmp_path / 'b').train(contender, 0.01, 3, 2)
    resumed = RecipeTrainer(RECIPE, tmp_path / 'b').train(contender, 0.01, 3, 4)
    assert resumed.curve == whole.curve and whole.curve.epochs == 4 and not whole.diverged
    assert whole.curve.loss[-1] < whole.curve.loss[0]


def test_a_training_learns(tmp_path):
    plain = dataclasses.replace(RECIPE, images=Digits(0.1), batch_size=50, flips=False, shift=0, weight_decay=0.0)
    curve = RecipeTrainer(plain, tmp_path).train(ADAM, 0.01, 0, 8).curve
    assert min(curve.validation[-1], curve.test[-1]) > 0.8
    assert curve.validation != curve.test


def test_rates_and_seeds_do_not_touch_each_other(tmp_path):
    trainer = RecipeTrainer(RECIPE, tmp_path / 'a')
    trainer.train(DROP, 0.1, 0, 2)
    again = trainer.train(DROP, 0.01, 0, 2)
    assert again.curve == RecipeTrainer(RECIPE, tmp_path / 'b').train(DROP, 0.01, 0, 2).curve
    assert again.curve != trainer.train(DROP, 0.01, 1, 2).curve


def test_a_damaged_checkpoint_is_said_and_is_none(tmp_path, capsys):
    trainer = RecipeTrainer(RECIPE, tmp_path)
    first, path = trainer.train(ADAM, 0.01, 0, 1), trainer.checkpoint(ADAM, 0.01, 0)
    path.write_bytes(b'PK\x03\x04 cut off')
    assert trainer.train(ADAM, 0.01, 0, 1).curve == first.curve
    assert f'{path} is damaged (' in capsys.readouterr().err


def test_a_checkpoint_that_cannot_be_read_now_is_not_given_up(tmp_path):
    trainer = RecipeTrainer(RECIPE, tmp_path)
    path = trainer.checkpoint(ADAM, 0.01, 0)
    path.symlink_to('/proc/self/mem')  # a read of its beginning fails as one of a bad disk does
    with pytest.raises(OSError, match='Input/output error'):
        trainer.train(ADAM, 0.01, 0, 1)
    assert path.is_symlink()


def test_a_checkpoint_that_lacks_a_part_is_none(tmp_path):
    trainer = RecipeTrainer(RECIPE, tmp_path)
    first, path = trainer.train(ADAM, 0.01, 0, 2), trainer.checkpoint(ADAM, 0.01, 0)
    with np.load(path) as file:
        parts = {key: file[key] for key in file.files if key != 'diverged'}
    np.savez(path, **parts)
    assert trainer.train(ADAM, 0.01, 0, 2).curve == first.curve


def test_a_checkpoint_of_another_recipe_is_none(tmp_path):
    first = RecipeTrainer(RECIPE, tmp_path).train(ADAM, 0.01, 0, 1)
    other = dataclasses.replace(RECIPE, weight_decay=5.0)
    again = RecipeTrainer(other, tmp_path).train(ADAM, 0.01, 0, 1)
    alone = RecipeTrainer(other, tmp_path / 'b').train(ADAM, 0.01, 0, 1)
    assert again.curve == alone.curve != first.curve


def test_one_that_diverges_ends_at_chance(tmp_path):
    trained = RecipeTrainer(dataclasses.replace(RECIPE, weight_decay=1e30), tmp_path).train('keras.SGD', 1e30, 0, 4)
    assert trained.diverged and trained.curve.epochs < 4
    assert trained.curve.validation[-1] == trained.curve.test[-1] == 0.1


def model_of(recipe, optimizer):
    """A small network, not yet trained."""
    return _Model(recipe, recipe.network.model((8, 8, 1), 10, 0), Contender(optimizer).optimizer(1.0, 0), 0)


def test_an_update_is_that_of_keras_with_an_l2_penalty(tmp_path):
    model = model_of(RECIPE, 'keras.SGD')
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
    augmentation = dataclasses.replace(RECIPE, shift=2).augmentation
    image = np.arange(64, dtype=np.float32).reshape(8, 8, 1)
    padded = np.pad(image, [(2, 2), (2, 2), (0, 0)], mode='reflect')
    mirrored = np.pad(image[:, ::-1], [(2, 2), (2, 2), (0, 0)], mode='reflect')
    crops = {p[i : i + 8, j : j + 8].tobytes() for p in (padded, mirrored) for i in range(5) for j in range(5)}
    seen = {part.tobytes() for part in augmentation(tf.constant([image] * 600), tf.constant([1, 2])).numpy()}
    assert seen == crops and len(crops) == 50


def test_averages_are_judged_and_the_weights_themselves_go_on(tmp_path):
    plain, averaged = (RecipeTrainer(RECIPE, tmp_path).train(text, 0.01, 0, 3).curve for text in (ADAM, AVERAGED))
    assert averaged.loss == plain.loss and averaged.validation != plain.validation and averaged.test != plain.test


def test_what_is_judged_is_what_fit_would_end_with():
    model = model_of(RECIPE, 'keras.SGD with use_ema=1, ema_momentum=0.5')
    model._optimizer.learning_rate.assign(1.0)
    images, labels = tf.random.stateless_normal([300, 8, 8, 1], [1, 2]), tf.range(300) % 10
    seen = []
    for start in (0, 100, 200):
        model._update(images[start : start + 100], labels[start : start + 100])
        seen.append([variable.numpy() for variable in model._model.trainable_variables])
    kernel, bias = (0.5 * (0.5 * (first + second)) + 0.5 * third for first, second, third in zip(*seen, strict=True))
    hits = np.argmax(np.reshape(images, [300, 64]) @ kernel + bias, -1) == labels.numpy()
    (accuracy,) = model.accuracies([(images, labels)])
    raw = np.argmax(np.reshape(images, [300, 64]) @ seen[-1][0] + seen[-1][1], -1) == labels.numpy()
    assert accuracy == pytest.approx(hits.mean()) and hits.mean() != raw.mean()
    for variable, before in zip(model._model.trainable_variables, seen[-1], strict=True):
        np.testing.assert_array_equal(variable.numpy(), before)


def test_what_keras_does_for_every_optimizer_changes_a_training(tmp_path):
    trainer = RecipeTrainer(RECIPE, tmp_path)
    curves = {
        text: trainer.train(text, 0.1, 0, 2).curve
        for text in ('keras.SGD', *(f'keras.SGD with {constants}' for constants in OF_EVERY_OPTIMIZER))
    }
    assert len(set(curves.values())) == len(curves)
