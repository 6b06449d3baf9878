"""What a reader is warned of."""

from nos_tf.report.mixed import warnings
from nos_tf.store.database import OTHERS

MACHINE = {'processor': 'A', 'nos_tf': '1', 'tensorflow': '2'}


def test_results_of_one_machine_need_no_warning():
    assert list(warnings(MACHINE)) == []


def test_all_machines_are_named():
    (told,) = warnings({**MACHINE, OTHERS: [{'processor': 'B'}, {'processor': 'C', 'nos_tf': '2'}]})
    assert told.startswith(
        'Begun with processor = A, nos_tf = 1, this was taken up on another machine, with processor = B and '
        'processor = C, nos_tf = 2 (--allow_mixed)'
    )


def test_workers_that_may_differ():
    (told,) = warnings({**MACHINE, 'Cluster.allow_mixed': True})
    assert told.startswith('Workers were allowed to differ')
