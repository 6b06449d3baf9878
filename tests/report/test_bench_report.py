"""report.html of a bench, by curves that are known."""

import dataclasses
import json

import numpy as np
import pytest

from nos_tf.compare.bench_result import BenchResult, TaskResult
from nos_tf.errors import RunError
from nos_tf.report import bench_report

STEPS = tuple(range(10, 410, 10))
SLOWNESS = {'keras.AdamW': 1.0, 'null control': 1.0, 'keras.Lion': 0.6, 'keras.SGD': 9.0}


def result():
    random = np.random.default_rng(0)

    luck = 0.05 * random.normal(size=5)

    def losses(who):
        rate, of_seeds = 1 / 100 / SLOWNESS[who], 0.05 * random.normal(size=5) if who == 'null control' else luck
        return tuple(tuple(float(np.exp(x - step * rate)) for step in STEPS) for x in of_seeds)

    def task(name):
        return TaskResult(
            name=name,
            steps=STEPS,
            budget=200,
            losses={who: losses(who) for who in SLOWNESS},
            step_seconds={who: 1e-3 * (1 + (who == 'keras.Lion')) for who in SLOWNESS},
            diverged={who: 5 * (who == 'keras.SGD') for who in SLOWNESS},
            bowls={who: {who: {0.01: 0.5, 0.1: 0.2, 1.0: 0.9}} for who in SLOWNESS if who != 'null control'},
            is_ladder=False,
            untrained=1.0,
        )

    return BenchResult('keras.AdamW', 'null control', (task('a'), task('b')), {'Bench.seeds': 5})


@pytest.fixture
def run_dir(tmp_path):
    (tmp_path / 'summary.json').write_text(json.dumps(result().as_json()), encoding='utf-8')
    return tmp_path


def test_the_page_says_who_is_faster_and_the_null_control_stands_on_top(run_dir):
    assert bench_report.is_bench(run_dir) and not bench_report.is_bench(run_dir / 'elsewhere')
    page = bench_report.write(run_dir).read_text(encoding='utf-8')
    assert page.index('keras.AdamW against itself on fresh seeds reads') < page.index('<h2>')
    assert 'On a, keras.SGD diverges on every seed.' in page
    assert page.count('<img ') == 3 and page.count('<h2>') == 4  # all tasks, each of two, the configuration
    tables = (run_dir / 'tables.md').read_text(encoding='utf-8')
    names = [line.split('|')[1].strip() for line in tables.splitlines() if line.startswith('| ')]
    assert names[2:5] == ['null control', 'keras.Lion', 'keras.SGD']
    lion = next(line for line in tables.splitlines() if line.startswith('| keras.Lion')).split('|')
    assert lion[2].startswith(' 1.6') and lion[4].startswith(' 0.8')  # twice as long an update
    assert '| 0% |' in tables and '+1.333 ± 0.000' in tables  # log of the losses at 200 updates: -2 against -3.33
    assert {path.name for path in run_dir.glob('*.png')} == {'speed_ups.png', 'profile.png', 'bowls.png'}


def test_what_is_no_bench_is_said(tmp_path):
    with pytest.raises(RunError, match=r'holds no bench that has come to its end: run nos-tf bench'):
        bench_report.write(tmp_path)
    (tmp_path / 'summary.json').write_text('{"children": 3}', encoding='utf-8')
    with pytest.raises(RunError, match='is not what nos-tf bench leaves'):
        bench_report.read(tmp_path)


def of_null(losses):
    """The result where the null control has had these losses."""
    whole = result()
    tasks = [dataclasses.replace(task, losses={**task.losses, 'null control': losses(task)}) for task in whole.tasks]
    return dataclasses.replace(whole, tasks=tuple(tasks))


def test_the_first_line_says_whether_the_ruler_is_straight():
    assert of_null(lambda task: task.losses['keras.AdamW']).verdict.endswith('the ruler is straight.')
    assert 'THE RULER IS BENT' in of_null(lambda task: task.losses['keras.Lion']).verdict
    few = [dataclasses.replace(t, losses={who: of[:1] for who, of in t.losses.items()}) for t in result().tasks]
    assert 'believe nothing yet' in dataclasses.replace(result(), tasks=tuple(few)).verdict
