"""The ten lines of the README on a model of any kind, as a script, as a notebook, and killed in between."""

import inspect
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from tests.tasks import models

ROOT = Path(__file__).resolve().parents[1]
BEGINNING = """\
import keras
import numpy as np
from nos_tf import KerasTask, Search

layers = keras.layers
CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

"""
ENDING = """
random = np.random.default_rng(0)
train, validation = (_data({kind!r}, count, random) for count in (160, 50))
task = KerasTask({build}, train, validation, loss={loss}, epochs=2, batch_size=16{settings})
search = Search(task, run_dir={run_dir!r}, children={children}, rescored=2, rescore_seeds=2{more})
search.run()
print(search.best())
"""


def script(kind, run_dir, children=20, more='', **settings):
    """The lines, which define the model themselves; with settings of the task, and more of the search."""
    build, loss = models.MODELS[kind]
    spelled = {'p': "'mse'", 'q': 'CROSSENTROPY'}
    loss = 'CROSSENTROPY' if loss is models.CROSSENTROPY else repr(loss) if isinstance(loss, str) else None
    loss = loss or '{' + ', '.join(f'{name!r}: {value}' for name, value in spelled.items()) + '}'
    parts = [BEGINNING, inspect.getsource(build), '\n', inspect.getsource(models._data)]
    told = ''.join(f', {name}={value!r}' for name, value in settings.items())
    return ''.join(parts) + ENDING.format(
        kind=kind, build=build.__name__, loss=loss, run_dir=str(run_dir), children=children, settings=told, more=more
    )


def start(text, folder):
    """Begins the lines as a script, in a process group of its own."""
    path = folder / 'mine.py'
    path.write_text(text, encoding='utf-8')
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'TF_CPP_MIN_LOG_LEVEL': '3'}
    command = [sys.executable, str(path)]
    return subprocess.Popen(command, env=environment, stdout=-1, stderr=-1, text=True, start_new_session=True)


def finish(process, seconds=600):
    """Returns what the script printed."""
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, err
    return out


def kill_when(process, run_dir, outcomes, seconds=600):
    """Kills the script and all that it began with -9, once there are so many outcomes on file."""
    deadline = time.monotonic() + seconds
    while count(run_dir, 'outcomes') < outcomes:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def run_notebook(text, folder, seconds=600):
    """Executes the lines as cells of a notebook, after one that has had TensorFlow compute; returns the last output."""
    first = 'import tensorflow as tf\nprint(tf.config.threading.get_intra_op_parallelism_threads(), tf.ones([3]) + 1)'
    cells = [nbformat.v4.new_code_cell(cell) for cell in (first, *text.split('\n\n\n'))]
    client = NotebookClient(
        nbformat.v4.new_notebook(cells=cells), timeout=seconds, resources={'metadata': {'path': folder}}
    )
    executed = client.execute()
    return ''.join(output.get('text', '') for output in executed.cells[-1].outputs if output.get('name') == 'stdout')


def count(run_dir, table):
    """The number of rows."""
    path = Path(run_dir) / 'results.sqlite'
    if not path.exists():
        return 0
    try:
        with closing(sqlite3.connect(f'{path.as_uri()}?mode=ro', uri=True)) as db:
            return db.execute(f'SELECT count(*) FROM {table}').fetchone()[0]
    except sqlite3.OperationalError:  # it has just begun
        return 0


def rewards(run_dir):
    """Children and outcomes as they are on file, without the time they took, and the state of the learner."""
    with closing(sqlite3.connect(Path(run_dir) / 'results.sqlite')) as db:
        children = db.execute(
            'SELECT id, iteration, rule, program, seed, log_prob FROM children ORDER BY id'
        ).fetchall()
        outcomes = db.execute(
            'SELECT program, seed, reward, learning_rate, sweep, origin FROM outcomes ORDER BY program, seed'
        ).fetchall()
        return children, outcomes, db.execute('SELECT iteration, state FROM checkpoint').fetchall()
