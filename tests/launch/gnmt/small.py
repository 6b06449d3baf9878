"""Translations of a size that tests can afford."""

from pathlib import Path

from gnmt.beam import Beam
from gnmt.corpora import NumberWords
from gnmt.model import Gnmt
from gnmt.recipe import Point, Schedule, Trained, TranslationRecipe

NUMBERS = NumberWords(train_examples=300, validation_examples=20, test_examples=20, below=1000)
RECIPE = TranslationRecipe(
    corpus=NUMBERS,
    subwords=60,
    network=Gnmt(layers=2, units=16, dropout=0.2, initial=0.1),
    bounds=(10, 30),
    batch_size=25,
    steps=6,
    evaluate_every=2,
    patience=3,
    schedule=Schedule(warmup_steps=2),
    beam=Beam(2),
)


def point(step: int, validation: float, bleu: float = 0.0) -> Point:
    """After so many steps."""
    return Point(step, 2.0, validation, bleu, 0.0, 100.0, 0.01)


def trained(*points: Point, test_bleu: float | None = None, **fields: object) -> Trained:
    """With these points."""
    values = {'diverged': False, 'stopped': False, 'test_exact': test_bleu, 'signature': 's', 'memory': 1.0, **fields}
    return Trained(points, test_bleu=test_bleu, **values)  # type: ignore[arg-type]


def write_files(folder: Path, count: int) -> None:
    """Some numbers as German and English text, the same for validation and test, and ten times for training."""
    pairs = NumberWords(count, 1, 1, below=1000).load().train
    for stem in ('train', 'val', 'test_2016_flickr'):
        for suffix, lines in (('en', pairs.source), ('de', pairs.target)):
            text = ''.join(f'{line}\n' for line in lines)
            (folder / f'{stem}.{suffix}').write_text(10 * text if stem == 'train' else text)
