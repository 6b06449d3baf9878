"""Rules that cannot train, told by their formula: no gradient in it, a constant, nothing finite, nothing at all.

A rule is judged on fixed probes in float64. It is condemned only where no training could be otherwise: whoever trains
it nevertheless gets a network that has learned nothing. Many bad rules pass, and are left to training.
"""

import dataclasses
import hashlib

import numpy as np

from nos_tf.dsl import equivalence
from nos_tf.dsl.expression import Expression
from nos_tf.dsl.primitives import SLOTS, Inputs, RuleConstants
from nos_tf.dsl.rule import UpdateRule

GRADIENTS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # typical of the elements of a real network's gradient
PROBES = 256  # of each
WEIGHTS = 0.1  # typical of the weights
MOST_NON_FINITE = 0.05  # of the updates at a scale; each makes a weight NaN for good, and soon the whole network
ROUNDING = 1e-7  # relative, of float32: what differs by less is the same to a network


def why_untrainable(rule: UpdateRule, constants: RuleConstants | None = None) -> str | None:
    """Why a network cannot learn by a rule, in a few words; None for a rule that may train.

    Args:
        rule: any; a random one is judged by one draw of its masks and of its noise.
        constants: the hyper-parameters of rules.

    >>> why_untrainable(UpdateRule.parse('1e-3*w + noise'))
    'reads no gradient'
    >>> why_untrainable(UpdateRule.parse('powersign')) is None
    True
    """
    if not rule.reads_gradient:
        return 'reads no gradient'
    expression = rule.canonical().expression
    later = _probes(constants or RuleConstants())
    first = dataclasses.replace(  # the first step
        later,
        averages={slot.name: later.g**slot.power for slot in SLOTS.values()},
        before={slot: np.zeros_like(later.g) for slot in SLOTS},
        step=np.ones_like(later.g),
        progress=np.zeros_like(later.g),
    )
    updates = equivalence.evaluate(expression, later, _uniform)
    if _is_not_finite(updates) or _is_not_finite(equivalence.evaluate(expression, first, _uniform)):
        return 'is not finite'
    if not updates.any():
        return 'stays zero'
    if _same(updates, updates[0]):
        return 'is constant'
    if _same(updates, equivalence.evaluate(expression, _of_other_gradients(later), _uniform)):
        return 'does not depend on the gradient'
    return None


def _is_not_finite(updates: np.ndarray) -> bool:
    """Whether too many updates overflow float32 at every scale of gradients; at one, a network may never be."""
    with np.errstate(over='ignore'):
        overflows = ~np.isfinite(updates.astype(np.float32)).reshape(-1, PROBES)
    return bool(np.all(overflows.mean(axis=1) > MOST_NON_FINITE))


def _probes(constants: RuleConstants) -> Inputs:
    """Inputs whose gradients have the scales of real ones, and whose weights and noise have their own."""
    inputs = equivalence.probes(constants, GRADIENTS, len(GRADIENTS) * PROBES)
    random = np.random.Generator(np.random.PCG64(20170807))
    w, normal = random.standard_normal([2, len(inputs.g)])
    return dataclasses.replace(inputs, w=WEIGHTS * w, draw=equivalence.Draws(normal))


def _of_other_gradients(inputs: Inputs) -> Inputs:
    """Every probe with the gradient and the averages of another one, of another scale, and all else as it was."""
    shift = len(inputs.g) // 2 + 1
    averages, before = (
        {name: np.roll(values, shift) for name, values in part.items()} for part in (inputs.averages, inputs.before)
    )
    return dataclasses.replace(inputs, g=np.roll(inputs.g, shift), averages=averages, before=before)


def _uniform(drop: Expression) -> np.ndarray:
    """The draws of one `drop`, like no other's: in [0, 1), as many as there are probes."""
    seed = int.from_bytes(hashlib.sha256(repr(drop).encode()).digest()[:8], 'big')
    return np.random.Generator(np.random.PCG64(seed)).random(len(GRADIENTS) * PROBES)


def _same(updates: np.ndarray, others: np.ndarray) -> bool:
    return np.allclose(updates, others, rtol=ROUNDING, atol=0, equal_nan=True)
