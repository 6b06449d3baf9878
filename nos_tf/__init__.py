"""Neural Optimizer Search (Bello, Zoph, Vasudevan & Le, ICML 2017) on TensorFlow 2 and Keras 3.

The house, from the ground up; nothing imports what stands above it, but for `Search.report()`, which draws:

    dsl/          the language of update rules
    optimizers/   a rule as a Keras optimizer (NOSOptimizer), or run by one graph for all rules (the interpreter)
    controller/   the policy that writes rules, and the learners that improve it
    tasks/        data and a model -> a child -> a reward; longer trainings; Rosenbrock's function
    evaluation/   who trains: this process, a pool, a cluster, or a table of known rewards
    store/        results in SQLite
    search/       the loop: sample, evaluate, learn, save, log
    compare/      optimizers side by side
    report/       a finished search or comparison as tables, figures and report.html
    cli/          the command nos-tf

Below all of it are config.py (values that gin can set), errors.py, files.py and output.py.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.space import SearchSpace
from nos_tf.version import __version__

if TYPE_CHECKING or 'keras' in sys.modules:  # Keras loads a model only if the class of its optimizer is there
    from nos_tf.optimizers.nos_optimizer import AddSign, NOSOptimizer, PowerSign, optimizer_class
if TYPE_CHECKING:
    from nos_tf.compare.bench import Bench, bench
    from nos_tf.search.search import Search
    from nos_tf.tasks.keras_task import KerasTask
    from nos_tf.tasks.suite import Gain, Suite

__all__ = [
    'AddSign',
    'Bench',
    'Gain',
    'KerasTask',
    'NOSOptimizer',
    'PowerSign',
    'Search',
    'SearchSpace',
    'Suite',
    'UpdateRule',
    '__version__',
    'bench',
    'optimizer_class',
]


_LATER = {
    **dict.fromkeys(('Bench', 'bench'), 'nos_tf.compare.bench'),
    'Gain': 'nos_tf.tasks.suite',
    'KerasTask': 'nos_tf.tasks.keras_task',
    'Search': 'nos_tf.search.search',
    'Suite': 'nos_tf.tasks.suite',
    **dict.fromkeys(('AddSign', 'NOSOptimizer', 'PowerSign', 'optimizer_class'), 'nos_tf.optimizers.nos_optimizer'),
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for: the language needs no Keras, and training a model no `Search`."""
    if name in _LATER:
        try:
            module = import_module(_LATER[name])
        except AttributeError as error:  # of a library; Python would take it for our saying that there is no such name
            raise ImportError(f'nos_tf.{name} cannot be imported: {type(error).__name__}: {error}') from error
        return getattr(module, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
