"""The machine as far as a reward depends on it: one thread of one kind of processor."""

import os
import platform
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nos_tf.version import __version__

CPUS = Path('/proc/cpuinfo')
VECTORS = ('amx_bf16', 'avx512_fp16', 'avx512_bf16', 'avx512_vnni', 'avx512f', 'avx2', 'avx', 'sve2', 'sve', 'asimd')
"""Instructions by which libraries choose kernels, the best first, as Linux calls them: of x86, then of ARM."""


def use_one_cpu_thread() -> None:
    """Makes this process compute on one thread of the CPU, as the paper's workers did (Section 4.2).

    On more threads, or on a GPU, the same rule would earn another reward.

    Raises:
        RuntimeError: TensorFlow has started already with another setting.
    """
    threading = tf.config.threading
    if (threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads()) != (1, 1):
        try:
            threading.set_intra_op_parallelism_threads(1)
            threading.set_inter_op_parallelism_threads(1)
        except RuntimeError as error:
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


def identity() -> dict[str, Any]:
    """All of this process and machine that a reward depends on: name of each part -> JSON value."""
    return {
        'intra_op threads': threads(),
        'processor': processor(),
        'nos_tf': __version__,
        'tensorflow': tf.__version__,
        'keras': keras.__version__,
        'numpy': np.__version__,
        'TF_ENABLE_ONEDNN_OPTS': os.environ.get('TF_ENABLE_ONEDNN_OPTS', '1'),
    }
