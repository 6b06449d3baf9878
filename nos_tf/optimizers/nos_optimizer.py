"""Any update rule as a Keras optimizer: `model.compile(optimizer=NOSOptimizer('g * exp(sign(g) * sign(m))'))`."""

import itertools
import keyword
import math
import random
import sys
import warnings
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from nos_tf.dsl.primitives import RuleConstants
from nos_tf.dsl.rule import UpdateRule
from nos_tf.optimizers import kernel
from nos_tf.optimizers.kernel import Elements, Kernel, Scalars
from nos_tf.optimizers.semantics import Tensor

PACKAGE = 'nos_tf'
JOINED = 32  # small variables at most in one vector: XLA is slow to compile more


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
        sign_decay: a schedule from the number of steps done to a factor that every product of signs in the rule is
            multiplied by: one of `nos_tf.optimizers.sign_decays`, or of Keras' own; None for none. A rule that is
            but a sign fades away altogether.
        total_steps: of the training; for rules that read how much of it is done (`linear`, `cosine`, `restart`), and
            only for them. Afterwards they stay as they end.
        **keras_arguments: those of `keras.optimizers.Optimizer`: weight_decay, clipnorm, use_ema, name, ...

    Raises:
        TypeError: the rule is neither text nor an UpdateRule, or sign_decay is no schedule.
        ValueError: the rule cannot be read, or a hyper-parameter is out of its range.

    It keeps only the running averages that the rule reads. Averages are bias-corrected. Variables of float16 and
    bfloat16 are updated by float32 arithmetic, and what is kept for them is float32: ε is 0 in float16, and in
    bfloat16 an average with a decay of .999 would stand still.

    >>> optimizer = NOSOptimizer('g * exp(sign(g) * sign(m))', learning_rate=0.01)
    >>> optimizer.rule.slots
    ('m',)

    Reference:
        Bello et al., Neural Optimizer Search with Reinforcement Learning, ICML 2017.
    """

    _adds_slots = False

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
        sign_decay: LearningRateSchedule | dict[str, Any] | None = None,
        total_steps: int | None = None,
        **keras_arguments: Any,
    ) -> None:
        rule = rule if isinstance(rule, UpdateRule) else UpdateRule.parse(rule)
        constants = RuleConstants(beta_1, beta_2, beta_3, epsilon, noise_stddev)
        seed = random.randrange(2**31) if seed is None else _checked_seed(seed)
        super().__init__(learning_rate, **keras_arguments)
        self.rule, self.constants, self.seed = rule, constants, seed
        self.sign_decay = _checked_sign_decay(sign_decay)
        self.total_steps = _checked_total_steps(total_steps, rule)
        self._reads_weights, self._reads_progress = rule.reads_weights, rule.reads_progress
        self._is_stochastic = rule.is_stochastic  # each is asked for at every step
        self._kernel = Kernel(rule.canonical().expression, constants)
        if not rule.reads_gradient:
            warnings.warn(f'the rule {rule} reads no gradient: it does not learn from the loss', stacklevel=2)
        if rule.reads_progress and isinstance(learning_rate, LearningRateSchedule):
            warnings.warn(f'the rule {rule} decays, and so does the rate by its schedule: twice', stacklevel=2)
        if sign_decay is not None and not any(row.gives_sign for row in rule.primitives):
            warnings.warn(f'the rule {rule} contains no sign: sign_decay changes nothing', stacklevel=2)

    def build(self, variables: list[keras.Variable]) -> None:
        """Makes the slots that the rule reads, for each variable."""
        if self.built:
            return
        super().build(variables)
        self._adds_slots = True
        self._slots = {name: self.add_optimizer_variables(variables, name) for name in self.rule.slots}
        self._adds_slots = False
        self._first_elements = [0]
        for variable in variables[:-1]:
            self._first_elements.append(self._first_elements[-1] + math.prod(variable.shape))

    def add_variable(self, shape: Any, initializer: Any = 'zeros', dtype: Any = None, **arguments: Any) -> Any:
        """Adds a variable to the optimizer; a slot is a float32 where the weights are of a narrower type."""
        return super().add_variable(shape, initializer, _wide(dtype) if self._adds_slots else dtype, **arguments)

    def apply(self, grads: Sequence[Tensor], trainable_variables: Sequence[keras.Variable] | None = None) -> None:
        """Updates the variables.

        Sparse gradients are made dense first: Keras clips and scales what the rule reads.

        Raises:
            ValueError: a gradient has another shape than its variable.
        """
        variables = self._trainable_variables if trainable_variables is None else list(trainable_variables)
        if len(grads) == len(variables):  # else Keras says what is wrong
            grads = [_dense(gradient, variable) for gradient, variable in zip(grads, variables, strict=True)]
        super().apply(grads, trainable_variables if trainable_variables is None else variables)

    def _clip_gradients(self, grads: Sequence[Tensor]) -> Sequence[Tensor]:
        """Clips as Keras does, but in float32 at least: in float16 a sum of squares is soon 0 or infinite."""
        return super()._clip_gradients([None if g is None else ops.cast(g, _wide(g.dtype)) for g in grads])

    def update_step(self, gradient: Tensor, variable: keras.Variable, learning_rate: Tensor) -> None:
        """Updates one variable and its slots."""
        self._update([gradient], [variable], learning_rate)

    def _backend_update_step(
        self, grads: Sequence[Tensor], trainable_variables: Sequence[keras.Variable], learning_rate: Tensor
    ) -> None:
        """Keras' hook around `update_step`: the small variables of one type are updated as one long vector.

        Networks have many small variables, and TensorFlow takes longer to call an operation than to compute it there.
        """
        may_join = kernel.is_ours_to_arrange() and type(self).update_step is NOSOptimizer.update_step
        alone: list[tuple[Tensor, keras.Variable]] = []
        together: defaultdict[str, dict[int, tuple[Tensor, keras.Variable]]] = defaultdict(dict)
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            of_type = together[str(variable.dtype)]
            if may_join and math.prod(variable.shape) < kernel.JOINED_BELOW and id(variable) not in of_type:
                of_type[id(variable)] = gradient, variable
            else:
                alone.append((gradient, variable))
        for pairs in map(list, map(dict.values, together.values())):
            for start in range(0, len(pairs), JOINED):
                gradients, variables = zip(*pairs[start : start + JOINED], strict=True)
                self._update(gradients, variables, learning_rate)
        if alone:
            super()._backend_update_step(*zip(*alone, strict=True), learning_rate)

    def _update(self, gradients: Sequence[Tensor], variables: Sequence[keras.Variable], learning_rate: Tensor) -> None:
        """Updates variables of one type and their slots, as one vector if they are several."""
        dtype = _wide(variables[0].dtype)
        shapes = [tuple(variable.shape) for variable in variables]
        indices = [self._get_variable_index(variable) for variable in variables]
        slots = {name: [of_all[i] for i in indices] for name, of_all in self._slots.items()}
        gradient = _joined([ops.cast(gradient, dtype) for gradient in gradients])
        positions = _joined(list(map(self._positions, indices, shapes))) if self._is_stochastic else None
        scalars = Scalars(
            learning_rate,
            step=self.iterations + 1,  # Keras counts a step once it is done
            seed=self.seed,
            sign_decay=None if self.sign_decay is None else self.sign_decay(self.iterations),
            progress=self._progress(dtype),
        )
        if len(variables) == 1 and self._kernel.compiles(shapes[0]):
            memory = {name: slot.value for name, (slot,) in slots.items()}
            (weights,) = variables  # a variable of Keras, or the one of TensorFlow in it
            weights = weights.value if isinstance(weights, keras.Variable) else weights
            self._kernel.update(weights, memory, gradient, positions, scalars)
            return
        averages = {name: _joined(of_each) for name, of_each in slots.items()}
        weights = ops.cast(_joined(variables), dtype) if self._reads_weights else None
        delta, averages = self._kernel(Elements(gradient, averages, weights, positions), scalars)
        for name, of_each in slots.items():
            for slot, value in zip(of_each, _parted(averages[name], shapes), strict=True):
                self.assign(slot, value)
        for variable, value in zip(variables, _parted(delta, shapes), strict=True):
            self.assign_sub(variable, ops.cast(value, variable.dtype))

    def _progress(self, dtype: str) -> Tensor | None:
        """Returns the fraction of the training that is done, a scalar; None for a rule that does not read it."""
        if not self._reads_progress:
            return None
        return ops.minimum(ops.cast(self.iterations, dtype) / self.total_steps, 1.0)

    def _positions(self, index: int, shape: tuple[int, ...]) -> Tensor:
        """Returns where its elements stand in the sequence of all weights: int32, of its shape; wraps around."""
        first = (self._first_elements[index] + 2**31) % 2**32 - 2**31
        return ops.reshape(ops.arange(math.prod(shape), dtype='int32') + first, shape)

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` makes this optimizer from; the rule as tokens."""
        constants = {name: getattr(self.constants, name) for name in RuleConstants.__dataclass_fields__}
        decay = None if self.sign_decay is None else keras.optimizers.schedules.serialize(self.sign_decay)
        tokens = ' '.join(self.rule.tokens)
        own = {'seed': self.seed, 'sign_decay': decay, 'total_steps': self.total_steps}
        return {**super().get_config(), 'rule': tokens, **constants, **own}


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
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ValueError(f'{name!r} is no name of a class: letters, digits and _ make one, but for words of Python')
    known = keras.saving.get_registered_object(f'{PACKAGE}>{name}')
    if known is not None:
        if getattr(known, 'made_from', None) == (parsed, learning_rate):
            return known
        whose = f'the rule {known.made_from[0]}' if hasattr(known, 'made_from') else f'class {known.__qualname__}'
        raise ValueError(f'the name {name} is taken by another optimizer ({whose}): choose another')

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
        '__module__': sys._getframe(1).f_globals.get('__name__', '__main__'),  # the caller's, so that instances pickle
        'made_from': (parsed, learning_rate),
    }
    return keras.saving.register_keras_serializable(PACKAGE)(type(name, (NOSOptimizer,), attributes))


def _dense(gradient: Tensor, variable: keras.Variable) -> Tensor:
    """The gradient as one tensor of the variable's shape, or None.

    TensorFlow gives that of an Embedding as `tf.IndexedSlices`, and may not know the shape of others in a graph.
    """
    if gradient is None:
        return None
    shape = tuple(variable.shape)
    if hasattr(gradient, 'dense_shape'):
        return ops.scatter(ops.expand_dims(gradient.indices, -1), gradient.values, shape)
    if hasattr(gradient, 'set_shape') and not gradient.shape.is_fully_defined():
        import tensorflow as tf

        return tf.ensure_shape(gradient, shape)
    if tuple(gradient.shape) != shape:
        name = getattr(variable, 'path', variable.name)
        raise ValueError(f'the gradient of {name} has shape {tuple(gradient.shape)}: must be that of it, {shape}')
    return gradient


def _wide(dtype: Any) -> str:
    """Returns the type to compute in for variables of a type: float32 for narrower ones."""
    name = keras.backend.standardize_dtype(dtype)
    return 'float32' if name in ('float16', 'bfloat16') else name


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """One tensor as it is; several as one vector."""
    if len(tensors) == 1:
        return ops.convert_to_tensor(tensors[0])
    return ops.concatenate([ops.reshape(tensor, [-1]) for tensor in tensors])


def _parted(vector: Tensor, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    """The tensors that were joined."""
    if len(shapes) == 1:
        return [vector]
    ends = list(itertools.accumulate(map(math.prod, shapes)))
    return [ops.reshape(part, shape) for part, shape in zip(ops.split(vector, ends[:-1]), shapes, strict=True)]


def _checked_seed(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not -(2**31) <= seed < 2**31:
        raise ValueError(f'seed = {seed!r}: must be an int32 or None')
    return int(seed)


def _checked_total_steps(total_steps: int | None, rule: UpdateRule) -> int | None:
    if total_steps is None:
        if rule.reads_progress:
            raise ValueError(f'the rule {rule} reads how much of the training is done: give total_steps, its length')
        return None
    if isinstance(total_steps, bool) or not isinstance(total_steps, int | np.integer) or total_steps < 1:
        raise ValueError(f'total_steps = {total_steps!r}: must be a whole number, at least 1')
    if not rule.reads_progress:
        raise ValueError(f'total_steps = {total_steps} changes nothing: {rule} has no schedule; leave it out')
    return int(total_steps)


def _checked_sign_decay(decay: LearningRateSchedule | dict[str, Any] | None) -> LearningRateSchedule | None:
    schedule = keras.optimizers.schedules.deserialize(decay) if isinstance(decay, dict) else decay
    if schedule is not None and not isinstance(schedule, LearningRateSchedule):
        raise TypeError(f'sign_decay = {decay!r}: must be a LearningRateSchedule of Keras or None')
    return schedule


PowerSign = optimizer_class('powersign', name='PowerSign')
AddSign = optimizer_class('addsign', name='AddSign')
