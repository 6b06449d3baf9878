"""The best rules of a search again, on fresh seeds, beside optimizers made by hand (what Figure 5 asks, in small).

The reward that made a rule the best of a thousand was also its luck. Here every rule trains under the same procedure
with seeds that the search has not seen, the baselines too, and differences are paired by seed.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nos_tf.compare.paired import Difference, half_width
from nos_tf.dsl.rule import UpdateRule
from nos_tf.evaluation.jobs import Job
from nos_tf.tasks.child import Outcome


@dataclass(frozen=True)
class Score:
    """A rule on fresh seeds; half-widths are of 95% intervals by Student's t."""

    name: str  # of a baseline, or empty
    rule: str  # infix
    search_reward: float | None  # that the search saw; where rules have more seeds, their shrunk mean
    mean: float
    half_width: float
    difference: float | None  # to the best baseline, paired by seed
    difference_half_width: float | None
    learning_rate: float | None  # the sweep's most frequent winner; None on a suite, where each task has its own
    rewards: tuple[float, ...]


def rescore(
    candidates: dict[UpdateRule, float],
    baselines: Sequence[str],
    seeds: Sequence[int],
    train: Callable[[list[Job]], dict[Job, Outcome]],
) -> list[Score]:
    """Trains candidates and baselines on every seed.

    Args:
        candidates: canonical rules and the reward that the search saw.
        baselines: names of known rules.
        seeds: at least one; two or more give intervals.
        train: the outcomes of jobs, from the store or trained.

    Returns:
        the scores, the highest mean first.
    """
    named = {name: UpdateRule.parse(name).canonical() for name in baselines}
    programs = {**dict.fromkeys(candidates, ''), **{rule: name for name, rule in named.items()}}
    outcomes = train([Job(rule, seed) for rule in programs for seed in seeds])
    rewards = {rule: np.array([outcomes[Job(rule, seed)].reward for seed in seeds]) for rule in programs}
    best = max((rewards[rule] for rule in named.values()), key=np.mean, default=None)
    scores = []
    for rule, name in programs.items():
        difference = None if best is None else Difference.of(rewards[rule], best)
        rates = [rate for seed in seeds if not math.isnan(rate := outcomes[Job(rule, seed)].learning_rate)]
        scores.append(
            Score(
                name=name,
                rule=rule.infix,
                search_reward=candidates.get(rule),
                mean=float(rewards[rule].mean()),
                half_width=half_width(rewards[rule]),
                difference=None if difference is None else difference.mean,
                difference_half_width=None if difference is None else difference.half_width,
                learning_rate=max(sorted(set(rates)), key=rates.count) if rates else None,
                rewards=tuple(map(float, rewards[rule])),
            )
        )
    return sorted(scores, key=lambda score: -score.mean)
