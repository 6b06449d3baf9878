"""Optimizers side by side (Figures 5 and 7, Table 1): each at all learning rates, the best chosen on validation only.

Rungs make it cheaper (Section 5.2: "aggressively stop optimizers that show less promise"): all train for some epochs,
those that show most promise go on from there.
"""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import gin
import numpy as np
from scipy.stats import spearmanr

from nos_tf.compare.trainings import Trainings
from nos_tf.config import NOT_EMPTY, Configured, Count, Positive, Share
from nos_tf.evaluation.jobs import Evaluator
from nos_tf.evaluation.pool import ProcessPool
from nos_tf.files import write_text
from nos_tf.optimizers.contender import Contender
from nos_tf.store.trainings import Key, Training
from nos_tf.tasks.sweep import finer_rates
from nos_tf.tasks.training import Recipe, Trained


class Rung(NamedTuple):
    """A stage of a comparison: how far its contenders train, and how many go on."""

    epochs: Count
    rates: Count  # of each contender
    contenders: Count | None = None  # None: all


class Scores(NamedTuple):
    """The scores of the contenders of one stage."""

    stage: str  # 'search', or '5 epochs'
    so_far: Mapping[str, float]  # by which those that go on are chosen
    since: Mapping[str, float]  # of the epochs or seeds that the stage before had not seen


class Stage(NamedTuple):
    """How well one stage of a comparison foretells what the next one adds, over the contenders that went on."""

    before: str
    after: str
    contenders: int
    correlation: float  # Spearman's, of ranks by validation accuracy; not a number for fewer than three


class Standing(NamedTuple):
    """A contender at the learning rate that its validation accuracy has chosen."""

    contender: str
    rate: float
    runs: tuple[Trained, ...]  # by seed


@gin.configurable
@dataclass
class Comparison(Configured):
    """Trains every contender at every learning rate, and the better ones on more seeds.

    Args:
        recipe: of all trainings.
        contenders: optimizers as text (`nos_tf.optimizers.contender`).
        promising: more of them, with the reward that a search gave them: `@best_of_search()`.
        learning_rates: the same for everyone; by default the paper's seven.
        rungs: (epochs, rates that go on, contenders that go on or None for all), in turn, before the whole length.
        seeds: of every training.
        refine: look finer around the rate that has won, for every contender that has come to the end: whole trainings
            at half decades from it until those on both sides of the best are worse, then at the quarters beside it.
        final_seeds: of the better contenders at their best rate; those above `seeds` come in addition.
        final_share: how many are the better ones, as a share; rounded up.
        evaluator: whose processes train.

    Raises:
        ValueError: a value out of range, or an unknown optimizer; the message names the binding.
    """

    recipe: Recipe = gin.REQUIRED
    contenders: Sequence[str] = ()
    promising: Mapping[str, float] = field(default_factory=dict)
    learning_rates: Annotated[Sequence[Positive], NOT_EMPTY] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    rungs: Sequence[Rung] = ()
    refine: bool = False
    seeds: Count = 1
    final_seeds: Count = 1
    final_share: Share = 0.5
    evaluator: Evaluator = field(default_factory=ProcessPool)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.contenders = self._checked_contenders()
        self.learning_rates = tuple(sorted({float(rate) for rate in self.learning_rates}))
        self._check_rungs()

    def _checked_contenders(self) -> tuple[str, ...]:
        if not isinstance(self.promising, Mapping):
            raise ValueError(f'Comparison.promising = {self.promising!r}: must be rewards by rule: @best_of_search()')
        listed = self.contenders
        for text in listed:
            Contender(text).check(has_embeddings=False)
        spelled = {Contender(text).program: text for text in listed}
        if len(spelled) < len(listed):
            raise ValueError(f'Comparison.contenders = {listed}: none may be there twice, in whatever spelling')
        for text in self.promising:
            spelled.setdefault(Contender(text).program, text)
        if not spelled:
            raise ValueError('Comparison.contenders = (): must be optimizers, at least one')
        self.promising = {spelled[Contender(text).program]: reward for text, reward in self.promising.items()}
        return tuple(spelled.values())

    def _check_rungs(self) -> None:
        epochs, rates, contenders = 0, len(self.learning_rates), len(self.contenders)
        for rung in self.rungs:
            left = contenders if rung.contenders is None else rung.contenders
            if not (epochs < rung.epochs < self.recipe.epochs and rung.rates <= rates and left <= contenders):
                raise ValueError(
                    f'Comparison.rungs: {tuple(rung)} must be epochs from {epochs + 1} to {self.recipe.epochs - 1}, '
                    f'rates from 1 to {rates}, and None or contenders from 1 to {contenders}'
                )
            epochs, rates, contenders = rung.epochs, rung.rates, left

    def identity(self) -> dict[str, Any]:
        """All that the results depend on but the machine, by the names of the bindings: JSON values."""
        own = {
            name: getattr(self, name)
            for name in ('contenders', 'learning_rates', 'rungs', 'refine', 'seeds', 'final_seeds', 'final_share')
        }
        recipe = {'Recipe.epochs': self.recipe.epochs, **self.recipe.identity()}
        return {f'Comparison.{name}': value for name, value in own.items()} | recipe

    def run(self, run_dir: Path | str, *, allow_mixed: bool = False) -> list[Standing]:
        """Trains what is not on file yet; leaves summary.json and config.gin beside the trainings.

        Args:
            run_dir: made if it does not exist.
            allow_mixed: go on also on another kind of CPU, or with other versions, than what is on file was trained
                with; the directory says so.

        Returns:
            the contenders that have come to the end, best mean validation accuracy first.

        Raises:
            RunError: the directory holds another run, or the run cannot go on.
        """
        run_dir = Path(run_dir)
        with Trainings(self.recipe, run_dir, self.evaluator, allow_mixed=allow_mixed) as trainings:
            if gin.config_str():
                write_text(run_dir / 'config.gin', gin.operative_config_str())
            keys = [Key(c, rate, s) for s in range(self.seeds) for c in self.contenders for rate in self.learning_rates]
            scores = [Scores('search', dict(self.promising), {})] if self.promising else []
            before = 0
            for epochs, rates, contenders in (*self.rungs, Rung(self.recipe.epochs, 1)):
                done = trainings.train((Training(*key, epochs) for key in keys), f'{epochs} epochs')
                best = standings(done, epochs, 1)
                so_far, since = ({s.contender: score(s, epochs, start) for s in best} for start in (0, before))
                scores.append(Scores(f'{epochs} epochs', so_far, since))
                before = epochs
                kept = [standing.contender for standing in best][:contenders]
                chosen = {(s.contender, s.rate) for s in standings(done, epochs, rates) if s.contender in kept}
                keys = [key for key in keys if (key.contender, key.rate) in chosen]
            final = {key: done[key] for key in keys}
            while self.refine and (finer := self._finer(final, dict(chosen))):
                final |= trainings.train((Training(*key, self.recipe.epochs) for key in finer), 'finer rates')
            best = standings(final, self.recipe.epochs, 1)
            kept, chosen = [standing.contender for standing in best], {(s.contender, s.rate) for s in best}
            final = {key: trained for key, trained in final.items() if (key.contender, key.rate) in chosen}
            better = kept[: math.ceil(self.final_share * len(kept))]
            more = [
                Key(contender, rate, seed)
                for seed in range(self.seeds, self.final_seeds)
                for contender, rate in sorted(chosen)
                if contender in better
            ]
            final |= trainings.train((Training(*key, self.recipe.epochs) for key in more), 'more seeds')
            result = standings(final, self.recipe.epochs, 1)
            if more:
                fresh = standings({key: final[key] for key in more}, self.recipe.epochs, 1)
                scores.append(Scores('more seeds', {}, {s.contender: score(s, self.recipe.epochs) for s in fresh}))
            summary = {
                'standings': [(s.contender, s.rate, len(s.runs)) for s in result],
                'stages': [stage._asdict() for stage in stages(scores)],
                'training_seconds': trainings.seconds,
                'configuration': self.identity() | trainings.identity,
            }
            write_text(run_dir / 'summary.json', json.dumps(summary, indent=2))
            trainings.forget_checkpoints()
        return result

    def _finer(self, final: dict[Key, Trained], first: Mapping[str, float]) -> list[Key]:
        """Returns the trainings at rates beside the best of each contender that are not there yet.

        Args:
            final: whole trainings.
            first: the rate of each contender that has won among `learning_rates`.
        """
        scores: dict[str, dict[float, float]] = {contender: {} for contender in first}
        for standing in standings(final, self.recipe.epochs, len(final)):
            scores[standing.contender][standing.rate] = score(standing, self.recipe.epochs)
        missing = [(text, rate) for text, tried in scores.items() for rate in finer_rates(tried, first[text])]
        return [Key(*pair, seed) for seed in range(self.seeds) for pair in missing]


def stages(scores: Sequence[Scores]) -> list[Stage]:
    """The rank correlation of each stage with what came to be known in the one after it.

    A best accuracy so far would agree with itself: it is often that of an epoch before.
    """
    found = []
    for (before, earlier, _), (after, _, later) in itertools.pairwise(scores):
        both = [contender for contender in later if contender in earlier]
        values = [[stage[contender] for contender in both] for stage in (earlier, later)]
        varies = len(both) > 2 and all(len(set(value)) > 1 for value in values)
        found.append(Stage(before, after, len(both), float(spearmanr(*values).statistic) if varies else math.nan))
    return found


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


def score(standing: Standing, epochs: int, start: int = 0) -> float:
    """Mean over seeds of the best validation accuracy within so many epochs, those before `start` left out."""
    runs = [run.until(epochs) for run in standing.runs]
    return float(np.mean([max(run.curve.validation[-1 if run.diverged else start :]) for run in runs]))
