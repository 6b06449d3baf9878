"""The tables of a search, their rows as values, and how files of earlier versions become files of this one.

Five tables carry a search. `tasks` has a row for each task, procedure and machine that rewards are of. `outcomes` has a
row for each program with a reward, written the moment there is one: it is the cache of rewards, by (program, task,
seed). `children` has a row for each sampled rule, in the order in which they counted (that of sampling, unless the
search is asynchronous). `checkpoint` has the learner's state, and `updates` the metrics of its updates, both written in
the same transaction as the children that were learned from. The view `results` joins children and outcomes.

A new column is a line in a declaration below, a field of a value, and a migration that adds it.
"""

import hashlib
import json
import sqlite3
from typing import Any, NamedTuple

import numpy as np

from nos_tf.dsl.rule import UpdateRule
from nos_tf.renamed import renamed
from nos_tf.store.database import OTHERS, Schema, read_identity, rename_identity
from nos_tf.tasks.child import TRAINED

TASKS = {
    'id': 'TEXT PRIMARY KEY',
    'identity': 'TEXT NOT NULL',  # JSON: data, model, procedure, machine and versions, by name
    'description': 'TEXT NOT NULL',  # for people
}
OUTCOMES = {
    'program': 'TEXT NOT NULL',  # tokens of the canonical form, which is what trained
    'task': 'TEXT NOT NULL',
    'seed': 'INTEGER NOT NULL',
    'reward': 'REAL NOT NULL',  # the measure of the task on its validation set
    'learning_rate': 'REAL',  # the winner of the sweep; null where there was none
    'sweep': 'TEXT NOT NULL',  # JSON: the measure of each learning rate
    'seconds': 'REAL NOT NULL',
    'origin': 'TEXT NOT NULL',  # 'trained', 'looked up', '<rejected or quarantined>: <why>', 'equal to <program>'
    'fingerprint': 'TEXT',  # of the function; null for a stochastic program
}
CHILDREN = {
    'id': 'INTEGER PRIMARY KEY',  # 0, 1, ... in the order in which they counted
    'iteration': 'INTEGER NOT NULL',  # batches taken before this child's
    'sampled': 'INTEGER NOT NULL',  # batches taken when the child was sampled; staleness = iteration - sampled
    'rule': 'TEXT NOT NULL',  # tokens as sampled
    'program': 'TEXT NOT NULL',
    'task': 'TEXT NOT NULL',
    'seed': 'INTEGER NOT NULL',
    'log_prob': 'REAL NOT NULL',  # under the policy that sampled it
}
CHECKPOINT = {
    'id': 'INTEGER PRIMARY KEY CHECK (id = 0)',
    'iteration': 'INTEGER NOT NULL',  # the next one
    'seconds': 'REAL NOT NULL',  # that the search has taken so far
    'state': 'BLOB NOT NULL',  # npz
}
UPDATES = {
    'iteration': 'INTEGER PRIMARY KEY',
    'children': 'INTEGER NOT NULL',  # that there were after it
    'metrics': 'TEXT NOT NULL',  # JSON: the learner's, as entropy and kl, by name
}


def create(table: str, columns: dict[str, str], constraint: str = '') -> str:
    """Returns the statement that makes a table; one with a constraint of its key has no other row ids."""
    declared = [*(f'{name} {kind}' for name, kind in columns.items()), *filter(None, [constraint])]
    return f'CREATE TABLE {table} ({", ".join(declared)})' + (' WITHOUT ROWID' if constraint else '')


def insert(table: str, columns: dict[str, str]) -> str:
    """Returns the statement that adds a row."""
    return f'INSERT INTO {table} ({", ".join(columns)}) VALUES ({", ".join("?" * len(columns))})'


class StoredChild(NamedTuple):
    """One sampled rule."""

    iteration: int
    sampled: int
    rule: UpdateRule
    log_prob: float


class Row(NamedTuple):
    """One row of `results`."""

    id: int
    iteration: int
    sampled: int
    rule: str
    program: str
    reward: float
    learning_rate: float | None
    sweep: str
    seconds: float
    seed: int
    log_prob: float
    origin: str = TRAINED
    fingerprint: str | None = None


class Update(NamedTuple):
    """The metrics of a learner's update."""

    iteration: int
    children: int  # that there were after it
    metrics: dict[str, float]


class Checkpoint(NamedTuple):
    """The state of a search."""

    iteration: int
    seconds: float
    state: dict[str, np.ndarray]


RESULTS = (
    f'CREATE VIEW results AS SELECT {", ".join(Row._fields)} '
    'FROM children JOIN outcomes USING (program, task, seed) ORDER BY id'
)


def fingerprint(identity: Any) -> str:
    """Returns a hash of JSON values."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _add_tasks(db: sqlite3.Connection) -> None:
    """Version 5 -> 6: names moved, and tasks have a table; before, a task was known by a hash alone."""
    meta = read_identity(db)
    machines = ({}, *meta.get(OTHERS, ()))  # what differed; null where there was nothing
    known = [{k: v for k, v in {**meta, **other}.items() if v is not None or k not in other} for other in machines]
    by_hash = {fingerprint(identity): renamed(identity) for identity in map(_of_task, known)}
    rename_identity(db)
    db.execute(create('tasks', TASKS))
    tasks = db.execute('SELECT task FROM outcomes UNION SELECT task FROM children').fetchall()
    description = _description(meta)
    rows = [(task, json.dumps(by_hash.get(task, {})), description) for (task,) in tasks]
    db.executemany(insert('tasks', TASKS), rows)


def _of_task(meta: dict[str, Any]) -> dict[str, Any]:
    """The part of an identity that rewards depend on: not the search, its space or its learner."""
    classes, names = {'Search', 'SearchSpace'}, [meta.get('Search.learner', '')]  # a benchmark has none
    while names:
        name = names.pop().strip('@()')
        classes.add(name)
        parts = [value for key, value in meta.items() if key.startswith(f'{name}.') and isinstance(value, str)]
        names += [part for part in parts if part.startswith('@')]
    return {k: v for k, v in meta.items() if k.partition('.')[0] not in classes and k not in ('schema', OTHERS)}


def _description(meta: dict[str, Any]) -> str:
    """The task in words; every task of version 5 was one of images."""
    images, network, count = (meta[f'Child.{name}'] for name in ('images', 'network', 'train_examples'))
    told = ', '.join(f'{name} = {value}' for name, value in images.items() if value is not None)
    return (
        f'a ConvNet with {network["filters"]} filters on {"all" if count is None else f"{count:,}"} training images '
        f'({told}); measured is the accuracy on validation images'
    )


SEARCH = Schema(
    file_name='results.sqlite',
    version=6,
    statements=(
        create('tasks', TASKS),
        create('outcomes', OUTCOMES, 'PRIMARY KEY (program, task, seed)'),
        'CREATE INDEX outcomes_by_fingerprint ON outcomes (fingerprint, task, seed)',
        create('children', CHILDREN),
        'CREATE INDEX children_by_program ON children (program)',
        create('checkpoint', CHECKPOINT),
        create('updates', UPDATES),
        RESULTS,
    ),
    migrations={5: _add_tasks},
)
"""The schema of `results.sqlite`."""
