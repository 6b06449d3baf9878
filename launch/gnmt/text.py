"""From sentences to batches of subwords and back, and their score (Section 5.3)."""

import hashlib
import io
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import sacrebleu
import sentencepiece
import tensorflow as tf

from gnmt.corpora import Pairs

PAD, BEGIN, END, UNKNOWN = range(4)
"""Token ids: of padding, before and after a sentence, and of a character that the vocabulary does not know."""

MOST_BYTES = 2**30  # of a sentence that the vocabulary is learnt from: sentencepiece skips longer ones without a word
PREFETCHED = 8  # batches that are ready before they are wanted


class Vocabulary:
    """Subwords that both languages share, by byte-pair encoding.

    Args:
        model: of sentencepiece, as bytes.
    """

    def __init__(self, model: bytes) -> None:
        self.model = model
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)

    @classmethod
    def learn(cls, pairs: Pairs, size: int) -> 'Vocabulary':
        """The most useful subwords of the sentences of both languages.

        Raises:
            ValueError: the text cannot give as many, or there are characters for more.
        """
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f'a vocabulary of {size!r}: must be a whole number, at least 1')
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter([*pairs.source, *pairs.target]),
                model_writer=model,
                vocab_size=size,
                model_type='bpe',
                character_coverage=1.0,
                max_sentence_length=MOST_BYTES,
                pad_id=PAD,
                bos_id=BEGIN,
                eos_id=END,
                unk_id=UNKNOWN,
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as error:
            text = str(error)
            most = re.search(r'<= (\d+)', text)
            if most:
                raise ValueError(f'a vocabulary of {size}: this text gives at most {most[1]}') from error
            characters = re.search(r'vs (\d+)', text)
            raise ValueError(
                f'a vocabulary of {size}: too small, each character needs an entry'
                f'{f", {characters[1]} in all" if characters else ""}'
            ) from error
        return cls(model.getvalue())

    @property
    def size(self) -> int:
        """How many subwords there are, the four special ones included."""
        return self._processor.get_piece_size()

    @property
    def fingerprint(self) -> str:
        """Two of equal fingerprint are equal."""
        return hashlib.sha256(self.model).hexdigest()[:16]

    def encode(self, sentences: Sequence[str]) -> list[np.ndarray]:
        """Token ids of each sentence, int32, END the last."""
        return [np.array(ids, np.int32) for ids in self._processor.encode(list(sentences), add_eos=True)]

    def decode(self, ids: np.ndarray) -> list[str]:
        """The sentences [N] of token ids [N, T], each up to its END."""
        rows = [row[: int(np.argmax(row == END))] if (row == END).any() else row for row in np.asarray(ids)]
        return [self._processor.decode([int(i) for i in row if i not in (PAD, BEGIN)]) for row in rows]


class Encoded(NamedTuple):
    """Pairs as token ids, END the last of each."""

    source: Sequence[np.ndarray]  # int32 [S]
    target: Sequence[np.ndarray]  # int32 [T]
    dropped: int  # pairs that were too long


def encode(vocabulary: Vocabulary, pairs: Pairs, longest: int) -> Encoded:
    """Pairs as token ids, without those where either has more than `longest`, END included: they are counted.

    Raises:
        ValueError: none are left.
    """
    source, target = vocabulary.encode(pairs.source), vocabulary.encode(pairs.target)
    kept = [(s, t) for s, t in zip(source, target, strict=True) if max(len(s), len(t)) <= longest]
    if not kept:
        raise ValueError(f'no sentence has at most {longest} tokens: allow longer ones, or a larger vocabulary')
    return Encoded([s for s, _ in kept], [t for _, t in kept], len(source) - len(kept))


def batches(encoded: Encoded, batch_size: int, bounds: Sequence[int], order: np.ndarray) -> tf.data.Dataset:
    """Batches of pairs of about the same length, padded to the next bound: few shapes, and little padding.

    Args:
        encoded: N pairs.
        batch_size: pairs of a batch; the last of each length may have fewer.
        bounds: lengths to pad to, growing; the last is at least that of the longest sentence.
        order: of the pairs, int [N]; the same order gives the same batches.

    Returns:
        source and target, int32 [B, S] and [B, T], S and T the same bound; PAD after the END.
    """
    source, target = map(_ragged, encoded[:2])
    lengths = np.maximum(source.row_lengths(), target.row_lengths())
    rows, padded = _plan(np.searchsorted(bounds, lengths), batch_size, order)

    def batch(rows: tf.Tensor, padded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        shape = tf.stack([-1, padded])  # -1: as many as there are
        return tf.gather(source, rows).to_tensor(PAD, shape=shape), tf.gather(target, rows).to_tensor(PAD, shape=shape)

    plan = _ragged(rows), np.asarray(bounds, np.int64)[padded]
    options = tf.data.Options()
    options.autotune.enabled = False  # its thread may sleep for up to a minute, and who drops the iterator waits for it
    return tf.data.Dataset.from_tensor_slices(plan).map(batch).prefetch(PREFETCHED).with_options(options)


def _ragged(rows: Sequence[Any]) -> tf.RaggedTensor:
    return tf.RaggedTensor.from_row_lengths(np.concatenate(rows), np.array([len(row) for row in rows]))


def _plan(buckets: np.ndarray, batch_size: int, order: np.ndarray) -> tuple[list[list[int]], list[int]]:
    """The pairs of each batch, and its bucket: a batch is there when its bucket is full, the others come last.

    Planned for an epoch at once: a pipeline that looks at each pair takes a hundred times as long.
    """
    filling: dict[int, list[int]] = {}
    full: list[tuple[list[int], int]] = []
    for row, bucket in zip(order.tolist(), buckets[order].tolist(), strict=True):
        rows = filling.setdefault(bucket, [])
        rows.append(row)
        if len(rows) == batch_size:
            full.append((filling.pop(bucket), bucket))
    full += [(filling[bucket], bucket) for bucket in sorted(filling)]
    return [rows for rows, _ in full], [bucket for _, bucket in full]


def bleu(hypotheses: Sequence[str], references: Sequence[str]) -> tuple[float, str]:
    """Corpus BLEU of detokenised text, from 0 to 100, and sacrebleu's signature."""
    metric = sacrebleu.metrics.BLEU()
    score = metric.corpus_score(list(hypotheses), [list(references)]).score
    return score, str(metric.get_signature())
