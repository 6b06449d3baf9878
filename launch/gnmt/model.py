"""The network of Google's Neural Machine Translation (Section 5.3; Wu et al., 2016, Sections 3, 5 and 7).

The bottom layer of the encoder reads in both directions. The output of the decoder's bottom layer asks for the context,
which goes into the layers above at once and into the bottom layer at the next step, so that the layers above are
computed over the whole sentence at a time. Wu et al. ask by the output of the step before, which does not know the last
token yet: that learns later to attend (docs/results/gnmt.md). From the third layer on, input and output are added.

Axes: B sentences, N sentences or hypotheses, S source tokens, T target tokens, H units, V subwords, L layers.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import gin
import keras
import numpy as np
import tensorflow as tf

from gnmt.attention import AttentionWeights, Memory, attend, attended, remember
from gnmt.recurrent import LstmState, LstmWeights, sequence, step
from gnmt.text import BEGIN, PAD
from nos_tf.config import Configured, Count, at_least, below

RESIDUAL_FROM = 3  # the number of the first layer whose input is added to its output

Drop = Callable[[tf.Tensor], tf.Tensor]


@gin.register
@dataclass(frozen=True)
class Gnmt(Configured):
    """A size of the network.

    Args:
        layers: L of the encoder, the bidirectional one included, and of the decoder; at least 2.
        units: H of each layer, of each direction, of the embeddings and of the attention.
        dropout: share of the inputs of each layer, and of the softmax, that is zeroed in training.
        initial: weights start uniform between minus and plus this.
        initial_embeddings: likewise for embeddings; None for `initial`, as Wu et al. have it.
        bfloat16: have the matrix products of training in bfloat16; all else, and all that is evaluated, in float32.

    Raises:
        ValueError: a value out of range; the message names the binding.
    """

    layers: Annotated[int, at_least(2)] = 8
    units: Count = 1024
    dropout: Annotated[float, at_least(0), below(1)] = 0.2
    initial: Annotated[float, at_least(0)] = 0.04
    initial_embeddings: Annotated[float, at_least(0)] | None = None
    bfloat16: bool = False

    def model(self, subwords: int, seed: int) -> 'Translator':
        """A new network for a vocabulary; the same seed gives the same weights."""
        return Translator(self, subwords, seed)

    def parameters(self, subwords: int) -> int:
        """How many weights there are.

        An LSTM with I inputs has 4H(I + H + 1). The encoder has two with H inputs, one with 2H and L − 2 with H; the
        decoder L with 2H. Attention has 2H² + H, two embeddings 2VH, and the softmax (H + 1)V. With L = 8, H = 1024 and
        V = 32,000: 79.7 + 100.7 + 2.1 + 65.5 + 32.8 = 280.8 million.

        >>> Gnmt().parameters(32_000)
        280858880
        """
        h, v, layers = self.units, subwords, self.layers
        of_lstm = [4 * h * (inputs + h + 1) for inputs in (h, 2 * h)]
        recurrent = layers * of_lstm[0] + of_lstm[1] + layers * of_lstm[1]
        return recurrent + 2 * h * h + h + 2 * v * h + (h + 1) * v


class Weights(NamedTuple):
    """All weights as tensors, each read once: a variable may lie on a parameter server."""

    source: tf.Tensor  # float32 [V, H], embeddings
    target: tf.Tensor  # float32 [V, H]
    encoder: list[LstmWeights]  # forwards, backwards, and the layers above
    decoder: list[LstmWeights]
    attention: AttentionWeights
    softmax: tf.Tensor  # [H, V]
    bias: tf.Tensor  # [V]


class Translator(keras.Model):
    """The network; called with (source [B, S], target [B, T]) it gives the logits [B, T, V] of each target token.

    Token ids, int32; each sentence has END after it, and PAD after that, which changes nothing. What precedes a target
    token is what the logits know of the target.

    Args:
        size: of it.
        subwords: V.
        seed: of the initial weights.
    """

    def __init__(self, size: Gnmt, subwords: int, seed: int) -> None:
        super().__init__(dtype='float32')
        self.size, self.subwords = size, subwords
        h, seeds = size.units, np.random.Generator(np.random.PCG64(seed))

        def weight(name: str, *shape: int, most: float = size.initial) -> Any:
            seed = int(seeds.integers(2**31))
            uniform = keras.initializers.RandomUniform(-most, most, seed)
            return self.add_weight(shape=shape, initializer=uniform, name=name)

        def lstm(name: str, inputs: int) -> tuple[Any, ...]:
            shapes = (inputs, 4 * h), (h, 4 * h), (4 * h,)
            return tuple(weight(f'{name}_{f}', *s) for f, s in zip(LstmWeights._fields, shapes, strict=True))

        above = [(f'encoder_{i}', 2 * h if i == 2 else h) for i in range(2, size.layers + 1)]
        self._encoder = [lstm(*at) for at in [('encoder_1_forwards', h), ('encoder_1_backwards', h), *above]]
        self._decoder = [lstm(f'decoder_{i}', 2 * h) for i in range(1, size.layers + 1)]
        most = size.initial if size.initial_embeddings is None else size.initial_embeddings
        self._embeddings = [weight(f'{side}_embedding', subwords, h, most=most) for side in ('source', 'target')]
        self._attention = [weight('query', h, h), weight('key', h, h), weight('energy', h)]
        self._softmax = [weight('softmax', h, subwords), weight('softmax_bias', subwords)]
        self.built = True

    def read(self, training: bool = False) -> Weights:
        """The weights as they are now; vectors and embeddings stay in float32."""
        dtype = tf.bfloat16 if training and self.size.bfloat16 else tf.float32

        def tensor(variable: Any) -> tf.Tensor:
            value = tf.convert_to_tensor(variable.value)
            return tf.cast(value, dtype) if value.shape.rank > 1 else value

        parts = ([LstmWeights(*map(tensor, lstm)) for lstm in stack] for stack in (self._encoder, self._decoder))
        encoder, decoder = parts
        attention, softmax = (map(tensor, group) for group in (self._attention, self._softmax))
        source, target = (tf.convert_to_tensor(table.value) for table in self._embeddings)
        return Weights(source, target, encoder, decoder, AttentionWeights(*attention), *softmax)

    def call(
        self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool = False, seed: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Logits float32 [B, T, V]; `seed`, int32 [2], is of the dropout in training."""
        source, target = inputs
        weights = self.read(training)
        drop = _dropout(self.size.dropout, tf.zeros([2], tf.int32) if seed is None else seed) if training else _keep
        memory = encode(weights, source, drop)
        before = tf.concat([tf.fill([tf.shape(target)[0], 1], BEGIN), target[:, :-1]], 1)
        return _logits(weights, _decode(weights, memory, before, drop))

    def losses_of(
        self, source: tf.Tensor, target: tf.Tensor, training: bool = False, seed: tf.Tensor | None = None
    ) -> tf.Tensor:
        """The cross-entropy of each target token, in nats, float32 [B, T]; 0 for PAD."""
        logits = self((source, target), training=training, seed=seed)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(target, logits)
        return tf.where(target == PAD, 0.0, losses)


def encode(weights: Weights, source: tf.Tensor, drop: Drop | None = None) -> Memory:
    """What the decoder needs to know of source [B, S]."""
    drop = drop or _keep
    mask = source != PAD
    lengths = tf.math.count_nonzero(mask, 1)
    x = drop(_embedded(weights, weights.source, tf.transpose(source)))
    forwards, backwards, *above = weights.encoder
    turned = tf.reverse_sequence(x, lengths, seq_axis=0, batch_axis=1)
    back = tf.reverse_sequence(sequence(backwards, turned), lengths, seq_axis=0, batch_axis=1)
    x = tf.concat([sequence(forwards, x), back], -1)
    for number, layer in enumerate(above, start=2):
        y = sequence(layer, drop(x))
        x = y + x if number >= RESIDUAL_FROM else y
    return remember(weights.attention, tf.transpose(x, [1, 0, 2]), mask)


class DecoderState(NamedTuple):
    """What the decoder hands to its next step."""

    layers: tuple[LstmState, ...]
    context: tf.Tensor  # [N, H], what it attended to last


def start(weights: Weights, memory: Memory) -> DecoderState:
    """The decoder before its first token: zeros, for Wu et al. hand nothing over but what is attended to."""
    zeros = tf.zeros([tf.shape(memory.mask)[0], weights.attention.query.shape[0]])
    rounded = tf.cast(zeros, weights.softmax.dtype)
    return DecoderState(tuple(LstmState(rounded, zeros) for _ in weights.decoder), rounded)


def advance(
    weights: Weights, memory: Memory, state: DecoderState, tokens: tf.Tensor
) -> tuple[tf.Tensor, DecoderState, tf.Tensor]:
    """One step of the decoder.

    Args:
        weights: of the model.
        memory: of N sources.
        state: of N hypotheses.
        tokens: the last ones, int32 [N].

    Returns:
        logits float32 [N, V] of the next, the new state, and to what it attended, float32 [N, S].
    """
    bottom, *above = weights.decoder
    inputs = tf.concat([_embedded(weights, weights.target, tokens), state.context], -1)
    layers = [step(bottom, inputs, state.layers[0])]
    x = layers[0].h
    context, attention = attend(weights.attention, memory, x)
    for number, (layer, before) in enumerate(zip(above, state.layers[1:], strict=True), start=2):
        layers.append(step(layer, tf.concat([x, context], -1), before))
        x = layers[-1].h + x if number >= RESIDUAL_FROM else layers[-1].h
    return _logits(weights, x), DecoderState(tuple(layers), context), attention


def _decode(weights: Weights, memory: Memory, before: tf.Tensor, drop: Drop) -> tf.Tensor:
    """What the softmax reads, [B, T, H], where `before` [B, T] are the tokens before each."""
    x = drop(_embedded(weights, weights.target, tf.transpose(before)))
    x, contexts = attended(weights.attention, memory, weights.decoder[0], x)
    for number, layer in enumerate(weights.decoder[1:], start=2):
        y = sequence(layer, drop(tf.concat([x, contexts], -1)))
        x = y + x if number >= RESIDUAL_FROM else y
    return tf.transpose(drop(x), [1, 0, 2])


def _embedded(weights: Weights, table: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
    """Rounded after the look-up, so that the gradients of a frequent token are added in float32."""
    return tf.cast(tf.gather(table, ids), weights.softmax.dtype)


def _logits(weights: Weights, x: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.tensordot(x, weights.softmax, 1), tf.float32) + weights.bias


def _keep(x: tf.Tensor) -> tf.Tensor:
    return x


def _dropout(rate: float, seed: tf.Tensor) -> Drop:
    """Dropout that draws anew at each place of the network."""
    places = itertools.count()

    def drop(x: tf.Tensor) -> tf.Tensor:
        at = tf.random.experimental.stateless_fold_in(seed, next(places))
        return tf.nn.experimental.stateless_dropout(x, rate, seed=at) if rate else x

    return drop
