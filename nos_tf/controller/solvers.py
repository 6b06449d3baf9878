"""How a batch moves the policy: natural gradient or ADAM, inside a trust region or without one (Sections 3.2, 4.2).

The paper says both that the controller learns by TRPO (Section 3.2) and that it "is trained with the ADAM optimizer
with a learning rate of 10^-5" (Section 4.2). `NaturalGradient` is TRPO as its authors solve it. `AdamSurrogate` is a
reading under which both sentences hold: ADAM at 1e-5 climbs the same surrogate inside the same trust region, many small
steps a batch. (A single such step a batch, which is `AdamSteps` at 1e-5, moves the policy too little to learn at all.)

A solver is a value with two methods. `memory(size)` is what it remembers before the first batch, a tuple of tensors;
`solve(problem, theta, memory, max_kl)` returns the step and what it remembers next. Both are pure.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import gin
import tensorflow as tf

from nos_tf.controller import policy, trpo
from nos_tf.controller.trpo import Problem, Step


class Solver(Protocol):
    """Takes one step uphill for one batch."""

    def memory(self, size: int, dtype: tf.DType) -> Any:
        """Returns what the solver remembers before the first batch, for N = size weights."""

    def solve(self, problem: Problem, theta: tf.Tensor, memory: Any, max_kl: float) -> tuple[Step, Any]:
        """Returns the step from theta `[N]`, and the next memory, as many tensors as before."""


class Moments(NamedTuple):
    """ADAM's memory: running averages of g and g^2, `[N]` each, and how many gradients they hold, a scalar."""

    m: tf.Tensor
    v: tf.Tensor
    count: tf.Tensor


def no_moments(size: int, dtype: tf.DType) -> Moments:
    """Returns ADAM's memory before the first gradient."""
    return Moments(tf.zeros([size], dtype), tf.zeros([size], dtype), tf.zeros([], dtype))


def adam_ascent(theta: tf.Tensor, g: tf.Tensor, moments: Moments, learning_rate: float) -> tuple[tf.Tensor, Moments]:
    """Returns theta + learning_rate * m_hat / (sqrt(v_hat) + eps) `[N]` and the next moments.

    It is keras.optimizers.Adam, with its constants, written as a function: a solver must be able to take a step back,
    and the moments must go with it.
    """
    beta_1, beta_2, epsilon = 0.9, 0.999, 1e-7
    count = moments.count + 1
    m = beta_1 * moments.m + (1 - beta_1) * g
    v = beta_2 * moments.v + (1 - beta_2) * g * g
    scale = learning_rate * tf.sqrt(1 - beta_2**count) / (1 - beta_1**count)
    return theta + scale * m / (tf.sqrt(v) + epsilon), Moments(m, v, count)


def value_and_gradient(problem: Problem, theta: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the logits `[B, T, K]` at theta `[N]`, their surrogate (a scalar) and its gradient `[N]`."""
    with tf.GradientTape() as tape:
        tape.watch(theta)
        logits = problem.logits(theta)
        value = problem.surrogate(logits)
    return logits, value, tape.gradient(value, theta)


@gin.register
@dataclasses.dataclass(frozen=True)
class NaturalGradient:
    """x = (F + damping I)^-1 g by conjugate gradients; the largest step along x that keeps KL <= max_kl and improves.

    Args:
      cg_iterations: products with the Fisher matrix for one step.
      damping: added to the Fisher matrix, for the directions that a small batch says nothing about.
      backtracks: candidates of the line search, the full step included.
      backtrack_factor: each candidate over the one before.

    Reference: Schulman et al., Trust Region Policy Optimization, 2015, Section 6 and Appendix C.
    """

    cg_iterations: int = 10
    damping: float = 0.1
    backtracks: int = 10
    backtrack_factor: float = 0.8

    def __post_init__(self) -> None:
        validate(self)

    def memory(self, size: int, dtype: tf.DType) -> tuple:
        """Returns (): a natural gradient remembers nothing."""
        return ()

    def solve(self, problem: Problem, theta: tf.Tensor, memory: tuple, max_kl: float) -> tuple[Step, tuple]:
        """Returns the step from theta `[N]`, and ()."""
        old, start, g = value_and_gradient(problem, theta)

        def product(v: tf.Tensor) -> tf.Tensor:
            return trpo.fisher_vector_product(problem.logits, theta, v) + self.damping * v

        def evaluate(candidate: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            new = problem.logits(candidate)
            return problem.surrogate(new) - start, policy.kl_divergence(old, new)

        x, residual = trpo.conjugate_gradient(product, g, self.cg_iterations)
        step, _ = trpo.trust_region_step(x, g, residual, self.damping, max_kl)
        found = trpo.line_search(
            evaluate, theta, step, max_kl=max_kl, backtracks=self.backtracks, factor=self.backtrack_factor
        )
        return found, memory


@gin.register
@dataclasses.dataclass(frozen=True)
class AdamSurrogate:
    """Up to max_steps of ADAM on the surrogate of one batch; stops where KL > max_kl, at the last point inside.

    The moments are kept from batch to batch. A step that is taken back takes its moments with it, and so does a batch
    whose end is no better than its start.

    Args:
      learning_rate: of each ADAM step (Section 4.2: 1e-5).
      max_steps: ADAM steps for one batch.
    """

    learning_rate: float = 1e-5
    max_steps: int = 100

    def __post_init__(self) -> None:
        validate(self)

    def memory(self, size: int, dtype: tf.DType) -> Moments:
        """Returns ADAM's moments before the first gradient."""
        return no_moments(size, dtype)

    def solve(self, problem: Problem, theta: tf.Tensor, memory: Moments, max_kl: float) -> tuple[Step, Moments]:
        """Returns the step from theta `[N]`, and the next moments."""
        old, start, g = value_and_gradient(problem, theta)

        def inside(_point: tuple, is_inside: tf.Tensor) -> tf.Tensor:
            return is_inside

        def climb(point: tuple, _is_inside: tf.Tensor) -> tuple[tuple, tf.Tensor]:
            """One step of Adam, if it stays in the trust region; else the point as it is, and an end."""
            here, g, moments, _, _ = point
            candidate, moments = adam_ascent(here, g, moments, self.learning_rate)
            new, value, g = value_and_gradient(problem, candidate)
            kl = policy.kl_divergence(old, new)
            is_inside = kl <= max_kl
            return select(is_inside, (candidate, g, moments, value, kl), point), is_inside

        first = ((theta, g, memory, start, tf.zeros_like(start)), tf.constant(True))
        (end, _, moments, value, kl), _ = tf.while_loop(inside, climb, first, maximum_iterations=self.max_steps)
        accepted = value > start
        return trpo.choose(accepted, end, theta, kl, value - start), select(accepted, moments, memory)


@dataclasses.dataclass(frozen=True)
class AdamSteps:
    """ADAM on the surrogate without a trust region: one step is REINFORCE, several on clipped ratios are PPO.

    Only an end that is not finite is rejected.

    Args:
      learning_rate: of each step.
      steps: for one batch.
    """

    learning_rate: float
    steps: int = 1

    def memory(self, size: int, dtype: tf.DType) -> Moments:
        """Returns ADAM's moments before the first gradient."""
        return no_moments(size, dtype)

    def solve(self, problem: Problem, theta: tf.Tensor, memory: Moments, max_kl: float) -> tuple[Step, Moments]:
        """Returns the step from theta `[N]`, and the next moments; max_kl is not read."""
        old, start, g = value_and_gradient(problem, theta)
        candidate, moments = adam_ascent(theta, g, memory, self.learning_rate)
        for _ in range(self.steps - 1):
            _, _, g = value_and_gradient(problem, candidate)
            candidate, moments = adam_ascent(candidate, g, moments, self.learning_rate)
        new = problem.logits(candidate)
        kl, improvement = policy.kl_divergence(old, new), problem.surrogate(new) - start
        accepted = tf.math.is_finite(kl + improvement)
        return trpo.choose(accepted, candidate, theta, kl, improvement), select(accepted, moments, memory)


def select(condition: tf.Tensor, new: Any, old: Any) -> Any:
    """Returns new where the scalar condition holds, else old: two equal structures of tensors."""
    return tf.nest.map_structure(lambda a, b: tf.where(condition, a, b), new, old)


def _count(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool) and x >= 1


def _positive(x: Any) -> bool:
    return 0 < x < math.inf


LEGAL: dict[str, tuple[Callable[[Any], bool], str]] = {
    'batch_size': (_count, 'must be a whole number >= 1'),
    'units': (_count, 'must be a whole number >= 1'),
    'weight_range': (_positive, 'must be > 0'),
    'max_kl': (_positive, 'must be > 0'),
    'kl_samples': (lambda x: type(x) is int and x >= 0, 'must be a whole number >= 0'),
    'learning_rate': (_positive, 'must be > 0'),
    'replay': (lambda x: type(x) is int and x >= 0, 'must be a whole number >= 0'),
    'elites': (lambda x: type(x) is int and x >= 0, 'must be a whole number >= 0'),
    'entropy_half_life': (lambda x: x is None or 0 < x < math.inf, 'must be > 0, or None'),
    'entropy_target': (lambda x: x is None or 0 < x < math.inf, 'must be > 0, or None'),
    'mutants': (lambda x: 0 <= x < 1, 'must be >= 0 and < 1'),
    'quantile': (lambda x: x is None or 0 < x < 1, 'must be > 0 and < 1, or None'),
    'entropy_coefficient': (lambda x: 0 <= x < math.inf, 'must be >= 0'),
    'baseline_decay': (lambda x: 0 <= x < 1, 'must be >= 0 and < 1'),
    'cg_iterations': (_count, 'must be a whole number >= 1'),
    'damping': (lambda x: 0 <= x < math.inf, 'must be >= 0'),
    'backtracks': (_count, 'must be a whole number >= 1'),
    'backtrack_factor': (lambda x: 0 < x < 1, 'must be > 0 and < 1'),
    'max_steps': (_count, 'must be a whole number >= 1'),
    'steps': (_count, 'must be a whole number >= 1'),
    'clip': (lambda x: 0 < x < 1, 'must be > 0 and < 1'),
    'population': (_count, 'must be a whole number >= 1'),
    'tournament': (_count, 'must be a whole number >= 1'),
    'crossover': (lambda x: 0 <= x <= 1, 'must be >= 0 and <= 1'),
    'drift': (lambda x: isinstance(x, bool), 'must be True or False'),
    'initial': (_count, 'must be a whole number >= 1'),
    'candidates': (_count, 'must be a whole number >= 1'),
    'parents': (_count, 'must be a whole number >= 1'),
    'memory': (_count, 'must be a whole number >= 1'),
    'solver': (
        lambda x: hasattr(x, 'solve') and not isinstance(x, type),
        'must be @NaturalGradient() or @AdamSurrogate()',
    ),
}


def validate(config: Any) -> None:
    """Raises ValueError, naming the gin binding, for a hyper-parameter of a dataclass that is out of its range."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        is_legal, text = LEGAL[field.name]
        try:
            legal = is_legal(value)
        except TypeError:
            legal = False
        if not legal:
            raise ValueError(f'{type(config).__name__}.{field.name} = {value!r}: {text}')
