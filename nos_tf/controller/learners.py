"""What learns from the rewards of rules: TRPO, and what it is compared with (Sections 3.2, 4.2).

A learner is a value, whose fields are its hyper-parameters and nothing else. `start` gives an agent, which is a state
and two verbs: `propose` reads the state, `update` changes it.

How "TRPO" and "the ADAM optimizer with a learning rate of 10^-5" go together is the choice of `TRPO.solver`, which
`solvers.py` explains: `NaturalGradient`, the default, or `AdamSurrogate`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import gin
import numpy as np

from nos_tf.controller.agent import Agent, UniformAgent
from nos_tf.controller.bayes import BayesianAgent
from nos_tf.controller.distinct import DistinctAgent
from nos_tf.controller.evolution import EvolutionAgent
from nos_tf.controller.policy import Policy
from nos_tf.controller.policy_agent import PolicyAgent
from nos_tf.controller.solvers import AdamSteps, NaturalGradient, Solver, validate
from nos_tf.controller.warm_start import WarmAgent
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.space import SearchSpace


@runtime_checkable
class Learner(Protocol):
    """A way to learn, as a value; `start` gives the agent that does it."""

    @property
    def batch_size(self) -> int:
        """Rules of one batch."""

    def start(self, space: SearchSpace, seed: int) -> Agent:
        """Returns a new agent; the same seed gives the same one, bit for bit."""


@gin.register
@dataclasses.dataclass(frozen=True, kw_only=True)
class TRPO:
    """Trust Region Policy Optimization: each batch moves the policy as far as its KL allows (Section 3.2).

    Args:
      batch_size: children of one update.
      max_kl: delta, nats: the most that one step may change the policy, on the rules that it learns from.
      kl_samples: rules that each update draws from the policy, beside the batch, to estimate the KL and the Fisher
        matrix on; they need no child. 0: the batch alone.
      replay: the last so many rules are learned from again with each batch, by importance weights; not in the paper.
      steps: trust-region steps of one update; the paper takes one.
      elites: the best so many rules are learned from again with each batch, by importance weights; not in the paper.
      mutants: the share of each batch that are elites with one token changed, as in evolution, from which the policy
        learns as if it had drawn them (after Mundhenk et al. 2021); not in the paper.
      entropy_half_life: updates after which the entropy coefficient is one half; None, as in the paper, if it stays.
      entropy_target: nats; while the policy's entropy is below, the coefficient grows. None, as in the paper: it is
        fixed.
      quantile: what a batch is compared with, such as .75 for the quarter of its rules that have the best rewards; the
        others teach nothing (risk-seeking policy gradients: Petersen et al. 2021). None, as in the paper: the moving
        average of rewards, and all rules teach.
      entropy_coefficient: reward per nat of the policy's entropy.
      baseline_decay: of the moving average of rewards, per batch.
      units: size of the controller's LSTM.
      weight_range: its weights start uniform in [-weight_range, weight_range].
      solver: how the step is found: `NaturalGradient()` or `AdamSurrogate()`.
    """

    batch_size: int = 5
    max_kl: float = 0.05
    kl_samples: int = 0
    replay: int = 0
    steps: int = 1
    elites: int = 0
    mutants: float = 0.0
    entropy_half_life: float | None = None
    entropy_target: float | None = None
    quantile: float | None = None
    entropy_coefficient: float = 0.0015
    baseline_decay: float = 0.9
    units: int = 150
    weight_range: float = 0.08
    solver: Solver = dataclasses.field(default_factory=NaturalGradient)

    def __post_init__(self) -> None:
        validate(self)
        if self.entropy_target is not None and not self.entropy_coefficient:
            raise ValueError('TRPO.entropy_target: needs TRPO.entropy_coefficient > 0, which it lets grow')
        if self.mutants and not self.elites:
            raise ValueError(f'TRPO.mutants = {self.mutants}: needs TRPO.elites > 0, which they are mutants of')

    def start(self, space: SearchSpace, seed: int) -> PolicyAgent:
        """Returns an agent with a new policy."""
        return _policy_agent(
            self,
            space,
            seed,
            self.solver,
            max_kl=self.max_kl,
            kl_samples=self.kl_samples,
            replay=self.replay,
            steps=self.steps,
            elites=self.elites,
            mutants=self.mutants,
            entropy_half_life=self.entropy_half_life,
            entropy_target=self.entropy_target,
            quantile=self.quantile,
        )


@gin.register
@dataclasses.dataclass(frozen=True, kw_only=True)
class Reinforce:
    """The policy gradient of Zoph & Le (2017), which the paper improves on: one ADAM step a batch, no trust region.

    A rule that an older policy drew is weighted by the ratio of its probabilities then and now, as in TRPO; for the
    policy's own rules the ratio is 1.

    Args:
      batch_size: children of one update.
      learning_rate: of ADAM. 1e-3 learns in about a thousand children; 1e-5, not in five thousand.
      entropy_coefficient: reward per nat of the policy's entropy.
      baseline_decay: of the moving average of rewards, per batch.
      units: size of the controller's LSTM.
      weight_range: its weights start uniform in [-weight_range, weight_range].
    """

    batch_size: int = 5
    learning_rate: float = 1e-3
    entropy_coefficient: float = 0.0015
    baseline_decay: float = 0.9
    units: int = 150
    weight_range: float = 0.08

    def __post_init__(self) -> None:
        validate(self)

    def start(self, space: SearchSpace, seed: int) -> PolicyAgent:
        """Returns an agent with a new policy."""
        return _policy_agent(self, space, seed, AdamSteps(self.learning_rate))


@gin.register
@dataclasses.dataclass(frozen=True, kw_only=True)
class PPO:
    """Proximal Policy Optimization: several ADAM steps a batch on clipped ratios (Schulman et al. 2017).

    Args:
      batch_size: children of one update.
      learning_rate: of ADAM.
      steps: ADAM steps of one update.
      clip: ratios of probabilities are worth no more than 1 + clip, and no less than 1 - clip.
      entropy_coefficient: reward per nat of the policy's entropy.
      baseline_decay: of the moving average of rewards, per batch.
      units: size of the controller's LSTM.
      weight_range: its weights start uniform in [-weight_range, weight_range].
    """

    batch_size: int = 5
    learning_rate: float = 1e-3
    steps: int = 5
    clip: float = 0.2
    entropy_coefficient: float = 0.0015
    baseline_decay: float = 0.9
    units: int = 150
    weight_range: float = 0.08

    def __post_init__(self) -> None:
        validate(self)

    def start(self, space: SearchSpace, seed: int) -> PolicyAgent:
        """Returns an agent with a new policy."""
        return _policy_agent(self, space, seed, AdamSteps(self.learning_rate, self.steps), clip=self.clip)


@gin.register
@dataclasses.dataclass(frozen=True, kw_only=True)
class Evolution:
    """Regularised evolution (Real et al. 2019): children of the best of a few, in a population of the last ones.

    Args:
      batch_size: children of one batch.
      population: how many of the last rules may have children.
      tournament: of how many of them the best has a child.
      crossover: the share of children that have two parents; not in that paper, as the next.
      drift: mutate a child until its update is not a multiple of its parent's.
    """

    batch_size: int = 5
    population: int = 100
    tournament: int = 10
    crossover: float = 0.0
    drift: bool = False

    def __post_init__(self) -> None:
        validate(self)

    def start(self, space: SearchSpace, seed: int) -> EvolutionAgent:
        """Returns an agent without a population."""
        return EvolutionAgent(
            space,
            seed,
            population=self.population,
            tournament=self.tournament,
            crossover=self.crossover,
            drift=self.drift,
        )


@gin.register
@dataclasses.dataclass(frozen=True, kw_only=True)
class Bayesian:
    """Bayesian optimisation over what rules do, by a Gaussian process and Thompson sampling: not in the paper.

    Args:
      batch_size: children of one batch.
      initial: rules that are drawn uniformly before there is a model.
      candidates: rules that the model looks at for each batch.
      parents: good rules whose neighbours are half of the candidates.
      memory: rules that the model knows at most; its time grows with the cube of it.
    """

    batch_size: int = 5
    initial: int = 20
    candidates: int = 1000
    parents: int = 10
    memory: int = 500

    def __post_init__(self) -> None:
        validate(self)
        if self.memory < max(2, self.initial):
            raise ValueError(
                f'Bayesian.memory = {self.memory}: must be at least 2 and at least {self.initial} = initial'
            )

    def start(self, space: SearchSpace, seed: int) -> BayesianAgent:
        """Returns an agent that knows no rule."""
        return BayesianAgent(
            space,
            seed,
            initial=self.initial,
            candidates=self.candidates,
            parents=self.parents,
            memory=self.memory,
        )


@gin.register
@dataclasses.dataclass(frozen=True, kw_only=True)
class WarmStart:
    """Another learner, which is first told the rewards of known rules: not in the paper.

    Args:
      learner: who learns.
      rules: names of known rules, or rules in any notation, in the order of their evaluation. Those that the space
        cannot spell are left out; a rule of fewer iterations than the space needs `left` to be spelled.

    Raises:
      ValueError: no learner, an unknown rule, or, from `start`, a space that can spell none of the rules.
    """

    learner: 'Learner'
    rules: Sequence[str] = ('sgd', 'momentum', 'rmsprop', 'adam', 'powersign', 'addsign')

    def __post_init__(self) -> None:
        _check_learner(self)
        object.__setattr__(self, 'rules', (self.rules,) if isinstance(self.rules, str) else tuple(self.rules))
        for rule in self.rules:
            try:
                UpdateRule.parse(rule)
            except ValueError as error:
                raise ValueError(f'WarmStart.rules has {rule!r}: {error}') from error

    @property
    def batch_size(self) -> int:
        """The batch size of the learner that is warmed up."""
        return self.learner.batch_size

    def start(self, space: SearchSpace, seed: int) -> WarmAgent:
        """Returns the agent of the learner, and before it the rules."""
        return WarmAgent(self.learner.start(space, seed), space, [UpdateRule.parse(rule) for rule in self.rules])


@gin.register
@dataclasses.dataclass(frozen=True, kw_only=True)
class Distinct:
    """Another learner that never proposes the update of a rule it has learned from again: not in the paper.

    Rules that are multiples of each other have one update. Where the learner has nothing new, it repeats itself.

    Args:
      learner: who learns.

    Raises:
      ValueError: no learner.
    """

    learner: 'Learner'

    def __post_init__(self) -> None:
        _check_learner(self)

    @property
    def batch_size(self) -> int:
        """The batch size of the learner."""
        return self.learner.batch_size

    def start(self, space: SearchSpace, seed: int) -> DistinctAgent:
        """Returns the agent of the learner, whose repetitions are left out."""
        return DistinctAgent(self.learner.start(space, seed), space)


@gin.register
@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomSearch:
    """Chooses each token uniformly among the legal ones, for ever: what a learner must beat.

    Args:
      batch_size: children of one batch.
    """

    batch_size: int = 5

    def __post_init__(self) -> None:
        validate(self)

    def start(self, space: SearchSpace, seed: int) -> UniformAgent:
        """Returns an agent that has nothing to learn."""
        return UniformAgent(space, seed)


def has_network(learner: Learner) -> bool:
    """Returns whether a learner trains a network, which computes on the threads of TensorFlow."""
    inner = getattr(learner, 'learner', None)
    return has_network(inner) if inner is not None else isinstance(learner, TRPO | Reinforce | PPO)


def _check_learner(outer: WarmStart | Distinct) -> None:
    if not hasattr(outer.learner, 'start') or isinstance(outer.learner, type):
        raise ValueError(f'{type(outer).__name__}.learner = {outer.learner!r}: write @Name(), with brackets')
    if type(outer.learner) is type(outer):
        raise ValueError(f'{type(outer).__name__}.learner = {outer.learner!r}: is one of the same kind already')


def _policy_agent(
    learner: TRPO | Reinforce | PPO, space: SearchSpace, seed: int, solver: Solver, **settings: Any
) -> PolicyAgent:
    """An agent with a new policy, by what all learners that have one share."""
    settings = {'max_kl': np.inf} | settings
    return PolicyAgent(
        Policy(space, seed, learner.units, learner.weight_range),
        seed,
        solver=solver,
        entropy_coefficient=learner.entropy_coefficient,
        baseline_decay=learner.baseline_decay,
        **settings,
    )
