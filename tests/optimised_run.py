"""What `tests/test_optimised.py` runs under `python -O` and `-OO`: every refusal that needs no fixture but a directory.

`assert` says nothing there, so the tests that are called are those that say `pytest.raises`, which raises itself; the
parsers of the launchers are called beside them. Prints how many calls there were, and each that went wrong.
"""

import contextlib
import importlib
import inspect
import io
import itertools
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'launch')]

import pytest  # noqa: E402

from tests import conftest as _one_thread  # noqa: E402, F401
from tests import launching  # noqa: E402

MODULES = [
    'tests.test_config', 'tests.benchmarks.test_table_columns', 'tests.dsl.test_classes',
    'tests.dsl.test_embedding', 'tests.dsl.test_primitives',
    'tests.dsl.test_reader', 'tests.dsl.test_rule', 'tests.dsl.test_space', 'tests.optimizers.test_constants',
    'tests.optimizers.test_contender', 'tests.optimizers.test_nos_optimizer',
    'tests.optimizers.test_optimizer_class', 'tests.evaluation.cluster.test_config',
    'tests.evaluation.cluster.test_notes', 'tests.compare.test_comparison', 'tests.tasks.test_child',
    'tests.tasks.test_convnet', 'tests.tasks.test_data',
    'tests.tasks.test_image_classification', 'tests.tasks.test_recipe', 'tests.tasks.test_rosenbrock',
    'tests.tasks.test_wide_resnet', 'tests.launch.gnmt.test_beam', 'tests.launch.gnmt.test_model',
    'tests.launch.gnmt.test_recipe', 'tests.launch.gnmt.test_text', 'tests.launch.gnmt.test_transfer',
]  # fmt: skip
WITH_FILES = [
    'tests.store.test_database',
    'tests.store.test_locks',
    'tests.store.test_results',
    'tests.store.test_trainings',
]
WITH_TFP = ['tests.controller.test_learners', 'tests.search.test_search']  # whose tf_keras cannot do without docstrings

LAUNCHERS = {
    'cifar10': 'compare',
    'gnmt/train': 'transfer',
    'report': 'draw',
    'rosenbrock': 'run',
    'server': 'serve',
}
NO_FILES = 'no configuration: give --gin_files'
MISTAKES = [
    ('cifar10', ['--run_dir', 'x'], NO_FILES),
    ('gnmt/train', ['--run_dir', 'x'], NO_FILES),
    ('report', [], 'required: --run_dir'),
    ('rosenbrock', ['--run_dir', 'x', '--rules', 'adam with 0.5'], 'after "with" comes name=number'),
    ('rosenbrock', ['--run_dir', 'x', '--iterations', '0'], 'must be a whole number'),
    ('server', ['--threads', '0'], 'must be a whole number from 1 to 1024'),
]


def refusals(module: Any, *fixtures: str) -> Iterator[tuple[Callable[..., None], dict[str, Any]]]:
    """The tests of a module that say `pytest.raises` and want no more than these fixtures, with all their arguments."""
    for name, test in list(vars(module).items()):
        if not name.startswith('test_') or 'pytest.raises' not in inspect.getsource(test):
            continue
        marks = getattr(test, 'pytestmark', ())
        if any(mark.name == 'skipif' and mark.args[0] for mark in marks):
            continue
        tables = [mark.args for mark in marks if mark.name == 'parametrize']
        names = [key.strip() for keys, _ in tables for key in (keys.split(',') if isinstance(keys, str) else keys)]
        if not set(inspect.signature(test).parameters) <= {*names, *fixtures}:
            continue
        rows = (
            [row if isinstance(row, list | tuple) and _is_many(keys) else (row,) for row in table]
            for keys, table in tables
        )
        for row in itertools.product(*rows):
            yield test, dict(zip(names, itertools.chain(*row), strict=True))


def _is_many(keys: Any) -> bool:
    return not isinstance(keys, str) or ',' in keys


def refuse(test: Callable[..., None], arguments: dict[str, Any]) -> None:
    """Calls a test, in a directory of its own if it wants one."""
    with tempfile.TemporaryDirectory() as folder:
        wants = 'tmp_path' in inspect.signature(test).parameters
        test(**arguments, **({'tmp_path': Path(folder)} if wants else {}))


def launch(name: str, argv: list[str], code: int, said: str) -> None:
    """Calls a launcher, which must leave with a code, and say something."""
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told), pytest.raises(SystemExit) as left:
        launching.run_here(name, LAUNCHERS[name], *argv)
    if left.value.code != code or said not in told.getvalue():
        raise RuntimeError(f'{name} {argv}: left with {left.value.code}, and said {told.getvalue()!r}')


def calls() -> Iterator[tuple[str, Callable[[], None]]]:
    """Everything that is called, with a name."""
    for name in [*MODULES, *WITH_FILES, *(WITH_TFP if sys.flags.optimize < 2 else ())]:
        for test, arguments in refusals(importlib.import_module(name), *(['tmp_path'] if name in WITH_FILES else ())):
            yield f'{name}.{test.__name__} {arguments}', lambda test=test, arguments=arguments: refuse(test, arguments)
    for name in LAUNCHERS:
        yield f'{name} --help', lambda name=name: launch(name, ['--help'], 0, 'NOS_TF_TRACEBACK')
    for name, argv, said in MISTAKES:
        yield f'{name} {argv}', lambda name=name, argv=argv, said=said: launch(name, argv, 2, said)


def main() -> None:
    """Calls everything; the last line says how many calls there were, and how many went wrong."""
    with pytest.raises((AssertionError, pytest.fail.Exception)), pytest.raises(ValueError, match='this'):
        raise ValueError('that')  # or else no message is compared here
    done = wrong = 0
    for name, call in calls():
        try:
            call()
        except (Exception, pytest.fail.Exception) as error:
            wrong += 1
            print(f'{name}: {type(error).__name__}: {error}')
        done += 1
    print(f'{sys.flags.optimize} {done} {wrong}')


if __name__ == '__main__':
    main()
