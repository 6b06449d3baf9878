"""The generator of a table in miniature: really trained, killed, taken up, and what the trainer says bit for bit."""

import argparse
import dataclasses
import os
import runpy
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import gin
import numpy as np
import pytest

from nos_tf.cli.configuration import configure
from nos_tf.dsl.classes import SAME_FUNCTION
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.errors import RunError
from nos_tf.evaluation.jobs import Job
from nos_tf.evaluation.table import RewardTable, Table
from nos_tf.search.search import Search
from nos_tf.tasks.child import LOOKED_UP

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / 'benchmarks/tabular/generate.py'
SMALL = (
    "SearchSpace.operands = ('g', 'sign(g)', 'rmsprop')",
    "SearchSpace.unaries = ('x', 'sign')",
    "SearchSpace.binaries = ('+', '-')",
    'Digits.train_examples = 100',
    'ImageClassification.train_examples = 100',
    'ImageClassification.batch_size = 50',
    'ImageClassification.epochs = 1',
    'Child.learning_rates = (0.01, 0.1)',
    'ConvNet.filters = 2',
)


def command(folder, *bindings):
    flags = ['--run_dir', folder / 'run', '--output', folder / 'table.npz', '--workers', 1, '--limit', 12]
    flags += ['--audited', 3, '--rescored', 2, '--deeper', 3, '--gin_bindings', *SMALL, *bindings]
    return [str(SCRIPT), *map(str, flags)]


@pytest.fixture
def generate_here(monkeypatch):
    """Runs the generator in this process, whose gin then has the task."""

    def run(folder, *bindings):
        gin.clear_config()
        monkeypatch.setattr(sys, 'argv', command(folder, *bindings))
        runpy.run_path(str(SCRIPT))['main']()

    yield run
    gin.clear_config()


def on_file(folder):
    """Seconds of the outcomes in the store, by program and seed."""
    try:
        with sqlite3.connect(f'file:{folder / "run" / "results.sqlite"}?mode=ro', uri=True) as db:
            rows = db.execute('SELECT program, seed, seconds FROM outcomes').fetchall()
    except sqlite3.Error:
        return {}
    return {(program, seed): seconds for program, seed, seconds in rows}


@pytest.mark.drill
@pytest.mark.slow
def test_a_generator_that_was_killed_goes_on_and_packs_what_was_trained(tmp_path, generate_here, capsys):
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    killed = [sys.executable, *command(tmp_path)]
    with subprocess.Popen(killed, env=environment, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        deadline = time.monotonic() + 100
        while len(on_file(tmp_path)) < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    paid = on_file(tmp_path)
    assert len(paid) >= 2

    generate_here(tmp_path)
    out = capsys.readouterr().out
    setup = Search().setup
    trained = on_file(tmp_path)
    assert paid.items() <= trained.items(), 'trained again'
    table = RewardTable.load(tmp_path / 'table.npz')
    assert not table.metadata['complete'] and np.count_nonzero(table.first.right >= 0) == 12
    assert len(trained) == 12 + len(table.audited) + 2 * 4 + 3 and len(table.audited) > 0
    assert '72 programs' in out and 'not complete' in out and 'audit: ' in out

    trainer = dataclasses.replace(setup, vocabulary=Vocabulary(2)).trainer()
    rules = [UpdateRule.from_ids(ids) for ids in table.representatives[table.first.right >= 0]]
    deeper = [UpdateRule.from_ids(ids) for ids in table.deeper]
    assert {rule.iterations for rule in deeper} == {2}
    evaluator = Table(str(tmp_path / 'table.npz'))
    evaluator.start(setup)
    again = [Job(UpdateRule.from_ids(table.representatives[one]), seed) for one in table.rescored for seed in (1, 4)]
    for job in [*(Job(rule, 0) for rule in (*rules[:4], *deeper)), *again]:
        evaluator.submit(job)
        ((_, outcome),) = evaluator.collect()
        assert outcome._replace(seconds=0) == trainer.train(*job)._replace(seconds=0, origin=LOOKED_UP), job

    assert (table.origin[table.audited] == SAME_FUNCTION).all()
    for row, program in enumerate(table.audited):
        rule = table.space.rule(np.unravel_index(program, tuple(map(len, table.space.choices))))
        told = table.accuracies[table.audit.right[row]]
        assert float(told) == trainer.train(rule).reward


def test_mistakes_are_told_by_name(tmp_path, generate_here):
    for binding, named in (
        ('ImageClassification.epochs = 0', 'ImageClassification.epochs = 0'),
        ('SearchSpace.iterations = 2', 'of one iteration'),
    ):
        with pytest.raises(RunError, match=named):
            generate_here(tmp_path, binding)


def test_the_table_that_is_shipped_is_of_the_task_that_asks_for_it(monkeypatch):
    gin.clear_config()
    monkeypatch.chdir(ROOT)
    try:
        search = configure(argparse.Namespace(gin_files=['gin/tabular.gin'], gin_bindings=[]), Search)
    finally:
        gin.clear_config()
    table, job = search.evaluator, Job(UpdateRule.parse('adam').canonical(), 0)
    assert table.identity(search.setup)['Table'] == 'df0477b99696d667'  # as it was made: runs on it go on
    table.start(search.setup)
    table.submit(job)
    ((_, outcome),) = table.collect()
    assert (round(outcome.reward, 6), outcome.learning_rate, outcome.origin) == (0.872, 0.01, LOOKED_UP)
