"""A task on anybody's own Keras model and data.

The model runs statelessly: all trainable weights are one vector, all that changes besides (the statistics of batch
normalisation, the states of random generators) is passed along, and one traced graph trains every rule.
"""

import copy
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Annotated, Any

import gin
import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state  # these have no public name
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR
from keras.src.utils.rng_utils import GLOBAL_RANDOM_SEED

from nos_tf.config import Configured, Count, Natural, Positive, at_least
from nos_tf.dsl.rule import UpdateRule
from nos_tf.optimizers.nos_optimizer import NOSOptimizer
from nos_tf.optimizers.schedule import SCHEDULES, Schedule
from nos_tf.tasks.keras_data import (
    Data,
    Stream,
    at,
    compiled_loss,
    count,
    describe,
    examples,
    fingerprint,
    spelled,
    weighed,
)
from nos_tf.tasks.task import Gradient

MEMORY = 2**30  # bytes of a tf.data.Dataset that are held in memory, unless more are allowed


@gin.register
@dataclass(frozen=True, eq=False)
class KerasTask(Configured):
    """A Keras model, data, a loss and a measure.

    Args:
        build: returns a new model; called for each seed, after `keras.utils.set_random_seed`.
        train: (x, y) or (x, y, sample_weight): arrays, or dicts or tuples of them, of one length; a `tf.data.Dataset`
            of batches of such, which is held in memory; or a function of (seed, epoch) that returns a dataset, whose
            batches, all of one shape, are streamed as they come. A stream needs `steps`, and does not go to a cluster.
        validation: arrays, or a dataset that is held in memory.
        loss: as `keras.Model.compile` takes it; None for a model that is compiled, or adds all its losses itself.
        measure: 'loss', whose negative is measured, or a metric of Keras, by name or object.
        lower_is_better: whether a metric is an error, so that its negative is measured; None for True where Keras has
            the metric as a loss too.
        steps: updates of a whole training, of which a sixth counts as an epoch of the sweep; give these or epochs.
        epochs: passes over the data of a whole training.
        batch_size: examples of an update; what is left of an epoch is dropped. A stream brings its own batches, and is
            measured by these.
        class_weight: class -> weight of its examples in training.
        augment: (x, seed) -> x, what is done to the inputs of each minibatch in training; random numbers have to follow
            from the seed, int32 [2], as those of `tf.random.stateless_uniform` do.
        clipnorm: bound of the norm of each variable's gradient, as in the optimizers of Keras.
        weight_decay: decoupled: before each update, weights lose so much of themselves times the learning rate.
        no_decay: words such as 'bias', 'gamma' and 'beta'; variables whose name has one of them do not decay.
        schedule: of the learning rate: 'constant', or 'linear' or 'cosine' to zero.
        warmup_steps: over which the learning rate rises to its value first.
        memory: bytes that a dataset may take.
        jit_compile: True if XLA is to compile the training, False if not; for 'auto' a search tries which is faster
            before its first rule, and keeps to it; elsewhere it is as False.

    Raises:
        ValueError: a value out of range, or data that do not fit each other; the message names the argument.
    """

    build: Callable[[], keras.Model] = gin.REQUIRED
    train: Any = gin.REQUIRED
    validation: Any = gin.REQUIRED
    loss: Any = None
    measure: Any = 'loss'
    lower_is_better: bool | None = None
    steps: Count | None = None
    epochs: Count | None = None
    batch_size: Count = 32
    class_weight: Any = None
    augment: Callable[[Any, tf.Tensor], Any] | None = None
    clipnorm: Positive | None = None
    weight_decay: Annotated[float, at_least(0)] = 0.0
    no_decay: Sequence[str] = ()
    schedule: str = 'constant'
    warmup_steps: Natural = 0
    memory: Count = MEMORY
    jit_compile: Any = 'auto'

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f'KerasTask.steps = {self.steps}, epochs = {self.epochs}: give one of them')
        if self.schedule not in SCHEDULES:
            raise ValueError(f'KerasTask.schedule = {self.schedule!r}: choose from {", ".join(SCHEDULES)}')
        if not isinstance(self.jit_compile, bool) and self.jit_compile != 'auto':
            raise ValueError(f"KerasTask.jit_compile = {self.jit_compile!r}: must be True, False or 'auto'")
        if not callable(self.build) or isinstance(self.build, keras.Model):
            raise ValueError(f'KerasTask.build = {self.build!r}: must be a function that returns a new keras.Model')
        if self.class_weight is not None and not (
            isinstance(self.class_weight, Mapping)
            and all(isinstance(key, int) and weight >= 0 for key, weight in self.class_weight.items())
        ):
            raise ValueError(
                f'KerasTask.class_weight = {self.class_weight!r}: must be weights by class, {{0: 1.0, ...}}'
            )
        if self.measure == 'loss' and self.lower_is_better is False:
            raise ValueError("KerasTask.lower_is_better = False: with KerasTask.measure = 'loss', lower is better")
        # A dataset cannot be sent to a worker, and may have another order each time.
        for name in ('train', 'validation'):
            if isinstance(given := getattr(self, name), tf.data.Dataset):
                held = tf.nest.map_structure(lambda part: part.numpy(), examples(name, given, self.memory))
                object.__setattr__(self, name, held)

    @cached_property
    def _loaded(self) -> '_Loaded':
        return _Loaded(self)

    @property
    def chance(self) -> float:
        """The measure of a model before training."""
        return self._loaded.untrained

    def load(self) -> '_Loaded':
        """Returns the task with its data and the model that is traced."""
        return self._loaded

    def compiled(self, jit_compile: bool) -> 'KerasTask':
        """Returns the task with `jit_compile` set; what is loaded of it is shared."""
        task = replace(self, jit_compile=jit_compile)
        task.__dict__['_loaded'] = loaded = copy.copy(self._loaded)
        loaded.task, loaded.jit_compile = task, jit_compile
        return task

    def of_steps(self, steps: int) -> 'KerasTask':
        """Returns the task with a training of so many updates, over which its schedule goes."""
        return replace(self, steps=steps, epochs=None)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != '_loaded'}  # tensors stay here

    def identity(self) -> dict[str, Any]:
        """Returns the model, the data and the procedure, as hashes where they are large."""
        return self._loaded.identity()

    def __str__(self) -> str:
        return str(self._loaded)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds Keras, NumPy and Python; afterwards gives NumPy and Python the state that they had.

    As `keras.utils.set_random_seed`, but for `tf.random.set_seed`, which has TensorFlow forget its compiled graphs: the
    next training would take seconds to begin.
    """
    kept = random.getstate(), np.random.get_state()  # noqa: NPY002 (what Keras seeds)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    global_state.set_global_attribute(GLOBAL_RANDOM_SEED, seed)
    global_state.set_global_attribute(GLOBAL_SEED_GENERATOR, None)  # Keras makes another, of that seed
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002


class _Loaded:
    """The task at work. One model is traced; one is built anew for each seed, for its initial weights."""

    def __init__(self, task: KerasTask) -> None:
        self.task = task
        self.jit_compile = task.jit_compile is True
        self.is_local = callable(task.train)
        if callable(task.train) and task.steps is None:
            raise ValueError('KerasTask.steps = None: a stream has no epochs: give steps')
        self._stream = Stream(task.train) if callable(task.train) else None
        train = self._stream.batch if self._stream else examples('train', task.train, task.memory)
        self.data = Data(weighed(train, task.class_weight), examples('validation', task.validation, task.memory))
        there = count(self.data.train)
        if task.batch_size > there and not self._stream:
            raise ValueError(f'KerasTask.batch_size = {task.batch_size}: must be at most the {there} examples')
        batches = there // task.batch_size
        self.steps: int = task.steps or (task.epochs or 0) * batches
        self.steps_per_epoch = batches if task.steps is None else math.ceil(task.steps / 6)
        if task.warmup_steps >= self.steps:
            raise ValueError(f'KerasTask.warmup_steps = {task.warmup_steps}: must be fewer than the {self.steps} steps')
        self.model = self._build(0)
        self._weights, self._others = self.model.trainable_variables, self.model.non_trainable_variables
        if not self._weights:
            raise ValueError('KerasTask.build: the model has no weights to train')
        for word in task.no_decay:
            if not any(re.search(word, weight.name) for weight in self._weights):
                names = ', '.join(sorted({weight.name for weight in self._weights}))
                raise ValueError(f'KerasTask.no_decay has {word!r}, which no variable is called: there are {names}')
        self._sizes = [math.prod(variable.shape) for variable in self._weights]
        self.variables = [(variable.name, tuple(variable.shape)) for variable in self._weights]
        self._shapes = [(tuple(v.shape), v.dtype) for v in (*self._weights, *self._others)]
        self._metric, self._sign = self._get_metric()
        kept = [tf.identity(variable.value) for variable in self.model.variables]
        self._try()
        for variable, value in zip(self.model.variables, kept, strict=False):  # a loss may have made more
            variable.assign(value)  # statistics and random states have changed
        self._description = describe(self.model)
        try:
            self.untrained = float(self._measured(self.data, *self._values(self.model)))
        except Exception as error:  # whatever a loss or a metric raises
            raise ValueError(f'KerasTask.validation: cannot be measured ({_brief(error)})') from error
        if not np.isfinite(self.untrained):
            raise ValueError(f'KerasTask.validation: the measure is {self.untrained} before training: look at the data')

    def _build(self, seed: int) -> keras.Model:
        """A model of a seed, built and compiled."""
        with _seeded(seed):
            try:
                model = self.task.build()
            except Exception as error:  # whatever it raises
                raise ValueError(f'KerasTask.build: raised {_brief(error)}') from error
            if not isinstance(model, keras.Model):
                raise ValueError(f'KerasTask.build: returned {model!r}, and no keras.Model: does it lack a return?')
            if type(model).train_step is not keras.Model.train_step:
                raise ValueError(
                    f'KerasTask.build: {type(model).__name__} has a train_step of its own, which cannot be honoured: '
                    'write a task by hand (nos_tf/tasks/task.py), or let compute_loss do it'
                )
            x, *_ = keras.utils.unpack_x_y_sample_weight(self._first())
            try:
                model(x)
            except Exception as error:  # whatever the layers raise
                raise ValueError(
                    f'KerasTask.train: the model cannot be called on a batch of x ({_brief(error)})'
                ) from error
        halves = [layer.name for layer in model._flatten_layers() if layer.compute_dtype == 'float16']
        if halves:
            raise ValueError(
                f'KerasTask.build: the layer {halves[0]} computes in float16, which needs a scaled loss: use bfloat16'
            )
        if self.task.loss is not None or not model.compiled:
            model.compile('sgd', loss=self.task.loss)
        return model

    @property
    def failure(self) -> str:
        """The error of the function that streams, in a line; '' for none."""
        return _brief(self._stream.failure) if self._stream and self._stream.failure else ''

    def _first(self) -> Any:
        """A minibatch."""
        return self.data.train if self._stream else at(self.data.train, tf.range(self.task.batch_size))

    def _get_metric(self) -> tuple[keras.metrics.Metric | None, float]:
        """The metric that is measured, None for the loss; and -1 if lower is better, else 1."""
        name = self.task.measure
        if isinstance(name, str) and name == 'loss':
            return None, -1.0
        if isinstance(name, str) and name in ('accuracy', 'acc'):
            name = self._accuracy()
        try:
            metric = keras.metrics.get(name)
        except (TypeError, ValueError) as error:
            raise ValueError(f'KerasTask.measure = {self.task.measure!r}: is no metric of Keras ({error})') from error
        if not isinstance(metric, keras.metrics.Metric):
            metric = keras.metrics.MeanMetricWrapper(metric)
        is_lower = _is_error(metric) if self.task.lower_is_better is None else self.task.lower_is_better
        return metric, -1.0 if is_lower else 1.0

    def _accuracy(self) -> str:
        """The accuracy that fits labels and output, as `keras.Model.compile` chooses it."""
        x, y, *_ = keras.utils.unpack_x_y_sample_weight(self._first())
        output = self.model(x)
        if tf.nest.is_nested(y) or tf.nest.is_nested(output):
            raise ValueError("KerasTask.measure = 'accuracy': the model has several outputs: give a metric object")
        if output.shape[-1] == 1:
            return 'binary_accuracy'
        return 'categorical_accuracy' if y.shape == output.shape else 'sparse_categorical_accuracy'

    def _try(self) -> None:
        """Does one step and one measure by hand: what a model, a loss or a metric makes late is made now.

        Raises:
            ValueError: they do not fit the data, or cannot be trained.
        """
        batch = self._first()
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        with tf.GradientTape() as tape:
            prediction = self.model(x, training=True)
            try:
                loss = self.model.compute_loss(x, y, prediction, sample_weight, training=True)
            except Exception as error:  # whatever a loss raises
                raise ValueError(
                    f'KerasTask.loss = {self.task.loss!r}: cannot be computed ({_brief(error)})'
                ) from error
        if not np.isfinite(float(loss)):
            raise ValueError(
                f'KerasTask.loss: is {float(loss)} before training: look at the data and the initial weights'
            )
        gradients = tape.gradient(loss, [weight.value for weight in self._weights])
        if not any(gradient is not None for gradient in gradients):
            raise ValueError('KerasTask.loss: no weight has a gradient: does the loss depend on the model?')
        if self._metric is not None:
            try:
                self._metric.update_state(y, prediction, sample_weight)
                self._metric.result()
            except Exception as error:  # whatever a metric raises
                raise ValueError(
                    f'KerasTask.measure = {self.task.measure!r}: cannot be computed ({_brief(error)})'
                ) from error
            self._metric.reset_state()
        if self.task.augment is not None:
            try:
                augmented = self.task.augment(x, tf.constant([0, 1]))
                tf.nest.map_structure(lambda old, new: tf.ensure_shape(new, old.shape), x, augmented)
            except Exception as error:  # whatever it raises
                raise ValueError(f'KerasTask.augment: cannot augment a batch of x ({_brief(error)})') from error
        weights, state = self._values(self.model)
        first, again = (float(self._call(weights, state, batch, training=True)[0]) for _ in range(2))
        if first != again:
            raise ValueError(
                'KerasTask.build: the model draws random numbers without a seed, and nothing could be repeated: draw '
                'them by keras.random with a SeedGenerator'
            )

    def identity(self) -> dict[str, Any]:
        """Returns all that a measure depends on."""
        task = self.task
        plain = ('steps', 'epochs', 'batch_size', 'clipnorm', 'weight_decay', 'schedule', 'warmup_steps', 'jit_compile')
        return {
            **{f'KerasTask.{name}': getattr(task, name) for name in plain},
            'KerasTask.loss': spelled(task.loss if task.loss is not None else compiled_loss(self.model)),
            'KerasTask.measure': spelled(task.measure),
            'KerasTask.lower_is_better': self._sign < 0,
            'KerasTask.no_decay': list(task.no_decay),
            **({} if task.augment is None else {'KerasTask.augment': spelled(task.augment)}),
            'KerasTask.class_weight': task.class_weight and {str(k): v for k, v in task.class_weight.items()},
            'KerasTask.build': self._description,
            'KerasTask.train': ('stream ' if self._stream else '') + fingerprint(self.data.train),
            'KerasTask.validation': fingerprint(self.data.validation),
        }

    def __str__(self) -> str:
        return (
            f'a {type(self.model).__name__} of {sum(self._sizes):,} weights on '
            + ('a stream of batches' if self._stream else f'{count(self.data.train):,} examples, in batches')
            + f' of {count(self._first())}; measured is {spelled(self.task.measure)} on '
            f'{count(self.data.validation):,} others'
        )

    def start(self, seed: int) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Returns weights, and what else of the model changes: statistics, random states, weights that are frozen."""
        model = self._build(seed)
        found = [*model.trainable_variables, *model.non_trainable_variables]
        if [(tuple(v.shape), v.dtype) for v in found] != self._shapes:
            raise ValueError('KerasTask.build: returned another model than the first time: it must not depend on calls')
        start = self._values(model)
        if seed == 0 and not np.array_equal(start[0], self._values(self.model)[0]):
            raise ValueError(
                'KerasTask.build: initial weights differ from one call to the next: draw them by initializers or '
                'keras.random, and not without a seed'
            )
        return start

    def _values(self, model: keras.Model) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """The weights of a model as one vector, and its other variables."""
        weights, others = (
            [tf.identity(tf.convert_to_tensor(variable.value)) for variable in variables]
            for variables in (model.trainable_variables, model.non_trainable_variables)
        )
        return tf.concat([tf.cast(tf.reshape(weight, [-1]), tf.float32) for weight in weights], 0), others

    def batches(self, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the seed, and the examples of each step, every epoch shuffled anew: int32 [steps, batch].

        Of a stream there is no more than the seed.
        """
        return seed, seed if self._stream else self._order(seed)

    def _order(self, seed: tf.Tensor) -> tf.Tensor:
        there, size = count(self.data.train), self.task.batch_size
        shuffle = partial(tf.random.experimental.stateless_shuffle, tf.range(there))
        epochs = range(math.ceil(self.steps / (there // size)))
        order = tf.stack([shuffle(tf.stack([seed, 1000 + epoch])) for epoch in epochs])
        return tf.reshape(order[:, : there // size * size], [-1, size])[: self.steps]

    def _batch(self, data: Data, batches: tuple[tf.Tensor, tf.Tensor], step: tf.Tensor) -> Any:
        """The minibatch of a step."""
        seed, order = batches
        batch = self._streamed(seed, step) if self._stream else at(data.train, order[step])
        if self.task.augment is None:
            return batch
        x, *rest = batch
        return self.task.augment(x, tf.stack([seed, 1 + step])), *rest

    def _streamed(self, seed: tf.Tensor, step: tf.Tensor) -> Any:
        """The minibatch of a step, of a stream."""
        stream: Any = self._stream
        specs = tf.nest.flatten(stream.batch)
        parts = tf.numpy_function(stream.get, [seed, step], [spec.dtype for spec in specs])
        shaped = [tf.ensure_shape(part, spec.shape) for part, spec in zip(parts, specs, strict=True)]
        return weighed(tf.nest.pack_sequence_as(stream.batch, shaped), self.task.class_weight)

    def schedule(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the factor of the learning rate at a step, float32 []."""
        return tf.convert_to_tensor(self._schedule(1.0, self.steps).factor(step))

    def _schedule(self, learning_rate: float, steps: int) -> Schedule:
        return Schedule(learning_rate, steps, self.task.schedule, self.task.warmup_steps)

    def optimizer(
        self, rule: UpdateRule, learning_rate: float, steps: int | None = None, **arguments: Any
    ) -> NOSOptimizer:
        """Returns an optimizer that trains as this task does: with its schedule, clipping and weight decay.

        Args:
            rule: of the updates.
            learning_rate: at its highest.
            steps: of the training to come, over which schedules go; None for those of the task.
            **arguments: of `NOSOptimizer`.
        """
        task, steps = self.task, steps or self.steps
        is_constant = task.schedule == 'constant' and not task.warmup_steps
        own = {'clipnorm': task.clipnorm, 'weight_decay': task.weight_decay or None}
        own |= {'total_steps': steps} if rule.reads_progress else {}
        rate = learning_rate if is_constant else self._schedule(learning_rate, steps)
        optimizer = NOSOptimizer(rule, rate, **(own | arguments))
        if task.weight_decay and task.no_decay:
            optimizer.exclude_from_weight_decay(var_names=list(task.no_decay))
        return optimizer

    @cached_property
    def decay(self) -> np.ndarray | None:
        """The weight decay of each weight, to be multiplied by the learning rate: float32 [P]; None for no decay."""
        if not self.task.weight_decay:
            return None
        spared = [any(re.search(word, weight.name) for word in self.task.no_decay) for weight in self._weights]
        return np.repeat(np.where(spared, 0.0, self.task.weight_decay), self._sizes).astype(np.float32)

    def gradient(
        self, data: Data, batches: Any, step: tf.Tensor, weights: tf.Tensor, state: list[tf.Tensor]
    ) -> Gradient:
        """Returns the gradient of the loss of a minibatch."""
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss, _, state = self._call(weights, state, self._batch(data, batches, step), training=True)
        gradient = tape.gradient(loss, weights)
        if self.task.clipnorm is not None:
            parts = tf.split(gradient, self._sizes)
            gradient = tf.concat([tf.clip_by_norm(part, self.task.clipnorm) for part in parts], 0)
        return Gradient(loss, gradient, state)

    def measure(self, data: Data, weights: tf.Tensor, state: list[tf.Tensor]) -> tf.Tensor:
        """Returns the metric on the validation set, or minus the loss, float32 [].

        It is bounded below by u - |u|, where u is the measure before training: a training that diverges is no worse
        than that, and the mean of rewards tells something.
        """
        found, lowest = self._measured(data, weights, state), self.untrained - abs(self.untrained)
        return tf.where(tf.math.is_finite(found), tf.maximum(found, lowest), lowest)

    def _measured(self, data: Data, weights: tf.Tensor, state: list[tf.Tensor]) -> tf.Tensor:
        there = count(data.validation)
        size = min(there, self.task.batch_size)
        variables = [] if self._metric is None else [tf.convert_to_tensor(v.value) for v in self._metric.variables]

        def add(total: tf.Tensor, found: list[tf.Tensor], batch: Any, number: int) -> tuple[tf.Tensor, list[tf.Tensor]]:
            """Takes a batch in."""
            loss, prediction, _ = self._call(weights, state, batch, training=False)
            if self._metric is not None:
                _, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
                found = self._metric.stateless_update_state(found, y, prediction, sample_weight)
            return total + loss * number, list(map(tf.convert_to_tensor, found))

        def step(start: tf.Tensor, total: tf.Tensor, found: list[tf.Tensor]) -> tuple:
            return start + size, *add(total, found, at(data.validation, start + tf.range(size)), size)

        whole = there // size * size
        _, total, found = tf.while_loop(
            lambda start, *_: start < whole, step, (0, tf.constant(0.0), variables), parallel_iterations=1
        )
        if whole < there:
            total, found = add(total, found, at(data.validation, tf.range(whole, there)), there - whole)
        if self._metric is None:
            return -total / there
        result = tf.cast(self._metric.stateless_result(found), tf.float32)
        return self._sign * result

    def _call(self, weights: tf.Tensor, state: list[tf.Tensor], batch: Any, training: bool) -> tuple:
        """The loss, the prediction and the new state of the model on a batch."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        parts = zip(self._weights, tf.split(weights, self._sizes), strict=True)
        mapping = [(variable, tf.cast(tf.reshape(part, variable.shape), variable.dtype)) for variable, part in parts]
        mapping += zip(self._others, state, strict=True)
        with keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope:
            prediction = self.model(x, training=training)
            loss = self.model.compute_loss(x, y, prediction, sample_weight, training=training)
        state = [tf.convert_to_tensor(scope.get_current_value(variable)) for variable in self._others]
        return tf.cast(loss, tf.float32), prediction, state


def _brief(error: Exception) -> str:
    """An error in a line, without what TensorFlow and Keras put around it."""
    text = re.sub(r'\x1b\[[\d;]*m|\{\{.*?\}\}|\[Op:\w+\]( name:)?', '', f'{type(error).__name__}: {error}')
    text = ' '.join(text.split())
    return text if len(text) < 300 else f'{text[:295]} ...'


def _is_error(metric: keras.metrics.Metric) -> bool:
    """Returns whether Keras has a metric as a loss too; similarity is the one that is negated there."""
    function: Any = getattr(metric, '_fn', None)
    is_loss = getattr(function, '__module__', '').endswith('.losses') and 'cosine' not in function.__name__
    return is_loss or isinstance(metric, keras.metrics.RootMeanSquaredError)
