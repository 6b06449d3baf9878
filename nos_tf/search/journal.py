"""TensorBoard's view of a search: one point for each batch, the step being the number of children."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from nos_tf.search.tally import Tally


class Journal:
    """Writes event files into a run directory.

    Args:
        run_dir: of the run.
        hyper_parameters: shown as a table.
        children: already in the store.
    """

    def __init__(self, run_dir: Path, hyper_parameters: Mapping[str, Any], children: int) -> None:
        self._writer = tf.summary.create_file_writer(os.fsencode(run_dir))
        self._best = ''
        rows = '\n'.join(f'| {key} | `{json.dumps(value)}` |' for key, value in hyper_parameters.items())
        with self._writer.as_default(step=children):
            tf.summary.text('hyper_parameters', f'| name | value |\n| --- | --- |\n{rows}')

    def write(
        self,
        tally: Tally,
        batch_rewards: np.ndarray,
        per_hour: float,
        *,
        controller: Mapping[str, float],
        workers: Mapping[str, float],
    ) -> None:
        """Adds the points of one batch, whose rewards are [B]; of the learner and the workers, metrics by name."""
        with self._writer.as_default(step=tally.children):
            tf.summary.scalar('reward/mean', float(np.mean(batch_rewards)))
            tf.summary.scalar('reward/mean_last_100', tally.recent_mean)
            tf.summary.scalar('reward/max', tally.best_reward)
            tf.summary.scalar('cache/hit_rate', tally.hit_rate)
            tf.summary.scalar('cache/equal_function_rate', tally.equal_function_rate)
            tf.summary.scalar('cache/rejected_rate', tally.rejected_rate)
            tf.summary.scalar('search/children_per_hour', per_hour)
            for family, metrics in (('controller', controller), ('workers', workers)):
                for name, value in metrics.items():
                    tf.summary.scalar(f'{family}/{name}', value)
            if tally.best_rule != self._best:
                self._best = tally.best_rule
                tf.summary.text('best_rule', f'`{self._best}` {tally.best_reward:.4f}')

    def close(self) -> None:
        """Flushes the event file."""
        self._writer.close()
