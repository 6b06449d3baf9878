"""The ruler of a gain: the loss that tuned Adam reaches on a task, and how much known rules differ there.

Adam at its defaults is a straw man in short trainings, where an average over a thousand steps never warms up. So the
reference is the best of eighteen settings, each at the rate that is best for it. What is found is kept in the run
directory, training by training, and then in the identity of the run.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nos_tf import output
from nos_tf.compare.tuning import TuningSetup, tune
from nos_tf.dsl.primitives import RuleConstants
from nos_tf.errors import RunError
from nos_tf.tasks.child import Child
from nos_tf.tasks.suite import Gain
from nos_tf.tasks.sweep import bowls

FOLDER = 'ruler'  # of a run directory
TRAININGS = 76  # of rules, each at all rates that a child tries
SEEDS = (900_001, 900_002)  # which searches and comparisons leave alone
ADAM = tuple(
    f'adam with beta_1={beta_1:g}, beta_2={beta_2:g}, epsilon={epsilon:g}'
    for beta_1, beta_2, epsilon in itertools.product((0.8, 0.9, 0.95), (0.95, 0.99, 0.999), (1e-8, 1e-4))
)
PANEL = (
    'sgd', 'momentum', 'adam', 'rmsprop', 'signsgd', 'signum', 'addsign', 'powersign_plus_clip', 'momentum_exp_v',
    'powersign', 'drop10_powersign', 'clip_rmsprop_plus_drop30_momentum', 'adam_powersign', 'sgd_plus_drop30_momentum',
    'lion', 'nadam', 'cautious_adam', 'cautious_lion', 'grams', 'sign_sum',
)  # fmt: skip
"""Known rules of many kinds; the list is frozen, for gains are in units of their spread."""

LOWEST = -1.0  # log(reference / loss) of the panel is clipped there: one hopeless rule would be all of the spread


class Ruler(NamedTuple):
    """The reference of a gain."""

    optimizer: str  # the setting of Adam that was best
    learning_rate: float  # that was best for it, over the seeds
    reference: float  # its loss there, the geometric mean over the seeds
    spread: float


def with_ruler(gain: Gain, child: Child, evaluator: Any, folder: Path, *, allow_mixed: bool = False) -> Gain:
    """Returns the task with its reference and spread.

    Raises:
        RunError: as `find_ruler`.
    """
    untrained = gain.untrained  # which the task must have
    ruler = find_ruler(gain, untrained, child, evaluator, folder, allow_mixed=allow_mixed)
    output.say(
        f'reference: {ruler.optimizer} at {ruler.learning_rate:g}, loss {ruler.reference:g}; known rules spread by '
        f'{ruler.spread:g} (log)'
    )
    return replace(gain, **ruler._asdict())


def find_ruler(
    gain: Gain, untrained: float, child: Child, evaluator: Any, folder: Path, *, allow_mixed: bool = False
) -> Ruler:
    """Tunes Adam and the panel on a task; what is on file in the folder is not trained again.

    Args:
        gain: whose task is judged as it says.
        untrained: the loss before training.
        child: of which the learning rates and the sweep are taken.
        evaluator: whose processes train.
        folder: gets trainings.sqlite.
        allow_mixed: as of `nos_tf.store.database.Database`.

    Raises:
        RunError: Adam learns nothing on the task; or the folder holds the ruler of another task.
    """
    child = replace(child, refine=True, constants=RuleConstants(), seed=0)
    setup = TuningSetup(gain.of_logs, child, (*PANEL, *ADAM))
    found = tune(setup, SEEDS, evaluator, folder, title='finding the reference', allow_mixed=allow_mixed)
    tried = {
        contender: [
            bowls(child.learning_rates, tuned.sweep)[1] or {tuned.learning_rate: tuned.measure} for tuned in seeds
        ]
        for contender, seeds in found.items()
    }
    return ruler_of({contender: best_rate(seeds) for contender, seeds in tried.items()}, untrained)


def best_rate(tried: Sequence[Mapping[float, float]]) -> tuple[float, float]:
    """Returns the best learning rate over seeds, and the mean of its measures.

    Args:
        tried: learning rate -> measure, of each seed; where seeds have no rate in common, that of the best measure.
    """
    shared = [rate for rate in tried[0] if all(rate in of for of in tried)]
    if not shared:
        best = max((measure, rate) for of in tried for rate, measure in of.items())[1]
        return best, float(np.mean([max(of.values()) for of in tried]))
    means = {rate: float(np.mean([of[rate] for of in tried])) for rate in shared}
    rate = max(shared, key=means.__getitem__)
    return rate, means[rate]


def ruler_of(found: Mapping[str, tuple[float, float]], untrained: float) -> Ruler:
    """Returns the ruler that follows from `ADAM` and `PANEL`.

    Args:
        found: contender -> its learning rate, and minus the logarithm of its loss.
        untrained: the loss before training.

    Raises:
        RunError: no setting of Adam has a loss below that of the untrained model, or all are alike.
    """
    logs = {contender: -measure for contender, (_, measure) in found.items()}
    best = min(ADAM, key=logs.__getitem__)
    if logs[best] >= math.log(untrained):
        raise RunError(
            f'Gain.task: Adam reaches a loss of {math.exp(logs[best]):g} at best, and the untrained model has '
            f'{untrained:g}: there is nothing to compare with; look at learning rates, steps and data'
        )
    gains = [max(logs[best] - logs[contender], LOWEST) for contender in PANEL]
    spread = float(np.std(gains, ddof=1))
    if not spread > 0:
        raise RunError(
            f'Gain.task: all known rules end with the same loss, {math.exp(logs[best]):g} (untrained {untrained:g}): '
            'nothing tells them apart; look at learning rates, steps and data'
        )
    return Ruler(best, found[best][0], float(f'{math.exp(logs[best]):.6g}'), float(f'{spread:.6g}'))
