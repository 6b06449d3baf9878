"""A policy agent's state is all there is to it, and its steps stay where the solver may take them."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from nos_tf.controller.agent import Batch
from nos_tf.controller.policy import Policy
from nos_tf.controller.policy_agent import MOST, Baseline, Elites, PolicyAgent, Replay
from nos_tf.controller.solvers import AdamSteps, NaturalGradient
from nos_tf.dsl.space import SearchSpace

SPACE = SearchSpace(operands=('g', 'm'), unaries=('x', 'exp'), binaries=('+', '*'))
ADAM = AdamSteps(0.01)
NATURAL = NaturalGradient(cg_iterations=3)


def agent(units=4, unaries=('x', 'exp'), solver=ADAM, max_kl=1.0, **settings):
    space = dataclasses.replace(SPACE, unaries=unaries)
    settings = {'entropy_coefficient': 0.0, 'baseline_decay': 0.5} | settings
    return PolicyAgent(Policy(space, 0, units), 0, solver=solver, max_kl=max_kl, **settings)


def batch_of(learner, iteration, count=5):
    samples = learner.propose(count, iteration)
    return samples.choices, samples.choices.mean(axis=1), samples.log_probs


def bits(state):
    return {name: value.tobytes() for name, value in state.items()}


@pytest.fixture(scope='module')
def traced():
    learner = agent()
    return learner, learner.state()


@pytest.fixture
def learner(traced):
    """An agent at its start: to trace its graph takes longer than any test of it."""
    learner, start = traced
    learner.restore(start)
    return learner


def test_baseline_averages_the_batches_before():
    baseline = Baseline(decay=0.75)
    for rewards, expected in (([1.0, 3.0], 2.0), ([6.0], 2.0), ([0.0, 0.0, 0.0], 3.0), ([9.0], 2.25)):
        assert baseline.compare(np.array(rewards)) == expected


def test_update_moves_towards_the_rules_above_the_baseline(learner):
    choices = np.array([[0, 1, 0, 1, 0], [1, 0, 1, 0, 1]], np.int32)
    before = learner.policy.log_prob(choices).numpy()
    metrics = learner.update(choices, np.array([0.9, 0.1]), before)
    after = learner.policy.log_prob(choices).numpy()
    assert after[0] > before[0]
    assert after[1] < before[1]
    assert metrics['baseline'] == 0.5
    assert metrics['log_prob'] == pytest.approx(before.mean(), rel=1e-5)
    assert metrics['improvement'] > 0
    assert metrics['kl'] > 0
    assert metrics['accepted'] == 1
    assert learner.update(choices, np.array([0.0, 0.0]), after)['baseline'] == 0.5


def test_step_size_is_the_distance_that_the_weights_moved(learner):
    before = learner.state()['weights']
    samples = learner.propose(5, 0)
    metrics = learner.update(samples.choices, np.arange(5.0), samples.log_probs)
    assert metrics['step_size'] == pytest.approx(np.linalg.norm(learner.state()['weights'] - before), rel=1e-4)


def test_batches_of_any_size_share_one_graph(learner):
    for count in (1, 5, 8):
        samples = learner.propose(count, count)
        learner.update(samples.choices, np.ones(count), samples.log_probs)
    assert learner._traced_step.experimental_get_tracing_count() == 1


@pytest.fixture(scope='module')
def traced_natural():
    learner = agent(solver=NATURAL, max_kl=0.02)
    return learner, learner.state()


@pytest.fixture(params=[0, 40])
def natural(request, traced_natural):
    """An agent at its start whose KL and Fisher matrix are estimated on so many fresh samples beside its batch."""
    learner, start = traced_natural
    learner.kl_samples = request.param
    learner.restore(start)
    return learner


def test_each_accepted_step_is_inside_the_trust_region_and_each_rejected_one_is_undone(natural):
    learner = natural
    outcomes = []
    for iteration in range(12):
        choices, rewards, log_probs = batch_of(learner, iteration)
        if iteration % 4 == 3:
            log_probs = log_probs - 1000  # the ratios overflow: nothing that this surrogate says can be accepted
        seed = np.random.SeedSequence([0, learner.updates, 1]).generate_state(2).view(np.int32)
        fresh = learner.policy.sample(tf.constant(learner.kl_samples), tf.constant(seed))[0].numpy()
        prefixes = np.concatenate([choices, fresh])  # what the trust region is measured on
        old, before = learner.policy.logits(prefixes), learner.state()
        metrics = learner.update(choices, rewards, log_probs)
        outcomes.append(metrics['accepted'])
        if metrics['accepted']:
            kl = learner.policy.kl(prefixes, old).numpy()
            assert kl == pytest.approx(metrics['kl'], rel=1e-3)
            assert 0 < kl <= 0.02 * (1 + 1e-3)
        else:
            assert learner.state()['weights'].tobytes() == before['weights'].tobytes()
            assert learner.policy.kl(prefixes, old).numpy() == 0
    assert outcomes.count(1.0) >= 6
    assert outcomes[3::4] == [0.0] * 3


def test_an_agent_continues_bit_for_bit_with_the_same_fresh_samples(natural):
    learner = natural
    states = []
    for iteration in range(4):
        states.append(learner.state())
        learner.update(*batch_of(learner, iteration))
    end = bits(learner.state())
    learner.restore(states[2])
    for iteration in (2, 3):
        learner.update(*batch_of(learner, iteration))
    assert bits(learner.state()) == end
    learner.restore(states[2] | {'updates': np.array(7)})
    learner.update(*batch_of(learner, 2))
    same = learner.state()['weights'].tobytes() == states[3]['weights'].tobytes()
    assert same == (learner.kl_samples == 0)  # other samples, another step


def test_the_surrogate_reads_the_batch_alone_whatever_the_kl_is_measured_on(learner):
    start, batch = learner.state(), batch_of(learner, 0)
    metrics, weights = {}, {}
    for count in (40, 0):
        learner.restore(start)
        learner.kl_samples = count
        metrics[count] = learner.update(*batch)
        weights[count] = learner.state()['weights']
    for name in ('log_prob', 'entropy', 'improvement', 'step_size'):
        assert metrics[40][name] == pytest.approx(metrics[0][name], rel=1e-4), name
    assert metrics[40]['kl'] != metrics[0]['kl']
    np.testing.assert_allclose(weights[40], weights[0], atol=1e-5)


def test_a_state_is_a_copy(learner):
    state = learner.state()
    kept = {name: value.copy() for name, value in state.items()}
    samples = learner.propose(5, 0)
    learner.update(samples.choices, np.arange(5.0), samples.log_probs)
    assert all(np.array_equal(state[name], kept[name], equal_nan=True) for name in kept)
    assert not np.array_equal(learner.state()['weights'], kept['weights'])


def test_a_state_of_another_shape_is_refused_and_nothing_changes(learner):
    before = learner.state()
    for state in (agent(units=5).state(), agent(unaries=('x',)).state(), {}, before | {'extra': np.zeros(1)}):
        with pytest.raises(ValueError, match='of another learner or space'):
            learner.restore(state)
    assert learner.state()['weights'].tobytes() == before['weights'].tobytes()


def test_a_rule_of_an_older_policy_counts_as_far_as_it_is_still_probable(learner):
    known = Batch(np.array([[0, 1, 0, 1, 0], [1, 0, 1, 0, 1]], np.int32), np.array([1.0, 1.0]), np.zeros(2, np.float32))
    now = learner.policy.log_prob(known.choices).numpy()
    known = known._replace(log_probs=now + np.array([np.log(4), -np.log(4)], np.float32))
    advantages, log_probs = learner._reweighted(known, np.array([2.0, 2.0]))
    assert advantages == pytest.approx([0.8, 3.2], rel=1e-4)  # a quarter as probable as then; four times: not more
    assert advantages.mean() == pytest.approx(2.0, rel=1e-4)
    np.testing.assert_array_equal(log_probs, now)


def test_replay_keeps_the_newest_rules():
    def batch(*rewards):
        return Batch(np.zeros([len(rewards), 5], np.int32), np.array(rewards), np.zeros(len(rewards), np.float32))

    replay = Replay.empty(3, 5)
    for rewards, kept in (([1.0, 2.0], [1, 2]), ([3.0, 4.0], [3, 4, 1]), ([5.0], [5, 3, 4])):
        replay = replay.pushed(batch(*rewards))
        assert replay.rules.rewards.tolist() == kept
    assert replay.joined(batch(9.0)).rewards.tolist() == [9, 5, 3, 4]
    assert len(Replay.empty(0, 5).pushed(batch(1.0)).rules.rewards) == 0


def test_elites_are_the_best_distinct_rules():
    def batch(**rewards):
        choices = [[int(digit) for digit in name[1:]] for name in rewards]
        return Batch(np.array(choices, np.int32), np.array(list(rewards.values())), np.zeros(len(rewards), np.float32))

    elites = Elites.empty(2, 2)
    for rules, kept in (({'r01': 1.0}, [1]), ({'r10': 3.0, 'r01': 9.0, 'r11': 2.0}, [3, 2]), ({'r00': 2.5}, [3, 2.5])):
        elites = elites.updated(batch(**rules))
        assert elites.rules.rewards.tolist() == kept
    assert elites.rules.choices.tolist() == [[1, 0], [0, 0]]
    assert len(Elites.empty(0, 2).updated(batch(r01=1.0)).rules.rewards) == 0


def test_elites_are_learned_from_again():
    """Two updates of each: the first batch is good news of one rule, the second says nothing."""
    choices, rewards = np.array([[0, 1, 0, 1, 0], [1, 0, 1, 0, 1]], np.int32), np.array([1.0, 0.0])
    others = np.array([[0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], np.int32)
    gains = []
    for elites in (0, 1):
        learner = agent(solver=NATURAL, max_kl=0.02, elites=elites)
        before = learner.policy.log_prob(choices).numpy()
        learner.update(choices, rewards, before)
        learner.update(others, np.array([0.5, 0.5]), learner.policy.log_prob(others).numpy())
        gains.append(learner.policy.log_prob(choices).numpy()[0] - before[0])
    assert gains[1] > 1.3 * gains[0] > 0


def test_mutants_are_elites_with_one_token_changed():
    learner = agent(elites=2, mutants=0.4)
    assert len(learner.propose(5, 0).choices) == 5  # of the policy alone: there are no elites yet
    choices, rewards, log_probs = batch_of(learner, 0)
    learner.update(choices, rewards, log_probs)
    samples = learner.propose(5, 1)
    again = learner.propose(5, 1)
    assert bits(samples._asdict()) == bits(again._asdict())
    parents = learner.elites.rules.choices
    for mutant in samples.choices[3:]:
        changed = (parents != mutant).sum(1).min()
        assert 1 <= changed <= 2  # one, and what it made illegal after it
    np.testing.assert_allclose(samples.log_probs, learner.policy.log_prob(samples.choices), rtol=1e-5)


def test_with_a_quantile_what_is_below_it_teaches_nothing():
    choices = np.array([[0, 1, 0, 1, 0], [1, 0, 1, 0, 1], [0, 0, 0, 0, 0]], np.int32)
    after = []
    for worst in (-1.0, -100.0):
        learner = agent(quantile=0.5)
        metrics = learner.update(choices, np.array([1.0, 0.0, worst]), learner.policy.log_prob(choices).numpy())
        assert metrics['baseline'] == 0.0
        after.append(learner.state()['weights'])
    np.testing.assert_array_equal(*after)


def test_rules_in_memory_get_the_rewards_that_are_known_now():
    learner = agent(replay=3, elites=2)
    choices, _, log_probs = batch_of(learner, 0)
    choices = np.unique(choices, axis=0)[:3]
    learner.update(choices, np.arange(3.0), log_probs[:3])
    worth = {SPACE.rule(rule): -float(i) for i, rule in enumerate(choices)}
    learner.revise(worth.__getitem__)
    assert learner.state()['replay_rewards'].tolist() == [0, -1, -2]
    assert learner.state()['elites_rewards'].tolist() == [-1, -2]  # the better of those it had
    assert len(learner.elites.without(choices[1:2]).rewards) == 1


def test_the_entropy_coefficient_grows_while_the_entropy_is_below_its_target():
    entropies, told = iter([2.0, 2.0, 8.0, 8.0, 8.0, 0.001, *[0.001] * 60]), []
    learner = agent(entropy_coefficient=0.5, entropy_target=4.0)
    learner._solver_step = lambda *_: dict.fromkeys(('kl', 'improvement'), 0.0) | {'entropy': next(entropies)}
    for _ in range(66):
        told.append(learner.update(*batch_of(learner, 0))['entropy_coefficient'])
    assert told[:3] == pytest.approx([0.5, 0.5 * np.exp(0.15), 0.5 * np.exp(0.3)])
    assert told[3] == told[5] == 0.5 < told[6] and told[-1] == 0.5 * MOST


@pytest.fixture(scope='module')
def replaying():
    return agent(solver=NATURAL, max_kl=0.02, replay=10, steps=2, entropy_coefficient=0.1, entropy_half_life=2.0)


def test_replay_and_several_steps_learn_more_of_the_same_rules(replaying):
    """Two updates of each: the first batch is good news of one rule, the second says nothing."""
    once = agent(solver=NATURAL, max_kl=0.02, entropy_coefficient=0.1, entropy_half_life=2.0)
    choices, rewards = np.array([[0, 1, 0, 1, 0], [1, 0, 1, 0, 1]], np.int32), np.array([1.0, 0.0])
    gains = []
    for learner in (once, replaying):
        start = learner.state()
        before = learner.policy.log_prob(choices).numpy()
        learner.update(choices, rewards, before)
        learner.update(choices, np.array([0.5, 0.5]), learner.policy.log_prob(choices).numpy())
        after = learner.policy.log_prob(choices).numpy()
        gains.append(after[0] - before[0])
        learner.restore(start)
    assert gains[1] > 1.5 * gains[0] > 0


def test_an_agent_with_replay_continues_bit_for_bit(replaying):
    start, states = replaying.state(), []
    for iteration in range(4):
        states.append(replaying.state())
        batch = batch_of(replaying, iteration)
        old = replaying.policy.logits(batch[0])
        metrics = replaying.update(*batch)
        moved = np.linalg.norm(replaying.state()['weights'] - states[-1]['weights'])
        assert metrics['step_size'] == pytest.approx(moved, rel=1e-4)
        assert metrics['kl'] == pytest.approx(float(replaying.policy.kl(batch[0], old)), rel=1e-4)
        assert metrics['accepted'] == (moved > 0)
    end = bits(replaying.state())
    assert len(replaying.state()['replay_rewards']) == 10
    for first in (1, 3):  # a buffer that is full, and one that is not
        replaying.restore(states[first])
        for iteration in range(first, 4):
            replaying.update(*batch_of(replaying, iteration))
        assert bits(replaying.state()) == end
    replaying.restore(start)


def test_the_entropy_coefficient_halves():
    learner = agent(entropy_coefficient=0.8, entropy_half_life=2.0)
    seen = []
    learner._traced_step = lambda *inputs: seen.append(float(inputs[4])) or ({}, learner.memory)
    learner._solver_step = _solver_step_of(learner)
    for iteration in range(5):
        learner.update(*batch_of(learner, iteration))
    assert seen == pytest.approx([0.8, 0.8 / 2**0.5, 0.4, 0.4 / 2**0.5, 0.2])


def _solver_step_of(learner):
    """The step, with the metrics that a step has."""
    step = type(learner)._solver_step

    def call(*arguments):
        return dict.fromkeys(('kl', 'improvement', 'step_size', 'accepted'), 0.0) | step(learner, *arguments)

    return call
