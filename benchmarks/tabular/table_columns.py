"""Outcomes as a table has them: small integers for accuracies, of which nothing is lost; seconds to three digits."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from nos_tf import files
from nos_tf.evaluation.table import UNTRAINED, Columns, RewardTable
from nos_tf.tasks.child import Outcome


def accuracies(outcomes: Iterable[Outcome], images: int) -> np.ndarray:
    """The accuracy that each number of rightly classified images was told as: float32 [images + 1].

    It is taken from the outcomes, for a graph may round k / N in another way than NumPy does; where none has it, it is
    the quotient.

    Args:
        outcomes: of children with this many validation images.
        images: in the validation set; at most 32,767.

    Raises:
        ValueError: an accuracy is no share of so many images, or one count was told as two accuracies.
    """
    if not 0 < images <= np.iinfo(np.int16).max:
        raise ValueError(f'{images} validation images: a table counts from 1 to {np.iinfo(np.int16).max}')
    told = {x for outcome in outcomes for x in (outcome.reward, *outcome.sweep) if x is not None}
    quotients = np.arange(images + 1, dtype=np.float32) / np.float32(images)
    result = quotients.copy()
    seen: dict[int, float] = {}
    for accuracy in told:
        count = round(accuracy * images)
        is_share = 0 <= count <= images and abs(accuracy - quotients[count]) < 1e-6
        if not is_share or float(np.float32(accuracy)) != accuracy or seen.setdefault(count, accuracy) != accuracy:
            raise ValueError(f'an accuracy of {accuracy!r} is no share of {images} validation images')
        result[count] = accuracy
    return result


def columns_of(outcomes: Sequence[Outcome | None], rates: Sequence[float], images: int) -> Columns:
    """The columns [N] of N outcomes, None where there is none.

    Args:
        outcomes: accuracies as `accuracies` accepts them.
        rates: the R learning rates of the sweep.
        images: in the validation set.
    """
    columns = Columns(
        np.full(len(outcomes), UNTRAINED, np.int16),
        np.zeros(len(outcomes), np.int8),
        np.full([len(outcomes), len(rates)], UNTRAINED, np.int16),
        np.zeros(len(outcomes), np.float16),
    )
    for i, outcome in enumerate(outcomes):
        if outcome is not None:
            columns.right[i] = round(outcome.reward * images)
            columns.winner[i] = list(rates).index(outcome.learning_rate)
            columns.sweep[i] = [UNTRAINED if x is None else round(x * images) for x in outcome.sweep]
            columns.seconds[i] = outcome.seconds
    return columns


def save(table: RewardTable, path: Path) -> None:
    """Writes the file of a table, whole or not at all."""
    files.save(path, {'metadata': np.array(json.dumps(table.metadata)), **table.arrays()}, compressed=True)
