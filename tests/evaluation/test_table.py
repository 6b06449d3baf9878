"""The table: what is looked up is what was put in, for the right task alone, and a search runs on it."""

import dataclasses
import io
import itertools
import json
import sqlite3
import sys
import zipfile
from pathlib import Path

import gin
import numpy as np
import pytest

from nos_tf.controller.learners import TRPO, Bayesian, Evolution, RandomSearch, WarmStart
from nos_tf.controller.solvers import AdamSurrogate
from nos_tf.dsl.classes import find_classes
from nos_tf.dsl.primitives import RuleConstants
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.space import SearchSpace
from nos_tf.errors import RunError
from nos_tf.evaluation.jobs import Job
from nos_tf.evaluation.table import FORMAT, Columns, RewardTable, Table
from nos_tf.search.search import Search
from nos_tf.store.results import Store, read_results
from nos_tf.store.schema import SEARCH
from nos_tf.tasks.child import LOOKED_UP, Child, ChildSetup, Outcome
from nos_tf.tasks.convnet import ConvNet, ImageClassification
from nos_tf.tasks.data import Digits

sys.path.append(str(Path(__file__).parents[2] / 'benchmarks' / 'tabular'))

from table_columns import accuracies, columns_of, save
from table_rewards import mean_rewards
from table_rewards import rewards as rewards_of

ROOT = Path(__file__).parents[2]
SPACE = SearchSpace(operands=('m', 'v', 'adam', '1e-3*w'), unaries=('x', 'exp'), binaries=('+', '-', 'left'))
CHILD = Child(learning_rates=(0.01, 0.1))
TASK = ImageClassification(Digits(train_examples=200), epochs=2, train_examples=200)
SETUP = ChildSetup(CHILD, TASK)
CLASSES = find_classes(SPACE, RuleConstants())
IMAGES = 500
DEEP = [UpdateRule.parse('exp(m + v) + adam').canonical(), UpdateRule.parse('(m - v) * exp(adam)').canonical()]


def made_up(random):
    """An outcome like a child's."""
    right, first, second = (float(np.float32(k) / np.float32(IMAGES)) for k in random.integers(0, IMAGES + 1, 3))
    return Outcome(right, (0.01, 0.1)[random.integers(2)], (first, second), 0.25)


def outcomes(count, seed):
    random = np.random.default_rng(seed)
    return [made_up(random) for _ in range(count)]


FIRST = outcomes(len(CLASSES.representatives), 1)
AGAIN = outcomes(6, 2)
DEEPER = outcomes(2, 3)
RESCORED = [5, 2, 9]


def columns(values):
    return columns_of(values, CHILD.learning_rates, IMAGES)


def make(first=FIRST, **metadata):
    """A table by the means of the generator; its rewards are made up."""
    metadata = {
        'format': FORMAT,
        'task': json.loads(json.dumps(SETUP.identity())),
        'space': {name: list(getattr(SPACE, name)) for name in ('operands', 'unaries', 'binaries')},
        'seeds': [1, 2],
        'complete': None not in first,
        **metadata,
    }
    return RewardTable(
        metadata=metadata,
        accuracies=accuracies([o for o in [*first, *AGAIN, *DEEPER] if o], IMAGES),
        class_of=CLASSES.of,
        origin=CLASSES.origin,
        representatives=np.array([rule.token_ids for rule in CLASSES.representatives], np.uint8),
        first=columns(first),
        rescored=np.array(RESCORED, np.int32),
        again=Columns(*(x.reshape(3, 2, *x.shape[1:]) for x in columns(AGAIN))),
        audited=np.array([3], np.int32),
        audit=columns(AGAIN[:1]),
        deeper=np.array([rule.token_ids for rule in DEEP], np.uint8),
        deep=columns(DEEPER),
    )


@pytest.fixture
def path(tmp_path):
    save(make(), tmp_path / 'table.npz')
    return tmp_path / 'table.npz'


def every_choice():
    return np.array(list(itertools.product(*(range(len(bank)) for bank in SPACE.choices))))


def test_every_program_has_the_outcome_of_its_class(path):
    table = RewardTable.load(path)
    choices = every_choice()
    assert table.index(choices).tolist() == list(range(SPACE.size))
    rewards = rewards_of(table)
    assert rewards.dtype == np.float32
    for choice, one, reward in zip(choices, CLASSES.of, rewards, strict=True):
        assert table.outcome(SPACE.rule(choice)) == FIRST[one]
        assert float(reward) == FIRST[one].reward  # bit for bit


def test_more_seeds_are_known_of_some(path):
    table = RewardTable.load(path)
    for row, one in enumerate(RESCORED):
        rule = CLASSES.representatives[one]
        assert [table.outcome(rule, seed) for seed in (0, 1, 2)] == [FIRST[one], *AGAIN[2 * row : 2 * row + 2]]
        assert table.outcome(rule, 3) is None
    assert table.outcome(CLASSES.representatives[0], 1) is None
    expected = [FIRST[one].reward for one in range(len(FIRST))]
    for row, one in enumerate(RESCORED):
        expected[one] = np.mean([expected[one], *(o.reward for o in AGAIN[2 * row : 2 * row + 2])])
    np.testing.assert_allclose(mean_rewards(table), np.array(expected)[CLASSES.of], rtol=1e-6)


def test_programs_of_two_iterations_are_known_by_their_canonical_form(path):
    table = RewardTable.load(path)
    assert [table.outcome(rule) for rule in DEEP] == DEEPER
    assert table.outcome(UpdateRule.parse('adam + exp(v + m)')) == DEEPER[0]
    assert table.outcome(DEEP[0], 1) is None
    assert table.outcome(UpdateRule.parse('exp(m + v) - adam')) is None
    assert table.outcome(UpdateRule.parse('m v x x * v m x exp +')) == table.outcome(UpdateRule.parse('v + exp(m)'))
    assert table.outcome(UpdateRule.parse('g')) is None, 'outside of the space'


def test_what_was_not_trained_has_no_reward(tmp_path):
    table = make(first=[None, *FIRST[1:]])
    save(table, tmp_path / 'table.npz')
    table = RewardTable.load(tmp_path / 'table.npz')
    assert not table.metadata['complete'] and 'not complete' in str(table)
    assert table.outcome(CLASSES.representatives[0]) is None
    np.testing.assert_array_equal(np.isnan(rewards_of(table)), CLASSES.of == 0)
    np.testing.assert_array_equal(np.isnan(mean_rewards(table)), CLASSES.of == 0)


def test_a_table_is_known_by_what_it_holds(path):
    table = RewardTable.load(path)
    assert table.fingerprint == make().fingerprint
    changed = dataclasses.replace(table, rescored=np.array([5, 2, 8], np.int32))
    others = [changed, make(command='another'), make(first=[*FIRST[:-1], None])]
    assert len({table.fingerprint, *(other.fingerprint for other in others)}) == 4


# Bad files


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(RunError, match='there is no table of rewards .*none.npz: `python benchmarks/tabular'):
        RewardTable.load(tmp_path / 'none.npz')


def without_member(content):
    source, target = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
    with zipfile.ZipFile(target, 'w') as changed:
        for name in source.namelist():
            if name != 'first_right.npy':
                changed.writestr(name, source.read(name))
    return target.getvalue()


def plain_array(content):
    file = io.BytesIO()
    np.save(file, np.arange(3))
    return file.getvalue()


DAMAGE = {
    'empty': lambda content: b'',
    'a text': lambda content: b'no table' * 100,
    'truncated': lambda content: content[: len(content) // 2],
    'a bit less': lambda content: content[:-30],
    'another content': lambda content: content[:1000] + b'\xff' * 300 + content[1300:],
    'without a part': without_member,
    'an array': plain_array,
}


@pytest.mark.parametrize('damage', DAMAGE)
def test_a_damaged_file_is_told_of(path, damage):
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(RunError, match='table.npz is no table of rewards, or a damaged one'):
        RewardTable.load(path)


def test_a_file_that_cannot_be_read_now_is_not_called_damaged(tmp_path):
    (tmp_path / 'table.npz').symlink_to('/proc/self/mem')  # a read of its beginning fails as one of a bad disk does
    with pytest.raises(OSError, match='Input/output error'):
        RewardTable.load(tmp_path / 'table.npz')


def test_another_format_is_told_of(path):
    save(make(format=FORMAT + 1), path)
    with pytest.raises(RunError, match=f'is a table of format {FORMAT + 1}, and this version reads {FORMAT}'):
        RewardTable.load(path)


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match='programs in'):
        dataclasses.replace(make(), class_of=CLASSES.of + 1)
    with pytest.raises(ValueError, match='outcomes'):
        make(seeds=[1])


# The evaluator


def search(path, **overrides):
    arguments = {'children': 300, 'rescore_seeds': 0, 'baselines': ('adam',), 'child': CHILD, 'task': TASK, **overrides}
    arguments = {'learner': RandomSearch(batch_size=100)} | arguments
    return Search(space=SPACE, evaluator=Table(str(path)), **arguments)


def test_a_search_takes_its_rewards_from_the_table(tmp_path, path):
    summary = search(path).run(tmp_path / 'run')
    assert summary['children'] == 300 and summary['configuration']['Table'] == make().fingerprint
    assert summary['trained'] == 0 and {row.origin for row in read_results(tmp_path / 'run')} == {LOOKED_UP}
    for row in read_results(tmp_path / 'run'):
        one = CLASSES.of[make().index(np.array([SPACE.encode(UpdateRule(tuple(row.rule.split())))]))[0]]
        assert (row.reward, row.learning_rate, tuple(json.loads(row.sweep)), row.seconds) == FIRST[one][:4]
    again = search(path, children=400).run(tmp_path / 'run')
    assert again['children'] == 400


def test_a_run_belongs_to_its_table_and_to_its_machine(tmp_path, path, monkeypatch):
    search(path, children=5).run(tmp_path / 'run')
    with monkeypatch.context() as patch:
        patch.setattr('nos_tf.evaluation.machine.processor', lambda: 'another')
        with pytest.raises(RunError, match='processor is'):
            search(path, children=10).run(tmp_path / 'run')
    save(make(command='another'), path)
    with pytest.raises(RunError, match='another configuration or version: Table is'):
        search(path).run(tmp_path / 'run')


@pytest.mark.parametrize(
    ('other', 'named'),
    [
        ({'task': dataclasses.replace(TASK, epochs=3)}, 'ImageClassification.epochs is 2 there and 3 here'),
        ({'child': dataclasses.replace(CHILD, seed=1)}, 'Child.seed is 0 there and 1 here'),
        ({'task': dataclasses.replace(TASK, images=Digits(noise=0.1, train_examples=200))}, 'images is'),
    ],
)
def test_a_table_of_another_task_is_refused_before_anything_is_written(tmp_path, path, other, named):
    with pytest.raises(RunError, match=f'table.npz was made for another task: .*{named}'):
        search(path, **other).run(tmp_path / 'run')
    assert not (tmp_path / 'run').exists()
    with pytest.raises(RunError, match=named):
        Table(str(path)).start(dataclasses.replace(SETUP, **other))


def test_a_table_of_earlier_names_is_of_the_same_task(path):
    task = {
        'Child.network': {'filters': 8, 'statistics_momentum': 0.9, 'statistics_epsilon': 0.001, 'bfloat16': False},
        'Child.learning_rates': [0.01, 0.1],
        'Child.sweep_epochs': 1,
        'Child.epochs': 2,
        'Child.train_examples': 200,
        'Child.batch_size': 100,
        'Child.constants': {'beta_1': 0.9, 'beta_2': 0.999, 'beta_3': 0.999, 'epsilon': 1e-8, 'noise_stddev': 0.01},
        'Child.seed': 0,
        'Child.images': {'source': 'Digits', 'noise': 0.25, 'train_examples': 200, 'seed': 0},
        'images': TASK.images.load().fingerprint(),
        'processor': 'another',
    }
    save(make(task=task), path)
    with pytest.raises(RunError, match=r'made for another task: ConvNet\.filters is 8 there and 32 here$'):
        Table(str(path)).start(SETUP)
    table = Table(str(path))
    table.start(dataclasses.replace(SETUP, task=dataclasses.replace(TASK, network=ConvNet(filters=8))))
    table.submit(Job(DEEP[1], 0))
    assert table.collect() == [(Job(DEEP[1], 0), DEEPER[1]._replace(origin=LOOKED_UP))]


def test_what_the_table_does_not_hold_is_told_by_name(path):
    table = Table(str(path))
    table.start(SETUP)
    with pytest.raises(RunError, match=r'table.npz has no outcome of g with seed 0: it holds 192 programs of one'):
        table.submit(Job(UpdateRule.parse('g').canonical(), 0))
    with pytest.raises(RunError, match='has no outcome of adam with seed 7'):
        table.submit(Job(UpdateRule.parse('adam').canonical(), 7))
    assert table.collect() == []
    job = Job(DEEP[0], 0)
    table.submit(job)
    assert table.collect() == [(job, DEEPER[0]._replace(origin=LOOKED_UP))] and table.collect() == []


def test_the_configuration_asks_for_all_programs_of_one_iteration(tmp_path, path):
    """gin/tabular.gin, but with a small table of a small task."""
    gin.add_config_file_search_path(str(ROOT))
    bindings = ['Search.children = 5', f'Table.path = {str(path)!r}']
    try:
        gin.parse_config_files_and_bindings(['gin/tabular.gin'], bindings)
        configured = Search()
    finally:
        gin.clear_config()
    assert configured.space == SearchSpace() and isinstance(configured.evaluator, Table)
    with pytest.raises(RunError, match='was made for another task: Digits.train_examples is 200 there'):
        configured.run(tmp_path / 'run')


# Resume


LEARNERS = {
    'TRPO': lambda: TRPO(batch_size=10, units=8, replay=20, steps=2, kl_samples=5, entropy_half_life=10.0),
    'the paper': lambda: TRPO(batch_size=10, units=8, solver=AdamSurrogate(1e-3, max_steps=5)),
    'warm Bayesian': lambda: WarmStart(learner=Bayesian(batch_size=10, candidates=30, memory=50), rules=['adam']),
    'evolution': lambda: Evolution(batch_size=10, population=20),
}


class Died(BaseException):
    """In place of the death of the process, which tests/search/test_search.py sees to."""


def state_of(run_dir):
    """The learner's state, as bytes."""
    with sqlite3.connect(f'file:{run_dir / SEARCH.file_name}?mode=ro', uri=True) as db:
        ((blob,),) = db.execute('SELECT state FROM checkpoint').fetchall()
    with np.load(io.BytesIO(blob)) as state:
        return {key: value.tobytes() for key, value in state.items()}


@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=pytest.mark.drill if name == 'TRPO' else ()) for name in LEARNERS]
)
def test_a_search_that_died_at_100_samples_ends_as_if_it_had_not(tmp_path, path, name, monkeypatch):
    save = Store.save_batch

    def save_or_die(store, *batch):
        if store.count() == 100:
            raise Died
        return save(store, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(Store, 'save_batch', save_or_die)
        with pytest.raises(Died):
            search(path, children=200, learner=LEARNERS[name]()).run(tmp_path / name)
    assert len(read_results(tmp_path / name)) == 100

    search(path, children=200, learner=LEARNERS[name]()).run(tmp_path / name)
    search(path, children=200, learner=LEARNERS[name]()).run(tmp_path / 'whole')
    resumed, whole = read_results(tmp_path / name), read_results(tmp_path / 'whole')
    assert len(whole) == 200
    assert resumed == whole  # every rule, its probability under the policy, its reward
    assert state_of(tmp_path / name) == state_of(tmp_path / 'whole')  # weights, solver, baseline, replay
