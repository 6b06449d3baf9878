"""What learns from the rewards of rules: TRPO, REINFORCE, and random search as their control (Sections 3.2, 4.2).

A learner is a dataclass whose fields are its hyper-parameters and nothing else; `repr` is its identity. `start` gives
it a policy. From then on it is a state and two verbs: `propose` reads the state, `update` changes it.

How "TRPO" and "the ADAM optimizer with a learning rate of 10^-5" go together is the choice of `TRPO.solver`, which
`solvers.py` explains: `NaturalGradient`, the default, or `AdamSurrogate`.
"""

import dataclasses
from typing import Protocol

import gin
import numpy as np

from nos_tf.controller.agent import Agent, Metrics, Samples, State, check_state, checked_batch
from nos_tf.controller.policy import Policy
from nos_tf.controller.solvers import AdamStep, NaturalGradient, Solver, validate
from nos_tf.dsl.space import SearchSpace


class Learner(Protocol):
    """Proposes rules and learns from their rewards.

    Every metric of `update` is of the policy on the batch it was given: `log_prob` and `entropy` (nats) before the
    update; `baseline`, what the rewards were compared with; `kl` (nats) from before to after; `step_size`, the
    Euclidean norm of the change of the weights; `improvement` of the surrogate; `accepted`, 1, or 0 where the weights
    stay as they were. A learner leaves out what it does not have.
    """

    batch_size: int

    def start(self, space: SearchSpace, seed: int) -> None:
        """Forgets everything and builds the policy; the same seed gives the same one, bit for bit."""

    def propose(self, count: int, iteration: int) -> Samples:
        """Returns count rules: a pure function of (state, seed, iteration)."""

    def update(self, choices: np.ndarray, rewards: np.ndarray, log_probs: np.ndarray) -> Metrics:
        """Learns from rules `[B, T]`, their rewards `[B]` and the log_probs `[B]` they were proposed with."""

    def state(self) -> State:
        """Returns copies of everything that `update` changes."""

    def restore(self, state: State) -> None:
        """Takes up a state of a learner of the same hyper-parameters and space: what follows is bit-identical."""


@gin.register
@dataclasses.dataclass(kw_only=True)
class TRPO:
    """Trust Region Policy Optimization: each batch moves the policy as far as its KL allows (Section 3.2).

    Args:
      batch_size: children of one update.
      max_kl: delta, nats: the most that one update may change the policy.
      entropy_coefficient: reward per nat of the policy's entropy.
      baseline_decay: of the moving average of rewards, per batch.
      units: size of the controller's LSTM.
      solver: how the step is found: `NaturalGradient()` or `AdamSurrogate()`.
    """

    batch_size: int = 5
    max_kl: float = 0.05
    entropy_coefficient: float = 0.0015
    baseline_decay: float = 0.9
    units: int = 150
    solver: Solver = dataclasses.field(default_factory=NaturalGradient)

    def __post_init__(self) -> None:
        validate(self)

    def start(self, space: SearchSpace, seed: int) -> None:
        """Builds the policy."""
        self._agent = Agent(
            Policy(space, seed, self.units),
            seed,
            solver=self.solver,
            max_kl=self.max_kl,
            entropy_coefficient=self.entropy_coefficient,
            baseline_decay=self.baseline_decay,
        )

    def propose(self, count: int, iteration: int) -> Samples:
        """Returns samples of the policy."""
        return self._agent.propose(count, iteration)

    def update(self, choices: np.ndarray, rewards: np.ndarray, log_probs: np.ndarray) -> Metrics:
        """Takes one step inside the trust region."""
        return self._agent.update(choices, rewards, log_probs)

    def state(self) -> State:
        """Returns weights, memory of the solver and baseline."""
        return self._agent.state()

    def restore(self, state: State) -> None:
        """Takes up a state."""
        self._agent.restore(state)


@gin.register
@dataclasses.dataclass(kw_only=True)
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
    """

    batch_size: int = 5
    learning_rate: float = 1e-3
    entropy_coefficient: float = 0.0015
    baseline_decay: float = 0.9
    units: int = 150

    def __post_init__(self) -> None:
        validate(self)

    def start(self, space: SearchSpace, seed: int) -> None:
        """Builds the policy."""
        self._agent = Agent(
            Policy(space, seed, self.units),
            seed,
            solver=AdamStep(self.learning_rate),
            max_kl=np.inf,
            entropy_coefficient=self.entropy_coefficient,
            baseline_decay=self.baseline_decay,
        )

    def propose(self, count: int, iteration: int) -> Samples:
        """Returns samples of the policy."""
        return self._agent.propose(count, iteration)

    def update(self, choices: np.ndarray, rewards: np.ndarray, log_probs: np.ndarray) -> Metrics:
        """Takes one ADAM step."""
        return self._agent.update(choices, rewards, log_probs)

    def state(self) -> State:
        """Returns weights, ADAM's moments and baseline."""
        return self._agent.state()

    def restore(self, state: State) -> None:
        """Takes up a state."""
        self._agent.restore(state)


@gin.register
@dataclasses.dataclass(kw_only=True)
class RandomSearch:
    """Chooses each token uniformly among the legal ones, for ever: what a learner must beat.

    Args:
      batch_size: children of one batch.
    """

    batch_size: int = 5

    def __post_init__(self) -> None:
        validate(self)

    def start(self, space: SearchSpace, seed: int) -> None:
        """Remembers the legal choices of each step."""
        self._masks, self._seed = space.masks, seed

    def propose(self, count: int, iteration: int) -> Samples:
        """Returns uniform samples, with their exact log-probabilities."""
        rng = np.random.default_rng([self._seed, iteration])
        choices = np.zeros([count, len(self._masks)], np.int32)
        log_probs = np.zeros([count])
        for step, mask in enumerate(self._masks):
            rows = choices[:, step - 1] if len(mask) > 1 else np.zeros(count, np.int32)
            legal = mask[rows]
            choices[:, step] = np.argmax(np.where(legal, rng.random(legal.shape), -1.0), axis=-1)
            log_probs -= np.log(legal.sum(axis=-1))
        return Samples(choices, log_probs.astype(np.float32))

    def update(self, choices: np.ndarray, rewards: np.ndarray, log_probs: np.ndarray) -> Metrics:
        """Learns nothing; estimates the entropy of the uniform policy from the batch."""
        batch = checked_batch(len(self._masks), choices, rewards, log_probs)
        return {'log_prob': float(batch.log_probs.mean()), 'entropy': float(-batch.log_probs.mean())}

    def state(self) -> State:
        """Returns {}: there is nothing to remember."""
        return {}

    def restore(self, state: State) -> None:
        """Takes up a state, which must be {}."""
        check_state(state, {})
