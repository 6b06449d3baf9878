"""report.html: one self-contained page about a search, and the reward curve beside it as PNG."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nos_tf.dsl.rule import UpdateRule
from nos_tf.report.figures import reward_curve
from nos_tf.report.page import image, paragraph, table, write_page
from nos_tf.search import RunError
from nos_tf.search.display import score_cells
from nos_tf.search.rescore import Score, best_rules
from nos_tf.search.store import read_results

BEST_RULES = 20


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
    body = [
        paragraph(_in_words(summary)),
        image(picture, 'reward against sampled rules'),
        *(_scores(scores) if scores else ()),
        '<h2>The best distinct rules of the search</h2>',
        table(
            ['rule', 'reward', 'slots', 'tokens'],
            (
                [rule.infix, f'{reward:.3f}', ', '.join(rule.slots) or 'none', ' '.join(rule.tokens)]
                for rule, reward in best_rules(rows, BEST_RULES).items()
            ),
            numbers=[1],
        ),
        '<h2>How rewards were come by</h2>',
        table(['reward', 'rules', 'share'], _origins(summary), numbers=[1, 2]),
        '<h2>Configuration</h2>',
        *([paragraph(_MIXED)] if summary['configuration'].get('Cluster.allow_mixed') else []),
        table(['name', 'value'], ([key, json.dumps(value)] for key, value in summary['configuration'].items())),
    ]
    return write_page(run_dir, 'Neural Optimizer Search', body)


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
        paragraph(
            f'The best rules and the known optimizers (shaded), trained under the same procedure with {seeds} seeds '
            'that the search has not seen; the validation images are the same. Intervals are of 95% by Student’s t; '
            'differences are paired by seed. A rule beats the best baseline only where its difference stays above '
            'zero; choosing the best of several rules still flatters the winner.'
        ),
        table(
            ['rule', 'in the search', 'mean accuracy', 'against the best baseline', 'learning rate'],
            [list(score_cells(score)) for score in scores],
            numbers=[1, 2, 3, 4],
            shaded=[i for i, score in enumerate(scores) if score.name],
        ),
    ]
