"""A search without gin, and what it hands out."""

import dataclasses
import json
import math
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from nos_tf import Search
from nos_tf.compare.ruler import ADAM, PANEL
from nos_tf.controller.learners import RandomSearch
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.space import SearchSpace
from nos_tf.errors import RunError
from nos_tf.evaluation.in_process import InProcess
from nos_tf.evaluation.speed import Estimate, Speed, speed_of
from nos_tf.search import search as search_module
from nos_tf.store.results import read_run
from nos_tf.tasks.child import Child
from nos_tf.tasks.suite import Gain, Suite
from tests.tasks.models import make

SPACE = SearchSpace(operands=('g', 'm'), unaries=('x', 'sign'), binaries=('+', 'left'))


def searching(run_dir, task=None, **changes):
    settings = {
        'space': SPACE,
        'learner': RandomSearch(),
        'child': Child((1e-3, 1e-2)),
        'evaluator': InProcess(),
        'children': 10,
        'rescored': 2,
        'rescore_seeds': 2,
        'baselines': ('sgd', 'adam'),
    }
    return Search(task or make('regression', jit_compile=False), run_dir=run_dir, **{**settings, **changes})


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    found = searching(tmp_path_factory.mktemp('found'))
    found.run()
    return found


def test_the_best_is_the_best_of_those_on_fresh_seeds(finished):
    best = finished.best()
    summary = finished.run()
    found = [score for score in summary['rescored'] if not score['name']]
    assert best.rule == UpdateRule.parse(found[0]['rule']).canonical()
    assert best.score.mean == max(score['mean'] for score in found)
    assert best.learning_rate == best.score.learning_rate
    assert best.baseline.name in ('sgd', 'adam')
    assert set(best.sweep) == {1e-3, 1e-2} and max(best.sweep.values()) <= 0


def test_the_best_shows_its_bowl_of_rates(finished):
    best = finished.best()
    text = str(best)
    assert text.startswith(best.rule.infix)
    assert f'best known rule       {best.baseline.mean:.4g}' in text
    chosen = [line for line in text.splitlines() if line.endswith('<- chosen')]
    assert len(chosen) == 1 and chosen[0].startswith(f'{best.learning_rate:g} ')
    bars = [line.count('█') for line in text.splitlines() if '█' in line]
    assert max(bars) == 30 and min(bars) == 1


def test_results_are_the_distinct_rules_by_reward(finished):
    rows = finished.results()
    rows = rows if isinstance(rows, list) else rows.to_dict('records')
    run = read_run(Path(finished.run_dir))
    assert sorted(row['tokens'] for row in rows) == sorted({row.program for row in run.rows})
    assert [row['reward'] for row in rows] == sorted((row['reward'] for row in rows), reverse=True)
    assert sum(row['sampled'] for row in rows) == len(run.rows) == 10


def test_results_are_dicts_where_pandas_is_not_there(finished, monkeypatch):
    monkeypatch.setattr('nos_tf.search.found.find_spec', lambda name: None)
    assert set(finished.results()[0]) >= {'rule', 'reward', 'learning_rate', 'origin'}


def test_results_are_a_data_frame_where_pandas_is_there(finished, monkeypatch):
    class Pandas:
        DataFrame = staticmethod(lambda rows: ('frame', rows))

    monkeypatch.setattr('nos_tf.search.found.find_spec', lambda name: name)
    monkeypatch.setitem(sys.modules, 'pandas', Pandas)
    kind, rows = finished.results()
    assert kind == 'frame' and rows[0]['reward'] >= rows[-1]['reward']


def test_the_report_is_drawn(finished):
    path = finished.report()
    assert path == Path(finished.run_dir) / 'report.html' and finished.best().rule.infix in path.read_text('utf-8')


def test_the_optimizer_trains_as_the_task_does(tmp_path):
    settings = {'schedule': 'cosine', 'warmup_steps': 3, 'clipnorm': 0.5, 'weight_decay': 0.01, 'no_decay': ('bias',)}
    task = make('regression', jit_compile=False, **settings)
    found = searching(tmp_path, task, rescore_seeds=0, child=Child((1e-2,)))
    found.run()
    optimizer = found.best().optimizer(steps=20)
    assert (optimizer.clipnorm, optimizer.weight_decay) == (0.5, 0.01)
    rate = optimizer._learning_rate
    expected = [0.01 * 0.5 * (1 + math.cos(math.pi * t / 20)) * min(1, (t + 1) / 3) for t in (0, 5, 30)]
    np.testing.assert_allclose([float(rate(t)) for t in (0, 5)], expected[:2], rtol=1e-5)
    assert float(rate(30)) == pytest.approx(0, abs=1e-9)
    model = task.build()
    model.compile(optimizer=optimizer, loss='mse')
    x, y = (np.array(part) for part in task.load().data.train)
    before = model.evaluate(x, y, verbose=0)
    model.fit(x, y, batch_size=8, epochs=1, verbose=0)
    assert model.evaluate(x, y, verbose=0) < before
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert float(again._learning_rate(5)) == pytest.approx(expected[1], rel=1e-5)


def test_a_rule_that_reads_the_progress_is_told_the_steps(tmp_path):
    space = SearchSpace(operands=('linear', 'm'), unaries=('x',), binaries=('*',), distinct_operands=True, language=2)
    found = searching(tmp_path, space=space, children=2, rescore_seeds=0, baselines=())
    found.run()
    assert found.best().optimizer().total_steps == found.task.load().steps == 20
    assert found.best().optimizer(steps=7).total_steps == 7


def test_the_best_of_another_task_is_refused(finished):
    with pytest.raises(
        RunError, match=r'holds a search on another task: KerasTask\.loss is "mse" there and "mae" here'
    ):
        searching(finished.run_dir, make('regression', loss='mae')).best()


def test_nothing_found_is_said_in_one_line(tmp_path):
    with pytest.raises(RunError, match='no search has run there'):
        searching(tmp_path).best()
    for run_dir in (None, '', 3):
        with pytest.raises(RunError, match=r'Search.run_dir = .*: must be the path of a directory'):
            searching(run_dir).run()


def test_an_estimate_counts_sweep_training_measures_and_processes():
    estimate = Estimate(Speed(10.0, 2.0), children=100, rescored=20, workers=2)
    assert estimate.hours == pytest.approx((10 + 60 * 2) / 3600)
    assert str(estimate) == (
        '2 s a rule, after 10 s to begin: 100 rules and 20 trainings on fresh seeds take 2 processes about 2.2 '
        'minutes, less where rules repeat'
    )


@pytest.mark.slow
@pytest.mark.drill
def test_the_speed_is_about_that_of_a_rule(tmp_path):
    setup = searching(tmp_path, make('regression', epochs=None, steps=3000, jit_compile=False)).setup
    rule = UpdateRule.parse('adam')
    trainer = setup.trainer()
    trainer.train(rule)
    taken = min(trainer.train(rule).seconds for _ in range(2))
    assert taken / 3 < speed_of(setup, rule).per_rule < 3 * taken


@pytest.mark.slow
def test_whether_xla_compiles_is_decided_once_and_kept(tmp_path, monkeypatch):
    tried = []
    monkeypatch.setattr(search_module, 'xla_pays', lambda setup, rule, rules: tried.append(rules) or True)
    task = make('regression', jit_compile='auto')
    searching(tmp_path, task, rescore_seeds=0).run()
    assert tried == [10.0]
    assert read_run(tmp_path).configuration['KerasTask.jit_compile'] is True
    longer = searching(tmp_path, task, rescore_seeds=0, children=15)
    longer.run()
    longer.best()
    assert tried == [10.0] and len(read_run(tmp_path).rows) == 15
    plain = searching(tmp_path / 'plain', make('regression', jit_compile=False), rescore_seeds=0)
    plain.run()
    compiled, interpreted = read_run(tmp_path).rows[:10], read_run(tmp_path / 'plain').rows
    assert [row.rule for row in compiled] == [row.rule for row in interpreted]
    np.testing.assert_allclose([r.reward for r in compiled], [r.reward for r in interpreted], rtol=1e-4)
    with pytest.raises(RunError, match=r'KerasTask\.jit_compile is true there and false here'):
        searching(tmp_path, make('regression', jit_compile=False), rescore_seeds=0).run()


def test_a_stream_is_not_compiled(tmp_path, monkeypatch):
    monkeypatch.setattr('nos_tf.evaluation.speed.speed_of', lambda *_: pytest.fail('it need not be tried'))
    x, y = np.zeros((8, 3), np.float32), np.zeros((8, 1), np.float32)
    task = make('regression').__class__(
        make('regression').build,
        lambda seed, epoch: __import__('tensorflow').data.Dataset.from_tensors((x, y)),
        (x, y),
        loss='mse',
        steps=6,
    )
    assert not searching(tmp_path, task)._xla_pays(task)


@pytest.mark.slow
def test_a_gain_finds_its_reference_once_and_keeps_it(tmp_path, monkeypatch):
    monkeypatch.setattr('nos_tf.compare.ruler.ADAM', ADAM[:2])
    monkeypatch.setattr('nos_tf.compare.ruler.PANEL', PANEL[:4])
    gain = Gain(make('regression', jit_compile=False))
    search = searching(tmp_path / 'run', gain, child=Child((1e-3, 1e-2), refine=True))
    assert search.estimate().speed.per_rule > 0 and not (tmp_path / 'run').exists()
    summary = search.run()
    found = summary['configuration']
    assert found['Gain.reference'] > 0 and found['Gain.spread'] > 0
    best = search.best()
    assert best.setup.task.reference == found['Gain.reference'] and best.learning_rate in best.finer
    adam = next(score for score in summary['rescored'] if score['name'] == 'adam')
    assert abs(adam['mean']) < 3  # near the reference
    monkeypatch.setattr('nos_tf.compare.tuning.Tuning.train', lambda *_: pytest.fail('trained again'))
    assert searching(tmp_path / 'run', gain, child=search.child).run()['configuration'] == found
    shutil.rmtree(tmp_path / 'run' / 'ruler')
    assert searching(tmp_path / 'run', gain, child=search.child).run()['configuration'] == found


def test_the_reference_of_another_task_is_not_taken(tmp_path, monkeypatch):
    """Also where the search before it has no child yet, and its store would take another task."""
    monkeypatch.setattr('nos_tf.compare.ruler.ADAM', ADAM[:1])
    monkeypatch.setattr('nos_tf.compare.ruler.PANEL', PANEL[:2])

    def interrupted(*_):
        raise KeyboardInterrupt

    searches = [
        searching(tmp_path / 'run', Gain(make('regression', jit_compile=False, epochs=epochs)), child=Child((1e-2,)))
        for epochs in (1, 2)
    ]
    with monkeypatch.context() as patch:
        patch.setattr(Search, '_search', interrupted)
        with pytest.raises(KeyboardInterrupt):
            searches[0].run()
    with pytest.raises(RunError, match=r'ruler holds .*KerasTask\.epochs is 1 there and 2 here'):
        searches[1].run()


@pytest.mark.slow
def test_a_suite_finds_a_rule_for_several_tasks(tmp_path, monkeypatch):
    looked_for = []

    def found(gain, child, evaluator, folder, **_):
        looked_for.append(folder)
        return dataclasses.replace(gain, reference=1.0, spread=0.5)

    monkeypatch.setattr('nos_tf.search.decisions.with_ruler', found)
    tasks = [make(kind, jit_compile=False) for kind in ('regression', 'two inputs')]
    search = searching(tmp_path / 'run', Suite((Gain(tasks[0]), Gain(tasks[1]))))
    assert search.estimate().before == 2 * 76
    search.run()
    assert looked_for == [tmp_path / 'run' / 'ruler' / str(i) for i in range(2)]
    best = search.best()
    assert len(best.gains) == 2 and not best.sweep and str(tasks[0]) in str(best)
    assert best.reward == pytest.approx(sum(best.gains.values()) / 2)
    with pytest.raises(ValueError, match='a suite has found a rule, and no rate for your model: give one'):
        best.optimizer()
    assert best.optimizer(learning_rate=0.5).rule == best.rule
    json.loads((tmp_path / 'run' / 'summary.json').read_text(), parse_constant=pytest.fail)
    assert search.report().exists()
    assert search.run()['trained'] > 0 and len(looked_for) == 2 and search.estimate().before == 0
