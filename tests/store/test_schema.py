"""The tables, as SQLite reads them, against the values that their rows become."""

import contextlib
import sqlite3

from nos_tf.store.schema import SEARCH, Row


def test_a_row_has_the_columns_of_the_view_in_its_order():
    with contextlib.closing(sqlite3.connect(':memory:')) as db:
        for statement in SEARCH.statements:
            db.execute(statement)
        columns = [column for column, *_ in db.execute('SELECT * FROM results').description]
    assert columns == list(Row._fields)


def test_what_is_looked_up_for_every_program_has_an_index():
    with contextlib.closing(sqlite3.connect(':memory:')) as db:
        for statement in SEARCH.statements:
            db.execute(statement)
        for condition in ('(fingerprint, task, seed) = (1, 2, 3)', '(program, task, seed) = (1, 2, 3)'):
            ((*_, plan),) = db.execute(f'EXPLAIN QUERY PLAN SELECT reward FROM outcomes WHERE {condition}')
            assert plan.startswith('SEARCH'), plan
