"""report.html of a comparison of optimizers, with its figure and its tables beside it as PNG and Markdown.

The layout of the main table is that of Table 1: accuracy after the last epoch, best accuracy on validation, and the
test accuracy where that was.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from nos_tf.compare.comparison import Standing, score, standings
from nos_tf.errors import RunError
from nos_tf.optimizers.contender import Contender
from nos_tf.report.drawn import Drawn, caption_of, dashed_in_figure, in_figure, write_drawn
from nos_tf.report.figures import Panel, training_curves
from nos_tf.report.mixed import warnings
from nos_tf.report.page import EDGE, Section, at_edge, spread
from nos_tf.report.paired_table import Scores
from nos_tf.report.paper import FIGURES_5_AND_7, TABLE_1
from nos_tf.store.summary import read_summary
from nos_tf.store.trainings import Key, read_trainings
from nos_tf.tasks.training import Trained

LAUNCHER = 'launch/cifar10.py'


def write(run_dir: Path) -> Path:
    """Writes report.html, curves.png and tables.md from trainings.sqlite and summary.json.

    Returns:
        the path of the page.

    Raises:
        RunError: as `draw`.
    """
    return write_drawn(run_dir, 'Comparison of optimizers', draw(run_dir))


def draw(run_dir: Path) -> Drawn:
    """The curves and the tables of a comparison.

    Raises:
        RunError: the run has no trainings, or has not finished.
    """
    done = read_trainings(run_dir, Trained)
    summary = read_summary(run_dir, LAUNCHER, 'standings', 'stages', 'training_seconds', 'configuration')
    if summary is None:
        raise RunError(f'{run_dir} holds a comparison that has not finished: run {LAUNCHER} with this --run_dir first')
    epochs = summary['configuration']['Recipe.epochs']
    done = {key: trained.until(epochs) for key, trained in done.items()}  # one may have gone on in a longer comparison
    ranked = {standing.contender: standing for standing in (_standing(done, *e) for e in summary['standings'])}
    shown = _drawn(list(ranked))
    tests = {text: [_four(trained)[3] for trained in standing.runs] for text, standing in ranked.items()}
    settings = [[key, json.dumps(value)] for key, value in summary['configuration'].items()]
    in_order = list(ranked.values())
    return Drawn(
        _curves([ranked[text] for text in shown], [ranked[text] for text in dashed_in_figure(shown)]),
        caption_of('validation and test accuracy by epoch', shown, list(ranked)),
        Scores('test accuracy at best validation, in points', tests),
        _accuracies(done, in_order, summary),
        list(_stages(summary)),
        [
            *_tables(done, in_order, summary),
            Section('Configuration', '', ['name', 'value'], settings),
        ],
    )


def _curves(shown: Sequence[Standing], dashed: Sequence[Standing]) -> bytes:
    """Validation and test accuracy by epoch."""
    panels = [
        Panel(
            f'{part} accuracy',
            {
                _legend(standing): [
                    (range(1, trained.curve.epochs + 1), getattr(trained.curve, part)) for trained in standing.runs
                ]
                for standing in shown
            },
        )
        for part in ('validation', 'test')
    ]
    return training_curves(panels, 'epoch', [_legend(standing) for standing in dashed], share_y=True)


def _table(title: str, says: str, head: list[str], rows: list[list[str]]) -> Section:
    """All columns but the first are of numbers."""
    return Section(title, says, head, rows, range(1, len(head)))


def _standing(done: Mapping[Key, Trained], contender: str, rate: float, seeds: int) -> Standing:
    runs = [trained for key, trained in sorted(done.items()) if (key.contender, key.rate) == (contender, rate)]
    return Standing(contender, rate, tuple(runs[:seeds]))


def _drawn(ranked: Sequence[str]) -> Sequence[str]:
    """Returns the contenders to draw: the paper's, where all of them were trained, else the best."""
    if set(FIGURES_5_AND_7) <= set(ranked):
        return [text for text in ranked if text in FIGURES_5_AND_7]
    return in_figure(ranked)


def _legend(standing: Standing) -> str:
    return f'{Contender(standing.contender).label}, rate {standing.rate:g}'


def _tables(done: Mapping[Key, Trained], ranked: Sequence[Standing], summary: Mapping[str, Any]) -> Iterator[Section]:
    configuration = summary['configuration']
    epochs = configuration['Recipe.epochs']
    variants = _variants(ranked, epochs)
    if variants:
        yield _table(
            'Against the same rule with its usual constants',
            'Difference of best validation accuracy, in points; each variant at its own best learning rate.',
            ['optimizer', 'difference', 'learning rate', 'usual learning rate'],
            variants,
        )
    first = configuration['Comparison.rungs'][0][0] if configuration['Comparison.rungs'] else epochs
    yield _by_rate(done, configuration, first)


def _stages(summary: Mapping[str, Any]) -> Iterator[Section]:
    stages = [[s['before'], s['after'], str(s['contenders']), f'{s["correlation"]:.2f}'] for s in summary['stages']]
    if stages:
        yield _table(
            'How well each stage foretells the next',
            'Spearman’s rank correlation, over the optimizers that went on, of the best validation accuracy so far and '
            'of what the next stage adds: the best one in its own epochs, or that of its own seeds.',
            ['stage', 'next', 'optimizers', 'correlation'],
            stages,
        )


def _accuracies(done: Mapping[Key, Trained], ranked: Sequence[Standing], summary: Mapping[str, Any]) -> Section:
    """Table 1, with the paper's own numbers where it has any for this kind of network."""
    configuration = summary['configuration']
    paper = TABLE_1 if configuration['Recipe.network'] == '@WideResNet()' else {}
    head = ['optimizer', 'learning rate', 'seeds', 'final val', 'final test', 'best val', 'test at best val']
    tried = configuration['Comparison.learning_rates']
    rows = []
    for standing in ranked:
        diverged = ' (diverged)' if any(trained.diverged for trained in standing.runs) else ''
        rows.append(
            [
                Contender(standing.contender).label,
                f'{standing.rate:g}{at_edge(standing.rate, tried)}{diverged}',
                str(len(standing.runs)),
                *(spread(values, 1) for values in zip(*map(_four, standing.runs), strict=True)),
                *(f'{value:.1f}' for value in paper.get(standing.contender, ())),
                *([''] * 4 if paper and standing.contender not in paper else ()),
            ]
        )
    at_the_end = {standing.contender for standing in ranked}
    stopped = [text for text in configuration['Comparison.contenders'] if text not in at_the_end]
    for text in stopped:
        rows.append([*_until_stopped(done, text), *[''] * (1 + 4 * bool(paper))])
    says = (
        f'{_task(configuration)} In per cent, mean and standard deviation over seeds, after '
        f'{configuration["Recipe.epochs"]} epochs at the learning rate that validation has chosen; a training that '
        'diverged counts as chance. '
        f'All trainings took {_duration(summary["training_seconds"])} of one core. {EDGE}'
    )
    says = ' '.join((says, *warnings(configuration)))
    if paper:
        head += [f'paper: {name}' for name in head[-4:]]
        both = [standing for standing in ranked if standing.contender in paper]
        if len(both) > 2:
            ours = [np.mean([_four(trained)[3] for trained in standing.runs]) for standing in both]
            theirs = [paper[standing.contender].best_test for standing in both]
            says += (
                f' Spearman’s rank correlation with the paper’s test accuracy at the best validation accuracy, over '
                f'{len(both)} optimizers: {spearmanr(ours, theirs).statistic:.2f}.'
            )
    return _table('Accuracy', says, head, rows)


def _duration(seconds: float) -> str:
    return f'{seconds / 3600:.1f} hours' if seconds > 3600 else f'{seconds / 60:.1f} minutes'


def _task(configuration: Mapping[str, Any]) -> str:
    """A sentence."""
    network, images = (_part(configuration, configuration[f'Recipe.{name}']) for name in ('network', 'images'))
    count = configuration['Recipe.train_examples'] or 'all'
    return f'Trained: {network} on {images}, {count} images in batches of {configuration["Recipe.batch_size"]}.'


def _part(configuration: Mapping[str, Any], reference: str) -> str:
    """A part as 'Name (field = value, ...)', given as '@Name()'."""
    kind = reference.strip('@()')
    fields = {name.partition('.')[2]: value for name, value in configuration.items() if name.startswith(f'{kind}.')}
    told = ', '.join(f'{k} = {v}' for k, v in fields.items() if k != 'seed' and v not in (None, False))
    return f'{kind} ({told})'


def _until_stopped(done: Mapping[Key, Trained], text: str) -> list[str]:
    """The cells of a contender that did not come to the end, up to its best validation accuracy."""
    ours = {key: trained for key, trained in done.items() if key.contender == text}
    epochs = max(trained.curve.epochs for trained in ours.values())
    as_long = {key: trained for key, trained in ours.items() if trained.curve.epochs == epochs}
    (best,) = standings(as_long, epochs, 1)
    reached = spread([_four(trained)[2] for trained in best.runs], 1)
    stopped = f'stopped after {epochs} epochs'
    return [Contender(text).label, f'{best.rate:g}', str(len(best.runs)), stopped, '', reached]


def _four(trained: Trained) -> tuple[float, float, float, float]:
    """Final validation, final test, best validation and the test accuracy there, in per cent."""
    validation, test = trained.curve.validation, trained.curve.test
    best = len(validation) - 1 if trained.diverged else int(np.argmax(validation))
    return 100 * validation[-1], 100 * test[-1], 100 * validation[best], 100 * test[best]


def _variants(ranked: Sequence[Standing], epochs: int) -> list[list[str]]:
    """Optimizers with other constants beside those with the usual ones."""
    by_text = {standing.contender: standing for standing in ranked}
    rows = []
    for text, standing in sorted(by_text.items()):
        usual = by_text.get(text.partition(' with ')[0])
        if usual and usual is not standing and Contender(text).rule:
            difference = 100 * (score(standing, epochs) - score(usual, epochs))
            rows.append([Contender(text).label, f'{difference:+.1f}', f'{standing.rate:g}', f'{usual.rate:g}'])
    return rows


def _by_rate(done: Mapping[Key, Trained], configuration: Mapping[str, Any], epochs: int) -> Section:
    """How each optimizer did at each rate, as far as all of them went."""
    rates = configuration['Comparison.learning_rates']
    found = {(s.contender, s.rate): score(s, epochs) for s in standings(dict(done), epochs, len(rates))}
    return _table(
        'By learning rate',
        f'Best validation accuracy within {epochs} epochs, in per cent.',
        ['optimizer', *(f'{rate:g}' for rate in rates)],
        [
            [
                Contender(text).label,
                *(f'{100 * found[text, rate]:.1f}' if (text, rate) in found else '' for rate in rates),
            ]
            for text in configuration['Comparison.contenders']
        ],
    )
