"""What every learner that has a policy is made of: the policy, a baseline, a solver and its memory (Section 3.2).

The baseline of a batch is the exponential moving average of the mean rewards of the batches before it; the first batch,
which has none before it, takes its own mean. Advantages are reward - baseline, not standardised: a batch of five has no
use for its standard deviation, and dividing by it would drown the entropy bonus.
"""

import dataclasses
import math
from typing import NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from nos_tf.controller import trpo
from nos_tf.controller.policy import CHOICES, Policy, entropy, log_prob
from nos_tf.controller.solvers import Solver
from nos_tf.dsl.space import SearchSpace

Metrics = dict[str, float]
State = dict[str, np.ndarray]

KL = 1  # in the seed of a sample that is for the KL, so that it is no batch's


class Samples(NamedTuple):
    """Rules as the policy wrote them: choices, int32 `[B, T]`, and log p(rule) as it wrote them, float32 `[B]`."""

    choices: np.ndarray
    log_probs: np.ndarray


@dataclasses.dataclass
class Baseline:
    """Exponential moving average of the mean rewards of batches; None before the first.

    >>> baseline = Baseline(decay=0.9)
    >>> baseline.compare(np.array([0.25, 0.75]))
    (0.5, array([-0.25,  0.25]))
    >>> baseline.compare(np.array([1.0]))
    (0.5, array([0.5]))
    >>> baseline.value
    0.55
    """

    decay: float
    value: float | None = None

    def compare(self, rewards: np.ndarray) -> tuple[float, np.ndarray]:
        """Returns the baseline and rewards - baseline, `[B]`; only then does the baseline see the rewards `[B]`."""
        mean = float(rewards.mean())
        value = mean if self.value is None else self.value
        self.value = self.decay * value + (1 - self.decay) * mean
        return value, rewards - value


class Agent(Protocol):
    """Proposes rules and learns from their rewards.

    Every metric of `update` is of the policy on the batch it was given: `log_prob` and `entropy` (nats) before the
    update; `baseline`, what the rewards were compared with; `kl` (nats) from before to after; `step_size`, the
    Euclidean norm of the change of the weights; `improvement` of the surrogate; `accepted`, 1, or 0 where the weights
    stay as they were. An agent leaves out what it does not have.
    """

    def propose(self, count: int, iteration: int) -> Samples:
        """Returns count rules: a pure function of (state, seed, iteration)."""

    def update(self, choices: np.ndarray, rewards: np.ndarray, log_probs: np.ndarray) -> Metrics:
        """Learns from rules `[B, T]`, their rewards `[B]` and the log_probs `[B]` they were proposed with."""

    def state(self) -> State:
        """Returns copies of everything that `update` changes."""

    def restore(self, state: State) -> None:
        """Takes up a state of an agent of the same learner and space: what follows is bit-identical."""


class PolicyAgent:
    """A policy that one solver improves, batch by batch.

    Args:
      policy: writes the rules; its weights are what is learned.
      seed: of the samples.
      solver: takes the steps.
      max_kl: the most nats that one step may change the policy.
      kl_samples: rules drawn afresh for each update, on which KL and Fisher matrix are estimated beside the batch; they
        need no child. 0 for the batch alone.
      entropy_coefficient: reward per nat of the policy's entropy.
      baseline_decay: of the moving average of rewards, per batch.
      clip: of the ratios in the surrogate, as `trpo.surrogate` has it; None for none.
    """

    def __init__(
        self,
        policy: Policy,
        seed: int,
        *,
        solver: Solver,
        max_kl: float,
        entropy_coefficient: float,
        baseline_decay: float,
        kl_samples: int = 0,
        clip: float | None = None,
    ) -> None:
        self.policy, self.seed, self.kl_samples = policy, seed, kl_samples
        self.solver, self.max_kl, self.entropy_coefficient, self.clip = solver, max_kl, entropy_coefficient, clip
        self.baseline = Baseline(baseline_decay)
        self.updates = 0
        self._weights = [variable.value for variable in policy.trainable_variables]
        self._shapes = [weight.shape for weight in self._weights]
        dtype = self._weights[0].dtype
        self.memory = solver.memory(sum(shape.num_elements() for shape in self._shapes), dtype)
        batch = tf.TensorSpec([None], dtype)
        memory = tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), self.memory)
        self._traced_step = tf.function(self._step, autograph=False, input_signature=[CHOICES, batch, batch, memory])

    def propose(self, count: int, iteration: int) -> Samples:
        """Returns count samples of the policy as it is: a pure function of (weights, seed, iteration)."""
        return self._sample(count, self.seed, iteration)

    def _sample(self, count: int, *entropy: int) -> Samples:
        seed = np.random.SeedSequence(entropy).generate_state(2).view(np.int32)
        choices, log_probs = self.policy.sample(tf.constant(count), tf.constant(seed))
        return Samples(choices.numpy(), log_probs.numpy())

    def update(self, choices: np.ndarray, rewards: np.ndarray, log_probs: np.ndarray) -> Metrics:
        """Takes one solver step for rules `[B, T]`, their rewards `[B]` and their log_probs `[B]`, as proposed."""
        batch = checked_batch(self.policy.space, choices, rewards, log_probs)
        baseline, advantages = self.baseline.compare(batch.rewards)
        inputs = [tf.constant(x, self._weights[0].dtype) for x in (advantages, batch.log_probs)]
        prefixes = batch.choices
        if self.kl_samples:
            fresh = self._sample(self.kl_samples, self.seed, self.updates, KL)
            prefixes = np.concatenate([prefixes, fresh.choices])
        metrics, self.memory = self._traced_step(tf.constant(prefixes), *inputs, self.memory)
        self.updates += 1
        return {'baseline': baseline} | {name: float(value) for name, value in metrics.items()}

    def _step(
        self, choices: tf.Tensor, advantages: tf.Tensor, log_probs: tf.Tensor, memory: tuple
    ) -> tuple[dict, tuple]:
        """Moves the weights; returns the metrics, scalars, and the solver's next memory.

        The choices are `[B + M, T]`, the batch and M = kl_samples more rules; advantages and log_probs are `[B]`.
        """
        count = tf.shape(advantages)[0]
        batch = choices[:count]

        def objective(logits: tf.Tensor) -> tf.Tensor:
            return trpo.surrogate(logits[:count], batch, advantages, log_probs, self.entropy_coefficient, self.clip)

        problem = trpo.Problem(
            lambda theta: self.policy.logits_at(trpo.unflatten(theta, self._shapes), choices), objective
        )
        theta = trpo.flatten(self._weights)
        logits = problem.logits(theta)
        step, memory = self.solver.solve(problem, theta, memory, self.max_kl)
        self._assign(step.theta)
        metrics = {
            'log_prob': tf.reduce_mean(log_prob(logits[:count], batch)),
            'entropy': entropy(logits[:count]),
            'kl': step.kl,
            'step_size': tf.norm(step.theta - theta),
            'improvement': step.improvement,
            'accepted': tf.cast(step.accepted, theta.dtype),
        }
        return metrics, memory

    def _assign(self, theta: tf.Tensor) -> None:
        for weight, value in zip(self._weights, trpo.unflatten(theta, self._shapes), strict=True):
            weight.assign(value)

    def state(self) -> State:
        """Returns the weights as one vector, the solver's memory, the baseline (NaN before any batch), and a count."""
        value = math.nan if self.baseline.value is None else self.baseline.value
        memory = {f'solver_{i}': np.array(x) for i, x in enumerate(self.memory)}
        weights = np.array(trpo.flatten(self._weights))
        return {'weights': weights, 'baseline': np.array(value), 'updates': np.array(self.updates)} | memory

    def restore(self, state: State) -> None:
        """Takes up a state; raises ValueError for one of another shape, and changes nothing then."""
        check_state(state, self.state())
        self._assign(tf.constant(state['weights']))
        value = float(state['baseline'])
        self.baseline.value = None if math.isnan(value) else value
        self.updates = int(state['updates'])
        memory = [tf.constant(state[f'solver_{i}']) for i in range(len(self.memory))]
        self.memory = tf.nest.pack_sequence_as(self.memory, memory)


class UniformAgent:
    """Chooses each token uniformly among the legal ones, for ever.

    Args:
      space: what is legal.
      seed: of the samples.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._space, self._masks, self._seed = space, space.masks, seed

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
        batch = checked_batch(self._space, choices, rewards, log_probs)
        return {'log_prob': float(batch.log_probs.mean()), 'entropy': float(-batch.log_probs.mean())}

    def state(self) -> State:
        """Returns {}: there is nothing to remember."""
        return {}

    def restore(self, state: State) -> None:
        """Takes up a state, which must be {}."""
        check_state(state, {})


class Batch(NamedTuple):
    """What a learner learns from: choices int32 `[B, T]`, rewards float64 `[B]`, log_probs float32 `[B]`."""

    choices: np.ndarray
    rewards: np.ndarray
    log_probs: np.ndarray


def checked_batch(space: SearchSpace, choices: np.ndarray, rewards: np.ndarray, log_probs: np.ndarray) -> Batch:
    """Returns the batch of rules of a space; raises ValueError, naming the rule, where that is not what was given."""
    choices, rewards = np.asarray(choices, np.int32), np.asarray(rewards, np.float64)
    log_probs = np.asarray(log_probs, np.float32)
    count = len(rewards)
    if count == 0 or choices.shape != (count, space.num_steps) or log_probs.shape != (count,):
        given = f'choices {choices.shape}, rewards {rewards.shape}, log_probs {log_probs.shape}'
        expected = f'choices [B, {space.num_steps}], rewards [B], log_probs [B] with B >= 1'
        raise ValueError(f'expected {expected}, not {given}')
    for name, values in (('reward', rewards), ('log-probability', log_probs)):
        for i in np.flatnonzero(~np.isfinite(values)):
            rule = space.rule(choices[i]).infix
            raise ValueError(f'the {name} of {rule} is {values[i]}: must be finite (divergence earns its accuracy)')
    return Batch(choices, rewards, log_probs)


def check_state(state: State, expected: State) -> None:
    """Raises ValueError where the two differ in names, shapes or types."""

    def layout(x: State) -> dict:
        return {name: (value.shape, value.dtype.name) for name, value in x.items()}

    if layout(state) != layout(expected):
        raise ValueError(f'the state is of another learner or space: it holds {layout(state)}, not {layout(expected)}')
