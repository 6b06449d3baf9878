"""Optimizers side by side on a network that learns in seconds, stopped and taken up."""

import dataclasses
import json
import math
import shutil
import sqlite3
from contextlib import closing

import pytest

from nos_tf.compare.comparison import Comparison, Scores, Stage, Standing, score, stages, standings
from nos_tf.errors import RunError
from nos_tf.evaluation import machine
from nos_tf.evaluation.in_process import InProcess
from nos_tf.evaluation.pool import ProcessPool
from nos_tf.report import comparison_report
from nos_tf.store.database import OTHERS
from nos_tf.store.trainings import TRAININGS, Key, read_trainings
from nos_tf.tasks.data import Digits
from nos_tf.tasks.training import Curve, Recipe, Trained
from tests.tasks.linear import Linear

RECIPE = Recipe(Digits(0.1, 200), Linear(), epochs=3, batch_size=50)
SGD, POWERSIGN, ADAM = 'keras.SGD', 'powersign', 'keras.Adam'


def trained(*validation, diverged=False):
    return Trained(Curve(validation, validation, validation), 1.0, diverged)


def comparison(**arguments):
    defaults = {
        'recipe': RECIPE,
        'contenders': (SGD, POWERSIGN, ADAM),
        'learning_rates': (0.01, 0.1, 1.0),
        'evaluator': InProcess(),
    }
    return Comparison(**{**defaults, **arguments})


def test_the_best_rate_of_each_is_chosen_on_validation_and_its_best_epoch():
    done = {
        Key('a', 0.1, 0): trained(0.5, 0.9, 0.6),
        Key('a', 0.1, 1): trained(0.5, 0.7, 0.6),
        Key('a', 1.0, 0): trained(0.75, 0.75, 0.75),
        Key('a', 1.0, 1): trained(0.75, 0.75, 0.75),
        Key('b', 0.1, 0): trained(0.95, 0.1, diverged=True),
        Key('b', 1.0, 0): trained(0.2, 0.3, 0.99),
    }
    first, second = standings(done, 3, 1)
    assert (first.contender, first.rate, second.contender, second.rate) == ('b', 1.0, 'a', 0.1)
    assert score(second, 3) == pytest.approx(0.8) and score(second, 1) == pytest.approx(0.5)
    assert score(second, 3, 2) == pytest.approx(0.6)
    assert standings(done, 1, 1)[0] == Standing('b', 0.1, (done['b', 0.1, 0],))  # it had not diverged yet
    assert [(s.contender, s.rate) for s in standings(done, 2, 2)] == [('a', 0.1), ('a', 1.0), ('b', 1.0), ('b', 0.1)]


def test_stages_are_compared_over_those_that_went_on():
    search, long = {'a': 0.3, 'b': 0.2, 'c': 0.1, 'd': 0}, {'b': 5, 'c': 6}
    middle = Scores('5 epochs', {'a': 1, 'b': 2, 'c': 3, 'x': 9}, {'a': 1, 'b': 3, 'c': 2, 'x': 9})
    first, second, third = stages(
        [Scores('search', search, {}), middle, Scores('50 epochs', middle.so_far, long), Scores('more', {}, search)]
    )
    assert first == Stage('search', '5 epochs', 3, pytest.approx(-0.5))
    assert second[:3] == ('5 epochs', '50 epochs', 2) and math.isnan(second.correlation)
    assert third == Stage('50 epochs', 'more', 3, -1.0)
    (equal,) = stages([Scores('a', dict.fromkeys('abc', 1), {}), Scores('b', {}, {'a': 1, 'b': 2, 'c': 3})])
    assert math.isnan(equal.correlation)


class Late:
    """An evaluator: SGD is the best at first, at its larger rate, and diverges there in epoch 3."""

    workers = 1

    def __init__(self):
        self.jobs, self.queue = [], []

    def identity(self, setup):
        return setup.identity() | machine.identity()

    def start(self, setup):
        pass

    def submit(self, job):
        self.queue.append(job)

    def collect(self):
        job = self.queue.pop()
        self.jobs.append(job)
        if (job.contender, job.rate) != (SGD, 0.1):
            return [(job, trained(*[job.rate * (5 if job.contender == SGD else 6)] * job.length))]
        return [(job, trained(*(0.9, 0.95, 0.1)[: job.length], diverged=job.length > 2))]

    def status(self):
        return {}

    def close(self):
        pass


def test_what_diverges_late_is_chosen_early_also_after_a_stop(tmp_path):
    arguments = {'contenders': (SGD, ADAM), 'learning_rates': (0.01, 0.1), 'rungs': ((2, 1),)}
    arguments['recipe'] = dataclasses.replace(RECIPE, epochs=4)
    first, again = Late(), Late()
    standing = comparison(**arguments, evaluator=first).run(tmp_path)
    assert [(s.contender, s.rate, s.runs[0].diverged) for s in standing] == [(ADAM, 0.1, False), (SGD, 0.1, True)]
    assert comparison(**arguments, evaluator=again).run(tmp_path) == standing
    assert len(first.jobs) == 6 and again.jobs == []
    longer = comparison(**{**arguments, 'recipe': dataclasses.replace(RECIPE, epochs=5)}, evaluator=again).run(tmp_path)
    assert {job.contender for job in again.jobs} == {ADAM} and [s.rate for s in longer] == [0.1, 0.1]


EXPONENTS = {SGD: -0.25, ADAM: -1.5}  # of the best rate


class Bowl(Late):
    """An evaluator: accuracy falls with the distance of the rate to the best, which lies between decades."""

    def collect(self):
        job = self.queue.pop()
        self.jobs.append(job)
        return [(job, trained(*[0.9 - abs(math.log10(job.rate) - EXPONENTS[job.contender]) / 10] * job.length))]


def test_half_decades_are_tried_until_those_beside_the_best_are_worse_and_then_the_quarters(tmp_path):
    arguments = {'contenders': (SGD, ADAM), 'learning_rates': (0.01, 0.1, 1.0), 'rungs': ((1, 1),), 'refine': True}
    first, again = Bowl(), Bowl()
    standing = comparison(**arguments, evaluator=first, final_seeds=2).run(tmp_path)
    assert [(s.contender, s.rate, len(s.runs)) for s in standing] == [(SGD, 0.562, 2), (ADAM, 0.0316, 1)]
    whole = {(job.contender, job.rate) for job in first.jobs if job.length == 3}
    assert {rate for contender, rate in whole if contender == SGD} == {0.316, 0.562, 1.0, 1.78, 3.16}
    assert {rate for contender, rate in whole if contender == ADAM} >= {0.0178, 0.0316, 0.0562}
    assert comparison(**arguments, evaluator=again, final_seeds=2).run(tmp_path) == standing and not again.jobs
    assert json.loads((tmp_path / 'summary.json').read_text())['configuration']['Comparison.refine'] is True


def test_a_comparison_with_rungs_that_was_stopped_gives_the_same_rows(tmp_path):
    arguments = {'rungs': ((1, 2), (2, 1, 2)), 'final_seeds': 2}
    result = comparison(**arguments).run(tmp_path / 'a')
    assert [len(standing.runs) for standing in result] == [2, 1]
    assert all(run.curve.epochs == 3 for standing in result for run in standing.runs)
    rows = read(tmp_path / 'a')
    assert len(rows) == 3 * 3 + 1
    lengths = {curve.epochs for curve, _ in rows.values()}
    assert lengths == {1, 2, 3} and not any(diverged for _, diverged in rows.values())
    assert not [*(tmp_path / 'a' / 'checkpoints').iterdir()]
    assert [*(tmp_path / 'a' / 'tensorboard').glob('*/*/events*')]
    summary = json.loads((tmp_path / 'a' / 'summary.json').read_text())
    assert [tuple(s) for s in summary['standings']] == [(s.contender, s.rate, len(s.runs)) for s in result]
    assert [(s['before'], s['after'], s['contenders']) for s in summary['stages']] == [
        ('1 epochs', '2 epochs', 3),
        ('2 epochs', '3 epochs', 2),
        ('3 epochs', 'more seeds', 1),  # the only one that has more
    ]
    assert summary['training_seconds'] > 0 and summary['configuration']['Comparison.final_seeds'] == 2

    shutil.copytree(tmp_path / 'a', tmp_path / 'b')
    with closing(sqlite3.connect(tmp_path / 'b' / TRAININGS.file_name)) as db, db:
        # as if it had been stopped before these
        db.execute('DELETE FROM trainings WHERE contender = ? OR seed = 1', (SGD,))
    assert [s[:2] for s in comparison(**arguments).run(tmp_path / 'b')] == [s[:2] for s in result]
    assert read(tmp_path / 'b') == rows == (comparison(**arguments).run(tmp_path / 'a') and read(tmp_path / 'a'))


def read(run_dir):
    return {key: (trained.curve, trained.diverged) for key, trained in read_trainings(run_dir, Trained).items()}


def test_promising_rules_compete_beside_the_others(tmp_path):
    run = comparison(contenders=(SGD,), promising={POWERSIGN: 0.9, SGD: 0.8}, learning_rates=(0.1,))
    assert {standing.contender for standing in run.run(tmp_path)} == {SGD, POWERSIGN}
    (stage,) = json.loads((tmp_path / 'summary.json').read_text())['stages']
    assert (stage['before'], stage['contenders']) == ('search', 2)


def test_a_promising_rule_that_is_listed_in_another_spelling_competes_once():
    one = comparison(contenders=(SGD, POWERSIGN), promising={'g * exp(sign(m) * sign(g))': 0.9, 'g + m': 0.8})
    assert one.contenders == (SGD, POWERSIGN, 'g + m')
    assert one.promising == {POWERSIGN: 0.9, 'g + m': 0.8}


def test_a_single_contender_gets_its_final_seeds(tmp_path):
    (standing,) = comparison(contenders=SGD, learning_rates=(0.1,), final_seeds=2).run(tmp_path)
    assert len(standing.runs) == 2


def test_another_recipe_is_refused_and_a_longer_one_goes_on(tmp_path):
    comparison(contenders=SGD, learning_rates=(0.1,)).run(tmp_path)
    (longer,) = comparison(contenders=SGD, learning_rates=(0.1,), recipe=dataclasses.replace(RECIPE, epochs=4)).run(
        tmp_path
    )
    assert longer.runs[0].curve.epochs == 4
    with pytest.raises(RunError, match=r'Recipe.flips is false there and true here'):
        comparison(recipe=dataclasses.replace(RECIPE, flips=True)).run(tmp_path)


def test_another_machine_goes_on_where_that_is_allowed_and_the_summary_says_so(tmp_path, monkeypatch):
    one, here = comparison(contenders=SGD, learning_rates=(0.1,)), machine.processor()
    one.run(tmp_path)
    monkeypatch.setattr(machine, 'processor', lambda: 'another')
    two = comparison(contenders=SGD, learning_rates=(0.1, 0.2))
    with pytest.raises(RunError, match='processor is .* there and "another" here.*--allow_mixed'):
        two.run(tmp_path)
    before = read_trainings(tmp_path, Trained)
    two.run(tmp_path, allow_mixed=True)
    after = read_trainings(tmp_path, Trained)
    assert before.items() < after.items()
    summary = json.loads((tmp_path / 'summary.json').read_text())
    assert summary['configuration'][OTHERS] == [{'processor': 'another'}]
    assert summary['configuration']['processor'] == here != 'another'
    comparison_report.write(tmp_path)
    told = f'Begun with processor = {here}, this was taken up on another machine, with processor = another'
    assert told in (tmp_path / 'tables.md').read_text()


def test_a_recipe_that_does_not_fit_the_data_leaves_nothing(tmp_path):
    with pytest.raises(RunError, match='Recipe.batch_size = 5000: there are 200 examples'):
        comparison(recipe=dataclasses.replace(RECIPE, batch_size=5000)).run(tmp_path / 'new')
    assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        ({'contenders': ()}, 'at least one'),
        ({'contenders': 5}, 'must be texts'),
        ({'contenders': (1, 2)}, 'must be texts'),
        ({'promising': ('g',)}, 'rewards by rule: @best_of_search'),
        ({'recipe': None}, r'Comparison.recipe = None: must be a Recipe: an instance, in gin @Name\(\)'),
        ({'evaluator': ProcessPool}, r'Comparison.evaluator = .*: must be an Evaluator: an instance, in gin @Name\(\)'),
        ({'learning_rates': 'a'}, "Comparison.learning_rates = 'a': must be numbers, above 0, at least one"),
        ({'learning_rates': ()}, 'must be numbers, above 0, at least one'),
        ({'rungs': 5}, 'must be a sequence'),
        ({'contenders': (SGD, SGD)}, 'none may be there twice'),
        ({'contenders': (POWERSIGN, 'g * exp(sign(m) * sign(g))')}, 'in whatever spelling'),
        ({'contenders': ('keras.SGD', 'keras.SGD with momentum=0')}, 'none may be there twice'),
        ({'contenders': ('keras.Adam with loss_scale_factor=2',)}, 'loss_scale_factor changes nothing'),
        ({'contenders': ('powersign with noise_stddev=3',)}, 'noise_stddev changes nothing'),
        ({'contenders': ('keras.No',)}, "keras.optimizers has no 'No'"),
        ({'contenders': (), 'promising': {'no rule': 0.5}}, 'no rule'),
        ({'learning_rates': (0.1, -1)}, r'Comparison.learning_rates = \(0.1, -1\): must be numbers, above 0'),
        ({'seeds': 0}, 'Comparison.seeds = 0'),
        ({'final_seeds': 1.5}, 'Comparison.final_seeds = 1.5'),
        ({'final_share': 2}, 'Comparison.final_share = 2'),
        ({'rungs': ((3, 1),)}, 'epochs from 1 to 2'),
        ({'rungs': ((1, 4),)}, 'rates from 1 to 3'),
        ({'rungs': ((2, 1), (1, 1))}, 'epochs from 3 to 2'),
        ({'rungs': ((1, 1, 4),)}, 'contenders from 1 to 3'),
        ({'rungs': ((1, 2), (2, 3))}, 'rates from 1 to 2'),
        ({'rungs': ((True, 1),)}, 'epochs: a whole number, at least 1'),
        ({'rungs': ('all',)}, r'must be a sequence of \(epochs: a whole number'),
        ({'rungs': (5,)}, r'must be a sequence of \(epochs: a whole number'),
    ],
)
def test_what_does_not_fit_is_named(arguments, said):
    with pytest.raises(ValueError, match=said):
        comparison(**arguments)
