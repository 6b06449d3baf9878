"""Which optimizer is better here? Everyone tuned with the same effort, on seeds of its own; then timed on fresh ones.

How many times faster than the reference an optimizer reaches the loss that the reference ends with is read by
`nos_tf.compare.speedups`. The reference itself, on other seeds, is one more contender: the null control, which must
read 1.00 within its interval.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import gin
import numpy as np
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from nos_tf import output
from nos_tf.compare.bench_result import BenchResult, TaskResult, best_of, shown, write_curves
from nos_tf.compare.curves import Curve, CurveSetup, Own, made_by
from nos_tf.compare.trainings import TrainingRun
from nos_tf.config import NOT_EMPTY, Configured, Count, Natural, Positive, at_most
from nos_tf.errors import RunError
from nos_tf.evaluation import machine
from nos_tf.evaluation.jobs import Evaluator
from nos_tf.evaluation.machine import is_of_machine, use_one_cpu_thread
from nos_tf.evaluation.pool import ProcessPool
from nos_tf.files import write_text
from nos_tf.optimizers.contender import Contender
from nos_tf.optimizers.schedule import SCHEDULES
from nos_tf.store.database import OTHERS
from nos_tf.store.trainings import Key, Training, TrainingStore
from nos_tf.tasks.suite import Gain, Suite
from nos_tf.tasks.sweep import finer_rates
from nos_tf.tasks.task import Task, check_backend

NULL = 'null control'
MEASURES = 20  # in as many updates as the reference has
LENGTHS = (0.5, 2**-0.5, 1.0, 2**0.5, 2.0)  # of trainings, times that of the task
MEASURED_IN_LADDER = (0.25, 0.5, 0.75, 1.0)  # of a budget
SPAN = 10_000  # seeds of a kind, at most
TUNING, JUDGED, NULL_SEEDS = (800_000 + SPAN * i for i in range(3))  # where seeds begin; searches leave them alone
CHOICES = {
    'beta_2': (0.95, 0.99, 0.999),
    'rho': (0.9, 0.95, 0.99),
    'beta_1': (0.8, 0.9, 0.95),
    'momentum': (0.8, 0.9, 0.95),
}
"""Values of hyper-parameters, of which an optimizer has the first that it reads tuned beside its learning rate."""

QUICK: dict[str, Any] = {'choices': {}, 'tuning_seeds': 1, 'seeds': 3}
"""Arguments for a fraction of the time: learning rates alone are tuned, on one seed, and three judge."""

CONTENDERS = ('keras.AdamW', 'keras.SGD with momentum=0.9', 'keras.RMSprop', 'keras.Lion', 'adam_powersign')


@gin.configurable
@dataclass
class Bench(Configured):
    """Compares optimizers on tasks.

    Args:
        tasks: by name; a `Suite` stands for its tasks, and a `Gain` for the task whose loss it compares.
        contenders: optimizers as text (`nos_tf.optimizers.contender`), or a mapping of names to texts or to functions
            of a learning rate that return a Keras optimizer. A function is on file by its name: one that has changed
            needs another.
        reference: whose loss the others are to reach; a contender in any case, and once more as null control.
        learning_rates: the same for everyone; around the best one, half and quarter decades are tried.
        choices: hyper-parameter -> values. Those that an optimizer reads, and that its text does not give, are tuned
            one after the other, in this order. A momentum of `keras.SGD` is tuned if the text gives one. {} for none.
        hyper_parameters: how many of them are tuned at most, of each optimizer.
        tuning_seeds: on which rates and hyper-parameters are chosen, by the mean loss at the end.
        seeds: fresh ones, on which everyone is judged.
        first_seed: how many fresh ones to pass over, such as those that an earlier bench has seen.
        schedule: of the learning rate, 'constant', or 'linear' or 'cosine' to zero.
        lengths: of trainings, times that of the task, 1 among them. At a constant rate the longest are measured on the
            way. With a schedule, or a rule that reads how much of the training is done, none goes on beyond its end,
            and trainings of all lengths are held against each other. (1,) for losses alone, and no speed-ups.
        evaluator: whose processes train.

    Raises:
        ValueError: a value out of range, an unknown optimizer, or two that are one; the message names the binding.
    """

    tasks: Annotated[Mapping[str, Any], NOT_EMPTY] = gin.REQUIRED
    contenders: Any = CONTENDERS
    reference: str = 'keras.AdamW'
    learning_rates: Annotated[Sequence[Positive], NOT_EMPTY] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    choices: Mapping[str, Any] = field(default_factory=lambda: CHOICES)
    hyper_parameters: Natural = 1
    tuning_seeds: Annotated[Count, at_most(SPAN)] = 2
    seeds: Annotated[Count, at_most(SPAN)] = 5
    first_seed: Natural = 0
    schedule: str = 'constant'
    lengths: Annotated[Sequence[Positive], NOT_EMPTY] = LENGTHS
    evaluator: Evaluator = field(default_factory=ProcessPool)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.schedule not in SCHEDULES:
            raise ValueError(f'Bench.schedule = {self.schedule!r}: choose from {", ".join(SCHEDULES)}')
        if 1.0 not in self.lengths:
            raise ValueError(f'Bench.lengths = {self.lengths!r}: must have 1 among them, the length of the task')
        if self.first_seed + self.seeds > SPAN:
            raise ValueError(f'Bench.first_seed = {self.first_seed}: with Bench.seeds, must be at most {SPAN}')
        self.learning_rates = tuple(sorted({float(rate) for rate in self.learning_rates}))
        pairs = list(self._single_tasks())
        self.tasks = dict(pairs)
        if len({name.lower() for name in self.tasks}) < len(pairs):
            raise ValueError(f'Bench.tasks: {", ".join(name for name, _ in pairs)}: each must have a name of its own')
        for key, values in self.choices.items():
            is_numbers = isinstance(values, list | tuple) and all(isinstance(value, int | float) for value in values)
            if not values or not is_numbers:
                raise ValueError(f'Bench.choices[{key!r}] = {values!r}: must be numbers, at least one')
        self._entries = self._checked()

    def _single_tasks(self) -> Iterator[tuple[str, Task]]:
        for name, task in self.tasks.items():
            if not (isinstance(name, str) and re.fullmatch(r'\w[\w +-]{,99}', name)):
                raise ValueError(
                    f'Bench.tasks: the name {name!r} must be of letters, digits, spaces and + - _, as a folder'
                )
            parts = task.tasks if isinstance(task, Suite) else (task,)
            for i, part in enumerate(parts):
                inner = part.task if isinstance(part, Gain) else part
                at = name if len(parts) == 1 else f'{name}-{i + 1}'
                if not isinstance(inner, Task) or not hasattr(inner, 'of_steps'):
                    raise ValueError(
                        f'Bench.tasks[{at!r}] = {inner!r}: must be a task that can be made longer, such as a KerasTask'
                    )
                yield at, inner

    def _checked(self) -> dict[str, '_Entry']:
        entries: dict[str, _Entry] = {}
        programs: dict[Any, str] = {}
        for name, what in self._named().items():
            if name == NULL or (is_optimizer(name) and what != name):
                raise ValueError(f'Bench.contenders: the name {name!r} is taken: give what it stands for another')
            if callable(what):
                made_by(name, what, 1e-3)
                entries[name] = _Entry(name, (), what)
                continue
            if not isinstance(what, str):
                raise ValueError(f'Bench.contenders: {name!r} is {what!r}: must be an optimizer as text, or a function')
            contender = Contender(what)
            contender.check()
            rule = contender.rule
            same = (rule.direction()[0], frozenset(contender.constants.items())) if rule else contender.program
            if same in programs:
                raise ValueError(
                    f'Bench.contenders: {programs[same]!r} and {name!r} are one optimizer at another learning rate: '
                    'leave one out'
                )
            programs[same] = name
            tuned = tuple(_read_by(contender, self.choices))[: self.hyper_parameters]
            entries[name] = _Entry(what, tuned, None, bool(rule and rule.reads_progress))
        return entries

    def _named(self) -> dict[str, Any]:
        """The contenders by name, the reference first."""
        given: Any = self.contenders
        if isinstance(given, Mapping):
            return {self.reference: given.get(self.reference, self.reference), **given}
        if not isinstance(given, list | tuple) or not all(isinstance(text, str) for text in given):
            raise ValueError(
                f'Bench.contenders = {given!r}: must be texts, or names with texts and functions, as '
                "{'mine': lambda learning_rate: ...}"
            )
        if len(set(given)) < len(given):
            raise ValueError(f'Bench.contenders = {given!r}: none may be there twice')
        return {text: text for text in (self.reference, *given)}

    @property
    def own(self) -> dict[str, Own]:
        """The optimizers of somebody's own, by name."""
        return {name: entry.own for name, entry in self._entries.items() if entry.own}

    def is_ladder(self, task: Any) -> bool:
        """Returns whether trainings of several lengths are compared on a task, for want of one that goes on."""
        reads = any(entry.reads_progress for entry in self._entries.values())
        return reads or self.schedule != 'constant' or getattr(task, 'schedule', 'constant') != 'constant'

    def identity(self) -> dict[str, Any]:
        """Returns what was asked for: JSON values."""
        own = [field.name for field in fields(self) if field.name not in ('tasks', 'contenders', 'evaluator')]
        return {f'Bench.{name}': getattr(self, name) for name in own} | {
            'Bench.tasks': {name: str(task) for name, task in self.tasks.items()},
            'Bench.contenders': {name: [entry.text, *entry.tuned] for name, entry in self._entries.items()},
        }

    def run(self, run_dir: Path | str, *, allow_mixed: bool = False) -> BenchResult:
        """Trains what is not on file yet; leaves summary.json and curves.csv.

        Args:
            run_dir: made if it does not exist; has a folder for each task. More contenders, seeds and tasks may come.
            allow_mixed: go on also on another kind of CPU, or with other versions, than what is on file.

        Raises:
            RunError: the directory holds other tasks, the reference learns nothing, or the run cannot go on.
        """
        run_dir = Path(run_dir)
        try:
            check_backend('a bench')
            use_one_cpu_thread(required=False)
        except ValueError as error:
            raise RunError(str(error)) from error
        columns = (TextColumn('{task.description}'), BarColumn(), TextColumn('{task.completed} of some {task.total}'))
        for name in ('results.sqlite', 'trainings.sqlite'):
            if (run_dir / name).exists():
                raise RunError(f'{run_dir} holds a run of another kind ({name}): give a directory of its own')
        results, mixed, folders = [], [], []
        with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=output.console()) as progress:
            bar = progress.add_task('bench', total=self._expected * len(self.tasks))
            for i, (name, task) in enumerate(self.tasks.items()):
                progress.update(bar, description=name, completed=i * self._expected)
                part = _OnTask(self, name, task, run_dir / name, allow_mixed, lambda: progress.advance(bar))
                results.append(part.run())
                mixed += part.others
                folders += part.folders
                progress.console.print(_line(results[-1], self.reference), highlight=False, soft_wrap=True)
        told = self.identity() | machine.identity() | ({OTHERS: mixed} if mixed else {})
        result = BenchResult(self.reference, NULL, tuple(results), told)
        run_dir.mkdir(parents=True, exist_ok=True)
        write_text(run_dir / 'summary.json', json.dumps(result.as_json(), indent=1))
        write_curves(run_dir, folders)
        return result

    @property
    def _expected(self) -> int:
        """About how many trainings a task takes."""
        rates = len(self.learning_rates) + 4
        values = sum(len(self.choices[key]) - 1 for entry in self._entries.values() for key in entry.tuned)
        trials = rates * len(self._entries) + 5 * values
        trainings = max(len(self.lengths) if self.is_ladder(task) else 1 for task in self.tasks.values())
        judged = (len(self._entries) + 1) * self.seeds * trainings
        return trials * self.tuning_seeds + judged


@dataclass(frozen=True)
class _Entry:
    """A contender: its text, or its name, and the hyper-parameters that are tuned beside the learning rate."""

    text: str
    tuned: tuple[str, ...]
    own: Own | None = None
    reads_progress: bool = False


def _read_by(contender: Contender, choices: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """Yields the hyper-parameters that are there to be tuned: read by an optimizer, and not given by its text."""
    for key, values in choices.items():
        if (key in contender.constants) != (key == 'momentum'):
            continue
        try:
            for value in values:
                contender.having(**{key: value}).check()
        except ValueError:
            continue
        yield key


def _others(text: str, key: str, values: Sequence[float]) -> Iterator[str]:
    """Yields an optimizer with each other value of a hyper-parameter, as text."""
    contender = Contender(text)
    made = (contender.having(**{key: value}) for value in values)
    yield from (one.text for one in made if one.program != contender.program)


def is_optimizer(text: str) -> bool:
    """Returns whether a text is that of an optimizer."""
    try:
        Contender(text)
    except ValueError:
        return False
    return True


class _OnTask:
    """The bench on one of its tasks."""

    def __init__(
        self, bench: Bench, name: str, task: Any, folder: Path, allow_mixed: bool, advance: Callable[[], None]
    ) -> None:
        self._bench, self._name, self._task, self._folder = bench, name, task, folder
        self._allow_mixed, self._advance = allow_mixed, advance
        self.folders: list[Path] = []  # of its trainings
        self.others: list[Any] = []  # machines of another kind that have trained part of it
        try:
            self._steps = int(task.load().steps)
        except (ValueError, FileNotFoundError) as error:
            raise RunError(f'{name}: {error}') from error

    def run(self) -> TaskResult:
        """Returns how everyone does."""
        bench, budget, is_ladder = self._bench, self._steps, self._bench.is_ladder(self._task)
        if is_ladder:  # rates are chosen at the budget of the task, so that comes first
            steps = _spread(bench.lengths, budget)
            lengths, folders = sorted(steps, key=lambda step: step != budget), f'{bench.schedule}-{{}}'
        else:
            steps = _spread(np.arange(1, round(max(bench.lengths) * MEASURES) + 1) / MEASURES, budget)
            lengths, folders = [steps[-1]], ''
        bowls: dict[str, dict[str, dict[float, float]]] = {}
        judged: dict[int, dict[str, list[Curve]]] = {}
        for length in lengths:
            measured = _spread(MEASURED_IN_LADDER, length) if is_ladder else steps
            self.folders.append(self._folder / folders.format(length))
            with self._opened(length, measured, self.folders[-1]) as run:
                self.others += run.identity.get(OTHERS, [])
                bowls = bowls or self._tuned(run)
                judged[length] = self._judged(run, bowls, length)

        def loss(name: str, seed: int, step: int) -> float:
            return -judged[step if is_ladder else steps[-1]][name][seed].at(step)

        settings = self._settings(bowls)
        return TaskResult(
            name=self._name,
            steps=steps,
            budget=budget,
            losses={
                name: tuple(tuple(loss(name, i, step) for step in steps) for i in range(bench.seeds))
                for name in settings
            },
            step_seconds={
                name: float(np.median([curve.step_seconds for curve in judged[lengths[0]][name]])) for name in settings
            },
            diverged={name: sum(curve.diverged for curve in judged[lengths[-1]][name]) for name in settings},
            bowls=bowls,
            is_ladder=is_ladder,
            untrained=None if self._task.chance is None else -self._task.chance,
        )

    def _settings(self, bowls: Mapping[str, Any]) -> dict[str, tuple[str, float]]:
        """Returns variant and learning rate of everyone; those of the null control are the reference's."""
        settings = {name: best_of(bowl)[:2] for name, bowl in bowls.items()}
        return {**settings, NULL: settings[self._bench.reference]}

    def _opened(self, steps: int, measured: tuple[int, ...], folder: Path) -> TrainingRun[Curve]:
        setup = CurveSetup(self._task.of_steps(steps), measured, self._bench.own, self._bench.schedule)
        try:
            identity = self._bench.evaluator.identity(setup)
        except ValueError as error:
            raise RunError(f'{self._name}: {error}') from error
        store = TrainingStore(folder, Curve, identity, is_of_machine=is_of_machine, allow_mixed=self._allow_mixed)
        return TrainingRun(store, setup, self._bench.evaluator)

    def _train(self, run: TrainingRun[Curve], keys: Sequence[Key], length: int) -> dict[Key, Curve]:
        jobs = [Training(*key, length) for key in keys]
        due = set(run.due(jobs, _is_done))
        for _ in range(len(jobs) - len(due)):
            self._advance()
        return run.run(jobs, _is_done, lambda *_: self._advance())

    def _tuned(self, run: TrainingRun[Curve]) -> dict[str, dict[str, dict[float, float]]]:
        """Returns contender -> variant -> learning rate -> mean loss at the end, of all that were tried."""
        entries = self._bench._entries
        bowls: dict[str, dict[str, dict[float, float]]] = {name: {} for name in entries}
        rates = self._bench.learning_rates
        self._tune(run, bowls, {(name, entry.text): rates for name, entry in entries.items()})
        for i in range(max(len(entry.tuned) for entry in entries.values())):
            due: dict[tuple[str, str], Sequence[float]] = {}
            for name, key in [(name, entry.tuned[i]) for name, entry in entries.items() if len(entry.tuned) > i]:
                text, rate, _ = best_of(bowls[name])
                due |= {(name, other): (rate,) for other in _others(text, key, self._bench.choices[key])}
            self._tune(run, bowls, due)
        chance, reached = self._task.chance, best_of(bowls[self._bench.reference])[2]
        if chance is not None and -reached <= chance:
            raise RunError(
                f'{self._name}: {self._bench.reference} reaches a measure of {-reached:g} at best, and the untrained '
                f'model has {chance:g}: there is nothing to compare with; look at Bench.learning_rates, steps and data'
            )
        return bowls

    def _tune(
        self,
        run: TrainingRun[Curve],
        bowls: dict[str, dict[str, dict[float, float]]],
        due: dict[tuple[str, str], Sequence[float]],
    ) -> None:
        """Tries rates, then those beside the best; fills the bowls.

        Args:
            run: of the trainings.
            bowls: as of `_tuned`.
            due: (contender, variant) -> the rates to begin with.
        """
        seeds = [TUNING + i for i in range(self._bench.tuning_seeds)]
        centre: dict[tuple[str, str], float] = {}
        while any(due.values()):
            keys = [Key(text, rate, s) for (_, text), rates in due.items() for rate in rates for s in seeds]
            found = self._train(run, keys, self._steps)
            for (name, text), rates in due.items():
                bowl = bowls[name].setdefault(text, {})
                for rate in rates:
                    bowl[rate] = -float(np.mean([found[Key(text, rate, s)].at(self._steps) for s in seeds]))
                middle = centre.setdefault((name, text), min(bowl, key=bowl.__getitem__))
                due[name, text] = finer_rates({rate: -loss for rate, loss in bowl.items()}, middle)

    def _judged(self, run: TrainingRun[Curve], bowls: Mapping[str, Any], length: int) -> dict[str, list[Curve]]:
        """Returns the curves of everyone at its setting, on fresh seeds; those of the null control on others."""
        first, count = self._bench.first_seed, self._bench.seeds
        wanted = {
            name: [Key(*at, (NULL_SEEDS if name == NULL else JUDGED) + first + i) for i in range(count)]
            for name, at in self._settings(bowls).items()
        }
        found = self._train(run, [key for keys in wanted.values() for key in keys], length)
        return {name: [found[key] for key in keys] for name, keys in wanted.items()}


def _spread(shares: Iterable[float], steps: int) -> tuple[int, ...]:
    """Returns shares of a number of updates, each at least one, ascending."""
    return tuple(sorted({max(1, round(steps * share)) for share in shares}))


def _line(found: TaskResult, reference: str) -> str:
    """Returns what is said of a task that has been done."""
    text, rate = found.setting(reference)
    best = max((name for name in found.losses if name != NULL), key=lambda name: -found.final(name).mean())
    told = f'{found.name}: {reference} ends at {shown(found.final(reference).mean())} ({text} at {rate:g})'
    return told if best == reference else f'{told}, {best} at {shown(found.final(best).mean())}'


def _is_done(job: Training, found: Curve) -> bool:
    return found.steps[-1] >= job.length


def bench(
    tasks: Task | Mapping[str, Task],
    contenders: Any = CONTENDERS,
    *,
    run_dir: Path | str,
    quick: bool = False,
    **arguments: Any,
) -> BenchResult:
    """Compares optimizers on a task or on several; printed, the result is a table.

    Args:
        tasks: one, or several by name.
        contenders: as of `Bench`.
        run_dir: of the results; the same call goes on where it was.
        quick: tune learning rates alone, on one seed, and let three judge, unless the arguments say otherwise.
        **arguments: of `Bench`.
    """
    named = tasks if isinstance(tasks, Mapping) else {'task': tasks}
    return Bench(tasks=named, contenders=contenders, **((QUICK if quick else {}) | arguments)).run(run_dir)
