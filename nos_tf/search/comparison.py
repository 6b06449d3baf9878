"""Optimizers side by side (Figures 5 and 7, Table 1): each at all learning rates, the best chosen on validation only.

Rungs make it cheaper (Section 5.2: "aggressively stop optimizers that show less promise"): all train for some epochs,
those that show most promise go on from there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import gin
import numpy as np

from nos_tf.optimizers.contender import Contender
from nos_tf.search.evaluators import ProcessPool
from nos_tf.search.trainings import Key, Training, Trainings
from nos_tf.tasks.recipe import Recipe, Trained


class Rung(NamedTuple):
    """How far all train that are left, and how many go on."""

    epochs: int
    rates: int  # of each contender
    contenders: int | None = None  # None: all


class Standing(NamedTuple):
    """A contender at the learning rate that its validation accuracy has chosen."""

    contender: str
    rate: float
    runs: tuple[Trained, ...]  # by seed


@gin.register
@dataclass
class Comparison:
    """Trains every contender at every learning rate, and the better ones on more seeds.

    Args:
        recipe: of all trainings.
        contenders: optimizers as text (`nos_tf.optimizers.contender`).
        learning_rates: the same for everyone; by default the paper's seven.
        rungs: (epochs, rates that go on, contenders that go on or None for all), in turn, before the whole length.
        seeds: of every training.
        final_seeds: of the better contenders at their best rate; those above `seeds` come in addition.
        final_share: how many are the better ones, as a share.
        evaluator: whose processes train.

    Raises:
        ValueError: a value out of range, or an unknown optimizer; the message names the binding.
    """

    recipe: Recipe = gin.REQUIRED
    contenders: Sequence[str] = gin.REQUIRED
    learning_rates: Sequence[float] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    rungs: Sequence[Sequence[Any]] = ()
    seeds: int = 1
    final_seeds: int = 1
    final_share: float = 0.5
    evaluator: ProcessPool = field(default_factory=ProcessPool)

    def __post_init__(self) -> None:
        self.contenders = (self.contenders,) if isinstance(self.contenders, str) else tuple(self.contenders)
        if not self.contenders or len(set(self.contenders)) < len(self.contenders):
            raise ValueError(f'Comparison.contenders = {self.contenders}: must be optimizers, at least one, none twice')
        for text in self.contenders:
            Contender(text)
        rates = np.unique(np.atleast_1d(np.asarray(self.learning_rates, float)))
        if not rates.size or not all(0 < rate < np.inf for rate in rates):
            raise ValueError(f'Comparison.learning_rates = {self.learning_rates}: must be positive numbers')
        self.learning_rates = tuple(rates.tolist())
        for name in ('seeds', 'final_seeds'):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f'Comparison.{name} = {value!r}: must be a whole number, at least 1')
        if not isinstance(self.final_share, int | float) or not 0 <= self.final_share <= 1:
            raise ValueError(f'Comparison.final_share = {self.final_share!r}: must be a number from 0 to 1')
        self.rungs = self._checked_rungs()

    def _checked_rungs(self) -> tuple[Rung, ...]:
        least = Rung(0, len(self.learning_rates) + 1, len(self.contenders) + 1)
        rungs: list[Rung] = []
        for given in self.rungs:
            try:
                rung = Rung(*given)
                fits = least.epochs < rung.epochs < self.recipe.epochs and 1 <= rung.rates < least.rates + bool(rungs)
                fits = fits and (rung.contenders is None or 1 <= rung.contenders < (least.contenders or 0))
            except TypeError:
                fits = False
            if not fits:
                raise ValueError(
                    f'Comparison.rungs: {given!r} must be epochs from {least.epochs + 1} to {self.recipe.epochs - 1}, '
                    f'rates from 1 to {least.rates - 1}, and None or contenders from 1 to {(least.contenders or 0) - 1}'
                )
            least = rung._replace(contenders=least.contenders if rung.contenders is None else rung.contenders + 1)
            rungs.append(rung)
        return tuple(rungs)

    def run(self, run_dir: Path | str) -> list[Standing]:
        """Trains what is not on file yet.

        Returns:
            the contenders that have come to the end, best mean validation accuracy first.

        Raises:
            RunError: the directory holds another run, or the run cannot go on.
        """
        with Trainings(self.recipe, Path(run_dir), self.evaluator) as trainings:
            keys = [Key(c, rate, s) for s in range(self.seeds) for c in self.contenders for rate in self.learning_rates]
            for epochs, rates, contenders in (*self.rungs, Rung(self.recipe.epochs, 1)):
                done = trainings.run((Training(*key, epochs) for key in keys), f'{epochs} epochs')
                ranked = standings(done, epochs, rates)
                count = len({standing.contender for standing in ranked}) if contenders is None else contenders
                kept = list(dict.fromkeys(standing.contender for standing in ranked))[:count]
                chosen = {(standing.contender, standing.rate) for standing in ranked if standing.contender in kept}
                keys = [key for key in keys if (key.contender, key.rate) in chosen]
            better = kept[: round(self.final_share * len(kept))]
            more = [
                Key(contender, rate, seed)
                for seed in range(self.seeds, self.final_seeds)
                for contender, rate in sorted(chosen)
                if contender in better
            ]
            final = {key: done[key] for key in keys}
            final |= trainings.run((Training(*key, self.recipe.epochs) for key in more), 'more seeds')
            trainings.forget_checkpoints()
        return standings(final, self.recipe.epochs, 1)


def standings(done: dict[Key, Trained], epochs: int, rates: int) -> list[Standing]:
    """The best rates of each contender by the mean over seeds of the best validation accuracy in so many epochs.

    A training that diverged before is as good as its last epoch, which is chance.
    """
    runs: dict[tuple[str, float], list[Trained]] = {}
    for key, trained in sorted(done.items()):
        runs.setdefault((key.contender, key.rate), []).append(trained)
    ranked = sorted((Standing(*at, tuple(trained)) for at, trained in runs.items()), key=lambda s: -score(s, epochs))
    seen: dict[str, int] = {}
    kept = []
    for standing in ranked:
        seen[standing.contender] = seen.get(standing.contender, 0) + 1
        if seen[standing.contender] <= rates:
            kept.append(standing)
    return kept


def score(standing: Standing, epochs: int) -> float:
    """Mean over seeds of the best validation accuracy within so many epochs."""
    return float(
        np.mean(
            [run.curve.validation[-1] if run.diverged else max(run.curve.validation[:epochs]) for run in standing.runs]
        )
    )
