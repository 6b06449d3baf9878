"""Numbers of several trainings as a cell."""

import math

import pytest

from nos_tf.report.cells import at_edge, spread


def test_a_spread_is_the_standard_deviation_of_a_sample():
    # mean 5/3; deviations -7/6, 1/3, 5/6: squares add up to 13/6
    assert spread([0.5, 2.0, 2.5], 3) == f'1.667 ± {math.sqrt(13 / 12):.3f}'
    assert spread([0.75], 1) == '0.8'


@pytest.mark.parametrize(('rate', 'mark'), [(0.01, '*'), (0.1, ''), (1.0, '*')])
def test_a_rate_at_either_edge_is_marked(rate, mark):
    assert at_edge(rate, [1.0, 0.01, 0.1]) == mark


def test_a_single_rate_has_no_edge():
    assert at_edge(0.1, [0.1]) == ''
