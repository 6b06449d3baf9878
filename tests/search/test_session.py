import time

import pytest

from nos_tf.controller.learners import RandomSearch
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.space import SearchSpace
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.errors import RunError
from nos_tf.evaluation.jobs import Job
from nos_tf.search.flight import Flight
from nos_tf.search.session import Session
from nos_tf.store.schema import FILE_NAME
from nos_tf.tasks.child import Child, Outcome
from tests.scripted import Scripted

SPACE = SearchSpace(operands=('g', 'm'), unaries=('x',), binaries=('+',))


def opened(run_dir, evaluator, **overrides):
    arguments = {
        'vocabulary': Vocabulary(1),
        'identity': {'Search.seed': 0},
        'task': 'task',
        'children': 10,
        **overrides,
    }
    return Session(run_dir, child=Child(), evaluator=evaluator, **arguments)


def test_what_is_trained_by_name_is_told_as_it_ends(tmp_path):
    evaluator = Scripted()
    session = opened(tmp_path, evaluator, reject_untrainable=True, merge_equal_functions=True)
    jobs = [Job(UpdateRule.parse(text).canonical(), 7) for text in ('exp(log(exp(g)))', 'exp(g)', '1')]
    told = []
    assert list(session.train([*jobs, jobs[0]], told.append)) == jobs[::-1]
    assert evaluator.asked == jobs and told == [1, 2, 3]
    session.close()
    assert evaluator.closed == 1


def test_a_session_on_another_machine_trains_for_itself_and_keeps_what_was_there(tmp_path):
    machines = {name: {'identity': {'Search.seed': 0, 'processor': name}, 'task': name} for name in ('old', 'new')}
    job, asked = Job(UpdateRule.parse('g').canonical(), 0), []
    for machine in ('old', 'new', 'new'):
        evaluator = Scripted()
        session = opened(tmp_path, evaluator, **machines[machine], allow_mixed=True)
        session.train([job], lambda _: None)
        asked.append(len(evaluator.asked))
        trained = session.store.trained(0)
        session.close()
    assert asked == [1, 1, 0] and trained == 2
    with pytest.raises(RunError, match='processor'):
        opened(tmp_path, Scripted(), **machines['new'])


def flight_of(session):
    return Flight(session.queue, SPACE, 0, batch_size=3)


def test_save_files_the_children_and_where_to_go_on(tmp_path):
    agent = RandomSearch().start(SPACE, 0)
    session = opened(tmp_path, Scripted())
    flight = flight_of(session)
    session.resume(agent, flight)
    assert flight.version == 0
    flight.fill(agent.propose, 3)
    arrivals = session.take(flight, 3)
    time.sleep(0.01)
    session.save(arrivals, agent, {'entropy': 1.0}, flight)
    session.log(arrivals, {'entropy': 1.0}, flight)
    before = session.seconds
    assert session.tally.children == 3
    session.close()
    session = opened(tmp_path, Scripted())
    flight = flight_of(session)
    session.resume(agent, flight)
    assert flight.version == 1
    assert [row.log_prob for row in session.store.results()] == [sample.log_prob for sample in arrivals.samples]
    assert session.tally.children == 3
    assert before - 1 < session.seconds < before + 60
    session.close()


def test_a_session_that_cannot_open_holds_nothing(tmp_path):
    session = opened(tmp_path, Scripted())
    late = Scripted()
    with pytest.raises(RunError, match='another process'):
        opened(tmp_path, late)
    session.store.save_outcome(UpdateRule.parse('g'), 0, Outcome(0.5, 0.1, (), 1.0))
    session.close()
    with pytest.raises(RunError, match='Search.seed is 0 there and 1 here'):
        opened(tmp_path, late, identity={'Search.seed': 1})
    assert late.closed == 0
    opened(tmp_path, late).close()
    assert (tmp_path / FILE_NAME).exists()
