"""Trainings that stop and go on, learn by heart, and say what they saw."""

import dataclasses
import math
import shutil

import numpy as np
import pytest
import tensorflow as tf

from gnmt import trainer as module
from gnmt.corpora import TextFiles
from gnmt.model import Gnmt
from gnmt.state import State, count_atomically
from gnmt.trainer import TranslationSetup
from nos_tf.errors import RunError
from tests.launch.gnmt.small import RECIPE, point, trained, write_files

ADAM = ('keras.Adam', 0.01, 0)


@pytest.fixture
def make(tmp_path):
    numbers = iter(range(99))
    return lambda **change: TranslationSetup(
        dataclasses.replace(RECIPE, **change), tmp_path / str(next(numbers))
    ).trainer()


def without_times(trained):
    return trained._replace(points=tuple(p._replace(tokens_per_second=0, waiting=0) for p in trained.points))


@pytest.mark.slow
@pytest.mark.parametrize(
    ('contender', 'rate'),
    [
        ('drop30_powersign', 0.3),  # which draws, too
        ('keras.Adam with use_ema=1, ema_overwrite_frequency=3, gradient_accumulation_steps=2', 0.01),
    ],
)
def test_a_training_that_stopped_ends_with_the_same_bits(make, monkeypatch, contender, rate):
    whole, stopped, job = make(), make(), (contender, rate, 1)
    early, save = stopped.checkpoint(*job), State.save

    def save_and_keep_the_first(state, path, trained):
        save(state, path, trained)
        if state.steps == 2:
            early.parent.mkdir(parents=True)
            shutil.copy(path, early)

    with monkeypatch.context() as patch:
        patch.setattr(State, 'save', save_and_keep_the_first)
        expected = whole.train(*job, 6)
    assert [point.step for point in expected.points] == [2, 4, 6]
    assert without_times(stopped.train(*job, 6)) == without_times(expected)
    for key in np.load(whole.checkpoint(*job)).files:
        if key != 'points':
            one, other = (np.load(t.checkpoint(*job))[key] for t in (whole, stopped))
            np.testing.assert_array_equal(one, other)


def test_what_it_reports(make, capsys):
    trainer = make()
    assert trainer.train(*ADAM, 2).test_bleu is None  # it has not ended
    trained = trainer.train(*ADAM, 6)
    assert [point.step for point in trained.points] == [2, 4, 6]
    assert trained.points[-1].validation_perplexity < trained.points[0].validation_perplexity < 60
    assert trained.memory == 2.0 and 0 <= trained.test_exact <= 1 and 'version:' in trained.signature
    assert not trained.stopped and not trained.diverged
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith('keras.Adam at 0.01, seed 0: step 6 of 6, perplexity ') and lines[2].endswith('min left')
    values = [
        value
        for events in trainer._run_dir.glob('tensorboard/keras.Adam/0.01-0/events*')
        for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
    ]
    wanted = {'train_perplexity', 'validation_perplexity', 'validation_bleu', 'tokens_per_second', 'waiting', 'samples'}
    assert wanted <= {value.tag for value in values}
    text = next(value.tensor.string_val[0].decode() for value in values if value.tag == 'samples')
    assert trainer.corpus.validation.source[0] in text and len(text.splitlines()) == 2 + module.SAMPLES


def test_powersign_keeps_half_of_what_adam_keeps(make):
    assert make().state('powersign', 0.3, 0).memory == 1.0


def test_rates_and_seeds_make_a_difference(make):
    trainer, begun = make(), []
    for job in (ADAM, ('keras.Adam', 0.001, 0), ('keras.Adam', 0.01, 1)):
        state = trainer.state(*job)
        state.restore(trainer.checkpoint(*job))  # there is none
        weights = float(tf.reduce_sum(state.readable_model().trainable_variables[0]))
        begun.append((weights, float(state.optimizer.learning_rate), state.next_batch()[0].numpy().tobytes()))
    first, other_rate, other_seed = begun
    assert (first[0], first[2]) == (other_rate[0], other_rate[2]) and first[1] == pytest.approx(10 * other_rate[1])
    assert first[1] == other_seed[1] and first[0] != other_seed[0] and first[2] != other_seed[2]


def test_averages_are_judged_and_the_weights_themselves_go_on(make):
    trainer, job = make(), ('keras.SGD with use_ema=1, ema_momentum=0.5', 1.0, 0)
    state = trainer.state(*job)
    state.restore(trainer.checkpoint(*job))  # there is none
    seen = []
    for _ in range(3):
        state.update(*state.next_batch())
        seen.append([weight.numpy() for weight in state._model.trainable_variables])
    judged = [weight.numpy() for weight in state.readable_model().trainable_variables]
    for first, second, third, average in zip(*seen, judged, strict=True):
        np.testing.assert_allclose(average, 0.25 * first + 0.25 * second + 0.5 * third, atol=1e-6)
    assert max(np.abs(one - other).max() for one, other in zip(judged, seen[-1], strict=True)) > 1e-3
    state.keep_as_best()
    state.update(*state.next_batch())
    best = [weight.numpy() for weight in state.best_model().trainable_variables]
    np.testing.assert_array_equal(
        np.concatenate([w.ravel() for w in best]), np.concatenate([w.ravel() for w in judged])
    )


def test_gradients_are_accumulated(make):
    trainer, job = make(), ('keras.SGD with gradient_accumulation_steps=2', 1.0, 0)
    state = trainer.state(*job)
    state.restore(trainer.checkpoint(*job))
    steps = [state._model.trainable_variables[-1].numpy()]
    for _ in range(2):
        state.update(*state.next_batch())
        steps.append(state._model.trainable_variables[-1].numpy())
    np.testing.assert_array_equal(steps[0], steps[1])
    assert np.abs(steps[2] - steps[1]).max() > 1e-4


def test_it_ends_when_validation_gets_no_better(make):
    trained = make(patience=1, steps=40).train('keras.SGD', 1e-12, 0, 40)
    assert trained.stopped and len(trained.points) < 20 and trained.test_bleu is not None


def test_divergence_is_a_result(make):
    trained = make().train('keras.SGD', 1e30, 0, 6)
    assert trained.diverged and trained.test_bleu == 0.0 and math.isinf(trained.points[-1].validation_perplexity)


def saved(trainer):
    """The state of a training that has been saved, after no step."""
    state, path = trainer.state(*ADAM), trainer.checkpoint(*ADAM)
    state.restore(path)  # there is none
    state.save(path, trained(point(2, 3.0)))
    return state, path


def test_a_damaged_checkpoint_is_said_and_is_none(make, capsys):
    state, path = saved(make())
    weights = state.readable_model().trainable_variables[0]
    start = weights.numpy()
    weights.assign(start + 1)
    path.write_bytes(path.read_bytes()[:1000])
    assert state.restore(path).points == () and state.steps == 0
    np.testing.assert_array_equal(weights, start)
    assert f'{path} is damaged (' in capsys.readouterr().err


def test_a_checkpoint_that_cannot_be_read_now_is_not_called_damaged(make, capsys):
    state, path = saved(make())
    path.unlink()
    path.symlink_to('/proc/self/mem')  # a read of its beginning fails as one of a bad disk does
    with pytest.raises(OSError, match='Input/output error'):
        state.restore(path)
    assert 'damaged' not in capsys.readouterr().err


@pytest.mark.parametrize('change', [{'network': Gnmt(2, 16, 0.3, 0.1)}, {'subwords': 61}])
def test_a_checkpoint_of_another_model_or_vocabulary_is_refused(make, change):
    trainer = make()
    state, path = saved(trainer)
    assert state.restore(path).points == (point(2, 3.0),)
    other = TranslationSetup(dataclasses.replace(trainer.recipe, **change), trainer._run_dir).trainer()
    with pytest.raises(RunError, match='is a checkpoint of another model, vocabulary or text: move it away'):
        other.train(*ADAM, 2)


@pytest.mark.parametrize('change', [{'batch_size': 301}, {'batch_size': 300, 'bounds': (8, 12)}])
def test_a_batch_larger_than_what_is_left_is_told(make, change):
    with pytest.raises(ValueError, match=r'batch_size = \d+: number words has only \d+ pairs of at most'):
        make(**change)


def test_pairs_that_are_too_long_are_counted_and_translated_all_the_same(make, capsys):
    trainer = make(bounds=(8, 12))
    train, validation = trainer.dropped['train'], trainer.dropped['validation']
    said = f'number words: left out, with more than 12 tokens: {train} of train and {validation} of validation\n'
    assert capsys.readouterr().out == said
    lengths = [max(map(len, pair)) for pair in zip(*map(trainer.vocabulary.encode, trainer.corpus.train), strict=True)]
    assert trainer.dropped['train'] == sum(length > 12 for length in lengths) > 0
    translations = trainer.translate(Gnmt(2, 16).model(trainer.vocabulary.size, 0), trainer.corpus.test.source)
    assert len(translations) == 20


@pytest.mark.slow
def test_a_few_sentences_are_learnt_by_heart(make, tmp_path):
    write_files(tmp_path, 12)
    trainer = make(
        corpus=TextFiles(str(tmp_path), source='de', target='en'),
        subwords=80,
        bounds=(16,),
        network=Gnmt(layers=2, units=64, dropout=0.0, initial=0.2),
        batch_size=12,
        steps=240,
        evaluate_every=240,
    )
    trained = trainer.train('keras.Adam', 0.01, 0, 240)
    assert trained.test_bleu > 95 and trained.test_exact > 0.95, trained


def test_steps_of_several_workers_are_all_counted(make):
    """Keras reads, adds and writes, so that two at a time may count as one."""
    trainer = make()
    state = trainer.state('powersign', 0.1, 0)
    count_atomically(state.optimizer)
    state.restore(trainer.checkpoint('powersign', 0.1, 0))
    for _ in range(3):
        state.update(*state.next_batch())
    assert int(state.optimizer.iterations.numpy()) == 3
    graph = state._step.get_concrete_function().graph
    counter = state.optimizer.iterations.value.handle
    index = next(i for i, (outer, _) in enumerate(graph.captures) if outer is counter)
    inner = graph.captures[index][1]
    kinds = {op.type for op in graph.get_operations() if any(i is inner for i in op.inputs)}
    assert 'AssignAddVariableOp' in kinds and 'AssignVariableOp' not in kinds
