"""The search: sample rules, evaluate them, learn from their rewards, save, log (Figure 1 of the paper)."""

import dataclasses
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import gin
import numpy as np

from nos_tf import output
from nos_tf.compare.verification import Verdict, Verification
from nos_tf.config import Configured, Count, Incidental, Natural, bindings_of
from nos_tf.controller.agent import Agent, Metrics, UniformAgent
from nos_tf.controller.learners import Evolution, Learner, has_network
from nos_tf.dsl.known import KNOWN_RULES
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.space import SearchSpace
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.errors import RunError
from nos_tf.evaluation.cluster.cluster import Cluster  # noqa: F401 (for gin)
from nos_tf.evaluation.in_process import InProcess
from nos_tf.evaluation.jobs import Evaluator
from nos_tf.evaluation.machine import CONTROLLER_THREADS, is_of_machine, threads, use_one_cpu_thread
from nos_tf.evaluation.pool import ProcessPool
from nos_tf.evaluation.speed import Estimate, Speed, speed_of, xla_pays
from nos_tf.evaluation.table import Table
from nos_tf.files import write_text
from nos_tf.search.decisions import Ways, decided, trainings_before
from nos_tf.search.display import Display, scores_table
from nos_tf.search.found import Found, best_of, table_of
from nos_tf.search.journal import Journal
from nos_tf.search.rescore import Score, rescore
from nos_tf.search.seeds import PREFIX as SEEDS_PREFIX
from nos_tf.search.seeds import Seeds
from nos_tf.search.tally import Tally
from nos_tf.search.trials import PREFIX, Arrivals, Queue, Trials
from nos_tf.store.results import Store, best_rules, count_children, stored_identity
from nos_tf.store.schema import Checkpoint, StoredChild
from nos_tf.tasks.child import Child, ChildSetup
from nos_tf.tasks.convnet import ImageClassification  # noqa: F401 (for gin)
from nos_tf.tasks.task import Task, check_backend

gin.external_configurable(SearchSpace)

VERIFIED = 'verification'  # folder of a run directory


@gin.configurable
@dataclass
class Search(Configured):
    """A neural optimizer search: a task that rewards rules, a space of them, a learner that samples, and a budget.

    Args:
        task: what the rules are judged on.
        run_dir: of the results; None where `run` is given it, and nothing else is asked.
        space: of the rules.
        learner: samples rules and learns from their rewards.
        child: the procedure that turns a rule into a reward.
        evaluator: trains children, here or elsewhere, or looks up what became of them.
        children: to sample in all; a finished search goes on when there are to be more. Where this is no multiple of
            the learner's batch, the last batch is smaller, and a search that goes on after it is not the same as one
            that was longer from the beginning.
        seed: of the learner.
        rescored: how many of the best distinct rules are trained again at the end.
        rescore_seeds: on how many fresh seeds; 0 for none, else two or more.
        seeds: that a rule may have; after each batch the best rules so far train on one more, until they have had so
            many. The learner is told the mean, above that of the promising shrunk by the noise between seeds.
        promising: how many of the best rules have more than one seed.
        verification: holds the rule that the fresh seeds choose against optimizers that people use, on other seeds and,
            as a rule, on tasks that the search has not seen; None for none.
        baselines: names of known rules that are scored beside them.
        reject_untrainable: give rules that cannot train the reward of chance, if the task has one, and do not train
            them.
        merge_equal_functions: give a program the outcome of an earlier one that computes the same function up to
            rounding; the learner may then see another reward than training would have given.
        asynchronous: keep workers busy: learn from the first rewards to arrive, whichever batch they were sampled in;
            what is found then depends on who is quick. Otherwise a search is the same whoever trains.
        max_staleness: asynchronously, batches that may be taken between the sampling of a child and its reward; a later
            one counts as a child, but is not learned from. None for a hundred times the average.

    Raises:
        ValueError: a value out of range, or an unknown baseline; the message names the binding.
    """

    task: Task = gin.REQUIRED
    run_dir: Annotated[Path | str | None, Incidental] = None
    space: SearchSpace = SearchSpace(iterations=2)
    learner: Learner = Evolution(batch_size=20)
    child: Child = Child()
    evaluator: Evaluator = field(default_factory=ProcessPool)
    children: Count = 1000
    seed: Natural = 0
    rescored: Natural = 10
    rescore_seeds: Natural = 5
    seeds: Count = 1
    promising: Count = 10
    verification: Verification | None = None
    baselines: Sequence[str] = ('sgd', 'momentum', 'rmsprop', 'adam')
    reject_untrainable: bool = False
    merge_equal_functions: bool = False
    asynchronous: bool = False
    max_staleness: Natural | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rescore_seeds == 1:
            raise ValueError('Search.rescore_seeds = 1: one seed gives no interval; use 2 or more, or 0 for none')
        if self.verification:
            if not (self.rescored and self.rescore_seeds):
                raise ValueError('Search.verification: fresh seeds choose the rule, so give Search.rescore_seeds too')
            self.verification.bench(self.task, UpdateRule.parse('g'))  # says now what it will not take
        if self.seeds > 1 and self.asynchronous:
            raise ValueError(f'Search.seeds = {self.seeds}: must be 1 in an asynchronous search, where no batch ends')
        unknown = [name for name in self.baselines if name not in KNOWN_RULES]
        if unknown:
            raise ValueError(f'Search.baselines has {unknown[0]!r}: choose from {", ".join(KNOWN_RULES)}')

    @property
    def setup(self) -> ChildSetup:
        """The procedure on the task, for rules of the space and the baselines."""
        return ChildSetup(self.child, self.task, Vocabulary.of(self.space, map(UpdateRule.parse, self.baselines)))

    def identity(self) -> dict[str, Any]:
        """Returns all that decides what a search finds, by the names of the gin bindings.

        The budget does not, nor which evaluator trains; one that looks rewards up does, and so does a cluster whose
        machines may differ.
        """
        own = (
            'seed',
            'seeds',
            'promising',
            'reject_untrainable',
            'merge_equal_functions',
            'asynchronous',
            'max_staleness',
        )
        return {
            **{f'Search.{name}': getattr(self, name) for name in own},
            'Search.learner': f'@{type(self.learner).__name__}()',
            **({CONTROLLER_THREADS: threads()} if threads() != 1 and has_network(self.learner) else {}),
            **bindings_of(self.space),
            **bindings_of(self.learner),
            **self.evaluator.identity(self.setup),
        }

    def run(self, run_dir: Path | str | None = None, *, allow_mixed: bool = False) -> dict[str, Any]:
        """Runs the search in a directory, or takes it up where it stopped.

        It goes on as the same search, bit for bit, unless it is asynchronous.

        Args:
            run_dir: gets results.sqlite, TensorBoard event files, summary.json, and config.gin where gin was used; None
                for that of the search.
            allow_mixed: take up a search also on another kind of CPU, or with other versions, than it began with;
                rewards are then of both, which the directory says. A rule that both sample trains on both.

        Returns:
            the content of summary.json.

        Raises:
            RunError: the directory holds another run, or the run cannot go on.
        """
        run_dir = self._directory(run_dir)
        with ExitStack() as stack:
            try:
                check_backend('a search')
                use_one_cpu_thread(required=False)
                search = self._decided(run_dir, allow_mixed=allow_mixed)
                session = _Session(search, run_dir, allow_mixed, stack)
            except ValueError as error:  # what is unfit in the configuration is said here at the latest
                raise RunError(str(error)) from error
            try:
                self._search(session)
                scores = self._rescore(session)
            except KeyboardInterrupt:
                if not gin.config_str():  # else it is a launcher's to say
                    output.warn('interrupted: what was finished is saved, run() goes on from there')
                raise
            summary = {
                **session.tally.summary(),
                'trained': session.store.trained(self.child.seed),
                'more_seeds': session.seeds.more if session.seeds else 0,
                'baselines': {score.name: score.mean for score in scores if score.name},
                'rescored': [dataclasses.asdict(score) for score in scores],
                'seconds': session.seconds,
                'space_size': self.space.size,
                'configuration': session.store.identity,
            }
        write_text(run_dir / 'summary.json', json.dumps(summary, indent=2))
        if scores:
            with suppress(BrokenPipeError):  # all is on file, and a report of it may be to come
                session.display.console.print(scores_table(scores, self.rescore_seeds))
        if self.verification:
            verdict = self._verified(self.verification, scores, run_dir, allow_mixed)
            summary['verification'] = verdict.as_json()
            write_text(run_dir / 'summary.json', json.dumps(summary, indent=2))
            output.say(f'\n{verdict}')
        return summary

    def best(self) -> Found:
        """Returns the best rule that was found: on fresh seeds, or as the search saw it where there are none yet.

        Raises:
            RunError: nothing was trained in the directory yet.
        """
        run_dir = self._directory(None)
        began = bool(stored_identity(run_dir))
        return best_of(run_dir, (self._decided(run_dir, only_try=True) if began else self).setup)

    def results(self) -> Any:
        """Returns all distinct rules, the best first: a `pandas.DataFrame`, or dicts where pandas is not there.

        Raises:
            RunError: there is no search in the directory.
        """
        return table_of(self._directory(None))

    def report(self) -> Path:
        """Draws report.html in the run directory, also while the search is under way; returns its path.

        Raises:
            RunError: there is no search in the directory.
        """
        from nos_tf.report import report  # here: it is a floor above, and imports what is slow

        return report.write(self._directory(None))

    def estimate(self) -> Estimate:
        """Returns how long the search will take, by a few steps of a training in this process; nothing is written.

        Verification is not in it.

        Raises:
            RunError: the data do not fit the task, or the task the procedure.
        """
        run_dir = Path(self.run_dir) if self.run_dir else None
        rescored = (self.rescored + len(self.baselines)) * self.rescore_seeds
        try:
            use_one_cpu_thread(required=False)
            setup = self._decided(run_dir, only_try=True).setup
            speed = Speed(0.0, 0.0) if isinstance(self.evaluator, Table) else speed_of(setup, self._typical)
        except ValueError as error:
            raise RunError(str(error)) from error
        done = count_children(run_dir) if run_dir else 0
        before = trainings_before(self.task, run_dir)
        return Estimate(speed, max(0, self.children - done), rescored, self._busy, before)

    def _directory(self, run_dir: Path | str | None) -> Path:
        """The run directory, as it was given to a method or to the search."""
        chosen = self.run_dir if run_dir is None else run_dir
        if not isinstance(chosen, str | Path) or not str(chosen).strip():
            raise RunError(f'Search.run_dir = {chosen!r}: must be the path of a directory')
        return Path(chosen)

    @property
    def _typical(self) -> UpdateRule:
        """A rule to find out by how long one takes."""
        if self.baselines:
            return UpdateRule.parse(self.baselines[-1])
        return self.space.rule(UniformAgent(self.space, self.seed).propose(1, 0).choices[0])

    @property
    def _busy(self) -> int:
        """The workers that have something to do: a batch is all that is under way at a time."""
        workers = self.evaluator.workers or 1
        return workers if self.asynchronous else min(workers, self.learner.batch_size)

    @property
    def _own_evaluator(self) -> Evaluator:
        """Returns the evaluator of all but children: that of the search, or a pool if it has children alone."""
        return self.evaluator if isinstance(self.evaluator, ProcessPool | InProcess) else ProcessPool()

    def _decided(self, run_dir: Path | None, *, allow_mixed: bool = False, only_try: bool = False) -> 'Search':
        """The search with what its task leaves open decided, as in its run or by trying."""
        ways = Ways(self.child, self._own_evaluator, self._xla_pays, allow_mixed)
        return dataclasses.replace(self, task=decided(self.task, run_dir, ways, only_try=only_try))

    def _xla_pays(self, task: Task) -> bool:
        """Whether the search takes less time where XLA compiles the trainings of a task; tried once."""
        if task not in self._xla_choices:
            setup = dataclasses.replace(self.setup, task=task)
            self._xla_choices[task] = xla_pays(setup, self._typical, self.children / self._busy)
        return self._xla_choices[task]

    @cached_property
    def _xla_choices(self) -> dict[Task, bool]:
        """Whether XLA pays, by task, so that `run` need not try again what `estimate` has tried."""
        return {}

    def _search(self, session: '_Session') -> None:
        """Samples, evaluates, learns, saves and logs until the budget is spent."""
        done = session.tally.children
        session.display.note(f'{self.space.size:,} rules in the space; {done} of {self.children} children are there')
        try:
            agent = self.learner.start(self.space, self.seed)
        except ValueError as error:
            raise RunError(str(error)) from error
        trials = Trials(
            session.queue,
            self.space,
            self.child.seed,
            batch_size=self.learner.batch_size,
            workers=(self.evaluator.workers or 1) if self.asynchronous else None,
            max_staleness=self.max_staleness,
        )
        session.resume(agent, trials)
        while (missing := self.children - session.tally.children) > 0:
            trials.fill(agent.propose, missing)
            arrivals = session.look_again(trials.take(missing, session.show), agent)
            metrics = agent.update(*arrivals.batch()) if arrivals.fresh.any() else {}
            session.save(arrivals, agent, metrics, trials)
            session.log(arrivals, metrics, trials)

    def _verified(self, verification: Verification, scores: list[Score], run_dir: Path, allow_mixed: bool) -> Verdict:
        """Returns the verdict on the best rule that is not there as a baseline alone."""
        rule = UpdateRule.parse(next(score.rule for score in scores if score.search_reward is not None))
        ways: Any = {'evaluator': self._own_evaluator, 'allow_mixed': allow_mixed}
        return verification.run(self.task, rule, run_dir / VERIFIED, **ways)

    def _rescore(self, session: '_Session') -> list[Score]:
        """The best distinct rules and the baselines on fresh seeds."""
        if not self.rescore_seeds:
            return []
        ranked = session.seeds.best(self.rescored) if session.seeds else None
        candidates = best_rules(session.store.results(), self.rescored) if ranked is None else ranked
        seeds = [self.child.seed + 1 + i for i in range(self.rescore_seeds)]
        total = (len(candidates) + len(self.baselines)) * len(seeds)
        return rescore(
            candidates,
            self.baselines,
            seeds,
            lambda jobs: session.queue.train(jobs, lambda done: session.display.busy('rescoring', done, total)),
        )


class _Session:
    """The open parts of a search that runs: store, evaluator, and what a person sees of both."""

    def __init__(self, search: Search, run_dir: Path, allow_mixed: bool, stack: ExitStack) -> None:
        setup, self._evaluator, self._seed = search.setup, search.evaluator, search.child.seed
        identity = search.identity()
        task, mixing = self._evaluator.identity(setup), (is_of_machine, allow_mixed)
        self.store = stack.enter_context(closing(Store(run_dir, identity, task, str(search.task), *mixing)))
        if gin.config_str():
            write_text(run_dir / 'config.gin', gin.operative_config_str())
        self.tally = Tally.of(self.store.results())
        self._checkpoint = self.store.checkpoint() or Checkpoint(0, 0.0, {})
        self._start = time.monotonic()
        self._evaluator.start(setup)  # before anything else of TensorFlow: a cluster renames the devices
        stack.callback(self._evaluator.close)
        self._journal = stack.enter_context(closing(Journal(run_dir, identity, self.tally.children)))
        self.display = stack.enter_context(Display(search.children, self.tally.children))
        self.queue = Queue(
            self.store,
            self._evaluator,
            setup,
            reject_untrainable=search.reject_untrainable,
            merge_equal_functions=search.merge_equal_functions,
        )
        self.seeds = Seeds(self.queue, search.child.seed, search.seeds, search.promising) if search.seeds > 1 else None

    @property
    def seconds(self) -> float:
        """The time that the search has taken, earlier sessions included."""
        return self._checkpoint.seconds + time.monotonic() - self._start

    def resume(self, agent: Agent, trials: Trials) -> None:
        """Gives an agent and trials, both new, the states that were saved last, if any."""
        if not self.tally.children:
            return
        state = self._checkpoint.state
        agent.restore({name: value for name, value in state.items() if not name.startswith((PREFIX, SEEDS_PREFIX))})
        trials.restore(state, self._checkpoint.iteration)
        if self.seeds:
            programs = (UpdateRule(tuple(row.program.split())) for row in self.store.results())
            self.seeds.restore(state, programs)

    def show(self, done: int) -> None:
        """Shows that so many of a batch have arrived."""
        self.display.show(self.tally, under_way=done)

    def look_again(self, arrivals: Arrivals, agent: Agent) -> Arrivals:
        """Trains the best rules so far on more seeds, where they may have several; returns what is known now."""
        if not self.seeds:
            return arrivals
        self.seeds.add(sample.job.program for sample in arrivals.samples)
        self.seeds.train(self.show)
        told = self.seeds.reward
        if revise := getattr(agent, 'revise', None):
            revise(lambda rule: told(rule.canonical()))
        return arrivals._replace(rewards=np.array([told(s.job.program) for s in arrivals.samples], np.float32))

    def save(self, arrivals: Arrivals, agent: Agent, metrics: Metrics, trials: Trials) -> None:
        """Files children, the agent that has learned from them, its metrics and what is under way, all or nothing."""
        iteration = trials.version
        children = [StoredChild(iteration, sample.version, sample.rule, sample.log_prob) for sample in arrivals.samples]
        trials.version += 1
        seeds_state = self.seeds.state() if self.seeds else {}
        checkpoint = Checkpoint(iteration + 1, self.seconds, {**agent.state(), **trials.state(), **seeds_state})
        for row in self.store.save_batch(children, self._seed, checkpoint, metrics):
            self.tally.add(row)

    def log(self, arrivals: Arrivals, metrics: Metrics, trials: Trials) -> None:
        """Shows a batch that is saved and the metrics of its update."""
        workers = {**trials.status(arrivals), **self.queue.status(), **self._evaluator.status()}
        self.display.show(self.tally, workers=workers)
        per_hour = self.display.per_hour(self.tally.children)
        self._journal.write(self.tally, arrivals.rewards, per_hour, controller=metrics, workers=workers)
