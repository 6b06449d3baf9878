"""Compares optimizers on tasks: who gets sooner to the loss that tuned AdamW ends with? Goes on where it was.

nos-tf bench --task digits_mlp wine --contenders keras.Lion adam_powersign --run_dir runs/bench
nos-tf bench --task mine.py:task --quick --run_dir runs/mine
"""

import argparse
import importlib.util
import inspect
import sys
from pathlib import Path
from typing import Any

import cloudpickle

from nos_tf.cli import commandline
from nos_tf import output
from nos_tf.compare.bench import QUICK, Bench
from nos_tf.errors import RunError
from nos_tf.evaluation.pool import ProcessPool
from nos_tf.report import bench_report
from nos_tf.tasks.builtin import TASKS
from nos_tf.tasks.task import Task

SMALL = ('digits_mlp', 'wine')


def bench() -> None:
    """Runs the bench that arguments and gin describe, or takes it up where it stopped, and reports."""
    arguments = _parser().parse_args()
    told = {
        name: value
        for name in ('contenders', 'reference', 'seeds', 'tuning_seeds', 'schedule')
        if (value := getattr(arguments, name)) is not None
    }
    if arguments.task:
        named = [task_of(text) for text in arguments.task]
        names = [name for name, _ in named]
        if twice := {name for name in names if names.count(name) > 1}:
            raise RunError(f'--task: {min(twice)} is there twice; a task of a file has the name after the colon')
        told['tasks'] = dict(named)
    elif not (arguments.gin_files or arguments.gin_bindings):
        told['tasks'] = {name: TASKS[name]() for name in (SMALL if arguments.quick else TASKS)}
    if arguments.workers is not None:
        told['evaluator'] = ProcessPool(arguments.workers)
    if arguments.quick:
        told = QUICK | told
    configured = commandline.configure(arguments, lambda: Bench(**told))
    result = configured.run(arguments.run_dir, allow_mixed=arguments.allow_mixed)
    output.say(str(result))
    output.say(str(bench_report.write(arguments.run_dir)))


def _parser() -> argparse.ArgumentParser:
    parser = commandline.configured_parser(__doc__)
    parser.usage = None
    tasks = 'built-in tasks (nos-tf tasks), or FILE.py:NAME of one of your own or of a function that returns it'
    parser.add_argument('--task', nargs='+', action='extend', metavar='TASK', help=f'{tasks}; all that are built in')
    parser.add_argument(
        '--contenders',
        nargs='+',
        action='extend',
        metavar='OPTIMIZER',
        help="rules, known ones by name, and classes of Keras, such as 'keras.Adam with epsilon=1e-3'",
    )
    parser.add_argument('--reference', metavar='OPTIMIZER', help='whose loss is the target: keras.AdamW')
    parser.add_argument('--seeds', type=int, metavar='N', help='on which everyone is judged: 5')
    parser.add_argument('--tuning_seeds', type=int, metavar='N', help='on which rates are chosen: 2')
    parser.add_argument('--schedule', metavar='KIND', help='of learning rates: constant, linear or cosine to zero')
    parser.add_argument('--workers', type=int, metavar='N', help='processes that train: one for each core')
    parser.add_argument('--quick', action='store_true', help='three seeds, learning rates alone; two small tasks')
    return parser


def task_of(text: str) -> tuple[str, Any]:
    """Returns the name and the task that an argument stands for.

    Raises:
        RunError: there is no such task, or its file cannot be run.
    """
    path, _, name = text.rpartition(':')
    if not path:
        if text not in TASKS:
            raise RunError(f'--task {text}: is not built in: choose from {", ".join(TASKS)}, or give FILE.py:NAME')
        return text, TASKS[text]()
    found = getattr(_module(Path(path)), name, None)
    try:
        task = found() if inspect.isroutine(found) else found
    except Exception as error:  # whatever it raises
        raise RunError(f'--task {text}: raised {type(error).__name__}: {error}') from error
    if task is None or isinstance(task, type) or not isinstance(task, Task):
        raise RunError(f'--task {text}: is {found!r}: must be a task, such as a KerasTask, or a function returning one')
    return name, task


def _module(path: Path) -> Any:
    """Runs a file as a module, whose functions travel to workers by value."""
    spec = importlib.util.spec_from_file_location(f'file {path.stem}', path)  # no name of a library's
    if not path.is_file() or spec is None or spec.loader is None:
        raise RunError(f'--task {path}: there is no such Python file')
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    cloudpickle.register_pickle_by_value(module)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever it raises
        raise RunError(f'--task {path}: raised {type(error).__name__}: {error}') from error
    return module


def main() -> None:
    """Runs the command."""
    commandline.main(bench)
