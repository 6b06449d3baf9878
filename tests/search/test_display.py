"""What a person sees, in a terminal and in a log."""

import io
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

from nos_tf.search import display as display_module
from nos_tf.search.display import Display, scores_table
from nos_tf.search.rescore import Score
from nos_tf.search.tally import Tally
from tests.rows import make_row, make_rows

LONG_RULE = 'drop(exp(sign(g) * sign(m)), 0.3) * (clip(adam + 1e-3*w, 1e-4) - log(rmsprop / (gamma + eps)))'


def console(terminal, width=80):
    return Console(file=io.StringIO(), force_terminal=terminal, width=width)


def tally_of(rows):
    tally = Tally()
    for row in rows:
        tally.add(row)
    return tally


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets, in seconds."""
    time = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(display_module, 'time', SimpleNamespace(monotonic=lambda: time.now))
    return time


def shown(display):
    return display.console.file.getvalue()


def test_a_log_gets_whole_lines_and_no_control_characters(clock):
    with Display(4, 0, console(terminal=False, width=20)) as display:
        display.note('5 rules in the space')
        clock.now += 20
        display.show(tally_of(make_rows([0.25, 0.75], ['g', 'm'])))
        clock.now += 20
        display.show(tally_of(make_rows([0.25, 0.75, 0.5, 0.5], ['g', LONG_RULE])))
    lines = shown(display).splitlines()
    assert lines[0] == '5 rules in the space'
    assert lines[1] == (
        'children 2/4, mean reward of the last 100 0.500, best 0.750 m, hits 0%, equal functions 0%, '
        'rejected 0%, 360 an hour, 0:20 left'
    )
    assert lines[2].startswith('children 4/4, mean reward of the last 100 0.500, best 0.750 drop(')
    assert lines[2].endswith('hits 50%, equal functions 0%, rejected 0%, 360 an hour, 0:00 left')
    assert len(lines) == 3 and '\x1b' not in shown(display)


def test_a_log_gets_a_line_every_ten_seconds_and_at_the_end(clock):
    with Display(30, 0, console(terminal=False)) as display:
        for count in range(1, 31):
            clock.now += 1
            display.show(tally_of(make_rows([0.5] * count)))
    counts = [line.split(',')[0] for line in shown(display).splitlines()]
    assert counts == ['children 1/30', 'children 11/30', 'children 21/30', 'children 30/30']


def test_rate_and_time_left_are_of_this_session(clock):
    with Display(110, 10, console(terminal=False)) as display:
        clock.now += 100
        display.show(tally_of(make_rows([0.5] * 10)))
        clock.now += 0.001
        assert display.per_hour(10) == 0
        display.show(tally_of(make_rows([0.5] * 10)), under_way=0)
        clock.now += 99.999
        display.show(tally_of(make_rows([0.5] * 12)), under_way=3)
    first, second = shown(display).splitlines()
    assert '10/110' in first and '0 an hour, ? left' in first
    assert '15/110' in second and ' 90 an hour, 1:03:20 left' in second  # 5 in 200 s, so 95 in 3800 s


@pytest.mark.parametrize('terminal', [True, False])
def test_before_the_first_child_there_is_nothing_to_tell(terminal, clock):
    with Display(10, 0, console(terminal)) as display:
        display.show(Tally())
        clock.now += 30
        display.show(Tally(), under_way=2)
    assert 'nan' not in shown(display)
    assert ('2/10' in shown(display)) == terminal


def test_a_terminal_shows_a_panel_that_goes_in_the_end(clock):
    with Display(10, 0, console(terminal=True)) as display:
        clock.now += 36
        rows = make_rows([0.25, 0.75, 0.75], ['g', 'm', 'g'])
        unpaid = ['rejected: is constant', 'rejected: reads no gradient']
        rows += [make_row(0.1, rule, 3, origin) for rule, origin in zip(('sign(exp(g))', '1'), unpaid, strict=True)]
        display.show(tally_of(rows))
        display._live.refresh()
        display.note('a line that stays')
        panel = shown(display)
    for text in ('5/10', 'left 0:36', '0.390', 'best rule', 'm', '500', 'a line that stays'):
        assert text in panel, text
    for text in ('cache hits +1 ', 'equal functions +1 ', 'rejected +2 '):
        assert re.search(text + r'\(\d0%\)', panel), text
    assert shown(display).rstrip().endswith('\x1b[2K')  # the last thing is to erase the panel


def test_a_terminal_may_be_narrower_than_the_rule(clock):
    with Display(10, 0, console(terminal=True, width=40)) as display:
        clock.now += 1
        display.show(tally_of(make_rows([0.5], [LONG_RULE])))
        display._live.refresh()
    assert 'gamma' in shown(display)


@pytest.mark.parametrize('terminal', [True, False])
def test_other_work_is_counted_too(terminal, clock):
    with Display(10, 10, console(terminal)) as display:
        for done in range(1, 8):
            clock.now += 4
            display.busy('rescoring', done, 7)
        if terminal:
            display._live.refresh()
        text = shown(display)
    assert 'rescoring' in text and '7/7' in text
    if not terminal:
        assert text.splitlines() == ['rescoring 1/7', 'rescoring 4/7', 'rescoring 7/7']


def test_scores_are_a_table():
    scores = [
        Score('', LONG_RULE, 0.9876, 0.9, 0.0124, 0.05, 0.02, 0.01, (0.9, 0.9)),
        Score('sgd', 'g', None, 0.85, 0.03, 0.0, 0.0, 10.0, (0.8, 0.9)),
        Score('', 'm', 0.5, 0.4, 0.1, None, None, 1e-05, (0.4, 0.4)),
    ]
    out = console(terminal=False, width=200)
    out.print(scores_table(scores, 2))
    text = out.file.getvalue()
    lines = [line for line in text.splitlines() if '±' in line]
    assert 'on 2 fresh seeds' in text
    assert [cell.strip() for cell in lines[0].strip('│').split('│')] == [
        LONG_RULE,
        '0.988',
        '0.900 ± 0.012',
        '+0.050 ± 0.020',
        '0.01',
    ]
    assert [cell.strip() for cell in lines[1].strip('│').split('│')][:2] == ['sgd: g', '']
    assert [cell.strip() for cell in lines[2].strip('│').split('│')][3:] == ['', '1e-05']


def test_the_table_of_scores_loses_nothing_in_a_narrow_terminal():
    out = console(terminal=False, width=50)
    out.print(scores_table([Score('', LONG_RULE, 0.5, 0.5, 0.1, None, None, 0.1, (0.5,))], 1))
    first_column = ''.join(line.strip('│').split('│')[0].strip() for line in out.file.getvalue().splitlines())
    assert LONG_RULE.replace(' ', '') in first_column.replace(' ', '')
