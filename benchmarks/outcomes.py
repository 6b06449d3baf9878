"""What studies of rewards share: outcomes of rules on several seeds, filed as they come, and random rules."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from nos_tf import SearchSpace, UpdateRule, output
from nos_tf.controller.agent import UniformAgent
from nos_tf.dsl.screening import why_untrainable
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.evaluation.jobs import Job
from nos_tf.evaluation.pool import ProcessPool
from nos_tf.evaluation.speed import xla_pays
from nos_tf.search.decisions import Ways, decided
from nos_tf.search.trials import Queue
from nos_tf.store.results import Store
from nos_tf.tasks.child import Child, ChildSetup, Outcome
from nos_tf.tasks.task import Task


def outcomes(
    run_dir: Path, child: Child, task: Task, rules: Sequence[UpdateRule], seeds: Iterable[int]
) -> dict[UpdateRule, list[Outcome]]:
    """Returns the outcomes of rules, one for each seed; what is on file in the run directory is not trained again.

    Args:
        run_dir: made if it does not exist.
        child: the procedure.
        task: as it is to be trained; rewards do not depend on which rules train beside each other.
        rules: of any space.
        seeds: of weights, order and random primitives.
    """
    setup = ChildSetup(child, task, Vocabulary.of(SearchSpace(iterations=2, language=2), rules))
    pool, adam = ProcessPool(), UpdateRule.parse('adam')
    ways = Ways(child, pool, lambda part: xla_pays(replace(setup, task=part), adam, len(rules)))
    setup = replace(setup, task=decided(task, run_dir, ways))
    identity = pool.identity(setup)
    with closing(Store(run_dir, {'study': run_dir.name}, identity, str(task))) as store:
        jobs = {rule: [Job(child.form_of(rule)[0], seed) for seed in seeds] for rule in rules}
        known = {job: store.outcome(*job) for of in jobs.values() for job in of}
        if missing := [job for job, outcome in known.items() if outcome is None]:
            pool.start(setup)
            with closing(pool):
                queue = Queue(store, pool, setup)
                known.update(queue.train(missing, _say(run_dir.name, len(missing))))
    found = {rule: [known[job] for job in of] for rule, of in jobs.items()}
    return {rule: [outcome for outcome in of if outcome] for rule, of in found.items()}


def _say(name: str, count: int) -> Callable[[int], None]:
    def say(done: int) -> None:
        output.say(f'{name}: {done} of {count}')

    return say


def random_rules(space: SearchSpace, child: Child, count: int, seed: int) -> list[UpdateRule]:
    """Returns distinct rules that may train, drawn uniformly; no two that the child takes for one.

    Args:
        space: of the rules.
        child: says which are one.
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
