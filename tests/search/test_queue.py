"""The queue: outcomes are on file when they come out, and nothing is trained that need not be."""

import pytest

from nos_tf.dsl.rule import UpdateRule
from nos_tf.errors import RunError
from nos_tf.evaluation.jobs import Job
from nos_tf.search.queue import Queue
from nos_tf.search.tally import Tally
from nos_tf.store.results import Store
from nos_tf.store.schema import Checkpoint, StoredChild
from nos_tf.tasks.child import Child
from tests.scripted import G, M, Scripted


def opened(run_dir, evaluator, **shortcuts):
    """A store and a queue."""
    store = Store(run_dir, {'Search.seed': 0}, 'task')
    evaluator.start(Child(), 1)
    return store, Queue(store, evaluator, Child(), **shortcuts)


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
    account = Tally()
    for row in store.results():
        account.add(row)
    return account


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


def test_what_is_trained_by_name_is_trained(tmp_path):
    evaluator = Scripted()
    store, queue = opened(tmp_path, evaluator, reject_untrainable=True, merge_equal_functions=True)
    evaluate(queue, [*EQUAL[:3], SHORT[3]], by_name=True)
    assert asked(evaluator) == [str(rule.canonical()) for rule in (*EQUAL[:3], SHORT[3])]
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
    monkeypatch.setattr('nos_tf.search.queue.time.monotonic', lambda: clock[0])
    store, queue = opened(tmp_path, evaluator)
    for rule in (G, M, UpdateRule.parse('adam').canonical()):
        queue.put(Job(rule, 0))
    assert queue.status() == {'utilisation': 0.0, 'queue': 1.0}
    clock[0] = 104.0
    queue.wait()
    assert queue.status() == {'utilisation': 3 / 8, 'queue': 0.0}
    store.close()
