"""A class of its own for one rule: `optimizer_class`, PowerSign and AddSign."""

import keras
import numpy as np
import pytest

from nos_tf.dsl.rule import UpdateRule
from nos_tf.optimizers.nos_optimizer import AddSign, NOSOptimizer, PowerSign, optimizer_class
from tests.optimizers.training import walk


def test_class_of_a_rule():
    cls = optimizer_class('m * exp(g^2)', name='FirstOfTests', learning_rate=0.5)
    assert issubclass(cls, NOSOptimizer)
    assert cls.__name__ == 'FirstOfTests'
    assert 'm * exp(g^2)' in cls.__doc__
    optimizer = cls(beta_1=0.5, seed=3)
    assert optimizer.rule == UpdateRule.parse('m * exp(g^2)')
    assert optimizer.learning_rate == 0.5
    config = optimizer.get_config()
    assert 'rule' not in config
    assert cls.from_config(config).get_config() == config
    restored = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(restored) is cls
    assert restored.get_config() == config
    assert keras.saving.get_registered_object('nos_tf>FirstOfTests') is cls
    assert cls.__module__ == __name__
    assert optimizer_class('m g^2 x exp *', name='FirstOfTests', learning_rate=0.5) is cls
    with pytest.raises(ValueError, match='taken'):
        optimizer_class('m g^2 x exp *', name='FirstOfTests', learning_rate=0.25)


@pytest.mark.parametrize('names', [{}, {'__name__': 'elsewhere'}])
def test_class_made_in_code_that_has_no_module(names):
    """As notebooks, exec and runpy run it; it counts as of the main module, as a namedtuple would."""
    name = f'ThirdOfTests{len(names)}'
    code = f"from nos_tf import optimizer_class\nmade = optimizer_class('g * m', name='{name}')"
    exec(code, given := dict(names))  # noqa: S102 - it is what is tested
    assert given['made'].__module__ == names.get('__name__', '__main__')
    np.testing.assert_array_equal(walk(given['made'](0.25)), walk(NOSOptimizer('g * m', 0.25)))


def test_class_walks_as_its_rule():
    cls = optimizer_class('adam_powersign', name='SecondOfTests')
    np.testing.assert_array_equal(walk(cls(0.25)), walk(NOSOptimizer('adam * exp(sign(g) * sign(m))', 0.25)))


@pytest.mark.parametrize(
    ('rule', 'name', 'message'),
    [
        (
            'g',
            'PowerSign',
            r'the name PowerSign is taken by another optimizer \(the rule g \* exp\(sign\(g\) \* sign\(m\)\)\)',
        ),
        ('g', 'NOSOptimizer', r'the name NOSOptimizer is taken by another optimizer \(class NOSOptimizer\)'),
        ('g', 'two words', "'two words' is no name of a class"),
        ('g', 'class', "'class' is no name of a class: letters, digits and _ make one, but for words of Python"),
        ('g', '1st', "'1st' is no name"),
        ('g', '', "'' is no name"),
        ('tiger', 'Tiger', r"character 1 \('t'\)"),
    ],
)
def test_refuses_classes(rule, name, message):
    with pytest.raises(ValueError, match=message):
        optimizer_class(rule, name)


def test_the_classes_of_the_paper():
    assert (PowerSign.__name__, AddSign.__name__) == ('PowerSign', 'AddSign')
    assert PowerSign().rule == UpdateRule.parse('g * exp(sign(g) * sign(m))')
    assert AddSign().rule == UpdateRule.parse('(1 + sign(g) * sign(m)) * g')
    assert float(PowerSign().learning_rate) == pytest.approx(0.01)
