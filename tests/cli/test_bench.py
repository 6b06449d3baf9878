"""The command `nos-tf bench`: a task from somebody's own file, and what it says where there is none."""

import subprocess
import sys

import pytest

from nos_tf.cli import bench
from nos_tf.errors import RunError

MINE = """
import keras
import numpy as np

from nos_tf import KerasTask

x = np.random.default_rng(0).normal(size=(80, 4)).astype('float32')


def build():
    return keras.Sequential([keras.layers.Dense(4, 'tanh'), keras.layers.Dense(1)])


def task():
    return KerasTask(build, (x[:60], x[:60, :1]), (x[60:], x[60:, :1]), loss='mse', steps=20, batch_size=20)


broken = 1
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(MINE, encoding='utf-8')
    return path


def run(folder, *arguments):
    code = 'from nos_tf.cli import main; main()'
    command = [sys.executable, '-c', code, 'bench', '--run_dir', str(folder / 'run'), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)


def test_a_task_of_ones_own_is_benched(tmp_path, mine):
    only = ('--gin_bindings', 'Bench.learning_rates = (0.01, 0.1)')
    ended = run(tmp_path, '--task', 'mine.py:task', '--quick', '--contenders', 'sgd', '--workers', 1, *only)
    assert ended.returncode == 0, ended.stderr
    assert 'null control' in ended.stdout and 'sgd' in ended.stdout and 'report.html' in ended.stdout
    assert (tmp_path / 'run/curves.csv').exists() and (tmp_path / 'run/task/trainings.sqlite').exists()


@pytest.mark.parametrize(
    ('task', 'said'),
    [
        ('nothing', '^--task nothing: is not built in: choose from digits_mlp, '),
        ('elsewhere.py:task', '^--task elsewhere.py: there is no such Python file$'),
        ('mine.py:other', '^--task mine.py:other: is None: must be a task'),
        ('mine.py:broken', '^--task mine.py:broken: is 1: must be a task'),
        ('raises.py:task', r'^--task raises.py: raised ZeroDivisionError: division by zero$'),
    ],
)
def test_what_is_no_task_is_said(tmp_path, mine, monkeypatch, task, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'raises.py').write_text('1 / 0', encoding='utf-8')
    with pytest.raises(RunError, match=said):
        bench.task_of(task)


def test_a_task_is_built_in_or_in_a_file(mine):
    assert bench.task_of('wine')[0] == 'wine'
    name, task = bench.task_of(f'{mine}:task')
    assert name == 'task' and task.load().steps == 20
