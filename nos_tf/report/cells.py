"""Numbers of several trainings as a cell of a table."""

from collections.abc import Collection, Sequence

import numpy as np

EDGE = 'Of a learning rate at the edge of those tried (*), one beyond might be better.'


def spread(values: Sequence[float], digits: int) -> str:
    """Mean and standard deviation.

    >>> spread([1.0, 2.0], 1), spread([1.0], 1)
    ('1.5 ± 0.7', '1.0')
    """
    deviation = f' ± {np.std(values, ddof=1):.{digits}f}' if len(values) > 1 else ''
    return f'{np.mean(values):.{digits}f}{deviation}'


def at_edge(rate: float, tried: Collection[float]) -> str:
    """A mark for the largest or the smallest of several learning rates: `EDGE` explains it.

    >>> at_edge(1.0, (0.1, 1.0)), at_edge(0.1, (0.01, 0.1, 1.0)), at_edge(1.0, (1.0,))
    ('*', '', '')
    """
    return '*' if len(tried) > 1 and rate in (min(tried), max(tried)) else ''
