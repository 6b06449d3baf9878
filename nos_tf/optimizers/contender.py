"""An optimizer as a line of text: a rule, the name of a known one, or a class of `keras.optimizers`.

`g * exp(sign(g) * sign(m))`, `powersign`, `powersign with beta_1=0.95`, `keras.Adam`, `keras.Adam with epsilon=1e-3`.
"""

import inspect
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache, cached_property
from typing import Any

import keras

from nos_tf.dsl.known import KNOWN_RULES
from nos_tf.dsl.primitives import RuleConstants
from nos_tf.dsl.rule import UpdateRule
from nos_tf.optimizers.constants import Value, as_keras_wants, check_keras, check_names, check_rule, defaults_of, read
from nos_tf.optimizers.nos_optimizer import NOSOptimizer

KERAS = 'keras.'
_WITH = ' with '
_CONSTANTS = {field.name: field.default for field in fields(RuleConstants)}  # of a rule, with their defaults


@dataclass(frozen=True)
class Contender:
    """One optimizer of a comparison; two of equal text are equal.

    Args:
        text: as above; what follows `with` are constants, separated by commas.

    Raises:
        ValueError: no such optimizer, or no such constant; the message names both what was given and what is allowed.
    """

    text: str

    def __post_init__(self) -> None:
        self._made(0.1, 0, 1)

    @cached_property
    def _parts(self) -> tuple[str, dict[str, Value]]:
        name, _, told = self.text.partition(_WITH)
        return name.strip(), read(told, self.text)

    @property
    def constants(self) -> Mapping[str, Value]:
        """The numbers that follow `with`, by name."""
        return self._parts[1]

    @property
    def rule(self) -> UpdateRule | None:
        """The rule that it is; None for an optimizer of Keras."""
        name, _ = self._parts
        return None if name.startswith(KERAS) else UpdateRule.parse(name)

    @property
    def program(self) -> Hashable:
        """The same for all spellings of one optimizer: a constant at its default is as good as none."""
        (name, told), defaults = self._parts, self._defaults
        changed = frozenset((key, value) for key, value in told.items() if value != defaults[key])
        return self.rule.canonical() if self.rule else name, changed

    @property
    def _defaults(self) -> dict[str, Any]:
        name, _ = self._parts
        return defaults_of(_keras_class(name)) if name.startswith(KERAS) else _CONSTANTS

    @property
    def is_known(self) -> bool:
        """Whether others have given it a name: an optimizer of Keras, or a known rule in whatever spelling."""
        rule = self.rule
        return rule is None or rule.canonical() in _known_programs()

    @property
    def label(self) -> str:
        """For people: a known rule is spelled out."""
        name, given = self._parts
        told = ', '.join(f'{key}={value:g}' for key, value in given.items())
        spelled = f'{name}: {KNOWN_RULES[name].infix}' if name in KNOWN_RULES else name
        return f'{spelled}{_WITH}{told}' if told else spelled

    def having(self, **constants: Value) -> 'Contender':
        """Returns the optimizer with more constants, or others.

        Args:
            **constants: by name; those that the text gives stay, or get another value.

        Raises:
            ValueError: it has no such constant.
        """
        name, given = self._parts
        told = ', '.join(f'{key}={value:g}' for key, value in {**given, **constants}.items())
        return Contender(f'{name}{_WITH}{told}')

    def optimizer(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
        seed: int,
        total_steps: int | None = None,
    ) -> keras.optimizers.Optimizer:
        """Returns a new optimizer.

        Args:
            learning_rate: a number or a schedule.
            seed: for rules that drop.
            total_steps: of the training; for rules that read how much of it is done.

        Raises:
            ValueError: as `check`.
        """
        self.check()
        return self._made(learning_rate, seed, total_steps)

    def check(self, has_embeddings: bool = True) -> None:
        """Checks that the optimizer is another one for each of its constants.

        What is on file from before is read without it: its text is a name, whatever its constants did.

        Args:
            has_embeddings: whether what is trained may have any.

        Raises:
            ValueError: a constant would change nothing; the message names it, and says why.
        """
        name, told = self._parts
        with _naming(self.text):
            if name.startswith(KERAS):
                check_keras(name.removeprefix(KERAS), told, self._defaults, has_embeddings)
            else:
                check_rule(UpdateRule.parse(name), told)

    def _made(self, learning_rate: Any, seed: int, total_steps: int | None) -> keras.optimizers.Optimizer:
        name, told = self._parts
        with _naming(self.text), _float32_rate():
            if not name.startswith(KERAS):
                check_names('a rule', told, list(_CONSTANTS))
                rule, more = UpdateRule.parse(name), dict[str, Any](told)
                more |= {'total_steps': total_steps} if rule.reads_progress else {}
                return NOSOptimizer(rule, learning_rate, seed=seed, **more)
            defaults = self._defaults
            check_names(name, told, list(defaults))
            return _keras_class(name)(learning_rate, **as_keras_wants(told, defaults))


@contextmanager
def _naming(text: str) -> Iterator[None]:
    """Has an error say in one line which optimizer it is about."""
    try:
        yield
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f'optimizer {text!r}: {" ".join(str(error).split())}') from error


@contextmanager
def _float32_rate() -> Iterator[None]:
    """Has Keras make a float32 of a learning rate, whatever `keras.config.floatx` is."""
    floatx = keras.config.floatx()
    keras.config.set_floatx('float32')
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)


@cache
def _known_programs() -> frozenset[UpdateRule]:
    return frozenset(UpdateRule.parse(known.infix).canonical() for known in KNOWN_RULES.values())


def _keras_class(name: str) -> type[keras.optimizers.Optimizer]:
    """The class of `keras.Name`."""
    classes, name = keras_classes(), name.removeprefix(KERAS)
    if name not in classes:
        raise ValueError(f'keras.optimizers has no {name!r}: choose from {", ".join(sorted(classes))}')
    return classes[name]


@cache
def keras_classes() -> dict[str, type[keras.optimizers.Optimizer]]:
    """Returns the optimizers of Keras by name, but those around others."""
    return {
        key: value
        for key, value in vars(keras.optimizers).items()
        if inspect.isclass(value)
        and issubclass(value, keras.optimizers.Optimizer)
        and 'learning_rate' in inspect.signature(value).parameters  # not so one around others
        and key != 'Optimizer'
    }
