import json
import os
import platform
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from gnmt.model import Gnmt
from nos_tf.controller.policy import Policy
from nos_tf.dsl.space import SearchSpace
from nos_tf.evaluation import machine
from nos_tf.evaluation.machine import processor, use_one_cpu_thread
from nos_tf.optimizers.contender import Contender
from nos_tf.tasks.convnet import ConvNet
from nos_tf.tasks.rosenbrock import walk
from nos_tf.tasks.wide_resnet import WideResNet


def test_one_thread_is_set_and_may_be_set_again():
    use_one_cpu_thread()
    use_one_cpu_thread()
    assert tf.config.threading.get_intra_op_parallelism_threads() == 1
    assert tf.config.threading.get_inter_op_parallelism_threads() == 1


def test_processor_is_the_same_in_another_process_and_has_a_name():
    code = 'from nos_tf.evaluation.machine import processor; print(processor())'
    there = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip()
    assert processor() == there != ''


@pytest.mark.parametrize(
    ('lines', 'said'),
    [
        (['model name\t: AMD EPYC', 'flags\t\t: fma avx avx2 sha_ni'] * 2, 'AMD EPYC with avx2'),
        (['model name\t: AMD EPYC', 'flags\t\t: avx avx2 avx512f avx512_bf16'], 'AMD EPYC with avx512_bf16'),
        (['model name\t: Q', 'flags\t\t: fpu sse2'], 'Q'),
        (['BogoMIPS\t: 50.00', 'Features\t: fp asimd sve'], 'aarch64 with sve'),  # ARM gives no name
        (None, 'aarch64'),
    ],
)
def test_processors_of_one_name_are_told_apart_by_their_instructions(tmp_path, monkeypatch, lines, said):
    monkeypatch.setattr(machine, 'CPUS', tmp_path / 'cpuinfo')
    monkeypatch.setattr(platform, 'processor', lambda: 'aarch64')
    if lines is not None:
        machine.CPUS.write_text('\n'.join(lines))
    assert processor() == said


KERAS = {
    'image_data_format': 'channels_first',
    'floatx': 'float16',
    'epsilon': 0.01,
    'dtype_policy': 'mixed_bfloat16',
}


DEFAULTS = {'image_data_format': 'channels_last', 'floatx': 'float32', 'epsilon': 1e-7, 'dtype_policy': 'float32'}


@pytest.fixture
def configure():
    """A function that configures Keras, for the time of the test."""

    def set_all(**changed):
        for name, value in {**DEFAULTS, **changed}.items():
            getattr(keras.config, f'set_{name}')(value)

    yield set_all
    set_all()


def test_what_is_at_its_default_is_no_part_of_an_identity():
    assert machine.settings() == {}
    assert not machine.identity().keys() & {*machine.SETTINGS, *machine.VARIABLES}


@pytest.mark.parametrize(('name', 'value'), KERAS.items())
def test_what_keras_is_configured_to_is_part_of_an_identity(name, value, configure):
    configure(**{name: value})
    assert machine.identity()[f'keras {name}'] == value
    assert json.loads(json.dumps(machine.settings())) == machine.settings()


def test_a_process_adopts_the_settings_of_another(configure):
    configure(floatx='float64', epsilon=0.5)
    theirs = {'keras image_data_format': 'channels_first', 'keras dtype_policy': 'mixed_bfloat16', 'XLA_FLAGS': '-x'}
    machine.adopt(theirs)
    del theirs['XLA_FLAGS']
    assert machine.settings() == theirs


@pytest.mark.parametrize('name', machine.VARIABLES)
def test_variables_that_choose_kernels_are_part_of_an_identity(name, monkeypatch):
    monkeypatch.setenv(name, '')
    assert machine.settings() == {}
    monkeypatch.setenv(name, '1')
    assert machine.identity()[name] == '1'
    assert machine.is_of_machine(name)


def test_keras_json_and_what_tensorflow_is_configured_to_are_part_of_an_identity(tmp_path):
    (tmp_path / 'keras.json').write_text(json.dumps({'image_data_format': 'channels_first', 'floatx': 'float64'}))
    code = """if True:
        import json
        import tensorflow as tf
        from nos_tf.evaluation import machine

        tf.config.experimental.enable_tensor_float_32_execution(False)
        tf.config.experimental.enable_op_determinism()
        tf.config.optimizer.set_jit('autoclustering')
        tf.config.optimizer.set_experimental_options({'layout_optimizer': False})
        machine.adopt(machine.settings())
        print(json.dumps(machine.settings()))
    """
    environment = {**os.environ, 'KERAS_HOME': str(tmp_path), 'XLA_FLAGS': '--xla_cpu_enable_fast_math=false'}
    there = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(there.stdout.splitlines()[-1]) == {
        'keras floatx': 'float64',
        'keras image_data_format': 'channels_first',
        'keras dtype_policy': 'float64',
        'XLA_FLAGS': '--xla_cpu_enable_fast_math=false',
        'tensorflow tensor_float_32': False,
        'tensorflow op determinism': True,
        'tensorflow jit': 'autoclustering',
        'tensorflow optimizer options': {
            'layout_optimizer': False,
            'disable_model_pruning': False,
            'disable_meta_optimizer': False,
        },
    }


def computed():
    """What our networks and optimizers compute: arrays by name."""
    images = np.random.default_rng(0).standard_normal([4, 8, 6, 3]).astype('float32')
    results = {}
    for name, network, contender in (
        ('convnet', ConvNet(filters=2), 'powersign'),
        ('bfloat16 convnet', ConvNet(filters=2, bfloat16=True), 'keras.Nadam'),
        ('wide resnet', WideResNet(depth=10, width=1, dropout=0.5), 'keras.Adam with clipnorm=1'),
    ):
        model, optimizer = network.model((8, 6, 3), 5, 0), Contender(contender).optimizer(0.001, 0)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(images, training=True) ** 2)
        weights = model.trainable_variables
        optimizer.apply(tape.gradient(loss, [w.value for w in weights]), weights)
        results[name] = [model(images, training=False), *model.variables, *optimizer.variables]
    translator = Gnmt(layers=2, units=3).model(7, seed=0)
    results['translator'] = [*translator.weights, translator(np.array([[[4, 5, 2]], [[6, 2, 0]]], np.int32))]
    policy = Policy(SearchSpace(), units=3)
    results['policy'] = [*policy.weights, policy.logits(np.zeros([2, 5], np.int32))]
    results['rosenbrock'] = [w.points for w in walk('keras.RMSprop', [1e-3], 3) + walk('adam', [1e-3], 3)]
    return {name: [keras.ops.convert_to_numpy(value) for value in values] for name, values in results.items()}


def test_no_configuration_of_keras_changes_what_ours_compute(configure):
    """Bit for bit, types and shapes included: the networks, the policy, and optimizers with their learning rates."""
    expected = computed()
    for name, value in KERAS.items():
        configure(**{name: value})
        for what, values in computed().items():
            for ours, before in zip(values, expected[what], strict=True):
                assert ours.dtype == before.dtype, (name, what)
                np.testing.assert_array_equal(ours, before, err_msg=f'{name}: {what}')


def test_an_identity_has_the_threads_whether_configured_or_of_the_environment(monkeypatch):
    monkeypatch.setattr(tf.config.threading, 'get_intra_op_parallelism_threads', lambda: 3)
    assert machine.identity()['intra_op threads'] == 3
    monkeypatch.setattr(tf.config.threading, 'get_intra_op_parallelism_threads', lambda: 0)
    monkeypatch.setenv('TF_NUM_INTRAOP_THREADS', '1')
    assert machine.identity()['intra_op threads'] == 1
    monkeypatch.delenv('TF_NUM_INTRAOP_THREADS')
    assert machine.identity()['intra_op threads'] == os.cpu_count()


def test_an_identity_has_the_versions_and_the_kind_of_processor(monkeypatch):
    before = machine.identity()
    assert (before['tensorflow'], before['keras']) == (tf.__version__, keras.__version__)
    assert before['nos_tf'] and before['numpy'] == np.__version__
    monkeypatch.setattr(machine, 'processor', lambda: 'another')
    assert {name for name, value in machine.identity().items() if value != before[name]} == {'processor'}
