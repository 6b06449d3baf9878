"""report.html: one self-contained page about a search, under way or finished; Markdown and a figure beside it."""

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from nos_tf.compare.verification import LEGEND, Verdict
from nos_tf.dsl.rule import UpdateRule
from nos_tf.errors import RunError
from nos_tf.report import comparison_report, search_tables
from nos_tf.report.drawn import Drawn
from nos_tf.report.figures import controller_curves, reward_curve
from nos_tf.report.mixed import warnings
from nos_tf.report.page import Section, image, paragraph, readable, write_page
from nos_tf.report.paired_table import overview_section
from nos_tf.search.display import score_cells
from nos_tf.search.rescore import Score
from nos_tf.search.tally import Tally
from nos_tf.store.results import Run, read_run
from nos_tf.store.summary import read_summary
from nos_tf.store.trainings import kind_of, name_of
from nos_tf.tasks.training import Trained

KIND = 'Neural Optimizer Search'
DRAWERS = {name_of(Trained): comparison_report.draw}


class _Picture(NamedTuple):
    name: str
    says: str
    png: bytes

    @property
    def file_name(self) -> str:
        return f'{self.name}.png'


def write(run_dir: Path, beside: Sequence[Path] = (), drawers: Mapping[str, Callable[[Path], Drawn]] = DRAWERS) -> Path:
    """Writes report.html, report.md and their figures from results.sqlite and, once there is one, summary.json.

    The figures are reward_curve.png, the learning curves of each comparison and, if the learner tells of either,
    controller.png with its entropy and divergence.

    Args:
        run_dir: of the search.
        beside: run directories of other searches, or where what it found was trained beside other optimizers.
        drawers: of each kind of training (`nos_tf.store.trainings.kind_of`), what draws a comparison of them.

    Returns:
        the path of the page.

    Raises:
        RunError: the run has no results, one beside it has none, is a comparison that has not finished or of trainings
            that nothing here draws, or is called the same.
    """
    named = _named([run_dir, *beside])
    run = _read(run_dir)
    ours, *_ = named
    kinds = {name: kind_of(path) for name, path in named.items() if name != ours}
    others = {name: _read(named[name]) for name, kind in kinds.items() if kind is None}
    compared = {name: _draw(named[name], kind, drawers) for name, kind in kinds.items() if kind is not None}
    searches = {ours: run, **others}
    summary = _summary(run_dir, run)
    beside_it = {readable(name): other.rows for name, other in others.items()}
    curve = reward_curve(run.rows, summary.get('baselines', {}), beside_it)
    pictures = [_Picture('reward_curve', 'reward against sampled rules', curve)]
    if png := controller_curves(run.updates):
        pictures.append(_Picture('controller', 'entropy and divergence of the controller', png))
    for name, drawn in compared.items():
        pictures.append(_Picture(f'curves_{name}', f'{name}: {drawn.caption}', drawn.curves))
    for picture in pictures:
        (run_dir / picture.file_name).write_bytes(picture.png)
    says = [_in_words(summary), *_task(run), *warnings(run.configuration)]
    overview = overview_section({name: drawn.scores for name, drawn in compared.items()})
    first = [overview] if overview else []
    sections = list(_sections(run, summary, searches, compared))
    title = f'{KIND}: {run_dir.resolve().name}'
    links = [f'![{picture.says}]({quote(os.fsencode(picture.file_name))})' for picture in pictures]
    text = [f'# {title}', *says, *(part.markdown() for part in first), *links, *(part.markdown() for part in sections)]
    (run_dir / 'report.md').write_text(readable('\n\n'.join(text)), encoding='utf-8')
    images = [image(picture.png, picture.says) for picture in pictures]
    body = [*map(paragraph, says), *(part.html() for part in first), *images, *(part.html() for part in sections)]
    return write_page(run_dir, KIND, body)


def _sections(
    run: Run, summary: dict[str, Any], searches: Mapping[str, Run], compared: Mapping[str, Drawn]
) -> Iterator[Section]:
    """The tables, what matters most first."""
    if 'verification' in summary:
        yield _verdict(Verdict.of_json(summary['verification']))
    if scores := [Score(**score) for score in summary.get('rescored', ())]:
        yield _scores(scores)
    if len(searches) > 1:
        yield search_tables.searches_section(searches)
    for name, drawn in compared.items():
        yield dataclasses.replace(drawn.main, title=f'Beside other optimizers: {name}')
        for part in drawn.beside_main:
            yield dataclasses.replace(part, title=f'{part.title}: {name}')
    yield search_tables.best_rules_section(run.rows)
    yield search_tables.known_rules_section(run.rows)
    yield search_tables.preferences_section(run.rows)
    yield Section('How rewards were come by', '', ['reward', 'rules', 'share'], list(_origins(summary)), (1, 2))
    settings = [[key, json.dumps(value)] for key, value in run.configuration.items()]
    yield Section('Configuration', '', ['name', 'value'], settings)


def _named(run_dirs: Sequence[Path]) -> dict[str, Path]:
    """The directories by what they are called."""
    named: dict[str, Path] = {}
    for path in run_dirs:
        name = path.resolve().name
        if name in named:
            if named[name].resolve() == path.resolve():
                raise RunError(f'{path} is given twice')
            raise RunError(f'{named[name]} and {path} are both called {name!r}: rename one, to tell them apart')
        named[name] = path
    return named


def _draw(run_dir: Path, kind: str, drawers: Mapping[str, Callable[[Path], Drawn]]) -> Drawn:
    if kind not in drawers:
        raise RunError(f'{run_dir} holds trainings of another kind: {kind}, not {" or ".join(drawers)}')
    return drawers[kind](run_dir)


def _read(run_dir: Path) -> Run:
    run = read_run(run_dir)
    if not run.rows:
        raise RunError(f'{run_dir} holds no children yet: no batch of the search has been learned from')
    return run


def _summary(run_dir: Path, run: Run) -> dict[str, Any]:
    """Returns the summary on file, or one of the children so far while the search is under way."""
    summary = read_summary(run_dir, 'launch/search.py', 'children', 'configuration')
    if summary and summary['children'] == len(run.rows):  # else it is from before the search was prolonged
        return summary
    return {**Tally.of(run.rows).summary(), 'seconds': run.seconds}


def _in_words(summary: dict[str, Any]) -> str:
    rule = UpdateRule(tuple(summary['best_rule_tokens'].split()))
    finished = 'space_size' in summary
    space = f' from a space of {summary["space_size"]:,}' if finished else ' so far: the search is under way'
    return (
        f'{summary["children"]} rules were sampled{space}. '
        f'{summary["distinct_rules"]} of them were distinct; the others ({summary["hit_rate"]:.0%}) had their reward '
        f'from the store. The mean reward went from {summary["mean_reward_first_100"]:.3f} (first '
        f'{summary["window"]}) to {summary["mean_reward_last_100"]:.3f} (last {summary["window"]}). The highest '
        f'reward, {summary["best_reward"]:.3f}, was that of {rule.infix}. The search '
        f'{"took" if finished else "has taken"} {summary["seconds"]:.0f} s.'
    )


def _task(run: Run) -> Iterator[str]:
    """Yields a sentence on the task and the procedure, if children were trained."""
    if run.task and 'Child.learning_rates' in run.configuration:
        rates, sweep = (run.configuration[f'Child.{name}'] for name in ('learning_rates', 'sweep_epochs'))
        to_the_end = 'at the best one to the end; the reward is what is measured then'
        if run.configuration.get('Child.refine'):
            to_the_end = (
                'to the end at half and quarter decades around the best; the reward is what the best of these reaches'
            )
        yield (
            f'The task: {run.task}. Each rule trains at each of {len(rates)} learning rates for {sweep} '
            f'epoch{"s" * (sweep > 1)}, and {to_the_end}.'
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


def _verdict(verdict: Verdict) -> Section:
    rows = []
    for name in dict.fromkeys(margin.baseline for margin in verdict.margins):
        margins = {margin.task: margin for margin in verdict.margins if margin.baseline == name}
        rows.append([name, *(str(margins[task]) for task in verdict.tasks)])
    heads = [f'{task}{"" if is_seen else " (unseen)"}' for task, is_seen in verdict.tasks.items()]
    said = f'{verdict.rule}: {" ".join(verdict.sentences())} {LEGEND}; {verdict.seeds} seeds.'
    return Section('Does it hold up?', said, ['against', *heads], rows, tuple(range(1, len(heads) + 1)))


def _scores(scores: Sequence[Score]) -> Section:
    seeds = len(scores[0].rewards)
    return Section(
        'On fresh seeds',
        f'The best rules and the known optimizers (shaded), trained under the same procedure with {seeds} seeds '
        'that the search has not seen; the validation set is the same. Intervals are of 95% by Student’s t; '
        'differences are paired by seed. A rule beats the best baseline only where its difference stays above '
        'zero; choosing the best of several rules still flatters the winner.',
        ['rule', 'in the search', 'mean reward', 'against the best baseline', 'learning rate'],
        [list(score_cells(score)) for score in scores],
        (1, 2, 3, 4),
        [i for i, score in enumerate(scores) if score.name],
    )
