"""A rule as a point in Euclidean space: rules that change weights alike are near, however they are spelled.

The point is the update on the probes of `equivalence.py`, in units of its median magnitude, since the sweep of learning
rates makes up for any scale, and through an arctangent, since few large values should not drown the rest. Random
primitives have the same draws in every rule.
"""

from functools import lru_cache

import numpy as np

from nos_tf.dsl.equivalence import PROBES, canonical_tokens, evaluate, probes
from nos_tf.dsl.expression import from_tokens
from nos_tf.dsl.primitives import RuleConstants
from nos_tf.dsl.rule import UpdateRule

LARGEST = 1e100  # so that a median is finite
ALIKE = 0.1  # distance within which two rules may be taken for one; from sgd to powersign it is .14

_UNIFORM = np.random.Generator(np.random.PCG64(20170809)).random(PROBES)


def embedding(rule: UpdateRule, constants: RuleConstants | None = None) -> np.ndarray:
    """The point of a rule: float64 [256], of mean square 1, or 0 where the update is; NaN counts as 0.

    Args:
        rule: any.
        constants: the hyper-parameters of rules; None for the paper's.
    """
    return _embedding(canonical_tokens(rule.tokens), constants or RuleConstants())


def distance(rule: UpdateRule, other: UpdateRule) -> float:
    """How differently two rules change weights: root mean square over the probes, from 0 to 2.

    >>> m = UpdateRule.parse('m')
    >>> distance(m, UpdateRule.parse('m * exp(v)')), distance(m, UpdateRule.parse('drop(m, 0.1)'))
    (0.059, 0.390)
    """
    return float(np.sqrt(np.mean(np.square(embedding(rule) - embedding(other)))))


@lru_cache(maxsize=65536)
def _embedding(tokens: tuple[str, ...], constants: RuleConstants) -> np.ndarray:
    update = evaluate(from_tokens(tokens), probes(constants), lambda expression: _UNIFORM)
    update = np.clip(np.nan_to_num(update, nan=0.0), -LARGEST, LARGEST)
    sizes = np.abs(update)
    point = np.zeros(PROBES)
    if sizes.any():
        with np.errstate(over='ignore'):
            point = np.arctan(update / np.median(sizes[sizes > 0]))
        point /= np.sqrt(np.mean(np.square(point)))
    point.flags.writeable = False  # it is shared by all who ask
    return point
