"""More seeds for the rules that seem best, and what the learner is told of them."""

import numpy as np
import pytest

from nos_tf.dsl.rule import UpdateRule
from nos_tf.evaluation.jobs import Job
from nos_tf.search.seeds import FIRST, Noise, Seeds
from nos_tf.tasks.child import Child, Outcome

RULES = [UpdateRule.parse(text).canonical() for text in ('g', 'm', 'sign(g)', 'sign(m)', 'adam')]
LUCK = {0: 0.2, FIRST + 1: -0.1, FIRST + 2: 0.0}  # of a seed, for the odd rules; the even ones have the opposite


def reward(job):
    number = RULES.index(job.program) if job.program in RULES else len(RULES)
    return number + LUCK[job.seed] * (1 if number % 2 else -1)


class Known:
    """A queue whose outcomes are known; counts what it trains."""

    def __init__(self):
        self.trained = []

    def shared(self, program):
        return Child(refine=True).form_of(program)[0]

    def known(self, job):
        return Outcome(reward(job), 0.1, (), 0.0)

    def train(self, jobs, report):
        self.trained += jobs
        return {job: self.known(job) for job in jobs}


def seeds(queue=None, most=3, promising=2):
    return Seeds(queue or Known(), 0, most, promising)


def test_the_best_rules_have_one_seed_more_after_each_batch_until_they_have_had_them_all():
    known = seeds(queue := Known())
    known.add(RULES[:3])
    known.train(lambda done: None)
    assert queue.trained == [Job(RULES[number], FIRST + 1) for number in (2, 1)]
    known.add(RULES[1:])
    for _ in range(3):
        known.train(lambda done: None)
    later = queue.trained[2:]
    assert later == [Job(RULES[number], FIRST + seed) for seed in (1, 2) for number in (4, 3)] and known.more == 6
    assert list(known.best(2)) == [RULES[4], RULES[3]]


def test_the_mean_is_shrunk_towards_that_of_the_promising_and_not_beyond():
    known = seeds(promising=4, most=2)
    known.add(RULES)
    assert [known.reward(rule) for rule in RULES] == [reward(Job(rule, 0)) for rule in RULES]  # no noise is known yet
    known.train(lambda done: None)
    values = [[reward(Job(rule, seed)) for seed in (0, FIRST + 1)] for rule in RULES[1:]]
    noise = np.mean([np.var(pair, ddof=1) for pair in values])
    means = np.mean(values, 1)
    between = np.var(means, ddof=1) - noise / 2
    assert Noise.of(values) == pytest.approx((means.mean(), noise, between))
    expected = means.mean() + (means[3] - means.mean()) * between / (between + noise / 2)
    assert known.reward(RULES[4]) == pytest.approx(expected) and expected < means[3]
    assert known.reward(RULES[1]) == pytest.approx(means[0])  # below the mean it is what it is
    assert known.reward(RULES[0]) == reward(Job(RULES[0], 0))


def test_rules_that_share_their_outcomes_are_one():
    twice = UpdateRule.parse('g + g').canonical()
    known = seeds()
    known.add(RULES[:2])
    known.add([twice])
    assert known.reward(twice) == known.reward(RULES[0]) and len(known.best(9)) == 2
    known = seeds()
    known.add([twice])
    assert list(known.best(1)) == [twice]  # what was sampled stands for its direction


def test_what_a_batch_that_was_not_saved_has_trained_is_not_known_after_a_restart():
    before = seeds()
    before.add(RULES)
    before.train(lambda done: None)
    state = before.state()
    expected = [before.reward(rule) for rule in RULES]
    before.train(lambda done: None)  # and then it is killed
    after = seeds(queue := Known())
    after.restore(state, RULES)
    assert [after.reward(rule) for rule in RULES] == expected and queue.trained == []
    after.train(lambda done: None)
    assert [after.reward(rule) for rule in RULES] == [before.reward(rule) for rule in RULES]
