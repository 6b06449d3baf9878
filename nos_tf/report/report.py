"""report.html: one self-contained page about a search, and the reward curve beside it as PNG."""

import base64
import html
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nos_tf.dsl.rule import UpdateRule
from nos_tf.report.figures import reward_curve
from nos_tf.search import RunError
from nos_tf.search.display import score_cells
from nos_tf.search.rescore import Score, best_rules
from nos_tf.search.store import read_results

BEST_RULES = 20

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Neural Optimizer Search: {title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse; margin: 1rem 0 }}
th, td {{ padding: .25rem .75rem; text-align: left; border-bottom: 1px solid #ddd; vertical-align: top }}
td.number, th.number {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }}
tr.baseline {{ background: #f3f3f3 }}
img {{ max-width: 100% }}
code {{ font-size: .9em }}
</style>
<h1>Neural Optimizer Search: {title}</h1>
{body}
</html>
"""


def write(run_dir: Path) -> Path:
    """Writes report.html and reward_curve.png from results.sqlite and summary.json.

    Returns:
        the path of the page.

    Raises:
        RunError: the run has no results, or has not finished.
    """
    rows = read_results(run_dir)
    summary_path = run_dir / 'summary.json'
    summary: dict[str, Any] = {}
    if summary_path.exists():
        summary = json.loads(summary_path.read_text(encoding='utf-8'))
    if summary.get('children') != len(rows):  # nothing yet, or from before the search was prolonged
        raise RunError(f'{run_dir} holds no finished search: run launch/search.py with this --run_dir first')
    scores = [Score(**score) for score in summary['rescored']]
    picture = reward_curve(rows, summary['baselines'])
    (run_dir / 'reward_curve.png').write_bytes(picture)
    curve = base64.b64encode(picture).decode()
    body = [
        _paragraph(_in_words(summary)),
        f'<img alt="reward against sampled rules" src="data:image/png;base64,{curve}">',
        *(_scores(scores) if scores else ()),
        '<h2>The best distinct rules of the search</h2>',
        _table(
            ['rule', 'reward', 'slots', 'tokens'],
            (
                [rule.infix, f'{reward:.3f}', ', '.join(rule.slots) or 'none', ' '.join(rule.tokens)]
                for rule, reward in best_rules(rows, BEST_RULES).items()
            ),
            numbers=[1],
        ),
        '<h2>How rewards were come by</h2>',
        _table(['reward', 'rules', 'share'], _origins(summary), numbers=[1, 2]),
        '<h2>Configuration</h2>',
        *([_paragraph(_MIXED)] if summary['configuration'].get('Cluster.allow_mixed') else []),
        _table(['name', 'value'], ([key, json.dumps(value)] for key, value in summary['configuration'].items())),
    ]
    page = run_dir / 'report.html'
    page.write_text(_PAGE.format(title=html.escape(run_dir.resolve().name), body='\n'.join(body)), encoding='utf-8')
    return page


_MIXED = (
    'Workers were allowed to differ in their kind of CPU, threads or versions (Cluster.allow_mixed): '
    'the same rule might have earned another reward on another of them.'
)


def _in_words(summary: dict[str, Any]) -> str:
    rule = UpdateRule(tuple(summary['best_rule_tokens'].split()))
    return (
        f'{summary["children"]} rules were sampled from a space of {summary["space_size"]:,}. '
        f'{summary["distinct_rules"]} of them were distinct; the others ({summary["hit_rate"]:.0%}) had their reward '
        f'from the store. The mean reward went from {summary["mean_reward_first_100"]:.3f} (first '
        f'{summary["window"]}) to {summary["mean_reward_last_100"]:.3f} (last {summary["window"]}). The highest '
        f'reward, {summary["best_reward"]:.3f}, was that of {rule.infix}. The search took {summary["seconds"]:.0f} s.'
    )


def _origins(summary: Mapping[str, Any]) -> Iterator[list[str]]:
    """Rows of the table of how rewards were come by; all but the last add up to all rules."""
    children, merged = summary['children'], summary['merged']
    trained = summary['distinct_rules'] - summary['rejected'] - summary['quarantined'] - merged
    for what, count in (
        ('trained, or looked up in a table', trained),
        ('hits: the same program had been there', summary['hits']),
        ('taken over from an equal function', merged),
        ('rejected: cannot train', summary['rejected']),
        ('quarantined: chance, for its workers died', summary['quarantined']),
        ('new programs that were recognised as equal functions', summary['equal_functions']),
    ):
        yield [what, str(count), f'{count / children:.1%}']


def _scores(scores: Sequence[Score]) -> list[str]:
    seeds = len(scores[0].rewards)
    return [
        '<h2>On fresh seeds</h2>',
        _paragraph(
            f'The best rules and the known optimizers (shaded), trained under the same procedure with {seeds} seeds '
            'that the search has not seen; the validation images are the same. Intervals are of 95% by Student’s t; '
            'differences are paired by seed. A rule beats the best baseline only where its difference stays above '
            'zero; choosing the best of several rules still flatters the winner.'
        ),
        _table(
            ['rule', 'in the search', 'mean accuracy', 'against the best baseline', 'learning rate'],
            [list(score_cells(score)) for score in scores],
            numbers=[1, 2, 3, 4],
            shaded=[i for i, score in enumerate(scores) if score.name],
        ),
    ]


def _paragraph(text: str) -> str:
    return f'<p>{html.escape(text)}</p>'


def _table(
    head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = (), shaded: Sequence[int] = ()
) -> str:
    def cells(tag: str, row: Sequence[str]) -> str:
        return ''.join(
            f'<{tag}{" class=number" if i in numbers else ""}>{html.escape(cell)}</{tag}>' for i, cell in enumerate(row)
        )

    lines = [f'<tr>{cells("th", head)}</tr>']
    for i, row in enumerate(rows):
        lines.append(f'<tr{" class=baseline" if i in shaded else ""}>{cells("td", row)}</tr>')
    return '<table>\n' + '\n'.join(lines) + '\n</table>'
