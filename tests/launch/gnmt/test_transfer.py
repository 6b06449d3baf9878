"""The comparison: as many candidates for each, the best by validation, nothing trained twice."""

import dataclasses
import json
from contextlib import closing

import pytest

from gnmt import report
from gnmt.places import OneAtATime
from gnmt.recipe import Trained
from gnmt.trainer import TranslationSetup
from gnmt.transfer import Transfer
from nos_tf.errors import RunError
from nos_tf.evaluation import machine
from nos_tf.evaluation.in_process import InProcess
from nos_tf.evaluation.jobs import Evaluator
from nos_tf.evaluation.pool import ProcessPool
from nos_tf.report import report as search_report
from nos_tf.store.trainings import Key, Training, TrainingStore, read_trainings
from tests.launch.gnmt.small import RECIPE, point, trained
from tests.launching import run_here
from tests.report.test_report import fill

RATES = {'keras.Adam': (0.1, 0.2), 'others': (1.0, 2.0)}


class Pretends:
    """An evaluator: the nearer the rate is to 0.2 or 1, the better."""

    workers = 1

    def __init__(self):
        self.jobs, self.queue, self.fails_at = [], [], None

    def identity(self, setup):
        return setup.identity() | machine.identity()

    def start(self, setup):
        self.started = True

    def submit(self, job):
        self.queue.append(job)

    def collect(self):
        job = self.queue.pop()
        if len(self.jobs) == self.fails_at:
            raise RunError('no more')
        self.jobs.append(job)
        off = min(abs(job.rate - 0.2), abs(job.rate - 1.0)) + job.seed / 100
        points = [point(step, 10 / step + off, step) for step in range(1, job.length + 1)]
        return [(job, trained(*points, test_bleu=20.0 + job.seed if job.length == 6 else None))]

    def status(self):
        return {}

    def close(self):
        pass


def transfer(**change):
    values = {'learning_rates': RATES, 'candidate_steps': 2, 'seeds': 2, 'evaluator': Pretends(), **change}
    return Transfer(RECIPE, **values)


def test_validation_chooses_and_the_best_rate_gets_the_seeds(tmp_path):
    comparison = transfer()
    result = comparison.run(tmp_path)
    jobs = comparison.evaluator.jobs
    assert set(jobs[:4]) == {
        Training(rule, rate, 0, 2) for rule in comparison.rules for rate in comparison.rates_of(rule)
    }
    assert set(jobs[4:]) == {
        Training(*at, seed, 6) for at in (('keras.Adam', 0.2), ('powersign', 1.0)) for seed in (0, 1)
    }
    assert [run.test_bleu for run in result['powersign']] == [20.0, 21.0]
    assert json.loads((tmp_path / 'summary.json').read_text())['best rates'] == {'keras.Adam': 0.2, 'powersign': 1.0}


def test_some_may_have_fewer_seeds(tmp_path):
    result = transfer(seeds={'powersign': 1, 'others': 3}).run(tmp_path)
    assert {rule: len(runs) for rule, runs in result.items()} == {'keras.Adam': 3, 'powersign': 1}
    report.write(tmp_path)
    table = (tmp_path / 'tables.md').read_text()
    assert '| powersign: g * exp(sign(g) * sign(m)) | 1* | 1 | 2.00 | 1.67 | 20.0 |' in table
    assert '| powersign: g * exp(sign(g) * sign(m)) | +0.0 |' in table  # a single pair has no interval


def test_rates_and_seeds_are_for_an_optimizer_in_whatever_spelling():
    spelled = 'exp(sign(m) * sign(g)) * g'
    comparison = transfer(learning_rates={spelled: (0.1, 0.2), 'others': (1.0, 2.0)}, seeds={spelled: 1, 'others': 3})
    assert comparison.rates_of('powersign') == (0.1, 0.2) and comparison.seeds_of('powersign') == 1


def test_what_is_on_file_is_not_trained_again(tmp_path):
    broken = transfer()
    broken.evaluator.fails_at = 5
    with pytest.raises(RunError, match='no more'):
        broken.run(tmp_path)
    again = transfer()
    result = again.run(tmp_path)
    assert len(again.evaluator.jobs) == 3 and not set(again.evaluator.jobs) & set(broken.evaluator.jobs)
    once_more = transfer()
    assert once_more.run(tmp_path) == result and once_more.evaluator.jobs == []
    longer = transfer(rules=('keras.Adam', 'powersign', 'adam_powersign'))
    longer.run(tmp_path)
    assert {job.contender for job in longer.evaluator.jobs} == {'adam_powersign'}


def test_longer_trainings_go_on_and_shorter_ones_are_refused(tmp_path):
    transfer().run(tmp_path)
    for steps in (4, 8):
        again = Transfer(
            dataclasses.replace(RECIPE, steps=steps), learning_rates=RATES, candidate_steps=2, evaluator=Pretends()
        )
        if steps == 4:
            with pytest.raises(RunError, match=r'TranslationRecipe.steps = 4: .* has 6 steps in .* already'):
                again.run(tmp_path)
        else:
            again.run(tmp_path)
            assert {job.length for job in again.evaluator.jobs} == {8}
    late = Pretends()
    late.collect = lambda: [(late.queue.pop(), trained(point(2, 3.0)))]
    with pytest.raises(RunError, match='Transfer.candidate_steps = 1: the first point on file of '):
        transfer(candidate_steps=1, evaluator=late).run(tmp_path / 'late')


def test_a_directory_of_another_model_or_vocabulary_is_refused(tmp_path):
    transfer().run(tmp_path)
    other = Transfer(
        dataclasses.replace(RECIPE, subwords=61), learning_rates=RATES, evaluator=Pretends(), candidate_steps=2
    )
    with pytest.raises(
        RunError, match='another configuration or version: TranslationRecipe.subwords is 60 there and 61'
    ):
        other.run(tmp_path)


def test_another_machine_goes_on_where_that_is_allowed_and_the_page_says_so(tmp_path, monkeypatch):
    short = dataclasses.replace(RECIPE, steps=2, evaluate_every=2)
    arguments = {'rules': ('keras.Adam',), 'learning_rates': {'others': (0.1,)}, 'candidate_steps': 2}
    Transfer(short, **arguments, evaluator=InProcess()).run(tmp_path)
    here = machine.processor()
    monkeypatch.setattr(machine, 'processor', lambda: 'another')
    longer = Transfer(dataclasses.replace(short, steps=4), **arguments, evaluator=InProcess())
    with pytest.raises(RunError, match='processor is .* there and "another" here.*--allow_mixed'):
        longer.run(tmp_path)
    (run,) = longer.run(tmp_path, allow_mixed=True)['keras.Adam']
    assert [point.step for point in run.points] == [2, 4]  # from its checkpoint
    page = report.write(tmp_path).read_text(encoding='utf-8')
    assert f'Begun with processor = {here}, this was taken up on another machine, with processor = another' in page


def test_trainings_of_a_pool_and_of_all_threads_do_not_mix(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, 'threads', lambda: 4)
    setup = TranslationSetup(RECIPE, tmp_path)
    here, pool, alone, cluster = (
        evaluator.identity(setup)
        for evaluator in (InProcess(), ProcessPool(), OneAtATime(), OneAtATime(on_cluster=True))
    )
    assert pool['intra_op threads'] == 1
    assert here['intra_op threads'] == alone['intra_op threads'] == 4  # those that the process has
    assert cluster == {**alone, 'OneAtATime.on_cluster': True}
    assert all(identity.items() >= RECIPE.identity().items() for identity in (here, pool, alone, cluster))


def test_one_at_a_time_is_an_evaluator_and_knows_its_values():
    assert isinstance(OneAtATime(), Evaluator)
    for change, said in (({'on_cluster': 1}, 'on_cluster = 1: must be True'), ({'start_seconds': 0}, 'start_seconds')):
        with pytest.raises(ValueError, match=f'^OneAtATime.{said}'):
            OneAtATime(**change)


def test_a_run_that_has_gone_on_beyond_its_summary_is_not_drawn(tmp_path):
    transfer().run(tmp_path)
    broken = Transfer(
        dataclasses.replace(RECIPE, steps=8), learning_rates=RATES, candidate_steps=2, evaluator=Pretends()
    )
    broken.evaluator.fails_at = 1
    with pytest.raises(RunError, match='no more'):
        broken.run(tmp_path)
    with pytest.raises(RunError, match='goes on beyond the 6 steps of its summary.json, and has not finished'):
        report.write(tmp_path)


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (
            {'learning_rates': {'keras.Adam': (0.1,), 'others': (1.0, 2.0)}},
            "'powersign': 2} candidates: each optimizer",
        ),
        ({'learning_rates': {'keras.Adam': (0.1,)}}, r"those of 'powersign' are \(\)"),
        ({'learning_rates': (0.1,)}, r'Transfer.learning_rates = \(0.1,\): must be as'),
        ({'learning_rates': {'others': (0.0,)}}, 'must be positive numbers'),
        ({'rules': ('powersign', 'powersign')}, 'none twice'),
        ({'rules': ('powersign', 'exp(sign(m) * sign(g)) * g')}, 'none twice, in whatever spelling'),
        ({'rules': ('keras.Adam with loss_scale_factor=8',)}, 'loss_scale_factor changes nothing'),
        ({'rules': ('powersign with beta_2=0.5',)}, 'beta_2 changes nothing'),
        ({'learning_rates': {**RATES, 'keras.Adm': (1.0, 2.0)}}, "keras.optimizers has no 'Adm'"),  # but for others
        ({'learning_rates': {**RATES, 3: (1.0, 2.0)}}, 'Transfer.learning_rates: 3 must be an optimizer as text'),
        ({'seeds': {'powersign ': 1, 'powersign': 2, 'others': 1}}, "Transfer.seeds: 'powersign' is there twice"),
        (
            {
                'rules': ('keras.Adam with gradient_accumulation_steps=2', 'powersign'),
                'evaluator': OneAtATime(on_cluster=True),
            },
            'gradient_accumulation_steps is not for OneAtATime.on_cluster = True',
        ),
        ({'rules': 5}, 'Transfer.rules = 5: must be texts'),
        ({'learning_rates': {'others': (0.3, 0.3)}}, 'none may be there twice'),
        ({'rules': ('keras.Adams',)}, "keras.optimizers has no 'Adams'"),
        ({'candidate_steps': 7}, 'Transfer.candidate_steps = 7: a whole training has only 6'),
        ({'seeds': 0}, 'Transfer.seeds = 0: must be a whole number'),
        ({'seeds': {'keras.Adam': 2}}, "that of 'powersign' is None"),
        ({'seeds': {'keras.Adam': 2.5, 'others': 1}}, "that of 'keras.Adam' is 2.5"),
        ({'evaluator': Pretends}, r'Transfer.evaluator = .*: must be an Evaluator: an instance, in gin @Name\(\)'),
        ({'evaluator': 'here'}, r"Transfer.evaluator = 'here': must be an Evaluator: an instance, in gin @Name\(\)"),
    ],
)
def test_comparisons_that_cannot_be(change, said):
    with pytest.raises(ValueError, match=said):
        transfer(**change)


def test_text_that_does_not_fit_the_recipe_is_one_line(tmp_path):
    recipe = dataclasses.replace(RECIPE, subwords=5)
    for wrong, said in (
        (recipe, 'a vocabulary of 5: too small'),
        (dataclasses.replace(RECIPE, bounds=(2, 3)), 'no sentence has at most 3'),
    ):
        with pytest.raises(RunError, match=said):
            Transfer(wrong, learning_rates=RATES, candidate_steps=2, evaluator=InProcess()).run(tmp_path / said)


def test_trainings_survive_their_file(tmp_path):
    keys = [Key('powersign', 0.3, 0), Key('keras.Adam', 1e-3, 1)]
    runs = [trained(point(1, float('inf')), point(2, 3.5)), trained(point(6, 2.0), test_bleu=33.25, stopped=True)]
    with closing(TrainingStore(tmp_path, Trained, {'a': 1})) as store:
        for key, run in zip(keys, runs, strict=True):
            store.save(key, run)
    assert read_trainings(tmp_path, Trained) == dict(zip(keys, runs, strict=True))


@pytest.mark.parametrize(
    ('found', 'steps', 'is_done'),
    [
        (trained(point(2, 1.0)), 2, True),
        (trained(point(1, 1.0)), 2, False),
        (trained(point(6, 1.0)), 6, False),  # not tested yet
        (trained(point(6, 1.0), test_bleu=1.0), 6, True),
        (trained(point(1, 1.0), test_bleu=1.0, stopped=True), 6, True),
    ],
)
def test_when_a_job_is_done(found, steps, is_done):
    assert transfer()._is_done(Training('powersign', 1.0, 0, steps), found) is is_done


def test_the_report_has_table_2_beside_ours(tmp_path):
    with pytest.raises(RunError, match='holds no'):
        report.write(tmp_path)
    transfer().run(tmp_path)
    page = report.write(tmp_path).read_text()
    table = (tmp_path / 'tables.md').read_text()
    adam = next(line for line in table.splitlines() if line.startswith('| keras.Adam | 0.2'))
    cells = [cell.strip() for cell in adam.strip('|').split('|')]
    assert cells == [
        *('keras.Adam', '0.2*', '2', '2.00 ± 0.00', '1.67 ± 0.01', '20.5 ± 0.7', '2050.0 ± 70.7', '4.0 ± 0.0', '1'),
        *('1.49', '24.5'),
    ]
    assert 'Translation of NumberWords by a network as GNMT’s, 2 + 2 layers of 16, after 6 updates of 25 pairs' in table
    assert 'BLEU by sacrebleu: s.' in table and '% was waiting for batches.' in table
    assert 'Differences by seed: test BLEU' in table and '| +0.0 ± 0.0 |' in table
    assert '| keras.Adam | 0.1 | 5.10 |' in table and 'sign(g)' in page
    assert (tmp_path / 'curves.png').stat().st_size > 10_000
    (tmp_path / 'summary.json').unlink()
    with pytest.raises(RunError, match='has not finished'):
        report.write(tmp_path)


def test_the_report_of_a_search_shows_it_beside(tmp_path):
    search, translated = tmp_path / 'search', tmp_path / 'translated'
    fill(search)
    found = 'm * exp(v) + m'
    transfer(rules=('keras.Adam', found)).run(translated)
    run_here('report', 'draw', '--run_dir', str(search), '--beside', str(translated))
    text = (search / 'report.md').read_text(encoding='utf-8')
    assert '### Beside other optimizers: translated\n' in text and f'| {found} | 1* | 2 |' in text
    assert f'| translated | test BLEU | keras.Adam: 20.5 ± 0.7 | {found}: 20.5 ± 0.7 | 2 | +0.0 ± 0.0 | 0 | 0 |' in text
    assert '### Differences by seed: test BLEU: translated\n' in text and 'dashed those that have a name' in text
    assert (search / 'curves_translated.png').read_bytes() == report.draw(translated).curves
    with pytest.raises(RunError, match=r'trainings of another kind: gnmt.recipe.Trained, not nos_tf.tasks.training'):
        search_report.write(search, [translated])
