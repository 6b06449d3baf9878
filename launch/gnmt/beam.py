"""Beam search, many sentences at a time and all in the graph (Wu et al., 2016, Section 7).

A hypothesis Y of source X that has ended is worth log P(Y|X) / lp(Y) + cp(X, Y), where
lp(Y) = ((5 + |Y|) / 6)^α and cp(X, Y) = β Σ_i log min(Σ_j attention_ij, 1), i over the source and j over the target.
"""

from dataclasses import dataclass
from typing import NamedTuple

import gin
import tensorflow as tf

from gnmt.attention import Memory
from gnmt.model import DecoderState, Weights, advance, encode, start
from gnmt.text import BEGIN, END, PAD
from nos_tf.config import Configured, Count, Share

_LEAST = 1e-9  # attention, before its logarithm
LENGTHS, MORE = 2, 10  # a translation has at most so many times the tokens of its source, and so many more


@gin.register
@dataclass(frozen=True)
class Beam(Configured):
    """How to translate.

    Args:
        width: K hypotheses of a sentence; 1 is greedy. Each that ends leaves one less to go on.
        alpha: of the length normalisation; 0 for none.
        beta: of the coverage penalty; 0 for none.

    Raises:
        ValueError: a value out of range; the message names the binding.
    """

    width: Count = 4
    alpha: Share = 0.2
    beta: Share = 0.2

    def search(self, weights: Weights, source: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The best translations that are found of source int32 [B, S].

        Returns:
            int32 [B, T], the last token of each END unless it grew too long, PAD after it; what they are worth [B].
        """
        b, k = tf.shape(source)[0], self.width
        memory = encode(weights, source)
        lengths = tf.math.count_nonzero(memory.mask, 1, dtype=tf.int32)
        limit = LENGTHS * lengths + MORE
        most = tf.reduce_max(limit)
        memory = Memory(*(tf.repeat(part, k, axis=0) for part in memory))
        begun = _Hypotheses(
            tokens=tf.fill([b, k, most], PAD),
            last=tf.fill([b, k], BEGIN),
            log_p=tf.tile([[0.0] + [-float('inf')] * (k - 1)], [b, 1]),
            coverage=tf.zeros([b, k, tf.shape(source)[1]]),
            state=start(weights, memory),
        )
        ended = _Ended(tf.fill([b, k, most], PAD), tf.fill([b, k], -float('inf')))

        def body(t: tf.Tensor, going: _Hypotheses, ended: _Ended) -> tuple:
            return t + 1, *self._step(weights, memory, t, limit, going, ended)

        def is_going(t: tf.Tensor, going: _Hypotheses, _: _Ended) -> tf.Tensor:
            return (t < most) & tf.reduce_any(going.log_p > -float('inf'))

        invariants = tf.nest.map_structure(
            lambda x: tf.TensorShape([None] * x.shape.rank) if x.shape.rank > 2 else x.shape, (begun, ended)
        )
        _, _, ended = tf.while_loop(
            is_going, body, (0, begun, ended), shape_invariants=(tf.TensorShape([]), *invariants)
        )
        return ended.tokens[:, 0], ended.worth[:, 0]

    def _step(
        self,
        weights: Weights,
        memory: Memory,
        t: tf.Tensor,
        limit: tf.Tensor,
        going: '_Hypotheses',
        ended: '_Ended',
    ) -> tuple['_Hypotheses', '_Ended']:
        """Goes on with each hypothesis by one token, in the best ways."""
        b, k = tf.shape(limit)[0], self.width

        logits, state, attention = advance(weights, memory, going.state, tf.reshape(going.last, [-1]))
        subwords = logits.shape[-1]
        log_p = going.log_p[..., tf.newaxis] + tf.reshape(tf.nn.log_softmax(logits), [b, k, subwords])
        log_p, best = tf.math.top_k(tf.reshape(log_p, [b, k * subwords]), k)
        free = k - tf.math.count_nonzero(ended.worth > -float('inf'), 1, dtype=tf.int32)
        log_p = tf.where(tf.range(k) < free[:, tf.newaxis], log_p, -float('inf'))
        parent, token = best // subwords, best % subwords
        coverage = going.coverage + tf.reshape(attention, [b, k, -1])
        coverage = tf.gather(coverage, parent, batch_dims=1)
        tokens = tf.gather(going.tokens, parent, batch_dims=1)
        tokens = tf.concat([tokens[..., :t], token[..., tf.newaxis], tokens[..., t + 1 :]], -1)
        ends = (token == END) | (t + 1 >= limit)[:, tf.newaxis]
        mask = tf.reshape(memory.mask, [b, k, -1])
        worth = tf.where(ends, self._worth(log_p, t + 1, coverage, mask), -float('inf'))
        flat = tf.reshape(parent + k * tf.range(b)[:, tf.newaxis], [-1])
        state = tf.nest.map_structure(lambda part: tf.gather(part, flat), state)
        kept = _Hypotheses(tokens, token, tf.where(ends, -float('inf'), log_p), coverage, state)
        return kept, ended.best_with(tokens, worth)

    def _worth(self, log_p: tf.Tensor, length: tf.Tensor, coverage: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """Of hypotheses of one length, [B, K]."""
        penalty = ((5.0 + tf.cast(length, tf.float32)) / 6.0) ** self.alpha
        logs = tf.where(mask, tf.math.log(tf.clip_by_value(coverage, _LEAST, 1.0)), 0.0)
        return log_p / penalty + self.beta * tf.reduce_sum(logs, -1)


class _Hypotheses(NamedTuple):
    """Those that go on; a log_p of minus infinity is none."""

    tokens: tf.Tensor  # int32 [B, K, most]
    last: tf.Tensor  # int32 [B, K]
    log_p: tf.Tensor  # [B, K]
    coverage: tf.Tensor  # [B, K, S]
    state: DecoderState  # of the B * K


class _Ended(NamedTuple):
    """Those that have ended, the best first; a worth of minus infinity is none."""

    tokens: tf.Tensor  # int32 [B, K, most]
    worth: tf.Tensor  # [B, K]

    def best_with(self, tokens: tf.Tensor, worth: tf.Tensor) -> '_Ended':
        """These and others."""
        worth, index = tf.math.top_k(tf.concat([self.worth, worth], 1), worth.shape[1])
        return _Ended(tf.gather(tf.concat([self.tokens, tokens], 1), index, batch_dims=1), worth)
