"""What every learner does once it has started: propose rules, and learn from their rewards."""

from typing import NamedTuple, Protocol

import numpy as np

from nos_tf.dsl.space import SearchSpace

Metrics = dict[str, float]
State = dict[str, np.ndarray]


class Samples(NamedTuple):
    """Rules as the policy wrote them: choices, int32 `[B, T]`, and log p(rule) as it wrote them, float32 `[B]`."""

    choices: np.ndarray
    log_probs: np.ndarray


class Agent(Protocol):
    """Proposes rules and learns from their rewards.

    Every metric of `update` is of the policy on the batch it was given: `log_prob` and `entropy` (nats) before the
    update; `baseline`, what the rewards were compared with; `kl` (nats) from before to after; `step_size`, the
    Euclidean norm of the change of the weights; `improvement` of the surrogate; `accepted`, 1, or 0 where the weights
    stay as they were. An agent leaves out what it does not have.

    An agent that remembers rewards may have `revise(reward)` too: a function from rules to the rewards that are known
    now, which change with each seed more that a rule trains on.
    """

    def propose(self, count: int, iteration: int) -> Samples:
        """Returns count rules: a pure function of (state, seed, iteration)."""

    def update(self, choices: np.ndarray, rewards: np.ndarray, log_probs: np.ndarray) -> Metrics:
        """Learns from rules `[B, T]`, their rewards `[B]` and the log_probs `[B]` they were proposed with."""

    def state(self) -> State:
        """Returns copies of everything that `update` changes."""

    def restore(self, state: State) -> None:
        """Takes up a state of an agent of the same learner and space: what follows is bit-identical."""


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
        for step in range(len(self._masks)):
            legal = self._legal(choices, step)
            choices[:, step] = np.argmax(np.where(legal, rng.random(legal.shape), -1.0), axis=-1)
        return Samples(choices, self.log_prob(choices))

    def log_prob(self, choices: np.ndarray) -> np.ndarray:
        """Returns log p(rule), float32 `[B]`, of legal choices `[B, T]`."""
        counts = [self._legal(choices, step).sum(axis=-1) for step in range(len(self._masks))]
        return -np.log(counts).sum(axis=0).astype(np.float32)

    def _legal(self, choices: np.ndarray, step: int) -> np.ndarray:
        """Returns what may be chosen at a step after the choices `[B, T]` before it: bool `[B, K]`."""
        mask = self._masks[step]
        return mask[choices[:, step - 1] if len(mask) > 1 else np.zeros(len(choices), np.int32)]

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
