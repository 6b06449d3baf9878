"""Neural Optimizer Search (Bello, Zoph, Vasudevan & Le, ICML 2017) on TensorFlow 2 and Keras 3.

The house, from the ground up; nothing imports what stands above it:

    dsl/          the language of update rules
    optimizers/   a rule as a Keras optimizer (NOSOptimizer), or run by one graph for all rules (the interpreter)
    tasks/        images -> child network -> reward
    controller/   the policy that writes rules, and the learners that improve it
    search/       the loop: sample, evaluate, learn, save, log
    report/       a finished search as a table, figures and report.html
"""

from typing import TYPE_CHECKING, Any

from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.space import SearchSpace
from nos_tf.optimizers.nos_optimizer import AddSign, NOSOptimizer, PowerSign, optimizer_class
from nos_tf.version import __version__

if TYPE_CHECKING:
    from nos_tf.search.loop import Search

__all__ = [
    'AddSign',
    'NOSOptimizer',
    'PowerSign',
    'Search',
    'SearchSpace',
    'UpdateRule',
    '__version__',
    'optimizer_class',
]


def __getattr__(name: str) -> Any:
    """`Search` is imported when it is asked for: who only trains a model needs neither TFP nor SQLite."""
    if name == 'Search':
        from nos_tf.search.loop import Search

        return Search
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
