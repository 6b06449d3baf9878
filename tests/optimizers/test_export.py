"""What `export` prints: sources that compile and import only their framework; the Keras ones are run.

Those for Optax and PyTorch are run in test_export_optax.py and test_export_torch.py, where these frameworks are.
"""

import ast
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from nos_tf.dsl.known import KNOWN_RULES
from nos_tf.dsl.rule import UpdateRule
from nos_tf.optimizers.export import export
from nos_tf.optimizers.nos_optimizer import NOSOptimizer
from tests.optimizers import oracle
from tests.optimizers.exported import ALL_OPTIONS, BAD_OPTIONS, HALVES, expected_half_walk, half_type, source_of
from tests.optimizers.walks import STEPS, gradients, keep_of, start, uniforms
from tests.rules import random_rules

FRAMEWORKS = ('keras', 'optax', 'torch')
DETERMINISTIC = [name for name in KNOWN_RULES if not UpdateRule.parse(name).is_stochastic]
STOCHASTIC = [name for name in KNOWN_RULES if UpdateRule.parse(name).is_stochastic]
RANDOM_RULES = [UpdateRule(tokens) for tokens in random_rules(100, seed=21)]
LATER_RULES = [UpdateRule(tokens) for tokens in random_rules(40, seed=22, version=2)]

POWERSIGN = '''\
class PowerSign(torch.optim.Optimizer):
    """PowerSign: each step is w -= lr * u.

        u = g * exp(sign(g) * sign(m))
        g: the gradient
        m: the bias-corrected running average of g
        sign(x): -1, 0 or 1; 0 for denormals, NaN for NaN

    16-bit weights are updated by float32 arithmetic, with float32 averages.

    Args:
        params: the weights, or dicts of a parameter group each.
        lr: learning rate, a number or a tensor of one.
        beta_1: decay of m.

    Reference: Bello et al. 2017, Table 1.
    """

    def __init__(self, params, lr=0.01, beta_1=0.9):
        defaults = {"lr": lr, "beta_1": beta_1}
        super().__init__(params, defaults)
'''
UPDATE = '''\
    def _update(self, group, step, weights, m, g):
        """Updates tensors in place; g is the gradient."""
        g = g.to(_wide(g))
        _average(m, g, group["beta_1"], step)
        u = g * _exp_of_sign(_sign(g) * _sign(m))
        _add(weights, u, -group["lr"])
'''


def keras_class(rule, **arguments):
    """The exported class, made from its source."""
    names = {'__name__': 'exported'}
    source = export(rule, 'keras', **arguments)
    exec(compile(source, 'exported.py', 'exec'), names)  # noqa: S102 - it is what is tested
    (cls,) = (c for c in names.values() if isinstance(c, type))
    return cls


def walk(optimizer, dtype='float32'):
    """The weights after each of twenty updates."""
    variable = keras.Variable(start(dtype=dtype), dtype=dtype)
    trajectory = []
    for gradient in gradients(dtype=dtype):
        optimizer.apply([tf.constant(gradient)], [variable])
        trajectory.append(variable.numpy())
    return np.array(trajectory)


def formula(rule):
    """The line of the update; the docstring has another one before it."""
    return re.findall(r'u = .*', export(rule, 'torch'))[-1]


def test_powersign_to_the_letter():
    source = export('powersign', 'torch')
    assert POWERSIGN in source
    assert source.endswith(UPDATE)


@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_every_source_compiles_and_imports_its_framework_alone(framework):
    allowed = {'keras': {'keras'}, 'optax': {'optax', 'jax', 'typing'}, 'torch': {'torch'}}[framework]
    for rule in [*KNOWN_RULES, *RANDOM_RULES, *LATER_RULES]:
        source = export(rule, framework)
        tree = ast.parse(source)
        compile(tree, 'exported.py', 'exec')
        imported = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.split('.')[0])
        assert framework in imported <= allowed, source
        assert 'nos_tf' not in source
        assert not re.search(r'[$%]\w|\{[{%#]|[%#]\}', source), 'something was not filled in'


def test_every_source_is_as_the_formatter_would_have_it(tmp_path):
    for framework in FRAMEWORKS:
        for i, rule in enumerate([*KNOWN_RULES, *RANDOM_RULES, *LATER_RULES]):
            (tmp_path / f'{framework}_{i}.py').write_text(export(rule, framework))
    for command in (['format', '--check'], ['check', '--select', 'E,F,I,W,B,D', '--ignore', 'D1']):
        options = ['--isolated', '--line-length', '88', '--config', 'lint.pydocstyle.convention = "google"']
        options = options if command[0] == 'check' else options[:3]
        ruff = [sys.executable, '-m', 'ruff', *command, *options, '.']
        run = subprocess.run(ruff, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_no_source_defines_or_takes_what_it_does_not_use(framework):
    for rule in [*KNOWN_RULES, *RANDOM_RULES]:
        source = export(rule, framework)
        for helper in re.findall(r'^def (_\w+)', source, flags=re.MULTILINE):
            assert len(re.findall(rf'\b{helper}\b', source)) > 1, source
        body = '\n'.join(
            line for line in source.splitlines() if not re.search(r'^ *(def|if|raise|limits|defaults) ', line)
        )
        for option in ('beta_1', 'beta_2', 'beta_3', 'epsilon', 'noise_stddev'):
            read = re.search(rf'(?<![=."\w]){option}\b(?! =|: )|self\.{option}\b(?! =)|group\["{option}"\]', body)
            assert bool(read) == bool(re.search(rf'\b{option}=', source)), (option, source)


@pytest.mark.parametrize(
    ('rule', 'slots', 'options'),
    [
        ('g', [], []),
        ('powersign', ['m'], ['beta_1']),
        ('rmsprop', ['v'], ['beta_2', 'epsilon']),
        ('m * gamma', ['m', 'gamma'], ['beta_1', 'beta_3']),
        ('g / m', ['m'], ['beta_1', 'epsilon']),
        ('log(g)', [], ['epsilon']),
        ('g + noise', [], ['noise_stddev', 'seed']),
        ('g adam x x left', [], []),
    ],
)
def test_keeps_the_slots_and_takes_the_options_that_the_rule_reads(rule, slots, options):
    optimizer = keras_class(rule)()
    added = set(optimizer.get_config()) - set(keras.optimizers.SGD().get_config())
    assert added == set(options)
    optimizer.build([keras.Variable(np.ones(3), name='w')])
    assert [v.name for v in optimizer.variables[2:] if v.name != 'seed_generator_state'] == [f'w_{s}' for s in slots]
    state = re.findall(r' state\["(\w+)"\] = ', export(rule, 'torch'))
    assert state == (['step', *slots] if slots else [])


# What the formula looks like


@pytest.mark.parametrize(
    ('rule', 'text'),
    [
        ('adam', 'u = m / (torch.sqrt(v) + epsilon)'),
        ('addsign', 'u = g * (1.0 + _sign(g) * _sign(m))'),
        ('clip_momentum_exp_v', 'u = torch.exp(v) * torch.clip(m, -1e-4, 1e-4)'),
        ('drop10_momentum_over_exp_g2', 'u = _drop(m, 0.1) / (torch.exp(g**2) + epsilon)'),
        ('sgd_minus_clip_g2', 'u = g - torch.clip(g**2, -1e-4, 1e-4)'),
        ('log(g) - 1e-2*w', 'u = torch.log(torch.clip(torch.abs(g), min=epsilon)) - 0.01 * w'),
        ('-(g^3)', 'u = -(g**3)'),
        ('exp(1) * noise', 'u = noise * torch.exp(torch.ones_like(g))'),
    ],
)
def test_a_formula_reads_as_one_would_write_it(rule, text):
    assert formula(rule) == text


def test_equal_sub_expressions_are_one_variable():
    source = export('drop(m, 0.3) * exp(drop(m, 0.3)) - adam / exp(adam) * sign(drop(m, 0.3))', 'torch')
    assert source.count('_drop(m, 0.3)') == 1
    assert source.count('torch.sqrt(v)') == 1
    assert 't1 = _drop(m, 0.3)\n' in source
    assert 'adam = m / (torch.sqrt(v) + epsilon)\n' in source


@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_each_random_sub_expression_is_drawn_once(framework):
    for rule in RANDOM_RULES:
        nodes = set(re.findall(r'noise|drop\([^()]*\)', rule.canonical().infix))
        source = export(rule, framework)
        drawn = len(re.findall(r'(?<!def )_drop\(|randn_like|random\.normal\(key|(?<!def )_normal\(', source))
        assert drawn >= len(nodes), source
        if framework == 'optax' and drawn > 1:
            assert sorted(set(re.findall(r'keys\[(\d)\]', source))) == [str(k) for k in range(drawn)]
            assert f'jax.random.split(key, {drawn})' in source


# Names


@pytest.mark.parametrize(
    ('rule', 'cls', 'function'),
    [
        ('powersign', 'PowerSign', 'powersign'),
        ('exp(sign(m) * sign(g)) * g', 'PowerSign', 'powersign'),
        ('adam', 'Adam', 'adam'),
        ('sgd', 'SGD', 'sgd'),
        ('drop30_powersign', 'Drop30PowerSign', 'drop30_powersign'),
        ('clip_rmsprop_plus_drop30_momentum', 'ClipRMSPropPlusDrop30Momentum', 'clip_rmsprop_plus_drop30_momentum'),
        ('g * m * v', 'UpdateRule', 'update_rule'),
    ],
)
def test_the_optimizer_is_named_after_its_rule(rule, cls, function):
    assert f'\nclass {cls}(torch.optim.Optimizer):\n    """{cls}: ' in export(rule, 'torch')
    assert f'\nclass {cls}(keras.optimizers.Optimizer):\n    """{cls}: ' in export(rule, 'keras')
    assert f'\ndef {function}(' in export(rule, 'optax')


@pytest.mark.parametrize('framework', FRAMEWORKS)
@pytest.mark.parametrize('length', [46, 65, 200])
def test_a_long_name(framework, length):
    name = 'A' * length
    assert name in export('powersign', framework, name)


def test_a_name_of_ones_own():
    assert '\nclass Fast(torch.optim.Optimizer):' in export('adam', 'torch', name='Fast')
    source = export('adam', 'optax', 'fast_adam')
    assert '\ndef fast_adam(learning_rate=0.01' in source
    assert '\nclass FastAdamState(NamedTuple):' in source


@pytest.mark.parametrize(
    'name', ['', 'two words', '1st', 'class', 'torch', '_sign', 'super', 'a.b', 'x\ny', 'ｔｏｒｃｈ']
)
def test_refuses_a_name(name):
    with pytest.raises(ValueError, match=r'cannot name the optimizer: give an identifier that its source does not use'):
        export('powersign', 'torch', name)


@pytest.mark.parametrize('framework', ['', 'jax', 'Torch', 'tensorflow'])
def test_refuses_a_framework(framework):
    with pytest.raises(ValueError, match=f"no framework '{framework}': choose from keras, optax, torch"):
        export('powersign', framework)


def test_refuses_a_text_that_is_no_rule():
    with pytest.raises(ValueError, match=r"character 1 \('t'\)"):
        export('tiger', 'torch')


# The Keras sources at work


@pytest.mark.parametrize('name', DETERMINISTIC)
def test_walks_as_the_optimizer_of_the_package(name):
    """In float64 all of them do; in float32 all but those whose exponent of a hundred would show its last bit."""
    for dtype, tolerance in (('float64', 1e-9), ('float32', 1e-6)):
        if dtype == 'float64' or not re.search(r'exp\((v|g\^2)\)', KNOWN_RULES[name].infix):
            expected = walk(NOSOptimizer(name, 0.0625), dtype)
            assert np.abs(expected[1] - expected[0]).max() > 0.05
            found = walk(keras_class(name)(0.0625), dtype)
            np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize('name', STOCHASTIC)
def test_walks_as_the_oracle_with_the_same_draws(name, monkeypatch):
    draws = iter(uniforms())
    monkeypatch.setattr(keras.random, 'uniform', lambda shape, dtype, seed: tf.constant(next(draws)))
    tokens = UpdateRule.parse(name).canonical().tokens
    found = walk(keras_class(name)(0.0625), 'float64')
    expected = oracle.train(
        tokens, start(dtype='float64'), gradients(dtype='float64'), 0.0625, keep=keep_of(uniforms())
    )
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_random_rules_walk_as_the_optimizer_of_the_package():
    """Where they are deterministic; NaN and infinities included."""
    rules = [rule for rule in RANDOM_RULES if not rule.is_stochastic and rule.reads_gradient]
    assert len(rules) > 30
    for rule in rules[:30]:
        expected = walk(NOSOptimizer(rule, 1e-3), 'float64')
        np.testing.assert_allclose(
            walk(keras_class(rule)(1e-3), 'float64'), expected, rtol=1e-7, atol=1e-9, err_msg=str(rule)
        )


def one_update(rule, gradient, weights=None, **arguments):
    variable = keras.Variable(np.zeros(gradient.shape, 'float32') if weights is None else weights)
    keras_class(rule)(1.0, **arguments).apply([tf.constant(gradient)], [variable])
    return -variable.numpy()


def test_drop_zeroes_at_its_rate_and_leaves_the_rest():
    gradient = np.linspace(1, 2, 10000, dtype='float32')
    update = one_update('drop(g, 0.3)', gradient, seed=1)
    kept = update != 0
    assert abs(kept.mean() - 0.7) < 5 * (0.3 * 0.7 / 10000) ** 0.5
    np.testing.assert_array_equal(update[kept], gradient[kept])


def test_draws_are_fresh_at_each_step_and_seeded():
    def masks(seed):
        variable = keras.Variable(np.zeros(1000, 'float32'))
        optimizer = keras_class('drop(g, 0.5)')(1.0, seed=seed)
        optimizer.apply([tf.ones(1000)], [variable])
        first = variable.numpy()
        optimizer.apply([tf.ones(1000)], [variable])
        return first, variable.numpy() - first

    (a, b), again, (other, _) = masks(1), masks(1), masks(2)
    np.testing.assert_array_equal((a, b), again)
    assert 0.4 < (a == b).mean() < 0.6
    assert 0.4 < (a == other).mean() < 0.6


def test_noise_has_its_deviation():
    update = one_update('noise * g', np.ones(10000, 'float32'), noise_stddev=0.5, seed=1)
    assert update.std() == pytest.approx(0.5, rel=0.05)
    assert abs(update.mean()) < 5 * 0.5 / 100


def test_sign_and_log_at_the_edges():
    awkward = np.array([0.0, -0.0, 1e-39, -1e-39, 1e-30, -np.inf, np.nan], 'float32')
    np.testing.assert_array_equal(one_update('sign(g)', awkward), [0, 0, 0, 0, 1, -1, np.nan])
    found = one_update('log(g)', awkward[[0, 4, 6]])
    np.testing.assert_allclose(found, [np.log(1e-8), np.log(1e-8), np.nan], rtol=1e-6)


@pytest.mark.parametrize('rule', ['powersign', 'drop(m, 0.5) * exp(1e-3*w) + noise'])
def test_a_model_trains_and_continues_bit_for_bit_after_a_restore(rule, tmp_path):
    keras.utils.set_random_seed(3)
    x = np.random.default_rng(1).standard_normal([64, 4]).astype('float32')
    y = x[:, :1] * 0.5 - x[:, 1:2]
    model = keras.Sequential([keras.Input([4]), keras.layers.Dense(8, activation='tanh'), keras.layers.Dense(1)])
    cls = keras_class(rule, name='ExportedForATest')
    model.compile(optimizer=cls(0.02), loss='mse')
    losses = model.fit(x, y, batch_size=16, epochs=4, shuffle=False, verbose=0).history['loss']
    assert losses[-1] < losses[0]
    model.save(tmp_path / 'model.keras')
    restored = keras.saving.load_model(tmp_path / 'model.keras')
    assert type(restored.optimizer) is cls
    assert restored.optimizer.get_config() == model.optimizer.get_config()
    for each in (model, restored):
        each.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    for a, b in zip(model.get_weights(), restored.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_sparse_gradients_are_dense_ones():
    layer = keras.layers.Embedding(6, 2, embeddings_initializer='ones')
    layer.build()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(tf.constant([1, 4, 1])))
    gradient = tape.gradient(loss, layer.trainable_variables[0].value)
    assert isinstance(gradient, tf.IndexedSlices)
    keras_class('g^2 + m')(1.0).apply([gradient], layer.trainable_variables)
    np.testing.assert_allclose(layer.get_weights()[0][:, 0], [1, 1 - 6, 1, 1, 1 - 2, 1], rtol=1e-5)


@pytest.mark.parametrize('dtype', HALVES)
@pytest.mark.parametrize('rule', ['adam', 'rmsprop', 'powersign', 'log(g) * sign(gamma)'])
def test_16_bits_are_updated_by_float32_arithmetic(rule, dtype):
    """The updates are rounded once before they are subtracted: by half a unit more than where they are not."""
    narrow, unit = half_type(dtype)
    variable, optimizer = keras.Variable(start(), dtype=dtype), source_of(rule, 'keras')(0.0625)
    trajectory = []
    for gradient in gradients():
        optimizer.apply([tf.constant(gradient.astype(narrow))], [variable])
        trajectory.append(variable.numpy().astype('float32'))
    np.testing.assert_allclose(trajectory, expected_half_walk(rule, dtype), rtol=4 * unit, atol=2 * unit)
    assert variable.dtype == dtype
    assert {v.dtype for v in optimizer.variables[2:]} == {'float32'}


@pytest.mark.parametrize(('option', 'value'), BAD_OPTIONS)
def test_refuses_what_is_out_of_range_as_the_optimizer_of_the_package_does(option, value):
    for make in (source_of(ALL_OPTIONS, 'keras'), lambda **options: NOSOptimizer(ALL_OPTIONS, **options)):
        with pytest.raises(ValueError, match=rf'^{option} = {value}: must be .*in \[0, (1|inf)\)$'):
            make(**{option: value})


@pytest.mark.parametrize('rule', ['g', 'adam'])
def test_refuses_complex_variables(rule):
    variable = keras.Variable(np.ones(3), dtype='complex64', name='spectrum')
    with pytest.raises(ValueError, match=r'^spectrum\S* is complex64: must be of real numbers, as the rule is; keep '):
        source_of(rule, 'keras')(0.1).apply([tf.ones(3, tf.complex64)], [variable])


def test_takes_scalars_empty_variables_and_those_of_tensorflow():
    variables = [keras.Variable(np.float32(2)), keras.Variable(np.zeros([0, 3], 'float32')), tf.Variable([2.0])]
    optimizer = source_of('adam + 1e-1*w', 'keras')(0.5)
    optimizer.apply([tf.constant(-1.0), tf.zeros([0, 3]), tf.constant([-1.0])], variables)
    assert variables[0].numpy() == variables[2].numpy()[0] == pytest.approx(2.4)
    assert variables[1].shape == (0, 3)


def test_steps_are_as_many_as_the_oracle_takes():
    assert len(gradients()) == len(uniforms()) == STEPS
