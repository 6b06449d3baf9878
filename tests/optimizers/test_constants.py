"""Every constant that an optimizer takes changes what it trains, or is refused with the reason.

The walk goes over all arguments of all classes of the installed Keras: an argument that is new there has to be given a
value below, or a reason in `nos_tf.optimizers.constants`.
"""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from nos_tf.optimizers.averages import finalised
from nos_tf.optimizers.constants import FOR_EMBEDDINGS, NO_CONSTANTS, NO_EFFECT, defaults_of, read
from nos_tf.optimizers.contender import Contender, keras_classes

STEPS = 6
RATES = {'keras.Adadelta': 50.0}  # its steps are small
VALUES = {
    'weight_decay': '0.5',
    'clipnorm': '0.2',
    'clipvalue': '0.05',
    'global_clipnorm': '0.3',
    'use_ema': '1',
    'ema_momentum': '0.5',
    'ema_overwrite_frequency': '3',
    'gradient_accumulation_steps': '2',
    'beta_1': '0.5', 'beta_2': '0.5', 'epsilon': '0.1', 'rho': '0.5', 'momentum': '0.5',
    'amsgrad': '1', 'centered': '1', 'nesterov': '1',
    'beta_2_decay': '-0.3', 'epsilon_1': '0.1', 'epsilon_2': '10', 'clip_threshold': '0.1',
    'initial_accumulator_value': '1', 'learning_rate_power': '-0.1', 'l1_regularization_strength': '0.5',
    'l2_regularization_strength': '0.5', 'l2_shrinkage_regularization_strength': '0.5', 'beta': '0.5',
    'adam_beta_1': '0.5', 'adam_beta_2': '0.5', 'adam_weight_decay': '0.5', 'adam_lr_ratio': '0.5',
    'muon_a': '3', 'muon_b': '-4.5', 'muon_c': '1', 'ns_steps': '2', 'rms_rate': '0.5', 'warmup_steps': '4',
}  # fmt: skip
OTHERS = {'Muon.nesterov': '0'}
BESIDE = {  # what an argument needs, or needs to show within a few steps
    'ema_momentum': 'use_ema=1',
    'ema_overwrite_frequency': 'use_ema=1',
    'SGD.nesterov': 'momentum=0.9',
    'amsgrad': 'beta_2=0.5',
}
ARGUMENTS = [(name, key) for name, kind in sorted(keras_classes().items()) for key in defaults_of(kind)]


def is_refused(name, key):
    return bool({key, f'{name}.{key}'} & {*NO_EFFECT})


def trained(optimizer):
    """A matrix and a vector after some steps, as a training would end with them."""
    random = np.random.default_rng(3)
    weights = [keras.Variable(random.normal(size=shape).astype('float32')) for shape in ((4, 3), (3,))]
    optimizer.build(weights)
    for step in range(STEPS):
        size = 10 ** (-2 * step / STEPS)
        optimizer.apply([tf.constant(size * random.normal(size=w.shape), tf.float32) for w in weights], weights)
    with finalised(optimizer, weights):
        return np.concatenate([weight.numpy().ravel() for weight in weights])


@pytest.fixture(scope='module')
def walked():
    """The weights that a text leads to, each computed once."""
    known = {}

    def weights_of(text):
        if text not in known:
            rate = RATES.get(text.partition(' ')[0], 0.05)
            known[text] = trained(Contender(text).optimizer(rate, 0))
        return known[text]

    return weights_of


@pytest.mark.parametrize(
    ('name', 'key'), [at for at in ARGUMENTS if not is_refused(*at) and '.'.join(at) not in FOR_EMBEDDINGS]
)
def test_each_argument_of_each_class_of_keras_changes_the_weights(walked, name, key):
    beside = BESIDE.get(f'{name}.{key}', BESIDE.get(key))
    parts = [*filter(None, [beside]), f'{key}={OTHERS.get(f"{name}.{key}") or VALUES[key]}']
    plain, changed = (
        walked(' with '.join(filter(None, [f'keras.{name}', beside]))),
        walked(f'keras.{name} with {", ".join(parts)}'),
    )
    assert np.isfinite(changed).all() and np.abs(plain - changed).max() > 1e-5


@pytest.mark.parametrize(('name', 'key'), [at for at in ARGUMENTS if is_refused(*at)])
def test_an_argument_without_an_effect_is_refused_with_the_reason(name, key):
    contender = Contender(f'keras.{name} with {key}=0')  # what is on file from before can still be read
    reason = NO_EFFECT.get(f'{name}.{key}', NO_EFFECT.get(key))
    for refuses in (contender.check, lambda: contender.optimizer(0.1, 0)):
        with pytest.raises(ValueError, match='changes nothing') as said:
            refuses()
        assert key in str(said.value) and reason in str(said.value) and '\n' not in str(said.value)


USELESS = {('Adafactor', 'relative_step'): (True, False), ('ScheduleFreeAdamW', 'beta_1'): (0.9, 0.5)}


@pytest.mark.parametrize(('name', 'key'), [at for at in USELESS if at in ARGUMENTS])
def test_what_is_refused_of_one_class_has_no_effect_in_the_keras_that_is_installed(name, key):
    """Should Keras mend it, the reason goes."""
    one, other = (trained(keras_classes()[name](0.9, **{key: value})) for value in USELESS[name, key])
    np.testing.assert_allclose(one, other, rtol=1e-5)


def test_each_argument_of_keras_is_a_constant_or_is_known_to_be_none():
    seen = {key for kind in keras_classes().values() for key in inspect.signature(kind).parameters}
    assert seen - {key for _, key in ARGUMENTS} == set(NO_CONSTANTS)


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('keras.Adam with ema_momentum=0.5', 'ema_momentum changes nothing without use_ema=1: add that, or leave'),
        ('keras.Adam with use_ema=0, ema_overwrite_frequency=3', 'ema_overwrite_frequency changes nothing without use'),
        ('keras.SGD with nesterov=1', 'nesterov changes nothing without momentum above 0'),
        ('keras.SGD with momentum=0, nesterov=1', 'nesterov changes nothing without momentum above 0'),
        ('keras.Adam with use_ema=0.5', 'use_ema = 0.5: must be 1 or 0, for yes or no'),
        ('keras.RMSprop with centered=2', 'centered = 2: must be 1 or 0'),
        ('keras.Adam with clipnorm=0', 'clipnorm = 0: must be above 0, or be left out'),
        ('keras.Adam with clipvalue=-1', 'clipvalue = -1: must be above 0'),
        ('keras.RMSprop with momentum=-0.5', 'momentum = -0.5: must be above 0'),
        ('keras.Adam with gradient_accumulation_steps=0', 'must be a whole number, at least 2, or be left out'),
        ('keras.Adam with gradient_accumulation_steps=2.5', 'gradient_accumulation_steps = 2.5: must be a whole'),
        ('keras.Adam with use_ema=1, ema_overwrite_frequency=0', 'must be a whole number, at least 1'),
        ('keras.Muon with ns_steps=2.5', 'ns_steps = 2.5: must be a whole number'),
        ('keras.Adam with weight_decay=0', 'weight_decay = 0 changes nothing: leave it out'),
        ('g with beta_2=0.5', 'beta_2 changes nothing: g reads no constant'),
        ('powersign with epsilon=1', r'epsilon changes nothing: g \* exp\(sign\(g\) \* sign\(m\)\) reads beta_1'),
        ('adam with noise_stddev=3', 'noise_stddev changes nothing: adam reads beta_1, beta_2, epsilon'),
    ],
)
def test_a_value_without_an_effect_is_refused(text, said):
    try:
        contender = Contender(text)
    except ValueError as error:  # Keras refuses it itself
        pytest.fail(f'is no longer read: {error}')
    with pytest.raises(ValueError, match=said):
        contender.check()


@pytest.mark.parametrize(
    'text', ['keras.SGD with momentum=0', 'keras.Adam with use_ema=0, epsilon=1e-7', 'keras.SGD with nesterov=0']
)
def test_a_constant_at_its_default_is_as_good_as_none(text):
    contender = Contender(text)
    contender.check()
    assert contender.program == Contender(text.partition(' ')[0]).program


def test_exclude_embeddings_is_for_what_may_have_embeddings():
    contender = Contender('keras.Muon with exclude_embeddings=0')
    assert contender.optimizer(0.1, 0).exclude_embeddings is False
    with pytest.raises(ValueError, match='exclude_embeddings changes nothing, so leave it out: nothing here has embed'):
        contender.check(has_embeddings=False)


def test_adamw_may_do_without_its_decay():
    assert Contender('keras.AdamW with weight_decay=0').optimizer(0.1, 0).weight_decay == 0


def test_whole_numbers_are_as_good_as_others():
    assert Contender('keras.SGD with momentum=1').optimizer(0.1, 0).momentum == 1.0
    assert Contender('keras.Adam with amsgrad=1').optimizer(0.1, 0).amsgrad is True


def test_reading_by_hand():
    assert read('', 'g') == {} and read(' a=1, b=-2e3', 'g with') == {'a': 1, 'b': -2000.0}


@pytest.mark.parametrize('text', ['0.5', 'a', 'a=1, 2', '**{}', 'a=1, a=2', 'a=1)(b=2', 'a=1), f(b=2', '(a=1', 'a=b'])
def test_what_is_no_list_of_numbers_is_refused(text):
    with pytest.raises(ValueError, match='after "with" comes name=number, ..., each name once; it is '):
        read(text, f'g with {text}')
