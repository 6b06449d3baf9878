"""The constants that may follow `with` in the text of an optimizer: how they are read, and which would change nothing.

A constant that is accepted and does nothing makes a comparison lie: two of its contenders are the same, and nobody is
told. Each class of Keras has such arguments, some of them only beside others.
"""

import ast
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras

from nos_tf.dsl.rule import UpdateRule

Value = bool | int | float

NO_CONSTANTS = ('learning_rate', 'name', 'kwargs', 'exclude_layers')  # arguments of Keras that are no numbers, or set

NO_EFFECT = {
    'loss_scale_factor': 'it is for losses in float16, and the losses here are in float32',
    'ScheduleFreeAdamW.beta_1': 'Keras reads the new iterate where the old one is meant, and so it cancels out',
    'Adafactor.relative_step': 'Keras limits the step by 1 / sqrt(steps) with it and without it',
}
"""Why an argument changes nothing: of all classes, or of the one before the dot."""

FOR_EMBEDDINGS = {'Muon.exclude_embeddings': 'nothing here has embeddings'}
"""Why an argument changes nothing where there are none."""

NEEDS = {
    'ema_momentum': ('use_ema', 'use_ema=1'),
    'ema_overwrite_frequency': ('use_ema', 'use_ema=1'),
    'SGD.nesterov': ('momentum', 'momentum above 0'),
}
"""The argument without which another does nothing, and what to write."""

LEAST = {'gradient_accumulation_steps': 2, 'ema_overwrite_frequency': 1, 'ns_steps': 1, 'warmup_steps': 2}
"""Whole numbers, and from where on they change anything."""

POSITIVE = ('clipnorm', 'clipvalue', 'global_clipnorm', 'RMSprop.momentum')
"""Arguments that Keras passes over where they are 0 or less."""


def read(text: str, whole: str) -> dict[str, Value]:
    """Returns the numbers by their names: 'a=1, b=2' -> {'a': 1, 'b': 2}.

    Args:
        text: what follows `with`.
        whole: the text of the optimizer, for the message.

    Raises:
        ValueError: it is anything but names and numbers, or a name is there twice.
    """
    shape = f'optimizer {whole!r}: after "with" comes name=number, ..., each name once; it is {text!r}'
    try:
        call = ast.parse(f'f({text})', mode='eval').body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError(shape)
        constants = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg}
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ValueError(shape) from error
    if len(constants) < len(call.keywords):
        raise ValueError(shape)
    for name, value in constants.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f'optimizer {whole!r}: {name} = {value!r} is not a number')
    return constants


def check_names(whose: str, constants: Iterable[str], allowed: Sequence[str]) -> None:
    """Raises ValueError where a name is not allowed."""
    if unknown := set(constants) - set(allowed):
        raise ValueError(f'{whose} has no {min(unknown)!r}: choose from {", ".join(allowed)}')


def defaults_of(kind: type[keras.optimizers.Optimizer]) -> dict[str, Any]:
    """Returns the arguments of a class of Keras that may be constants, with their defaults."""
    parameters = inspect.signature(kind).parameters
    return {name: parameter.default for name, parameter in parameters.items() if name not in NO_CONSTANTS}


def as_keras_wants(constants: Mapping[str, Value], defaults: Mapping[str, Any]) -> dict[str, Value]:
    """Returns the constants in the types of their defaults: Keras takes no whole number for a momentum."""
    types: dict[type, Callable[[Value], Value]] = {bool: bool, float: float}
    return {name: types.get(type(defaults[name]), lambda x: x)(value) for name, value in constants.items()}


def check_rule(rule: UpdateRule, constants: Iterable[str]) -> None:
    """Raises ValueError where a rule does not read a constant, which would then change nothing."""
    read_by_rule = rule.constants
    for name in constants:
        if name not in read_by_rule:
            raise ValueError(f'{name} changes nothing: {rule} reads {", ".join(read_by_rule) or "no constant"}')


def check_keras(
    name: str, constants: Mapping[str, Value], defaults: Mapping[str, Any], has_embeddings: bool = True
) -> None:
    """Checks that each constant of an optimizer of Keras that is not at its default changes something.

    Args:
        name: of the class.
        constants: the numbers by name, as they were given.
        defaults: of the class.
        has_embeddings: whether what is trained may have any.

    Raises:
        ValueError: one does not; the message names it, and says why.
    """
    useless = NO_EFFECT if has_embeddings else NO_EFFECT | FOR_EMBEDDINGS
    for key, value in constants.items():
        if reason := _either(useless, name, key):
            raise ValueError(f'{key} changes nothing, so leave it out: {reason}')
        needed, what = _either(NEEDS, name, key) or ('', '')
        if value and needed and not constants.get(needed, defaults[needed]):
            raise ValueError(f'{key} changes nothing without {what}: add that, or leave it out')
        default = defaults[key]
        if isinstance(default, bool) and value not in (0, 1):
            raise ValueError(f'{key} = {value!r}: must be 1 or 0, for yes or no')
        if value == default and default is not None:
            continue
        if key in LEAST and (not isinstance(value, int) or value < LEAST[key]):
            raise ValueError(f'{key} = {value!r}: must be a whole number, at least {LEAST[key]}, or be left out')
        if {key, f'{name}.{key}'} & set(POSITIVE) and not value > 0:
            raise ValueError(f'{key} = {value!r}: must be above 0, or be left out: Keras passes over any other')
        if default is None and value == 0:
            raise ValueError(f'{key} = {value!r} changes nothing: leave it out')


def _either(table: Mapping[str, Any], name: str, key: str) -> Any:
    """The entry of an argument of one class, or of all."""
    return table.get(f'{name}.{key}', table.get(key))
