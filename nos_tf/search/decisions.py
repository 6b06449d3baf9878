"""What a task leaves to the search: whether XLA compiles it, and the ruler of a gain. Decided once a run, then obeyed.

A run that goes on has its decisions in its identity; one that was stopped while a ruler was looked for has them with
the trainings of the ruler.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from nos_tf.compare.ruler import FOLDER, TRAININGS, Ruler, with_ruler
from nos_tf.config import differences
from nos_tf.evaluation.speed import leaves_xla_open, with_xla_decided
from nos_tf.store.results import stored_identity
from nos_tf.store.trainings import training_identity
from nos_tf.tasks.child import Child
from nos_tf.tasks.suite import Gain, Suite, of_part
from nos_tf.tasks.task import Task


class Ways(NamedTuple):
    """How to find out what is open."""

    child: Child
    evaluator: Any  # trains what is no child of the search
    xla_pays: Callable[[Task], bool]  # of a task that leaves it open
    allow_mixed: bool = False


def decided(task: Task, run_dir: Path | None, ways: Ways, *, only_try: bool = False) -> Any:
    """Returns the task with nothing left open.

    Args:
        task: as it was given to the search.
        run_dir: where decisions are looked up and rulers are kept; None for neither.
        ways: to find out what no run has decided.
        only_try: look for no ruler: what takes as long will do.

    Raises:
        RunError: a ruler cannot be found.
    """
    stored = stored_identity(run_dir) if run_dir else {}
    return _decided(task, stored, run_dir and run_dir / FOLDER, None if only_try else ways, ways.xla_pays)


def trainings_before(task: Task, run_dir: Path | None) -> int:
    """Returns how many rules it will take at most to find the rulers that are still open."""
    if run_dir and stored_identity(run_dir):
        return 0
    parts = task.tasks if isinstance(task, Suite) else (task,)
    return TRAININGS * sum(isinstance(part, Gain) and part.is_open for part in parts)


def _decided(
    task: Any, stored: Mapping[str, Any], folder: Path | None, ways: Ways | None, xla_pays: Callable[[Task], bool]
) -> Any:
    if isinstance(task, Suite):
        parts = [
            _decided(part, of_part(stored, i), folder and folder / str(i), ways, xla_pays)
            for i, part in enumerate(task.tasks)
        ]
        return dataclasses.replace(task, tasks=tuple(parts))
    if leaves_xla_open(task):
        tried = task.provisional if isinstance(task, Gain) else task
        known = stored or (training_identity(folder) if folder else {})
        task = with_xla_decided(task, known, lambda: xla_pays(tried))
    if not (isinstance(task, Gain) and task.is_open):
        return task
    kept = 'Gain.reference' in stored
    if ways is None or folder is None:
        return _as_stored(task, stored) if kept else task.provisional
    inner = task.task.identity()
    if kept and not training_identity(folder) and not differences({k: stored.get(k) for k in inner}, inner):
        return _as_stored(task, stored)  # somebody has deleted the trainings
    # Where all of them are on file this trains nothing, and refuses those of another task or child.
    return with_ruler(task, ways.child, ways.evaluator, folder, allow_mixed=ways.allow_mixed)


def _as_stored(task: Gain, stored: Mapping[str, Any]) -> Gain:
    ruler: Any = {name: stored.get(f'Gain.{name}') for name in Ruler._fields}
    return dataclasses.replace(task, **ruler)
