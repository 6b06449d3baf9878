"""A rule in, a reward out: the learning-rate sweep, the training and the measure of a child (Section 4.2).

`Child` is the procedure, a value that pickles. `Trainer` is the procedure at work on a task: one traced graph, a pure
function of (rule, seed), that trains every rule. Nothing is random but the seed, which belongs to the procedure: the
same rule earns the same reward, bit for bit, in any order and in any process of the same kind.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Annotated, Any, NamedTuple

import gin
import numpy as np
import tensorflow as tf

from nos_tf.config import NOT_EMPTY, Configured, Count, Incidental, Natural, Positive, above, below, bindings_of
from nos_tf.dsl.primitives import RuleConstants
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.errors import RunError
from nos_tf.optimizers import interpreter
from nos_tf.optimizers.semantics import GivenConstants
from nos_tf.tasks.sweep import QUARTERS, Progress, Train, of_multiple, pick, race, rates_near, refine
from nos_tf.tasks.task import Task

gin.external_configurable(RuleConstants)

PAPER_LEARNING_RATES = tuple(10.0**i for i in range(-5, 2))

TRAINED = 'trained'
LOOKED_UP = 'looked up'  # in a table
REJECTED = 'rejected: '  # and why
QUARANTINED = 'quarantined: '  # and why
MERGED = 'equal to '  # and the tokens of the program whose outcome it is


class Outcome(NamedTuple):
    """The result of a child: measures of the task, on its validation set."""

    reward: float  # after the last epoch
    learning_rate: float  # the rate that won the sweep; NaN where there was none
    sweep: tuple[float | None, ...]  # measures of rates, as `sweep.bowls` sorts them; None where one was given up
    seconds: float
    origin: str = TRAINED  # the source of the reward: one of the words above

    @classmethod
    def untrained(cls, reward: float, origin: str) -> 'Outcome':
        """Returns the outcome of a child that was given a reward without training."""
        return cls(reward, np.nan, (), 0.0, origin)

    def of_multiple(self, factor: float) -> 'Outcome':
        """Returns the outcome of a rule whose updates are so many times as large: another rate does the same."""
        return self._replace(learning_rate=of_multiple(self.learning_rate, factor))


class Rung(NamedTuple):
    """A point of the sweep at which learning rates are given up."""

    share: Annotated[float, above(0), below(1)]  # of the steps of the sweep
    rates: Count  # that go on


@gin.register
@dataclass(frozen=True)
class Child(Configured):
    """The procedure of Section 4.2; its defaults are the paper's.

    Args:
        learning_rates: tried in ascending order; of equally good ones the smallest wins.
        sweep_epochs: for which each learning rate is tried; the winner trains for those of the task in all.
        rungs: where the sweep gives up learning rates, (share of its steps, rates): after the share so many rates
            go on, those of the smallest mean training loss since the rung before. () for none.
        continue_sweep: let the winner go on from where its sweep ended instead of starting anew. Both give the same
            bits, since sweep and training share weights, order and random numbers.
        refine: look finer around the best rates of the sweep, by whole trainings at half and quarter decades from them
            (`sweep.refine`). The reward is that of the best. Where the sweep has found no rate better than chance, its
            winner alone trains. Rules that are equal up to a factor are then one, and share a reward: what trains is
            `UpdateRule.direction`.
        constants: the hyper-parameters of rules.
        seed: of weights, order and random primitives: a part of the procedure, not of the sample.

    Raises:
        ValueError: a value out of range; the message names the binding.
    """

    learning_rates: Annotated[Sequence[Positive], NOT_EMPTY] = PAPER_LEARNING_RATES
    sweep_epochs: Count = 1
    rungs: Sequence[Rung] = ()
    continue_sweep: Annotated[bool, Incidental] = True
    refine: bool = False
    constants: RuleConstants = RuleConstants()
    seed: Annotated[Natural, below(2**30)] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, 'learning_rates', tuple(sorted(map(float, self.learning_rates))))
        for before, rung in itertools.pairwise([Rung(0.0, len(self.learning_rates)), *self.rungs]):
            if not (rung.share > before.share and rung.rates < before.rates):
                raise ValueError(
                    f'Child.rungs: {tuple(rung)} must have a share above {before.share:g}, and fewer rates than the '
                    f'{before.rates} before it'
                )

    def form_of(self, rule: UpdateRule) -> tuple[UpdateRule, float]:
        """Returns the program that trains for a rule, and the factor by which updates of the rule are larger."""
        return rule.direction() if self.refine else (rule.canonical(), 1.0)


@dataclass(frozen=True)
class ChildSetup:
    """All that a process needs to train children: the procedure, the task, and the words of the rules to come."""

    child: Child
    task: Task
    vocabulary: Vocabulary = Vocabulary()

    def identity(self) -> dict[str, Any]:
        """Returns all that a reward depends on but the machine: name of each part -> JSON value."""
        return {**self.task.identity(), **bindings_of(self.child), **self.vocabulary.identity()}

    def trainer(self) -> Any:
        """Returns the procedure at work; a task that is several trains in a way of its own."""
        own = getattr(self.task, 'trainer', None)
        return own(self) if own else Trainer(self)


class Trainer:
    """Trains children, one after the other; built once a process. The first child waits for the trace, a few seconds.

    Args:
        setup: procedure, task and vocabulary.

    Raises:
        ValueError: the data do not fit the task, or the task the procedure.
        FileNotFoundError: the data are not there.
    """

    def __init__(self, setup: ChildSetup) -> None:
        self.child, self.vocabulary, self.task = setup.child, setup.vocabulary, setup.task.load()
        self.sweep_steps = self.child.sweep_epochs * self.task.steps_per_epoch
        if self.sweep_steps > self.task.steps:
            raise ValueError(
                f'Child.sweep_epochs = {self.child.sweep_epochs}: must be at most the '
                f'{self.task.steps / self.task.steps_per_epoch:g} epochs of the task'
            )
        self.chance = setup.task.chance
        self.data = self.task.data
        self.start = lru_cache(maxsize=16)(self.task.start)  # by seed: the weights and state of the model
        self._jit_compile = getattr(self.task, 'jit_compile', False)
        self._outcome = tf.function(self.graph, input_signature=self.signature, autograph=False)
        of_constants = tf.TensorSpec(GivenConstants.values_of(self.child.constants).shape, tf.float32)
        self._outcome_with = tf.function(self.graph, input_signature=[*self.signature, of_constants], autograph=False)

    @property
    def signature(self) -> list[Any]:
        """The types and shapes of what `graph` takes."""
        tensors = self.start(self.child.seed), self.data
        start, data = tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), tensors)
        return [tf.TensorSpec([5 * self.vocabulary.iterations], tf.int32), tf.TensorSpec([], tf.int32), start, data]

    def train(self, rule: UpdateRule, seed: int | None = None, constants: RuleConstants | None = None) -> Outcome:
        """Returns the outcome of a rule: what trains is its canonical form, or its direction in a finer look.

        Args:
            rule: of the vocabulary.
            seed: another than the procedure's, to see how much luck there is in a reward.
            constants: others than the procedure's; all such share one more graph.

        Raises:
            MemoryError: there is too little for the task, which the message names.
            RunError: XLA is to compile the training, and cannot.
        """
        start = time.perf_counter()
        seed = self.child.seed if seed is None else seed
        with self.explained():
            given = self.ids_of(rule), seed, self.start(seed), self.data
            if constants is None:
                reward, rate, sweep = self._outcome(*given)
            else:
                reward, rate, sweep = self._outcome_with(*given, GivenConstants.values_of(constants))
        return self.outcome(rule, reward.numpy(), rate.numpy(), sweep.numpy(), time.perf_counter() - start)

    def ids_of(self, rule: UpdateRule) -> np.ndarray:
        """Returns what the graph is told of a rule, int32 [5n]."""
        return self.vocabulary.ids_of(self.child.form_of(rule)[0])

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Has errors of TensorFlow, raised within, say what they are about."""
        try:
            yield
        except tf.errors.ResourceExhaustedError as error:
            raise MemoryError(f'out of memory: {self.task} needs more than there is') from error
        except tf.errors.OpError as error:
            if failure := getattr(self.task, 'failure', ''):
                raise RunError(f'KerasTask.train: no more batches could be had ({failure})') from error
            text = ' '.join(str(error).split())
            if not (self._jit_compile and 'XLA' in text):
                raise
            raise RunError(f'jit_compile = True: XLA cannot compile this training ({text[:200]}): use False') from error

    def outcome(
        self, rule: UpdateRule, reward: np.ndarray, rate: np.ndarray, sweep: np.ndarray, seconds: float
    ) -> Outcome:
        """Returns the values of `graph` as an outcome of a rule.

        Raises:
            RunError: the task has measured what is no number.
        """
        if not np.isfinite(reward) or reward == tf.float32.min or np.isnan(sweep).any():
            raise RunError(
                getattr(self.task, 'undefined', '')
                or 'the task has measured what is no number: its measure must be one whatever the weights are, those '
                'of a training that has diverged included'
            )
        measures = tuple(None if measure == -np.inf else float(measure) for measure in sweep)
        reward = np.maximum(reward, getattr(self.task, 'lowest', -np.inf))
        outcome = Outcome(float(reward), self._rates[int(rate)], measures, seconds)
        return outcome.of_multiple(self.child.form_of(rule)[1])

    @property
    def measures(self) -> int:
        """The number of measures that an outcome has room for."""
        rates = len(self.child.learning_rates)
        return 2 * rates + len(QUARTERS) if self.child.refine else rates

    @cached_property
    def _rates(self) -> Sequence[float]:
        """All rates that may win, by the index that `graph` gives."""
        rates = self.child.learning_rates
        return [near for rate in rates for near in rates_near(rate)] if self.child.refine else rates

    @property
    def traces(self) -> int:
        """How often the graph was traced: once, whatever the rules."""
        return self._outcome.experimental_get_tracing_count()

    def graph(self, *given: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The training of one child, to be traced once and run anywhere: it holds no variable and no data.

        Args:
            *given: as of `parts`.

        Returns:
            reward [], index of the winning rate [], `measures` of rates, -inf where one was given up or not tried.
        """
        child = self.child
        begun, train, measure = self.parts(*given)
        rates = tf.constant(child.learning_rates, tf.float32)
        steps = self.sweep_steps
        rungs = [(max(1, round(share * steps)), remaining) for share, remaining in child.rungs]
        progress, sweep = race(begun, rates, train, measure, rungs=rungs, last_step=steps)
        best = tf.argmax(sweep, output_type=tf.int32)
        if child.refine:
            return self._refined(sweep, begun, lambda rate: self._judged(begun, rate, train, measure))
        is_judged_at_end = not hasattr(self.task, 'judge')
        origin = pick(progress, best) if child.continue_sweep and is_judged_at_end else begun
        return self._judged(origin, rates[best], train, measure), best, sweep

    def _judged(
        self, origin: Progress, rate: tf.Tensor, train: Train, measure: Callable[[Progress], tf.Tensor]
    ) -> tf.Tensor:
        """The measure of a whole training, float32 []: that of its end, unless the task says otherwise."""
        if judge := getattr(self.task, 'judge', None):
            return judge(origin, lambda model, step: train(model, rate, tf.constant(step)), measure)
        return measure(train(origin, rate, tf.constant(self.task.steps))[0])

    def _refined(
        self, sweep: tf.Tensor, begun: Progress, reach: Callable[[tf.Tensor], tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The values of `graph` where the child looks finer around the best rates of the sweep.

        Args:
            sweep: its measures.
            begun: the model before training.
            reach: the measure that a whole training at a rate reaches.
        """
        rates, untrained = tf.constant(self._rates, tf.float32), getattr(self.task, 'untrained', self.chance)
        untrained = untrained(begun.state) if callable(untrained) else untrained
        is_open = tf.constant(True) if untrained is None else tf.reduce_max(sweep) > untrained
        whole, finer = refine(sweep, lambda rate, quarter: reach(rates[rate * len(QUARTERS) + quarter]), is_open)
        rate, quarter = (tf.argmax(measures, output_type=tf.int32) for measures in (whole, finer))
        return finer[quarter], rate * len(QUARTERS) + quarter, tf.concat([sweep, whole, finer], 0)

    def parts(
        self,
        token_ids: tf.Tensor,
        seed: tf.Tensor,
        start: tuple[tf.Tensor, Any],
        data: Any,
        constants: tf.Tensor | None = None,
    ) -> tuple[Progress, Train, Callable[[Progress], tf.Tensor]]:
        """Returns what `graph` consists of.

        Args:
            token_ids: int32 [5n], of a canonical rule.
            seed: int32 [].
            start: `start` of the seed.
            data: `data`.
            constants: float32 [11], `GivenConstants.values_of` them; None for those of the procedure.

        Returns:
            the model before training; what trains a model (`race.Train`); and what measures one.
        """
        batches = self.task.batches(seed)
        weights, state = start
        given = self.child.constants if constants is None else GivenConstants(constants)
        compiled = {'autograph': False, 'jit_compile': self._jit_compile or None}  # False would forbid others to

        @tf.function(**compiled)  # traced once for the sweep and what follows it
        def train(progress: Progress, rate: tf.Tensor, last_step: tf.Tensor) -> tuple[Progress, tf.Tensor]:
            return self._steps(progress, _Run(data, batches, token_ids, rate, seed, given), last_step)

        @tf.function(**compiled)
        def measure(progress: Progress) -> tf.Tensor:
            return self.task.measure(data, progress.optimizer.weights, progress.state)

        return Progress(interpreter.initial_state(weights, self.vocabulary), state), train, measure

    def _steps(self, progress: Progress, run: '_Run', last_step: tf.Tensor) -> tuple[Progress, tf.Tensor]:
        """Trains until `last_step` updates are done in all; also returns the mean loss of the updates done here.

        Stops early once every weight is NaN. That is for ever (NaN minus anything is NaN) and the model's answer is
        then the same whatever comes, so stopping changes no reward. The loss, NaN by then, says when to look.
        """
        first_step = progress.optimizer.step
        schedule, decay = (getattr(self.task, name, None) for name in ('schedule', 'decay'))

        def learns(progress: Progress, total: tf.Tensor) -> tf.Tensor:
            """Returns whether there is another step to do."""
            lost = tf.cond(
                tf.math.is_nan(total),
                lambda: tf.reduce_all(tf.math.is_nan(progress.optimizer.weights)),
                lambda: tf.constant(False),
            )
            return (progress.optimizer.step < last_step) & ~lost

        def step(progress: Progress, total: tf.Tensor) -> tuple[Progress, tf.Tensor]:
            """Trains on one minibatch, and adds its loss to the total."""
            optimizer = progress.optimizer
            loss, gradient, state = self.task.gradient(
                run.data, run.batches, optimizer.step, optimizer.weights, progress.state
            )
            rate = run.rate if schedule is None else run.rate * schedule(optimizer.step)
            if decay is not None:
                optimizer = optimizer._replace(weights=optimizer.weights * (1.0 - rate * decay))
            optimizer = interpreter.update(
                run.token_ids,
                optimizer,
                gradient,
                rate,
                seed=run.seed,
                constants=run.constants,
                vocabulary=self.vocabulary,
                total_steps=self.task.steps,
            )
            return Progress(optimizer, state), total + loss

        progress, total = tf.while_loop(learns, step, (progress, 0.0), parallel_iterations=1)
        return progress, total / tf.cast(tf.maximum(progress.optimizer.step - first_step, 1), tf.float32)


class _Run(NamedTuple):
    """The constants of one training."""

    data: Any
    batches: Any
    token_ids: tf.Tensor  # int32 [5n]
    rate: tf.Tensor
    seed: tf.Tensor
    constants: RuleConstants | GivenConstants
