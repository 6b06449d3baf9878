import time

import numpy as np
import pytest

from nos_tf.controller.learners import RandomSearch
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.space import SearchSpace
from nos_tf.search import RunError
from nos_tf.search.evaluators import Job
from nos_tf.search.schema import FILE_NAME
from nos_tf.search.session import Session
from nos_tf.tasks.child import Child, Outcome

SPACE = SearchSpace(operands=('g', 'm'), unaries=('x',), binaries=('+',))
G, M = (UpdateRule.parse(name).canonical() for name in 'gm')


class Scripted:
    """Ends jobs in the reverse order, and fails where it is told to."""

    workers = 1
    origin = 'trained'

    def __init__(self, fail_on=()):
        self.fail_on, self.asked, self.closed = fail_on, [], 0

    def start(self, child, iterations):
        self.queue = []

    def submit(self, job):
        self.asked.append(job)
        self.queue.append(job)

    def collect(self):
        job = self.queue.pop()
        if job.program in self.fail_on:
            raise RunError('no such luck')
        return [(job, Outcome(0.5 if job.program == G else 0.25, 0.1, (0.5,), 0.0))]

    def close(self):
        self.closed += 1


def opened(run_dir, evaluator, **overrides):
    arguments = {'iterations': 1, 'identity': {'Search.seed': 0}, 'task': 'task', 'children': 10, **overrides}
    return Session(run_dir, child=Child(), evaluator=evaluator, **arguments)


def test_rewards_come_in_the_order_of_the_rules_and_each_program_trains_once(tmp_path):
    evaluator = Scripted()
    session = opened(tmp_path, evaluator)
    commuted = UpdateRule.parse('g m x x +'), UpdateRule.parse('m g x x +')
    rewards = session.evaluate([G, M, G, *commuted, M])
    assert rewards.tolist() == [0.5, 0.25, 0.5, 0.25, 0.25, 0.25]
    assert evaluator.asked == [Job(G, 0), Job(M, 0), Job(commuted[0].canonical(), 0)]
    session.evaluate([M, G])
    assert len(evaluator.asked) == 3
    session.close()
    assert evaluator.closed == 1


EQUAL = [UpdateRule.parse(text) for text in ('g', 'exp(log(exp(g)))', 'exp(g)', 'exp(g) * 1')]
SHORT = [UpdateRule.parse(text) for text in ('g', 'm', 'sign(exp(g))', '1', 'drop(1, 0.3)')]


def asked(evaluator):
    return [str(job.program) for job in evaluator.asked]


def origins(session, rules):
    """Where the rewards are from: of rules whose rewards are on file, in the order of the rules."""
    agent = RandomSearch().start(SPACE, 0)
    session.save(0, rules, agent.propose(len(rules), 0), agent)
    return [row.origin for row in session.store.results()]


def test_equal_functions_are_counted_and_train_all_the_same(tmp_path):
    evaluator = Scripted()
    session = opened(tmp_path, evaluator)
    assert session.evaluate(EQUAL).tolist() == [0.5, 0.25, 0.25, 0.25]
    assert asked(evaluator) == ['g', 'exp(log(exp(g)))', 'exp(g)']
    assert origins(session, EQUAL) == ['trained'] * 4
    assert (session.tally.hits, session.tally.equal_functions, session.tally.merged) == (1, 1, 0)
    session.close()


def test_equal_functions_share_one_training_where_that_is_wished(tmp_path):
    evaluator = Scripted()
    session = opened(tmp_path, evaluator, merge_equal_functions=True)
    assert session.evaluate(EQUAL).tolist() == [0.5, 0.25, 0.25, 0.25]
    assert asked(evaluator) == ['g', 'exp(log(exp(g)))']  # the first in the batch trains
    assert origins(session, EQUAL) == ['trained', 'trained', *[f'equal to {" ".join(EQUAL[1].tokens)}'] * 2]
    assert (session.tally.hits, session.tally.equal_functions, session.tally.merged) == (1, 1, 1)
    later = UpdateRule.parse('exp(g) * sign(exp(m))')
    assert session.evaluate([G, later]).tolist() == [0.5, 0.25]
    assert len(evaluator.asked) == 2
    session.close()


def test_random_rules_share_no_training_but_that_of_their_program(tmp_path):
    rules = [UpdateRule.parse(text) for text in ('drop(g, 0.1) * (m * v)', '(drop(g, 0.1) * m) * v', 'noise', 'noise')]
    evaluator = Scripted()
    session = opened(tmp_path, evaluator, merge_equal_functions=True, iterations=2)
    session.evaluate(rules)
    assert asked(evaluator) == [str(rule.canonical()) for rule in rules[:3]]
    assert origins(session, rules) == ['trained'] * 4 and session.tally.equal_functions == 0
    assert {row.fingerprint for row in session.store.results()} == {None}
    session.close()


@pytest.mark.parametrize('merge', [False, True])
def test_what_cannot_train_gets_the_reward_of_chance_where_that_is_wished(tmp_path, merge):
    evaluator = Scripted()
    session = opened(tmp_path, evaluator, reject_untrainable=True, merge_equal_functions=merge)
    assert session.evaluate(SHORT).tolist() == pytest.approx([0.5, 0.25, 0.1, 0.1, 0.1])  # ten digits
    assert asked(evaluator) == ['g', 'm']
    reasons = ['is constant', 'reads no gradient', 'reads no gradient']
    assert origins(session, SHORT) == ['trained', 'trained', *(f'rejected: {reason}' for reason in reasons)]
    assert (session.tally.rejected, session.tally.equal_functions, session.store.trained(0)) == (3, 1, 2)
    session.close()
    session = opened(tmp_path, evaluator, reject_untrainable=True, merge_equal_functions=merge)
    session.evaluate(SHORT[::-1])
    assert len(evaluator.asked) == 2
    session.close()


def test_what_is_trained_by_name_is_trained(tmp_path):
    """Fresh seeds, for which there are no short cuts."""
    evaluator = Scripted()
    session = opened(tmp_path, evaluator, reject_untrainable=True, merge_equal_functions=True)
    jobs = [Job(rule.canonical(), 7) for rule in (*EQUAL[:3], SHORT[3])]
    assert list(session.train(jobs, lambda done: None)) == jobs[::-1]
    assert evaluator.asked == jobs
    session.close()


def test_what_was_paid_for_is_on_file_when_a_later_training_fails(tmp_path):
    session = opened(tmp_path, Scripted(fail_on=[G]))
    with pytest.raises(RunError, match='no such luck'):
        session.evaluate([G, M])  # M is the first to end
    session.close()
    again = Scripted()
    session = opened(tmp_path, again)
    session.evaluate([G, M])
    assert again.asked == [Job(G, 0)]
    session.close()


def test_save_files_the_children_and_where_to_go_on(tmp_path):
    agent = RandomSearch().start(SPACE, 0)
    session = opened(tmp_path, Scripted())
    assert session.resume(agent) == 0
    samples = agent.propose(3, 0)
    rules = [SPACE.rule(choices) for choices in samples.choices]
    session.evaluate(rules)
    time.sleep(0.01)
    session.save(0, rules, samples, agent)
    session.log(np.zeros(3), {'entropy': 1.0})
    before = session.seconds
    assert session.tally.children == 3
    session.close()
    session = opened(tmp_path, Scripted())
    assert session.resume(agent) == 1
    assert [row.log_prob for row in session.store.results()] == [float(x) for x in samples.log_probs]
    assert session.tally.children == 3
    assert before - 1 < session.seconds < before + 60
    session.close()


def test_a_session_that_cannot_open_holds_nothing(tmp_path):
    session = opened(tmp_path, Scripted())
    late = Scripted()
    with pytest.raises(RunError, match='another process'):
        opened(tmp_path, late)
    session.close()
    with pytest.raises(RunError, match='Search.seed is 0 there and 1 here'):
        opened(tmp_path, late, identity={'Search.seed': 1})
    assert late.closed == 0
    opened(tmp_path, late).close()
    assert (tmp_path / FILE_NAME).exists()
