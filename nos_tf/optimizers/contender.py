"""An optimizer as a line of text: a rule, the name of a known one, or a class of `keras.optimizers`.

`g * exp(sign(g) * sign(m))`, `powersign`, `powersign with beta_1=0.95`, `keras.Adam`, `keras.Adam with epsilon=1e-3`.
"""

import ast
import inspect
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cache, cached_property
from typing import Any

import keras

from nos_tf.dsl.known import KNOWN_RULES
from nos_tf.dsl.primitives import RuleConstants
from nos_tf.dsl.rule import UpdateRule
from nos_tf.optimizers.nos_optimizer import NOSOptimizer

KERAS = 'keras.'
_WITH = ' with '
_NO_CONSTANTS = ('learning_rate', 'name', 'kwargs')  # of an optimizer of Keras
_CONSTANTS = tuple(field.name for field in fields(RuleConstants))


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
        self.optimizer(0.1, 0)

    @cached_property
    def _parts(self) -> tuple[str, dict[str, Any]]:
        name, _, constants = self.text.partition(_WITH)
        return name.strip(), _parsed(constants, self.text)

    @property
    def rule(self) -> UpdateRule | None:
        """What it computes; None for an optimizer of Keras."""
        name, _ = self._parts
        return None if name.startswith(KERAS) else UpdateRule.parse(name)

    @property
    def program(self) -> Hashable:
        """The same for all spellings of one rule with the same constants."""
        name, constants = self._parts
        return self.rule.canonical() if self.rule else name, frozenset(constants.items())

    @property
    def is_known(self) -> bool:
        """Whether others have given it a name: an optimizer of Keras, or a known rule in whatever spelling."""
        rule = self.rule
        return rule is None or rule.canonical() in _known_programs()

    @property
    def label(self) -> str:
        """For people: a known rule is spelled out."""
        name, constants = self._parts
        told = ', '.join(f'{key}={value:g}' for key, value in constants.items())
        spelled = f'{name}: {KNOWN_RULES[name].infix}' if name in KNOWN_RULES else name
        return f'{spelled}{_WITH}{told}' if told else spelled

    def optimizer(
        self, learning_rate: float | keras.optimizers.schedules.LearningRateSchedule, seed: int
    ) -> keras.optimizers.Optimizer:
        """A new optimizer; `seed` is for rules that drop."""
        name, constants = self._parts
        floatx = keras.config.floatx()
        keras.config.set_floatx('float32')  # the type of the variable that Keras makes of a learning rate
        try:
            if not name.startswith(KERAS):
                _check_names('a rule', constants, _CONSTANTS)
                return NOSOptimizer(UpdateRule.parse(name), learning_rate, seed=seed, **constants)
            kind = _keras_class(name.removeprefix(KERAS))
            parameters = inspect.signature(kind).parameters
            _check_names(name, constants, [key for key in parameters if key not in _NO_CONSTANTS])
            return kind(learning_rate, **constants)
        except (TypeError, ValueError) as error:
            raise ValueError(f'optimizer {self.text!r}: {" ".join(str(error).split())}') from error
        finally:
            keras.config.set_floatx(floatx)


def _check_names(whose: str, constants: Iterable[str], allowed: Sequence[str]) -> None:
    if unknown := set(constants) - set(allowed):
        raise ValueError(f'{whose} has no {min(unknown)!r}: choose from {", ".join(allowed)}')


@cache
def _known_programs() -> frozenset[UpdateRule]:
    return frozenset(UpdateRule.parse(known.infix).canonical() for known in KNOWN_RULES.values())


def _parsed(text: str, whole: str) -> dict[str, Any]:
    """'a=1, b=2' -> {'a': 1, 'b': 2}."""
    try:
        call = ast.parse(f'f({text})', mode='eval').body
        assert isinstance(call, ast.Call) and not call.args
        constants = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
        assert len(constants) == len(call.keywords)
    except (AssertionError, SyntaxError, ValueError) as error:
        raise ValueError(
            f'optimizer {whole!r}: after "with" comes name=number, ..., each name once; it is {text!r}'
        ) from error
    for name, value in constants.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f'optimizer {whole!r}: {name} = {value!r} is not a number')
    return constants


def _keras_class(name: str) -> type[keras.optimizers.Optimizer]:
    classes = {
        key: value
        for key, value in vars(keras.optimizers).items()
        if inspect.isclass(value)
        and issubclass(value, keras.optimizers.Optimizer)
        and 'learning_rate' in inspect.signature(value).parameters  # not so one around others
        and key != 'Optimizer'
    }
    if name not in classes:
        raise ValueError(f'keras.optimizers has no {name!r}: choose from {", ".join(sorted(classes))}')
    return classes[name]
