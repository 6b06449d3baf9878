"""Sources that `export` prints for Optax, at work. `make test-backends` runs them: elsewhere they are skipped."""

import numpy as np
import pytest

from nos_tf.dsl.known import KNOWN_RULES
from tests.optimizers.exported import (
    ALL_OPTIONS,
    BAD_OPTIONS,
    HALVES,
    expected_half_walk,
    expected_walk,
    half_type,
    length_of,
    needed,
    source_of,
)
from tests.optimizers.walks import gradients, start, uniforms
from tests.rules import WORDS_2


@pytest.fixture
def optax(monkeypatch):
    """Optax on the CPU, with float64."""
    monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
    jax = needed('jax')
    jax.config.update('jax_enable_x64', True)
    yield needed('optax')
    jax.config.update('jax_enable_x64', False)


def optax_walk(optax, optimizer, dtype, update=None):
    import jax.numpy as jnp

    params = jnp.asarray(start(dtype=dtype))
    state = optimizer.init(params)
    trajectory = []
    for gradient in gradients(dtype=dtype):
        updates, state = (update or optimizer.update)(jnp.asarray(gradient), state, params)
        params = optax.apply_updates(params, updates)
        assert params.dtype == dtype
        trajectory.append(np.asarray(params))
    return np.array(trajectory)


@pytest.mark.parametrize('name', [*KNOWN_RULES, *WORDS_2])
def test_optax_walks_as_the_oracle(name, optax, monkeypatch):
    import jax

    draws = iter(uniforms())
    monkeypatch.setattr(jax.random, 'uniform', lambda key, shape: next(draws))
    found = optax_walk(optax, source_of(name, 'optax')(*length_of(name), 0.0625), 'float64')
    np.testing.assert_allclose(found, expected_walk(name), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('name', ['adam', 'rmsprop', 'powersign', 'adam_powersign'])
def test_optax_is_as_exact_in_float32_and_compiled(name, optax):
    import jax

    optimizer = source_of(name, 'optax')(optax.constant_schedule(0.0625))
    found = optax_walk(optax, optimizer, 'float32', jax.jit(optimizer.update))
    np.testing.assert_allclose(found, expected_walk(name), rtol=1e-5, atol=1e-5)


def test_optax_at_the_edges(optax):
    gradient = np.array([0.0, -1e-39, 1e-30, -np.inf, np.nan], 'float32')
    optimizer = source_of('sign(g)', 'optax')(1.0)
    with np.errstate(invalid='ignore'):
        updates, _ = optimizer.update(gradient, optimizer.init(gradient))
    np.testing.assert_array_equal(updates, [0, 0, -1, 1, np.nan])


def test_optax_draws(optax):
    """Masks of their own for each weight, each step, each sub-expression and each seed; under jit too."""
    import jax

    def masks(seed):
        optimizer = source_of('drop(g, 0.3) + drop(-g, 0.3)', 'optax')(1.0, seed=seed)
        params = {'a': np.ones(5000), 'b': np.ones(5000)}
        state, rows = optimizer.init(params), []
        for _ in range(2):
            updates, state = jax.jit(optimizer.update)(params, state)
            rows += [np.asarray(updates['a']), np.asarray(updates['b'])]
        return np.array(rows)

    first, again, other = masks(0), masks(0), masks(1)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose([(first == k).mean() for k in (-1, 0, 1)], [0.21, 0.58, 0.21], atol=0.02)
    assert np.abs(np.corrcoef([*first, *other]) - np.eye(8)).max() < 0.08


def test_optax_keeps_what_the_rule_reads(optax):
    params = {'w': np.ones(3, 'float32')}
    state, _ = source_of('adam + noise', 'optax')(0.1).init(params)
    assert state._fields == ('count', 'm', 'v', 'key')
    assert source_of('g', 'optax')(0.1).init(params)[0] == optax.EmptyState()
    optimizer = source_of('g + 1e-1*w', 'optax')(0.5)
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    np.testing.assert_allclose(updates['w'], -0.55, rtol=1e-6)
    with pytest.raises(ValueError, match='the rule reads the weights'):
        optimizer.update(params, optimizer.init(params))


@pytest.mark.parametrize(('option', 'value'), BAD_OPTIONS)
def test_optax_refuses_what_is_out_of_range(option, value, optax):
    with pytest.raises(ValueError, match=rf'^{option} = {value}: must be in \[0, (1|inf)\)$'):
        source_of(ALL_OPTIONS, 'optax')(0.1, **{option: value})


# Numbers that they take


@pytest.mark.parametrize('dtype', HALVES)
@pytest.mark.parametrize('rule', ['adam', 'rmsprop', 'powersign', 'log(g) * sign(gamma)'])
def test_optax_16_bits_are_updated_by_float32_arithmetic(rule, dtype, optax):
    """The updates are rounded once before they are added: by half a unit more than where they are not."""
    import jax
    import jax.numpy as jnp

    narrow, unit = half_type(dtype)
    optimizer = source_of(rule, 'optax')(0.0625)
    params = jnp.asarray(start(), narrow)
    state, update, trajectory = optimizer.init(params), jax.jit(optimizer.update), []
    for gradient in gradients():
        updates, state = update(jnp.asarray(gradient, narrow), state, params)
        assert updates.dtype == narrow
        params = optax.apply_updates(params, updates)
        trajectory.append(np.asarray(params, 'float32'))
    np.testing.assert_allclose(trajectory, expected_half_walk(rule, dtype), rtol=4 * unit, atol=2 * unit)
    assert {x.dtype for x in jax.tree.leaves(state)} == {np.dtype('int32'), np.dtype('float32')}


@pytest.mark.parametrize('rule', ['g', 'adam'])
def test_optax_changes_of_single_parameters_are_single_whatever_the_gradients_are(rule, optax):
    import jax.numpy as jnp

    optimizer = source_of(rule, 'optax')(1.0)
    params, narrow = jnp.zeros(3, 'float32'), jnp.ones(3, 'bfloat16')
    state = optimizer.init(params)
    assert optimizer.update(narrow, state, params)[0].dtype == jnp.float32
    assert optimizer.update(narrow, state)[0].dtype == jnp.bfloat16  # nothing says what they are for


def test_optax_complex_numbers_are_refused_or_split(optax):
    import jax.numpy as jnp

    gradient = jnp.asarray([1 + 2j, -3 + 0.5j])
    powersign = source_of('powersign', 'optax')(0.5)
    for call in (powersign.init, lambda g: source_of('g', 'optax')(0.5).update(g, powersign.init(gradient.real))):
        with pytest.raises(ValueError, match=r'complex numbers .*: wrap the optimizer in optax\.contrib\.split_real'):
            call(gradient)
    split = optax.contrib.split_real_and_imaginary(powersign)
    updates, _ = split.update(gradient, split.init(gradient), gradient)
    parts = [powersign.update(part, powersign.init(part))[0] for part in (gradient.real, gradient.imag)]
    np.testing.assert_array_equal(updates, parts[0] + 1j * parts[1])


def test_optax_takes_scalars_and_empty_arrays(optax):
    params = {'scalar': np.float32(2), 'number': 3.0, 'empty': np.zeros([0, 3], 'float32')}
    optimizer = source_of('adam + 1e-1*w', 'optax')(0.5)
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    assert float(updates['scalar']) == pytest.approx(-0.6)
    assert float(updates['number']) == pytest.approx(-0.65)
    assert updates['empty'].shape == (0, 3)


# As a part of others


def test_optax_injected_hyper_parameters_can_change_under_jit(optax):
    import jax

    cls, gradient = source_of('m + v', 'optax'), np.ones(3, 'float32')
    optimizer = optax.inject_hyperparams(cls)(learning_rate=1.0, beta_1=0.5)
    state, update = optimizer.init(gradient), jax.jit(optimizer.update)
    updates, state = update(gradient, state)
    np.testing.assert_allclose(updates, -2.0, rtol=1e-6)
    state.hyperparams['learning_rate'] = state.hyperparams['learning_rate'] * 0 + 0.25
    state.hyperparams['beta_1'] = state.hyperparams['beta_1'] * 0
    updates, state = update(-gradient, state)
    np.testing.assert_allclose(updates, -0.25 * (-1 + 1), atol=1e-6)
    stochastic = optax.inject_hyperparams(source_of('drop(g, 0.5)', 'optax'))(1.0, seed=3)
    found, _ = stochastic.update(np.ones(100), stochastic.init(np.ones(100)))
    assert 0.3 < np.mean(np.asarray(found) != 0) < 0.7


def test_optax_masked_and_missing_leaves_are_left_alone(optax):
    params = {'a': np.ones(3, 'float32'), 'b': np.ones(2, 'float32'), 'none': None}
    inner = source_of('m * sign(v) + 1e-1*w', 'optax')(1.0)
    optimizer = optax.masked(inner, {'a': True, 'b': False, 'none': True})
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    np.testing.assert_allclose(updates['a'], -1.1, rtol=1e-6)
    np.testing.assert_array_equal(updates['b'], params['b'])
    assert updates['none'] is None


def test_optax_vmap_trains_members_as_if_alone(optax):
    """Over weights, learning rates and seeds."""
    import jax
    import jax.numpy as jnp

    cls, k = source_of('drop(adam, 0.5) + noise', 'optax'), 3
    weights = jnp.asarray(np.random.default_rng(0).normal(size=[k, 50]))

    def train(w, rate, seed):
        optimizer = cls(rate, seed=seed)
        state = optimizer.init(w)
        for _ in range(3):
            updates, state = optimizer.update(2 * w, state, w)
            w = optax.apply_updates(w, updates)
        return w

    rates, seeds = jnp.asarray([0.1, 0.2, 0.3]), jnp.asarray([0, 1, 1])
    together = jax.vmap(train)(weights, rates, seeds)
    for i in range(k):
        np.testing.assert_allclose(together[i], train(weights[i], rates[i], seeds[i]), rtol=1e-6)
    again = jax.vmap(train)(weights[:1].repeat(2, 0), rates[:1].repeat(2), jnp.asarray([0, 1]))
    assert np.abs(again[0] - again[1]).max() > 0.01


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_optax_in_a_chain_in_multi_steps_in_a_scan(dtype, optax):
    """Types and structure of the state stay what they are; two halves of a gradient are one step."""
    import jax
    import jax.numpy as jnp

    clipped = optax.chain(optax.clip(1.0), source_of('m', 'optax')(optax.linear_schedule(1.0, 0.0, 4)))
    optimizer = optax.MultiSteps(clipped, every_k_schedule=2)
    params = jnp.zeros(3, dtype)

    def step(carry, gradient):
        w, state = carry
        updates, state = optimizer.update(gradient, state, w)
        return (optax.apply_updates(w, updates), state), w

    many = jnp.asarray([[0.0] * 3, [4.0] * 3, [0.25] * 3, [0.75] * 3], dtype)  # of means 2, clipped to 1, and .5
    (w, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), many)
    m = (0.9 * 0.1 * 1 + 0.1 * 0.5) / 0.19
    np.testing.assert_allclose(np.asarray(w, 'float32'), -1.0 - 0.75 * m, rtol=1e-6 if dtype == 'float32' else 1e-2)
