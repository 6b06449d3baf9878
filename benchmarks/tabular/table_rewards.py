"""The rewards of all programs of a table."""

import numpy as np

from nos_tf.evaluation.table import UNTRAINED, RewardTable


def choices_of(table: RewardTable) -> np.ndarray:
    """Returns those of all programs, in their order: int32 [P, 5]."""
    banks = tuple(map(len, table.space.choices))
    return np.array(np.unravel_index(np.arange(table.space.size), banks), np.int32).T


def rewards(table: RewardTable) -> np.ndarray:
    """Returns the rewards with the seed of the task: float32 [P], NaN where there is none."""
    return _told(table, table.first.right)[table.class_of]


def mean_rewards(table: RewardTable) -> np.ndarray:
    """Returns the mean rewards over all seeds that the table has of each program: float32 [P]."""
    means = _told(table, table.first.right)
    counts = np.concatenate([table.first.right[table.rescored, None], table.again.right], axis=1)
    means[table.rescored] = _told(table, counts).mean(axis=1, dtype=np.float64)
    return means[table.class_of]


def best(table: RewardTable, count: int) -> np.ndarray:
    """Returns the programs of the highest mean rewards, best first: int [count].

    Those whose class trained with all seeds come before the others, of which one seed says little.
    """
    is_known = np.isin(table.class_of, table.rescored)
    return np.lexsort((np.arange(len(is_known)), -mean_rewards(table), ~is_known))[:count]


def _told(table: RewardTable, counts: np.ndarray) -> np.ndarray:
    return np.where(counts == UNTRAINED, np.float32(np.nan), table.accuracies[counts])
