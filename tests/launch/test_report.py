"""The launcher that draws a report: its flags and its end; `tests/report` has the rest."""

import functools
from pathlib import Path

import pytest

from gnmt import report as translation_report
from gnmt.recipe import Trained as Translator
from nos_tf.errors import RunError
from nos_tf.report import comparison_report, report
from nos_tf.store.trainings import TrainingStore
from nos_tf.tasks.training import Trained
from tests.launching import run_here

draw = functools.partial(run_here, 'report', 'draw')


def test_it_prints_where_the_report_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    shown = []
    monkeypatch.setattr(report, 'write', lambda run_dir, beside, _: (shown.extend(beside), run_dir / 'page')[1])
    draw('--run_dir', str(tmp_path))
    draw('--run_dir', str(tmp_path), '--beside', 'one', 'two')
    assert capsys.readouterr().out == f'{tmp_path / "page"}\n' * 2
    assert shown == [Path('one'), Path('two')]


@pytest.mark.parametrize(('kind', 'module'), [(Trained, comparison_report), (Translator, translation_report)])
def test_a_directory_of_a_comparison_gets_its_own_report(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    kind: type,
    module: object,
) -> None:
    TrainingStore(tmp_path, kind, {}).close()
    monkeypatch.setattr(module, 'write', lambda run_dir: run_dir / 'of a comparison')
    draw('--run_dir', str(tmp_path))
    assert capsys.readouterr().out == f'{tmp_path / "of a comparison"}\n'


def test_a_comparison_has_none_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    TrainingStore(tmp_path, Trained, {}).close()
    with pytest.raises(SystemExit):
        draw('--run_dir', str(tmp_path), '--beside', 'other')
    assert f'argument --beside: {tmp_path} holds a comparison itself' in capsys.readouterr().err


def test_a_directory_without_a_search_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match='holds no results.sqlite: no search has run there'):
        draw('--run_dir', str(tmp_path))


@pytest.mark.parametrize('argv', [(), ('--run_dir', ''), ('--run_dir', 'x', '--gin_files', 'y')])
def test_unfit_flags_end_with_code_2(argv: tuple[str, ...], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as left:
        draw(*argv)
    assert left.value.code == 2
    assert 'report.py: error: ' in capsys.readouterr().err.splitlines()[-1]


def test_help_shows_an_example(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        draw('--help')
    assert 'nos-tf report --run_dir runs/quickstart' in capsys.readouterr().out
