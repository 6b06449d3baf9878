"""Sentences as subwords, in batches, and scored."""

import numpy as np
import pytest

from gnmt.corpora import NumberWords
from gnmt.text import BEGIN, END, PAD, Vocabulary, batches, bleu, encode


@pytest.fixture(scope='module')
def corpus():
    return NumberWords(300, 20, 30, 1000).load()


@pytest.fixture(scope='module')
def vocabulary(corpus):
    return Vocabulary.learn(corpus.train, 100)


def test_sentences_survive_their_subwords(corpus, vocabulary):
    assert vocabulary.size == 100
    for pairs in corpus[1:]:
        ids = vocabulary.encode(pairs.target)
        assert all(row[-1] == END and not np.isin([PAD, BEGIN, END], row[:-1]).any() for row in ids)
        padded = np.full([len(ids), 40], PAD)
        for row, values in zip(padded, ids, strict=True):
            row[: len(values)] = values
        assert vocabulary.decode(padded) == pairs.target


def test_what_comes_after_the_end_or_has_none(vocabulary):
    (ids,) = vocabulary.encode(['neun'])
    assert vocabulary.decode([[*ids, *ids]]) == ['neun']
    assert vocabulary.decode([[BEGIN, *ids[:-1]]]) == ['neun']
    assert vocabulary.decode([[END, *ids]]) == ['']


def test_a_vocabulary_is_its_model(corpus, vocabulary):
    again = Vocabulary(vocabulary.model)
    assert again.fingerprint == vocabulary.fingerprint == Vocabulary.learn(corpus.train, 100).fingerprint
    assert again.fingerprint != Vocabulary.learn(corpus.train, 90).fingerprint


@pytest.mark.parametrize(
    ('size', 'said'), [(100_000, 'this text gives at most'), (10, 'too small'), (0, 'a vocabulary of 0: must')]
)
def test_a_vocabulary_that_cannot_be(corpus, size, said):
    with pytest.raises(ValueError, match=said):
        Vocabulary.learn(corpus.train, size)


def test_long_sentences_are_counted(corpus, vocabulary):
    whole = encode(vocabulary, corpus.train, 100)
    longest = max(len(ids) for ids in (*whole.source, *whole.target))
    some = encode(vocabulary, corpus.train, longest - 1)
    assert whole.dropped == 0 < some.dropped and len(some.source) + some.dropped == 300
    with pytest.raises(ValueError, match='no sentence has at most 1 tokens'):
        encode(vocabulary, corpus.train, 1)


def test_every_pair_is_in_one_batch_with_others_of_its_length(corpus, vocabulary):
    encoded, bounds = encode(vocabulary, corpus.train, 20), (6, 10, 20)
    order = np.random.default_rng(0).permutation(len(encoded.source))
    seen = []
    for source, target in batches(encoded, 32, bounds, order).as_numpy_iterator():
        assert source.shape == target.shape and source.shape[1] in bounds and len(source) <= 32
        for row in zip(source, target, strict=True):
            pair = tuple(tuple(side[: int(np.argmax(side == END)) + 1]) for side in row)
            assert all((side[len(kept) :] == PAD).all() for side, kept in zip(row, pair, strict=True))
            length = max(map(len, pair))
            assert min(bound for bound in bounds if bound >= length) == source.shape[1]
            seen.append(pair)
    assert sorted(seen) == sorted((tuple(s), tuple(t)) for s, t in zip(*encoded[:2], strict=True))
    again = batches(encoded, 32, bounds, order).as_numpy_iterator()
    first = next(iter(batches(encoded, 32, bounds, order).as_numpy_iterator()))
    np.testing.assert_array_equal(next(again)[0], first[0])


def test_nobody_waits_for_the_thread_that_would_tune_the_pipeline(corpus, vocabulary):
    encoded = encode(vocabulary, corpus.train, 20)
    assert batches(encoded, 32, (20,), np.arange(300)).options().autotune.enabled is False


def test_bleu_is_that_of_sacrebleu():
    assert bleu(['eins zwei drei vier'], ['eins zwei drei vier'])[0] == pytest.approx(100)
    score, signature = bleu(['a b c d e f', 'x'], ['a b c d e g', 'x'])
    assert 50 < score < 100 and signature.startswith('nrefs:1|case:mixed')
