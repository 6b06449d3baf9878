"""Table 2 with our numbers, and curves: table.md, curves.png and report.html of a run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from gnmt.recipe import Trained
from nos_tf.optimizers.contender import Contender
from nos_tf.report.cells import EDGE, at_edge, spread
from nos_tf.report.figures import png_of
from nos_tf.report.mixed import warnings
from nos_tf.report.page import Section, image, write_page
from nos_tf.report.paired_table import paired_section
from nos_tf.report.summary import read_summary
from nos_tf.search import RunError
from nos_tf.search.training_run import Key, read_trainings

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
    """Writes report.html, table.md and curves.png.

    Returns:
        the path of the page.

    Raises:
        RunError: the run has no trainings, or has not finished.
    """
    done = read_trainings(run_dir, Trained)
    summary = read_summary(run_dir, LAUNCHER, 'best rates', 'seeds', 'candidates', 'candidate steps', 'recipe')
    if summary is None:
        raise RunError(f'{run_dir} has not finished: run {LAUNCHER} with this --run_dir first')
    runs = {
        rule: [done[Key(rule, rate, seed)] for seed in range(summary['seeds'])]
        for rule, rate in summary['best rates'].items()
    }
    steps = summary['recipe']['TranslationRecipe.steps']
    if any(trained.points[-1].step > steps for of_rule in runs.values() for trained in of_rule):
        raise RunError(
            f'{run_dir} goes on beyond the {steps} steps of its summary.json, and has not finished: run {LAUNCHER} '
            'with this --run_dir first'
        )
    ranked = sorted(runs, key=lambda rule: np.mean([trained.least_perplexity(steps) for trained in runs[rule]]))
    scores = {rule: [trained.test_bleu or 0.0 for trained in runs[rule]] for rule in ranked}
    paired = paired_section('test BLEU', scores, 1)
    sections = [_table_2(summary, runs), *([paired] if paired else []), _candidates(summary, done)]
    picture = _curves(runs)
    (run_dir / 'curves.png').write_bytes(picture)
    (run_dir / 'table.md').write_text('\n'.join(section.markdown() for section in sections), encoding='utf-8')
    settings = [[key, json.dumps(value)] for key, value in summary['recipe'].items()]
    sections.append(Section('Configuration', '', ['name', 'value'], settings))
    body = [image(picture, 'perplexity and BLEU by step'), *(section.html() for section in sections)]
    return write_page(run_dir, 'Translation', body)


def _table_2(summary: Mapping, runs: Mapping[str, Sequence[Trained]]) -> Section:
    rows = [_row(rule, summary, trained) for rule, trained in runs.items()]
    everything = [trained for of_rule in runs.values() for trained in of_rule]
    signature = next((trained.signature for trained in everything if trained.signature), 'nothing was scored')
    waited = np.mean([point.waiting for trained in everything for point in trained.points])
    says = f'{SAYS} BLEU by sacrebleu: {signature}. Of the time, {waited:.1%} was waiting for batches. {EDGE}'
    says = ' '.join((says, *warnings(summary['recipe'])))
    return Section('Test BLEU, beside Table 2', says, HEAD, rows, range(1, len(HEAD)))


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
    figure = Figure(figsize=(12, 4), layout='constrained')
    axes = figure.subplots(1, 3)
    names = 'train_perplexity', 'validation_perplexity', 'validation_bleu'
    for axis, name in zip(axes, names, strict=True):
        for number, (rule, trained) in enumerate(runs.items()):
            for seed, run in enumerate(trained):
                steps, values = zip(*((point.step, getattr(point, name)) for point in run.points), strict=True)
                axis.plot(steps, values, color=f'C{number}', label=Contender(rule).label if not seed else None)
        axis.set(title=name.replace('_', ' ').replace('bleu', 'BLEU'), xlabel='steps')
        if name != 'validation_bleu':
            axis.set_yscale('log')
        axis.grid(alpha=0.3)
    axes[0].legend()
    return png_of(figure)
