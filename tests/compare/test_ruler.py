"""The ruler of a gain: tuned Adam, and the spread of known rules."""

import math

import numpy as np
import pytest

from nos_tf.compare.ruler import ADAM, PANEL, SEEDS, best_rate, find_ruler, ruler_of, with_ruler
from nos_tf.compare.tuning import Tuned, Tuning, TuningSetup
from nos_tf.dsl.known import KNOWN_RULES
from nos_tf.dsl.primitives import RuleConstants
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.errors import RunError
from nos_tf.store.trainings import training_identity
from nos_tf.tasks.child import Child, ChildSetup
from nos_tf.tasks.suite import Gain
from tests.scripted import Scripted
from tests.tasks.models import make

CHILD = Child((1e-3, 1e-2))


@pytest.fixture(scope='module')
def task():
    return make('regression', jit_compile=False)


class Known(Scripted):
    """Knows the loss of each optimizer, and dies after so many."""

    def __init__(self, losses, dies_after=None):
        super().__init__()
        self.losses, self.dies_after, self.ended = losses, dies_after, []

    def collect(self):
        if len(self.ended) == self.dies_after:
            raise RunError('died')
        job = self.queue.pop(0)
        self.ended.append(job)
        measure = -math.log(self.losses(job))
        return [(job, Tuned(measure, 0.1, (None, 0.5), 1.0))]


def losses(job):
    """Adam is best with β2 = .95, and the panel is of four losses."""
    if ' with ' in job.contender:
        return (0.1 if 'beta_1=0.8, beta_2=0.95, epsilon=0.0001' in job.contender else 0.2) * (
            1 + (job.seed == SEEDS[0])
        )
    return 0.1 * math.sqrt(2) * math.exp(PANEL.index(job.contender) % 4 / 4)


def test_the_reference_is_the_best_setting_of_adam_and_the_spread_that_of_the_panel(tmp_path, task):
    evaluator = Known(losses)
    ruler = find_ruler(Gain(task), 1.0, CHILD, evaluator, tmp_path)
    assert ruler[:2] == ('adam with beta_1=0.8, beta_2=0.95, epsilon=0.0001', 0.1)
    assert ruler.reference == pytest.approx(0.1 * math.sqrt(2), rel=1e-5)  # the geometric mean of the seeds
    assert ruler.spread == pytest.approx(np.std([i % 4 / 4 for i in range(20)], ddof=1), rel=1e-5)
    assert len(evaluator.ended) == len(SEEDS) * (18 + 20)


def test_what_was_trained_before_an_end_is_not_trained_again(tmp_path, task):
    first = Known(losses, dies_after=30)
    with pytest.raises(RunError, match='died'):
        with_ruler(Gain(task), CHILD, first, tmp_path)
    assert training_identity(tmp_path)['KerasTask.jit_compile'] is False
    second = Known(losses)
    gain = with_ruler(Gain(task), CHILD, second, tmp_path)
    assert len(second.ended) == len(SEEDS) * 38 - 30 and not set(first.ended) & set(second.ended)
    assert (gain.reference, gain.is_open) == (pytest.approx(0.141421, rel=1e-5), False)
    assert training_identity(tmp_path / 'elsewhere') == {}


def test_the_ruler_of_another_task_is_refused(tmp_path, task):
    find_ruler(Gain(task), 1.0, CHILD, Known(losses), tmp_path)
    with pytest.raises(RunError, match='KerasTask.epochs is'):
        find_ruler(Gain(make('regression', epochs=3, jit_compile=False)), 1.0, CHILD, Known(losses), tmp_path)


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (
            dict.fromkeys(ADAM, 3.0),
            'Adam reaches a loss of 3 at best, and the untrained model has 2: .* nothing to comp',
        ),
        (dict.fromkeys((*ADAM, *PANEL), 1.0), 'all known rules end with the same loss'),
    ],
)
def test_where_there_is_nothing_to_compare_with_it_is_said(change, said):
    losses = {name: 0.5 + i / 100 for i, name in enumerate((*ADAM, *PANEL))} | change
    with pytest.raises(RunError, match=f'^Gain.task: .*{said}'):
        ruler_of({name: (0.1, -math.log(loss)) for name, loss in losses.items()}, 2.0)


def test_one_hopeless_rule_is_not_all_of_the_spread():
    losses = {name: 0.5 * (1 + i % 3 / 100) for i, name in enumerate((*ADAM, *PANEL))} | {'sgd': 1e9}
    assert ruler_of({name: (0.1, -math.log(loss)) for name, loss in losses.items()}, 2.0).spread < 0.25


def test_the_rate_of_the_reference_is_that_of_the_best_mean_over_seeds():
    assert best_rate([{0.1: -1.0, 0.2: -2.0, 0.3: -0.5}, {0.1: -1.5, 0.2: -0.5}]) == (0.1, -1.25)
    assert best_rate([{0.1: -1.0}, {0.2: -0.5}]) == (0.2, -0.75)


def test_the_panel_is_of_known_rules_that_differ():
    assert len(PANEL) == 20 and set(PANEL) <= set(KNOWN_RULES)
    assert len({UpdateRule.parse(name).direction()[0] for name in PANEL}) == 20


def test_tuning_is_what_a_child_does_with_these_constants(task):
    tuning = TuningSetup(task, CHILD, ('adam', 'adam with beta_2=0.9', 'lion')).trainer()
    constants = RuleConstants(beta_2=0.9)
    child = Child(CHILD.learning_rates, constants=constants)
    expected = ChildSetup(child, task, Vocabulary.of(None, map(UpdateRule.parse, ('adam', 'lion')))).trainer()
    outcome = expected.train(UpdateRule.parse('adam'), 7)
    tuned = tuning.train('adam with beta_2=0.9', 0.0, 7, 0)
    assert tuned[:3] == outcome[:3] != tuning.train('adam', 0.0, 7, 0)[:3]
    assert Tuned.of_json(tuned.as_json()) == tuned
    with pytest.raises(ValueError, match=r"^'keras.Adam': must be a rule"):
        Tuning(TuningSetup(task, CHILD, ('keras.Adam',)))
