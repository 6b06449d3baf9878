"""Table 2 with our numbers, and curves: tables.md, curves.png and report.html of a run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gnmt.recipe import Trained
from nos_tf.errors import RunError
from nos_tf.optimizers.contender import Contender
from nos_tf.report.drawn import Drawn, caption_of, dashed_in_figure, in_figure, write_drawn
from nos_tf.report.figures import Panel, training_curves
from nos_tf.report.mixed import warnings
from nos_tf.report.page import EDGE, Section, at_edge, spread
from nos_tf.report.paired_table import Scores
from nos_tf.store.summary import read_summary
from nos_tf.store.trainings import Key, read_trainings

LAUNCHER = 'launch/gnmt/train.py'
PAPER = {'keras.Adam': (1.49, 24.5), 'powersign': (1.39, 25.0)}
"""Table 2: train perplexity and test BLEU, WMT 2014 English -> German with 8 layers."""

HEAD = (
    'optimizer',
    'learning rate',
    'seeds',
    'train perplexity',
    'validation perplexity',
    'test BLEU',
    'exact',
    'validation BLEU near its peak',
    'numbers per weight',
    'paper: train perplexity',
    'paper: test BLEU',
)
SAYS = (
    'Mean and standard deviation over seeds, at the learning rate that validation has chosen, of the weights with the '
    'least validation perplexity. Train perplexity is that of the steps just before, with dropout; exact, the share of '
    'test sentences that are right to the letter, in per cent; near its peak, the mean of five points. The numbers of '
    'the paper are of another corpus and a larger model.'
)


def write(run_dir: Path) -> Path:
    """Writes report.html, curves.png and tables.md.

    Returns:
        the path of the page.

    Raises:
        RunError: as `draw`.
    """
    return write_drawn(run_dir, 'Translation', draw(run_dir))


def draw(run_dir: Path) -> Drawn:
    """The curves and the tables of a comparison in translation.

    Raises:
        RunError: the run has no trainings, or has not finished.
    """
    done = read_trainings(run_dir, Trained)
    summary = read_summary(run_dir, LAUNCHER, 'best rates', 'seeds of each', 'candidates', 'candidate steps', 'recipe')
    if summary is None:
        raise RunError(f'{run_dir} has not finished: run {LAUNCHER} with this --run_dir first')
    runs = {
        rule: [done[Key(rule, rate, seed)] for seed in range(summary['seeds of each'][rule])]
        for rule, rate in summary['best rates'].items()
    }
    steps = summary['recipe']['TranslationRecipe.steps']
    if any(trained.points[-1].step > steps for of_rule in runs.values() for trained in of_rule):
        raise RunError(
            f'{run_dir} goes on beyond the {steps} steps of its summary.json, and has not finished: run {LAUNCHER} '
            'with this --run_dir first'
        )
    ranked = sorted(runs, key=lambda rule: np.mean([trained.least_perplexity(steps) for trained in runs[rule]]))
    runs = {rule: runs[rule] for rule in ranked}
    scores = {rule: [trained.test_bleu or 0.0 for trained in of_rule] for rule, of_rule in runs.items()}
    shown = in_figure(ranked)
    settings = [[key, json.dumps(value)] for key, value in summary['recipe'].items()]
    return Drawn(
        _curves({rule: runs[rule] for rule in shown}),
        caption_of('perplexity and BLEU by step', shown, ranked),
        Scores('test BLEU', scores),
        _table_2(summary, runs),
        [],
        [_candidates(summary, done), Section('Configuration', '', ['name', 'value'], settings)],
    )


def _table_2(summary: Mapping, runs: Mapping[str, Sequence[Trained]]) -> Section:
    rows = [_row(rule, summary, trained) for rule, trained in runs.items()]
    everything = [trained for of_rule in runs.values() for trained in of_rule]
    signature = next((trained.signature for trained in everything if trained.signature), 'nothing was scored')
    waited = np.mean([point.waiting for trained in everything for point in trained.points])
    bleu = f'BLEU by sacrebleu: {signature}. Of the time, {waited:.1%} was waiting for batches.'
    says = ' '.join((_task(summary['recipe']), SAYS, bleu, EDGE, *warnings(summary['recipe'])))
    return Section('Test BLEU, beside Table 2', says, HEAD, rows, range(1, len(HEAD)))


def _task(recipe: Mapping) -> str:
    """A sentence."""
    layers, units, batch = recipe['Gnmt.layers'], recipe['Gnmt.units'], recipe['TranslationRecipe.batch_size']
    corpus = recipe['TranslationRecipe.corpus'].strip('@()')
    return (
        f'Translation of {corpus} by a network as GNMT’s, {layers} + {layers} layers of {units}, after '
        f'{recipe["TranslationRecipe.steps"]:,} updates of {batch} pairs.'
    )


def _row(rule: str, summary: Mapping, runs: Sequence[Trained]) -> list[str]:
    rate, tried = summary['best rates'][rule], summary['candidates'][rule]
    best = [trained.points[trained.best] for trained in runs]
    paper = PAPER.get(rule)
    return [
        Contender(rule).label,
        f'{rate:g}{at_edge(rate, tried)}{" (diverged)" if any(trained.diverged for trained in runs) else ""}',
        str(len(runs)),
        spread([point.train_perplexity for point in best], 2),
        spread([point.validation_perplexity for point in best], 2),
        spread([trained.test_bleu or 0.0 for trained in runs], 1),
        spread([100 * (trained.test_exact or 0.0) for trained in runs], 1),
        spread([trained.near_peak for trained in runs], 1),
        f'{runs[0].memory:g}',
        *([f'{paper[0]:.2f}', f'{paper[1]:.1f}'] if paper else ['', '']),
    ]


def _candidates(summary: Mapping, done: Mapping[Key, Trained]) -> Section:
    steps = summary['candidate steps']
    rows = []
    for rule, rates in summary['candidates'].items():
        for rate in rates:
            least = done[Key(rule, rate, 0)].least_perplexity(steps)
            rows.append([Contender(rule).label, f'{rate:g}', f'{least:.2f}'])
    head = ['optimizer', 'learning rate', 'validation perplexity']
    return Section('What chose the learning rates', f'The first seed, after {steps} steps.', head, rows, (1, 2))


def _curves(runs: Mapping[str, Sequence[Trained]]) -> bytes:
    """Perplexity in training and on validation, and BLEU on validation, by step."""
    names = {'train_perplexity': 'log', 'validation_perplexity': 'log', 'validation_bleu': 'linear'}
    panels = [
        Panel(
            name.replace('_', ' ').replace('bleu', 'BLEU'),
            {
                Contender(rule).label: [
                    ([point.step for point in trained.points], [getattr(point, name) for point in trained.points])
                    for trained in of_rule
                ]
                for rule, of_rule in runs.items()
            },
            scale,
        )
        for name, scale in names.items()
    ]
    return training_curves(panels, 'steps', [Contender(rule).label for rule in dashed_in_figure(list(runs))])
