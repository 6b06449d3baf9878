"""The numbers of standard streams, and leaving when nobody reads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

LAUNCH = Path(__file__).resolve().parents[2] / 'launch'
ROOT = LAUNCH.parent


def run(code: str, *closed: int) -> subprocess.CompletedProcess[str]:
    """A process that begins with some of its streams closed."""
    return subprocess.run(
        [sys.executable, '-c', code],
        env={**os.environ, 'PYTHONPATH': str(LAUNCH), 'PYTHONUNBUFFERED': ''},
        preexec_fn=lambda: [os.close(number) for number in closed],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize('closed', [(), (1,), (2,), (0, 1, 2)])
def test_no_file_gets_the_number_of_a_standard_stream(closed: tuple[int, ...], tmp_path: Path) -> None:
    """What TensorFlow writes to number 2 would end in that file; processes that are begun inherit the numbers."""
    code = f"""
import os, subprocess, sys
from nos_tf.cli import streams
streams.keep_numbers()
with open({str(tmp_path / 'file')!r}, 'w') as file:
    inherited = subprocess.run([sys.executable, '-c', 'import os; [os.fstat(i) for i in range(3)]']).returncode
    file.write(f'{{file.fileno() > 2}} {{inherited}}')
"""
    run(code, *closed)
    assert (tmp_path / 'file').read_text(encoding='utf-8') == 'True 0'


def test_leaving_says_a_line_and_writes_out_what_was_printed() -> None:
    left = run('from nos_tf.cli import streams; print("x"); streams.leave("error: why", 7)')
    assert (left.returncode, left.stdout, left.stderr) == (7, 'x\n', 'error: why\n')


def test_leaving_without_streams_keeps_the_exit_code() -> None:
    assert run('from nos_tf.cli import streams; print("x"); streams.leave("error: why", 7)', 1, 2).returncode == 7


@pytest.mark.parametrize('redirection', ['| true', '> /dev/full', '>&- 2>&-'])
def test_the_help_of_a_cluster_needs_no_reader(redirection: str) -> None:
    script = f'"$0" launch/local_cluster.py --help {redirection}; exit ${{PIPESTATUS[0]}}'
    environment = {**os.environ, 'PYTHONUNBUFFERED': ''}
    command = ['bash', '-c', script, sys.executable]
    left = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (left.returncode, left.stderr) == (0, '')
