"""The tasks of the verdict, on which nobody looks before a choice is committed (docs/tasks.md).

nos-tf bench --task benchmarks/verdict_tasks.py:vision_transformer --contenders ... --run_dir runs/verdict

The fifth is translation, by gin/gnmt_multi30k.gin. CIFAR-10 lies where tensorflow-datasets looks for it, and the
English half of Multi30k (train.en, val.en) in the directory that the variable MULTI30K names.
"""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

from nos_tf import KerasTask
from nos_tf.tasks.data import TfdsImages
from nos_tf.tasks.training import Augmentation, Recipe
from nos_tf.tasks.wide_resnet import WideResNet

CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
VALIDATION = 2000  # examples of a measure
WINDOW = 64  # characters


def vision_transformer() -> KerasTask:
    """Four attention blocks classify CIFAR-10 by patches of 4x4 pixels; images are flipped and shifted."""
    (x, y), validation = _cifar10(side=None)
    return KerasTask(
        _vision_transformer,
        (x, y),
        validation,
        loss=CROSSENTROPY,
        steps=1500,
        batch_size=64,
        augment=Augmentation(True, 4),
    )


def convolutional_autoencoder() -> KerasTask:
    """Convolutions squeeze images of CIFAR-10 through 64 numbers."""
    (x, _), (held_out, _) = _cifar10(side=16)
    return KerasTask(_autoencoder, (x, x), (held_out, held_out), loss='mse', steps=1500, batch_size=64)


def character_transformer() -> KerasTask:
    """Three attention blocks with dropout predict the characters of English captions."""
    folder = Path(os.environ.get('MULTI30K', 'multi30k'))
    texts = [(folder / f'{part}.en').read_text(encoding='utf-8').lower() for part in ('train', 'val')]
    codes = {character: code for code, character in enumerate(sorted(set(texts[0])), start=1)}  # 0 is any other
    parts = []
    for text in texts:
        windows = np.array([codes.get(c, 0) for c in text[: len(text) // (WINDOW + 1) * (WINDOW + 1)]], np.int32)
        windows = windows.reshape(-1, WINDOW + 1)
        parts.append((windows[:, :-1], windows[:, 1:]))
    validation = tuple(part[:VALIDATION] for part in parts[1])
    build = partial(_character_transformer, len(codes) + 1)
    return KerasTask(build, parts[0], validation, loss=CROSSENTROPY, steps=1500, batch_size=32)


def wide_resnet() -> KerasTask:
    """The reduced Wide ResNet of docs/results/wide_resnet.md, with cosine decay, in a third of its epochs."""
    images = TfdsImages(side=16, validation_examples=2500, download=False)
    network = WideResNet(depth=16, width=1)
    recipe = Recipe(
        images, network, epochs=10, batch_size=128, train_examples=10_000, flips=True, shift=2, weight_decay=5e-4
    )
    return replace(recipe.task(), schedule='cosine')


def _cifar10(side: int | None) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    images = TfdsImages(side=side, download=False).load()
    held_out = images.validation.head(VALIDATION)
    return (images.train.images, images.train.labels), (held_out.images, held_out.labels)


def _block(x: keras.KerasTensor, width: int, dropout: float, causal: bool) -> keras.KerasTensor:
    normal = layers.LayerNormalization()(x)
    attended = layers.MultiHeadAttention(4, width // 4)(normal, normal, use_causal_mask=causal)
    x = x + layers.Dropout(dropout)(attended)
    hidden = layers.Dense(2 * width, 'gelu')(layers.LayerNormalization()(x))
    return x + layers.Dropout(dropout)(layers.Dense(width)(hidden))


def _with_places(x: keras.KerasTensor, width: int) -> keras.KerasTensor:
    places = ops.cumsum(ops.ones_like(x[..., 0], 'int32'), -1) - 1
    return x + layers.Embedding(x.shape[1], width)(places)


def _vision_transformer(width: int = 64) -> keras.Model:
    images = keras.Input((32, 32, 3))
    x = layers.Reshape((64, width))(layers.Conv2D(width, 4, 4)(images))
    x = _with_places(x, width)
    for _ in range(4):
        x = _block(x, width, 0.0, causal=False)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(images, layers.Dense(10)(x))


def _autoencoder() -> keras.Model:
    encoder = [layers.Conv2D(filters, 3, 2, padding='same', activation='relu') for filters in (16, 32, 64)]
    middle = [layers.Flatten(), layers.Dense(64), layers.Dense(256, 'relu'), layers.Reshape((2, 2, 64))]
    decoder = [layers.Conv2DTranspose(filters, 3, 2, padding='same', activation='relu') for filters in (32, 16)]
    return keras.Sequential([*encoder, *middle, *decoder, layers.Conv2DTranspose(3, 3, 2, padding='same')])


def _character_transformer(symbols: int, width: int = 64, dropout: float = 0.1) -> keras.Model:
    characters = keras.Input((WINDOW,), dtype='int32')
    x = _with_places(layers.Embedding(symbols, width)(characters), width)
    for _ in range(3):
        x = _block(x, width, dropout, causal=True)
    return keras.Model(characters, layers.Dense(symbols)(layers.LayerNormalization()(x)))
