"""The ten lines as a person runs them; `make drill` runs them for every kind of model."""

import pytest

from nos_tf.evaluation.in_process import InProcess
from tests.ten_lines import count, finish, kill_when, rewards, run_notebook, script, start

KIND = 'two inputs'


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """What they find in this process, which is what they find anywhere."""
    run_dir = tmp_path_factory.mktemp('whole')
    names = {'InProcess': InProcess}
    exec(script(KIND, run_dir, more=', evaluator=InProcess()', jit_compile=False), names)  # noqa: S102 - it is our own
    return str(names['search'].best()), rewards(run_dir)


@pytest.mark.slow
def test_a_script_that_is_killed_goes_on_bit_for_bit(whole, tmp_path):
    printed, expected = whole
    assert '<- chosen' in printed and len(expected[0]) == 20
    text = script(KIND, tmp_path / 'run', jit_compile=False)
    kill_when(start(text, tmp_path), tmp_path / 'run', 7)
    assert 7 <= count(tmp_path / 'run', 'outcomes') < len(expected[1])
    finish(start(text, tmp_path))
    assert rewards(tmp_path / 'run') == expected


@pytest.mark.slow
def test_a_notebook_finds_the_same_and_shows_it(whole, tmp_path):
    """Though TensorFlow has started there, on as many threads as there are cores."""
    printed, expected = whole
    shown = run_notebook(script(KIND, tmp_path / 'run', jit_compile=False), tmp_path)
    assert shown.endswith(f'{printed}\n')
    assert rewards(tmp_path / 'run') == expected
