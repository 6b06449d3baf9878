"""What a configured field may be, what is said of a value that it may not be, and values by their bindings."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, NamedTuple, Protocol, runtime_checkable

import gin
import pytest

from nos_tf.config import (
    NOT_EMPTY,
    Configured,
    Count,
    Incidental,
    Natural,
    Positive,
    Share,
    above,
    at_least,
    at_most,
    below,
    bindings_of,
    differences,
    without_defaults,
)
from nos_tf.tasks.convnet import ImageClassification


@runtime_checkable
class Source(Protocol):
    """Anything that loads."""

    def load(self) -> int:
        """Its content."""


@dataclass(frozen=True)
class File(Configured):
    """One that does; where it lies matters not."""

    size: Count = 2
    folder: Annotated[str | None, Incidental] = None
    retries: Annotated[Natural, Incidental] = 3

    def load(self) -> int:
        """Its size."""
        return self.size


@dataclass(frozen=True)
class Copy(File):
    """Another kind of file."""


class Rung(NamedTuple):
    """A value of several."""

    share: Annotated[float, above(0), below(1)]
    count: Count | None = None


@dataclass(frozen=True)
class Anything(Configured):
    """A field of every kind."""

    flag: bool = True
    whole: int = 0
    number: float = 0.0
    text: str = ''
    count: Count = 1
    natural: Natural = 0
    positive: Positive = 1.0
    share: Share = 0.0
    bounded: Annotated[int, at_least(2), below(10)] = 2
    open_interval: Annotated[float, above(-1), at_most(1)] = 0.0
    maybe: Count | None = None
    maybe_text: str | None = None
    numbers: Sequence[float] = ()
    rates: Annotated[Sequence[Positive], NOT_EMPTY] = (1.0,)
    bounds: Annotated[Sequence[Annotated[int, at_least(2)]], NOT_EMPTY] = (2,)
    names: Sequence[str] = ()
    rung: Rung = Rung(0.5)
    rungs: Sequence[Rung] = ()
    items: Sequence[Any] = ()
    whatever: Any = None
    part: File = File()
    source: Source = Copy()
    maybe_part: File | None = None


NAN, INFINITY = float('nan'), float('inf')

ALLOWED = {
    'flag': [True, False],
    'whole': [0, -3, 10**20],
    'number': [0.5, -1.0, 1e300, 3],
    'text': ['', 'x'],
    'count': [1, 7],
    'natural': [0, 7],
    'positive': [1e-9, 2],
    'share': [0, 0.5, 1],
    'bounded': [2, 9],
    'open_interval': [-0.999, 0, 1],
    'maybe': [None, 1],
    'maybe_text': [None, '', 'x'],
    'numbers': [(), (1, 2.5)],
    'rates': [(0.1,), (0.1, 3)],
    'bounds': [(2, 3)],
    'names': [(), ('a', 'b')],
    'rung': [Rung(0.5), Rung(0.25, 3)],
    'rungs': [(), (Rung(0.25, 3), Rung(0.5))],
    'items': [(), ((0.5, 1), 'x')],
    'whatever': [None, 3, object, 'x'],
    'part': [File(), File(3), Copy()],
    'source': [File(3)],
    'maybe_part': [None, File()],
}

OF_RUNG = '(share: a number, above 0 and below 1; count: a whole number, at least 1, or None)'

REFUSED = {
    'flag': ('True or False', [1, 0, None, 'True']),
    'whole': ('a whole number', [1.0, True, None, '3', NAN]),
    'number': ('a number', [True, None, '0.5', NAN, INFINITY, 1j]),
    'text': ('a text', [1, None, b'x', ('x',)]),
    'count': ('a whole number, at least 1', [0, -1, 1.0, True, None, '3', NAN]),
    'natural': ('a whole number, at least 0', [-1, 0.0, False]),
    'positive': ('a number, above 0', [0, 0.0, -1.0, True, NAN, INFINITY]),
    'share': ('a number, at least 0 and at most 1', [-1e-9, 1.001, True, NAN, 'all']),
    'bounded': ('a whole number, at least 2 and below 10', [1, 10, 2.5]),
    'open_interval': ('a number, above -1 and at most 1', [-1, 1.001, NAN]),
    'maybe': ('None, or a whole number, at least 1', [0, False, 2.5, 'None']),
    'maybe_text': ('None, or a text', [0, ('x',)]),
    'numbers': ('numbers', [None, 'abc', (0.5, None), (True,), (NAN,)]),
    'rates': ('numbers, above 0, at least one', [(), 0.0, (0.1, -1.0), (INFINITY,), 'abc', None, {}]),
    'bounds': ('whole numbers, at least 2, at least one', [(), 1, (2, 1), (2.0,)]),
    'names': ('texts', [None, 3, ('a', 3)]),
    'rung': (OF_RUNG, [None, 0.5, (), (0.0,), (1, 2), (0.5, 0), (0.5, 1, 1), ('x',)]),
    'rungs': (f'a sequence of {OF_RUNG}', [None, 0.5, (0.5, 2), 'x', ((0.5, 0),), ((0.5, 1), (2, 1))]),
    'part': ('a File: an instance, in gin @Name() with brackets', [File, 'File', None, 3]),
    'source': ('a Source: an instance, in gin @Name() with brackets', [File, 'File', None, len]),
    'maybe_part': ('None, or a File: an instance, in gin @Name() with brackets', [File, 3]),
}


@pytest.mark.parametrize(('field', 'value'), [(name, value) for name, values in ALLOWED.items() for value in values])
def test_what_an_annotation_allows_is_kept_as_it_is(field, value):
    kept = getattr(Anything(**{field: value}), field)
    assert kept == value and type(kept) is type(value)


@pytest.mark.parametrize(
    ('field', 'value', 'said'), [(name, value, said) for name, (said, values) in REFUSED.items() for value in values]
)
def test_anything_else_is_named_with_what_was_given_and_what_is_allowed(field, value, said):
    with pytest.raises(ValueError) as refused:
        Anything(**{field: value})
    assert str(refused.value) == f'Anything.{field} = {value!r}: must be {said}'


def test_every_kind_of_field_is_tried():
    assert set(ALLOWED) == {*REFUSED, 'items', 'whatever'} == set(Anything.__annotations__)


def test_a_sequence_becomes_a_tuple_and_one_value_is_a_sequence_of_it():
    assert Anything(rates=[0.1, 1], bounds=range(2, 5)).rates == (0.1, 1)
    assert Anything(bounds=range(2, 5)).bounds == (2, 3, 4)
    assert Anything(rates=0.1).rates == Anything(rates=iter([0.1])).rates == (0.1,)
    assert Anything(names='abc').names == ('abc',)
    rung = Anything(rung=[0.5, 2]).rung, *Anything(rungs=[[0.5, 2]]).rungs
    assert rung == (Rung(0.5, 2), Rung(0.5, 2)) and {type(each) for each in rung} == {Rung}
    assert hash(Anything(rates=[0.1])) == hash(Anything(rates=(0.1,)))


def test_a_part_is_named_in_words_with_the_right_article():
    with pytest.raises(ValueError, match=r"^ImageClassification.images = 'x': must be an ImageSource: an instance"):
        ImageClassification(images='x')


def test_a_class_that_inherits_or_is_not_frozen_is_checked_too():
    @dataclass(frozen=True)
    class Longer(File):
        """With one more."""

        more: Natural = 0

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.more > self.size:
                raise ValueError('Longer.more: must not exceed its size')

    @dataclass
    class Free(Configured):
        """Not frozen."""

        rates: Sequence[float] = ()

    assert Free([1, 2]).rates == (1, 2)
    for arguments, said in (({'size': 0}, 'Longer.size = 0'), ({'more': -1}, 'Longer.more = -1'), ({'more': 9}, 'exc')):
        with pytest.raises(ValueError, match=said):
            Longer(**arguments)


@runtime_checkable
class Sized(Source, Protocol):
    """A protocol of more than methods."""

    name: str

    @property
    def size(self) -> int:
        """Of the content."""


@dataclass
class Folder(Configured):
    """Of such."""

    content: Sized


def test_what_a_protocol_names_is_looked_for_and_not_asked():
    class Expensive:
        """Has it all."""

        def __init__(self) -> None:
            self.name = 'x'

        @property
        def size(self) -> int:
            """Must not be asked."""
            raise AssertionError

        def load(self) -> int:
            """Nor this."""
            raise AssertionError

    content = Expensive()
    assert Folder(content).content is content
    del content.name
    for unfit in (content, File(), Expensive):
        with pytest.raises(ValueError, match='^Folder.content = .*: must be a Sized: an instance, in gin @Name'):
            Folder(unfit)


@pytest.mark.parametrize(
    ('binding', 'said'),
    [
        (
            'ImageClassification.network = @ConvNet',
            'must be a ConvNet: an instance, in gin @Name() with brackets',
        ),
        (
            'ImageClassification.images = @Digits',
            'must be an ImageSource: an instance, in gin @Name() with brackets',
        ),
        (
            'ImageClassification.images = @ConvNet()',
            'must be an ImageSource: an instance, in gin @Name() with brackets',
        ),
        ("ImageClassification.epochs = '3'", 'must be a whole number, at least 1'),
        ('ImageClassification.train_examples = 0', 'must be None, or a whole number, at least 1'),
    ],
)
def test_what_gin_gives_is_checked_when_the_value_is_made(binding, said):
    make = gin.get_configurable(ImageClassification)
    try:
        gin.parse_config(binding)
        with pytest.raises(ValueError, match=f'^{binding.partition(" ")[0]} = ') as refused:
            make()
        assert said in str(refused.value)
        gin.parse_config(['ImageClassification.network = @ConvNet()', 'ImageClassification.images = @Digits()'])
        gin.parse_config(['ImageClassification.epochs = 3', 'ImageClassification.train_examples = None'])
        assert make() == ImageClassification(epochs=3)
    finally:
        gin.clear_config()


# By the names of the bindings


@dataclass(frozen=True)
class Shelf(Configured):
    """Parts of parts."""

    inner: Anything = field(default_factory=Anything)
    label: str = 'x'


@dataclass
class Plain:
    """Of gin, but not checked."""

    file: Any = gin.REQUIRED


def test_parts_are_named_and_unfolded():
    assert bindings_of(File(3)) == {'File.size': 3}
    assert bindings_of(Plain(3)) == {'Plain.file': 3}
    assert bindings_of(Plain(File(3))) == {'Plain.file': '@File()', 'File.size': 3}
    of_shelf = bindings_of(Shelf(Anything(rates=[0.5], part=File(5), source=Copy(6))))
    assert list(of_shelf)[:2] == ['Shelf.inner', 'Anything.flag'] and list(of_shelf)[-1] == 'Shelf.label'
    assert of_shelf['Shelf.inner'] == '@Anything()' and of_shelf['Anything.part'] == '@File()'
    assert (of_shelf['File.size'], of_shelf['Copy.size'], of_shelf['Anything.rates']) == (5, 6, (0.5,))
    assert of_shelf['Anything.maybe_part'] is None


def test_what_no_result_depends_on_is_left_out():
    assert bindings_of(File(folder='here', retries=0)) == bindings_of(File(folder='there')) == {'File.size': 2}


def test_differences_are_named_with_both_values_in_one_line():
    one, other = bindings_of(Anything()), bindings_of(Anything(count=2, rates=(0.1,)))
    assert differences(one, one) == differences({}, {}) == ''
    assert differences(one, other) == (
        'Anything.count is 1 there and 2 here; Anything.rates is [1.0] there and [0.1] here'
    )
    assert differences({'b': 1, 'a': 'x'}, {'a': 'y', 'c': True}) == (
        'b is 1 there and not set here; a is "x" there and "y" here; c is not set there and true here'
    )


def test_identities_are_compared_as_the_json_that_is_on_file():
    identity = bindings_of(Anything(rates=(1, 0.1), whatever={'a': (1,)}))
    assert differences(json.loads(json.dumps(identity)), identity) == ''
    assert differences({'Anything.number': 1}, {'Anything.number': 1.0}) == ''


def test_a_name_that_is_absent_has_its_default():
    before = bindings_of(Anything(count=5))
    for name in ('Anything.share', 'Anything.rates', 'Anything.maybe', 'Anything.part', 'File.size'):
        before.pop(name)
    assert differences(before, bindings_of(Anything(count=5))) == ''
    assert differences(bindings_of(Anything(count=5)), before) == ''
    assert differences(before, bindings_of(Anything(count=5, share=0.5, part=File(9)))) == (
        'Anything.share is 0.0 there and 0.5 here; File.size is 2 there and 9 here'
    )


def test_a_default_may_be_made_anew_each_time_and_one_that_is_required_is_none():
    before = {'Shelf.label': 'x', 'Plain.file': 3}
    assert differences(before, bindings_of(Shelf()) | bindings_of(Plain(3))) == ''
    assert differences({}, bindings_of(Plain(3))) == 'Plain.file is not set there and 3 here'


def test_many_differences_and_long_values_are_cut():
    values = {f'name {i}': i for i in range(9)}
    told = differences(values, {})
    assert told.count(' there and not set here') == 6 and told.endswith('; and 3 more')
    long = differences({'a': 'x' * 100}, {'a': 'y'})
    assert long == f'a is "{"x" * 56}... there and "y" here'


def test_without_its_defaults_an_identity_is_the_same_before_and_after_a_field_is_added():
    now = bindings_of(Anything(count=5, rates=[0.1], part=File(9))) | {'images': 'ab12'}
    before = {name: value for name, value in now.items() if name not in ('Anything.share', 'Anything.names')}
    assert (
        without_defaults(now)
        == without_defaults(before)
        == {'Anything.count': 5, 'Anything.rates': (0.1,), 'File.size': 9, 'images': 'ab12'}
    )
    assert without_defaults(bindings_of(Anything())) == {}
    read = json.loads(json.dumps(now))
    assert json.dumps(without_defaults(read), sort_keys=True) == json.dumps(without_defaults(now), sort_keys=True)
    assert without_defaults(bindings_of(replace(Anything(), share=0.5))) == {'Anything.share': 0.5}
