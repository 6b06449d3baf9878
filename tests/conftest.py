"""One thread and quiet logs for every test process, settled before TensorFlow starts; nothing here imports it."""

import importlib.util
import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

os.environ.update(TF_NUM_INTRAOP_THREADS='1', TF_NUM_INTEROP_THREADS='1', OMP_NUM_THREADS='1')
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('TF_FORCE_GPU_ALLOW_GROWTH', 'true')  # one test process a core, and perhaps one GPU for all
os.environ.setdefault('KERAS_BACKEND', 'tensorflow')


class OneThread(MetaPathFinder):
    """Says to `tf.config`, when a test first imports TensorFlow, what the environment says to the kernels.

    The environment alone limits the threads, but `tf.config.threading` then still reports 0, and cannot be set any more
    once the first tensor exists.
    """

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Finds TensorFlow, once, and has its threads set as soon as it is executed."""
        if fullname != 'tensorflow':
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_then_set(module: ModuleType) -> None:
            execute(module)
            module.config.threading.set_intra_op_parallelism_threads(1)
            module.config.threading.set_inter_op_parallelism_threads(1)

        spec.loader.exec_module = execute_then_set  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, OneThread())
