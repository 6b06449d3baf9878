"""The bench: everyone tuned alike, judged on fresh seeds, and taken up where it stopped."""

import csv
import dataclasses
import json
import math

import keras
import numpy as np
import pytest

from nos_tf.compare.bench import JUDGED, LENGTHS, NULL, NULL_SEEDS, QUICK, TUNING, Bench, bench
from nos_tf.compare.bench_result import COLUMNS, BenchResult
from nos_tf.compare.curves import Curve
from nos_tf.errors import RunError
from nos_tf.evaluation.in_process import InProcess
from nos_tf.tasks.suite import Gain, Suite
from tests.scripted import Scripted
from tests.tasks.models import make

BEST = {'keras.AdamW': 0.01, 'keras.SGD': 0.178, 'keras.Lion': 0.00178, 'mine': 1.0, 'lion': 0.001}  # learning rates
FASTER = {'keras.SGD': 0.5, 'keras.Lion': 1.5}
DIVERGED = 5.0


@pytest.fixture(scope='module')
def task():
    return make('regression', jit_compile=False)


class Known(Scripted):
    """Knows the loss of each optimizer after so many updates; dies after so many trainings."""

    def __init__(self, dies_after=None):
        super().__init__()
        self.dies_after, self.ended = dies_after, []

    def start(self, setup):
        super().start(setup)
        self.setup = setup

    def collect(self):
        if len(self.ended) == self.dies_after:
            raise RunError('died')
        job = self.queue.pop(0)
        self.ended.append(job)
        steps = tuple(step for step in self.setup.measured if step <= job.length)
        return [(job, Curve(steps, tuple(-self.loss(job, step) for step in steps), steps, 1e-3, False))]

    def loss(self, job, step):
        name, _, constants = job.contender.partition(' with ')
        off = abs(math.log10(job.rate / BEST.get(name, 0.01))) - 0.1 * ('beta_1=0.8' in constants)
        off += 0.3 * ('beta_2=0.95' not in constants and 'Adam' in name)
        luck = 0.02 * math.sin(job.seed * 7 + step)
        return math.exp(-step * FASTER.get(name, 1.0) / 40 + luck) + off


def bench_of(task, evaluator=None, **arguments):
    told = {'contenders': ('keras.SGD', 'keras.Lion'), 'tuning_seeds': 2, 'seeds': 4, **arguments}
    return Bench(tasks={'a': task}, evaluator=evaluator or Known(), **told)


def test_everyone_is_tuned_alike_and_judged_on_other_seeds(tmp_path, task):
    result = bench_of(task, known := Known()).run(tmp_path)
    (found,) = result.tasks
    assert found.setting('keras.AdamW') == ('keras.AdamW with beta_2=0.95', 0.01)
    assert found.setting('keras.SGD') == ('keras.SGD', 0.178) and found.setting('keras.Lion')[1] == 0.00178
    assert list(found.bowls['keras.Lion']) == [
        'keras.Lion',
        'keras.Lion with beta_2=0.95',
        'keras.Lion with beta_2=0.999',
    ]
    tried = [len(bowl) for of in found.bowls.values() for bowl in of.values()]
    assert max(tried) <= 12 and len(known.ended) == len(set(known.ended))
    seeds = {name: {job.seed for job in known.ended if job.length == length} for name, length in
             (('tuning', found.budget), ('judged', 2 * found.budget))}  # fmt: skip
    assert seeds['tuning'] == {TUNING, TUNING + 1}
    assert seeds['judged'] == {first + i for first in (JUDGED, NULL_SEEDS) for i in range(4)}
    bench_of(task, known, first_seed=100).run(tmp_path)
    later = {job.seed for job in known.ended if job.length == 2 * found.budget} - seeds['judged']
    assert later == {first + 100 + i for first in (JUDGED, NULL_SEEDS) for i in range(4)}
    row = {row.contender: row for row in result.rows}
    assert result.rows[0].contender == NULL and row[NULL].mean.low <= 1 <= row[NULL].mean.high
    assert row['keras.Lion'].mean.value == pytest.approx(1.5, rel=0.15)
    assert row['keras.SGD'].mean.value == pytest.approx(0.5, rel=0.15)
    assert str(result).startswith(f'keras.AdamW against itself on fresh seeds reads {result.rows[0].mean}')


def test_what_was_trained_before_an_end_is_not_trained_again_and_nothing_else_differs(tmp_path, task):
    whole = bench_of(task).run(tmp_path / 'whole')
    first, second = Known(dies_after=30), Known()
    with pytest.raises(RunError, match='died'):
        bench_of(task, first).run(tmp_path / 'parts')
    parts = bench_of(task, second).run(tmp_path / 'parts')
    assert parts.tasks == whole.tasks and not set(first.ended) & set(second.ended)
    assert (tmp_path / 'parts/curves.csv').read_text() == (tmp_path / 'whole/curves.csv').read_text()
    bench_of(task, third := Known(), contenders=('keras.SGD', 'keras.Lion', 'lion')).run(tmp_path / 'parts')
    assert {job.contender.partition(' with ')[0] for job in third.ended} == {'lion'}


def test_results_are_a_table_that_others_can_read(tmp_path, task):
    result = bench_of(task).run(tmp_path)
    with (tmp_path / 'curves.csv').open(encoding='utf-8', newline='') as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS and {row['task'] for row in rows} == {'a'}
    judged = [row for row in rows if row['optimizer'] == 'keras.SGD' and row['seed'] == str(JUDGED)]
    losses = [-float(row['measure']) for row in sorted(judged, key=lambda row: int(row['steps']))]
    assert losses == list(result.tasks[0].losses['keras.SGD'][0])
    summary = json.loads((tmp_path / 'summary.json').read_text())
    assert BenchResult.of_json(summary).tasks == result.tasks and summary['verdict'] == result.verdict


def test_with_a_schedule_trainings_of_several_lengths_are_compared(tmp_path, task):
    result = bench_of(task, known := Known(), schedule='cosine', contenders=('keras.SGD',)).run(tmp_path)
    (found,) = result.tasks
    assert found.is_ladder and len(found.steps) == len(LENGTHS)
    assert {job.length for job in known.ended} == set(found.steps)
    assert result.rows[1].mean.value == pytest.approx(0.5, rel=0.1)
    assert bench_of(task, contenders=('m * linear',)).is_ladder(task)  # it reads how much of the training is done
    assert bench_of(task).is_ladder(dataclasses.replace(task, schedule='linear')) and not bench_of(task).is_ladder(task)


@pytest.mark.parametrize('schedule', ['constant', 'cosine'])
def test_where_losses_alone_are_compared_no_training_is_longer_than_the_task(tmp_path, task, schedule):
    result = bench_of(task, known := Known(), schedule=schedule, lengths=(1.0,)).run(tmp_path)
    assert {job.length for job in known.ended} == {result.tasks[0].budget} == {result.tasks[0].steps[-1]}
    assert result.tasks[0].gain('keras.Lion', 'keras.AdamW').mean > 0
    assert str(result).startswith('No training is longer than the task')
    with pytest.raises(ValueError, match=r'^Bench.lengths = \(2.0,\): must have 1 among them'):
        bench_of(task, lengths=(2.0,))


def test_one_more_hyper_parameter_is_tuned_where_there_is_one(tmp_path, task):
    named = ('keras.SGD', 'keras.SGD with momentum=0.9', 'keras.RMSprop', 'keras.Adam with beta_2=0.99', 'sgd', 'adam')
    (found,) = bench_of(task, contenders=named, seeds=1).run(tmp_path).tasks
    texts = {name: tuple(of) for name, of in found.bowls.items()}
    assert texts['keras.SGD'] == ('keras.SGD',) and texts['sgd'] == ('sgd',)
    assert texts['keras.SGD with momentum=0.9'][1:] == ('keras.SGD with momentum=0.8', 'keras.SGD with momentum=0.95')
    assert texts['keras.RMSprop'][1:] == ('keras.RMSprop with rho=0.95', 'keras.RMSprop with rho=0.99')
    assert texts['keras.Adam with beta_2=0.99'][1] == 'keras.Adam with beta_2=0.99, beta_1=0.8'
    assert texts['adam'][1:] == ('adam with beta_2=0.95', 'adam with beta_2=0.99')
    (quick,) = bench_of(task, **{**QUICK, 'contenders': named}).run(tmp_path / 'quick').tasks
    assert {len(of) for of in quick.bowls.values()} == {1}


def test_a_second_hyper_parameter_is_tuned_at_the_best_value_of_the_first(tmp_path, task):
    choices = {'beta_2': (0.95, 0.999), 'beta_1': (0.8, 0.9), 'epsilon': (1e-8, 1e-4)}
    arguments = {'contenders': ('keras.SGD', 'keras.Lion', 'adam'), 'choices': choices, 'seeds': 1}
    (found,) = bench_of(task, **arguments, hyper_parameters=2).run(tmp_path).tasks
    for name, keys in {'keras.AdamW': ('beta_2', 'beta_1'), 'adam': ('beta_2', 'beta_1'), 'keras.SGD': ()}.items():
        bowls, best = dict(found.bowls[name]), name
        for key in keys:
            tried = [text for text in bowls if text.rpartition(' ')[2].startswith(key)]
            beside = {text.rpartition(f'{key}=')[0].rstrip(' ,').removesuffix(' with') for text in tried}
            assert tried and beside == {best}
            best = min([best, *tried], key=lambda text: min(bowls[text].values()))
        assert found.setting(name)[0] == best and len(bowls) == 1 + len(keys)
    assert bench_of(task, **arguments).identity()['Bench.contenders']['adam'] == ['adam', 'beta_2']
    assert bench_of(task, **arguments, hyper_parameters=9).identity()['Bench.contenders']['adam'] == ['adam', *choices]


def test_two_that_are_one_at_another_setting_are_both_tuned(tmp_path, task):
    named = ('keras.AdamW with beta_2=0.95', 'keras.SGD')
    result = bench_of(task, known := Known(), contenders=named, seeds=1).run(tmp_path)
    (found,) = result.tasks
    assert found.setting('keras.AdamW')[0] == named[0] == found.setting(named[0])[0].partition(',')[0]
    assert len(known.ended) == len(set(known.ended))


def test_a_directory_of_another_kind_is_left_alone(tmp_path, task):
    (tmp_path / 'results.sqlite').touch()
    with pytest.raises(RunError, match=r'holds a run of another kind \(results.sqlite\)'):
        bench_of(task).run(tmp_path)


def test_tasks_may_be_a_suite_or_gains(task):
    other = make('two inputs', jit_compile=False)
    made = Bench(tasks={'s': Suite((Gain(task), other)), 'b': Gain(task)})
    assert made.tasks == {'s-1': task, 's-2': other, 'b': task}


@pytest.mark.parametrize(
    ('given', 'said'),
    [
        ({'contenders': ('adam', 'adam + adam')}, r"^Bench.contenders: 'adam' and 'adam \+ adam' are one optimizer at"),
        ({'contenders': ('keras.SGD', 'keras.SGD with momentum=0.0')}, 'are one optimizer'),
        ({'contenders': ('keras.Sgd',)}, r"keras.optimizers has no 'Sgd'"),
        ({'contenders': {'x': 3}}, r"^Bench.contenders: 'x' is 3: must be an optimizer as text, or a function"),
        ({'contenders': {NULL: 'keras.Lion'}}, "^Bench.contenders: the name 'null control' is taken"),
        ({'contenders': {'keras.AdamW': 'keras.Lion'}}, "^Bench.contenders: the name 'keras.AdamW' is taken"),
        ({'contenders': {'lion': lambda rate: rate}}, "^Bench.contenders: the name 'lion' is taken"),
        ({'contenders': {'mine': lambda rate: None}}, "^optimizer 'mine': returned None: must be a function of a"),
        ({'contenders': 'keras.Lion'}, "^Bench.contenders = 'keras.Lion': must be texts, or names with texts and func"),
        ({'contenders': ('sgd', 'sgd')}, '^Bench.contenders = .*: none may be there twice'),
        ({'tasks': {'a': make('regression'), 'A': make('regression')}}, '^Bench.tasks: a, A: each must have a name of'),
        ({'schedule': 'step'}, r"^Bench.schedule = 'step': choose from constant, linear, cosine"),
        ({'tasks': {}}, r'^Bench.tasks = {}: must be'),
        ({'tasks': {'a': 3}}, r"^Bench.tasks\['a'\] = 3: must be a task that can be made longer"),
        ({'tasks': {'../a': make('regression')}}, r"^Bench.tasks: the name '../a' must be of letters"),
        ({'choices': {'beta_2': ()}}, r"^Bench.choices\['beta_2'\] = \(\): must be numbers, at least one"),
        ({'seeds': 10_001}, r'^Bench.seeds = 10001: must be a whole number, at least 1 and at most 10,000'),
        ({'first_seed': 9_999}, r'^Bench.first_seed = 9999: with Bench.seeds, must be at most 10000'),
        ({'seeds': 0}, r'^Bench.seeds = 0: must be a whole number, at least 1'),
    ],
)
def test_what_does_not_fit_is_said(task, given, said):
    with pytest.raises(ValueError, match=said):
        Bench(**{'tasks': {'a': task}, **given})


def test_a_reference_that_learns_nothing_ends_the_bench(tmp_path, task):
    class Hopeless(Known):
        def loss(self, job, step):
            return 1e3

    with pytest.raises(RunError, match='^a: keras.AdamW reaches a measure of -1000 at best, and the untrained'):
        bench_of(task, Hopeless()).run(tmp_path)


def test_what_the_figures_do_not_show_is_said(tmp_path, task):
    class Odd(Known):
        def loss(self, job, step):
            if job.contender.startswith('keras.AdamW'):
                return (-1.0 if job.seed < NULL_SEEDS else 0.0) if step > 8 else 0.5
            return -0.5

    odd = bench_of(task, Odd(), contenders=('keras.SGD',), seeds=1).run(tmp_path)
    told = str(odd)
    assert '1 seeds, and intervals need 3: believe nothing yet' in told
    assert 'On a nobody reaches the target, but for keras.AdamW on its own seeds.' in told
    assert 'gains, which are logarithms, are undefined' in told and np.isnan(odd.rows[0].gain)


def test_a_real_bench_in_this_process(tmp_path, task):
    mine = {'keras.SGD': 'keras.SGD', 'mine': lambda rate: keras.optimizers.Adam(rate, beta_2=0.95)}
    arguments = {'learning_rates': (0.01, 0.1), 'choices': {}, 'tuning_seeds': 1, 'seeds': 3}
    result = bench(task, mine, run_dir=tmp_path, evaluator=InProcess(), **arguments)
    assert {row.contender for row in result.rows} == {NULL, 'keras.SGD', 'mine'} and result.seeds == 3
    assert all(seconds > 0 for seconds in result.tasks[0].step_seconds.values())
