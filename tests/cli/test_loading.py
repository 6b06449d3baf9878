"""Frameworks that cannot be imported: one line, whatever the command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nos_tf.cli import loading

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ['search', 'cifar10', 'rosenbrock', 'gnmt/train', 'report', 'server']


def ended(*argv: str, **variables: str) -> tuple[int, str]:
    """The exit code of a command, and what it prints, in whichever stream."""
    run = subprocess.run(
        [sys.executable, *argv],
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': f'{ROOT}{os.pathsep}{ROOT / "launch"}', **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return run.returncode, run.stdout


@pytest.mark.parametrize('command', COMMANDS)
def test_another_backend_is_refused_before_anything_is_imported(command: str) -> None:
    for backend in ('jax', 'nonsense'):
        found = ended('-X', 'importtime', f'launch/{command}.py', '--help', KERAS_BACKEND=backend)
        assert found[0] == 2
        *imported, line = found[1].splitlines()
        assert line == f'error: KERAS_BACKEND={backend}: this command runs on tensorflow alone: unset KERAS_BACKEND'
        assert not any(name in ''.join(imported) for name in ('tensorflow', 'keras'))


@pytest.mark.parametrize('given', [None, '', 'tensorflow'])
def test_keras_json_does_not_choose_the_backend(given: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if given is None:
        monkeypatch.delenv('KERAS_BACKEND')
    else:
        monkeypatch.setenv('KERAS_BACKEND', given)
    loading.choose_backend()
    assert os.environ['KERAS_BACKEND'] == 'tensorflow'  # which has the last word, in worker processes too


def test_a_broken_keras_json_is_named(tmp_path: Path) -> None:
    (tmp_path / 'keras.json').write_text('["tensorflow"]', encoding='utf-8')
    code, text = ended('launch/report.py', '--help', KERAS_HOME=str(tmp_path))
    assert (code, text.count('\n')) == (2, 1)
    assert text.startswith(f'error: Keras does not accept {tmp_path / "keras.json"} (')
    assert text.endswith('): mend that file, or move it away\n')


def test_another_error_does_not_accuse_keras_json() -> None:
    with pytest.raises(ZeroDivisionError), loading.explained():
        print(1 / 0)


@pytest.mark.parametrize(
    ('code', 'says'),
    [
        (
            'import no_such_library',
            "error: No module named 'no_such_library': install what requirements.txt lists",
        ),
        ('from os import nothing', "error: cannot import name 'nothing' from 'os'"),
        ('raise ImportError("use\\n that")', 'error: use that\n'),
    ],
)
def test_a_failed_import_is_one_line(code: str, says: str) -> None:
    program = f'import sys; from nos_tf.cli import loading; sys.excepthook = loading.report\n{code}'
    found = ended('-c', program)
    assert found[0] == 2 and found[1].startswith(says) and found[1].count('\n') == 1
    assert 'Traceback' in ended('-c', program, NOS_TF_TRACEBACK='1')[1]


def test_other_errors_keep_their_traceback() -> None:
    code, text = ended('-c', 'import sys; from nos_tf.cli import loading; sys.excepthook = loading.report; 1 / 0')
    assert code == 1 and 'Traceback' in text


@pytest.mark.slow
def test_under_oo_a_search_says_what_to_use(tmp_path: Path) -> None:
    code, text = ended('-OO', 'launch/search.py', '--gin_files', 'gin/digits.gin', '--run_dir', str(tmp_path / 'x'))
    line = 'TensorFlow Probability needs docstrings, which python -OO drops: use python -O\n'
    assert (code, text) == (2, f'error: {line}')
