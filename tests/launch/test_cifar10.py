"""Comparisons in small, as a person runs them: stopped, taken up, reported, and refused."""

import json
import os
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import gin
import pytest

from nos_tf.cli import commandline
from nos_tf.compare import funnel as _funnel  # noqa: F401  (gin files name what these modules register)
from nos_tf.compare.comparison import Comparison
from nos_tf.dsl.primitives import RuleConstants
from nos_tf.optimizers.contender import Contender
from nos_tf.report.paper import FIGURES_5_AND_7, TABLE_1
from nos_tf.tasks import convnet as _convnet  # noqa: F401
from nos_tf.tasks import wide_resnet as _wide_resnet  # noqa: F401
from tests.launching import finish, run_here, start

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    'Recipe.images = @Digits()',
    'Digits.train_examples = 200',
    'Recipe.train_examples = 200',
    'Recipe.batch_size = 50',
    'ProcessPool.workers = 1',
    'Comparison.learning_rates = (0.01, 0.1)',
    "Comparison.contenders = ('powersign', 'keras.SGD', 'powersign with beta_1=0.8')",
    'Comparison.final_seeds = 2',
)


def launch(gin_file, run_dir, *bindings):
    return start('cifar10', run_dir, '--gin_files', f'gin/{gin_file}.gin', '--gin_bindings', *SMALL, *bindings)


def rows(run_dir):
    path = run_dir / 'trainings.sqlite'
    if not path.exists():
        return []
    with closing(sqlite3.connect(f'{path.as_uri()}?mode=ro', uri=True)) as db:
        try:
            return db.execute("SELECT contender, rate, seed, json_extract(result, '$.curve') FROM trainings").fetchall()
        except sqlite3.Error:
            return []


CONVNET = ('ConvNet.filters = 2', 'Recipe.epochs = 3', 'Comparison.rungs = ((1, 1),)')


@pytest.mark.drill
def test_a_comparison_is_interrupted_and_ends_with_the_rows_of_one_that_was_not(tmp_path):
    process = launch('convnet', tmp_path / 'a', *CONVNET)
    deadline = time.monotonic() + 120
    while not rows(tmp_path / 'a') and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    code, _, err = finish(process)
    assert (code, err.splitlines()[-1]) == (
        130,
        'interrupted: what was finished is saved, the same command goes on from there',
    )
    assert 0 < len(rows(tmp_path / 'a')) < 9
    with closing(sqlite3.connect(tmp_path / 'a' / 'trainings.sqlite')) as db:
        before = db.execute('SELECT count(*) FROM trainings').fetchone()[0]

    code, out, err = finish(launch('convnet', tmp_path / 'a', *CONVNET))
    assert (code, err) == (0, '') and out.splitlines()[-1] == str(tmp_path / 'a' / 'report.html')
    assert before < len(rows(tmp_path / 'a')) == 3 * 2 + 3
    summary = json.loads((tmp_path / 'a' / 'summary.json').read_text())
    assert len(summary['standings']) == 3 and summary['stages'][0]['after'] == '3 epochs'
    assert 'Recipe.epochs = 3' in (tmp_path / 'a' / 'config.gin').read_text()

    code, out, _ = finish(launch('convnet', tmp_path / 'b', *CONVNET))
    assert code == 0 and rows(tmp_path / 'b') == rows(tmp_path / 'a')


@pytest.mark.slow
def test_a_wide_resnet_in_small_and_a_rule_that_diverges(tmp_path):
    bindings = ('WideResNet.depth = 10', 'WideResNet.width = 1', 'Recipe.epochs = 1', 'Recipe.shift = 1')
    diverges = "Comparison.contenders = ('1 / (g - g)', 'keras.SGD')"
    code, _, err = finish(launch('wide_resnet', tmp_path / 'run', *bindings, diverges))
    assert (code, err) == (0, '')
    assert 'diverged' in (tmp_path / 'run' / 'tables.md').read_text()


@pytest.mark.parametrize(
    ('gin_file', 'bindings', 'said'),
    [
        ('convnet', ("Comparison.contenders = ('keras.Sgd',)",), "keras.optimizers has no 'Sgd'"),
        ('wide_resnet', ("Comparison.contenders = ('exp(g) * 1e300', 'keras.SGD')",), '1e300'),
        ('convnet', ('Recipe.images = @TfdsImages()', "TfdsImages.data_dir = 'nowhere'", 'TfdsImages.download = False'),
         'nowhere'),
        ('funnel', ("best_of_search.run_dir = 'nothing'",), 'holds no results.sqlite'),
        ('funnel', (), 'run_dir'),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told(tmp_path, gin_file, bindings, said):
    small = [binding for binding in SMALL if '@TfdsImages' not in str(bindings) or not binding.startswith('Digits')]
    flags = '--gin_files', f'gin/{gin_file}.gin', '--gin_bindings', *small, *bindings, '--run_dir', tmp_path / 'run'
    with pytest.raises(commandline.MISTAKES) as caught:
        run_here('cifar10', 'compare', *flags)
    assert said in str(caught.value)


@pytest.fixture
def preset():
    """The comparison that a file describes."""

    def parsed(name):
        gin.add_config_file_search_path(str(ROOT))
        gin.parse_config_file(f'gin/{name}.gin')
        return Comparison()

    gin.clear_config()
    yield parsed
    gin.clear_config()


def test_the_presets_of_the_paper_have_its_sizes(preset):
    figure_5 = preset('convnet')
    assert figure_5.contenders == FIGURES_5_AND_7
    assert figure_5.learning_rates == tuple(10.0**i for i in range(-5, 2)) and figure_5.rungs == ()
    recipe = figure_5.recipe
    assert (recipe.epochs, recipe.batch_size, recipe.train_examples, recipe.network.filters) == (300, 100, None, 32)
    table_1 = preset('wide_resnet')
    assert set(TABLE_1) | {'momentum', 'adam', 'rmsprop'} == set(table_1.contenders)
    network, recipe = table_1.recipe.network, table_1.recipe
    assert (network.depth, network.width, recipe.epochs, recipe.weight_decay) == (28, 10, 300, 5e-4)
    assert recipe.flips and recipe.shift == 4 and recipe.images.side is None


@pytest.mark.parametrize(
    ('of', 'name'),
    [('convnet', 'convnet_reduced'), ('wide_resnet', 'wide_resnet_reduced'), ('convnet', 'convnet_fashion_mnist')],
)
def test_what_is_reduced_compares_the_same_optimizers(preset, of, name):
    whole, reduced = preset(of), preset(name)
    assert (whole.contenders, whole.learning_rates) == (reduced.contenders, reduced.learning_rates)
    assert reduced.recipe.epochs < whole.recipe.epochs and reduced.final_seeds >= 2


def test_sensitivity_halves_and_doubles(preset):
    usual = RuleConstants()
    for text in preset('sensitivity').contenders:
        for name, value in Contender(text).optimizer(0.1, 0).get_config().items():
            if name in ('beta_1', 'beta_2'):
                assert round((1 - value) / (1 - getattr(usual, name)), 6) in (0.5, 1, 2)
            elif name == 'epsilon':
                assert round(value / usual.epsilon, 6) in (0.1, 1, 10)
