"""What the frameworks of `export` differ in: the spelling of each primitive, and the optimizer around the formula.

A template has a gutter. The word left of the bar says when a block of lines stands in the source: always if there is
none, once for each `slot`, `option`, `local` or `meaning`, and for any other word if `export` says so or the formula
contains it.
"""

from dataclasses import dataclass

from nos_tf.optimizers.source import KEY, Spelling


@dataclass(frozen=True)
class Framework:
    """How formulas are spelled, and the source around one, $words to be filled in."""

    spelling: Spelling
    template: str
    seed: str = ''  # its default; none if the framework has a generator of its own
    is_function: bool = False


KERAS = r'''
        |import keras
        |from keras import ops
        |
        |
_sign   |def _sign(x):
_sign   |    """-1, 0 or 1; 0 for denormals, NaN for NaN."""
_sign   |    return ops.where(ops.abs(x) > 1.2e-38, ops.sign(x), 0.0 * x)
_sign   |
_sign   |
_drop   |def _drop(x, p, generator):
_drop   |    """x, with each element set to 0 with probability p."""
_drop   |    uniform = keras.random.uniform(ops.shape(x), dtype="float32", seed=generator)
_drop   |    return ops.where(uniform >= p, x, ops.zeros_like(x))
_drop   |
_drop   |
_normal |def _normal(x, generator):
_normal |    """Standard normal numbers of the shape and the type of x."""
_normal |    normal = keras.random.normal(ops.shape(x), dtype="float32", seed=generator)
_normal |    return ops.cast(normal, x.dtype)
_normal |
_normal |
slots   |def _corrected(average, beta, step):
slots   |    """The average over 1 - beta^step, written so that float32 rounds it well."""
slots   |    rate = ops.log1p(ops.convert_to_tensor(beta - 1.0, average.dtype))
slots   |    return average / -ops.expm1(step * rate)
slots   |
slots   |
        |@keras.saving.register_keras_serializable()
        |class $name(keras.optimizers.Optimizer):
        |    """$name: each step is w -= learning_rate * u.
        |
meaning |    $meaning
random  |
random  |    Random numbers come from a keras.random.SeedGenerator, whose state is saved along.
        |
        |    Args:
        |        learning_rate: a float, a schedule or a callable.
option  |        $option: $purpose.
        |        **kwargs: those of keras.optimizers.Optimizer.
known   |
known   |    Reference: $source.
        |    """
        |
        |    def __init__(self, learning_rate=0.01$options, **kwargs):
        |        super().__init__(learning_rate, **kwargs)
option  |        self.$option = $option
random  |        self.generator = keras.random.SeedGenerator(seed)
random  |        self.generator_state = self.generator.state  # tracked, hence saved
        |
slots   |    def build(self, variables):
slots   |        """Makes the running averages."""
slots   |        if self.built:
slots   |            return
slots   |        super().build(variables)
slot    |        self._$slot = self.add_optimizer_variables(variables, "$slot")
slots   |
        |    def update_step(self, gradient, variable, learning_rate):
        |        """Updates one variable."""
g       |        zeros = ops.zeros(variable.shape, variable.dtype)
g       |        g = zeros + ops.cast(gradient, variable.dtype)  # dense, for an embedding too
w       |        w = ops.convert_to_tensor(variable)
slots   |        i = self._get_variable_index(variable)
slots   |        step = ops.cast(self.iterations + 1, variable.dtype)
slot    |        $slot = self.$beta * self._$slot[i] + (1.0 - self.$beta) * $power
slot    |        self.assign(self._$slot[i], $slot)
slot    |        $slot = _corrected($slot, self.$beta, step)
local   |        $local
        |        u = $formula
        |        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * u)
options |
options |    def get_config(self):
options |        """The arguments of the constructor."""
options |        config = super().get_config()
option  |        config["$option"] = self.$option
options |        return config
'''

OPTAX = r'''
stateful|from typing import NamedTuple
stateful|
        |import jax
jnp     |import jax.numpy as jnp
        |import optax
        |
        |
_sign   |def _sign(x):
_sign   |    """-1, 0 or 1; 0 for denormals, NaN for NaN."""
_sign   |    return jnp.where(jnp.abs(x) > 1.2e-38, jnp.sign(x), 0.0 * x)
_sign   |
_sign   |
_drop   |def _drop(x, p, key):
_drop   |    """x, with each element set to 0 with probability p."""
_drop   |    return jnp.where(jax.random.uniform(key, x.shape) >= p, x, jnp.zeros_like(x))
_drop   |
_drop   |
slots   |def _corrected(average, beta, count):
slots   |    """The average over 1 - beta^count, written so that float32 rounds it well."""
slots   |    weight = -jnp.expm1(count * jnp.log1p(beta - 1.0))
slots   |    return (average / weight).astype(average.dtype)
slots   |
slots   |
stateful|class $state(NamedTuple):
stateful|    """What $name keeps from step to step."""
stateful|
slots   |    count: jax.Array
slot    |    $slot: optax.Updates
random  |    key: jax.Array
stateful|
stateful|
        |def $name(learning_rate=0.01$options):
        |    """$name: each step is w -= learning_rate * u.
        |
meaning |    $meaning
random  |
random  |    Random numbers come from jax.random, with a key that is part of the state.
        |
        |    Args:
        |        learning_rate: a float or a schedule.
option  |        $option: $purpose.
        |
        |    Returns:
        |        An optax.GradientTransformation.
known   |
known   |    Reference: $source.
        |    """
        |
stateful|    def init(params):
stateful|        return $state(
slots   |            count=jnp.zeros([], jnp.int32),
slot    |            $slot=jax.tree.map(jnp.zeros_like, params),
random  |            key=jax.random.key(seed),
stateful|        )
bare    |    def init(params):
bare    |        return optax.EmptyState()
        |
        |    def update(updates, state, params=None):
w       |        if params is None:
w       |            raise ValueError("the rule reads the weights: give update() params")
w       |
slots   |        count = optax.safe_increment(state.count)
slot    |
slot    |        def average_$slot(g, $slot):
slot    |            return $beta * $slot + (1.0 - $beta) * $power
slot    |
slot    |        $slot = jax.tree.map(average_$slot, updates, state.$slot)
random  |        key, subkey = jax.random.split(state.key)
random  |        subkeys = optax.tree_utils.tree_split_key_like(subkey, updates)
stateful|
        |        def rule($arguments):
slot    |            $slot = _corrected($slot, $beta, count)
keys    |            keys = jax.random.split(key, $draws)
local   |            $local
        |            return $formula
        |
stateful|        state = $state(
slots   |            count=count,
slot    |            $slot=$slot,
random  |            key=key,
stateful|        )
        |        return jax.tree.map(rule, $trees), state
        |
        |    return optax.chain(
        |        optax.GradientTransformation(init, update),
        |        optax.scale_by_learning_rate(learning_rate),
        |    )
'''

TORCH = r'''
        |import torch
        |
        |
_sign   |def _sign(x):
_sign   |    """-1, 0 or 1; 0 for denormals, NaN for NaN."""
_sign   |    return torch.where(torch.abs(x) > 1.2e-38, torch.sign(x), 0.0 * x)
_sign   |
_sign   |
_drop   |def _drop(x, p):
_drop   |    """x, with each element set to 0 with probability p."""
_drop   |    return torch.where(torch.rand_like(x) >= p, x, 0.0)
_drop   |
_drop   |
        |class $name(torch.optim.Optimizer):
        |    """$name: each step is w -= lr * u.
        |
meaning |    $meaning
random  |
random  |    Random numbers come from PyTorch's generator, which torch.manual_seed seeds.
        |
        |    Args:
        |        params: the weights, or dicts of a parameter group each.
        |        lr: learning rate.
option  |        $option: $purpose.
known   |
known   |    Reference: $source.
        |    """
        |
        |    def __init__(self, params, lr=0.01$options):
        |        if not lr >= 0.0:
        |            raise ValueError(f"lr = {lr!r}: must not be negative")
        |        defaults = {"lr": lr$entries}
        |        super().__init__(params, defaults)
        |
        |    @torch.no_grad()
        |    def step(self, closure=None):
        |        """Updates the weights; returns the loss if a closure computes it."""
        |        loss = None
        |        if closure is not None:
        |            with torch.enable_grad():
        |                loss = closure()
        |        for group in self.param_groups:
option  |            $option = group["$option"]
        |            for w in group["params"]:
        |                if w.grad is None:
        |                    continue
g       |                g = w.grad
slots   |                state = self.state[w]
slots   |                if not state:
slots   |                    state["step"] = 0
slot    |                    state["$slot"] = torch.zeros_like(w)
slots   |                state["step"] += 1
slot    |                state["$slot"].mul_($beta).add_($power, alpha=1.0 - $beta)
slot    |                $slot = state["$slot"] / (1.0 - $beta ** state["step"])
local   |                $local
        |                u = $formula
        |                w -= group["lr"] * u
        |        return loss
'''

FRAMEWORKS = {
    'keras': Framework(
        Spelling(
            'ops',
            {'sign': '_sign(%s)'},
            drop='_drop(%s, %s, self.generator)',
            normal='_normal(%s, self.generator)',
            owner='self.',
        ),
        KERAS,
        seed='None',
    ),
    'optax': Framework(
        Spelling(
            'jnp',
            {'sign': '_sign(%s)'},
            drop=f'_drop(%s, %s, {KEY})',
            normal=f'jax.random.normal({KEY}, %s.shape, g.dtype)',
        ),
        OPTAX,
        seed='0',
        is_function=True,
    ),
    'torch': Framework(
        Spelling(
            'torch',
            {'sign': '_sign(%s)', 'maximum': 'torch.clip(%s, min=%s)'},
            drop='_drop(%s, %s)',
            normal='torch.randn_like(%s)',
        ),
        TORCH,
    ),
}
"""The frameworks that a rule can be exported to, by name."""
