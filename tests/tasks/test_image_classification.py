"""The paper's task alone: its gradient and measure against Keras and NumPy, its bits, and what it refuses."""

import dataclasses
import json
import pickle
from typing import Annotated

import numpy as np
import pytest
import tensorflow as tf

from nos_tf.config import Incidental, bindings_of
from nos_tf.tasks.convnet import ConvNet, ImageClassification
from nos_tf.tasks.data import Digits, Images, Split, TfdsImages
from nos_tf.tasks.task import Task
from tests.tasks.keras_twin import flat, keras_model, set_statistics, set_weights
from tests.tasks.small import TASK

VALIDATION, SHAPE, CLASSES = 500, (8, 8, 1), 10


@pytest.fixture(scope='module')
def loaded():
    return TASK.load()


def same(one, other):
    """Whether two structures of tensors are the same, bit for bit."""
    one, other = map(tf.nest.flatten, (one, other))
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# What cannot be


@pytest.mark.parametrize(
    'arguments',
    [
        {'images': Digits},
        {'images': 'cifar10'},
        {'network': ConvNet},
        {'network': Digits()},
        {'epochs': 0},
        {'epochs': 2.5},
        {'batch_size': 0},
        {'batch_size': None},
        {'train_examples': 0},
        {'train_examples': 10.5},
    ],
    ids=str,
)
def test_a_task_out_of_range_names_its_binding(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=rf'^ImageClassification.{name} = .*must'):
        ImageClassification(**arguments)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'train_examples': 401}, 'ImageClassification.train_examples = 401: digits has 400'),
        ({'batch_size': 60}, 'ImageClassification.batch_size = 60: must divide 200 examples'),
        ({'batch_size': 201}, 'ImageClassification.batch_size = 201: must divide 200 examples'),
        (
            {'train_examples': None, 'batch_size': 800},
            'ImageClassification.batch_size = 800: must divide 400 examples',
        ),
    ],
    ids=str,
)
def test_data_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f'^{message}$'):
        dataclasses.replace(TASK, **arguments).load()


def test_missing_data_are_refused(tmp_path):
    task = ImageClassification(images=TfdsImages('cifar10', data_dir=str(tmp_path / 'none'), download=False))
    for ask in (task.load, task.identity, lambda: task.chance):
        with pytest.raises(FileNotFoundError, match='cifar10'):
            ask()


# The task as a value


def test_the_defaults_are_those_of_section_4_2():
    task = ImageClassification()
    assert (task.epochs, task.train_examples, task.batch_size) == (5, None, 100)
    assert task.network.filters == 32
    assert TfdsImages().validation_examples == 5000


def test_a_task_is_a_value():
    assert isinstance(TASK, Task)
    assert pickle.loads(pickle.dumps(TASK)) == TASK
    assert hash(TASK) == hash(dataclasses.replace(TASK))


def test_chance_is_one_class_of_all():
    assert TASK.chance == 0.1


def test_it_is_described_in_words():
    assert str(TASK) == (
        'a ConvNet with 4 filters on 200 training images (source = Digits, noise = 0.25, train_examples = 400, '
        'seed = 0); measured is the accuracy on validation images'
    )
    of_all = str(ImageClassification(images=TfdsImages(side=16, data_dir='/somewhere')))
    assert of_all.startswith('a ConvNet with 32 filters on all training images (source = TfdsImages, dataset = cifar10')
    assert 'side = 16' in of_all and 'somewhere' not in of_all
    assert str(ImageClassification(train_examples=10_000)).startswith('a ConvNet with 32 filters on 10,000 training')


def test_at_work_it_says_what_needs_the_memory(loaded):
    assert str(loaded).startswith('a batch of 50 images of 8x8x1 on ConvNet(filters=4, ')


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """The images of TASK, from a source that has settings of place."""

    data_dir: Annotated[str, Incidental]
    download: Annotated[bool, Incidental] = True

    def load(self):
        return TASK.images.load()


def test_identity_is_json_and_holds_all_that_a_measure_depends_on_but_the_machine():
    identity = TASK.identity()
    assert json.loads(json.dumps(identity)) == identity
    assert identity == {**bindings_of(TASK), 'images': TASK.images.load().fingerprint()}
    assert identity['ImageClassification.images'] == '@Digits()'
    assert (identity['Digits.train_examples'], identity['Digits.noise']) == (400, 0.25)
    assert identity['ImageClassification.network'] == '@ConvNet()'
    assert identity['ConvNet.filters'] == 4
    assert identity['ImageClassification.batch_size'] == 50


@pytest.mark.parametrize(
    'change',
    [
        {'images': Digits(noise=0.3, train_examples=400)},
        {'images': Digits(seed=1, train_examples=400)},
        {'network': ConvNet(filters=5)},
        {'network': ConvNet(filters=4, statistics_momentum=0.99)},
        {'epochs': 2},
        {'train_examples': 100},
        {'batch_size': 100},
    ],
    ids=str,
)
def test_identity_sees_every_change_of_the_task(change):
    assert dataclasses.replace(TASK, **change).identity() != TASK.identity()


def test_identity_overlooks_where_the_images_lie():
    places = [dataclasses.replace(TASK, images=Elsewhere(*place)) for place in (('a', True), ('b', False))]
    assert places[0].identity() == places[1].identity()


def test_identity_sees_other_pixels_behind_the_same_settings(monkeypatch):
    before = TASK.identity()
    images = TASK.images.load()
    labels = images.validation.labels.copy()
    labels[0] = (labels[0] + 1) % 10
    other = dataclasses.replace(images, validation=Split(images.validation.images, labels))
    assert isinstance(other, Images)
    monkeypatch.setattr(Digits, 'load', lambda self: other)
    assert {key for key, value in TASK.identity().items() if value != before[key]} == {'images'}


# The task at work


def test_none_trains_on_every_example(loaded):
    assert dataclasses.replace(TASK, train_examples=None).load().steps_per_epoch == 8
    assert loaded.steps_per_epoch == 4


def test_data_are_the_first_training_images_and_all_of_validation(loaded):
    images = TASK.images.load()
    train, validation = loaded.data
    assert same(train, (images.train.images[:200], images.train.labels[:200]))
    assert same(validation, (images.validation.images, images.validation.labels))


def test_it_starts_from_the_weights_of_the_network_and_a_function_of_the_seed(loaded):
    weights, statistics = loaded.start(3)
    assert same(weights, TASK.network.initial_weights(SHAPE, CLASSES, 3))
    assert same(statistics, TASK.network.initial_statistics())
    assert same(weights, loaded.start(3)[0]) and not same(weights, loaded.start(4)[0])


def test_batches_hold_every_example_once_an_epoch_and_shuffle_each_anew(loaded):
    batches = loaded.batches(tf.constant(0)).numpy()
    assert batches.shape == (12, 50)
    order = batches.reshape(3, 200)
    assert all(sorted(epoch) == list(range(200)) for epoch in order)
    assert not np.array_equal(order[0], order[1])
    assert not np.array_equal(order[0], np.arange(200))
    assert not same(batches, loaded.batches(tf.constant(1)))


def test_the_batches_of_fewer_epochs_are_the_first_ones(loaded):
    shorter = dataclasses.replace(TASK, epochs=2).load()
    assert (shorter.steps, loaded.steps) == (8, 12)
    assert same(shorter.batches(tf.constant(5)), loaded.batches(tf.constant(5))[:8])


def test_the_gradient_is_that_of_keras_on_the_images_of_the_step(loaded):
    batches = loaded.batches(tf.constant(7))
    weights, statistics = loaded.start(7)
    model = keras_model(TASK.network, SHAPE, CLASSES)
    images = TASK.images.load().train
    for step in (0, 3):
        set_weights(model, weights.numpy())
        set_statistics(model, statistics)
        pixels, labels = images.images[batches[step]], images.labels[batches[step]]
        with tf.GradientTape() as tape:
            answers = model(pixels, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, answers))
        expected = flat(tape.gradient(loss, [variable.value for variable in model.trainable_variables]))
        ours = loaded.gradient(loaded.data, batches, tf.constant(step), weights, statistics)
        np.testing.assert_allclose(ours.loss, loss, rtol=1e-5)
        np.testing.assert_allclose(ours.gradient, expected, rtol=1e-3, atol=1e-5)
        whole = TASK.network.gradient(weights, statistics, pixels, labels, CLASSES)
        assert same(ours, whole) and not same(ours.state, statistics)


@pytest.mark.parametrize(('batch_size', 'train_examples'), [(50, 200), (64, 128), (400, None)])
def test_the_measure_counts_a_last_batch_that_is_not_full(batch_size, train_examples):
    """500 are not 7 * 64: the share must be of 500, and of each of them once."""
    loaded = dataclasses.replace(TASK, batch_size=batch_size, train_examples=train_examples).load()
    weights, statistics = loaded.start(3)
    validation = TASK.images.load().validation
    logits = TASK.network.logits(weights, statistics, validation.images, CLASSES)
    right = np.sum(np.argmax(logits, axis=1) == validation.labels)
    assert 0 < right < VALIDATION
    assert float(loaded.measure(loaded.data, weights, statistics)) == np.float32(right / VALIDATION)


def test_weights_that_are_not_numbers_earn_the_share_of_the_first_class(loaded):
    weights, statistics = loaded.start(0)
    share = np.float32(np.mean(TASK.images.load().validation.labels == 0))
    assert 0 < share < 0.2
    assert float(loaded.measure(loaded.data, np.nan * weights, statistics)) == share


def test_its_functions_of_tensors_hold_no_data(loaded):
    """A graph that is given other data trains on those."""
    other = dataclasses.replace(TASK, images=Digits(0.5, 400)).load()
    weights, statistics = loaded.start(0)
    batches = loaded.batches(tf.constant(0))
    at = tf.constant(0), weights, statistics
    assert same(loaded.gradient(other.data, batches, *at), other.gradient(other.data, batches, *at))
    assert not same(loaded.gradient(loaded.data, batches, *at), other.gradient(other.data, batches, *at))
    assert same(loaded.measure(other.data, *at[1:]), other.measure(other.data, *at[1:]))
