"""A rule is held against what people use, on fresh seeds, and the verdict says what is true."""

import math

import pytest

from nos_tf.compare.bench import NULL, NULL_SEEDS
from nos_tf.compare.curves import Curve
from nos_tf.compare.verification import Margin, Verdict, Verification
from nos_tf.dsl.rule import UpdateRule
from tests.scripted import Scripted
from tests.tasks.models import make

FACTOR = {'keras.SGD': 2.0, 'keras.Lion': 0.5}  # of the loss of the rule


class Known(Scripted):
    """Losses by the name of an optimizer; those of one seed are larger or smaller for everyone."""

    def start(self, setup):
        super().start(setup)
        self.setup = setup

    def collect(self):
        job = self.queue.pop(0)
        steps = tuple(step for step in self.setup.measured if step <= job.length)
        name, _, told = job.contender.partition(' with ')
        luck = 0.3 * math.sin(7 * job.seed) + 0.01 * math.sin(job.seed * len(job.contender))
        off = abs(math.log10(job.rate) + 2) + 0.01 * (told != '')
        losses = [FACTOR.get(name, 1.0) * math.exp(-step / 40 + luck) + off for step in steps]
        return [(job, Curve(steps, tuple(-loss for loss in losses), tuple(losses), 1e-3, False))]


@pytest.fixture(scope='module')
def task():
    return make('regression', jit_compile=False)


def verification(**arguments):
    told = {'unseen': {'b': make('regression', epochs=3)}, 'seeds': 6}
    return Verification(**{'baselines': ('keras.AdamW', 'keras.SGD', 'keras.Lion', 'signum'), **told, **arguments})


def test_differences_are_paired_and_what_is_said_is_true(task, tmp_path):
    verdict = verification().run(task, UpdateRule.parse('sign(g) + sign(m)'), tmp_path, evaluator=Known())
    margins = {(margin.baseline, margin.task): margin for margin in verdict.margins}
    assert set(margins) == {
        (n, t) for n in (NULL, 'keras.AdamW', 'keras.SGD', 'keras.Lion', 'signum') for t in ('search', 'b')
    }
    for task, is_seen in (('search', True), ('b', False)):
        assert margins['keras.SGD', task].is_better and margins['keras.Lion', task].is_worse
        assert margins['keras.SGD', task].mean == pytest.approx(math.log(2), abs=0.02)
        assert margins['keras.SGD', task].half_width < 0.05  # what a seed does to all cancels
        assert margins['keras.AdamW', task].is_seen is is_seen
    assert not verdict.beats_all('search')
    assert str(verdict).startswith('sign(g) + sign(m), against 4 optimizers tuned with the same effort; 6 fresh seeds.')
    first, second = verdict.sentences()
    assert first.startswith('On the task of the search, it is better than ')
    assert 'worse than keras.Lion' in first
    assert second.startswith('On b, which the search has not seen, it is better than ')
    assert Verdict.of_json(verdict.as_json()) == verdict


def test_the_null_control_is_of_other_seeds(task, tmp_path, monkeypatch):
    seen = set()
    collect = Known.collect

    def noted(self):
        seen.add(self.queue[0].seed)
        return collect(self)

    monkeypatch.setattr(Known, 'collect', noted)
    verification().run(task, UpdateRule.parse('m * g'), tmp_path, evaluator=Known())
    assert sum(seed >= NULL_SEEDS for seed in seen) == 6


def test_a_baseline_that_is_the_rule_is_left_out(task, tmp_path):
    verdict = verification().run(task, UpdateRule.parse('sign(m) + sign(m)'), tmp_path, evaluator=Known())
    assert 'signum' not in {margin.baseline for margin in verdict.margins}


def test_one_with_other_constants_is_another_optimizer(task):
    baselines = ('keras.AdamW', 'adam', 'adam with beta_2=0.95')
    bench = verification(baselines=baselines).bench(task, UpdateRule.parse('adam + adam'))
    assert tuple(bench.contenders) == ('adam + adam', 'adam with beta_2=0.95')


def test_better_than_all_is_said_in_so_many_words():
    margins = [Margin(name, 'search-2', True, 0.2, 0.1, 0.001) for name in ('x', 'y')]
    verdict = Verdict('g', [Margin(NULL, 'search-2', True, 0.9, 0.1, 0.5), *margins], 5)
    assert verdict.beats_all('search-2') and list(verdict.sentences()) == [
        'On task 2 of the search, it is better than all of them.'
    ]
    worst = Verdict('g', [margin._replace(mean=-0.2) for margin in margins], 5)
    assert list(worst.sentences()) == ['On task 2 of the search, it is worse than all of them.']
    even = Verdict('g', [*margins, Margin('z', 'search-2', True, 0.2, 0.3, 0.2)], 5)
    assert not even.beats_all('search-2') and 'not to be told from z' in next(iter(even.sentences()))


@pytest.mark.parametrize(
    ('given', 'said'),
    [
        ({'unseen': {'search': make('regression')}}, "^Verification.unseen: 'search' is a name of tasks of the search"),
        ({'unseen': {'search-2': make('regression')}}, "^Verification.unseen: 'search-2' is a name of tasks"),
        ({'baselines': ('momentum',)}, '^Verification.baselines: m is the only one'),
        ({'unseen': {'b': 3}}, r"^Bench.tasks\['b'\] = 3"),
        ({'seeds': 1}, '^Verification.seeds = 1: must be'),
        ({'baselines': ('keras.Adamm',)}, "keras.optimizers has no 'Adamm'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_trains(task, given, said):
    with pytest.raises(ValueError, match=said):
        verification(**given).bench(task, UpdateRule.parse('m'))
