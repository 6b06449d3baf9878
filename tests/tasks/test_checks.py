"""What is a count, and what is said of that which is none."""

from types import SimpleNamespace

import pytest

from nos_tf.tasks.checks import check_counts


def test_whole_numbers_from_the_least_on():
    check_counts(SimpleNamespace(a=1, b=7, c='not asked'), 'a', 'b')
    check_counts(SimpleNamespace(a=0), 'a', least=0)


@pytest.mark.parametrize('value', [0, -1, 1.0, True, None, '3', float('nan')])
def test_anything_else_is_named(value):
    with pytest.raises(ValueError, match=rf'SimpleNamespace.b = {value!r}: must be a whole number, at least 1'):
        check_counts(SimpleNamespace(a=1, b=value), 'a', 'b')
