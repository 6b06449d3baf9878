"""The base of all values that gin or Python can set: what a field may be is declared once, in the field.

    @gin.register
    @dataclass(frozen=True)
    class Digits(Configured):
        noise: Annotated[float, at_least(0)] = 0.25
        train_examples: Count = 1000

A value out of range ends in one sentence, `Digits.noise = -1: must be a number, at least 0`, which names the gin
binding. `bindings_of` gives the values by the same names, as JSON: what a result depends on is told by them.

A default is a promise. Where an identity on file lacks a name, its value was the default, so that a new field does not
turn old runs away: a default may not change, and what is to be otherwise needs a name of its own.
"""

import dataclasses
import inspect
import json
import math
import types
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import gin

_MAX_DIFFERENCES = 6


class Limit(NamedTuple):
    """A bound of a number, for use in `Annotated`."""

    text: str
    holds: Callable[[Any], bool]


def _shown(bound: float) -> str:
    return f'{bound:,}' if isinstance(bound, int) else f'{bound:g}'


def at_least(bound: float) -> Limit:
    """Returns the limit of numbers from a bound on."""
    return Limit(f'at least {_shown(bound)}', lambda x: x >= bound)


def above(bound: float) -> Limit:
    """Returns the limit of numbers greater than a bound."""
    return Limit(f'above {_shown(bound)}', lambda x: x > bound)


def at_most(bound: float) -> Limit:
    """Returns the limit of numbers up to a bound."""
    return Limit(f'at most {_shown(bound)}', lambda x: x <= bound)


def below(bound: float) -> Limit:
    """Returns the limit of numbers smaller than a bound."""
    return Limit(f'below {_shown(bound)}', lambda x: x < bound)


NOT_EMPTY = Limit('at least one', lambda x: len(x) > 0)
"""The limit of a sequence that has something in it."""


class Incidental:
    """Marks a field, in `Annotated`, on which no result depends: where data lie, how many processes work."""


Count = Annotated[int, at_least(1)]
Natural = Annotated[int, at_least(0)]
Positive = Annotated[float, above(0)]
Share = Annotated[float, at_least(0), at_most(1)]


class _Kind(NamedTuple):
    """A type of plain values, and how a message calls it."""

    text: str
    plural: str
    holds: Callable[[Any], bool]


_KINDS = {
    bool: _Kind('True or False', 'True or False', lambda x: isinstance(x, bool)),
    int: _Kind('a whole number', 'whole numbers', lambda x: isinstance(x, int) and not isinstance(x, bool)),
    float: _Kind(
        'a number', 'numbers', lambda x: isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x)
    ),
    str: _Kind('a text', 'texts', lambda x: isinstance(x, str)),
}

_classes: dict[str, type] = {}  # those that bindings were asked of


class Configured:
    """A dataclass whose fields are checked against their annotations when it is made.

    An annotation is `bool`, `int`, `float`, `str`, `Sequence[float]` and the like, with limits in `Annotated`, a
    NamedTuple of such, or a class or protocol of parts that gin makes; `| None` allows None. Whatever else a field
    needs, `__post_init__` checks after it has called that of this class.

    Raises:
        ValueError: a field cannot have the value that it was given; the message names the binding.
    """

    def __post_init__(self) -> None:
        kind: Any = type(self)
        hints = _hints(kind)
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            checked = _checked(f'{type(self).__name__}.{field.name}', value, hints[field.name])
            if checked is not value:
                object.__setattr__(self, field.name, checked)  # as frozen classes want it


def bindings_of(value: Any) -> dict[str, Any]:
    """Returns the fields of a dataclass by the names of their gin bindings, those of its parts included: JSON values.

    Left out are fields on which no result depends.

    >>> from nos_tf.tasks.data import Digits
    >>> bindings_of(Digits(noise=0.5))
    {'Digits.noise': 0.5, 'Digits.train_examples': 1000, 'Digits.seed': 0}
    """
    name, bindings = type(value).__name__, {}
    _classes[name] = type(value)
    for field in dataclasses.fields(value):
        part = getattr(value, field.name)
        if _is_incidental(type(value), field.name):
            continue
        if dataclasses.is_dataclass(part):
            bindings[f'{name}.{field.name}'] = f'@{type(part).__name__}()'
            bindings.update(bindings_of(part))
        else:
            bindings[f'{name}.{field.name}'] = part
    return bindings


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Returns what differs between two identities, by name and in one line; '' if nothing does.

    A name that one of them lacks has its default there.
    """
    there, here = ({key: _as_json(value) for key, value in identity.items()} for identity in (there, here))
    differing = [key for key in {**there, **here} if _value(there, key) != _value(here, key)]
    shown = [
        f'{key} is {_brief(there, key)} there and {_brief(here, key)} here' for key in differing[:_MAX_DIFFERENCES]
    ]
    more = [f'and {len(differing) - _MAX_DIFFERENCES} more'] if len(differing) > _MAX_DIFFERENCES else []
    return '; '.join(shown + more)


def without_defaults(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the part of an identity that is not at its default: the same before and after a field is added."""
    return {key: value for key, value in identity.items() if _as_json(value) != _value({}, key)}


_NOT_SET = object()


def _value(identity: Mapping[str, Any], key: str) -> Any:
    if key in identity:
        return identity[key]
    name, _, field = key.partition('.')
    return _defaults(_classes[name]).get(field, _NOT_SET) if name in _classes else _NOT_SET


@cache
def _defaults(kind: type) -> dict[str, Any]:
    """The defaults of a class, as an identity has them."""
    made = {
        field.name: field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        for field in dataclasses.fields(kind)
    }
    return {
        name: f'@{type(value).__name__}()' if dataclasses.is_dataclass(value) else _as_json(value)
        for name, value in made.items()
        if value is not dataclasses.MISSING and value is not gin.REQUIRED
    }


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _brief(identity: Mapping[str, Any], key: str) -> str:
    value = _value(identity, key)
    text = 'not set' if value is _NOT_SET else json.dumps(value)
    return text if len(text) <= 60 else f'{text[:57]}...'


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _is_incidental(kind: type, field: str) -> bool:
    return Incidental in get_args(_hints(kind)[field])


def _checked(binding: str, value: Any, hint: Any, or_none: str = '') -> Any:
    """Returns the value of a field, sequences as tuples; raises ValueError if the annotation does not allow it."""
    kind, limits = _unwrapped(hint)
    if get_origin(kind) in (Union, types.UnionType):
        if value is None and type(None) in get_args(kind):
            return None
        options = [option for option in get_args(kind) if option is not type(None)]
        return _checked(binding, value, options[0], 'None, or ') if len(options) == 1 else value
    given = 'is missing' if value is gin.REQUIRED else f'= {value!r}'
    error = ValueError(f'{binding} {given}: must be {or_none}{_told(kind, limits)}')
    if kind in _KINDS:
        if not _KINDS[kind].holds(value):
            raise error
    elif get_origin(kind) is Sequence:
        (element,) = get_args(kind)
        try:
            value = tuple(_checked(binding, x, element) for x in ((value,) if type(value) in _KINDS else value))
        except (TypeError, ValueError) as unfit:
            raise error from unfit
    elif hasattr(kind, '_fields'):
        try:
            parts = zip(kind(*value), _hints(kind).values(), strict=True)
            value = kind(*(_checked(binding, part, of_part) for part, of_part in parts))
        except (TypeError, ValueError) as unfit:
            raise error from unfit
    elif kind is not Any and isinstance(kind, type) and (isinstance(value, type) or not _is_a(kind, value)):
        raise error
    if not all(limit.holds(value) for limit in limits):
        raise error
    return value


def _is_a(kind: type, value: Any) -> bool:
    """Returns whether a value is of a class, or has all that a protocol names; its properties are not asked.

    `isinstance` asks them in Python before 3.12, and one may load data.
    """
    if not getattr(kind, '_is_protocol', False):
        return isinstance(value, kind)
    names = {name for base in kind.__mro__[:-1] for name in (*vars(base), *inspect.get_annotations(base))}
    return all(
        inspect.getattr_static(value, name, _NOT_SET) is not _NOT_SET for name in names if not name.startswith('_')
    )


def _unwrapped(hint: Any) -> tuple[Any, list[Limit]]:
    """Returns an annotation without its limits, and the limits."""
    if get_origin(hint) is not Annotated:
        return hint, []
    kind, *marks = get_args(hint)
    return kind, [mark for mark in marks if isinstance(mark, Limit)]


def _told(kind: Any, limits: Sequence[Limit], one: bool = True) -> str:
    """Returns what a value has to be, or the elements of a sequence, in words."""
    if get_origin(kind) is Sequence:
        text = _told(*_unwrapped(get_args(kind)[0]), one=False)
    elif kind in _KINDS:
        text = _KINDS[kind].text if one else _KINDS[kind].plural
    elif hasattr(kind, '_fields'):
        fields = '; '.join(f'{name}: {_told(*_unwrapped(of_field))}' for name, of_field in _hints(kind).items())
        text = f'{"" if one else "a sequence of "}({fields})'
    elif get_origin(kind) in (Union, types.UnionType):
        text = ', or '.join('None' if each is type(None) else _told(*_unwrapped(each)) for each in get_args(kind))
    else:
        name = getattr(kind, '__name__', str(kind))
        text = f'{"an" if name[0] in "AEIOU" else "a"} {name}: an instance, in gin @Name() with brackets'
    return ', '.join([text, *[' and '.join(limit.text for limit in limits)] * bool(limits)])
