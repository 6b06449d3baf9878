"""Beam search in the graph against one in plain Python, sentence by sentence."""

import math

import numpy as np
import pytest
import tensorflow as tf

from gnmt.beam import Beam
from gnmt.model import Gnmt, advance, encode, start
from gnmt.text import BEGIN, END, PAD

V = 9
SOURCE = tf.constant([[5, 6, 7, 8, END], [8, END, PAD, PAD, PAD], [4, 4, END, PAD, PAD]])


@pytest.fixture(scope='module')
def weights():
    return Gnmt(layers=2, units=8, initial=1.5).model(V, seed=5).read()


def searched_in_python(weights, source, beam):
    """(tokens, worth) of one source [1, S] without padding: hypotheses are lists, and those that end leave the beam."""
    memory = encode(weights, source)
    limit = 2 * source.shape[1] + 10
    going = [([], 0.0, np.zeros(source.shape[1]), start(weights, memory))]
    ended = []
    for length in range(1, limit + 1):
        found = []
        for tokens, log_p, coverage, states in going:
            last = tf.constant([tokens[-1] if tokens else BEGIN])
            logits, after, attention = advance(weights, memory, states, last)
            for token, more in enumerate(tf.nn.log_softmax(logits)[0].numpy()):
                found.append(([*tokens, token], log_p + more, coverage + attention[0].numpy(), after))
        found.sort(key=lambda hypothesis: -hypothesis[1])
        going = []
        for tokens, log_p, coverage, after in found[: beam.width - len(ended)]:
            if tokens[-1] == END or length == limit:
                covered = sum(math.log(min(c, 1.0)) for c in coverage)
                ended.append((tokens, log_p / ((5 + length) / 6) ** beam.alpha + beam.beta * covered))
            else:
                going.append((tokens, log_p, coverage, after))
        if not going:
            break
    return max(ended, key=lambda hypothesis: hypothesis[1])


@pytest.mark.parametrize('beam', [Beam(1, 0.0, 0.0), Beam(3, 0.6, 0.2), Beam(4, 0.2, 0.0), Beam(5, 0.0, 1.0)])
def test_it_finds_what_plain_python_finds(weights, beam):
    search = tf.function(lambda source: beam.search(weights, source))
    tokens, worth = (value.numpy() for value in search(SOURCE))
    lengths = [np.count_nonzero(row) for row in SOURCE.numpy()]
    for row, length in enumerate(lengths):
        expected, value = searched_in_python(weights, SOURCE[row : row + 1, :length], beam)
        assert [token for token in tokens[row] if token != PAD] == [token for token in expected if token != PAD]
        assert worth[row] == pytest.approx(value, rel=1e-4, abs=1e-5)


def test_a_beam_of_one_is_greedy(weights):
    tokens = Beam(1, 0.7, 0.7).search(weights, SOURCE)[0].numpy()
    memory = encode(weights, SOURCE)
    states, last, going = start(weights, memory), tf.fill([3], BEGIN), np.ones(3, bool)
    limit = 2 * np.count_nonzero(SOURCE, 1) + 10
    for t in range(tokens.shape[1]):
        logits, states, _ = advance(weights, memory, states, last)
        last = tf.argmax(logits, 1, tf.int32)
        np.testing.assert_array_equal(tokens[:, t], np.where(going, last, PAD))
        going &= (last.numpy() != END) & (t + 1 < limit)
    assert not going.any()


def test_longer_ones_are_worth_more_with_alpha_and_the_search_differs(weights):
    short, long = (Beam(4, alpha, 0.0).search(weights, SOURCE)[1].numpy() for alpha in (0.0, 1.0))
    assert np.all(long >= short) and np.any(long > short)


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        ({'width': 0}, 'Beam.width = 0'),
        ({'alpha': -0.1}, 'Beam.alpha = -0.1: must be a number, at least 0 and at most 1'),
    ],
)
def test_beams_that_cannot_be(arguments, said):
    with pytest.raises(ValueError, match=said):
        Beam(**arguments)
