"""The README: its links lead somewhere, its code runs, and its rules are what it says."""

import re
from pathlib import Path

import pytest

from nos_tf import UpdateRule
from nos_tf.__main__ import main

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / 'README.md').read_text(encoding='utf-8')


@pytest.mark.parametrize('link', re.findall(r'\]\((?!https?:)([^)#]+)', TEXT))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()


def test_files_that_are_named_exist():
    named = set(re.findall(r'\b(?:gin|launch|benchmarks|nos_tf)/[\w/]+\.(?:py|gin)\b', TEXT))
    assert len(named) >= 5
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_nothing_is_left_to_fill_in():
    assert not re.search(r'@[A-Z_]{3,}@|TODO', TEXT)


CODE = re.findall(r'```python\n(.*?)```', TEXT, flags=re.DOTALL)


def test_code_runs():
    names = {}
    for code in CODE[1:]:
        exec(code, names)  # noqa: S102 - it is our own
        assert names['model'].optimizer.rule == UpdateRule.parse('powersign')
    assert names['model'].optimizer.sign_decay.decay_steps == 500


@pytest.mark.slow
def test_the_first_lines_search_and_train(tmp_path, monkeypatch, capsys):
    """As they stand, with fewer children."""
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(CODE[0].replace('children=500', "children=10, rescored=2, rescore_seeds=2, baselines=('adam',)"), names)  # noqa: S102
    best = names['search'].best()
    assert names['model'].optimizer.rule == best.rule
    assert capsys.readouterr().out.endswith(f'{best}\n')


def test_notations_of_powersign_are_one_rule():
    rows = re.findall(r'^\| (?:infix|tokens|name)[^|]*\| (.*?) \|$', TEXT, flags=re.MULTILINE)
    texts = [text for row in rows for text in re.findall(r'`([^`]+)`', row)][:4]
    assert [UpdateRule.parse(text) for text in texts] == [UpdateRule.parse('powersign')] * 4


def test_what_it_says_of_a_rule_is_what_the_command_prints(capsys):
    ((rule, output),) = re.findall(r"^\$ \S+ -m nos_tf '([^']+)'\n(.*?)```", TEXT, flags=re.DOTALL | re.MULTILINE)
    assert main([rule]) == 0
    assert capsys.readouterr().out == output
