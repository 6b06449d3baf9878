"""The reward of a rule against the same procedure written out with Keras and NumPy, and the promises of bits.

The oracle shares the initial weights, the order of the examples and the data with the trainer, and nothing else.
"""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from nos_tf.dsl.primitives import RuleConstants
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.space import SearchSpace
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.optimizers import interpreter
from nos_tf.tasks.child import TRAINED, ChildSetup, _Run
from nos_tf.tasks.convnet import ConvNet
from nos_tf.tasks.sweep import Progress, bowls
from tests.tasks.keras_twin import flat, keras_model, set_statistics, set_weights, statistics_of
from tests.tasks.small import CHILD, TASK

VALIDATION = 500

parse = UpdateRule.parse


def trainer_of(child=CHILD, task=TASK, iterations=1):
    return ChildSetup(child, task, Vocabulary(iterations)).trainer()


@pytest.fixture(scope='module')
def trainer():
    return trainer_of()


def result(outcome):
    """An outcome but for the time that it took."""
    return outcome[:3]


# The procedure, by Keras and NumPy


class Oracle:
    """Sections 4.1 and 4.2 for two rules, in the plainest way: a Keras model, NumPy updates, a loop in Python."""

    def __init__(self, trainer):
        self.order = trainer.task.batches(tf.constant(CHILD.seed)).numpy()
        self.weights = TASK.network.initial_weights((8, 8, 1), 10, CHILD.seed).numpy()
        self.images = TASK.images.load()
        self.model = keras_model(TASK.network, (8, 8, 1), 10)
        self.loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def start(self):
        set_weights(self.model, self.weights)
        set_statistics(self.model, TASK.network.initial_statistics())

    def train(self, rule, rate, steps):
        """The losses of the steps."""
        self.start()
        variables = self.model.trainable_variables
        m, v = ([np.zeros(variable.shape) for variable in variables] for _ in range(2))
        losses = []
        for t, batch in enumerate(self.order[:steps], start=1):
            with tf.GradientTape() as tape:
                answer = self.model(self.images.train.images[batch], training=True)
                loss = self.loss(self.images.train.labels[batch], answer)
            losses.append(float(loss))
            gradients = tape.gradient(loss, [variable.value for variable in variables])
            for i, (variable, gradient) in enumerate(zip(variables, gradients, strict=True)):
                g = gradient.numpy().astype(np.float64)
                m[i] = 0.9 * m[i] + 0.1 * g
                v[i] = 0.999 * v[i] + 0.001 * g * g
                adam = m[i] / (1 - 0.9**t) / (np.sqrt(v[i] / (1 - 0.999**t)) + 1e-8)
                variable.assign(variable.numpy() - rate * {'sgd': g, 'adam': adam}[rule])
        return losses

    def flat(self):
        return flat(self.model.trainable_variables)

    def accuracy(self):
        answer = self.model(self.images.validation.images, training=False).numpy()
        return np.mean(np.argmax(answer, axis=1) == self.images.validation.labels)


@pytest.fixture(scope='module')
def oracle(trainer):
    return Oracle(trainer)


@pytest.fixture(scope='module')
def steps(trainer, oracle):
    """Training for some steps as the trainer does it: (rule, rate, steps) -> state, statistics."""
    seed = tf.constant(CHILD.seed)

    @tf.function(autograph=False)
    def train(weights, token_ids, rate, last_step):
        start = Progress(interpreter.initial_state(weights), TASK.network.initial_statistics())
        run = _Run(trainer.data, trainer.task.batches(seed), token_ids, rate, seed, CHILD.constants)
        return trainer._steps(start, run, last_step)[0]

    def call(rule, rate, last_step, weights=oracle.weights):
        ids = tf.constant(parse(rule).token_ids)
        return train(tf.constant(weights), ids, tf.constant(rate, tf.float32), tf.constant(last_step))

    return call


@pytest.mark.parametrize(('rule', 'rate'), [('sgd', 0.1), ('adam', 0.001)])
def test_weights_and_statistics_after_five_steps_are_those_of_keras(oracle, steps, rule, rate):
    oracle.train(rule, rate, 5)
    state, statistics = steps(rule, rate, 5)
    moved = np.abs(oracle.flat() - oracle.weights)
    assert state.step == 5
    assert np.median(moved) > 1e-3
    np.testing.assert_allclose(state.weights, oracle.flat(), atol=1e-4)
    np.testing.assert_allclose(statistics, statistics_of(oracle.model), rtol=2e-3, atol=1e-4)  # N − 1 against N


@pytest.mark.parametrize('rule', ['sgd', 'adam'])
def test_sweep_winner_and_reward_are_those_of_the_procedure_in_keras(oracle, trainer, rule):
    sweep = []
    for rate in CHILD.learning_rates:
        oracle.train(rule, rate, 4)
        sweep.append(oracle.accuracy())
    best = CHILD.learning_rates[int(np.argmax(sweep))]
    losses = oracle.train(rule, best, 12)
    outcome = trainer.train(parse(rule))
    np.testing.assert_allclose(outcome.sweep, sweep, atol=2.1 / VALIDATION)
    assert outcome.learning_rate == best
    assert outcome.reward == pytest.approx(oracle.accuracy(), abs=2.1 / VALIDATION)
    assert outcome.reward > max(outcome.sweep) > 0.2
    assert len(set(outcome.sweep)) == 3
    assert losses[-1] < losses[0] - 0.5


# The same bits


@pytest.mark.parametrize('rule', ['adam', 'log(rmsprop) + m', 'm_nesterov / sqrt(v)'])
def test_constants_that_the_graph_is_given_train_as_those_of_the_procedure(rule):
    rule = parse(rule)
    vocabulary = Vocabulary.of(None, [rule])
    trainer = ChildSetup(CHILD, TASK, vocabulary).trainer()
    for constants in (RuleConstants(), RuleConstants(beta_1=0.5, beta_2=0.9, epsilon=1e-3), RuleConstants(beta_1=0.0)):
        own = ChildSetup(dataclasses.replace(CHILD, constants=constants), TASK, vocabulary).trainer()
        assert result(trainer.train(rule, constants=constants)) == result(own.train(rule))


def test_one_trace_for_all_rules_and_the_same_bits_whatever_comes_between(trainer):
    rules = [parse(text) for text in ('g', 'adam', 'drop(m, 0.5)', 'g + noise', 'exp(g) - exp(m)')]
    first = [result(trainer.train(rule)) for rule in rules]
    second = [result(trainer.train(rule)) for rule in reversed(rules)]
    assert first == second[::-1]
    assert len(set(first)) == len(rules)
    assert trainer.traces == 1


@pytest.mark.parametrize(
    ('spelling', 'other'),
    [
        ('g m x x *', 'm g x x *'),
        ('g sign(m) drop(0.3) exp *', 'sign(m) g exp drop(0.3) *'),
        ('g 1 x -x *', 'g adam -x log left'),
        ('g m sign exp +', 'm sign(g) exp x +'),
        ('m v x x left', 'm g x x left t1 t1 x x left'),
    ],
)
def test_spellings_of_one_program_earn_the_same_bits(trainer, spelling, other):
    first, second = parse(spelling), parse(other)
    assert first != second
    canonical = first.canonical()
    assert result(trainer.train(first)) == result(trainer.train(second)) == result(trainer.train(canonical))


def test_the_depth_of_the_graph_changes_nothing(trainer):
    deeper = trainer_of(iterations=2)
    for text in ('m', 'drop(g, 0.5)', 'g + noise', 'adam * exp(m)', 'exp(g) - exp(m)'):
        assert result(deeper.train(parse(text))) == result(trainer.train(parse(text)))
    powersign = deeper.train(parse('powersign'))
    assert powersign.reward > 0.3
    with pytest.raises(ValueError, match='has 2 iterations, more than 1'):
        trainer.train(parse('powersign'))


def test_continuing_the_sweep_gives_the_bits_of_starting_anew(trainer):
    anew = trainer_of(dataclasses.replace(CHILD, continue_sweep=False))
    for text in ('g', 'adam', 'drop(m, 0.5)', 'g + noise', 'adam + noise', 'v / gamma'):
        assert result(anew.train(parse(text))) == result(trainer.train(parse(text)))


def test_another_seed_is_another_training_and_the_default_is_that_of_the_procedure(trainer):
    rule = parse('sgd')
    default, same, other = (result(trainer.train(rule, seed)) for seed in (None, CHILD.seed, 1))
    assert default == same != other
    assert result(trainer_of(dataclasses.replace(CHILD, seed=1)).train(rule)) == other
    assert trainer.traces == 1


# The sweep


def test_ties_go_to_the_smaller_rate(trainer):
    """The rule 0 never moves: each rate earns the accuracy of the initial weights."""
    outcome = trainer.train(parse('g - g'))
    assert len(set(outcome.sweep)) == 1
    assert outcome.learning_rate == min(CHILD.learning_rates)
    assert outcome.seconds > 0
    assert outcome.origin == TRAINED


def test_the_winner_goes_on_from_its_own_weights_in_a_tie(monkeypatch):
    """The rule 1 takes a weight from 0 to −0.04 or −0.16 in the sweep, and by 8 steps of 0.01 on to −0.12 or −0.24."""
    trainer = trainer_of(dataclasses.replace(CHILD, learning_rates=(0.01, 0.04)))
    monkeypatch.setattr(trainer.task, 'measure', lambda data, weights, *_: tf.floor(-weights[-1] / 0.2))
    assert result(trainer.train(parse('1'))) == (0.0, 0.01, (0.0, 0.0))


def test_the_sweep_runs_its_own_number_of_epochs(oracle):
    child = dataclasses.replace(CHILD, learning_rates=(0.1,), sweep_epochs=2)
    outcome = trainer_of(child, dataclasses.replace(TASK, epochs=2)).train(parse('sgd'))
    oracle.train('sgd', 0.1, 8)
    assert outcome.sweep == (outcome.reward,)
    assert outcome.reward == pytest.approx(oracle.accuracy(), abs=2.1 / VALIDATION)


# Divergence

DIVERGING = dataclasses.replace(CHILD, learning_rates=(1e30, 1e32))


@pytest.fixture(scope='module')
def diverging():
    return trainer_of(DIVERGING)


def test_a_rule_that_diverges_earns_what_nan_weights_earn_at_the_smaller_rate(diverging):
    outcome = diverging.train(parse('sgd'))
    share_of_class_0 = float(np.float32(np.mean(TASK.images.load().validation.labels == 0)))
    assert 0 < share_of_class_0 != 0.1
    assert result(outcome) == (share_of_class_0, 1e30, (share_of_class_0, share_of_class_0))


def patient_trainer(child, monkeypatch):
    """A trainer that goes on to the end whatever becomes of the weights; traced while it cannot see a NaN."""
    patient = trainer_of(child)
    with monkeypatch.context() as patch:
        patch.setattr(tf.math, 'is_nan', lambda x: tf.zeros_like(x, tf.bool))
        patient.train(parse('g - g'))
    return patient


def test_stopping_early_earns_what_running_to_the_end_earns(diverging, monkeypatch):
    patient = patient_trainer(DIVERGING, monkeypatch)
    for text in ('sgd', 'm', 'drop(g, 0.5)', '1 / noise'):
        assert result(patient.train(parse(text))) == result(diverging.train(parse(text)))


def test_a_rate_that_diverges_early_loses_to_one_that_learns(monkeypatch):
    child = dataclasses.replace(CHILD, learning_rates=(0.1, 1e30), continue_sweep=False)
    outcome = trainer_of(child).train(parse('sgd'))
    assert outcome.learning_rate == 0.1
    assert outcome.sweep[0] > outcome.sweep[1] == np.float32(np.mean(TASK.images.load().validation.labels == 0))
    assert result(patient_trainer(child, monkeypatch).train(parse('sgd'))) == result(outcome)


def test_training_stops_once_every_weight_is_nan_and_not_before(steps):
    """The loss tells, one step later than the weights."""
    stopped, _ = steps('sgd', 1e30, 12)
    assert np.all(np.isnan(stopped.weights))
    assert 2 <= stopped.step < 12
    before, _ = steps('sgd', 1e30, int(stopped.step) - 2)
    assert not np.all(np.isnan(before.weights))
    going, _ = steps('sgd', 0.01, 12)
    assert going.step == 12


def test_one_nan_among_the_weights_does_not_stop_training(oracle, steps):
    weights = oracle.weights.copy()
    weights[-1] = np.nan
    state, _ = steps('1', 0.01, 12, weights)
    assert state.step == 12
    np.testing.assert_allclose(state.weights[:-1], oracle.weights[:-1] - 0.12, atol=1e-6)


# Racing the sweep

RATES = (1e-4, 1e-3, 0.01, 0.1, 1.0)
RACE = dataclasses.replace(CHILD, learning_rates=RATES, rungs=((0.25, 3), (0.5, 1)))


def test_a_race_gives_up_rates_and_gives_the_winner_the_bits_of_a_sweep_of_its_own():
    outcome = trainer_of(RACE).train(parse('sgd'))
    assert sum(accuracy is not None for accuracy in outcome.sweep) == 1
    assert outcome.learning_rate in (0.01, 0.1)
    alone = trainer_of(dataclasses.replace(CHILD, learning_rates=(outcome.learning_rate,))).train(parse('sgd'))
    assert (outcome.reward, outcome.learning_rate) == alone[:2]
    assert [accuracy for accuracy in outcome.sweep if accuracy is not None] == list(alone.sweep)


@pytest.mark.parametrize('rule', ['sgd', 'drop(m, 0.5) + noise'])
def test_a_race_continued_gives_the_bits_of_starting_anew(rule):
    anew = dataclasses.replace(RACE, continue_sweep=False)
    assert result(trainer_of(RACE).train(parse(rule))) == result(trainer_of(anew).train(parse(rule)))


def test_a_race_drops_the_rates_of_the_largest_loss_and_those_that_diverge():
    child = dataclasses.replace(CHILD, learning_rates=(1e-9, 0.1, 1e30, 1e32), rungs=((0.5, 2),))
    outcome = trainer_of(child).train(parse('sgd'))
    assert [accuracy is None for accuracy in outcome.sweep] == [False, False, True, True]
    assert outcome.learning_rate == 0.1
    (full,) = {trainer_of(dataclasses.replace(child, rungs=())).train(parse('sgd')).sweep}
    assert outcome.sweep[:2] == full[:2]


def test_rates_that_all_diverge_leave_the_smaller_ones():
    child = dataclasses.replace(CHILD, learning_rates=(1e30, 1e31, 1e32), rungs=((0.5, 2),))
    outcome = trainer_of(child).train(parse('sgd'))
    assert [accuracy is None for accuracy in outcome.sweep] == [False, False, True]
    assert outcome.learning_rate == 1e30


# A finer look


def test_a_finer_look_rewards_the_best_of_whole_trainings_whose_neighbours_are_worse():
    fine = dataclasses.replace(CHILD, learning_rates=(0.01, 0.1), refine=True)
    trainer = trainer_of(fine)
    outcome = trainer.train(parse('sgd'))
    sweep, finer = bowls(fine.learning_rates, outcome.sweep)
    assert tuple(sweep.values()) == trainer_of(dataclasses.replace(fine, refine=False)).train(parse('sgd')).sweep
    assert outcome.reward == finer[outcome.learning_rate] == max(finer.values())
    alone = trainer_of(dataclasses.replace(fine, learning_rates=(outcome.learning_rate,), refine=False))
    assert alone.train(parse('sgd')).reward == outcome.reward
    below, above = (sorted(finer)[sorted(finer).index(outcome.learning_rate) + i] for i in (-1, 1))
    assert finer[below] < outcome.reward >= finer[above]
    assert above / below == pytest.approx(10**0.5, rel=0.01)
    twice = trainer.train(parse('g + g'))
    assert (twice.reward, twice.sweep) == (outcome.reward, outcome.sweep)
    assert twice.learning_rate == pytest.approx(outcome.learning_rate / 2, rel=5e-3)
    assert trainer.traces == 1


# Other arithmetic, too little memory


def test_bfloat16_is_another_training_that_learns_as_much():
    task = dataclasses.replace(TASK, network=ConvNet(filters=4, bfloat16=True), epochs=6)
    exact = dataclasses.replace(task, network=ConvNet(filters=4))
    coarse, fine = (trainer_of(task=each).train(parse('momentum')) for each in (task, exact))
    assert coarse.sweep != fine.sweep
    assert abs(coarse.reward - fine.reward) < 0.1
    assert coarse.reward > 0.5


def test_too_little_memory_names_the_batch_and_the_network(monkeypatch):
    starved = trainer_of()

    def fail(*_):
        raise tf.errors.ResourceExhaustedError(None, None, 'OOM when allocating tensor')

    monkeypatch.setattr(starved, '_outcome', fail)
    with pytest.raises(
        MemoryError, match=r'out of memory: a batch of 50 images of 8x8x1 on ConvNet\(filters=4, .*more'
    ):
        starved.train(parse('sgd'))


def test_two_hundred_rules_are_one_trace(trainer):
    space = SearchSpace(iterations=1)
    random = np.random.default_rng(0)
    small = trainer_of(
        dataclasses.replace(CHILD, learning_rates=(0.1,)), dataclasses.replace(TASK, epochs=1, train_examples=50)
    )
    rules = {space.rule([random.integers(len(choices)) for choices in space.choices]) for _ in range(230)}
    assert len(rules) >= 200
    for rule in rules:
        assert 0 <= small.train(rule).reward <= 1
    assert small.traces == 1
