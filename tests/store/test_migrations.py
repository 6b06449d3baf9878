"""Files of earlier versions: read as they are, brought forward when they are written to, and nothing paid for twice."""

import contextlib
import hashlib
import io
import json
import math
import sqlite3
from contextlib import closing

import numpy as np
import pytest

from nos_tf.dsl.rule import UpdateRule
from nos_tf.errors import RunError
from nos_tf.evaluation.machine import is_of_machine
from nos_tf.store.database import OTHERS, Database, Schema, reading, rename_identity
from nos_tf.store.results import Result, Store, read_run
from nos_tf.store.schema import SEARCH, Row, Update
from nos_tf.store.trainings import TRAININGS, Key, TrainingStore, kind_of, read_trainings
from nos_tf.tasks.child import Outcome
from nos_tf.tasks.convnet import ConvNet
from nos_tf.tasks.data import Digits
from nos_tf.tasks.training import Curve, Recipe, Trained
from tests.tasks.small import SETUP, TASK

MACHINE = {
    'intra_op threads': 1,
    'processor': 'old',
    'nos_tf': '0.1.0',
    'tensorflow': '2.21.0',
    'keras': '3.15.1',
    'numpy': '2.4.6',
    'TF_ENABLE_ONEDNN_OPTS': '1',
    'XLA_FLAGS': '-x',
}
HASH = Digits(train_examples=400).load().fingerprint()


# A search, as version 5 had it

SPACE_AND_LEARNER = {
    'Search.seed': 0,
    'Search.asynchronous': False,
    'Search.max_staleness': None,
    'Search.learner': '@WarmStart()',
    'SearchSpace.operands': ['g', 'm'],
    'SearchSpace.iterations': 2,
    'WarmStart.learner': '@TRPO()',
    'TRPO.units': 8,
    'TRPO.entropy_half_life': None,
    'TRPO.solver': '@NaturalGradient()',
    'NaturalGradient.damping': 0.1,
    'WarmStart.rules': ['adam'],
}
CHILD_5 = {
    'Child.network': {'filters': 4, 'statistics_momentum': 0.9, 'statistics_epsilon': 0.001, 'bfloat16': False},
    'Child.learning_rates': [0.01, 0.1, 1.0],
    'Child.sweep_epochs': 1,
    'Child.epochs': 3,
    'Child.train_examples': 200,
    'Child.batch_size': 50,
    'Child.rungs': [],
    'Child.constants': {'beta_1': 0.9, 'beta_2': 0.999, 'beta_3': 0.999, 'epsilon': 1e-8, 'noise_stddev': 0.01},
    'Child.seed': 0,
    'Child.images': {'source': 'Digits', 'noise': 0.25, 'train_examples': 400, 'seed': 0},
    'images': HASH,
}
TABLES_5 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE outcomes (
    program TEXT NOT NULL,        -- tokens of the canonical form, which is what trained
    task TEXT NOT NULL,           -- fingerprint of data, network, procedure, machine and versions
    seed INTEGER NOT NULL,
    reward REAL NOT NULL,         -- accuracy on the validation set
    learning_rate REAL,           -- the winner of the sweep; null where there was none
    sweep TEXT NOT NULL,          -- JSON: the accuracy of each learning rate
    seconds REAL NOT NULL,
    origin TEXT NOT NULL,         -- 'trained', 'looked up', '<rejected or quarantined>: <why>', 'equal to <program>'
    fingerprint TEXT,             -- of the function; null for a stochastic program
    PRIMARY KEY (program, task, seed)
) WITHOUT ROWID;
CREATE INDEX outcomes_by_fingerprint ON outcomes (fingerprint, task, seed);
CREATE TABLE children (
    id INTEGER PRIMARY KEY,       -- 0, 1, ... in the order in which they counted
    iteration INTEGER NOT NULL,   -- batches taken before this child's
    sampled INTEGER NOT NULL,     -- batches taken when the child was sampled; staleness = iteration - sampled
    rule TEXT NOT NULL,           -- tokens as sampled
    program TEXT NOT NULL,
    task TEXT NOT NULL,
    seed INTEGER NOT NULL,
    log_prob REAL NOT NULL        -- under the policy that sampled it
);
CREATE INDEX children_by_program ON children (program);
CREATE TABLE checkpoint (
    id INTEGER PRIMARY KEY CHECK (id = 0),
    iteration INTEGER NOT NULL,   -- the next one
    seconds REAL NOT NULL,        -- that the search has taken so far
    state BLOB NOT NULL           -- npz
);
CREATE TABLE updates (
    iteration INTEGER PRIMARY KEY,
    children INTEGER NOT NULL,    -- that there were after it
    metrics TEXT NOT NULL         -- JSON: the learner's, as entropy and kl, by name
);
CREATE VIEW results AS
    SELECT id, iteration, sampled, rule, program, reward, learning_rate, sweep, seconds, seed, log_prob, origin,
        fingerprint
    FROM children JOIN outcomes USING (program, task, seed) ORDER BY id;
"""
SGD, MOMENTUM = UpdateRule.parse('g').canonical(), UpdateRule.parse('m').canonical()
SPELLED = ' '.join(SGD.tokens), ' '.join(MOMENTUM.tokens)
GOOD, BETTER = Outcome(0.5, 0.1, (0.25, None, 0.5), 1.25), Outcome(0.75, 1.0, (0.25, 0.5, 0.75), 2.5)
REJECTED = Outcome(0.1, math.nan, (), 0.0, 'rejected: is dull')
STATE = np.array([1.5, -0.0], np.float32)
ELSEWHERE = [{'processor': 'new'}, {'processor': 'newer', 'keras floatx': 'float16', 'XLA_FLAGS': None}]


def here(differing):
    """The machine that differs so from the first."""
    return {key: value for key, value in {**MACHINE, **differing}.items() if value is not None}


def hash_5(identity):
    """What a task was filed under."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def write_meta(db, identity):
    db.executemany('INSERT INTO meta VALUES (?, ?)', [(k, json.dumps(v)) for k, v in identity.items()])


@pytest.fixture
def search_5(tmp_path):
    """A run directory with the file of a search that went on on two other machines: a child on each."""
    blob = io.BytesIO()
    np.savez(blob, weights=STATE)
    first, second, third = (hash_5(CHILD_5 | here(differing)) for differing in ({}, *ELSEWHERE))
    with closing(sqlite3.connect(tmp_path / 'results.sqlite')) as db, db:
        db.executescript(TABLES_5)
        write_meta(db, {'schema': 5, **SPACE_AND_LEARNER, **CHILD_5, **MACHINE, OTHERS: ELSEWHERE})
        sgd, momentum = SPELLED
        outcomes = [
            (sgd, first, 0, 0.5, 0.1, '[0.25, null, 0.5]', 1.25, 'trained', 'f'),
            (momentum, first, 0, 0.1, None, '[]', 0.0, 'rejected: is dull', None),
            (sgd, second, 0, 0.75, 1.0, '[0.25, 0.5, 0.75]', 2.5, 'trained', 'f'),
            (momentum, third, 0, 0.5, 0.1, '[0.25, null, 0.5]', 1.25, 'trained', 'm'),
        ]
        children = [
            (0, 0, 0, sgd, sgd, first, 0, -1.0),
            (1, 0, 0, momentum, momentum, first, 0, -2.0),
            (2, 1, 1, sgd, sgd, second, 0, -3.0),
            (3, 2, 1, momentum, momentum, third, 0, -4.0),
        ]
        db.executemany(f'INSERT INTO outcomes VALUES ({", ".join("?" * 9)})', outcomes)
        db.executemany(f'INSERT INTO children VALUES ({", ".join("?" * 8)})', children)
        db.execute('INSERT INTO checkpoint VALUES (0, 3, 30.0, ?)', (blob.getvalue(),))
        db.execute('INSERT INTO updates VALUES (2, 4, ?)', ('{"kl": 0.5}',))
    return tmp_path


SETUP_NOW = json.loads(json.dumps(SETUP.identity()))
KEPT = {name: value for name, value in SETUP_NOW.items() if name != 'Child.refine'}  # which came later
SEARCH_NOW = SPACE_AND_LEARNER | KEPT | MACHINE
ROWS = [
    Row(0, 0, 0, SPELLED[0], SPELLED[0], 0.5, 0.1, '[0.25, null, 0.5]', 1.25, 0, -1.0, 'trained', 'f'),
    Row(1, 0, 0, SPELLED[1], SPELLED[1], 0.1, None, '[]', 0.0, 0, -2.0, 'rejected: is dull', None),
    Row(2, 1, 1, SPELLED[0], SPELLED[0], 0.75, 1.0, '[0.25, 0.5, 0.75]', 2.5, 0, -3.0, 'trained', 'f'),
    Row(3, 2, 1, SPELLED[1], SPELLED[1], 0.5, 0.1, '[0.25, null, 0.5]', 1.25, 0, -4.0, 'trained', 'm'),
]


def open_search(run_dir, differing=(), **setup):
    """The store of the search of `search_5` as this version opens it."""
    task = SETUP_NOW | setup | here(dict(differing))
    mixed = {'is_of_machine': is_of_machine, 'allow_mixed': True}
    return closing(Store(run_dir, SPACE_AND_LEARNER | task, task, str(TASK), **mixed))


def version_and_tasks(run_dir):
    with closing(sqlite3.connect(run_dir / 'results.sqlite')) as db:
        (version,) = db.execute('PRAGMA user_version').fetchone()
        return version, dict(db.execute('SELECT id, identity FROM tasks'))


def test_a_search_of_version_5_is_read_as_it_is(search_5):
    path = search_5 / 'results.sqlite'
    content = path.read_bytes()
    run = read_run(search_5)
    assert run.rows == ROWS and run.updates == [Update(2, 4, {'kl': 0.5})] and run.seconds == 30.0
    assert run.configuration == SEARCH_NOW | {OTHERS: ELSEWHERE}
    assert run.task == (
        'a ConvNet with 4 filters on 200 training images (source = Digits, noise = 0.25, train_examples = 400, '
        'seed = 0); measured is the accuracy on validation images'
    )
    assert run.task == str(TASK)
    assert path.read_bytes() == content and [*search_5.iterdir()] == [path]


def test_a_search_of_version_5_goes_on_and_has_what_it_has_paid_for(search_5):
    tasks = [hash_5(CHILD_5 | here(differing)) for differing in ({}, *ELSEWHERE)]
    with open_search(search_5) as store:
        assert store.task == tasks[0]
        assert store.outcome(SGD, 0) == GOOD == store.equal_outcome('f', 0)[1]
        assert str(store.outcome(MOMENTUM, 0)) == str(REJECTED)  # its learning rate is NaN
        assert store.identity == SEARCH_NOW | {OTHERS: ELSEWHERE}
        assert store.results() == ROWS
        iteration, seconds, state = store.checkpoint()
        assert (iteration, seconds, state['weights'].tobytes()) == (3, 30.0, STATE.tobytes())
        store.save_outcomes([Result(SGD, 1, BETTER)])
    for differing, program, task, outcome in zip(ELSEWHERE, (SGD, MOMENTUM), tasks[1:], (BETTER, GOOD), strict=True):
        with open_search(search_5, differing) as store:
            assert store.task == task and store.outcome(program, 0) == outcome
            assert store.outcome(SGD, 1) is None and store.identity[OTHERS] == ELSEWHERE
    version, there = version_and_tasks(search_5)
    assert version == SEARCH.version
    assert {task: json.loads(identity) for task, identity in there.items()} == {
        task: KEPT | here(differing) for task, differing in zip(tasks, ({}, *ELSEWHERE), strict=True)
    }
    assert read_run(search_5).configuration == SEARCH_NOW | {OTHERS: ELSEWHERE}


def test_a_task_that_the_identity_does_not_tell_keeps_its_id(search_5):
    with closing(sqlite3.connect(search_5 / 'results.sqlite')) as db, db:
        for table in ('outcomes', 'children'):
            db.execute(f"UPDATE {table} SET task = 'unknown' WHERE task = ?", (hash_5(CHILD_5 | MACHINE),))
    with open_search(search_5) as store:
        assert store.outcome(SGD, 0) is None and store.task != 'unknown'
        assert store.results() == ROWS
    assert version_and_tasks(search_5)[1]['unknown'] == '{}'


def test_another_search_is_refused_and_leaves_the_file_as_it_was(search_5):
    path = search_5 / 'results.sqlite'
    content = path.read_bytes()
    with pytest.raises(RunError, match=r'ImageClassification\.epochs is 3 there and 4 here\. Choose another'):
        open_search(search_5, **{'ImageClassification.epochs': 4})
    assert path.read_bytes() == content


def test_files_of_later_and_of_the_first_versions_are_refused(search_5):
    with closing(sqlite3.connect(search_5 / 'results.sqlite')) as db, db:
        db.execute("UPDATE meta SET value = '4' WHERE key = 'schema'")
    for attempt in (open_search, read_run):
        with pytest.raises(RunError, match=r'results\.sqlite is of another version: 4, and this reads 5 on'):
            attempt(search_5)
    with closing(sqlite3.connect(search_5 / 'results.sqlite')) as db:
        db.execute('PRAGMA user_version = 7')
    for attempt in (open_search, read_run):
        with pytest.raises(RunError, match=r'results\.sqlite was written by a later nos_tf: version 7, and this rea'):
            attempt(search_5)


# Trainings, as version 2 had them

RECIPE_2 = {
    'trainings': 'nos_tf.tasks.recipe.Trained',
    'Recipe.images': {'kind': 'Digits', 'noise': 0.25, 'train_examples': 400, 'seed': 0},
    'Recipe.network': {
        'kind': 'ConvNet',
        'filters': 4,
        'statistics_momentum': 0.9,
        'statistics_epsilon': 0.001,
        'bfloat16': False,
    },
    'Recipe.batch_size': 50,
    'Recipe.train_examples': None,
    'Recipe.test_examples': None,
    'Recipe.flips': True,
    'Recipe.shift': 0,
    'Recipe.weight_decay': 0.0,
    'images': HASH,
}
TABLES_2 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE trainings (
    contender TEXT NOT NULL,      -- the optimizer as text
    rate REAL NOT NULL,
    seed INTEGER NOT NULL,
    result TEXT NOT NULL,         -- JSON: what the training left
    PRIMARY KEY (contender, rate, seed)
) WITHOUT ROWID;
"""
TRAINED = '{"curve": {"loss": [2.5], "validation": [0.25], "test": [0.5]}, "seconds": 8.5, "diverged": false}'
LEFT = {Key('adam', 0.1, 3): Trained(Curve((2.5,), (0.25,), (0.5,)), 8.5, False)}
RECIPE_NOW = Recipe(Digits(train_examples=400), ConvNet(4), batch_size=50, flips=True).identity() | MACHINE


@pytest.fixture
def trainings_2(tmp_path):
    """A run directory with the file of trainings that went on on another machine."""
    with closing(sqlite3.connect(tmp_path / 'trainings.sqlite')) as db, db:
        db.executescript(TABLES_2)
        write_meta(db, {'schema': 2, **RECIPE_2, **MACHINE, OTHERS: ELSEWHERE[:1]})
        db.execute("INSERT INTO trainings VALUES ('adam', 0.1, 3, ?)", (TRAINED,))
    return tmp_path


def test_trainings_of_version_2_are_read_as_they_are(trainings_2):
    path = trainings_2 / 'trainings.sqlite'
    content = path.read_bytes()
    assert kind_of(trainings_2) == 'nos_tf.tasks.training.Trained'
    assert read_trainings(trainings_2, Trained) == LEFT
    assert path.read_bytes() == content and [*trainings_2.iterdir()] == [path]


def test_trainings_of_version_2_go_on(trainings_2):
    for _ in range(2):
        with closing(TrainingStore(trainings_2, Trained, RECIPE_NOW)) as store:
            assert store.identity == RECIPE_NOW | {OTHERS: ELSEWHERE[:1]}
            assert store.read() == LEFT
    with pytest.raises(RunError, match=r'ConvNet\.filters is 4 there and 5 here'):
        TrainingStore(trainings_2, Trained, RECIPE_NOW | {'ConvNet.filters': 5})
    with closing(sqlite3.connect(trainings_2 / 'trainings.sqlite')) as db:
        assert db.execute('PRAGMA user_version').fetchone() == (TRAININGS.version,) == (3,)
        assert db.execute("SELECT * FROM meta WHERE key IN ('schema', 'Recipe.kind')").fetchall() == []
    assert read_trainings(trainings_2, Trained) == LEFT


# Any file

NUMBERS = 'CREATE TABLE numbers (n INTEGER PRIMARY KEY)'


def double(db):
    db.execute('UPDATE numbers SET n = 2 * n')


def add_note(db):
    db.execute("INSERT INTO meta VALUES ('note', '\"new\"')")


def fail(db):
    raise sqlite3.IntegrityError('no luck')


def numbers(source):
    return [n for (n,) in source.execute('SELECT n FROM numbers ORDER BY n')]


def test_migrations_are_made_one_after_the_other_and_once(tmp_path):
    old, new = Schema('x.sqlite', 1, [NUMBERS]), Schema('x.sqlite', 3, [NUMBERS], {1: double, 2: add_note})
    with closing(Database(tmp_path, old, {'a': 1})) as database:
        database._db.execute('INSERT INTO numbers VALUES (2), (3)')
    with reading(tmp_path / 'x.sqlite', new) as db:
        assert numbers(db) == [4, 6]
    with reading(tmp_path / 'x.sqlite', old) as db:
        assert numbers(db) == [2, 3]
    for _ in range(2):
        with closing(Database(tmp_path, new, {'a': 1, 'note': 'new'})) as database:
            assert numbers(database._db) == [4, 6] and database.identity == {'a': 1, 'note': 'new'}
    for attempt in (lambda: Database(tmp_path, old, {'a': 1}), reading(tmp_path / 'x.sqlite', old).__enter__):
        with pytest.raises(RunError, match=r'x\.sqlite was written by a later nos_tf: version 3, and this reads 1'):
            attempt()


def test_a_migration_that_fails_changes_nothing(tmp_path):
    with closing(Database(tmp_path, Schema('x.sqlite', 1, [NUMBERS]), {'a': 1})) as database:
        database._db.execute('INSERT INTO numbers VALUES (2), (3)')
    for migrations in ({1: double, 2: fail}, {1: double}, {}):
        with pytest.raises((sqlite3.IntegrityError, RunError), match='no luck|is of another version: 1, and this'):
            Database(tmp_path, Schema('x.sqlite', 3, [NUMBERS], migrations), {'a': 1})
    with closing(sqlite3.connect(tmp_path / 'x.sqlite')) as db:
        assert numbers(db) == [2, 3] and db.execute('PRAGMA user_version').fetchone() == (1,)


def test_a_version_among_the_identity_moves_out_of_it(tmp_path):
    schema = Schema('x.sqlite', 2, [NUMBERS], {1: rename_identity})
    with contextlib.closing(sqlite3.connect(tmp_path / 'x.sqlite')) as db, db:
        db.executescript(f'CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL); {NUMBERS};')
        write_meta(db, {'schema': 1, 'Child.epochs': 3})
        db.execute('INSERT INTO numbers VALUES (1)')
    with closing(Database(tmp_path, schema, {'ImageClassification.epochs': 3})) as database:
        assert database.identity == {'ImageClassification.epochs': 3}
        assert database._db.execute('PRAGMA user_version').fetchone() == (2,)
