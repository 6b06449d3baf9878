"""The study of learners in miniature, on a table whose rewards are made up."""

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest

from nos_tf.controller.learners import Evolution, RandomSearch
from tests.evaluation.test_table import make

sys.path.append(str(Path(__file__).parents[2] / 'benchmarks' / 'tabular'))

import documents
import landscape
import study
import study_figures
import table_rewards
from table_columns import save

MARKS = ''.join(f'text\n<!-- {name} -->\n<!-- end of {name} -->\n' for name in ('study', 'tuning'))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The command line of a study of two contenders, in this process."""
    save(make(), tmp_path / 'table.npz')
    (tmp_path / 'study.md').write_text(MARKS)
    monkeypatch.setattr(study, 'BEST', {'top 0.1%': 0.03, 'top 1%': 0.1})
    contenders = {
        'random search': study.Contender(RandomSearch, {'batch_size': (20,)}),
        'evolution': study.Contender(Evolution, {'batch_size': (5,), 'population': (5, 10)}),
    }
    monkeypatch.setattr(study, 'CONTENDERS', contenders)
    monkeypatch.setattr(study, 'SEEDS', (0, 1, 2))
    monkeypatch.setattr(study, 'TUNING_SEEDS', (7, 8))
    monkeypatch.setattr(study, 'played', lambda jobs, workers: ((job, study._play(job)) for job in jobs))
    study.world.cache_clear()
    yield argparse.Namespace(
        table=tmp_path / 'table.npz', folder=tmp_path, document=tmp_path / 'study.md', workers=1, only=None
    )
    study.world.cache_clear()


def test_tune_run_and_draw(here, capsys):
    study.tune(here)
    rows = study.read_rows(here.folder / 'tuning.csv')
    assert len(rows) == 3 * 2
    study.tune(here)
    assert study.read_rows(here.folder / 'tuning.csv') == rows  # nothing is played twice
    study.run(here)
    with np.load(here.folder / 'runs' / 'evolution.npz') as file:
        assert file['programs'].shape == (3, study.SAMPLES)
        assert 'population=' in str(file['setting'])
    study.draw(here)
    text = here.document.read_text()
    assert text.count('| evolution |') == 3
    assert 'random search, exactly' in text
    study.draw(here)
    assert here.document.read_text() == text
    assert here.document.with_suffix('.png').stat().st_size > 10_000
    assert 'evolution' in capsys.readouterr().out


def test_a_learner_sees_one_seed_and_is_judged_by_all(here):
    task = study.world(here.table)
    played = study.play(task, Evolution(batch_size=5, population=10), 0, 203)
    assert played.shape == (203,)
    assert (played == study.play(task, Evolution(batch_size=5, population=10), 0, 203)).all()
    assert task.rewards.dtype == np.float32
    assert (task.rewards != task.means).any()
    assert [flags.sum() for flags in task.best.values()] == [6, 19]
    rescored = np.isin(task.table.class_of, task.table.rescored)
    assert rescored[
        table_rewards.best(task.table, rescored.sum())
    ].all()  # what many seeds say comes before what one says
    means = task.means[table_rewards.best(task.table, rescored.sum())]
    assert (np.diff(means) <= 0).all() and means[0] == task.means[rescored].max()
    first = study.first_hit(task, played, 'top 0.1%')
    assert task.best['top 0.1%'][played[int(first) - 1]]
    short = study.play(task, Evolution(batch_size=5, population=10), 0, 203, until_found=True)
    assert first <= len(short) < first + 5


def test_what_is_missing_is_said(here):
    with pytest.raises(SystemExit, match='is not tuned yet'):
        study.run(here)
    with pytest.raises(SystemExit, match='has no runs'):
        study.draw(argparse.Namespace(**vars(here) | {'folder': here.folder / 'elsewhere'}))


def test_figures_of_runs_by_hand():
    programs = np.array([[0, 1, 2, 1], [2, 2, 0, 1]])
    rewards, means = np.array([0.1, 0.8, 0.5]), np.array([0.2, 0.7, 0.6])
    found = study_figures.incumbent(programs, rewards, means)
    np.testing.assert_array_equal(found, [[0.2, 0.7, 0.7, 0.7], [0.6, 0.6, 0.6, 0.7]])
    np.testing.assert_array_equal(study_figures.samples_to(programs == 1), [2, 4])
    np.testing.assert_array_equal(study_figures.samples_to(programs == 7), [np.inf, np.inf])
    assert study_figures.median_of_random(154_880, 155) == 693
    averages = study_figures.moving_average(np.arange(250.0)[None])
    assert averages[0, 9] == 4.5 and averages[0, 249] == np.arange(150, 250).mean()
    assert study_figures.spread(np.array([5.0, 1.0, np.inf, 3.0, 2.0])) == '3 (2 to 5)'
    assert study_figures.spread(np.array([np.inf, np.inf, 1.0])) == '– (1 to –)'
    assert study_figures.spread(np.full(5, np.inf)) == '–'


def test_the_landscape_of_a_table(tmp_path, monkeypatch, capsys):
    save(make(), tmp_path / 'table.npz')
    document = tmp_path / 'table.md'
    document.write_text(
        ''.join(f'<!-- {x} -->\n<!-- end of {x} -->\n' for x in ('levels', 'best', 'noise', 'primitives'))
    )
    monkeypatch.setattr(sys, 'argv', ['', '--table', str(tmp_path / 'table.npz'), '--document', str(document)])
    landscape.main()
    text = document.read_text()
    table = make()
    rewards = table_rewards.rewards(table)
    assert f'| highest | {rewards.max():.3f} |' in text
    assert f'| above 0.5 | {(rewards > 0.5).mean():.1%} |' in text
    told = table.accuracies
    off = abs(told[table.audit.right[0]] - told[table.first.right[table.class_of[3]]])
    assert f'largest difference, mean difference | {off:.3f}' in text
    for expected in ('| highest |', '| 1 | `', 'standard deviation', '| operand | `adam` |', '| binary | `left` |'):
        assert expected in text, expected
    assert document.with_suffix('.png').exists()


def test_a_table_that_is_not_complete_is_refused():
    with pytest.raises(SystemExit, match='not complete'):
        landscape.Landscape(make(complete=False))


def test_a_document_without_a_place_is_refused(tmp_path):
    (tmp_path / 'a.md').write_text('nothing')
    with pytest.raises(SystemExit, match='<!-- study -->'):
        documents.fill(tmp_path / 'a.md', {'study': 'x'})
    assert documents.markdown(['a'], [['x|y']]) == '| a |\n| --- |\n| x\\|y |'
