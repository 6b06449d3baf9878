import time

import numpy as np
import pytest

from nos_tf.controller.learners import RandomSearch
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.space import SearchSpace
from nos_tf.search import RunError
from nos_tf.search.evaluators import Job
from nos_tf.search.session import Session
from nos_tf.search.store import FILE_NAME
from nos_tf.tasks.child import Child, Outcome

SPACE = SearchSpace(operands=('g', 'm'), unaries=('x',), binaries=('+',))
G, M = (UpdateRule.parse(name).canonical() for name in 'gm')


class Scripted:
    """Ends jobs in the reverse order, and fails where it is told to."""

    workers = 1

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
