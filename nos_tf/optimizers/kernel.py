"""One step of one rule, as a pure function of tensors, compiled into a single kernel where that pays.

TensorFlow runs the operations of a rule one by one. Over a large variable each is a pass through memory, a dozen where
XLA needs one; over a small one each costs more to call than to compute, so small variables are better joined. JAX
compiles the whole training step anyway, PyTorch leaves that to its user: there a kernel is just called.

What XLA makes of a rule is the rule, but not to the last bit: it may contract products and sums, and writes
exp(a) * exp(b) as exp(a + b). So does `jit_compile=True`.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

from nos_tf.dsl.expression import Expression, evaluate
from nos_tf.dsl.primitives import Inputs, RuleConstants
from nos_tf.optimizers import semantics
from nos_tf.optimizers.semantics import KERAS, Draws, Tensor

JOINED_BELOW = 2**14
"""Elements up to which variables are joined: copying them costs less than calling the operations for each."""

COMPILED_FROM = 2**18
"""Elements from which a variable is worth the compilation, a few tenths of a second: some hundred steps."""


class Elements(NamedTuple):
    """What a step reads for each weight: tensors of one shape, and of one type but for `positions`."""

    gradient: Tensor
    averages: dict[str, Tensor]  # by slot, not bias-corrected
    weights: Tensor | None  # None for a rule that does not read them
    positions: Tensor | None  # int32, in the sequence of all weights; None for a rule that draws nothing


class Scalars(NamedTuple):
    """The scalars of one step."""

    learning_rate: Tensor
    step: Tensor  # int, 1 for the first update
    seed: Tensor  # int32
    sign_decay: Tensor | None  # None for none
    progress: Tensor | None = None  # the fraction of training that is done; None for a rule that does not read it


Results = tuple[Tensor, dict[str, Tensor]]  # λ Δw and the new averages, each of the shape and type of the gradient


class Kernel:
    """What a rule computes in one step.

    Args:
        expression: of a canonical rule.
        constants: its hyper-parameters.
    """

    def __init__(self, expression: Expression, constants: RuleConstants) -> None:
        self.expression, self.constants = expression, constants
        self._compiled: dict[tuple[tuple[int, ...], str], Callable[..., None]] = {}

    def __reduce__(self) -> tuple[type['Kernel'], tuple]:
        return Kernel, (self.expression, self.constants)  # compiled functions are neither copied nor pickled

    def __call__(self, elements: Elements, scalars: Scalars) -> Results:
        """One step, operation by operation."""
        g, dtype = elements.gradient, ops.dtype(elements.gradient)
        averages, corrected = {}, {}
        for slot, average in elements.averages.items():
            averages[slot] = semantics.update_average(slot, average, g, self.constants)
            corrected[slot] = averages[slot] * semantics.bias_correction(slot, scalars.step, self.constants, dtype)
        draw = None
        if elements.positions is not None:
            draws = Draws(ops.cast(scalars.seed, 'int32'), scalars.step, elements.positions)
            draw = draws.of_nodes(self.expression)
        decay, progress = (None if x is None else ops.cast(x, dtype) for x in (scalars.sign_decay, scalars.progress))
        inputs = Inputs(
            g,
            elements.weights,
            corrected,
            self.constants,
            sign_decay=decay,
            before=elements.averages,
            step=ops.cast(scalars.step, dtype),
            progress=progress,
        )
        update = evaluate(self.expression, KERAS, inputs, draw, of_signs=True)
        return ops.cast(scalars.learning_rate, dtype) * update, averages

    def compiles(self, shape: tuple[int, ...]) -> bool:
        """Whether a variable is worth a compilation; not on GPUs, which may lack what XLA needs."""
        if math.prod(shape) < COMPILED_FROM or not is_ours_to_arrange():
            return False
        import tensorflow as tf

        return not tf.config.get_visible_devices('GPU')

    def update(
        self,
        variable: Tensor,
        slots: dict[str, Tensor],
        gradient: Tensor,
        positions: Tensor | None,
        scalars: Scalars,
    ) -> None:
        """One step, compiled: reads a `tf.Variable` and its slots, `tf.Variable`s by name, and assigns to them."""
        import tensorflow as tf

        def step(
            variable: Tensor, slots: dict[str, Tensor], gradient: Tensor, positions: Tensor, scalars: Scalars
        ) -> None:
            """Does one update, compiled."""
            averages = {name: slot.value() for name, slot in slots.items()}
            weights = tf.cast(variable.value(), gradient.dtype)
            delta, averages = self(Elements(gradient, averages, weights, positions), scalars)
            for name, slot in slots.items():
                slot.assign(averages[name])
            variable.assign_sub(tf.cast(delta, variable.dtype))

        def tensor(x: Tensor | None) -> Tensor | None:
            return None if x is None else tf.convert_to_tensor(x)

        def spec(x: Tensor | None) -> Any:
            return None if x is None else tf.TensorSpec(x.shape, x.dtype)

        inputs = tf.nest.map_structure(tensor, (gradient, positions, scalars))
        key = tuple(variable.shape), variable.dtype.name
        if key not in self._compiled:  # concrete, since TensorFlow warns of a function with many traces
            function = tf.function(step, autograph=False, jit_compile=True)
            specs = tf.nest.map_structure(spec, inputs)
            self._compiled[key] = function.get_concrete_function(variable, slots, *specs)
        self._compiled[key](variable, slots, *inputs)


def is_ours_to_arrange() -> bool:
    """Whether Keras runs on TensorFlow outside of strategies, which place variables and operations themselves."""
    if keras.backend.backend() != 'tensorflow':
        return False
    import tensorflow as tf

    return not tf.distribute.has_strategy()
