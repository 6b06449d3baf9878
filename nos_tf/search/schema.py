"""What a store holds: its tables in SQL, and their rows as values.

Four tables carry a search. `outcomes` has a row for each program with a reward, written the moment there is one: it is
the cache of rewards, by (program, task, seed), and says where each is from. `children` has a row for each sampled rule,
in the order in which they counted (that of sampling, unless the search is asynchronous). `checkpoint` has the learner's
state, and `updates` what its updates told of themselves, both written in the same transaction as the children that were
learned from. The view `results` joins the first two.
"""

from typing import NamedTuple

import numpy as np

from nos_tf.dsl.rule import UpdateRule

FILE_NAME = 'results.sqlite'
VERSION = 5

TRAINED = 'trained'
LOOKED_UP = 'looked up'  # in a table
REJECTED = 'rejected: '  # and why
QUARANTINED = 'quarantined: '  # and why
MERGED = 'equal to '  # and the tokens of the program whose outcome it is

TABLES = """
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
    """What the learner told when it had learned from a batch."""

    iteration: int
    children: int  # that there were after it
    metrics: dict[str, float]


class Checkpoint(NamedTuple):
    """Where a search stands."""

    iteration: int
    seconds: float
    state: dict[str, np.ndarray]
