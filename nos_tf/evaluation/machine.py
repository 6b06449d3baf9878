"""The machine as far as a reward depends on it: one thread of one kind of processor."""

import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.config import is_op_determinism_enabled  # TensorFlow has no public name for it

from nos_tf.version import __version__

CPUS = Path('/proc/cpuinfo')
VECTORS = ('amx_bf16', 'avx512_fp16', 'avx512_bf16', 'avx512_vnni', 'avx512f', 'avx2', 'avx', 'sve2', 'sve', 'asimd')
"""Instructions by which libraries choose kernels, the best first, as Linux calls them: of x86, then of ARM."""


class Setting(NamedTuple):
    """A setting of a process that can change results, whether a file (`keras.json`) or Python sets it."""

    read: Callable[[], Any]
    write: Callable[[Any], None]
    default: Any


_tensorflow = tf.config.optimizer

SETTINGS = {
    'keras floatx': Setting(keras.config.floatx, keras.config.set_floatx, 'float32'),
    'keras epsilon': Setting(keras.config.epsilon, keras.config.set_epsilon, 1e-7),
    'keras image_data_format': Setting(
        keras.config.image_data_format, keras.config.set_image_data_format, 'channels_last'
    ),
    'keras dtype_policy': Setting(lambda: keras.config.dtype_policy().name, keras.config.set_dtype_policy, 'float32'),
    'tensorflow jit': Setting(_tensorflow.get_jit, _tensorflow.set_jit, ''),
    'tensorflow optimizer options': Setting(
        _tensorflow.get_experimental_options,
        _tensorflow.set_experimental_options,
        {'disable_model_pruning': False, 'disable_meta_optimizer': False},
    ),
    'tensorflow op determinism': Setting(
        is_op_determinism_enabled, lambda _: tf.config.experimental.enable_op_determinism(), False
    ),
    'tensorflow tensor_float_32': Setting(
        tf.config.experimental.tensor_float_32_execution_enabled,
        tf.config.experimental.enable_tensor_float_32_execution,
        True,
    ),
}
"""The settings by their names in an identity. Our networks fix their types and data format; a user's may not."""

ALWAYS = ('intra_op threads', 'processor', 'nos_tf', 'tensorflow', 'keras', 'numpy', 'TF_ENABLE_ONEDNN_OPTS')
"""The parts of an identity that tell of the machine in any case."""

CONTROLLER_THREADS = 'controller threads'  # of a search whose process had begun with more than one

VARIABLES = (
    'DNNL_DEFAULT_FPMATH_MODE',
    'DNNL_MAX_CPU_ISA',
    'NVIDIA_TF32_OVERRIDE',
    'ONEDNN_DEFAULT_FPMATH_MODE',
    'ONEDNN_MAX_CPU_ISA',
    'TF_CUDNN_DETERMINISTIC',
    'TF_DETERMINISTIC_OPS',
    'TF_DISABLE_MKL',
    'TF_ENABLE_CUBLAS_TENSOR_OP_MATH_FP32',
    'TF_SET_ONEDNN_FPMATH_MODE',
    'TF_XLA_FLAGS',
    'XLA_FLAGS',
)
"""Variables of the environment that choose kernels or their precision; one that is empty or not set does nothing."""


def use_one_cpu_thread(required: bool = True) -> None:
    """Makes this process compute on one thread of the CPU, as the paper's workers did (Section 4.2).

    On more threads, or on a GPU, the same rule would earn another reward.

    Args:
        required: False where it may go on with the threads that it has, which `threads` tells: in a notebook,
            TensorFlow may have started, and cannot change them any more.

    Raises:
        RuntimeError: TensorFlow has started already with another setting.
    """
    threading = tf.config.threading
    if (threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads()) != (1, 1):
        try:
            threading.set_intra_op_parallelism_threads(1)
            threading.set_inter_op_parallelism_threads(1)
        except RuntimeError as error:
            if not required:
                return
            raise RuntimeError(
                'TensorFlow has started already with more than one thread, and rewards would depend on their number: '
                'begin the search in a process that has computed nothing yet'
            ) from error
    if tf.config.get_visible_devices('GPU'):
        tf.config.set_visible_devices([], 'GPU')


def processor() -> str:
    """The kind of CPU, and its best vector instructions: another one may round differently.

    A virtual machine may give one name to CPUs that differ in their instructions, by which kernels are chosen.
    """
    try:
        fields = [line.partition(':')[::2] for line in CPUS.read_text(encoding='utf-8').splitlines()]
    except OSError:
        fields = []
    names = {value.strip() for key, value in fields if key.strip() == 'model name'}
    name = ', '.join(sorted(names)) or platform.processor() or platform.machine()
    flags = {flag for key, value in fields if key.strip() in ('flags', 'Features') for flag in value.split()}
    best = next((vectors for vectors in VECTORS if vectors in flags), None)
    return f'{name} with {best}' if best else name


def threads() -> int:
    """Threads within an operation: as configured, else as TensorFlow's own variable says, else one for each core."""
    configured = tf.config.threading.get_intra_op_parallelism_threads()
    return configured or int(os.environ.get('TF_NUM_INTRAOP_THREADS') or 0) or os.cpu_count() or 1


def settings() -> dict[str, Any]:
    """Returns what differs from the defaults of Keras, TensorFlow and their libraries: name -> JSON value."""
    changed = {name: setting.read() for name, setting in SETTINGS.items() if setting.read() != setting.default}
    return changed | {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}


def adopt(settings: Mapping[str, Any]) -> None:
    """Makes this process compute as the one whose `settings` these are, from which it has inherited the environment."""
    for name, setting in SETTINGS.items():
        if (value := settings.get(name, setting.default)) != setting.read():
            setting.write(value)


def identity() -> dict[str, Any]:
    """Returns all of this process and machine that a reward depends on: name of each part -> JSON value.

    Settings that are at their defaults are left out, so that runs of before they were looked at go on.
    """
    one_dnn = os.environ.get('TF_ENABLE_ONEDNN_OPTS', '1')
    versions = __version__, tf.__version__, keras.__version__, np.__version__
    return dict(zip(ALWAYS, (threads(), processor(), *versions, one_dnn), strict=True)) | settings()


def is_of_machine(name: str) -> bool:
    """Returns whether a part of an identity tells of the machine, its versions or settings."""
    return name in (*ALWAYS, CONTROLLER_THREADS) or name in SETTINGS or name in VARIABLES
