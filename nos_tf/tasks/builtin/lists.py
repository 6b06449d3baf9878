"""The lists of built-in tasks: the suite rewards rules, validation chooses between rewards, learners and rules.

No task is in two of them, and those of the verdict are elsewhere (docs/tasks.md): what is chosen on a task says nothing
about that task.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import gin

from nos_tf.tasks.builtin.digits import deep_tanh, digits_autoencoder, digits_convnet, digits_mlp
from nos_tf.tasks.builtin.number_words import number_words
from nos_tf.tasks.builtin.tables import ill_conditioned
from nos_tf.tasks.builtin.text import text_characters, text_gru, text_transformer, text_words
from nos_tf.tasks.keras_task import KerasTask
from nos_tf.tasks.suite import Gain, Suite

RULERS = Path(__file__).with_name('rulers.csv')
"""What tuned Adam reaches on each task, and how much known rules differ there (benchmarks/rulers.py)."""

DECAYED = ', linear decay'  # ends the name of a task of which that is said


@gin.register
def suite(hopeless: float = -2.0, tasks: Sequence[str] | None = None) -> Suite:
    """Returns four tasks as one reward, the cheap ones first: gains over tuned Adam, whose rulers are frozen.

    A classifier at two sizes, an autoencoder whose gradients carry little noise, and a language model whose gradients
    carry much. Rates are to be looked at finely: the rulers were found with `Child(refine=True)`.

    Args:
        hopeless: as of `Suite`.
        tasks: names of some of them, as of `suite_tasks`; None for all.

    Raises:
        ValueError: no such task.
    """
    every = suite_tasks()
    if unknown := [name for name in tasks or () if name not in every]:
        raise ValueError(f'suite.tasks has {unknown[0]!r}: choose from {", ".join(every)}')
    return Suite(_gains({name: every[name] for name in (every if tasks is None else tasks)}), hopeless)


@gin.register
def validation(hopeless: float = -4.0) -> Suite:
    """Returns the mean gain over six tasks of other kinds, by which rewards, learners and rules are chosen.

    Args:
        hopeless: as of `Suite`; gains end at -3, so by default all tasks are trained.
    """
    return Suite(_gains(validation_tasks()), hopeless)


@gin.register
def frozen_gain(task: str) -> Gain:
    """Returns the gain on one of `ruled_tasks`, over tuned Adam as it was found once for all.

    Args:
        task: its name.

    Raises:
        ValueError: no such task.
    """
    tasks = ruled_tasks()
    if task not in tasks:
        raise ValueError(f'frozen_gain.task = {task!r}: choose from {"; ".join(tasks)}')
    return _gains({task: tasks[task]})[0]


@gin.register
def decayed(task: KerasTask, schedule: str = 'linear') -> KerasTask:
    """Returns a task with another schedule of the learning rate, for everyone who trains on it.

    Args:
        task: without a schedule.
        schedule: 'linear' or 'cosine', to zero.
    """
    return replace(task, schedule=schedule)


def ruled_tasks() -> dict[str, KerasTask]:
    """Returns the tasks that have a row in rulers.csv, by name."""
    more = {
        'digits_autoencoder': digits_autoencoder(),
        'text_gru noisy': text_gru(noisy=True),
        'text_characters noisy': text_characters(noisy=True),
    }
    return suite_tasks() | validation_tasks() | {f'{name}{DECAYED}': decayed(task) for name, task in more.items()}


def suite_tasks() -> dict[str, KerasTask]:
    """Returns the tasks of `suite` by name."""
    return {
        'digits_mlp': digits_mlp(),
        'digits_autoencoder': digits_autoencoder(),
        'digits_mlp large': digits_mlp(large=True),
        'text_gru noisy': text_gru(noisy=True),
    }


def validation_tasks() -> dict[str, KerasTask]:
    """Returns the tasks of `validation` by name."""
    return {
        'deep_tanh': deep_tanh(),
        'ill_conditioned': ill_conditioned(),
        'text_words noisy': text_words(noisy=True),
        'digits_convnet noisy': digits_convnet(noisy=True),
        'number_words': number_words(),
        f'text_transformer noisy{DECAYED}': decayed(text_transformer(noisy=True)),
    }


def _gains(tasks: Mapping[str, KerasTask]) -> list[Gain]:
    """Returns the gains on tasks by their rows of rulers.csv."""
    with RULERS.open(encoding='utf-8', newline='') as file:
        rulers = {row['task']: row for row in csv.DictReader(file)}
    return [_gain(task, rulers[name]) for name, task in tasks.items()]


def _gain(task: KerasTask, ruler: Mapping[str, str]) -> Gain:
    reference, spread, rate = (float(ruler[name]) for name in ('reference', 'spread', 'learning_rate'))
    return Gain(task, reference, spread, ruler['optimizer'], rate)
