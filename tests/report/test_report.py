"""report.html: one page that needs nothing else, and says what the store and the summary say."""

import base64
import contextlib
import dataclasses
import json
from html.parser import HTMLParser

import pytest

from nos_tf.dsl.rule import UpdateRule
from nos_tf.errors import RunError
from nos_tf.report import report
from nos_tf.search.rescore import rescore
from nos_tf.search.tally import Tally
from nos_tf.store.database import OTHERS
from nos_tf.store.results import Result, Store, best_rules
from nos_tf.store.schema import Checkpoint, StoredChild
from nos_tf.store.trainings import TrainingStore
from nos_tf.tasks.child import TRAINED, Outcome
from nos_tf.tasks.training import Trained

RULES = ('g', 'g * exp(sign(g) * sign(m))', 'noise', 'g * 1', 'exp(g)')
REWARDS = (0.5125, 0.8375, 0.1, 0.5125, 0.2)
CONFIGURATION = {
    'Search.seed': 12,
    'hostile': '<script>alert("&")</script>',
    'Child.learning_rates': [0.1, 1.0],
    'Child.sweep_epochs': 2,
}
TASK = {'Quadratic.size': 3}
BEST_HEAD = ['rank', 'rule', 'known as', 'acts as', 'reward', 'learning rate', 'slots', 'sampled', 'first child']
SEARCHES = ['sampled', 'distinct', 'mean at first', 'mean at last', 'best reward', 'seconds']
VOID = {'meta', 'img', 'br', 'link'}


class Page(HTMLParser):
    """The text, the attributes and the rows of tables of a page; what is not well-formed fails."""

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.rows, self.text, self.headings = [], [], [], '', []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.attributes += [(tag, *pair) for pair in attributes]
        if tag not in VOID:
            self.open.append(tag)
        if tag == 'tr':
            self.rows.append([])
        if tag in ('td', 'th'):
            self.rows[-1].append('')

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if 'style' in self.open:
            return
        self.text += data
        if self.open[-1:] in (['td'], ['th']):
            self.rows[-1][-1] += data
        if self.open[-1:] in (['title'], ['h1']):
            self.headings.append(data)


def fill(run_dir, rescored=True, configuration=CONFIGURATION):
    """A finished search of five children; returns its summary."""
    tally = Tally()
    with contextlib.closing(Store(run_dir, configuration, TASK, 'a bowl <of 3 weights>')) as store:
        for rule, reward in zip(RULES, REWARDS, strict=True):
            origin = 'rejected: reads no gradient' if rule == 'noise' else TRAINED
            outcome = Outcome(reward, 0.1, (reward,), 1.0, origin)
            store.save_outcomes([Result(UpdateRule.parse(rule).canonical(), 0, outcome)])
        children = [StoredChild(0, 0, UpdateRule.parse(rule), -2.5) for rule in RULES]
        for row in store.save_batch(children, 0, Checkpoint(1, 1.0, {}), {'entropy': 9.0, 'kl': 0.01}):
            tally.add(row)
        candidates = best_rules(store.results(), 2)
    scores = rescore(
        candidates,
        ['sgd', 'momentum'],
        [1, 2],
        lambda jobs: {job: Outcome(0.6 + job.seed / 100 + len(job.program.tokens) / 1000, 0.01, (), 0) for job in jobs},
    )
    summary = {
        **tally.summary(),
        'baselines': {score.name: score.mean for score in scores if score.name} if rescored else {},
        'rescored': [dataclasses.asdict(score) for score in scores] if rescored else [],
        'seconds': 98.7,
        'space_size': 1234567,
        'configuration': configuration,
    }
    (run_dir / 'summary.json').write_text(json.dumps(summary, allow_nan=False))
    return summary


@pytest.fixture
def page(tmp_path):
    run_dir = tmp_path / 'a <b> & "c"'
    fill(run_dir)
    path = report.write(run_dir)
    assert path == run_dir / 'report.html'
    return Page(path.read_text(encoding='utf-8'))


def test_the_page_needs_nothing_else(page, tmp_path):
    references = [value for _, name, value in page.attributes if name in ('src', 'href', 'srcset', 'action', 'data')]
    prefixes, pictures = zip(*(reference.split(',') for reference in references), strict=True)
    assert set(prefixes) == {'data:image/png;base64'}
    (run_dir,) = tmp_path.iterdir()
    files = [(run_dir / f'{name}.png').read_bytes() for name in ('reward_curve', 'controller')]
    assert [base64.b64decode(picture, validate=True) for picture in pictures] == files
    text = (run_dir / 'report.html').read_text(encoding='utf-8')
    assert all(mark not in text for mark in ('http', '@import', 'url(', '<script'))


def test_the_page_tells_the_numbers_of_the_summary(page):
    for number in (
        '5 rules were sampled from a space of 1,234,567',
        '4 of them were distinct',
        '(20%)',
        'from 0.675 (first 2) to 0.356 (last 2)',  # halves of five children: two each
        '0.838, was that of g * exp(sign(g) * sign(m))',
        'took 99 s',
    ):
        assert number in ' '.join(page.text.split()), number


def test_the_page_lists_the_best_distinct_rules(page):
    start = page.rows.index(BEST_HEAD)
    assert page.rows[start + 1 : start + 5] == [
        ['1', 'g * exp(sign(g) * sign(m))', 'powersign', '', '0.838', '0.1', 'm', '1', '1'],
        ['2', 'g', 'sgd', '', '0.512', '0.1', 'none', '2', '0'],
        ['3', 'exp(g)', '', '', '0.200', '0.1', 'none', '1', '4'],
        ['4', 'noise', '', '', '0.100', '0.1', 'none', '1', '2'],
    ]


def test_known_rules_and_preferences(page):
    start = page.rows.index(['name', 'rule', 'first child', 'reward', 'sampled'])
    assert page.rows[start + 1 : start + 3] == [
        ['powersign', 'g * exp(sign(g) * sign(m))', '1', '0.838', '1'],
        ['sgd', 'g', '0', '0.512', '2'],
    ]
    start = page.rows.index(['kind', 'primitive', 'at first', 'at last'])
    assert ['operand', 'g', '100.0%', '100.0%'] in page.rows[start:]  # 'g' is the first child, 'exp(g)' the last
    assert ['unary', 'exp', '0.0%', '50.0%'] in page.rows[start:]
    assert ['unary', 'x', '100.0%', '50.0%'] in page.rows[start:]


def test_the_page_tells_how_rewards_were_come_by(page):
    start = page.rows.index(['reward', 'rules', 'share'])
    assert page.rows[start + 1 : start + 7] == [
        ['trained, or looked up in a table', '3', '60.0%'],
        ['hits: the same program had been there', '1', '20.0%'],
        ['taken over from an equal function', '0', '0.0%'],
        ['rejected: cannot train', '1', '20.0%'],
        ['quarantined: chance, for its workers died', '0', '0.0%'],
        ['new programs that were recognised as equal functions', '0', '0.0%'],
    ]


def test_the_page_says_where_workers_may_have_differed(tmp_path, page):
    fill(tmp_path, configuration={**CONFIGURATION, 'Cluster.allow_mixed': True})
    mixed = Page(report.write(tmp_path).read_text(encoding='utf-8'))
    assert 'Workers were allowed to differ' in mixed.text and 'Workers were allowed' not in page.text


def test_the_page_says_where_a_search_was_taken_up(tmp_path, page):
    fill(tmp_path, configuration={**CONFIGURATION, OTHERS: [{'processor': 'B'}, {'processor': 'C', 'nos_tf': '2'}]})
    moved = Page(report.write(tmp_path).read_text(encoding='utf-8'))
    told = 'this was taken up on another machine, with processor = B and processor = C, nos_tf = 2 (--allow_mixed)'
    assert told in ' '.join(moved.text.split()) and 'another machine' not in page.text


def test_the_page_says_what_the_task_was_whatever_it_is(tmp_path, page):
    told = (
        'The task: a bowl <of 3 weights>. Each rule trains at each of 2 learning rates for 2 epochs, and at the best '
        'one to the end; the reward is what is measured then.'
    )
    assert told in ' '.join(page.text.split())
    fill(tmp_path / 'once', configuration={**CONFIGURATION, 'Child.sweep_epochs': 1})
    assert 'learning rates for 1 epoch, and' in report.write(tmp_path / 'once').read_text(encoding='utf-8')
    fill(tmp_path / 'finer', configuration={**CONFIGURATION, 'Child.refine': True})
    assert 'at half and quarter decades around the best' in report.write(tmp_path / 'finer').read_text(encoding='utf-8')
    fill(tmp_path / 'table', configuration={'Table.path': 'somewhere'})
    assert 'The task' not in report.write(tmp_path / 'table').read_text(encoding='utf-8')


def test_the_page_lists_the_scores(page):
    start = page.rows.index(['rule', 'in the search', 'mean reward', 'against the best baseline', 'learning rate'])
    # 12.7062 * 0.005 * sqrt(2) / sqrt(2) = 0.0635 around each mean; paired, every seed differs by the same
    assert page.rows[start + 1] == ['g * exp(sign(g) * sign(m))', '0.838', '0.625 ± 0.064', '+0.005 ± 0.000', '0.01']
    assert sorted(page.rows[start + 2 : start + 4]) == [
        ['momentum: m', '', '0.620 ± 0.064', '+0.000 ± 0.000', '0.01'],
        ['sgd: g', '0.512', '0.620 ± 0.064', '+0.000 ± 0.000', '0.01'],
    ]
    assert page.attributes.count(('tr', 'class', 'baseline')) == 2
    assert 'with 2 seeds' in ' '.join(page.text.split())


def test_names_and_values_are_text_and_not_markup(page):
    assert page.headings == ['Neural Optimizer Search: a <b> & "c"'] * 2
    start = page.rows.index(['name', 'value'])
    assert dict(page.rows[start + 1 :]) == {name: json.dumps(value) for name, value in CONFIGURATION.items()}


def test_without_rescoring_there_is_no_table_of_scores(tmp_path):
    fill(tmp_path, rescored=False)
    page = Page(report.write(tmp_path).read_text(encoding='utf-8'))
    assert 'fresh seeds' not in page.text
    assert BEST_HEAD in page.rows


def test_the_page_is_named_after_its_directory_from_within(tmp_path, monkeypatch):
    fill(tmp_path)
    monkeypatch.chdir(tmp_path)
    page = Page(report.write(tmp_path.relative_to(tmp_path)).read_text(encoding='utf-8'))
    assert page.headings[0].endswith(f': {tmp_path.name}')


def test_a_search_without_children_has_no_report(tmp_path):
    with pytest.raises(RunError, match='no search has run there'):
        report.write(tmp_path)
    Store(tmp_path, CONFIGURATION, TASK).close()
    with pytest.raises(RunError, match='holds no children yet'):
        report.write(tmp_path)
    assert not (tmp_path / 'report.html').exists()


def test_a_search_under_way_has_a_report_of_what_is_there(tmp_path):
    fill(tmp_path)
    finished = (report.write(tmp_path)).read_text(encoding='utf-8')
    summary = (tmp_path / 'summary.json').read_text()
    (tmp_path / 'summary.json').unlink()
    text = report.write(tmp_path).read_text(encoding='utf-8')
    page = Page(text)
    assert '5 rules were sampled so far: the search is under way. 4 of them were distinct' in page.text
    assert 'The search has taken 1 s.' in page.text and 'On fresh seeds' not in page.text
    assert page.rows[page.rows.index(BEST_HEAD) + 1][1] == 'g * exp(sign(g) * sign(m))'
    (tmp_path / 'summary.json').write_text(summary)
    assert report.write(tmp_path).read_text(encoding='utf-8') == finished


def test_a_search_that_was_prolonged_is_under_way(tmp_path):
    fill(tmp_path)
    with contextlib.closing(Store(tmp_path, CONFIGURATION, TASK)) as store:
        store.save_batch([StoredChild(1, 1, UpdateRule.parse('g'), -1.0)], 0, Checkpoint(2, 2.0, {}))
    page = Page(report.write(tmp_path).read_text(encoding='utf-8'))
    assert '6 rules were sampled so far: the search is under way' in page.text


def test_another_search_is_drawn_beside(tmp_path, monkeypatch):
    drawn, draw = [], report.reward_curve
    monkeypatch.setattr(report, 'reward_curve', lambda *a: (drawn.append([*a[2]]), draw(*a))[1])
    ours, other = tmp_path / 'ours', tmp_path / 'by chance'
    fill(ours)
    fill(other, configuration={**CONFIGURATION, 'Search.seed': 13})
    alone = report.write(ours).read_text(encoding='utf-8')
    page = Page(report.write(ours, [other]).read_text(encoding='utf-8'))
    start = page.rows.index(['search', 'differs in', *SEARCHES])
    assert [row[:4] for row in page.rows[start + 1 : start + 3]] == [
        ['ours', '', '5', '4'],
        ['by chance', 'Search.seed = 13', '5', '4'],
    ]
    assert drawn == [[], ['by chance']]
    assert 'Beside other searches' in page.text and 'Beside other searches' not in alone
    with pytest.raises(RunError, match='no search has run there'):
        report.write(ours, [tmp_path])
    TrainingStore(tmp_path, Trained, {}).close()
    with pytest.raises(RunError, match='no search has run there'):
        report.write(tmp_path, [ours])


def test_the_report_in_markdown_has_the_same_tables(tmp_path):
    fill(tmp_path)
    report.write(tmp_path)
    text = (tmp_path / 'report.md').read_text(encoding='utf-8')
    assert '![reward against sampled rules](reward_curve.png)' in text
    assert '![entropy and divergence of the controller](controller.png)' in text
    assert '| 2 | g | sgd |  | 0.512 | 0.1 | none | 2 | 0 |' in text
    headings = [line.removeprefix('### ') for line in text.splitlines() if line.startswith('### ')]
    assert headings[0] == 'On fresh seeds' and headings[-1] == 'Configuration' and len(headings) == 6


def test_a_directory_whose_name_is_no_text_has_a_report_in_utf_8(tmp_path):
    ours, other = tmp_path / 'l\udcc3\udca4uf', tmp_path / 'l\udcff'  # of LANG=C, and no name in any
    fill(ours)
    fill(other, configuration={**CONFIGURATION, 'Search.seed': 13})
    page = report.write(ours, [other]).read_text(encoding='utf-8')
    assert 'läuf</h1>' in page and 'l\\xff' in page
    assert (ours / 'report.md').read_text(encoding='utf-8').startswith('# Neural Optimizer Search: läuf\n')
