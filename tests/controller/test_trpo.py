"""The mathematics of TRPO against dense linear algebra, finite differences and numbers worked out by hand."""

import numpy as np
import pytest
import tensorflow as tf

from nos_tf.controller import policy as policies
from nos_tf.controller import trpo
from nos_tf.controller.policy import Policy
from nos_tf.dsl.space import SearchSpace


def random_spd(size, rng):
    root = rng.normal(size=[size, size])
    return root @ root.T + 0.1 * np.eye(size)


class Small:
    """A masked float64 policy of a few hundred weights with a batch of its own samples."""

    def __init__(self, units=3, count=4):
        space = SearchSpace(operands=('g', 'm', 'v'), unaries=('x', 'exp'), binaries=('+', '*'), distinct_operands=True)
        self.policy = Policy(space, seed=1, units=units, dtype='float64')
        for variable in self.policy.trainable_variables:
            variable.assign(variable * 10)
        self.choices, self.log_probs = self.policy.sample(count, np.array([0, 1], np.int32))
        self.shapes = [v.shape for v in self.policy.trainable_variables]
        self.theta = trpo.flatten(self.policy.trainable_variables)

    def logits(self, theta):
        return self.policy.logits_at(trpo.unflatten(theta, self.shapes), self.choices)

    def kl_gradient(self, theta):
        with tf.GradientTape() as tape:
            tape.watch(theta)
            kl = policies.kl_divergence(self.logits(self.theta), self.logits(theta))
        return tape.gradient(kl, theta)

    def fisher(self):
        """mean_b sum_t J^T (diag(p) - p p^T) J, assembled."""
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(self.theta)
            logits = self.logits(self.theta)
        J = tape.jacobian(logits, self.theta, experimental_use_pfor=False).numpy()
        p = tf.nn.softmax(logits).numpy()
        F = np.zeros([J.shape[-1]] * 2)
        for b, t in np.ndindex(p.shape[:2]):
            F += J[b, t].T @ (np.diag(p[b, t]) - np.outer(p[b, t], p[b, t])) @ J[b, t]
        return F / len(p)


@pytest.fixture(scope='module')
def small():
    return Small()


def test_flatten_keeps_order_and_unflatten_inverts_it():
    tensors = [tf.constant([[1.0, 2], [3, 4]]), tf.constant(5.0), tf.constant([6.0])]
    theta = trpo.flatten(tensors)
    assert theta.numpy().tolist() == [1, 2, 3, 4, 5, 6]
    for tensor, copy in zip(tensors, trpo.unflatten(theta, [t.shape for t in tensors]), strict=True):
        assert copy.shape == tensor.shape
        assert (copy.numpy() == tensor.numpy()).all()


@pytest.mark.parametrize('size', [1, 5, 30])
def test_conjugate_gradient_solves_what_a_dense_solver_solves(size):
    rng = np.random.default_rng(size)
    A, b = random_spd(size, rng), rng.normal(size=size)
    x, residual = trpo.conjugate_gradient(lambda v: tf.linalg.matvec(A, v), tf.constant(b), 3 * size, 1e-24)
    np.testing.assert_allclose(x, np.linalg.solve(A, b), rtol=1e-8)
    np.testing.assert_allclose(residual, b - A @ x.numpy(), atol=1e-10)


def test_conjugate_gradient_cut_short_minimises_over_the_krylov_space():
    rng = np.random.default_rng(0)
    A, b = random_spd(12, rng), rng.normal(size=12)
    x, residual = trpo.conjugate_gradient(lambda v: tf.linalg.matvec(A, v), tf.constant(b), 4)
    krylov = np.stack([np.linalg.matrix_power(A, k) @ b for k in range(4)], axis=1)
    basis, _ = np.linalg.qr(krylov)
    expected = basis @ np.linalg.solve(basis.T @ A @ basis, basis.T @ b)
    np.testing.assert_allclose(x, expected, rtol=1e-7)
    np.testing.assert_allclose(residual, b - A @ expected, rtol=1e-6)


def test_conjugate_gradient_stops_at_the_tolerance():
    products = []

    def product(v):
        products.append(v)
        return v * tf.constant([2.0, 2, 3, 3], tf.float64)

    x, _ = trpo.conjugate_gradient(product, tf.constant([1.0, 2, 3, 4], tf.float64), 50, 1e-20)
    assert len(products) == 2  # two distinct eigenvalues
    np.testing.assert_allclose(x, [1 / 2, 1, 1, 4 / 3])


def test_conjugate_gradient_stops_where_the_matrix_is_not_what_it_needs():
    b = tf.constant([1.0, 1.0])
    for A in ([[-1.0, 0], [0, -2]], [[np.nan, 0], [0, 1]], [[np.inf, 0], [0, 1]], [[0.0, 0], [0, 0]]):
        x, residual = trpo.conjugate_gradient(lambda v, A=A: tf.linalg.matvec(tf.constant(A), v), b, 10)
        assert x.numpy().tolist() == [0, 0]
        assert residual.numpy().tolist() == [1, 1]
    x, _ = trpo.conjugate_gradient(lambda v: v * tf.constant([1.0, -0.5]), tf.constant([1.0, 0.1]), 10)
    assert np.isfinite(x).all()
    x, _ = trpo.conjugate_gradient(lambda v: v, tf.zeros(2), 10)
    assert x.numpy().tolist() == [0, 0]


def test_fisher_vector_product_is_that_of_the_assembled_matrix(small):
    F = small.fisher()
    assert np.linalg.eigvalsh(F).min() > -1e-12
    assert np.abs(F).max() > 1e-3
    for seed in range(3):
        v = np.random.default_rng(seed).normal(size=len(F))
        Fv = trpo.fisher_vector_product(small.logits, small.theta, tf.constant(v)).numpy()
        assert np.linalg.norm(Fv - F @ v) <= 1e-10 * np.linalg.norm(F @ v)


def test_fisher_vector_product_is_the_curvature_of_the_kl(small):
    v = np.random.default_rng(0).normal(size=len(small.theta))
    Fv = trpo.fisher_vector_product(small.logits, small.theta, tf.constant(v)).numpy()
    h = 1e-5
    difference = (small.kl_gradient(small.theta + h * v) - small.kl_gradient(small.theta - h * v)).numpy() / (2 * h)
    assert np.linalg.norm(Fv - difference) <= 1e-6 * np.linalg.norm(Fv)


def test_fisher_vector_product_is_what_the_kl_itself_rises_by(small):
    """KL(theta + hv) + KL(theta - hv) = h^2 v^T F v + O(h^4): values alone, no derivative of ours."""
    v = np.random.default_rng(1).normal(size=len(small.theta))
    v /= np.linalg.norm(v)
    old = small.logits(small.theta)

    def second_difference(h):
        ends = [policies.kl_divergence(old, small.logits(small.theta + sign * h * v)).numpy() for sign in (1, -1)]
        return sum(ends) / h**2

    h = 4e-3
    extrapolated = (4 * second_difference(h / 2) - second_difference(h)) / 3
    Fv = trpo.fisher_vector_product(small.logits, small.theta, tf.constant(v)).numpy()
    assert extrapolated == pytest.approx(v @ Fv, rel=1e-6)


def test_gradient_of_the_surrogate_is_the_policy_gradient_where_the_policy_stands(small):
    advantages, coefficient = np.array([0.3, -0.2, 0.5, -0.1]), 0.7
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(small.theta)
        logits = small.logits(small.theta)
        value = trpo.surrogate(logits, small.choices, advantages, small.log_probs) + coefficient * policies.entropy(
            logits
        )
        log_prob = policies.log_prob(logits, small.choices)
        entropy = policies.entropy(logits)
    assert value.numpy() == pytest.approx(advantages.mean() + coefficient * entropy.numpy(), rel=1e-12)
    expected = tape.gradient(log_prob, small.theta, advantages / 4) + coefficient * tape.gradient(entropy, small.theta)
    np.testing.assert_allclose(tape.gradient(value, small.theta), expected, rtol=1e-9, atol=1e-12)


def test_surrogate_weighs_rules_by_the_ratio_of_their_probabilities(small):
    logits = small.logits(small.theta)
    older = small.log_probs - np.log([2.0, 1, 1, 0.5])
    value = trpo.surrogate(logits, small.choices, np.array([1.0, 0, 0, 10]), older)
    assert value.numpy() == pytest.approx((2 * 1 + 0.5 * 10) / 4, rel=1e-12)


def test_trust_region_step_has_the_kl_that_is_allowed_without_the_damping():
    rng = np.random.default_rng(0)
    F, g, damping, max_kl = random_spd(6, rng), rng.normal(size=6), 2.5, 0.01
    x, residual = trpo.conjugate_gradient(
        lambda v: tf.linalg.matvec(F, v) + damping * v, tf.constant(g), 3
    )  # cut short: the residual matters
    step, curvature = trpo.trust_region_step(x, tf.constant(g), residual, damping, max_kl)
    assert curvature.numpy() == pytest.approx(x.numpy() @ F @ x.numpy(), rel=1e-9)
    assert step.numpy() @ F @ step.numpy() / 2 == pytest.approx(max_kl, rel=1e-9)
    assert step.numpy() @ g > 0


def test_trust_region_step_on_the_policy_spends_the_whole_kl(small):
    g = tf.constant(np.random.default_rng(2).normal(size=3) @ small.fisher()[[0, 7, 20]])
    x, residual = trpo.conjugate_gradient(
        lambda v: trpo.fisher_vector_product(small.logits, small.theta, v) + 0.1 * v, g, 10
    )
    step, _ = trpo.trust_region_step(x, g, residual, 0.1, 1e-6)
    kl = policies.kl_divergence(small.logits(small.theta), small.logits(small.theta + step))
    assert kl.numpy() == pytest.approx(1e-6, rel=0.01)


@pytest.mark.parametrize('x, g', [([1.0, 0.0], [-1.0, 0.0]), ([0.0, 0.0], [0.0, 0.0]), ([np.nan, 1.0], [1.0, 1.0])])
def test_there_is_no_step_without_positive_curvature(x, g):
    step, _ = trpo.trust_region_step(tf.constant(x), tf.constant(g), tf.zeros(2), 0.1, 0.01)
    assert step.numpy().tolist() == [0, 0]


def search(evaluate, **overrides):
    settings = {'max_kl': 1.0, 'backtracks': 10, 'factor': 0.5} | overrides
    theta = tf.constant([0.1, 0.7])
    return theta, trpo.line_search(evaluate, theta, tf.constant([8.0, 0.0]), **settings)


def test_line_search_takes_the_first_candidate_that_is_allowed_and_improves():
    tried = []

    def evaluate(candidate):
        tried.append(float(candidate[0]))
        length = candidate[0] - 0.1
        return 3.0 - length, length  # KL is 1 at length 1; there is nothing to gain beyond 3

    _, step = search(evaluate)
    np.testing.assert_allclose(tried, [8.1, 4.1, 2.1, 1.1], rtol=1e-6)
    np.testing.assert_allclose(step.theta, [1.1, 0.7], rtol=1e-6)
    assert step.accepted.numpy()
    assert (step.kl.numpy(), step.improvement.numpy()) == pytest.approx((1, 2), rel=1e-5)
    _, step = search(evaluate, max_kl=100.0)
    np.testing.assert_allclose(step.theta, [2.1, 0.7], rtol=1e-6)  # allowed at once, better only from here


@pytest.mark.parametrize(
    'improvement, kl', [(-1.0, 0.0), (0.0, 0.0), (1.0, 1.5), (np.nan, 0.0), (1.0, np.nan), (np.nan, np.nan)]
)
def test_line_search_returns_the_start_bit_for_bit_where_nothing_is_acceptable(improvement, kl):
    tried = []

    def evaluate(candidate):
        tried.append(candidate)
        return tf.constant(improvement), tf.constant(kl)

    theta, step = search(evaluate, backtracks=7)
    assert len(tried) == 7
    assert step.theta.numpy().tobytes() == theta.numpy().tobytes()
    assert not step.accepted.numpy()
    assert step.kl.numpy() == 0
    assert step.improvement.numpy() == 0
