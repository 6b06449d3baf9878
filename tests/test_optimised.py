"""`python -O` drops `assert`, and `-OO` docstrings too: every refusal and every parser is there all the same."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
AT_LEAST = 350  # calls; or else what is to be called is no longer found


@pytest.mark.slow
@pytest.mark.parametrize(('flag', 'level'), [pytest.param('-O', 1, marks=pytest.mark.drill), ('-OO', 2)])
def test_what_is_refused_is_refused_without_assert_and_docstrings(tmp_path, flag, level):
    ran = subprocess.run(
        [sys.executable, flag, str(ROOT / 'tests/optimised_run.py')],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHONDONTWRITEBYTECODE': '1', 'COLUMNS': '200'},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    optimised, calls, wrong = map(int, ran.stdout.splitlines()[-1].split())
    assert wrong == 0, ran.stdout
    assert optimised == level and calls > AT_LEAST
