"""Between sampling and learning: all of a batch in its order, or whatever arrives first, and nothing lost of either."""

import numpy as np
import pytest

from nos_tf.controller.learners import RandomSearch
from nos_tf.dsl.space import SearchSpace
from nos_tf.errors import RunError
from nos_tf.search.flight import Flight
from nos_tf.tasks.child import Outcome

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


def flight_of(line, **how):
    return Flight(line, SPACE, 0, batch_size=BATCH, **how)


def quiet(_):
    pass


@pytest.fixture
def agent():
    return RandomSearch().start(SPACE, 0)


def numbers(arrivals):
    return [sample.number for sample in arrivals.samples]


def learned(flight):
    """What saving a batch does to a flight."""
    flight.version += 1


def test_synchronously_a_batch_is_whole_and_in_the_order_of_sampling(agent):
    line = Line()
    line.order = -1  # the last begun is the first to end
    flight = flight_of(line)
    for batch in range(3):
        flight.fill(agent.propose, 10 - BATCH * batch)
        assert len(flight) == min(BATCH, 10 - BATCH * batch)
        arrivals = flight.take(10, quiet)
        first = BATCH * batch
        assert numbers(arrivals) == list(range(first, min(first + BATCH, 10)))
        assert arrivals.staleness.tolist() == [0] * len(arrivals.samples) and arrivals.fresh.all()
        expected = agent.propose(len(arrivals.samples), batch)
        choices, rewards, log_probs = arrivals.batch()
        np.testing.assert_array_equal(choices, expected.choices)
        np.testing.assert_array_equal(log_probs, expected.log_probs)
        assert rewards.tolist() == [np.float32(line.known(s.job).reward) for s in arrivals.samples]
        learned(flight)
    assert len(flight) == 0 and flight.state() == {} and flight.status(arrivals) == {}


def test_asynchronously_no_worker_waits_and_the_first_to_arrive_are_the_batch(agent):
    line = Line()
    flight = flight_of(line, workers=WORKERS)
    seen = []
    for _ in range(20):
        flight.fill(agent.propose, 1000)
        assert line.running >= WORKERS + BATCH
        arrivals = flight.take(1000, quiet)
        assert line.running >= WORKERS  # while the learner learns
        assert len(arrivals.samples) == BATCH and arrivals.fresh.all()
        assert arrivals.staleness.max() <= 3
        assert flight.status(arrivals)['in_flight'] == len(flight) >= line.running
        assert flight.status(arrivals)['largest_staleness'] == arrivals.staleness.max()
        seen += [sample.job for sample in arrivals.samples]
        learned(flight)
    assert list(dict.fromkeys(seen)) == list(line.ended)[: len(set(seen))]  # in the order in which they ended


def test_rewards_on_file_arrive_at_once(agent):
    line = Line()
    flight = flight_of(line, workers=WORKERS)

    def same(count, draw):
        return agent.propose(count, 0)

    flight.fill(same, 100)
    sampled = len(flight)
    assert sampled == 100 and line.running == BATCH  # there are no other programs to keep workers busy
    flight.take(100, quiet)
    line.wait(), line.wait(), line.wait()
    waits = line.running
    flight.fill(same, 96)
    assert flight.take(96, quiet) is not None and line.running <= waits


def test_the_budget_is_kept_to_the_child(agent):
    line = Line()
    flight = flight_of(line, workers=WORKERS)
    taken = []
    while (missing := 30 - len(taken)) > 0:
        flight.fill(agent.propose, missing)
        taken += numbers(flight.take(missing, quiet))
        learned(flight)
    assert sorted(taken) == list(range(30)) and len(flight) == 0 and line.running == 0


def test_what_is_too_stale_counts_but_is_not_learned_from(agent):
    line = Line()
    flight = flight_of(line, workers=WORKERS, max_staleness=3)
    flight.fill(agent.propose, 1000)
    straggler = line.under_way.pop(0)
    seen = []
    for batch in range(12):
        if batch == 8:
            line.under_way.insert(0, straggler)
        flight.fill(agent.propose, 1000)
        arrivals = flight.take(1000, quiet)
        assert len(arrivals.samples) == BATCH and len(arrivals.batch()[0]) == arrivals.fresh.sum()
        assert line.running >= WORKERS - 1  # but for the straggler
        seen += zip(numbers(arrivals), arrivals.staleness, arrivals.fresh, strict=True)
        learned(flight)
    stale = [(number, staleness) for number, staleness, fresh in seen if not fresh]
    assert stale == [(0, 8)]
    assert len({number for number, *_ in seen}) == len(seen)


def test_a_bound_that_most_children_would_break_is_refused():
    with pytest.raises(RunError, match=r'Search.max_staleness = 1: with 6 workers and batches of 4 .* about 3'):
        flight_of(Line(), workers=WORKERS, max_staleness=1)


@pytest.mark.parametrize('kept', [True, False])
def test_a_flight_goes_on_where_it_was_and_nothing_sampled_is_lost(agent, kept):
    line = Line()
    flight = flight_of(line, workers=WORKERS)
    for _ in range(5):
        flight.fill(agent.propose, 1000)
        flight.take(1000, quiet)
        learned(flight)
    state, under_way = flight.state(), list(line.under_way)
    line.wait()  # filed, but not learned from
    other = Line()
    other.ended = dict(line.ended) if kept else {}
    resumed = flight_of(other, workers=WORKERS)
    resumed.restore(state, flight.version)
    assert len(resumed) == len(flight) and resumed.version == flight.version
    assert other.under_way == (under_way[1:] if kept else under_way)
    draws = []
    resumed.fill(lambda count, draw: draws.append(draw) or agent.propose(count, draw), 1000)
    arrivals = resumed.take(1000, quiet)
    again, expected = resumed.state(), flight.state()
    assert [s.job for s in arrivals.samples] == under_way[:BATCH]
    assert draws == list(range(int(expected['flight_draws']), int(again['flight_draws'])))
