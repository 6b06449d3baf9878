"""Configured values by the names of their bindings, their parts included."""

from dataclasses import dataclass, field

from nos_tf.tasks.bindings import bindings_of


@dataclass(frozen=True)
class Part:
    """Of a whole."""

    size: int = 2


@dataclass(frozen=True)
class Whole:
    """With a part."""

    part: Part = field(default_factory=Part)
    name: str = 'x'


def test_parts_are_named_and_unfolded():
    assert bindings_of(Whole(Part(3))) == {'Whole.part': '@Part()', 'Part.size': 3, 'Whole.name': 'x'}
