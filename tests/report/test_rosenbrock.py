"""The table and the picture of walks that are known."""

import csv

import numpy as np
import pytest

from nos_tf.report import rosenbrock as report
from nos_tf.tasks.rosenbrock import Walk


def way(contender, rate, *xs):
    """Along y = 1."""
    return Walk(contender, rate, np.array([[x, 1.0] for x in xs]))


WALKS = {
    'Adam': [
        way('keras.Adam with epsilon=1e-3', 0.1, 0, 0.5, 0.995),
        way('keras.Adam with epsilon=1e-4', 0.1, 0, 1, 0),
    ],
    'powersign': [way('powersign', 0.1, 0, 0.999, 0.9999), way('powersign', 1.0, 0, 1, np.inf)],
    'wild': [way('keras.SGD', 0.1, 0, np.nan, 0), way('keras.SGD', 1.0, 0, np.nan, 1.0)],
}
CHOSEN = {name: report.best(walks) for name, walks in WALKS.items()}


def test_the_best_ends_nearest():
    assert [(w.contender, w.rate) for w in CHOSEN.values()][:2] == [
        ('keras.Adam with epsilon=1e-3', 0.1),
        ('powersign', 0.1),
    ]


def test_the_table_ranks_and_names_what_diverged():
    lines = report.table(CHOSEN).splitlines()
    assert lines[2] == '| powersign | 0.1 | 0.0001 | 4e-06 | 1 |'
    assert lines[3] == '| Adam | 0.1, epsilon=0.001 | 0.005 | 0.01 | 2 |'
    assert lines[4] == '| wild | 0.1 | diverged at every rate |  |  |'


@pytest.mark.parametrize(
    ('others', 'said'),
    [
        (['Adam', 'wild'], 'powersign ends nearer than Adam, wild'),
        (['powersign'], 'powersign ends not nearer than powersign'),
        (['Adam', 'powersign'], 'powersign ends nearer than Adam and not nearer than powersign'),
    ],
)
def test_the_verdict_says_what_is_farther(others, said):
    assert report.verdict(CHOSEN, 'powersign', others) == said


def test_all_walks_are_written_and_the_best_drawn(tmp_path):
    picture = report.write(tmp_path / 'new', WALKS)
    assert picture.read_bytes().startswith(b'\x89PNG')
    with open(tmp_path / 'new' / 'walks.csv', encoding='utf-8', newline='') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 and rows[4]['final_distance'] == 'inf' and rows[2]['steps_to_0.01'] == '1'
    plane, plot = report.draw(CHOSEN).axes
    assert [line.get_marker() for line in plane.lines][-1] == 'o' and len(plot.lines) == 3
    np.testing.assert_allclose(plane.lines[-1].get_xydata(), [[1, 1]])
    np.testing.assert_allclose(plane.lines[1].get_xydata(), CHOSEN['powersign'].points)
