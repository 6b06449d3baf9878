"""Update rules against Adam in machine translation (Section 5.3, Table 2): nothing else is changed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gin

from gnmt.recipe import Trained, TranslationRecipe
from gnmt.trainer import TranslationSetup
from nos_tf.compare.trainings import TrainingRun
from nos_tf.config import Configured, Count
from nos_tf.errors import RunError
from nos_tf.evaluation.jobs import Evaluator
from nos_tf.evaluation.machine import is_of_machine
from nos_tf.evaluation.pool import ProcessPool
from nos_tf.files import write_text
from nos_tf.optimizers.contender import Contender
from nos_tf.store.trainings import Key, Training, TrainingStore
from nos_tf.tasks.task import check_backend

OTHERS = 'others'
ON_ONE_MACHINE = ('gradient_accumulation_steps', 'ema_overwrite_frequency')  # what workers cannot agree on


@gin.configurable
@dataclass
class Transfer(Configured):
    """Trains each optimizer at its best learning rate, which validation chooses from as many candidates for each.

    Args:
        recipe: of all trainings.
        rules: optimizers as text (`nos_tf.optimizers.contender`).
        learning_rates: the candidates of each optimizer, by its text; those of all that are not named by 'others'.
        candidate_steps: after which validation perplexity chooses; the training that is best goes on from there.
        seeds: how many trainings at the best rate; the first one chooses. A number, or one for each optimizer as for
            `learning_rates`.
        evaluator: where they train: @ProcessPool() or @OneAtATime().

    Raises:
        ValueError: a value out of range, an unknown optimizer, or more candidates for one than for another.
    """

    recipe: TranslationRecipe = gin.REQUIRED
    rules: Sequence[str] = ('keras.Adam', 'powersign')
    learning_rates: Mapping[str, Sequence[float]] = gin.REQUIRED
    candidate_steps: Count = 1_000
    seeds: int | Mapping[str, int] = 1
    evaluator: Evaluator = field(default_factory=ProcessPool)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.candidate_steps > self.recipe.steps:
            raise ValueError(
                f'Transfer.candidate_steps = {self.candidate_steps}: a whole training has only {self.recipe.steps}'
            )
        self._check_rules()
        self.learning_rates, self.seeds = self._by_rule('learning_rates'), self._by_rule('seeds')
        self._check_rates()
        for rule in self.rules:
            if isinstance(count := self.seeds_of(rule), bool) or not isinstance(count, int) or count < 1:
                raise ValueError(
                    f'Transfer.seeds = {self.seeds!r}: must be a whole number, at least 1, or as '
                    f"{{'powersign': 1, '{OTHERS}': 3}}; that of {rule!r} is {count!r}"
                )

    def _check_rules(self) -> None:
        if not self.rules or len({Contender(rule).program for rule in self.rules}) < len(self.rules):
            raise ValueError(
                f'Transfer.rules = {self.rules}: must be optimizers, at least one, none twice, in whatever spelling'
            )
        for contender in map(Contender, self.rules):
            contender.check()
            unfit = set(ON_ONE_MACHINE) & set(contender.constants)
            if unfit and getattr(self.evaluator, 'on_cluster', False):
                raise ValueError(
                    f'optimizer {contender.text!r}: {min(unfit)} is not for OneAtATime.on_cluster = True, where each '
                    'worker updates the weights when it is ready: leave it out, or train on one machine'
                )

    def _by_rule(self, name: str) -> Any:
        """Returns what a field gives to each optimizer, by the text that `rules` has of it, however it was spelled."""
        given = getattr(self, name)
        if not isinstance(given, Mapping):
            return given
        texts = {Contender(rule).program: rule for rule in self.rules}
        found: dict[str, Any] = {}
        for key, value in given.items():
            if not isinstance(key, str):
                raise ValueError(f'Transfer.{name}: {key!r} must be an optimizer as text, or {OTHERS!r}')
            text = key if key == OTHERS else texts.get(Contender(key).program, key)
            if text in found:
                raise ValueError(f'Transfer.{name}: {key!r} is there twice, in another spelling')
            found[text] = value
        return found

    def _check_rates(self) -> None:
        given = self.learning_rates
        if not isinstance(given, Mapping):
            raise ValueError(
                f"Transfer.learning_rates = {given!r}: must be as {{'keras.Adam': (1e-3,), '{OTHERS}': (0.3,)}}"
            )
        for rule in self.rules:
            rates = self.rates_of(rule)
            if not rates or not all(
                isinstance(rate, int | float) and not isinstance(rate, bool) and 0 < rate < float('inf')
                for rate in rates
            ):
                raise ValueError(f'Transfer.learning_rates: those of {rule!r} are {rates}: must be positive numbers')
            if len(set(rates)) < len(rates):
                raise ValueError(f'Transfer.learning_rates: those of {rule!r} are {rates}: none may be there twice')
        counts = {rule: len(self.rates_of(rule)) for rule in self.rules}
        if len(set(counts.values())) > 1:
            raise ValueError(f'Transfer.learning_rates: {counts} candidates: each optimizer must have as many')

    def rates_of(self, rule: str) -> tuple[Any, ...]:
        """The candidates of an optimizer."""
        rates: Any = self.learning_rates.get(rule, self.learning_rates.get(OTHERS, ()))
        return tuple(rates) if isinstance(rates, list | tuple) else (rates,)

    def seeds_of(self, rule: str) -> Any:
        """How many trainings an optimizer gets at its best rate."""
        return self.seeds.get(rule, self.seeds.get(OTHERS)) if isinstance(self.seeds, Mapping) else self.seeds

    def run(self, run_dir: Path | str, *, allow_mixed: bool = False) -> dict[str, list[Trained]]:
        """Trains what is not on file yet; leaves summary.json and config.gin beside the trainings.

        Args:
            run_dir: made if it does not exist.
            allow_mixed: as of `nos_tf.compare.comparison.Comparison.run`.

        Returns:
            the trainings of each optimizer at its best rate, by seed.

        Raises:
            RunError: the directory holds another run, or the run cannot go on.
        """
        try:
            check_backend('a comparison in translation')
        except ValueError as error:
            raise RunError(str(error)) from error
        run_dir, recipe = Path(run_dir), self.recipe
        setup = TranslationSetup(recipe, run_dir)
        identity = self.evaluator.identity(setup)
        store = TrainingStore(run_dir, Trained, identity, is_of_machine=is_of_machine, allow_mixed=allow_mixed)
        with TrainingRun(store, setup, self.evaluator) as trainings:
            if gin.config_str():
                write_text(run_dir / 'config.gin', gin.operative_config_str())
            candidates = [
                Training(rule, rate, 0, self.candidate_steps) for rule in self.rules for rate in self.rates_of(rule)
            ]
            for key, trained in trainings.read().items():
                if trained.points[-1].step > recipe.steps:
                    raise RunError(
                        f'TranslationRecipe.steps = {recipe.steps}: {key.contender} at {key.rate:g} has '
                        f'{trained.points[-1].step} steps in {run_dir} already; choose another run directory'
                    )
            found = trainings.run(candidates, self._is_done)
            best = {rule: self._best_rate(rule, found) for rule in self.rules}
            seeds = {rule: self.seeds_of(rule) for rule in self.rules}
            jobs = [
                Training(rule, best[rule], seed, recipe.steps)
                for seed in range(max(seeds.values()))
                for rule in self.rules
                if seed < seeds[rule]
            ]
            done = trainings.run(jobs, self._is_done)
            summary = {
                'best rates': best,
                'seeds of each': seeds,
                'candidates': {rule: self.rates_of(rule) for rule in self.rules},
                'candidate steps': self.candidate_steps,
                'recipe': {'TranslationRecipe.steps': recipe.steps, **trainings.identity},
            }
            write_text(run_dir / 'summary.json', json.dumps(summary, indent=2))
        return {rule: [done[job.key] for job in jobs if job.contender == rule] for rule in self.rules}

    def _is_done(self, job: Training, found: Trained) -> bool:
        """Whether what was found is all of it; a whole training is, once it has been tested."""
        is_long_enough = found.is_over or found.points[-1].step >= job.length
        is_whole = job.length >= self.recipe.steps or found.is_over
        return is_long_enough and (found.test_bleu is not None or not is_whole)

    def _best_rate(self, rule: str, found: Mapping[Key, Trained]) -> float:
        """Returns the rate of the least validation perplexity within the steps of the candidates."""
        trainings = {rate: found[Key(rule, rate, 0)] for rate in self.rates_of(rule)}
        for rate, trained in trainings.items():
            if (first := trained.points[0].step) > self.candidate_steps:
                raise RunError(
                    f'Transfer.candidate_steps = {self.candidate_steps}: the first point on file of {rule} at {rate:g} '
                    f'is at step {first}'
                )
        return min(trainings, key=lambda rate: trainings[rate].least_perplexity(self.candidate_steps))
