"""Optimizers on a task at the learning rate that is best for each: the same effort for everyone."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from nos_tf.config import bindings_of
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.optimizers.contender import Contender
from nos_tf.tasks.child import Child, ChildSetup
from nos_tf.tasks.task import Task


class Tuned(NamedTuple):
    """An optimizer on a task, with one seed."""

    measure: float  # of the task, at the best rate
    learning_rate: float
    sweep: tuple[float | None, ...]  # as of `Outcome`
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """It as JSON values."""
        return self._asdict()

    @classmethod
    def of_json(cls, fields: Mapping[str, Any]) -> 'Tuned':
        """The inverse of `as_json`."""
        return cls(**{**fields, 'sweep': tuple(fields['sweep'])})


@dataclass(frozen=True)
class TuningSetup:
    """All that a process needs to tune optimizers.

    Args:
        task: what they are judged on.
        child: how a rate is found.
        contenders: rules as text (`nos_tf.optimizers.contender`), all that may come.
    """

    task: Task
    child: Child
    contenders: tuple[str, ...]

    def identity(self) -> dict[str, Any]:
        """Returns all that a result depends on but the machine; not who else is compared."""
        return {**self.task.identity(), **bindings_of(self.child)}

    def trainer(self) -> 'Tuning':
        """Returns what trains."""
        return Tuning(self)


class Tuning:
    """Tunes optimizers, one after the other; one graph for all.

    Raises:
        ValueError: a contender is no rule, or the data do not fit the task.
    """

    def __init__(self, setup: TuningSetup) -> None:
        rules = {text: Contender(text).rule for text in setup.contenders}
        if unfit := [text for text, rule in rules.items() if rule is None]:
            raise ValueError(f'{unfit[0]!r}: must be a rule, for its rate is found in a graph that trains rules')
        self._rules = {text: rule for text, rule in rules.items() if rule is not None}
        vocabulary = Vocabulary.of(None, self._rules.values())
        self._trainer = ChildSetup(setup.child, setup.task, vocabulary).trainer()

    def train(self, contender: str, rate: float, seed: int, length: int) -> Tuned:
        """Returns how an optimizer does.

        Args:
            contender: one of the setup.
            rate: of no meaning: all are tried.
            seed: of weights, order and random primitives.
            length: of no meaning: the task has its own.
        """
        told: Any = Contender(contender).constants
        constants = replace(self._trainer.child.constants, **told)
        outcome = self._trainer.train(self._rules[contender], seed, constants)
        return Tuned(outcome.reward, outcome.learning_rate, outcome.sweep, outcome.seconds)
