import subprocess
import sys

import tensorflow as tf

from nos_tf.tasks.machine import processor, use_one_cpu_thread


def test_one_thread_is_set_and_may_be_set_again():
    use_one_cpu_thread()
    use_one_cpu_thread()
    assert tf.config.threading.get_intra_op_parallelism_threads() == 1
    assert tf.config.threading.get_inter_op_parallelism_threads() == 1


def test_processor_is_the_same_in_another_process_and_has_a_name():
    code = 'from nos_tf.tasks.machine import processor; print(processor())'
    there = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip()
    assert processor() == there != ''
