"""What one training of a translator is, and what it leaves (Section 5.3; Wu et al., 2016, Section 8.2)."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import gin
import keras
import tensorflow as tf

from gnmt.beam import Beam
from gnmt.corpora import CorpusSource
from gnmt.model import Gnmt
from nos_tf.config import NOT_EMPTY, Configured, Count, Incidental, Natural, above, at_least, below, bindings_of


class Point(NamedTuple):
    """What was seen after so many steps."""

    step: int
    train_perplexity: float  # of a token, in training since the point before, with dropout
    validation_perplexity: float  # of a token
    validation_bleu: float  # from 0 to 100
    validation_exact: float  # share of sentences that are right to the letter
    tokens_per_second: float  # of source and target, in training
    waiting: float  # share of the time that training waited for batches


class Trained(NamedTuple):
    """A training that has come to its end, or to where it was to stop."""

    points: tuple[Point, ...]
    diverged: bool
    stopped: bool  # early: validation got no better
    test_bleu: float | None  # of the weights of `best`; None before the end
    test_exact: float | None  # share of sentences that are right to the letter
    signature: str  # of the BLEU
    memory: float  # numbers that the optimizer keeps for each weight

    def as_json(self) -> dict[str, Any]:
        """It as JSON values."""
        return self._asdict()

    @classmethod
    def of_json(cls, fields: Mapping[str, Any]) -> 'Trained':
        """The inverse of `as_json`."""
        return cls(**{**fields, 'points': tuple(Point(*point) for point in fields['points'])})

    @property
    def best(self) -> int:
        """Index of the point of least validation perplexity."""
        return min(range(len(self.points)), key=lambda i: self.points[i].validation_perplexity)

    def least_perplexity(self, steps: int) -> float:
        """The least on validation within so many steps; infinite if there was no point yet."""
        return min((point.validation_perplexity for point in self.points if point.step <= steps), default=math.inf)

    @property
    def is_over(self) -> bool:
        """Whether more steps would change nothing."""
        return self.diverged or self.stopped

    @property
    def near_peak(self) -> float:
        """Mean validation BLEU of five points near the highest (as Section 5.3 has it): it, and those around it."""
        scores = [point.validation_bleu for point in self.points]
        peak = scores.index(max(scores))
        first = max(0, min(peak - 2, len(scores) - 5))
        return sum(scores[first : first + 5]) / len(scores[first : first + 5])


@gin.register
@dataclass(frozen=True)
class Schedule(Configured):
    """A factor of the learning rate: it warms up linearly, stays at 1, and is then halved again and again.

    Args:
        warmup_steps: until 1 is reached; 0 for none.
        decay_from: the step of the first halving; None for none.
        decay_every: steps between two.
        decays: how many.

    Raises:
        ValueError: a value out of range; the message names the binding.
    """

    warmup_steps: Natural = 0
    decay_from: Count | None = None
    decay_every: Count = 1
    decays: Natural = 4

    def factor(self, steps: tf.Tensor) -> tf.Tensor:
        """After so many steps, int [] -> float32 [].

        >>> [float(Schedule(2, 10, 5, 2).factor(n)) for n in (0, 1, 2, 9, 10, 15, 99)]
        [0.5, 1.0, 1.0, 1.0, 0.5, 0.25, 0.25]
        """
        steps = tf.cast(steps, tf.float32)
        warm = tf.minimum(1.0, (steps + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        if self.decay_from is None:
            return tf.convert_to_tensor(warm)
        halvings = tf.clip_by_value((steps - self.decay_from) // self.decay_every + 1, 0.0, float(self.decays))
        return warm * 0.5**halvings


@keras.saving.register_keras_serializable('nos_tf')
class Scheduled(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate times the factor of a schedule."""

    def __init__(self, rate: float, schedule: Schedule) -> None:
        self.rate, self.schedule = rate, schedule

    def __call__(self, step: Any) -> tf.Tensor:
        """The rate of the step with that number, from 0."""
        return self.rate * self.schedule.factor(tf.convert_to_tensor(step))

    def get_config(self) -> dict[str, Any]:
        """What it is made from."""
        return {'rate': self.rate, 'schedule': dataclasses.asdict(self.schedule)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> 'Scheduled':
        """The inverse of `get_config`."""
        return cls(config['rate'], Schedule(**config['schedule']))


@gin.register
@dataclass(frozen=True)
class TranslationRecipe(Configured):
    """All of a training but the optimizer, its learning rate and the seed.

    Args:
        corpus: what to translate.
        subwords: V of the vocabulary that both languages share.
        network: what is trained.
        bounds: tokens that sentences are padded to; a pair with more than the last is left out, counted and said.
        batch_size: pairs of an update.
        steps: updates of a whole training.
        evaluate_every: updates between two points, each with a checkpoint.
        patience: points without a better validation perplexity before a training ends early.
        clip_norm: bound of the global norm of the gradient of the loss of a sentence, the mean over a batch.
        schedule: of the learning rate.
        beam: how to translate.

    Raises:
        ValueError: a value out of range; the message names the binding.
    """

    corpus: CorpusSource = gin.REQUIRED
    subwords: Count = 32_000
    network: Gnmt = dataclasses.field(default_factory=Gnmt)
    bounds: Annotated[Sequence[Annotated[int, at_least(2)]], NOT_EMPTY] = (10, 20, 30, 40, 50)
    batch_size: Count = 128
    steps: Annotated[Count, Incidental] = 100_000  # a longer training goes on from a shorter one
    evaluate_every: Count = 2_000
    patience: Count = 5
    clip_norm: Annotated[float, above(0), below(1e38)] = 5.0
    schedule: Schedule = dataclasses.field(default_factory=Schedule)
    beam: Beam = dataclasses.field(default_factory=Beam)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beam.width > self.subwords:
            raise ValueError(f'Beam.width = {self.beam.width}: must be at most the {self.subwords} subwords')
        if list(self.bounds) != sorted(set(self.bounds)):
            raise ValueError(f'TranslationRecipe.bounds = {self.bounds!r}: must be growing whole numbers, at least 2')

    @property
    def longest(self) -> int:
        """Tokens of a sentence at most, its END included."""
        return self.bounds[-1]

    def identity(self) -> dict[str, Any]:
        """All that a training depends on but its length and the machine, by the names of the bindings: JSON values.

        Raises:
            FileNotFoundError, ValueError: as `CorpusSource.fingerprint`.
        """
        return bindings_of(self) | {'corpus': self.corpus.fingerprint()}


def perplexity(loss: float) -> float:
    """Of a mean cross-entropy in nats; infinite rather than an overflow."""
    return math.exp(loss) if loss < 700 else math.inf
