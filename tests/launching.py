"""Launchers as a person runs them: processes with an exit code and two streams."""

import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import gin
import pytest

ROOT = Path(__file__).resolve().parents[1]


def start(name: str, run_dir: Path, *flags: str, **variables: str) -> subprocess.Popen:
    """`launch/NAME.py`, in another working directory and a process group of its own, with variables of its own."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / f'launch/{name}.py'), *flags, '--run_dir', str(run_dir)],
        cwd=run_dir.parent,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'TF_CPP_MIN_LOG_LEVEL': '3', **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # as in a terminal
    )


def run_here(name: str, function: str, *argv: object) -> None:
    """Calls a function of `launch/NAME.py` in this process: what matters is what it does or raises, not how it ends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [f'{name}.py', *map(str, argv)])
        try:
            runpy.run_path(str(ROOT / f'launch/{name}.py'))[function]()
        finally:
            gin.clear_config()


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    out, err = process.communicate(timeout=180)
    return process.returncode, out, err
