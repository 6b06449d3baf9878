"""The report of a comparison, from rows that are known."""

import json

import pytest

from nos_tf.errors import RunError
from nos_tf.report import comparison_report, report
from nos_tf.report.drawn import in_figure
from nos_tf.report.paper import FIGURES_5_AND_7
from nos_tf.store.trainings import Key, TrainingStore
from nos_tf.tasks.training import Curve, Trained
from tests.report.test_report import Page, fill

SGD, ADAM, POWERSIGN = 'keras.SGD', 'keras.Adam', 'powersign'
SPELLED = 'powersign: g * exp(sign(g) * sign(m))'
FAST = 'powersign with beta_1=0.8'
WILD, POOR = 'keras.RMSprop', 'signsgd'


def trained(*validation, test=None, diverged=False):
    return Trained(Curve((1.0,) * len(validation), validation, test or validation), 1800.0, diverged)


DONE = {
    Key(SGD, 0.1, 0): trained(0.5, 0.9, 0.7, test=(0.4, 0.8, 0.75)),
    Key(SGD, 0.1, 1): trained(0.5, 0.6, 0.9, test=(0.4, 0.8, 0.85)),
    Key(SGD, 1.0, 0): trained(0.4),
    Key(ADAM, 0.1, 0): trained(0.6, 0.65, 0.6),
    Key(ADAM, 1.0, 0): trained(0.5),
    Key(POWERSIGN, 0.1, 0): trained(0.4),
    Key(POWERSIGN, 1.0, 0): trained(0.5, 0.6, 0.95),
    Key(FAST, 0.1, 0): trained(0.5, 0.6, 0.93),
    Key(FAST, 1.0, 0): trained(0.4),
    Key(WILD, 0.1, 0): trained(0.3, 0.1, diverged=True),
    Key(WILD, 1.0, 0): trained(0.1, diverged=True),
    Key(POOR, 0.1, 0): trained(0.1),
    Key(POOR, 1.0, 0): trained(0.2),
}
COLUMNS = ('final val', 'final test', 'best val', 'test at best val')
STANDINGS = [(POWERSIGN, 1.0, 1), (FAST, 0.1, 1), (SGD, 0.1, 2), (ADAM, 0.1, 1), (WILD, 0.1, 1)]
STAGES = [{'before': '1 epochs', 'after': '3 epochs', 'contenders': 5, 'correlation': 0.375}]


@pytest.fixture
def run_dir(tmp_path):
    """A finished run; `network` is that of its recipe."""

    def finished(network='WideResNet'):
        store = TrainingStore(tmp_path, Trained, {})
        for key, value in DONE.items():
            store.save(key, value)
        store.close()
        configuration = {
            'Comparison.contenders': [SGD, ADAM, POWERSIGN, FAST, WILD, POOR],
            'Comparison.learning_rates': [0.1, 1.0],
            'Comparison.rungs': [[1, 1, 5]],
            'Recipe.epochs': 3,
            'Recipe.network': f'@{network}()',
            f'{network}.depth': 16,
            f'{network}.bfloat16': False,
            'Recipe.images': '@TfdsImages()',
            'TfdsImages.dataset': 'cifar10',
            'TfdsImages.side': None,
            'TfdsImages.seed': 0,
            'Recipe.train_examples': None,
            'Recipe.batch_size': 100,
        }
        summary = {'standings': STANDINGS, 'stages': STAGES, 'training_seconds': 3600 * 6.5}
        (tmp_path / 'summary.json').write_text(json.dumps(summary | {'configuration': configuration}))
        return tmp_path

    return finished


def rows_of(run_dir):
    page = Page(comparison_report.write(run_dir).read_text(encoding='utf-8'))
    return page, {row[0]: row[1:] for row in page.rows[::-1]}  # of equal names the first


def test_the_main_table_is_that_of_the_paper(run_dir):
    page, rows = rows_of(run_dir())
    head = ['learning rate', 'seeds', 'final val', 'final test', 'best val', 'test at best val']
    assert rows['optimizer'] == [*head, *(f'paper: {name}' for name in head[2:])]
    paper = ['92.0', '91.8', '92.9', '91.9']
    assert rows[SGD] == ['0.1*', '2', '80.0 ± 14.1', '80.0 ± 7.1', '90.0 ± 0.0', '82.5 ± 3.5', *paper]
    assert rows[SPELLED][:6] == ['1*', '1', '95.0', '95.0', '95.0', '95.0']
    assert rows[WILD][:6] == ['0.1* (diverged)', '1', '10.0', '10.0', '10.0', '10.0']
    assert rows['signsgd: sign(g)'] == ['1', '1', 'stopped after 1 epochs', '', '20.0', *[''] * 5]
    assert 'WideResNet (depth = 16) on TfdsImages (dataset = cifar10), all images in batches of 100' in page.text
    assert 'over 4 optimizers: 1.00' in page.text and '6.5 hours' in page.text


def test_the_other_tables(run_dir):
    _, rows = rows_of(run_dir())
    assert rows['1 epochs'] == ['3 epochs', '5', '0.38']
    tables = (run_dir() / 'tables.md').read_text(encoding='utf-8').split('###')
    paired, _, variants, by_rate = tables[2:]
    # against SGD at two seeds; PowerSign has one, and is judged by those of Keras
    assert f'| {SPELLED} | +15.0 | +30.0 | +85.0 |' in paired
    assert variants.splitlines()[-2] == f'| {SPELLED} with beta_1=0.8 | -2.0 | 0.1 | 1 |'
    assert '| keras.RMSprop | 30.0 | 10.0 |' in by_rate  # it diverged in the second epoch, or in the first
    assert '| keras.SGD | 50.0 | 40.0 |' in by_rate


def test_without_numbers_of_the_paper(run_dir):
    _, rows = rows_of(run_dir('ConvNet'))
    assert len(rows[SGD]) == 6 and len(rows['signsgd: sign(g)']) == 6


def test_the_curves_are_in_the_page_and_beside_it(run_dir):
    page, _ = rows_of(run_dir())
    picture = (run_dir() / 'curves.png').read_bytes()
    assert picture.startswith(b'\x89PNG')
    assert [value[:22] for _, name, value in page.attributes if name == 'src'] == ['data:image/png;base64,']


def test_where_the_optimizers_of_the_papers_figures_are_all_there_they_are_drawn():
    ranked = ['keras.Adam with epsilon=0.1', *reversed(FIGURES_5_AND_7)]
    assert comparison_report._drawn(ranked) == ranked[1:]  # as they were ranked
    assert comparison_report._drawn(ranked[:-1]) == in_figure(ranked[:-1])


def test_what_has_not_run_or_not_finished_is_refused(tmp_path):
    with pytest.raises(RunError, match='holds no trainings.sqlite: no comparison has run there'):
        comparison_report.write(tmp_path)
    TrainingStore(tmp_path, Trained, {}).close()
    with pytest.raises(RunError, match='has not finished: run launch/cifar10.py with this --run_dir first'):
        comparison_report.write(tmp_path)


def test_the_report_of_a_search_shows_it_beside(run_dir, tmp_path_factory):
    search = tmp_path_factory.mktemp('search')
    fill(search)
    finished = run_dir('ConvNet')
    page = Page(report.write(search, [finished]).read_text(encoding='utf-8'))
    name = finished.name
    assert f'Beside other optimizers: {name}' in page.text
    assert page.rows[page.rows.index(['optimizer', 'learning rate', 'seeds', *COLUMNS]) + 1][:2] == [
        SPELLED,
        '1*',
    ]
    text = (search / 'report.md').read_text(encoding='utf-8')
    assert f'### Differences by seed: test accuracy at best validation, in points: {name}\n' in text
    assert f'](curves_{name}.png)' in text
    assert (search / f'curves_{name}.png').read_bytes() == comparison_report.draw(finished).curves
    assert '### How well each stage foretells the next' in text and text.startswith('# Neural Optimizer Search: ')
    with pytest.raises(RunError, match=f'{search} is given twice'):
        report.write(search, [search])
    other = tmp_path_factory.mktemp('other') / search.name
    other.mkdir()
    with pytest.raises(RunError, match='are both called .*: rename one, to tell them apart'):
        report.write(search, [other])
