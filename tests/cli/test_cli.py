"""The command `nos-tf` as it is installed, and that launch/ has the same code.

What it does is in nos_tf/cli/search.py, nos_tf/cli/compare.py, nos_tf/cli/report.py, nos_tf/cli/rule.py and
nos_tf/cli/tasks.py; how it reads its arguments, in nos_tf/cli/configuration.py, nos_tf/cli/unread.py and
nos_tf/cli/streams.py.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nos_tf.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
NOS_TF = Path(sys.executable).with_name('nos-tf')
SMALL = (
    'Search.children = 10',
    'Search.rescore_seeds = 0',
    'Child.learning_rates = (0.01, 0.1)',
    'ImageClassification.train_examples = 200',
    'ImageClassification.batch_size = 50',
    'ConvNet.filters = 2',
    'RandomSearch.batch_size = 5',
    'Search.learner = @RandomSearch()',
    'ProcessPool.workers = 1',
)


def run(*arguments, cwd=ROOT):
    environment = {**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '3'}
    command = [NOS_TF, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)


def test_without_a_command_it_lists_them():
    ended = run()
    assert ended.returncode == 2 and all(f'\n  {name} ' in ended.stderr for name in COMMANDS)
    assert run('--help').stdout.startswith('usage: nos-tf COMMAND')
    ended = run('serch')
    assert (ended.returncode, ended.stdout) == (2, '')
    assert ended.stderr.endswith("error: no command 'serch'\n")


def test_a_rule_needs_no_framework():
    ended = run('rule', 'exp(sign(g) * sign(m)) * g')
    assert ended.returncode == 0 and 'equals          powersign' in ended.stdout
    code = 'import sys; from nos_tf.cli import main\ntry: main(["rule", "adam"])\n'
    code += 'finally: print({"keras", "tensorflow"} & set(sys.modules))'
    light = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert light.stdout.endswith('set()\n')
    assert run('rule', 'adam +').returncode == 2


def test_a_search_is_estimated_made_and_reported(tmp_path):
    """From another folder: gin/ is found all the same."""
    flags = ('--gin_files', 'gin/digits.gin', '--gin_bindings', *SMALL, '--run_dir', tmp_path / 'x')
    estimated = run('search', *flags, '--estimate', cwd=tmp_path)
    assert estimated.returncode == 0, estimated.stderr
    assert '10 rules and 0 trainings on fresh seeds take one process' in estimated.stdout
    assert not (tmp_path / 'x').exists()
    made = run('search', *flags, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert made.stdout.endswith(f'{tmp_path / "x" / "report.html"}\n')
    (tmp_path / 'x' / 'report.html').unlink()
    drawn = run('report', '--run_dir', tmp_path / 'x')
    assert drawn.returncode == 0 and (tmp_path / 'x' / 'report.html').exists()


def test_tasks_are_listed_with_what_tuned_optimizers_reach():
    listed = run('tasks')
    assert listed.returncode == 0, listed.stderr
    rows = [line.split() for line in listed.stdout.splitlines() if line.startswith('digits_autoencoder ')]
    (_, *described), (_, weights, examples, *losses) = rows
    assert described[:3] == ['large,', 'noisy', 'An'] and int(weights) > 1000 and int(examples) > 1000
    assert losses.count('at') == 6


@pytest.mark.parametrize('name', ['search', 'compare', 'report'])
def test_mistakes_end_in_one_line(name, tmp_path):
    flags = () if name == 'report' else ('--gin_files', 'gin/nothing.gin')
    ended = run(name, *flags, '--run_dir', tmp_path / 'x')
    assert ended.returncode == 2 and ended.stderr.startswith('error: ') and ended.stderr.count('\n') == 1
    assert run(name, '--run_dir').stderr.splitlines()[-1].startswith(f'nos-tf {name}: error: argument --run_dir')


@pytest.mark.parametrize('script', ['search', 'compare', 'cifar10', 'report'])
def test_the_scripts_of_launch_have_no_code_of_their_own(script):
    lines = (ROOT / 'launch' / f'{script}.py').read_text(encoding='utf-8').splitlines()
    assert any(line.startswith('from nos_tf.cli') for line in lines) and len(lines) < 20
