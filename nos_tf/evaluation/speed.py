"""How long rules take to train on a task, found out by a few steps; and whether XLA makes them faster."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from nos_tf.dsl.rule import UpdateRule
from nos_tf.tasks.child import ChildSetup, Trainer

ENOUGH = 0.5  # seconds that steps are timed for, at least
WHOLE = 5.3  # trainings, about, of a finer look: benchmarks/sweep_study.py
AUTO, FIELD = 'auto', 'jit_compile'


class Speed(NamedTuple):
    """The seconds that training takes in a process."""

    startup: float  # until the first rule can be trained: tracing, and compiling where XLA does
    per_rule: float  # the sweep, the training and all measures

    def seconds_for(self, rules: float) -> float:
        """Returns the seconds that one process takes for so many rules."""
        return self.startup + rules * self.per_rule


class Estimate(NamedTuple):
    """How long a search will take; a rule that is sampled again is not trained again, and takes none of it."""

    speed: Speed
    children: int  # to come
    rescored: int  # trainings after the search
    workers: int  # that have something to do
    before: int = 0  # trainings before the search, to find a reference

    @property
    def hours(self) -> float:
        """The hours that the search takes in all."""
        return self.speed.seconds_for((self.children + self.rescored + self.before) / self.workers) / 3600

    def __str__(self) -> str:
        minutes = 60 * self.hours
        total = f'{self.hours:.1f} hours' if minutes >= 90 else f'{minutes:.1f} minutes'
        before = f', and {self.before} to find the reference,' if self.before else ''
        processes = 'one process' if self.workers == 1 else f'{self.workers} processes'
        return (
            f'{self.speed.per_rule:.3g} s a rule, after {self.speed.startup:.0f} s to begin: {self.children:,} rules '
            f'and {self.rescored:,} trainings on fresh seeds{before} take {processes} about {total}, less where rules '
            'repeat'
        )


def speed_of(setup: ChildSetup, rule: UpdateRule) -> Speed:
    """Returns how fast this process is, by a few steps of the training with a rule.

    Raises:
        RunError: XLA is to compile the training, and cannot.
        ValueError: as of `Trainer`.
    """
    if parts := getattr(setup.task, 'tasks', ()):  # of a suite
        speeds = [speed_of(dataclasses.replace(setup, task=part), rule) for part in parts]
        return Speed(*map(sum, zip(*speeds, strict=True)))
    start = time.perf_counter()
    trainer = setup.trainer()
    train, measure = (clocked(trainer, rule, of_measure) for of_measure in (False, True))
    train(1)
    measure(0)
    startup = time.perf_counter() - start
    nothing, steps, taken = train(0), 1, 0.0
    while taken < ENOUGH and steps < trainer.task.steps:
        steps = min(2 * steps, trainer.task.steps)
        taken = train(steps)
    step = max(train(1) if steps == 1 else taken - nothing, 0.0) / steps
    rates, trainings = len(trainer.child.learning_rates), WHOLE if trainer.child.refine else 1
    trained = rates * trainer.sweep_steps + trainings * trainer.task.steps
    return Speed(startup, nothing + trained * step + (rates + trainings) * measure(0))


def clocked(trainer: Trainer, rule: UpdateRule, of_measure: bool = False) -> Callable[[int], float]:
    """Returns a function that trains for so many steps, or measures the model once, and returns the seconds it took.

    Where XLA is to compile, the first call does it.
    """

    def work(*arguments: Any) -> tf.Tensor:
        *given, last_step = arguments
        begun, train, measure = trainer.parts(*given)
        return measure(begun) if of_measure else train(begun, trainer.child.learning_rates[0], last_step)[1]

    seed = trainer.child.seed
    given = trainer.ids_of(rule), tf.constant(seed), trainer.start(seed), trainer.data
    signature = [*trainer.signature, tf.TensorSpec([], tf.int32)]
    graph = tf.function(work, autograph=False).get_concrete_function(*signature)  # TensorFlow warns of many functions

    def run(steps: int) -> float:
        start = time.perf_counter()
        with trainer.explained():
            graph(tf.constant(given[0]), *given[1:], tf.constant(steps)).numpy()
        return time.perf_counter() - start

    return run


def leaves_xla_open(task: Any) -> bool:
    """Returns whether a task leaves the use of XLA to the search; it then has `compiled(choice)`, as `KerasTask`."""
    return getattr(task, FIELD, None) == AUTO


def with_xla_decided(task: Any, stored: Mapping[str, Any], pays: Callable[[], bool]) -> Any:
    """Returns the task with the use of XLA decided.

    Args:
        task: that leaves it open.
        stored: the identity of the run that is to go on, which has the decision; {} for a new one.
        pays: decides, where there is none.
    """
    decided = [value for name, value in stored.items() if name.endswith(f'.{FIELD}')]
    return task.compiled(decided[0] if decided else pays())


def xla_pays(setup: ChildSetup, rule: UpdateRule, rules: float) -> bool:
    """Returns whether training takes less time where XLA compiles it first: by a few steps of both ways.

    Args:
        setup: of a task that leaves it open.
        rule: to try it by.
        rules: that a process trains in all.
    """
    task: Any = setup.task

    def seconds(choice: bool) -> float:
        return speed_of(dataclasses.replace(setup, task=task.compiled(choice)), rule).seconds_for(rules)

    if getattr(task.load(), 'is_local', False):
        return False  # XLA cannot call Python
    plain = seconds(False)
    try:
        return seconds(True) < plain
    except Exception:  # whatever XLA cannot compile, the plain way can
        return False
