"""Every learner is a function of its hyper-parameters, seed and state; TRPO learns what random search does not."""

import dataclasses
import re

import gin
import numpy as np
import pytest

from nos_tf.controller.learners import PPO, TRPO, Bayesian, Distinct, Evolution, RandomSearch, Reinforce
from nos_tf.controller.solvers import AdamSurrogate, NaturalGradient
from nos_tf.dsl.space import SearchSpace

SPACE = SearchSpace(distinct_operands=True)
TARGET = np.array([6, 0, 2, 10, 2])  # sign(g) g exp sign *
LEARNERS = {
    'natural': lambda: TRPO(units=8, solver=NaturalGradient(cg_iterations=4)),
    'elites and entropy': lambda: TRPO(units=8, elites=6, entropy_target=12.0, solver=NaturalGradient(cg_iterations=4)),
    'adam': lambda: TRPO(units=8, max_kl=0.01, solver=AdamSurrogate(learning_rate=1e-3, max_steps=10)),
    'reinforce': lambda: Reinforce(units=8),
    'ppo': lambda: PPO(units=8, learning_rate=1e-2),
    'evolution': lambda: Evolution(population=10, tournament=3),
    'drifting': lambda: Evolution(population=10, tournament=3, crossover=0.5, drift=True),
    'distinct': lambda: Distinct(learner=Evolution(population=10, tournament=3)),
    'bayesian': lambda: Bayesian(initial=5, candidates=40, memory=20),
    'random': RandomSearch,
}
POLICY_METRICS = {'baseline', 'log_prob', 'entropy', 'kl', 'step_size', 'improvement', 'accepted'}
METRICS = {
    'random': {'log_prob', 'entropy'},
    'evolution': {'log_prob', 'population_mean'},
    'drifting': {'log_prob', 'population_mean'},
    'distinct': {'log_prob', 'population_mean', 'new'},
    'elites and entropy': POLICY_METRICS | {'entropy_coefficient'},
    'bayesian': {'log_prob', 'known_best'},
}


def matches(choices):
    """A landscape without a child: the fraction of tokens that are the target's."""
    return (choices == TARGET).mean(axis=1)


def run(learner, iterations):
    """Returns everything that a search would see: choices, log-probabilities and metrics of each batch."""
    seen = []
    for iteration in iterations:
        choices, log_probs = learner.propose(5, iteration)
        seen.append((choices.tobytes(), log_probs.tobytes(), learner.update(choices, matches(choices), log_probs)))
    return seen


def started(name, seed=0):
    return LEARNERS[name]().start(SPACE, seed)


@pytest.fixture(scope='module', params=LEARNERS)
def shared(request):
    """A learner and its state before the first batch: to trace its graph takes longer than any test of it."""
    learner = started(request.param)
    return request.param, learner, learner.state()


@pytest.fixture
def named(shared):
    """The name of a learner, and the learner as if it had just started."""
    name, learner, state = shared
    learner.restore(state)
    return name, learner


def test_a_restored_learner_continues_bit_for_bit(named):
    name, learner = named
    start = learner.state()
    first = run(learner, range(3))
    state = learner.state()
    continued = run(learner, range(3, 6))
    other = started(name, seed=0)  # what another process would have
    other.restore(state)
    assert run(other, range(3, 6)) == continued
    assert all(np.array_equal(other.state()[k], v) for k, v in learner.state().items())
    other.restore(start)
    assert run(other, range(3)) == first


def test_proposals_are_a_function_of_state_seed_and_iteration(named):
    name, learner = named
    samples, again, later = learner.propose(20, 3), learner.propose(20, 3), learner.propose(20, 4)
    assert samples.choices.dtype == np.int32
    assert samples.choices.shape == (20, 5)
    assert samples.log_probs.dtype == np.float32
    assert samples.log_probs.shape == (20,)
    assert samples.choices.tobytes() == again.choices.tobytes()
    assert samples.log_probs.tobytes() == again.log_probs.tobytes()
    assert (samples.choices != later.choices).mean() > 0.5
    assert (samples.choices != started(name, seed=1).propose(20, 3).choices).mean() > 0.5
    assert (samples.choices[:, 0] != samples.choices[:, 1]).all()


def test_rewards_that_are_not_finite_are_refused_and_teach_nothing(named):
    _, learner = named
    choices, log_probs = learner.propose(2, 0)
    before = learner.state()
    for bad in (np.nan, np.inf):
        rule = SPACE.rule(choices[1]).infix
        with pytest.raises(ValueError, match=f'^the reward of {re.escape(rule)} is {bad}: must be finite'):
            learner.update(choices, np.array([0.5, bad]), log_probs)
    assert all(np.array_equal(before[k], v, equal_nan=True) for k, v in learner.state().items())


def test_metrics_tell_what_happened(named):
    name, learner = named
    for iteration in range(20):
        before = learner.state()
        choices, log_probs = learner.propose(5, iteration)
        metrics = learner.update(choices, matches(choices), log_probs)
        assert set(metrics) == METRICS.get(name, POLICY_METRICS)
        if name in ('natural', 'adam'):
            if metrics['accepted']:
                assert 0 < metrics['kl'] <= learner.max_kl
                assert metrics['improvement'] > 0
            else:
                assert learner.state()['weights'].tobytes() == before['weights'].tobytes()
        assert metrics['log_prob'] == pytest.approx(log_probs.mean(), rel=1e-4)
        assert 2 < metrics.get('entropy', 3) < 13


def test_learners_learn_a_landscape_that_random_search_does_not():
    means = {}
    for name in ('natural', 'ppo', 'evolution', 'random'):
        learner = started(name)
        rewards = []
        for iteration in range(100):
            choices, log_probs = learner.propose(5, iteration)
            rewards.append(matches(choices))
            learner.update(choices, rewards[-1], log_probs)
        means[name] = np.mean(rewards[-20:])
    assert min(means['natural'], means['ppo']) > 0.6
    assert means['evolution'] > 0.35  # of mutants, two or three of five tokens that are right
    assert means['random'] < 0.2


def test_what_would_do_nothing_is_refused():
    with pytest.raises(ValueError, match='^TRPO.entropy_target: needs TRPO.entropy_coefficient > 0'):
        TRPO(entropy_target=3.0, entropy_coefficient=0.0)
    with pytest.raises(ValueError, match='^TRPO.mutants = 0.5: needs TRPO.elites > 0'):
        TRPO(mutants=0.5)
    with pytest.raises(ValueError, match='is one of the same kind already$'):
        Distinct(learner=Distinct(learner=RandomSearch()))


def test_random_search_is_uniform_over_the_legal_choices():
    space = SearchSpace(operands=('g', 'm'), unaries=('x',), binaries=('+', '*'), iterations=2, reuse_temporaries=True)
    learner = RandomSearch().start(space, 0)
    choices, log_probs = learner.propose(6000, 0)
    rules = {tuple(row): p for row, p in zip(choices.tolist(), np.exp(log_probs), strict=True)}
    assert len(rules) == space.size
    assert sum(rules.values()) == pytest.approx(1, rel=1e-5)
    op1, op2 = choices[:, 5], choices[:, 6]
    assert (np.maximum(op1, op2) == 2).all()  # t1, the third operand, is reused
    assert np.bincount(op1) / 6000 == pytest.approx([1 / 3] * 3, abs=0.03)
    assert np.bincount(op2[op1 == 2]) / (op1 == 2).sum() == pytest.approx([1 / 3] * 3, abs=0.05)
    assert learner.update(choices[:5], np.zeros(5), log_probs[:5])['entropy'] == pytest.approx(-log_probs[:5].mean())


@pytest.mark.parametrize(
    'learner, arguments, message',
    [
        (TRPO, {'max_kl': -1}, 'TRPO.max_kl = -1: must be > 0'),
        (TRPO, {'batch_size': 0}, 'TRPO.batch_size = 0: must be a whole number >= 1'),
        (TRPO, {'kl_samples': -1}, 'TRPO.kl_samples = -1: must be a whole number >= 0'),
        (TRPO, {'entropy_coefficient': -0.1}, 'TRPO.entropy_coefficient = -0.1: must be >= 0'),
        (TRPO, {'baseline_decay': 1.0}, 'TRPO.baseline_decay = 1.0: must be >= 0 and < 1'),
        (TRPO, {'units': None}, 'TRPO.units = None: must be a whole number >= 1'),
        (TRPO, {'solver': 'adam'}, "TRPO.solver = 'adam': must be @NaturalGradient() or @AdamSurrogate()"),
        (Reinforce, {'learning_rate': 0}, 'Reinforce.learning_rate = 0: must be > 0'),
        (PPO, {'clip': 1.5}, 'PPO.clip = 1.5: must be > 0 and < 1'),
        (PPO, {'steps': 0}, 'PPO.steps = 0: must be a whole number >= 1'),
        (Evolution, {'tournament': 0}, 'Evolution.tournament = 0: must be a whole number >= 1'),
        (Evolution, {'population': 0.5}, 'Evolution.population = 0.5: must be a whole number >= 1'),
        (Bayesian, {'initial': 0}, 'Bayesian.initial = 0: must be a whole number >= 1'),
        (Bayesian, {'memory': 0.5}, 'Bayesian.memory = 0.5: must be a whole number >= 1'),
        (Bayesian, {'memory': 10}, 'Bayesian.memory = 10: must be at least 2 and at least 20 = initial'),
        (RandomSearch, {'batch_size': 2.5}, 'RandomSearch.batch_size = 2.5: must be a whole number >= 1'),
    ],
)
def test_hyper_parameters_out_of_range_are_named(learner, arguments, message):
    with pytest.raises(ValueError, match=f'^{re.escape(message)}$'):
        learner(**arguments)


@pytest.fixture
def made_by_gin():
    """A function from bindings to the configurable that they name first, and no binding left after it."""

    def make(bindings):
        gin.parse_config(bindings)
        return gin.get_configurable(bindings.partition('.')[0])()

    yield make
    gin.clear_config()


@pytest.mark.parametrize(
    'bindings, message',
    [
        ('TRPO.batch_size = 0', 'TRPO.batch_size = 0: must be a whole number >= 1'),
        ('PPO.batch_size = 0', 'PPO.batch_size = 0: must be a whole number >= 1'),
        ('Evolution.batch_size = 0', 'Evolution.batch_size = 0: must be a whole number >= 1'),
        ('TRPO.max_kl = 0', 'TRPO.max_kl = 0: must be > 0'),
        ('TRPO.max_kl = -0.01', 'TRPO.max_kl = -0.01: must be > 0'),
        ('TRPO.kl_samples = 2.5', 'TRPO.kl_samples = 2.5: must be a whole number >= 0'),
        ('NaturalGradient.damping = -1', 'NaturalGradient.damping = -1: must be >= 0'),
        ('TRPO.solver = @NaturalGradient', 'must be @NaturalGradient() or @AdamSurrogate()'),
    ],
)
def test_an_unfit_gin_binding_is_named(bindings, message, made_by_gin):
    with pytest.raises(ValueError, match=re.escape(message)):
        made_by_gin(bindings)


def test_gin_makes_learners_whose_fields_are_their_hyper_parameters(made_by_gin):
    learner = made_by_gin('TRPO.batch_size = 7\nTRPO.solver = @AdamSurrogate()\nAdamSurrogate.max_steps = 30')
    assert type(learner) is TRPO
    assert learner == TRPO(batch_size=7, solver=AdamSurrogate(max_steps=30))
    assert repr(learner) == (
        'TRPO(batch_size=7, max_kl=0.05, kl_samples=0, replay=0, steps=1, elites=0, mutants=0.0, '
        'entropy_half_life=None, entropy_target=None, quantile=None, '
        'entropy_coefficient=0.0015, baseline_decay=0.9, units=150, weight_range=0.08, '
        'solver=AdamSurrogate(learning_rate=1e-05, max_steps=30))'
    )
    before = dataclasses.asdict(learner)
    learner.start(SPACE, 0)
    assert dataclasses.asdict(learner) == before
