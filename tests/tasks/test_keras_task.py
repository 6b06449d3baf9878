"""Any Keras model as a task: what it computes beside Keras' own `fit` and `evaluate`, and what it refuses."""

import dataclasses
import pickle

import cloudpickle
import keras
import numpy as np
import pytest
import tensorflow as tf

from nos_tf import NOSOptimizer
from nos_tf.dsl.primitives import RuleConstants
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.errors import RunError
from nos_tf.optimizers import interpreter
from nos_tf.tasks.child import Child, ChildSetup
from nos_tf.tasks.keras_data import fingerprint
from nos_tf.tasks.keras_task import KerasTask
from nos_tf.tasks.task import Task
from tests.tasks.models import CROSSENTROPY, MODELS, make

layers = keras.layers
ADAM, DEEP = UpdateRule.parse('adam'), Vocabulary(2)
RATE = 1e-3


class Batches(keras.utils.PyDataset):
    """The minibatches of a task, for `fit`."""

    def __init__(self, loaded, order):
        super().__init__()
        self.loaded, self.order = loaded, order

    def __len__(self):
        return len(self.order)

    def __getitem__(self, step):
        return tf.nest.map_structure(lambda part: tf.gather(part, self.order[step]), self.loaded.data.train)


def trained(loaded, steps=20, rate=RATE):
    """Weights and state after so many steps of adam, by the loop of the child without its graph."""
    batches = loaded.batches(tf.constant(0))
    weights, state = loaded.start(0)
    optimizer = interpreter.initial_state(weights, DEEP)
    for step in range(steps):
        _, gradient, state = loaded.gradient(loaded.data, batches, tf.constant(step), optimizer.weights, state)
        factor = loaded.schedule(tf.constant(step))
        if loaded.decay is not None:
            optimizer = optimizer._replace(weights=optimizer.weights * (1 - rate * factor * loaded.decay))
        optimizer = interpreter.update(
            tf.constant(DEEP.ids_of(ADAM), tf.int32), optimizer, gradient, tf.constant(rate) * factor,
            seed=tf.constant(0), constants=RuleConstants(), vocabulary=DEEP, total_steps=loaded.steps,
        )  # fmt: skip
    return optimizer.weights.numpy(), state


def fitted(loaded, optimizer, steps=20):
    """The model after `fit` on the same batches."""
    model = loaded._build(0)
    model.compile(optimizer, loss=loaded.task.loss)
    order = loaded.batches(tf.constant(0))[1].numpy()[:steps]
    model.fit(Batches(loaded, order), shuffle=False, verbose=0)
    return model


def flat(variables):
    return np.concatenate([keras.ops.convert_to_numpy(variable).ravel() for variable in variables])


@pytest.mark.parametrize('kind', MODELS)
def test_twenty_steps_are_those_of_fit(kind):
    loaded = make(kind).load()
    weights, state = trained(loaded)
    model = fitted(loaded, NOSOptimizer('adam', RATE))
    np.testing.assert_allclose(weights, flat(model.trainable_variables), atol=1e-5)
    for ours, theirs in zip(state, model.non_trainable_variables, strict=True):
        np.testing.assert_allclose(ours, keras.ops.convert_to_numpy(theirs), atol=1e-5)


@pytest.mark.parametrize('kind', MODELS)
def test_the_measure_is_that_of_evaluate(kind):
    loaded = make(kind).load()
    weights, state = loaded.start(3)
    model = loaded._build(3)
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(loaded.data.validation)
    model.compile('sgd', loss=loaded.task.loss)
    expected = model.evaluate(x, y, 16, verbose=0, sample_weight=sample_weight, return_dict=True)['loss']
    np.testing.assert_allclose(loaded.measure(loaded.data, weights, state), -expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['recurrent', pytest.param('convolutional', marks=pytest.mark.drill)])
def test_what_xla_compiles_trains_alike(kind):
    """GRU and batch normalisation included; adam is chaotic on ties, so a few steps."""
    outcomes = []
    for jit_compile in (False, True):
        task = make(kind, jit_compile=jit_compile, epochs=None, steps=12)
        trainer = ChildSetup(Child(learning_rates=(1e-3,)), task, DEEP).trainer()
        outcomes.append(trainer.train(ADAM))
        assert trainer.train(ADAM)[:3] == outcomes[-1][:3] and trainer.traces == 1
    assert outcomes[0].reward == pytest.approx(outcomes[1].reward, rel=1e-4)


def test_what_xla_cannot_compile_is_said(monkeypatch):
    def build():
        words = layers.StringLookup(vocabulary=['a', 'b'])
        return keras.Sequential([keras.Input((1,), dtype='string'), words, layers.Embedding(3, 2), layers.Dense(1)])

    x, y = np.array([['a'], ['b']] * 8), np.zeros((16, 1, 1), np.float32)
    task = KerasTask(build, (x, y), (x, y), loss='mse', epochs=1, batch_size=4, jit_compile=True)
    trainer = ChildSetup(Child(learning_rates=(1e-3,)), task, Vocabulary(1)).trainer()
    with pytest.raises(RunError, match=r'jit_compile = True: XLA cannot compile this training .*: use False'):
        trainer.train(ADAM)
    plain = ChildSetup(Child((1e-3,)), dataclasses.replace(task, jit_compile=False), Vocabulary(1)).trainer()
    assert plain.train(ADAM).reward <= 0


def test_a_stream_that_fails_is_named():
    x, y = np.zeros((70, 5), np.float32), np.zeros((70, 1), np.float32)

    def ragged(seed, epoch):
        return tf.data.Dataset.from_tensor_slices((x, y)).batch(32)

    task = dataclasses.replace(make('regression'), train=ragged, epochs=None, steps=6)
    trainer = ChildSetup(Child(learning_rates=(1e-3,)), task, Vocabulary(1)).trainer()
    with pytest.raises(RunError, match=r'KerasTask\.train: no more batches .*batches of other shapes than the first'):
        trainer.train(ADAM)


@pytest.mark.parametrize(
    'kind', [pytest.param(kind, marks=() if kind == 'transformer' else pytest.mark.drill) for kind in MODELS]
)
def test_a_child_is_trained_by_one_trace_and_repeats_to_the_bit(kind):
    task = make(kind)
    assert isinstance(task, Task)
    trainer, again = (ChildSetup(Child(learning_rates=(1e-3, 1e-2)), task, DEEP).trainer() for _ in range(2))
    for rule in ('adam', 'sign(g) + drop(m, 0.1)'):
        rule = UpdateRule.parse(rule)
        first, other = trainer.train(rule, 1), trainer.train(rule, 2)
        assert first[:3] == again.train(rule, 1)[:3] and first[:3] != other[:3]
        assert np.isfinite(first.reward) and first.reward > -10
    assert trainer.traces == 1


@pytest.mark.parametrize('kind', ['convolutional', 'transformer'])
def test_chance_is_the_measure_before_any_step(kind):
    """Statistics of batch normalisation and states of dropout are those of the beginning, too."""
    loaded = make(kind).load()
    assert float(loaded.measure(loaded.data, *loaded.start(0))) == pytest.approx(loaded.untrained, rel=1e-5)
    for ours, theirs in zip(loaded.start(0)[1], loaded.model.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(ours, theirs.value)


def test_what_diverges_is_no_worse_than_twice_untrained():
    task = make('regression')
    loaded = task.load()
    weights, state = loaded.start(0)
    assert task.chance == pytest.approx(float(loaded.measure(loaded.data, weights, state))) and task.chance < 0
    for lost in (weights * np.nan, weights * 1e30):
        assert float(loaded.measure(loaded.data, lost, state)) == pytest.approx(2 * task.chance)


def test_metrics_measure_by_name_object_and_direction():
    task = make('two inputs', measure='sparse_categorical_accuracy')
    loaded = task.load()
    weights, state = loaded.start(0)
    logits = loaded._build(0)(loaded.data.validation[0])
    share = np.mean(np.argmax(logits, -1) == loaded.data.validation[1])
    assert float(loaded.measure(loaded.data, weights, state)) == pytest.approx(share)
    error = make('regression', measure=keras.metrics.MeanAbsoluteError(), lower_is_better=True).load()
    plain = make('regression', loss='mae').load()
    start = error.start(0)
    np.testing.assert_allclose(error.measure(error.data, *start), plain.measure(plain.data, *start), rtol=1e-6)


def test_decay_and_schedule_are_those_of_keras():
    settings = {'weight_decay': 0.5, 'no_decay': ('bias',), 'schedule': 'cosine', 'clipnorm': 0.01}
    loaded = make('regression', **settings).load()
    optimizer = NOSOptimizer(
        'adam', keras.optimizers.schedules.CosineDecay(RATE, loaded.steps), weight_decay=0.5, clipnorm=0.01
    )
    optimizer.exclude_from_weight_decay(var_names=['bias'])
    model = fitted(loaded, optimizer)
    weights, _ = trained(loaded)
    np.testing.assert_allclose(weights, flat(model.trainable_variables), atol=1e-6)
    assert np.abs(weights - trained(make('regression').load())[0]).max() > 1e-4
    warm = make('regression', schedule='linear', warmup_steps=4).load()
    np.testing.assert_allclose([warm.schedule(step) for step in (0, 3, 10)], [0.25, 0.85, 0.5])


def test_weights_of_classes_are_weights_of_examples():
    loaded = make('two inputs', class_weight={0: 2.0, 2: 0.5}).load()
    _, y, sample_weight = loaded.data.train
    np.testing.assert_array_equal(sample_weight, np.array([2.0, 1.0, 0.5])[y.numpy()])
    assert not np.allclose(trained(loaded)[0], trained(make('two inputs').load())[0], atol=1e-4)


def test_frozen_weights_stay_and_are_no_part_of_the_vector():
    parts = lambda: [layers.Dense(16, trainable=False), layers.Dense(1)]  # noqa: E731
    loaded = dataclasses.replace(make('regression'), build=lambda: keras.Sequential(parts())).load()
    weights, state = loaded.start(0)
    assert weights.shape == (17,) and [part.shape for part in state] == [(5, 16), (16,)]
    _, after = trained(loaded)
    np.testing.assert_array_equal(after[0], state[0])


def test_a_dataset_is_held_and_a_stream_is_a_function_of_seed_and_epoch():
    task = make('regression')
    x, y = task.train
    dataset = tf.data.Dataset.from_tensor_slices((x, y))
    held = dataclasses.replace(task, train=dataset.batch(7)).load()
    for ours, theirs in zip(held.data.train, task.load().data.train, strict=True):
        np.testing.assert_array_equal(ours, theirs)

    def stream(seed, epoch):
        return dataset.shuffle(len(x), seed=100 * seed + epoch).batch(16, drop_remainder=True)

    streamed = dataclasses.replace(task, train=stream, steps=25, epochs=None)
    trainer = ChildSetup(Child(learning_rates=(1e-3, 1e-2)), streamed, DEEP).trainer()
    first = trainer.train(ADAM, 1)
    assert first[:3] == trainer.train(ADAM, 1)[:3] != trainer.train(ADAM, 2)[:3]
    loaded = streamed.load()
    for step in (0, 9, 10, 24, 3):  # ten batches an epoch
        batch = [*stream(5, step // 10)][step % 10]
        for ours, theirs in zip(
            loaded._batch(loaded.data, loaded.batches(tf.constant(5)), tf.constant(step)), batch, strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)


def test_a_fingerprint_is_of_values_types_and_shapes():
    x = tf.constant([[1.0, 2.0]])
    same = [fingerprint((x,)), fingerprint((tf.constant([[1.0, 2.0]]),))]
    others = [fingerprint(other) for other in ((x + 1,), (x, x), (tf.transpose(x),), (tf.cast(x, tf.float64),))]
    assert len(set(same)) == 1 and len({*same, *others}) == 5
    assert fingerprint((tf.constant(['a', 'bc']),)) != fingerprint((tf.constant(['ab', 'c']),))


def test_a_task_travels_with_its_function():
    hidden = 5
    task = dataclasses.replace(
        make('regression'), build=lambda: keras.Sequential([layers.Dense(hidden), layers.Dense(1)])
    )
    there = pickle.loads(cloudpickle.dumps(task))
    assert there.identity() == task.identity() and there.load().start(0)[0].shape == (5 * 5 + 5 + 5 + 1,)


def test_what_a_task_is_follows_from_model_data_and_procedure():
    task = make('regression')
    same, identity = make('regression').identity(), task.identity()
    assert identity == same and identity['KerasTask.loss'] == 'mse'
    for change in (
        {'loss': 'mae'}, {'batch_size': 8}, {'weight_decay': 0.1}, {'epochs': 3}, {'measure': 'mae'},
        {'train': (task.train[0] + 1, task.train[1])}, {'validation': (task.validation[0], task.validation[1] + 1)},
        {'build': lambda: keras.Sequential([layers.Dense(16, activation='tanh'), layers.Dense(1)])},
    ):  # fmt: skip
        assert dataclasses.replace(task, **change).identity() != identity, change
    assert 'Sequential of 113 weights on 160 examples' in str(task)


def wrapped(turned=False):
    """Layers that name others, and are joined; Keras counts their names up from model to model."""
    x = keras.Input((6, 3))
    both = layers.Bidirectional(layers.GRU(4))(x)
    mean = layers.Dense(8)(keras.ops.mean(layers.TimeDistributed(layers.Dense(2))(x), axis=1))
    return keras.Model(x, layers.Dense(1)(layers.Subtract()([mean, both] if turned else [both, mean])))


def test_a_model_is_known_again_by_its_wiring_its_values_and_its_own_code():
    x, y = np.ones((32, 6, 3), np.float32), np.ones((32, 1), np.float32)

    def build_of(model):
        return KerasTask(model, (x, y), (x, y), loss='mse', epochs=1).identity()['KerasTask.build']

    def pretrained():
        model = wrapped()
        model.layers[-1].bias.assign([3.0])
        return model

    def doubled(x):
        return 2 * x  # a comment

    def tripled(x):
        return 3 * x

    def applying(function):
        return lambda: keras.Sequential([keras.Input((6, 3)), layers.Lambda(function), layers.Dense(1)])

    assert build_of(wrapped) == build_of(wrapped)
    assert len({build_of(build) for build in (wrapped, lambda: wrapped(True), pretrained)}) == 3
    assert build_of(applying(doubled)) == build_of(applying(doubled)) != build_of(applying(tripled))


def test_a_loss_of_ones_own_is_known_by_its_code_and_one_that_the_model_brings_too():
    def huber(y, prediction):
        return keras.ops.mean(keras.ops.abs(y - prediction))

    def losses_of(**settings):
        return dataclasses.replace(make('regression'), **settings).identity()['KerasTask.loss']

    mine = losses_of(loss=huber)

    def huber(y, prediction):
        return keras.ops.mean(keras.ops.abs(y - prediction) ** 3)

    assert losses_of(loss=huber) != mine

    def brought(loss):
        def build():
            model = keras.Sequential([layers.Dense(1)])
            model.compile('sgd', loss)
            return model

        return losses_of(loss=None, build=build)

    assert (brought('mse'), brought('mae')) == ('mse', 'mae')


def test_a_dataset_travels():
    task = make('regression')
    held = dataclasses.replace(task, train=tf.data.Dataset.from_tensor_slices(task.train).batch(7))
    there = pickle.loads(cloudpickle.dumps(held))
    assert there.identity() == held.identity() == task.identity()


def test_accuracy_is_the_one_that_fits_labels_and_output():
    def measure(y, units):
        x = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
        build = lambda: keras.Sequential([layers.Dense(units, activation='sigmoid')])  # noqa: E731
        loaded = KerasTask(build, (x, y), (x, y), loss='mse', measure='accuracy', epochs=1, batch_size=10).load()
        return type(loaded._metric).__name__, loaded._metric._fn.__name__

    classes = np.arange(40) % 3
    assert measure(np.eye(3, dtype=np.float32)[classes], 3)[1] == 'categorical_accuracy'
    assert measure((classes[:, None] > 0).astype(np.float32), 1)[1] == 'binary_accuracy'
    sparse = make('two inputs', measure='accuracy').load()
    assert sparse._metric._fn.__name__ == 'sparse_categorical_accuracy' and 0 < sparse.untrained < 1


@pytest.mark.parametrize(
    ('measure', 'is_error'),
    [('mae', True), (keras.metrics.RootMeanSquaredError(), True), ('cosine_similarity', False),
     (keras.metrics.R2Score(), False)],
)  # fmt: skip
def test_an_error_is_measured_as_its_negative(measure, is_error):
    loaded = make('regression', measure=measure).load()
    assert loaded._sign == (-1 if is_error else 1)
    assert loaded.identity()['KerasTask.lower_is_better'] is is_error
    other = make('regression', measure='mae', lower_is_better=False).load()
    assert other.untrained > 0


def test_what_does_not_decay_is_what_keras_excludes():
    """By the names of variables: batch normalisation's are gamma and beta."""
    loaded = make('convolutional', weight_decay=0.1, no_decay=('gamma', 'beta')).load()
    optimizer = loaded.optimizer(ADAM, 0.1)
    model = loaded.task.build()
    model.build((None, 6, 6, 1))
    optimizer.build(model.trainable_variables)
    theirs = [0.1 * optimizer._use_weight_decay(v) for v in model.trainable_variables for _ in range(np.prod(v.shape))]
    np.testing.assert_allclose(loaded.decay, theirs)
    assert 0 < np.mean(loaded.decay == 0) < 1
    one = make('convolutional', weight_decay=0.1, no_decay='bias')
    assert one.no_decay == ('bias',)


class OwnStep(keras.Sequential):
    def train_step(self, data):
        return super().train_step(data)


def random_model():
    return keras.Sequential([layers.Dense(int(np.random.default_rng().integers(1, 10**6))), layers.Dense(1)])


def constant_model():
    return keras.Sequential(
        [layers.Lambda(lambda x: keras.ops.stop_gradient(x)[:, :1]), layers.Dense(1, trainable=False)]
    )


class Seedless(keras.Layer):
    def call(self, x):
        return x + tf.random.normal(tf.shape(x))


class Lopsided(keras.Layer):
    """Has a gradient, but no finite output for large inputs."""

    def call(self, x):
        return keras.ops.where(x > 5, np.nan, x)


X = np.ones((40, 5), np.float32)


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'build': lambda: None}, 'KerasTask.build: returned None, and no keras.Model'),
        ({'build': 'mine'}, 'must be a function that returns a new keras.Model'),
        ({'build': lambda: OwnStep([layers.Dense(1)])}, 'KerasTask.build: OwnStep has a train_step of its own'),
        ({'build': constant_model}, 'KerasTask.build: the model has no weights to train'),
        ({'build': lambda: keras.Sequential([layers.Dense(1, dtype='mixed_float16')])}, 'computes in float16'),
        ({'build': lambda: keras.Sequential([keras.Input((7,)), layers.Dense(1)])}, 'the model cannot be called'),
        ({'train': X}, r'KerasTask.train: must be \(x, y\)'),
        ({'train': (X, X[:30])}, r'KerasTask.train: arrays of \[30, 40\] examples'),
        ({'validation': (X[:0], X[:0])}, r'KerasTask.validation: arrays of \[0\] examples'),
        ({'train': (X, [object()] * 40)}, 'KerasTask.train: must be arrays of numbers or texts'),
        ({'batch_size': 41}, 'KerasTask.batch_size = 41: must be at most the 40 examples'),
        ({'steps': 3}, 'KerasTask.steps = 3, epochs = 1: give one of them'),
        ({'epochs': None}, 'KerasTask.steps = None, epochs = None: give one of them'),
        ({'schedule': 'step'}, "KerasTask.schedule = 'step': choose from constant, linear, cosine"),
        ({'measure': 'beauty'}, "KerasTask.measure = 'beauty': is no metric of Keras"),
        ({'loss': 'beauty'}, "KerasTask.loss = 'beauty'"),
        ({'loss': CROSSENTROPY}, 'KerasTask.loss'),
        ({'train': (X * np.nan, X[:, :1])}, 'KerasTask.loss: is nan before training'),
        ({'memory': 100, 'train': tf.data.Dataset.from_tensors((X, X))}, 'more than the 100 bytes'),
        ({'train': tf.data.Dataset.from_tensor_slices((X, X)).take(0)}, 'KerasTask.train: the dataset is empty'),
        ({'train': lambda seed, epoch: None}, 'KerasTask.steps = None: a stream has no epochs'),
        ({'train': lambda seed, epoch: None, 'steps': 5, 'epochs': None}, 'returned a NoneType, no tf.data.Dataset'),
        ({'build': lambda: keras.Sequential([Seedless(), layers.Dense(1)])}, 'draws random numbers without a seed'),
        (
            {'build': lambda: keras.Sequential([Lopsided(), layers.Dense(1)]), 'validation': (9 * X, X[:, :1])},
            'KerasTask.validation: the measure is nan before training',
        ),
        ({'validation': (X[:, :3], X[:, :1])}, 'KerasTask.validation: cannot be measured'),
        ({'build': keras.Sequential([layers.Dense(1)])}, 'must be a function that returns a new keras.Model'),
        ({'build': lambda units: None}, 'KerasTask.build: raised TypeError'),
        ({'class_weight': [1, 2]}, r'KerasTask.class_weight = \[1, 2\]: must be weights by class'),
        ({'class_weight': {'a': 1.0}}, 'must be weights by class'),
        ({'warmup_steps': 4}, 'KerasTask.warmup_steps = 4: must be fewer than the 4 steps'),
        ({'no_decay': 'biass'}, "KerasTask.no_decay has 'biass', which no variable is called: there are bias, kernel"),
        ({'train': lambda: None, 'steps': 5, 'epochs': None}, r'the function of \(seed, epoch\) raised TypeError'),
        ({'jit_compile': 1}, "KerasTask.jit_compile = 1: must be True, False or 'auto'"),
        ({'lower_is_better': False}, 'KerasTask.lower_is_better = False'),
        ({'train': (X, None, X)}, r'KerasTask.train: has None before the end'),
        ({'train': tf.data.Dataset.from_tensor_slices((X, X[:, 0]))}, 'a dataset must be batched'),
        ({'jit_compile': 'maybe'}, "KerasTask.jit_compile = 'maybe': must be True, False or 'auto'"),
        ({'weight_decay': -1}, 'KerasTask.weight_decay = -1: must be a number, at least 0'),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_said_in_one_sentence(change, said):
    settings = {
        'build': lambda: keras.Sequential([layers.Dense(1)]),
        'train': (X, X[:, :1]),
        'validation': (X, X[:, :1]),
    }
    settings |= {'loss': 'mse', 'epochs': 1, 'batch_size': 10}
    with pytest.raises(ValueError, match=said) as error:
        KerasTask(**settings | change).load().start(1)
    assert '\n' not in str(error.value)


def test_weights_that_are_drawn_without_a_seed_are_refused():
    def build():
        model = keras.Sequential([keras.Input((5,)), layers.Dense(1)])
        model.layers[0].kernel.assign(tf.random.normal([5, 1]))
        return model

    loaded = dataclasses.replace(make('regression'), build=build).load()
    with pytest.raises(ValueError, match=r'KerasTask\.build: initial weights differ from one call to the next'):
        loaded.start(0)


def test_another_seed_does_not_have_tensorflow_forget_its_graph():
    """`tf.random.set_seed` would: the next training then took seconds, and not milliseconds."""
    trainer = ChildSetup(Child(learning_rates=(1e-3,)), make('regression'), Vocabulary(1)).trainer()
    trainer.train(ADAM, 0)
    same = trainer.train(ADAM, 0).seconds
    assert trainer.train(ADAM, 1).seconds < 20 * same + 1


def test_a_model_that_is_another_each_time_is_refused():
    loaded = dataclasses.replace(make('regression'), build=random_model).load()
    with pytest.raises(ValueError, match='KerasTask.build: returned another model than the first time'):
        loaded.start(1)


def shifted(x, seed):
    """Adds one number to all examples of a minibatch."""
    return x + tf.random.stateless_uniform([], seed)


def test_inputs_are_augmented_in_training_by_what_follows_from_the_seed():
    plain, augmented = (make('regression', augment=augment).load() for augment in (None, shifted))
    batches, step = augmented.batches(tf.constant(3)), tf.constant(5)
    weights, state = plain.start(3)
    found = augmented.gradient(augmented.data, batches, step, weights, state)
    x, y = augmented.data.train
    moved = augmented.data._replace(train=(shifted(x, tf.constant([3, 6])), y))
    expected = plain.gradient(moved, batches, step, weights, state)
    np.testing.assert_allclose(found.gradient, expected.gradient, rtol=1e-5, atol=1e-6)
    assert float(plain.gradient(plain.data, batches, step, weights, state).loss) != float(found.loss)
    assert float(plain.measure(plain.data, weights, state)) == float(augmented.measure(augmented.data, weights, state))
    assert plain.identity() != augmented.identity() == make('regression', augment=shifted).identity()
    with pytest.raises(ValueError, match=r'^KerasTask.augment: cannot augment a batch of x \('):
        make('regression', augment=lambda x, seed: x[:1]).load()
