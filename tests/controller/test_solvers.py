"""Solvers stay inside the trust region, and put everything back where they do not improve."""

import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from nos_tf.controller import policy as policies
from nos_tf.controller import solvers, trpo
from nos_tf.controller.policy import Policy
from nos_tf.controller.solvers import AdamSteps, AdamSurrogate, NaturalGradient
from nos_tf.dsl.space import SearchSpace

FAST_ADAM = AdamSurrogate(learning_rate=3e-3, max_steps=40)


class Batch:
    """A small policy, five of its rules, and advantages: what a solver is given."""

    def __init__(self, policy, seed):
        self.shapes = [v.shape for v in policy.trainable_variables]
        self.theta = trpo.flatten(policy.trainable_variables)
        choices, log_probs = policy.sample(5, np.array([seed, 0], np.int32))
        advantages = tf.constant(np.random.default_rng(seed).normal(size=5) * 0.3, tf.float32)
        self.problem = trpo.Problem(
            lambda theta: policy.logits_at(trpo.unflatten(theta, self.shapes), choices),
            lambda logits: trpo.surrogate(logits, choices, advantages, log_probs) + 0.0015 * policies.entropy(logits),
        )

    def solve(self, solver, memory=None, max_kl=0.05, problem=None):
        if memory is None:
            memory = solver.memory(len(self.theta), tf.float32)
        return solver.solve(problem or self.problem, self.theta, memory, max_kl)

    def kl(self, theta):
        return policies.kl_divergence(self.problem.logits(self.theta), self.problem.logits(theta)).numpy()

    def improvement(self, theta):
        return (self.value(theta) - self.value(self.theta)).numpy()

    def value(self, theta):
        return self.problem.surrogate(self.problem.logits(theta))


@pytest.fixture(scope='module')
def policy():
    return Policy(SearchSpace(distinct_operands=True), seed=0, units=8)


def downhill(surrogate):
    """The surrogate with its gradient turned round: whatever follows it gets worse."""

    @tf.custom_gradient
    def turned(logits):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = surrogate(logits)
        return value, lambda upstream: -upstream * tape.gradient(value, logits)

    return turned


@pytest.mark.parametrize('max_kl', [0.001, 0.05])
@pytest.mark.parametrize('solver', [NaturalGradient(cg_iterations=5), FAST_ADAM], ids=['natural', 'adam'])
def test_accepted_steps_are_inside_the_trust_region_and_better(policy, solver, max_kl):
    batch = Batch(policy, 1)
    step, _ = batch.solve(solver, max_kl=max_kl)
    assert step.accepted.numpy()
    assert 0.2 * max_kl < step.kl.numpy() <= max_kl
    assert batch.kl(step.theta) == pytest.approx(step.kl.numpy(), rel=1e-4)
    assert batch.improvement(step.theta) == pytest.approx(step.improvement.numpy(), abs=1e-6)
    assert step.improvement.numpy() > 0


@pytest.mark.parametrize('solver', [NaturalGradient(cg_iterations=3), FAST_ADAM], ids=['natural', 'adam'])
def test_rejected_steps_change_nothing(policy, solver):
    batch = Batch(policy, 2)
    memory = batch.solve(solver)[1]
    worse = trpo.Problem(batch.problem.logits, downhill(batch.problem.surrogate))
    step, after = batch.solve(solver, problem=worse)
    fresh = solver.memory(len(batch.theta), tf.float32)
    assert not step.accepted.numpy()
    assert step.kl.numpy() == 0
    assert step.improvement.numpy() == 0
    assert step.theta.numpy().tobytes() == batch.theta.numpy().tobytes()
    assert [x.numpy().tobytes() for x in after] == [x.numpy().tobytes() for x in fresh]
    assert not memory or memory.count.numpy() > 0


@pytest.mark.parametrize('solver', [NaturalGradient(cg_iterations=3), FAST_ADAM, AdamSteps(1e-3)], ids=repr)
def test_a_surrogate_that_is_not_finite_is_rejected(policy, solver):
    batch = Batch(policy, 3)
    broken = trpo.Problem(batch.problem.logits, lambda logits: batch.problem.surrogate(logits) * math.nan)
    step, memory = batch.solve(solver, problem=broken)
    assert not step.accepted.numpy()
    assert step.theta.numpy().tobytes() == batch.theta.numpy().tobytes()
    assert all(np.isfinite(x).all() for x in memory)


@pytest.mark.parametrize('bad', [math.nan, math.inf])
@pytest.mark.parametrize('solver', [NaturalGradient(cg_iterations=3), FAST_ADAM, AdamSteps(1e-3)], ids=repr)
def test_a_gradient_that_is_not_finite_gives_no_step(policy, solver, bad):
    batch = Batch(policy, 3)

    @tf.custom_gradient
    def sound(logits):
        return batch.problem.surrogate(logits), lambda upstream: upstream * bad * tf.ones_like(logits)

    step, memory = batch.solve(solver, problem=trpo.Problem(batch.problem.logits, sound))
    assert not step.accepted.numpy()
    assert step.theta.numpy().tobytes() == batch.theta.numpy().tobytes()
    assert all(np.isfinite(x).all() for x in (*memory, step.kl, step.improvement))


@pytest.mark.parametrize('solver', [NaturalGradient(cg_iterations=3), FAST_ADAM, AdamSteps(1e-3)], ids=repr)
def test_a_kl_that_is_not_finite_is_rejected(policy, solver, monkeypatch):
    batch = Batch(policy, 3)
    monkeypatch.setattr(policies, 'kl_divergence', lambda old, new: tf.constant(math.nan))
    step, memory = batch.solve(solver)
    assert not step.accepted.numpy()
    assert step.theta.numpy().tobytes() == batch.theta.numpy().tobytes()
    assert all(np.isfinite(x).all() for x in (*memory, step.kl, step.improvement))


@pytest.mark.parametrize('factor', [-1.0, math.nan])
def test_a_fisher_matrix_that_is_not_positive_gives_no_step(policy, monkeypatch, factor):
    batch = Batch(policy, 3)
    monkeypatch.setattr(trpo, 'fisher_vector_product', lambda logits, theta, v: factor * v)
    step, _ = batch.solve(NaturalGradient(cg_iterations=3, damping=0.1))
    assert not step.accepted.numpy()
    assert step.theta.numpy().tobytes() == batch.theta.numpy().tobytes()


@pytest.mark.parametrize('solver', [NaturalGradient(cg_iterations=3), FAST_ADAM], ids=['natural', 'adam'])
def test_a_flat_surrogate_gives_no_step(policy, solver):
    batch = Batch(policy, 3)
    flat = trpo.Problem(batch.problem.logits, lambda logits: 0 * tf.reduce_mean(tf.nn.softmax(logits)))
    step, _ = batch.solve(solver, problem=flat)
    assert not step.accepted.numpy()
    assert step.theta.numpy().tobytes() == batch.theta.numpy().tobytes()


def test_adam_surrogate_ends_at_the_last_point_inside_the_trust_region(policy):
    batch, max_kl = Batch(policy, 4), 0.01
    theta, moments, inside = batch.theta, solvers.no_moments(len(batch.theta), tf.float32), []
    for _ in range(FAST_ADAM.max_steps):
        _, _, g = solvers.value_and_gradient(batch.problem, theta)
        theta, moments = solvers.adam_ascent(theta, g, moments, FAST_ADAM.learning_rate)
        if batch.kl(theta) > max_kl:
            break
        inside.append((theta, moments))
    assert 2 <= len(inside) < FAST_ADAM.max_steps
    step, memory = batch.solve(FAST_ADAM, max_kl=max_kl)
    np.testing.assert_allclose(step.theta, inside[-1][0], atol=1e-6)
    assert memory.count.numpy() == len(inside)
    few = AdamSurrogate(learning_rate=FAST_ADAM.learning_rate, max_steps=2)
    assert batch.solve(few, max_kl=max_kl)[1].count.numpy() == 2
    assert batch.solve(few, memory=memory, max_kl=max_kl)[1].count.numpy() > len(inside)


def test_adam_ascent_is_keras_adam_uphill():
    rng = np.random.default_rng(0)
    theta = tf.constant(rng.normal(size=7))
    variable = keras.Variable(theta, dtype='float64')
    optimizer = keras.optimizers.Adam(0.01)
    optimizer.build([variable])
    moments = solvers.no_moments(7, tf.float64)
    for _ in range(20):
        g = tf.constant(rng.normal(size=7) * 10.0 ** rng.integers(-4, 2, size=7))
        theta, moments = solvers.adam_ascent(theta, g, moments, 0.01)
        optimizer.apply([-g])
        np.testing.assert_allclose(theta, variable.numpy(), rtol=0, atol=1e-6)  # of steps of 1e-2


def test_adam_step_is_one_step_however_far_it_goes(policy):
    batch = Batch(policy, 5)
    step, memory = batch.solve(AdamSteps(0.5), max_kl=1e-9)
    assert step.accepted.numpy()
    assert memory.count.numpy() == 1
    np.testing.assert_allclose(np.abs(step.theta - batch.theta).max(), 0.5, rtol=1e-3)


@pytest.mark.parametrize(
    'build, message',
    [
        (lambda: NaturalGradient(cg_iterations=0), 'NaturalGradient.cg_iterations = 0: must be a whole number >= 1'),
        (lambda: NaturalGradient(damping=-0.1), 'NaturalGradient.damping = -0.1: must be >= 0'),
        (lambda: NaturalGradient(backtracks=2.5), 'NaturalGradient.backtracks = 2.5: must be a whole number >= 1'),
        (lambda: NaturalGradient(backtrack_factor=1), 'NaturalGradient.backtrack_factor = 1: must be > 0 and < 1'),
        (lambda: AdamSurrogate(learning_rate=math.nan), 'AdamSurrogate.learning_rate = nan: must be > 0'),
        (lambda: AdamSurrogate(max_steps='ten'), "AdamSurrogate.max_steps = 'ten': must be a whole number >= 1"),
    ],
)
def test_hyper_parameters_out_of_range_are_named(build, message):
    with pytest.raises(ValueError, match=f'^{re.escape(message)}$'):
        build()
