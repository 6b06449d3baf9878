"""What studies of rewards share: outcomes of rules on several seeds, filed as they come, and random rules."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from nos_tf import SearchSpace, UpdateRule, output
from nos_tf.controller.agent import UniformAgent
from nos_tf.dsl.screening import why_untrainable
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.evaluation.jobs import Job
from nos_tf.evaluation.pool import ProcessPool
from nos_tf.evaluation.speed import xla_pays
from nos_tf.files import whole
from nos_tf.search.decisions import Ways, decided
from nos_tf.search.trials import Queue
from nos_tf.store.results import Store
from nos_tf.tasks.child import Child, ChildSetup, Outcome
from nos_tf.tasks.task import Task


@contextmanager
def opened(run_dir: Path, setup: ChildSetup, count: int, **settings: bool) -> Iterator[Queue]:
    """Gives a queue whose outcomes are filed in a run directory; whether XLA compiles a task is decided there once.

    Args:
        run_dir: made if it does not exist.
        setup: procedure, task and words.
        count: of the trainings to come, about.
        **settings: of the `Queue`.
    """
    pool, adam = ProcessPool(), UpdateRule.parse('adam')
    ways = Ways(setup.child, pool, lambda part: xla_pays(replace(setup, task=part), adam, count))
    setup = replace(setup, task=decided(setup.task, run_dir, ways))
    identity = pool.identity(setup)
    with closing(Store(run_dir, {'study': run_dir.name, **identity}, identity, str(setup.task))) as store:
        pool.start(setup)
        with closing(pool):
            yield Queue(store, pool, setup, **settings)


def outcomes(
    run_dir: Path, child: Child, task: Task, wanted: Mapping[UpdateRule, Iterable[int]]
) -> dict[tuple[UpdateRule, int], Outcome]:
    """Returns the outcomes of rules by rule and seed; what is on file in the run directory is not trained again.

    Args:
        run_dir: made if it does not exist.
        child: the procedure.
        task: as it is to be trained; rewards do not depend on which rules train beside each other.
        wanted: rules of any space, and the seeds of each.
    """
    jobs = {(rule, seed): Job(child.form_of(rule)[0], seed) for rule, seeds in wanted.items() for seed in seeds}
    setup = ChildSetup(child, task, Vocabulary.of(SearchSpace(iterations=2, language=2), wanted))
    with opened(run_dir, setup, len(jobs)) as queue:
        found = queue.train(list(jobs.values()), _say(run_dir.name, len(jobs)))
    return {key: found[job] for key, job in jobs.items()}


def _say(name: str, count: int) -> Callable[[int], None]:
    def say(done: int) -> None:
        output.say(f'{name}: {done} of {count}')

    return say


def read_rows(path: Path) -> list[dict[str, str]]:
    """Returns the rows of a CSV file; none if there is no file."""
    if not path.exists():
        return []
    with path.open(encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a CSV file, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as file:
        text = io.TextIOWrapper(file, encoding='utf-8', newline='')
        table = csv.DictWriter(text, rows[0], lineterminator='\n')
        table.writeheader()
        table.writerows(rows)
        text.detach()  # which flushes it


def random_rules(space: SearchSpace, child: Child, count: int, seed: int) -> list[UpdateRule]:
    """Returns distinct rules that may train, drawn uniformly; none trains as another one does.

    Args:
        space: of the rules.
        child: says which rules train alike.
        count: of the rules.
        seed: of the draw.
    """
    found: dict[UpdateRule, UpdateRule] = {}
    draw = 0
    while len(found) < count:
        for choices in UniformAgent(space, seed).propose(100, draw).choices:
            rule = space.rule(choices)
            if why_untrainable(rule.canonical()) is None and len(found) < count:
                found.setdefault(child.form_of(rule)[0], rule)
        draw += 1
    return list(found.values())
