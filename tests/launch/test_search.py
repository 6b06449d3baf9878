"""Searches in small, as a person runs them: a process, its exit code, what it prints and what it leaves."""

import json
import os
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from tests.launching import finish, start

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    'Search.children = 6',
    'Search.rescored = 1',
    'Search.rescore_seeds = 2',
    "Search.baselines = ('sgd',)",
    'Search.evaluator = @InProcess()',
    'SearchSpace.iterations = 1',
    'Digits.train_examples = 100',
    'ImageClassification.train_examples = 100',
    'ImageClassification.batch_size = 50',
    'ImageClassification.epochs = 1',
    'Child.learning_rates = (0.01, 0.1)',
    'ConvNet.filters = 2',
)


def launch(run_dir: Path, *bindings: str, **variables: str) -> subprocess.Popen:
    """The launcher on digits, in small."""
    flags = ('--gin_files', 'gin/digits.gin', '--gin_bindings', *SMALL, *bindings)
    return start('search', run_dir, *flags, **variables)


def trained(run_dir: Path) -> int:
    """How many outcomes are on file."""
    try:
        uri = f'{(run_dir / "results.sqlite").as_uri()}?mode=ro'
        db = sqlite3.connect(uri, uri=True)
        try:
            return db.execute('SELECT count(*) FROM outcomes').fetchone()[0]
        finally:
            db.close()
    except sqlite3.Error:
        return 0


@pytest.mark.slow
def test_a_search_leaves_everything_and_the_same_command_again_trains_nothing(tmp_path: Path) -> None:
    run_dir = tmp_path / 'ein Lauf, ä'
    code, out, err = finish(launch(run_dir))
    assert (code, err) == (0, '')
    assert out.splitlines()[0] == '14,400 rules in the space; 0 of 6 children are there'
    assert out.splitlines()[-1] == str(run_dir / 'report.html')

    summary = json.loads((run_dir / 'summary.json').read_text())
    words = 'children trained distinct_rules best_rule best_reward mean_reward_first_100 mean_reward_last_100'
    assert {*words.split(), 'baselines', 'seconds'} <= summary.keys()
    assert summary['children'] == 6
    assert summary['baselines'].keys() == {'sgd'}
    assert 0 < summary['mean_reward_last_100'] <= summary['best_reward'] <= 1
    assert summary['best_rule'] in (run_dir / 'report.html').read_text()
    assert 'Search.evaluator = @InProcess()' in (run_dir / 'config.gin').read_text()
    assert list(run_dir.glob('events.out.tfevents.*'))
    before = trained(run_dir)
    assert before == summary['trained'] + 2 * 2  # a rule and a baseline on two seeds

    code, out, err = finish(launch(run_dir))
    assert (code, err) == (0, '')
    assert out.splitlines()[-1] == str(run_dir / 'report.html')
    again = json.loads((run_dir / 'summary.json').read_text())
    assert trained(run_dir) == before
    assert {**again, 'seconds': 0} == {**summary, 'seconds': 0}


@pytest.mark.slow
def test_interrupts_end_a_search_with_one_line_and_keep_what_was_paid_for(tmp_path: Path) -> None:
    run_dir = tmp_path / 'x'
    more = ('Search.children = 100000', 'Search.evaluator = @ProcessPool()', 'ProcessPool.workers = 1')
    process = launch(run_dir, *more)
    try:
        deadline = time.monotonic() + 100
        while trained(run_dir) < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        paid = trained(run_dir)
        os.killpg(process.pid, signal.SIGINT)
        os.killpg(process.pid, signal.SIGINT)
        code, _, err = finish(process)
    finally:
        process.kill()
    assert code == 130
    assert err == 'interrupted: what was finished is saved, the same command goes on from there\n'
    assert 2 <= paid <= trained(run_dir)


@pytest.mark.drill
@pytest.mark.slow
def test_a_search_in_ascii_ends_with_its_report(tmp_path: Path) -> None:
    """As under a log collector, or an old system: the name of the directory is no text there."""
    run_dir = tmp_path / 'ä'
    code, out, err = finish(launch(run_dir, LANG='C', LC_ALL='C', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0'))
    assert (code, err) == (0, '')
    *_, score, _, path = out.splitlines()
    assert score.startswith('| ') and score.count(' +- ') == 2
    assert path == str(run_dir / 'report.html')
    page = (run_dir / 'report.html').read_text(encoding='utf-8')
    assert 'Neural Optimizer Search: ä</h1>' in page and '±' in page
    assert list(run_dir.glob('events.out.tfevents.*'))
