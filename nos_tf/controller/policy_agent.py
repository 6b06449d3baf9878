"""What every learner that has a policy is made of: the policy, a baseline, a solver and its memory (Section 3.2).

The baseline of a batch is the exponential moving average of the mean rewards of the batches before it; the first batch,
which has none before it, takes its own mean. Advantages are reward - baseline, not standardised: a batch of five has no
use for its standard deviation, and dividing by it would drown the entropy bonus.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from nos_tf.controller import trpo
from nos_tf.controller.agent import Batch, Metrics, Samples, State, check_state, checked_batch
from nos_tf.controller.evolution import neighbour
from nos_tf.controller.policy import CHOICES, Policy, entropy, log_prob
from nos_tf.controller.solvers import Solver
from nos_tf.dsl.rule import UpdateRule

KL, MUTANTS = 1, 2  # in the seed of a sample that is for the KL, so that it is no batch's; and of mutations
PACE = 0.3  # by how much an update changes the logarithm of the entropy coefficient, where there is no entropy at all
MOST = 1e4  # times the entropy coefficient


@dataclasses.dataclass
class Baseline:
    """Exponential moving average of the mean rewards of batches, None before the first; or a quantile of each batch.

    >>> baseline = Baseline(decay=0.9)
    >>> baseline.compare(np.array([0.25, 0.75]))
    0.5
    >>> baseline.compare(np.array([1.0]))
    0.5
    >>> baseline.value
    0.55
    """

    decay: float
    quantile: float | None = None
    value: float | None = None

    def compare(self, rewards: np.ndarray) -> float:
        """Returns what rewards `[B]` are compared with; only then does the moving average see them."""
        if self.quantile is not None:
            return float(np.quantile(rewards, self.quantile))
        mean = float(rewards.mean())
        value = mean if self.value is None else self.value
        self.value = self.decay * value + (1 - self.decay) * mean
        return value

    def advantages(self, rewards: np.ndarray, compared: float) -> np.ndarray:
        """Returns rewards `[B]` less what they are compared with; with a quantile, 0 for those below."""
        advantages = rewards - compared
        return advantages if self.quantile is None else np.maximum(advantages, 0.0)


def joined(first: Batch, then: Batch) -> Batch:
    """Returns two batches as one."""
    return Batch(*(np.concatenate(pair) for pair in zip(first, then, strict=True)))


@dataclasses.dataclass(frozen=True)
class Replay:
    """The last rules that were learned from, as many as `size`, the newest first."""

    size: int
    rules: Batch

    @classmethod
    def empty(cls, size: int, steps: int) -> 'Replay':
        """A buffer for so many rules of so many tokens."""
        return cls(size, Batch(np.zeros([0, steps], np.int32), np.zeros([0]), np.zeros([0], np.float32)))

    def joined(self, batch: Batch) -> Batch:
        """A batch, and after it what is kept."""
        return joined(batch, self.rules)

    def pushed(self, batch: Batch) -> 'Replay':
        """The buffer with a batch in it, and without the oldest that this is too many for."""
        return Replay(self.size, Batch(*(array[: self.size] for array in self.joined(batch))))


@dataclasses.dataclass(frozen=True)
class Elites:
    """The best distinct rules so far, as many as `size`, the best first; of equals the first."""

    size: int
    rules: Batch

    @classmethod
    def empty(cls, size: int, steps: int) -> 'Elites':
        """Returns a memory for so many rules of so many tokens."""
        return cls(size, Replay.empty(size, steps).rules)

    def updated(self, batch: Batch) -> 'Elites':
        """Returns the memory with what is better in a batch."""
        both = joined(self.rules, batch)
        _, first = np.unique(both.choices, axis=0, return_index=True)
        first = np.sort(first)
        best = first[np.argsort(-both.rewards[first], kind='stable')[: self.size]]
        return Elites(self.size, Batch(*(array[best] for array in both)))

    def without(self, choices: np.ndarray) -> Batch:
        """Returns the elites that are not among rules `[B, T]`."""
        there = set(map(bytes, choices))
        is_other = np.array([bytes(rule) not in there for rule in self.rules.choices], bool)
        return Batch(*(array[is_other] for array in self.rules))


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
      replay: the last so many rules are learned from again with each batch, weighted by how probable they still are;
        KL and Fisher matrix are then of their prefixes too.
      steps: of the solver for one batch.
      elites: so many of the best rules are learned from again with each batch, weighted likewise.
      entropy_half_life: updates after which the entropy coefficient is one half; None if it stays.
      entropy_target: nats, below which the entropy coefficient grows, up to `MOST` times itself; None for one that
        does not look.
      mutants: the share of proposals that are elites with one token changed; the policy learns from them as if it had
        drawn them.
      quantile: of a batch's rewards, which they are compared with, and only those above count; None for the moving
        average.
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
        replay: int = 0,
        steps: int = 1,
        elites: int = 0,
        entropy_half_life: float | None = None,
        entropy_target: float | None = None,
        quantile: float | None = None,
        mutants: float = 0.0,
    ) -> None:
        self.policy, self.seed, self.kl_samples = policy, seed, kl_samples
        self.steps, self.entropy_half_life, self.entropy_target = steps, entropy_half_life, entropy_target
        self.entropy_factor = 1.0  # of the coefficient, so that the entropy keeps to its target
        self.mutants = mutants
        self.solver, self.max_kl, self.entropy_coefficient, self.clip = solver, max_kl, entropy_coefficient, clip
        self.baseline = Baseline(baseline_decay, quantile)
        self.updates = 0
        self.replay = Replay.empty(replay, len(policy.heads))
        self.elites = Elites.empty(elites, len(policy.heads))
        self._weights = [variable.value for variable in policy.trainable_variables]
        self._shapes = [weight.shape for weight in self._weights]
        dtype = self._weights[0].dtype
        self.memory = solver.memory(sum(shape.num_elements() for shape in self._shapes), dtype)
        batch = tf.TensorSpec([None], dtype)
        memory = tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), self.memory)
        signature = [CHOICES, tf.TensorSpec([], tf.int32), batch, batch, tf.TensorSpec([], dtype), memory]
        self._traced_step = tf.function(self._step, autograph=False, input_signature=signature)

    def propose(self, count: int, iteration: int) -> Samples:
        """Returns count samples of the policy as it is, and mutants: a function of (state, seed, iteration) alone."""
        parents = self.elites.rules.choices
        mutants = int(self.mutants * count) if len(parents) else 0
        own = self._sample(count - mutants, self.seed, iteration)
        if not mutants:
            return own
        rng = np.random.default_rng([self.seed, iteration, MUTANTS])
        chosen = parents[rng.integers(len(parents), size=mutants)]
        children = np.array([neighbour(self.policy.space, rule.tolist(), rng)[0] for rule in chosen], np.int32)
        choices = np.concatenate([own.choices, children])
        return Samples(choices, np.concatenate([own.log_probs, self.policy.log_prob(tf.constant(children)).numpy()]))

    def _sample(self, count: int, *entropy: int) -> Samples:
        seed = np.random.SeedSequence(entropy).generate_state(2).view(np.int32)
        choices, log_probs = self.policy.sample(tf.constant(count), tf.constant(seed))
        return Samples(choices.numpy(), log_probs.numpy())

    def update(self, choices: np.ndarray, rewards: np.ndarray, log_probs: np.ndarray) -> Metrics:
        """Takes solver steps for rules `[B, T]`, their rewards `[B]` and their log_probs `[B]`, as proposed."""
        batch = checked_batch(self.policy.space, choices, rewards, log_probs)
        baseline = self.baseline.compare(batch.rewards)
        known = self.replay.joined(batch)
        known = joined(known, self.elites.without(known.choices))
        before, old = trpo.flatten(self._weights), self.policy.logits(tf.constant(batch.choices))
        metrics = self._solver_step(known, len(batch.rewards), baseline, 0)
        for number in range(1, self.steps):
            step = self._solver_step(known, len(batch.rewards), baseline, number)
            metrics['improvement'] += step['improvement']
            metrics['accepted'] = max(metrics['accepted'], step['accepted'])
        if self.steps > 1:  # neither of them adds up
            metrics['kl'] = float(self.policy.kl(tf.constant(batch.choices), old))
            metrics['step_size'] = float(tf.norm(trpo.flatten(self._weights) - before))
        self.replay, self.elites = self.replay.pushed(batch), self.elites.updated(batch)
        self.updates += 1
        if self.entropy_target is not None:
            metrics['entropy_coefficient'] = self.entropy_coefficient * self.entropy_factor
            missing = (self.entropy_target - metrics['entropy']) / self.entropy_target
            self.entropy_factor = min(max(1.0, self.entropy_factor * math.exp(PACE * missing)), MOST)
        return {'baseline': baseline} | metrics

    def _solver_step(self, known: Batch, count: int, baseline: float, number: int) -> Metrics:
        """One step for known rules, of which the first count are new; number: of the step among those of the update."""
        prefixes = known.choices
        if self.kl_samples:
            fresh = self._sample(self.kl_samples, self.seed, self.updates, KL, number)
            prefixes = np.concatenate([prefixes, fresh.choices])
        advantages, log_probs = self.baseline.advantages(known.rewards, baseline), known.log_probs
        if len(advantages) > count or number:
            advantages, log_probs = self._reweighted(known, advantages)
        halvings = self.updates / self.entropy_half_life if self.entropy_half_life else 0.0
        inputs = [advantages, log_probs, self.entropy_coefficient * self.entropy_factor * 0.5**halvings]
        tensors = [tf.constant(x, self._weights[0].dtype) for x in inputs]
        metrics, self.memory = self._traced_step(tf.constant(prefixes), tf.constant(count), *tensors, self.memory)
        return {name: float(value) for name, value in metrics.items()}

    def _reweighted(self, known: Batch, advantages: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Advantages and log-probabilities `[B]` as if the present policy had drawn the rules.

        The weight of a rule, p now over p then, is cut off at 1 (truncated importance sampling: Munos et al. 2016):
        what has become improbable counts for little, and nothing counts for much. Weights have a mean of 1, so that
        old rules do not make light of the reward beside the entropy bonus.
        """
        now = self.policy.log_prob(tf.constant(known.choices)).numpy()
        weights = np.minimum(1.0, np.exp(now - known.log_probs.astype(np.float64)))
        return advantages * weights / weights.mean(), now

    def _step(
        self,
        choices: tf.Tensor,
        count: tf.Tensor,
        advantages: tf.Tensor,
        log_probs: tf.Tensor,
        entropy_coefficient: tf.Tensor,
        memory: tuple,
    ) -> tuple[dict, tuple]:
        """Moves the weights; returns the metrics, scalars, and the solver's next memory.

        The choices are `[B + M, T]`: B known rules, whose advantages and log_probs are `[B]`, the new ones first, count
        of them; and M = kl_samples more.
        """
        known = choices[: tf.shape(advantages)[0]]

        def objective(logits: tf.Tensor) -> tf.Tensor:
            gain = trpo.surrogate(logits[: tf.shape(advantages)[0]], known, advantages, log_probs, self.clip)
            return gain + entropy_coefficient * entropy(logits[:count])

        problem = trpo.Problem(
            lambda theta: self.policy.logits_at(trpo.unflatten(theta, self._shapes), choices), objective
        )
        theta = trpo.flatten(self._weights)
        logits = problem.logits(theta)
        step, memory = self.solver.solve(problem, theta, memory, self.max_kl)
        self._assign(step.theta)
        metrics = {
            'log_prob': tf.reduce_mean(log_prob(logits[:count], known[:count])),
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

    def revise(self, reward: Callable[[UpdateRule], float]) -> None:
        """Gives the rules in memory the rewards that are known now.

        Args:
          reward: of a rule that was sampled.
        """
        for of, kept in self._kept.items():
            rewards = [reward(self.policy.space.rule(choices)) for choices in kept.rules.choices]
            rules = kept.rules._replace(rewards=np.array(rewards, np.float64))
            setattr(self, of, dataclasses.replace(kept, rules=rules))
        nothing = Replay.empty(0, len(self.policy.heads)).rules
        self.elites = self.elites.updated(nothing)

    def state(self) -> State:
        """Returns the weights as one vector, the solver's memory, the baseline (NaN before any batch), and a count."""
        value = math.nan if self.baseline.value is None else self.baseline.value
        memory = {f'solver_{i}': np.array(x) for i, x in enumerate(self.memory)}
        weights = np.array(trpo.flatten(self._weights))
        kept = {
            f'{of}_{name}': array.copy()
            for of, rules in self._kept.items()
            for name, array in rules.rules._asdict().items()
        }
        factor = {} if self.entropy_target is None else {'entropy_factor': np.array(self.entropy_factor)}
        own = {'weights': weights, 'baseline': np.array(value), 'updates': np.array(self.updates)}
        return own | memory | kept | factor

    @property
    def _kept(self) -> dict[str, Replay | Elites]:
        """The rules in memory; elites where there are to be any, so that states of agents without stay as they are."""
        return {'replay': self.replay} | ({'elites': self.elites} if self.elites.size else {})

    def restore(self, state: State) -> None:
        """Takes up a state; raises ValueError for one of another shape, and changes nothing then."""
        expected = self.state()
        for of, rules in self._kept.items():
            count = min(len(state.get(f'{of}_rewards', ())), rules.size)  # which grows from 0 to what is kept
            for name, array in rules.rules._asdict().items():
                expected[f'{of}_{name}'] = np.zeros([count, *array.shape[1:]], array.dtype)
        check_state(state, expected)
        for of, rules in self._kept.items():
            kept = Batch(*(state[f'{of}_{name}'].copy() for name in Batch._fields))
            setattr(self, of, dataclasses.replace(rules, rules=kept))
        self.entropy_factor = float(state.get('entropy_factor', 1.0))
        self._assign(tf.constant(state['weights']))
        value = float(state['baseline'])
        self.baseline.value = None if math.isnan(value) else value
        self.updates = int(state['updates'])
        memory = [tf.constant(state[f'solver_{i}']) for i in range(len(self.memory))]
        self.memory = tf.nest.pack_sequence_as(self.memory, memory)
