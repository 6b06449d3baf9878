"""Trials: nothing is lost between sampling and learning, outcomes are on file, and nothing needless is trained."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from nos_tf.controller.learners import RandomSearch
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.space import SearchSpace
from nos_tf.errors import RunError
from nos_tf.evaluation.jobs import Job
from nos_tf.evaluation.machine import is_of_machine
from nos_tf.search.tally import Tally
from nos_tf.search.trials import Queue, Trials
from nos_tf.store.results import Store
from nos_tf.store.schema import Checkpoint, StoredChild
from nos_tf.tasks.child import Outcome
from tests.scripted import G, M, Scripted
from tests.tasks.small import SETUP

SPACE = SearchSpace(iterations=1)
WORKERS, BATCH = 6, 4


class Line:
    """A queue whose jobs end when the test says so: a number of them, the first or the last that came."""

    def __init__(self):
        self.under_way, self.ended, self.puts = [], {}, 0
        self.order = 0

    @property
    def running(self):
        return len(self.under_way)

    def put(self, job):
        self.puts += 1
        if job in self.ended:
            return True
        if job not in self.under_way:
            self.under_way.append(job)
        return False

    def wait(self):
        job = self.under_way.pop(self.order)
        self.ended[job] = Outcome(len(self.ended) / 1000, 0.1, (), 1.0)
        return {job: self.ended[job]}

    def known(self, job):
        return self.ended[job]


def trials_of(line, **how):
    return Trials(line, SPACE, 0, batch_size=BATCH, **how)


def quiet(_):
    pass


@pytest.fixture
def agent():
    return RandomSearch().start(SPACE, 0)


def numbers(arrivals):
    return [sample.number for sample in arrivals.samples]


def learned(trials):
    """What saving a batch does to trials."""
    trials.version += 1


def test_synchronously_a_batch_is_whole_and_in_the_order_of_sampling(agent):
    line = Line()
    line.order = -1  # the last begun is the first to end
    trials = trials_of(line)
    for batch in range(3):
        trials.fill(agent.propose, 10 - BATCH * batch)
        assert len(trials) == min(BATCH, 10 - BATCH * batch)
        arrivals = trials.take(10, quiet)
        first = BATCH * batch
        assert numbers(arrivals) == list(range(first, min(first + BATCH, 10)))
        assert arrivals.staleness.tolist() == [0] * len(arrivals.samples) and arrivals.fresh.all()
        expected = agent.propose(len(arrivals.samples), batch)
        choices, rewards, log_probs = arrivals.batch()
        np.testing.assert_array_equal(choices, expected.choices)
        np.testing.assert_array_equal(log_probs, expected.log_probs)
        assert rewards.tolist() == [np.float32(line.known(s.job).reward) for s in arrivals.samples]
        learned(trials)
    assert len(trials) == 0 and trials.state() == {} and trials.status(arrivals) == {}


def test_asynchronously_no_worker_waits_and_the_first_to_arrive_are_the_batch(agent):
    line = Line()
    trials = trials_of(line, workers=WORKERS)
    seen = []
    for _ in range(20):
        trials.fill(agent.propose, 1000)
        assert line.running >= WORKERS + BATCH
        arrivals = trials.take(1000, quiet)
        assert line.running >= WORKERS  # while the learner learns
        assert len(arrivals.samples) == BATCH and arrivals.fresh.all()
        assert arrivals.staleness.max() <= 3
        assert trials.status(arrivals)['in_flight'] == len(trials) >= line.running
        assert trials.status(arrivals)['largest_staleness'] == arrivals.staleness.max()
        seen += [sample.job for sample in arrivals.samples]
        learned(trials)
    assert list(dict.fromkeys(seen)) == list(line.ended)[: len(set(seen))]  # in the order in which they ended


def test_rewards_on_file_arrive_at_once(agent):
    line = Line()
    trials = trials_of(line, workers=WORKERS)

    def same(count, draw):
        return agent.propose(count, 0)

    trials.fill(same, 100)
    sampled = len(trials)
    assert sampled == 100 and line.running == BATCH  # there are no other programs to keep workers busy
    trials.take(100, quiet)
    line.wait(), line.wait(), line.wait()
    waits = line.running
    trials.fill(same, 96)
    assert trials.take(96, quiet) is not None and line.running <= waits


def test_the_budget_is_kept_to_the_child(agent):
    line = Line()
    trials = trials_of(line, workers=WORKERS)
    taken = []
    while (missing := 30 - len(taken)) > 0:
        trials.fill(agent.propose, missing)
        taken += numbers(trials.take(missing, quiet))
        learned(trials)
    assert sorted(taken) == list(range(30)) and len(trials) == 0 and line.running == 0


def test_what_is_too_stale_counts_but_is_not_learned_from(agent):
    line = Line()
    trials = trials_of(line, workers=WORKERS, max_staleness=3)
    trials.fill(agent.propose, 1000)
    straggler = line.under_way.pop(0)
    seen = []
    for batch in range(12):
        if batch == 8:
            line.under_way.insert(0, straggler)
        trials.fill(agent.propose, 1000)
        arrivals = trials.take(1000, quiet)
        assert len(arrivals.samples) == BATCH and len(arrivals.batch()[0]) == arrivals.fresh.sum()
        assert line.running >= WORKERS - 1  # but for the straggler
        seen += zip(numbers(arrivals), arrivals.staleness, arrivals.fresh, strict=True)
        learned(trials)
    stale = [(number, staleness) for number, staleness, fresh in seen if not fresh]
    assert stale == [(0, 8)]
    assert len({number for number, *_ in seen}) == len(seen)


def test_a_bound_that_most_children_would_break_is_refused():
    with pytest.raises(RunError, match=r'Search.max_staleness = 1: with 6 workers and batches of 4 .* about 3'):
        trials_of(Line(), workers=WORKERS, max_staleness=1)


@pytest.mark.parametrize('kept', [True, False])
def test_trials_go_on_where_they_were_and_nothing_sampled_is_lost(agent, kept):
    line = Line()
    trials = trials_of(line, workers=WORKERS)
    for _ in range(5):
        trials.fill(agent.propose, 1000)
        trials.take(1000, quiet)
        learned(trials)
    state, under_way = trials.state(), list(line.under_way)
    line.wait()  # filed, but not learned from
    other = Line()
    other.ended = dict(line.ended) if kept else {}
    resumed = trials_of(other, workers=WORKERS)
    resumed.restore(state, trials.version)
    assert len(resumed) == len(trials) and resumed.version == trials.version
    assert other.under_way == (under_way[1:] if kept else under_way)
    draws = []
    resumed.fill(lambda count, draw: draws.append(draw) or agent.propose(count, draw), 1000)
    arrivals = resumed.take(1000, quiet)
    again, expected = resumed.state(), trials.state()
    assert [s.job for s in arrivals.samples] == under_way[:BATCH]
    assert draws == list(range(int(expected['flight_draws']), int(again['flight_draws'])))


def opened(run_dir, evaluator, **shortcuts):
    """A store and a queue."""
    store = Store(run_dir, {'Search.seed': 0}, SETUP.identity())
    evaluator.start(SETUP)
    return store, Queue(store, evaluator, SETUP, **shortcuts)


def evaluate(queue, rules, **how):
    """The rewards of rules, in their order."""
    jobs = [Job(rule.canonical(), 0) for rule in rules]
    waiting = {job for job in jobs if not queue.put(job, **how)}
    while waiting:
        ended = queue.wait()
        assert ended and waiting.issuperset(ended)
        waiting -= set(ended)
    assert queue.running == 0
    return [queue.known(job).reward for job in jobs]


def tally(store):
    """The account of all children."""
    return Tally.of(store.results())


def test_rewards_come_in_the_order_of_the_rules_and_each_program_trains_once(tmp_path):
    evaluator = Scripted()
    store, queue = opened(tmp_path, evaluator)
    commuted = UpdateRule.parse('g m x x +'), UpdateRule.parse('m g x x +')
    rewards = evaluate(queue, [G, M, G, *commuted, M])
    assert rewards == [0.5, 0.25, 0.5, 0.25, 0.25, 0.25]
    assert evaluator.asked == [Job(G, 0), Job(M, 0), Job(commuted[0].canonical(), 0)]
    evaluate(queue, [M, G])
    assert len(evaluator.asked) == 3
    store.close()


EQUAL = [UpdateRule.parse(text) for text in ('g', 'exp(log(exp(g)))', 'exp(g)', 'exp(g) * 1')]
SHORT = [UpdateRule.parse(text) for text in ('g', 'm', 'sign(exp(g))', '1', 'drop(1, 0.3)')]


def asked(evaluator):
    return [str(job.program) for job in evaluator.asked]


def origins(store, rules):
    """Where the rewards are from: of rules whose rewards are on file, in the order of the rules."""
    store.save_batch([StoredChild(0, 0, rule, -1.0) for rule in rules], 0, Checkpoint(1, 1.0, {}))
    return [row.origin for row in store.results()]


def test_equal_functions_are_counted_and_train_all_the_same(tmp_path):
    evaluator = Scripted()
    store, queue = opened(tmp_path, evaluator)
    assert evaluate(queue, EQUAL) == [0.5, 0.25, 0.25, 0.25]
    assert asked(evaluator) == ['g', 'exp(log(exp(g)))', 'exp(g)']
    assert origins(store, EQUAL) == ['trained'] * 4
    assert (tally(store).hits, tally(store).equal_functions, tally(store).merged) == (1, 1, 0)
    store.close()


def test_equal_functions_share_one_training_where_that_is_wished(tmp_path):
    evaluator = Scripted()
    store, queue = opened(tmp_path, evaluator, merge_equal_functions=True)
    assert evaluate(queue, EQUAL) == [0.5, 0.25, 0.25, 0.25]
    assert asked(evaluator) == ['g', 'exp(log(exp(g)))']  # the first in the batch trains
    assert origins(store, EQUAL) == ['trained', 'trained', *[f'equal to {" ".join(EQUAL[1].tokens)}'] * 2]
    assert (tally(store).hits, tally(store).equal_functions, tally(store).merged) == (1, 1, 1)
    later = UpdateRule.parse('exp(g) * sign(exp(m))')
    assert evaluate(queue, [G, later]) == [0.5, 0.25]
    assert len(evaluator.asked) == 2
    store.close()


def test_one_program_stands_for_all_of_a_function_where_functions_are_merged(tmp_path):
    rules = [UpdateRule.parse(text).canonical() for text in ('g', 'exp(log(exp(g)))', 'exp(g)', 'drop(g, 0.1) * m')]
    for merge, stand in ((True, [0, 1, 1, 3]), (False, [0, 1, 2, 3])):
        store, queue = opened(tmp_path / str(merge), Scripted(), merge_equal_functions=merge)
        assert [queue.shared(rule) for rule in rules] == [rules[number] for number in stand]
        store.close()


def test_random_rules_share_no_training_but_that_of_their_program(tmp_path):
    rules = [UpdateRule.parse(text) for text in ('drop(g, 0.1) * (m * v)', '(drop(g, 0.1) * m) * v', 'noise', 'noise')]
    evaluator = Scripted()
    store, queue = opened(tmp_path, evaluator, merge_equal_functions=True)
    evaluate(queue, rules)
    assert asked(evaluator) == [str(rule.canonical()) for rule in rules[:3]]
    assert origins(store, rules) == ['trained'] * 4 and tally(store).equal_functions == 0
    assert {row.fingerprint for row in store.results()} == {None}
    store.close()


@pytest.mark.parametrize('merge', [False, True])
def test_multiples_of_a_rule_share_its_training_where_rates_are_fine(tmp_path, merge):
    setup, evaluator = dataclasses.replace(SETUP, child=dataclasses.replace(SETUP.child, refine=True)), Scripted()
    evaluator.start(setup)
    store = Store(tmp_path, {'Search.seed': 0}, setup.identity())
    queue = Queue(store, evaluator, setup, merge_equal_functions=merge)
    rules = [UpdateRule.parse(text).canonical() for text in ('adam + adam', 'g + g', 'adam', '(g + g) + (g + g)')]
    jobs = [Job(rule, 0) for rule in rules]
    assert [queue.put(job) for job in jobs] == [False] * 4
    assert asked(evaluator) == ['adam', 'g'] and queue.running == 2
    assert {job.program.infix for job in queue.wait()} == {'g', 'g + g', str(rules[3])}
    assert {job.program.infix for job in queue.wait()} == {'adam', 'adam + adam'}
    assert [queue.known(job).reward for job in jobs] == [0.25, 0.5, 0.25, 0.5]
    assert [queue.known(job).learning_rate for job in jobs] == [0.05, 0.05, 0.1, 0.025]
    assert origins(store, rules) == [
        f'equal to {" ".join(rules[2].tokens)}', f'equal to {" ".join(G.tokens)}', 'trained',
        f'equal to {" ".join(G.tokens)}',
    ]  # fmt: skip
    later = Job(rules[0], 1)  # another seed
    assert not queue.put(later) and queue.wait().keys() == {Job(rules[2], 1), later}
    store.close()


@pytest.mark.parametrize('merge', [False, True])
def test_what_cannot_train_gets_the_reward_of_chance_where_that_is_wished(tmp_path, merge):
    evaluator = Scripted()
    store, queue = opened(tmp_path, evaluator, reject_untrainable=True, merge_equal_functions=merge)
    assert evaluate(queue, SHORT) == pytest.approx([0.5, 0.25, 0.1, 0.1, 0.1])  # ten digits
    assert asked(evaluator) == ['g', 'm']
    reasons = ['is constant', 'reads no gradient', 'reads no gradient']
    assert origins(store, SHORT) == ['trained', 'trained', *(f'rejected: {reason}' for reason in reasons)]
    assert (tally(store).rejected, tally(store).equal_functions, store.trained(0)) == (3, 1, 2)
    store.close()
    store, queue = opened(tmp_path, evaluator, reject_untrainable=True, merge_equal_functions=merge)
    evaluate(queue, SHORT[::-1])
    assert len(evaluator.asked) == 2
    store.close()


def test_where_a_task_knows_no_chance_what_cannot_train_trains(tmp_path):
    setup, evaluator = dataclasses.replace(SETUP, task=SimpleNamespace(chance=None)), Scripted()
    evaluator.start(setup)
    store = Store(tmp_path, {'Search.seed': 0}, SETUP.identity())
    assert evaluate(Queue(store, evaluator, setup, reject_untrainable=True), SHORT[3:]) == [0.25, 0.25]
    assert asked(evaluator) == [str(rule.canonical()) for rule in SHORT[3:]]
    store.close()


def test_what_is_trained_by_name_is_trained(tmp_path):
    evaluator = Scripted()
    store, queue = opened(tmp_path, evaluator, reject_untrainable=True, merge_equal_functions=True)
    evaluate(queue, [*EQUAL[:3], SHORT[3]], by_name=True)
    assert asked(evaluator) == [str(rule.canonical()) for rule in (*EQUAL[:3], SHORT[3])]
    store.close()


def test_what_is_trained_by_name_is_told_as_it_ends(tmp_path):
    evaluator = Scripted()
    store, queue = opened(tmp_path, evaluator, reject_untrainable=True, merge_equal_functions=True)
    jobs = [Job(rule.canonical(), 7) for rule in (*EQUAL[1:3], SHORT[3])]
    told = []
    assert list(queue.train([*jobs, jobs[0]], told.append)) == jobs[::-1]
    assert evaluator.asked == jobs and told == [1, 2, 3]
    store.close()


def test_what_was_paid_for_is_on_file_when_a_later_training_fails(tmp_path):
    store, queue = opened(tmp_path, Scripted(fail_on=[G]))
    with pytest.raises(RunError, match='no such luck'):
        evaluate(queue, [G, M])  # M is the first to end
    store.close()
    again = Scripted()
    store, queue = opened(tmp_path, again)
    evaluate(queue, [G, M])
    assert again.asked == [Job(G, 0)]
    store.close()


def test_another_machine_trains_for_itself_and_keeps_what_was_there(tmp_path):
    def store_of(processor, **how):
        of_machine = {'processor': processor}
        task = {**SETUP.identity(), **of_machine}
        return Store(tmp_path, {'Search.seed': 0, **of_machine}, task, is_of_machine=is_of_machine, **how)

    trained = []
    for processor in ('old', 'new', 'new'):
        evaluator = Scripted()
        evaluator.start(SETUP)
        store = store_of(processor, allow_mixed=True)
        evaluate(Queue(store, evaluator, SETUP), [G])
        trained.append((len(evaluator.asked), store.trained(0)))
        store.close()
    assert trained == [(1, 1), (1, 2), (0, 2)]
    with pytest.raises(RunError, match='processor'):
        store_of('new')


def test_a_follower_ends_with_its_leader_and_a_job_under_way_is_not_asked_for_again(tmp_path):
    evaluator = Scripted()
    store, queue = opened(tmp_path, evaluator, merge_equal_functions=True)
    leader, follower, other = (Job(rule.canonical(), 0) for rule in (EQUAL[1], EQUAL[2], M))
    assert [queue.put(job) for job in (leader, follower, other, leader, follower)] == [False] * 5
    assert queue.running == 2 and evaluator.asked == [leader, other]
    assert list(queue.wait()) == [other]  # the last asked for is the first to end
    assert list(queue.wait()) == [leader, follower]
    assert queue.put(follower) and queue.running == 0 and queue.wait() == {}
    store.close()


def test_status_tells_what_waits_and_how_busy_workers_were(tmp_path, monkeypatch):
    evaluator = Scripted(seconds=3.0)
    evaluator.workers = 2
    clock = [100.0]
    monkeypatch.setattr('nos_tf.search.trials.time.monotonic', lambda: clock[0])
    store, queue = opened(tmp_path, evaluator)
    for rule in (G, M, UpdateRule.parse('adam').canonical()):
        queue.put(Job(rule, 0))
    assert queue.status() == {'utilisation': 0.0, 'queue': 1.0}
    clock[0] = 104.0
    queue.wait()
    assert queue.status() == {'utilisation': 3 / 8, 'queue': 0.0}
    store.close()
