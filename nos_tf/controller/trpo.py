"""The mathematics of Trust Region Policy Optimization (Schulman et al., 2015; Section 3.2), as pure functions.

    maximize L(theta)  subject to  KL(pi_old || pi_theta) <= delta

theta is one flat vector `[N]` of all the weights. No function here changes a variable: a step that is rejected leaves
nothing to undo. Axes as in `policy.py`.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from nos_tf.controller import policy

CG_TOLERANCE = 1e-10  # squared norm of the residual, below which the system counts as solved


class Problem(NamedTuple):
    """What one batch asks of a solver: more of `surrogate(logits(theta))`.

    The KL and the Fisher matrix are means over all the rules that `logits` reads: those of the batch, which `surrogate`
    looks at, and perhaps more.
    """

    logits: Callable[[tf.Tensor], tf.Tensor]  # theta [N] -> [B, T, K]
    surrogate: Callable[[tf.Tensor], tf.Tensor]  # logits [B, T, K] -> scalar


class Step(NamedTuple):
    """What a solver found: the next theta `[N]`, and scalars that say how good it is (0 where it was rejected)."""

    theta: tf.Tensor
    kl: tf.Tensor
    improvement: tf.Tensor
    accepted: tf.Tensor


def flatten(tensors: list[tf.Tensor]) -> tf.Tensor:
    """Returns one vector `[N]` of the elements of all the tensors, in their order."""
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0)


def unflatten(theta: tf.Tensor, shapes: list[tf.TensorShape]) -> list[tf.Tensor]:
    """Returns tensors of the given shapes from the elements of a vector `[N]`: the inverse of `flatten`."""
    parts = tf.split(theta, [shape.num_elements() for shape in shapes])
    return [tf.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True)]


def surrogate(
    logits: tf.Tensor, choices: tf.Tensor, advantages: tf.Tensor, log_probs: tf.Tensor, clip: float | None = None
) -> tf.Tensor:
    """Returns the objective: mean_b A_b p_theta(rule_b) / p_old(rule_b), a scalar.

    Where theta is the policy that drew the rules, its gradient is the policy gradient: mean_b A_b grad log p(rule_b).

    Args:
      logits: `[B, T, K]` of the policy that is judged.
      choices: int32 `[B, T]`, the sampled rules.
      advantages: `[B]`, reward - baseline.
      log_probs: `[B]`, log p(rule) under the policy that drew it: the current one or, with workers, an older one.
      clip: c: what a ratio gains outside of [1 - c, 1 + c] does not count, what it loses does (Schulman et al. 2017,
        Equation 7); None for the ratio as it is.
    """
    ratio = tf.exp(policy.log_prob(logits, choices) - log_probs)
    gains = ratio * advantages
    if clip is not None:
        gains = tf.minimum(gains, tf.clip_by_value(ratio, 1 - clip, 1 + clip) * advantages)
    return tf.reduce_mean(gains)


def conjugate_gradient(
    product: Callable[[tf.Tensor], tf.Tensor], b: tf.Tensor, iterations: int, tolerance: float = CG_TOLERANCE
) -> tuple[tf.Tensor, tf.Tensor]:
    """Solves A x = b for a symmetric positive definite A that is known by its products alone.

    Stops early where the residual is small, and where a direction has p^T A p <= 0 or NaN: A is then not what CG needs,
    and the x of the steps before is returned.

    Args:
      product: v `[N]` -> A v `[N]`.
      b: `[N]`.
      iterations: most products to take.
      tolerance: squared norm of the residual to stop at.

    Returns:
      x `[N]`, and the residual r = b - A x `[N]`, which gives A x = b - r without another product.
    """

    def unsolved(*state: tf.Tensor) -> tf.Tensor:
        _, _, _, rr, healthy = state
        return healthy & (rr > tolerance)

    def improve(*state: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """One iteration, or none where the curvature along p is not positive and finite."""
        x, r, p, rr, _ = state
        Ap = product(p)
        pAp = tf.tensordot(p, Ap, 1)
        healthy = (pAp > 0) & tf.math.is_finite(pAp)
        alpha = tf.where(healthy, tf.math.divide_no_nan(rr, pAp), tf.zeros_like(rr))
        Ap = tf.where(healthy, Ap, tf.zeros_like(Ap))
        x, r = x + alpha * p, r - alpha * Ap
        rr, previous = tf.tensordot(r, r, 1), rr
        return x, r, r + rr / previous * p, rr, healthy

    start = (tf.zeros_like(b), b, b, tf.tensordot(b, b, 1), tf.constant(True))
    x, r, *_ = tf.while_loop(unsolved, improve, start, maximum_iterations=iterations)
    return x, r


def fisher_vector_product(logits: Callable[[tf.Tensor], tf.Tensor], theta: tf.Tensor, v: tf.Tensor) -> tf.Tensor:
    """Returns F v `[N]`, F = mean_b sum_t J^T (diag(p) - p p^T) J: the Hessian of the KL at theta.

    J = d logits / d theta, p = softmax(logits). J v is one forward-mode derivative and J^T u one backward-mode
    derivative, so nothing is differentiated twice, and F is positive semi-definite by construction.

    Args:
      logits: theta `[N]` -> `[B, T, K]`.
      theta: `[N]`, where the policy stands.
      v: `[N]`.
    """
    with tf.GradientTape() as tape:
        tape.watch(theta)
        with tf.autodiff.ForwardAccumulator(theta, v) as forward:
            z = logits(theta)
    Jv = forward.jvp(z)
    p = tf.nn.softmax(z)
    u = p * (Jv - tf.reduce_sum(p * Jv, axis=-1, keepdims=True))
    children = tf.cast(tf.shape(z)[0], z.dtype)
    return tape.gradient(z, theta, output_gradients=u / children)


def trust_region_step(
    x: tf.Tensor, g: tf.Tensor, residual: tf.Tensor, damping: float, max_kl: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the step `[N]` along x whose KL is max_kl to second order, and its curvature x^T F x.

    KL(step) = step^T F step / 2, so step = sqrt(2 max_kl / x^T F x) x. CG has solved (F + damping I) x = g - residual;
    the step is scaled with F itself, F x = g - residual - damping x: with the damped one the KL would be about half of
    what is allowed. Where x^T F x is not a positive number there is no such step, and it is 0.
    """
    curvature = tf.tensordot(x, g - residual - damping * x, 1)
    usable = (curvature > 0) & tf.math.is_finite(curvature)
    scale = tf.sqrt(2 * max_kl / tf.where(usable, curvature, tf.ones_like(curvature)))
    return tf.where(usable, scale * x, tf.zeros_like(x)), curvature


def line_search(
    evaluate: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
    theta: tf.Tensor,
    step: tf.Tensor,
    *,
    max_kl: float,
    backtracks: int,
    factor: float,
) -> Step:
    """Takes the largest of step, factor * step, factor^2 * step, ... that is allowed and that improves.

    Args:
      evaluate: theta `[N]` -> how much better its surrogate is than at the start, and its KL from the start: scalars.
      theta: `[N]`, the start.
      step: `[N]`.
      max_kl: a candidate is accepted if KL <= max_kl and improvement > 0; NaN is neither.
      backtracks: how many candidates to try.
      factor: in (0, 1).

    Returns:
      The accepted step; or, bit for bit, the start.
    """

    def searching(_scale: tf.Tensor, best: Step) -> tf.Tensor:
        return ~best.accepted

    def attempt(scale: tf.Tensor, _best: Step) -> tuple[tf.Tensor, Step]:
        candidate = theta + scale * step
        improvement, kl = evaluate(candidate)
        accepted = (kl <= max_kl) & (improvement > 0)
        return scale * factor, choose(accepted, candidate, theta, kl, improvement)

    zero = tf.zeros([], theta.dtype)
    start = (tf.ones([], theta.dtype), Step(theta, zero, zero, tf.constant(False)))
    _, found = tf.while_loop(searching, attempt, start, maximum_iterations=backtracks)
    return found


def choose(accepted: tf.Tensor, candidate: tf.Tensor, theta: tf.Tensor, kl: tf.Tensor, improvement: tf.Tensor) -> Step:
    """Returns the candidate `[N]` with its scalars where it is accepted, and theta `[N]` with zeros where it is not."""
    zero = tf.zeros_like(kl)
    return Step(
        theta=tf.where(accepted, candidate, theta),
        kl=tf.where(accepted, kl, zero),
        improvement=tf.where(accepted, improvement, zero),
        accepted=accepted,
    )
