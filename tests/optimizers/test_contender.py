"""Optimizers as lines of text."""

import keras
import pytest

from nos_tf.optimizers.contender import Contender
from nos_tf.optimizers.nos_optimizer import NOSOptimizer


def test_a_rule_and_its_constants():
    contender = Contender('adam_powersign with beta_1=0.95, epsilon=1e-6')
    optimizer = contender.optimizer(0.3, 7)
    assert isinstance(optimizer, NOSOptimizer)
    assert (optimizer.constants.beta_1, optimizer.constants.epsilon, optimizer.seed) == (0.95, 1e-6, 7)
    assert float(optimizer.learning_rate) == pytest.approx(0.3)
    assert contender.label == 'adam_powersign: adam * exp(sign(g) * sign(m)) with beta_1=0.95, epsilon=1e-06'
    assert contender.rule == Contender('adam * exp(sign(g) * sign(m))').rule


def test_an_optimizer_of_keras_and_its_arguments():
    contender = Contender('keras.SGD with momentum=0.9')
    optimizer = contender.optimizer(0.1, 0)
    assert isinstance(optimizer, keras.optimizers.SGD) and optimizer.momentum == 0.9
    assert contender.rule is None and contender.label == 'keras.SGD with momentum=0.9'
    assert isinstance(Contender('keras.Adam').optimizer(0.1, 0), keras.optimizers.Adam)


def test_spellings_of_one_program():
    powersign, *others = (
        Contender(text).program for text in ('powersign', 'exp(sign(m) * sign(g)) * g', ' powersign ')
    )
    assert [powersign] * 2 == others
    constant = Contender('powersign with beta_1=0.8, epsilon=1e-6').program
    assert powersign != constant == Contender('powersign with epsilon=1e-6, beta_1=0.8').program
    assert Contender('keras.Adam').program != Contender('keras.Adam with epsilon=0.1').program


@pytest.mark.parametrize('text', ['keras.Adam', 'powersign with beta_1=0.95', 'exp(sign(m) * sign(g)) * g', 'm'])
def test_what_others_have_named(text):
    assert Contender(text).is_known and not Contender('m * exp(v) + m').is_known


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('keras.Adamm', "keras.optimizers has no 'Adamm': choose from .*Adam,"),
        ('keras.Adam with momentum=0.9', 'momentum'),
        ('keras.SGD with momentum=2', 'momentum'),
        ('powersign with momentum=0.9', "a rule has no 'momentum': choose from beta_1"),
        ('powersign with beta_1=1.5', r'beta_1 = 1.5: must be a number in \[0, 1\)'),
        ('keras.Adam with learning_rate=1', "keras.Adam has no 'learning_rate': choose from beta_1, beta_2, epsilon"),
        ('powersign with beta_1=0.9, beta_1=0.8', 'each name once'),
        ('keras.LossScaleOptimizer', 'choose from .*Adam'),
        ('powersign with beta_1', 'after "with" comes name=number'),
        ('powersign with beta_1="x"', "beta_1 = 'x' is not a number"),
        (f'adam with epsilon=1{400 * "0"}', 'too large'),
        (f'keras.Adam with epsilon=1{400 * "0"}', 'too large'),
        ('no such rule', 'no such rule'),
        ('', 'optimizer'),
    ],
)
def test_what_is_no_optimizer_is_named(text, said):
    with pytest.raises(ValueError, match=said):
        Contender(text)
