"""The built-in tasks: they train, their parts share no example, and noise and size make them other tasks."""

import csv
import dataclasses
import inspect
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import cloudpickle
import gin
import numpy as np
import pytest
import tensorflow as tf

from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.tasks.builtin import (
    FIGURES,
    TASKS,
    digits_autoencoder,
    frozen_gain,
    ruled_tasks,
    suite,
    suite_tasks,
    text,
    validation,
    validation_tasks,
)
from nos_tf.tasks.builtin.common import fixed_random, mislabelled
from nos_tf.tasks.builtin.digits import _digits
from nos_tf.tasks.builtin.lists import RULERS
from nos_tf.tasks.builtin.number_words import PAD, START, _codes, _spell, _spelled
from nos_tf.tasks.builtin.tables import _table
from nos_tf.tasks.child import Child, ChildSetup
from nos_tf.tasks.keras_task import KerasTask

ROOT = Path(__file__).resolve().parents[2]
NAMES = [
    *('digits_mlp', 'digits_convnet', 'digits_autoencoder', 'deep_tanh', 'number_words'),
    *('diabetes', 'wine', 'ill_conditioned', 'text_gru', 'text_transformer', 'text_words', 'text_characters'),
]
NOISED = {  # share of the training targets that noise changes
    **dict.fromkeys(('digits_mlp', 'digits_convnet', 'deep_tanh'), 0.2 * 9 / 10),
    **dict.fromkeys(('diabetes', 'ill_conditioned'), 1.0),
    'wine': 0.2 * 2 / 3,
    'number_words': 0.1 * 30 / 31,
}


def slow(*names: str) -> list:
    """All tasks, of which those with these names take long."""
    return [pytest.param(name, marks=(pytest.mark.slow, pytest.mark.drill) if name in names else ()) for name in NAMES]


def parts(task: KerasTask) -> tuple[tuple, tuple]:
    """The training and the validation examples, each as one tuple of arrays."""
    train, validation = (tuple(map(np.asarray, tf.nest.flatten(part))) for part in (task.train, task.validation))
    return train, validation


def short(name: str, **chosen) -> KerasTask:
    """The task cut short, whatever its size and noise: 8 steps of 16 examples, and 16 to measure on."""
    task = TASKS[name](**chosen)
    validation = tf.nest.map_structure(lambda part: part[:16], task.validation)
    return dataclasses.replace(task, validation=validation, batch_size=16, steps=8)


loaded = cache(short)
"""The same one for several tests; what it loads stays with it."""


def identity_of(task: KerasTask) -> str:
    return str(task.identity())


def train(task: KerasTask, rate: float) -> float:
    """The validation loss after all steps of Adam, without a graph, which would take longer to trace."""
    at_work = task.load()
    batches = at_work.batches(tf.constant(0))
    weights, state = at_work.start(0)
    m = v = tf.zeros_like(weights)
    for step in range(task.steps):
        _, gradient, state = at_work.gradient(at_work.data, batches, tf.constant(step), weights, state)
        m, v = 0.9 * m + 0.1 * gradient, 0.99 * v + 0.01 * gradient**2
        scale = tf.sqrt(v / (1 - 0.99 ** (step + 1))) + 1e-8
        weights -= rate * m / (1 - 0.9 ** (step + 1)) / scale
    return -float(at_work.measure(at_work.data, weights, state))


def test_the_tasks_are_these():
    assert list(TASKS) == NAMES


@pytest.mark.parametrize('name', NAMES)
def test_a_few_steps_lower_the_loss(name):
    task = loaded(name)
    assert train(task, rate=2e-2) < 0.95 * -task.chance


@pytest.mark.parametrize('name', slow(*NAMES[1:]))
def test_a_child_learns_the_task_and_one_graph_trains_all_rules(name):
    task = dataclasses.replace(TASKS[name](), steps=90)
    trainer = ChildSetup(Child(learning_rates=(3e-3, 1e-2)), task, Vocabulary(1)).trainer()
    rewards = [trainer.train(UpdateRule.parse(rule)).reward for rule in ('adam', 'rmsprop')]
    assert trainer.traces == 1 and rewards[0] != rewards[1]
    assert min(rewards) > 0.9 * task.chance  # both are minus a loss


@pytest.mark.parametrize('name', NAMES)
def test_a_sweep_can_be_a_whole_training(name):
    assert all(TASKS[name](large=large).steps % 6 == 0 for large in (False, True))


@pytest.mark.parametrize('name', NAMES)
def test_noise_makes_another_task(name):
    assert TASKS[name]().batch_size > TASKS[name](noisy=True).batch_size
    plain, noisy = loaded(name), loaded(name, noisy=True)
    assert identity_of(plain) == identity_of(short(name)) != identity_of(noisy)


@pytest.mark.parametrize('name', slow('text_gru', 'text_transformer', 'number_words'))
def test_size_makes_another_task(name):
    assert TASKS[name](large=True).steps == 5 * TASKS[name]().steps
    assert identity_of(short(name, large=True)) != identity_of(loaded(name))


def test_another_process_makes_the_same_tasks():
    names = ['digits_mlp', 'number_words']
    code = (
        'from tests.tasks.test_builtin import *; print(*(identity_of(short(name)) for name in sys.argv[1:]), sep="\\n")'
    )
    command = [sys.executable, '-c', code, *names]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.splitlines() == [identity_of(loaded(name)) for name in names]


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('large', [False, True])
def test_what_builds_the_model_travels_as_a_name(name, large):
    task = TASKS[name](large=large)
    assert len(cloudpickle.dumps(task.build)) < 500
    assert pickle.loads(cloudpickle.dumps(task.build)).func is task.build.func


def test_pairs_of_words_recur_but_paragraphs_do_not():
    train, validation = text._paragraphs()
    assert len(validation) > 100 and not set(train) & set(validation)
    (x, y), _ = parts(TASKS['text_words']())
    assert x.shape == (len(y), 2) and (x[1:, 0] == x[:-1, 1]).all() and (x[1:, 1] == y[:-1]).all()
    assert 0.2 < np.mean(y == 0) < 0.5  # rare words


@pytest.mark.parametrize('name', [name for name in NAMES if name != 'text_words'])
@pytest.mark.parametrize('large', [False, True])
def test_training_and_validation_share_no_example(name, large):
    train, validation = parts(TASKS[name](large=large))
    inputs = [{bytes(np.ascontiguousarray(row)) for row in part[0]} for part in (train, validation)]
    assert len(inputs[1]) > 0.9 * len(validation[0]) > 50
    assert not inputs[0] & inputs[1]


def test_the_language_models_read_windows_of_paragraphs_that_are_in_one_part():
    train, validation = (''.join(map('?'.__add__(text.ALPHABET).__getitem__, part)) for part in text._text())
    assert 'the' in train and len(train) > 8 * len(validation) > 80_000
    starts = range(0, len(validation) - 100, 100)
    assert np.mean([validation[start : start + 100] in train for start in starts]) < 0.02
    x, y = TASKS['text_gru']().train
    np.testing.assert_array_equal(x[:, 1:], y[:, :-1])


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('large', [False, True])
def test_noise_changes_the_training_targets_and_leaves_validation_alone(name, large):
    (clean, held_out), (noisy, same) = (parts(TASKS[name](large=large, noisy=noise)) for noise in (False, True))
    for here, there in zip(held_out, same, strict=True):
        np.testing.assert_array_equal(here, there)
    for here, there in zip(clean[:-1], noisy[:-1], strict=True):
        np.testing.assert_array_equal(here, there)
    real = np.ones_like(clean[-1], bool) if name != 'number_words' else clean[-1] != PAD
    share = np.mean(clean[-1][real] != noisy[-1][real])
    assert share == pytest.approx(NOISED.get(name, 0.0), abs=0.06)
    np.testing.assert_array_equal(clean[-1][~real], noisy[-1][~real])


@pytest.mark.parametrize('name', ['digits_autoencoder', 'text_gru', 'text_transformer'])
def test_where_labels_are_sound_dropout_makes_the_noise(name):
    for noisy in (False, True):
        at_work = loaded(name, **{'noisy': True} if noisy else {}).load()
        weights, state = at_work.start(0)
        order = at_work.batches(tf.constant(0))
        first, _, state = at_work.gradient(at_work.data, order, tf.constant(0), weights, state)
        again, _, _ = at_work.gradient(at_work.data, order, tf.constant(0), weights, state)
        assert (float(first) != float(again)) is noisy


def test_the_bowl_is_as_narrow_as_it_says():
    for large, decades in ((False, 4), (True, 5)):
        (x, y), (held_out, clean) = (
            part
            for part in (TASKS['ill_conditioned'](large=large).train, TASKS['ill_conditioned'](large=large).validation)
        )
        variances = np.linalg.eigvalsh(x.T.astype(np.float64) @ x / len(x))
        assert np.log10(variances[-1] / variances[0]) == pytest.approx(decades, abs=0.3)
        weights = np.linalg.lstsq(x, y, rcond=None)[0]
        assert np.mean((held_out @ weights - clean) ** 2) < 0.01 * np.mean(clean**2)
        assert np.abs(np.corrcoef(x.T) - np.eye(x.shape[1])).max() > 0.5  # no weight has a valley of its own


@pytest.mark.parametrize(
    'number, words',
    [
        (0, 'zero'),
        (13, 'thirteen'),
        (20, 'twenty'),
        (99, 'ninety nine'),
        (300, 'three hundred'),
        (7042, 'seven thousand forty two'),
        (111_000, 'one hundred eleven thousand'),
        (999_999, 'nine hundred ninety nine thousand nine hundred ninety nine'),
    ],
)
def test_numbers_are_spelled(number, words):
    assert _spell(number) == words.split()


def test_words_are_predicted_from_those_before():
    numbers = np.array([7042, 999_999, 5])
    x, y = _spelled(numbers, 6)
    names = {code: word for word, code in _codes().items()}
    assert x['digits'].tolist()[0] == [0, 0, 7, 0, 4, 2]
    for number, shown, wanted in zip(numbers, x['words'], y, strict=True):
        assert [names[c] for c in wanted if c != PAD] == [*_spell(int(number)), '<end>']
        assert shown[0] == START and (shown[1:] == wanted[:-1])[wanted[1:] != PAD].all()


@pytest.mark.parametrize('name', NAMES)
def test_the_docstring_says_what_the_task_is_and_what_for(name):
    function: Callable = TASKS[name]
    first, _, text = inspect.getdoc(function).partition('\n')
    assert re.fullmatch(r'An? [^.;]+\.', first) and len(first) < 110
    use, _, arguments = text.strip().partition('\n\nArgs:\n')
    assert 'radients' in use and use.endswith('.')
    assert re.findall(r'^ {4}(\w+): \S', arguments, re.MULTILINE) == list(inspect.signature(function).parameters)


def test_the_table_is_of_these_tasks_and_no_optimizer_fails_them():
    with FIGURES.open(encoding='utf-8', newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row['task'] for row in rows] == NAMES
    for row in rows:
        x, _ = (task := TASKS[row['task']]()).train
        assert int(row['steps']) == task.steps
        if not row['task'].startswith('text'):  # whose text is that of the Python which runs
            assert int(row['examples']) == len(tf.nest.flatten(x)[0])
        losses = [float(row[name]) for name in ('sgd', 'momentum', 'adam', 'adamw', 'rmsprop', 'lion')]
        assert 0 < min(losses) < 0.97 * max(losses) < max(losses) < 0.7 * float(row['untrained'])


def test_the_columns_of_a_table_keep_the_units_that_they_are_in():
    x = np.random.default_rng(0).standard_normal((50, 2)) * (1.0, 1000.0)
    (train, y), (held_out, other) = _table((x, np.arange(50)), 20, fixed_random())
    assert sorted([*y, *other]) == list(range(50)) and len(held_out) == 20
    assert train.std() == pytest.approx(1.0, rel=1e-5)
    np.testing.assert_allclose(train[:, 1] / train[:, 0], x[y, 1] / x[y, 0], rtol=1e-5)


def test_labels_are_redrawn_at_random_and_images_are_clean():
    y = np.arange(10_000) % 10
    found = mislabelled(y, 0.2, range(10), fixed_random())
    assert np.mean(found != y) == pytest.approx(0.18, abs=0.02) and set(found) == set(range(10))
    (x, labels), (held_out, _) = _digits()
    assert (len(x), len(labels), len(held_out)) == (1200, 1200, 500)
    assert set(np.unique(x * 16)) <= {i - 8 for i in range(17)}


def test_gin_makes_a_task_by_its_name():
    @gin.configurable('_a_search', module='tests')
    def search(task):
        return task

    try:
        gin.parse_config('_a_search.task = @wine()\nwine.noisy = True')
        task = search()
    finally:
        gin.clear_config()
    assert isinstance(task, KerasTask) and task.batch_size == 4
    assert TASKS['wine']().batch_size == 16  # what gin binds is for gin


@pytest.mark.parametrize(('of', 'tasks'), [(suite, suite_tasks), (validation, validation_tasks)])
def test_a_list_is_of_gains_whose_rulers_are_frozen(of, tasks):
    made, names = of(), list(tasks())
    with RULERS.open(encoding='utf-8', newline='') as file:
        rulers = {row['task']: row for row in csv.DictReader(file)}
    assert made.hopeless == (-2.0 if of is suite else -4.0) and len(made.tasks) == len(names)
    for name, gain in zip(names, made.tasks, strict=True):
        assert not gain.is_open and 0 < gain.reference < gain.untrained
        assert (gain.optimizer, gain.reference) == (rulers[name]['optimizer'], float(rulers[name]['reference']))


def test_a_suite_may_be_of_some_of_its_tasks():
    whole, some = suite(), suite(tasks=('digits_autoencoder', 'digits_mlp'))
    assert [gain.reference for gain in some.tasks] == [whole.tasks[1].reference, whole.tasks[0].reference]
    with pytest.raises(ValueError, match="^suite.tasks has 'wine': choose from digits_mlp, digits_autoencoder"):
        suite(tasks=('wine',))


def test_a_frozen_gain_is_of_a_task_that_has_a_ruler():
    gain = frozen_gain('digits_autoencoder, linear decay')
    decayed = dataclasses.replace(digits_autoencoder(), schedule='linear')
    assert identity_of(gain.task) == identity_of(decayed) and 0 < gain.reference < 0.03
    assert frozen_gain('digits_mlp').reference == suite().tasks[0].reference
    assert all(frozen_gain(name).optimizer for name in ruled_tasks())
    with pytest.raises(ValueError, match="^frozen_gain.task = 'wine': choose from digits_mlp; digits_autoencoder; "):
        frozen_gain('wine')


def test_no_task_is_on_two_lists():
    names, tasks = zip(*suite_tasks().items(), *validation_tasks().items(), strict=True)
    assert len(set(names)) == len(names) == len(set(map(identity_of, tasks)))
    of = [{name.split()[0] for name in tasks()} for tasks in (suite_tasks, validation_tasks)]
    assert not of[0] & of[1] and not {'diabetes', 'wine'} & (of[0] | of[1])
