"""Any update rule as a Keras optimizer: `model.compile(optimizer=NOSOptimizer('g * exp(sign(g) * sign(m))'))`."""

import math
import random
import re
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from nos_tf.dsl.primitives import RuleConstants
from nos_tf.dsl.rule import UpdateRule
from nos_tf.optimizers import semantics
from nos_tf.optimizers.semantics import Draws, Inputs, Tensor

PACKAGE = 'nos_tf'


@keras.saving.register_keras_serializable(PACKAGE)
class NOSOptimizer(keras.optimizers.Optimizer):
    """Trains with the update rule that it is given: w ← w − λ b(u1(op1), u2(op2)).

    Args:
        rule: an `UpdateRule`, or text that `UpdateRule.parse` reads: tokens, infix notation or a known name.
        learning_rate: λ: a float, a `keras.optimizers.schedules.LearningRateSchedule` or a callable.
        beta_1: decay of m, the running average of g.
        beta_2: decay of v, the running average of g^2.
        beta_3: decay of gamma, the running average of g^3.
        epsilon: the ε of `log`, `/`, `adam` and `rmsprop`.
        noise_stddev: standard deviation of the operand `noise`.
        seed: of `drop` and `noise`, an int32; None draws one now from Python's `random`, which
            `keras.utils.set_random_seed` seeds; `get_config` returns it.
        **keras_arguments: those of `keras.optimizers.Optimizer`: weight_decay, clipnorm, use_ema, name, ...

    Raises:
        TypeError: the rule is neither text nor an UpdateRule.
        ValueError: the rule cannot be read, or a hyper-parameter is out of its range.

    It keeps only the running averages that the rule reads. Averages are bias-corrected.

    >>> optimizer = NOSOptimizer('g * exp(sign(g) * sign(m))', learning_rate=0.01)
    >>> optimizer.rule.slots
    ('m',)

    Reference:
        Bello et al., Neural Optimizer Search with Reinforcement Learning, ICML 2017.
    """

    def __init__(
        self,
        rule: str | UpdateRule,
        learning_rate: Any = 0.01,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        beta_3: float = 0.999,
        epsilon: float = 1e-8,
        noise_stddev: float = 0.01,
        seed: int | None = None,
        **keras_arguments: Any,
    ) -> None:
        rule = rule if isinstance(rule, UpdateRule) else UpdateRule.parse(rule)
        constants = RuleConstants(beta_1, beta_2, beta_3, epsilon, noise_stddev)
        seed = random.randrange(2**31) if seed is None else _checked_seed(seed)
        super().__init__(learning_rate, **keras_arguments)
        self.rule, self.constants, self.seed = rule, constants, seed
        self._program = rule.canonical().tokens
        self._is_stochastic = rule.is_stochastic
        if not rule.reads_gradient:
            warnings.warn(f'the rule {rule} reads no gradient: it does not learn from the loss', stacklevel=2)

    def build(self, variables: list[keras.Variable]) -> None:
        """Makes the slots that the rule reads, for each variable."""
        if self.built:
            return
        super().build(variables)
        self._slots = {name: self.add_optimizer_variables(variables, name) for name in self.rule.slots}
        self._first_elements = [0]
        for variable in variables[:-1]:
            self._first_elements.append(self._first_elements[-1] + math.prod(variable.shape))

    def apply(self, grads: Sequence[Tensor], trainable_variables: Sequence[keras.Variable] | None = None) -> None:
        """Updates the variables; sparse gradients are made dense first: Keras clips and scales what the rule reads."""
        variables = self._trainable_variables if trainable_variables is None else list(trainable_variables)
        if len(grads) == len(variables):  # else Keras says what is wrong
            grads = [_dense(gradient, variable.shape) for gradient, variable in zip(grads, variables, strict=True)]
        super().apply(grads, trainable_variables if trainable_variables is None else variables)

    def update_step(self, gradient: Tensor, variable: keras.Variable, learning_rate: Tensor) -> None:
        """Updates one variable and its slots."""
        index = self._get_variable_index(variable)
        dtype = keras.backend.standardize_dtype(variable.dtype)
        gradient = ops.cast(gradient, dtype)
        step = self.iterations + 1  # Keras counts a step once it is done
        averages = {}
        for name, slots in self._slots.items():
            average = semantics.update_average(name, ops.convert_to_tensor(slots[index]), gradient, self.constants)
            self.assign(slots[index], average)
            averages[name] = average * semantics.bias_correction(name, step, self.constants, dtype)
        draws = self._draws(index, variable.shape, step) if self._is_stochastic else None
        inputs = Inputs(gradient, ops.convert_to_tensor(variable), averages, draws, self.constants)
        delta = semantics.evaluate(self._program, inputs)
        self.assign_sub(variable, ops.cast(learning_rate, dtype) * delta)

    def _draws(self, index: int, shape: tuple[int, ...], step: Tensor) -> Draws:
        first = self._first_elements[index]
        elements = ops.arange(first, first + math.prod(shape), dtype='int32')
        return Draws(ops.convert_to_tensor(self.seed, 'int32'), step, ops.reshape(elements, shape))

    def get_config(self) -> dict[str, Any]:
        """What `from_config` makes this optimizer from; the rule as tokens."""
        constants = {name: getattr(self.constants, name) for name in RuleConstants.__dataclass_fields__}
        return {**super().get_config(), 'rule': ' '.join(self.rule.tokens), **constants, 'seed': self.seed}


def optimizer_class(rule: str | UpdateRule, name: str, learning_rate: float = 0.01) -> type[NOSOptimizer]:
    """A Keras Optimizer subclass of its own name for one rule, registered for serialisation.

    Args:
        rule: an `UpdateRule`, or text that `UpdateRule.parse` reads.
        name: of the class, a Python identifier.
        learning_rate: the default of the class.

    Returns:
        a class whose constructor takes the arguments of NOSOptimizer but the rule.

    Raises:
        ValueError: the rule cannot be read, the name is no identifier, or another rule has that name already.

    >>> Fast = optimizer_class('adam * exp(m)', name='Fast')
    >>> Fast(learning_rate=0.001).rule.infix
    'adam * exp(m)'
    """
    parsed = rule if isinstance(rule, UpdateRule) else UpdateRule.parse(rule)
    if not re.fullmatch(r'[A-Za-z_]\w*', name):
        raise ValueError(f'{name!r} is no name of a class: letters, digits and _ make one')
    known = keras.saving.get_registered_object(f'{PACKAGE}>{name}')
    if known is not None:
        if getattr(known, 'made_from', None) == (parsed, learning_rate):
            return known
        raise ValueError(
            f'the name {name} is taken by another optimizer ({known.__doc__.splitlines()[0]}): choose another'
        )

    def initialise(self: NOSOptimizer, learning_rate: Any = learning_rate, **arguments: Any) -> None:
        NOSOptimizer.__init__(self, parsed, learning_rate, **arguments)

    def get_config(self: NOSOptimizer) -> dict[str, Any]:
        return {key: value for key, value in NOSOptimizer.get_config(self).items() if key != 'rule'}

    doc = f"""Trains with the update rule {parsed}.

    Takes the arguments of `NOSOptimizer` but the rule: learning_rate={learning_rate}, beta_1, ..., **keras_arguments.
    """
    attributes = {
        '__init__': initialise,
        'get_config': get_config,
        '__doc__': doc,
        '__module__': sys._getframe(1).f_globals['__name__'],  # the caller's, so that instances pickle
        'made_from': (parsed, learning_rate),
    }
    return keras.saving.register_keras_serializable(PACKAGE)(type(name, (NOSOptimizer,), attributes))


def _dense(gradient: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The gradient as one tensor, or None: TensorFlow gives that of an Embedding as `tf.IndexedSlices`."""
    if hasattr(gradient, 'dense_shape'):
        return ops.scatter(ops.expand_dims(gradient.indices, -1), gradient.values, shape)
    return gradient


def _checked_seed(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not -(2**31) <= seed < 2**31:
        raise ValueError(f'seed = {seed!r}: must be an int32 or None')
    return int(seed)


PowerSign = optimizer_class('powersign', name='PowerSign')
AddSign = optimizer_class('addsign', name='AddSign')
