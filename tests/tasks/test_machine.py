import platform
import subprocess
import sys

import pytest
import tensorflow as tf

from nos_tf.tasks import machine
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
