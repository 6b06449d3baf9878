"""Version 2 of the language: each word, and rules at random, in all programs that run rules; known ones by others."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from nos_tf.dsl.known import VERSION_2
from nos_tf.dsl.primitives import RuleConstants
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.optimizers import interpreter
from nos_tf.optimizers.nos_optimizer import NOSOptimizer
from tests.optimizers import oracle
from tests.optimizers.exported import source_of
from tests.optimizers.walks import STEPS, gradients, start
from tests.rules import WORDS_2, random_rules

RATE = 0.0625
RULES = [rule for rule in map(UpdateRule, random_rules(120, 41, stochastic=False, version=2)) if rule.reads_gradient]


def expected(rule):
    tokens = UpdateRule.parse(str(rule)).canonical().tokens
    return oracle.train(tokens, start(dtype='float64'), gradients(dtype='float64'), RATE)


def optimizer_of(rule, **arguments):
    rule = rule if isinstance(rule, UpdateRule) else UpdateRule.parse(rule)
    return NOSOptimizer(rule, RATE, **({'total_steps': STEPS} if rule.reads_progress else {}), **arguments)


def walk(optimizer, dtype='float64', steps=STEPS):
    variable = keras.Variable(start(dtype=dtype), dtype=dtype)
    trajectory = []
    for gradient in gradients(dtype=dtype)[:steps]:
        optimizer.apply([tf.constant(gradient)], [variable])
        trajectory.append(variable.numpy())
    return np.array(trajectory)


@pytest.mark.parametrize('rule', WORDS_2)
def test_each_word_walks_as_the_oracle(rule):
    """In float64, and in float32 as exactly as that can."""
    exact = expected(rule)
    assert np.abs(exact[-1] - start()).max() > 1e-3
    np.testing.assert_allclose(walk(optimizer_of(rule)), exact, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(walk(optimizer_of(rule), 'float32'), exact, rtol=1e-5, atol=2e-5)


@pytest.mark.slow
def test_random_rules_walk_as_the_oracle_in_the_optimizer_and_in_one_graph_for_all():
    vocabulary, weights = Vocabulary.of(None, RULES), tf.constant(start(dtype='float64'))

    @tf.function(autograph=False)
    def step(ids, state, gradient):
        return interpreter.update(
            ids, state, gradient, tf.constant(RATE, 'float64'), seed=tf.constant(0),
            constants=RuleConstants(), vocabulary=vocabulary, total_steps=STEPS,
        )  # fmt: skip

    for rule in RULES:
        with np.errstate(all='ignore'):
            exact = expected(rule)[:6]
        np.testing.assert_allclose(walk(optimizer_of(rule), steps=6), exact, rtol=1e-6, atol=1e-9, err_msg=str(rule))
        ids, state = tf.constant(vocabulary.ids_of(rule)), interpreter.initial_state(weights, vocabulary)
        for gradient in gradients(dtype='float64')[:6]:
            state = step(ids, state, tf.constant(gradient))
        np.testing.assert_allclose(state.weights, exact[-1], rtol=1e-6, atol=1e-9, err_msg=str(rule))
    assert step.experimental_get_tracing_count() == 1


def keras_walk(optimizer, steps=30):
    """Thirty updates by gradients of scales from 1e-2 to 10, in float32."""
    random = np.random.default_rng(7)
    variable = keras.Variable(np.linspace(-1, 1, 40), dtype='float32')
    points = []
    for _ in range(steps):
        gradient = random.choice([-1.0, 1.0], 40) * 10 ** random.uniform(-2, 1, 40)
        optimizer.apply([tf.constant(gradient, tf.float32)], [variable])
        points.append(variable.numpy())
    return np.array(points)


@pytest.mark.parametrize(
    ('rule', 'theirs'),
    [
        ('lion', lambda: keras.optimizers.Lion(0.01)),
        ('nadam', lambda: keras.optimizers.Nadam(0.01, epsilon=1e-8)),
        ('nadam', lambda: keras.optimizers.Nadam(0.01, beta_1=0.8, beta_2=0.99, epsilon=1e-4)),
        ('adam99', lambda: keras.optimizers.Adam(0.01, beta_2=0.99, epsilon=1e-8)),
        ('adam95', lambda: keras.optimizers.Adam(0.01, beta_2=0.95, epsilon=1e-8)),
    ],
)
def test_walks_as_the_optimizer_of_keras_that_it_is_named_after(rule, theirs):
    config = theirs().get_config()
    constants = {name: config[name] for name in UpdateRule.parse(rule).constants}
    found, other = keras_walk(NOSOptimizer(rule, 0.01, **constants)), keras_walk(theirs())
    np.testing.assert_allclose(found, other, rtol=1e-5, atol=1e-6)
    assert np.abs(keras_walk(keras.optimizers.SGD(0.01)) - other).max() > 0.1


def cautious(update):
    """The weights of a cautious optimizer, by the paper's formula without its rescaling, from (g, state) -> update."""
    w, state, points = start(dtype='float64'), {}, []
    for step, g in enumerate(gradients(dtype='float64'), start=1):
        u = update(g, state, step)
        w = w - RATE * np.where(u * g > 0, u, 0)
        points.append(w)
    return np.array(points)


def adam(g, state, step):
    state['m'] = 0.9 * state.get('m', 0) + 0.1 * g
    state['v'] = 0.999 * state.get('v', 0) + 0.001 * g * g
    return state['m'] / (1 - 0.9**step) / ((state['v'] / (1 - 0.999**step)) ** 0.5 + 1e-8)


def lion(g, state, step):
    before = state.get('m', 0 * g)
    state['m'] = 0.99 * before + 0.01 * g
    return np.sign(0.9 * before + 0.1 * g)


@pytest.mark.parametrize(('rule', 'update'), [('cautious_adam', adam), ('cautious_lion', lion)])
def test_cautious_rules_walk_as_the_paper_has_them(rule, update):
    np.testing.assert_allclose(walk(optimizer_of(rule)), cautious(update), rtol=1e-9, atol=1e-9)


def test_grams_walks_as_its_paper_has_it():
    w, state, points = start(dtype='float64'), {}, []
    for step, g in enumerate(gradients(dtype='float64'), start=1):
        w = w - RATE * np.sign(g) * np.abs(adam(g, state, step))
        points.append(w)
    np.testing.assert_allclose(walk(optimizer_of('grams')), points, rtol=1e-9, atol=1e-9)


def test_every_known_rule_has_a_test_of_its_own():
    by_others = {'lion', 'nadam', 'cautious_adam', 'cautious_lion', 'grams'}
    assert {known.name for known in VERSION_2} == by_others | {'sign_sum'}  # which is its formula


@pytest.mark.parametrize('rule', [*(known.name for known in VERSION_2), *WORDS_2])
def test_the_source_for_keras_walks_as_the_optimizer(rule):
    parsed = UpdateRule.parse(rule)
    exported = source_of(rule, 'keras')(*([STEPS] if parsed.reads_progress else []), learning_rate=RATE)
    np.testing.assert_allclose(walk(exported), walk(optimizer_of(rule)), rtol=1e-9, atol=1e-9)


# Schedules


def test_a_schedule_ends_and_stays():
    points = walk(NOSOptimizer('sign(g) * linear', 1.0, total_steps=4))
    sizes = np.abs(np.diff(points, axis=0, prepend=start()[None]))[:, 0]
    np.testing.assert_allclose(sizes[:6], [1, 0.75, 0.5, 0.25, 0, 0], atol=1e-12)


@pytest.mark.parametrize('steps', [0, -1, 2.5, True, '10', None])
def test_a_schedule_needs_a_number_of_steps(steps):
    message = 'give total_steps' if steps is None else 'total_steps = .*must be a whole number, at least 1'
    with pytest.raises(ValueError, match=message):
        NOSOptimizer('adam * cosine', total_steps=steps)


def test_a_number_of_steps_that_nothing_reads_is_refused():
    with pytest.raises(ValueError, match='total_steps = 10 changes nothing: adam has no schedule'):
        NOSOptimizer('adam', total_steps=10)


def test_a_rate_that_decays_besides_is_warned_of():
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    with pytest.warns(UserWarning, match='decays, and so does the rate by its schedule: twice'):
        NOSOptimizer('adam * linear', schedule, total_steps=10)


def test_a_model_saves_and_goes_on_with_the_same_bits(tmp_path):
    keras.utils.set_random_seed(3)
    x = np.random.default_rng(1).standard_normal([64, 4]).astype('float32')
    model = keras.Sequential([keras.Input([4]), keras.layers.Dense(8, activation='tanh'), keras.layers.Dense(1)])
    rule = 'agree(m_nesterov, g) / sqrt(v) * cosine + sign(lerp(m99_before, g)) * adam95'
    model.compile(optimizer=NOSOptimizer(rule, 0.02, total_steps=100), loss='mse')
    model.fit(x, x[:, :1], batch_size=16, epochs=4, shuffle=False, verbose=0)
    model.save(tmp_path / 'model.keras')
    restored = keras.saving.load_model(tmp_path / 'model.keras')
    assert restored.optimizer.get_config() == model.optimizer.get_config()
    assert restored.optimizer.total_steps == 100
    for each in (model, restored):
        each.fit(x, x[:, :1], batch_size=16, epochs=2, shuffle=False, verbose=0)
    for a, b in zip(model.get_weights(), restored.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
@pytest.mark.parametrize('rule', ['lion', 'nadam', 'adam95 * linear'])
def test_variables_of_half_precision(rule, dtype):
    """One update away from the weights, all arithmetic is float32: a coarse variable goes where a fine one does."""
    points = []
    for kind in (dtype, 'float32'):
        variable = keras.Variable(np.zeros(3), dtype=kind)
        optimizer = optimizer_of(rule)
        for gradient in ([1e-6, -1.0, 0.0], [1e-3, 0.5, 0.0]):
            optimizer.apply([tf.constant(gradient, kind)], [variable])
        points.append(np.asarray(keras.ops.cast(variable, 'float32')))
    np.testing.assert_allclose(*points, rtol=0.02, atol=1e-3)
    assert np.isfinite(points[0]).all()
