"""The event files of a search, read back the way TensorBoard reads them."""

import contextlib

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from nos_tf.search.journal import Journal
from nos_tf.search.tally import Tally
from tests.rows import make_row

PARAMETERS = {'Search.seed': 3, 'SearchSpace.operands': ['g', 'm'], 'nos_tf': '1'}


def read(run_dir):
    """Tag -> [(step, value)]; floats for scalars, strings for texts."""
    events = EventAccumulator(str(run_dir), size_guidance={'tensors': 0}).Reload()
    return {
        tag: [(event.step, decode(tensor_util.make_ndarray(event.tensor_proto))) for event in events.Tensors(tag)]
        for tag in events.Tags()['tensors']
    }


def decode(array):
    return array.item() if array.ndim == 0 and array.dtype.kind == 'f' else array.item().decode()


def grow(tally, rewards, rules):
    for reward, rule in zip(rewards, rules, strict=True):
        tally.add(make_row(reward, rule, tally.children))


def test_every_batch_is_a_point_at_its_number_of_children(tmp_path):
    tally = Tally()
    with contextlib.closing(Journal(tmp_path, PARAMETERS, 0)) as journal:
        grow(tally, [0.25, 0.75], ['g', 'm'])
        journal.write(tally, [0.25, 0.75], 1234.5, controller={'kl': 0.01, 'entropy': 20.0}, workers={'alive': 2.0})
        grow(tally, [0.5, 0.0], ['g', 'v'])
        journal.write(tally, [0.5, 0.0], 2000.0, controller={'kl': 0.02, 'entropy': 19.0}, workers={'alive': 2.0})
        grow(tally, [1.0, 0.5], ['adam', 'g'])
        journal.write(tally, [1.0, 0.5], 2100.0, controller={'kl': 0.03, 'entropy': 18.0}, workers={'alive': 2.0})
    tags = read(tmp_path)
    texts = {name: tags.pop(name) for name in ('hyper_parameters', 'best_rule')}
    expected = {
        'reward/mean': [0.5, 0.25, 0.75],
        'reward/mean_last_100': [0.5, 0.375, 0.5],
        'reward/max': [0.75, 0.75, 1.0],
        'cache/hit_rate': [0.0, 0.25, 1 / 3],
        'cache/equal_function_rate': [0.0, 0.0, 0.0],
        'cache/rejected_rate': [0.0, 0.0, 0.0],
        'search/children_per_hour': [1234.5, 2000.0, 2100.0],
        'workers/alive': [2.0] * 3,
        'controller/kl': [0.01, 0.02, 0.03],
        'controller/entropy': [20.0, 19.0, 18.0],
    }
    assert set(tags) == set(expected)
    for tag, values in expected.items():
        assert [step for step, _ in tags[tag]] == [2, 4, 6], tag
        assert [value for _, value in tags[tag]] == pytest.approx(values), tag
    assert texts['best_rule'] == [(2, '`m` 0.7500'), (6, '`adam` 1.0000')]  # when it changes
    ((step, table),) = texts['hyper_parameters']
    assert step == 0
    assert table.splitlines() == [
        '| name | value |',
        '| --- | --- |',
        '| Search.seed | `3` |',
        '| SearchSpace.operands | `["g", "m"]` |',
        '| nos_tf | `"1"` |',
    ]


def test_rewards_without_training_have_scalars_of_their_own(tmp_path):
    tally = Tally()
    with contextlib.closing(Journal(tmp_path, PARAMETERS, 0)) as journal:
        for i, (rule, origin) in enumerate(
            [
                ('sign(exp(m))', 'rejected: is constant'),
                ('sign(exp(g))', 'rejected: is constant'),
                ('1', 'rejected: reads no gradient'),
                ('g', 'trained'),
            ]
        ):
            tally.add(make_row(0.1, rule, i, origin))
        journal.write(tally, [0.1] * 4, 1.0, controller={}, workers={'alive': 2.0})
    tags = read(tmp_path)
    assert tags['cache/hit_rate'] == [(4, 0.0)]
    assert tags['cache/equal_function_rate'] == [(4, 0.5)]
    assert tags['cache/rejected_rate'] == [(4, 0.75)]


def test_a_batch_can_be_seen_at_once(tmp_path):
    tally = Tally()
    with contextlib.closing(Journal(tmp_path, PARAMETERS, 0)) as journal:
        grow(tally, [0.5], ['g'])
        journal.write(tally, [0.5], 1.0, controller={}, workers={'alive': 2.0})
        assert read(tmp_path)['reward/mean'] == [(1, 0.5)]


def test_a_resumed_search_goes_on_where_it_was(tmp_path):
    tally = Tally()
    for _ in range(2):
        with contextlib.closing(Journal(tmp_path, PARAMETERS, tally.children)) as journal:
            grow(tally, [0.5, 0.25], ['g', 'm'])
            journal.write(tally, [0.5, 0.25], 1.0, controller={}, workers={'alive': 2.0})
    tags = read(tmp_path)
    assert [step for step, _ in tags['reward/mean']] == [2, 4]
    assert [step for step, _ in tags['hyper_parameters']] == [0, 2]


def test_a_directory_whose_name_is_no_text_gets_its_events(tmp_path):
    run_dir = tmp_path / 'a\udcff'
    Journal(run_dir, PARAMETERS, 0).close()
    assert len(list(run_dir.glob('events.out.tfevents.*'))) == 1
