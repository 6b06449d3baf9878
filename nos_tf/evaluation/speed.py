"""How long rules take to train on a task, found out by a few steps; and whether XLA makes them faster."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from nos_tf.dsl.rule import UpdateRule
from nos_tf.tasks.child import ChildSetup, Trainer

ENOUGH = 0.5  # seconds that steps are timed for, at least
CHOICE = 'jit_compile'  # the field of a task, and what its name in an identity ends in


class Speed(NamedTuple):
    """The seconds that training takes in a process."""

    first: float  # until the first rule can be trained: tracing, and compiling where XLA does
    rule: float  # the sweep, the training and all measures of a rule

    def until(self, rules: float) -> float:
        """Returns the seconds until so many rules have been trained by one process."""
        return self.first + rules * self.rule


def speed_of(setup: ChildSetup, rule: UpdateRule) -> Speed:
    """Returns how fast this process is, by a few steps of the training with a rule.

    Raises:
        RunError: XLA is to compile the training, and cannot.
        ValueError: as of `Trainer`.
    """
    start = time.perf_counter()
    trainer = setup.trainer()
    train, measure = (clocked(trainer, rule, of_measure) for of_measure in (False, True))
    before, _ = train(0), train(1)
    first = time.perf_counter() - start
    before, steps, taken = train(0), 1, 0.0
    while taken < ENOUGH and steps < trainer.task.steps:
        steps = min(2 * steps, trainer.task.steps)
        taken = train(steps)
    step = max(taken - before, 0.0) / steps
    measure(0)
    rates = len(trainer.child.learning_rates)
    trained = rates * trainer.sweep_steps + trainer.task.steps
    return Speed(first, before + trained * step + (rates + 1) * measure(0))


def clocked(trainer: Trainer, rule: UpdateRule, of_measure: bool = False) -> Callable[[int], float]:
    """Returns what does so many steps of a training, or measures the model once, and returns the seconds.

    Where XLA is to compile, the first call does it.
    """

    def work(*arguments: Any) -> tf.Tensor:
        *given, last_step = arguments
        begun, train, measure = trainer.parts(*given)
        return measure(begun) if of_measure else train(begun, trainer.child.learning_rates[0], last_step)[1]

    seed = trainer.child.seed
    given = trainer.vocabulary.ids_of(rule), tf.constant(seed), trainer.start(seed), trainer.data
    signature = [*trainer.signature, tf.TensorSpec([], tf.int32)]
    graph = tf.function(work, autograph=False).get_concrete_function(*signature)  # TensorFlow warns of many functions

    def run(steps: int) -> float:
        start = time.perf_counter()
        with trainer.explained():
            graph(tf.constant(given[0]), *given[1:], tf.constant(steps)).numpy()
        return time.perf_counter() - start

    return run


class Estimate(NamedTuple):
    """How long a search will take, at most: a rule that is sampled again is not trained again."""

    speed: Speed
    children: int
    rescored: int  # trainings after the search
    workers: int

    @property
    def seconds_a_rule(self) -> float:
        """The seconds that a rule takes."""
        return self.speed.rule

    @property
    def hours(self) -> float:
        """The hours that the search takes in all."""
        return self.speed.until((self.children + self.rescored) / self.workers) / 3600

    def __str__(self) -> str:
        minutes = 60 * self.hours
        total = f'{self.hours:.1f} hours' if minutes >= 90 else f'{minutes:.1f} minutes'
        processes = 'one process' if self.workers == 1 else f'{self.workers} processes'
        return (
            f'{self.speed.rule:.3g} s a rule, after {self.speed.first:.0f} s to begin: {self.children:,} rules and '
            f'{self.rescored:,} trainings on fresh seeds take {processes} {total} at most'
        )


def is_open(task: Any) -> bool:
    """Returns whether a task leaves it to us what is compiled by XLA."""
    return getattr(task, CHOICE, None) == 'auto'


def settled(task: Any, before: Mapping[str, Any], pays: Callable[[], bool]) -> Any:
    """Returns the task with that decision made.

    Args:
        task: that leaves it open.
        before: the identity of the run that is to go on, which has the decision; {} for a new one.
        pays: decides, where there is none.
    """
    made = [value for name, value in before.items() if name.endswith(f'.{CHOICE}')]
    return dataclasses.replace(task, **{CHOICE: made[0] if made else pays()})


def xla_pays(setup: ChildSetup, rule: UpdateRule, rules: float) -> bool:
    """Returns whether XLA, compilation included, makes training faster: by a few steps of both ways.

    Args:
        setup: of a task whose decision is open.
        rule: to try it by.
        rules: that a process trains in all.
    """

    def seconds(choice: bool) -> float:
        return speed_of(dataclasses.replace(setup, task=settled(setup.task, {}, lambda: choice)), rule).until(rules)

    if getattr(setup.task.load(), 'is_local', False):
        return False  # XLA cannot call Python
    plain = seconds(False)
    try:
        return seconds(True) < plain
    except Exception:  # whatever XLA cannot compile, the plain way can
        return False
