"""Image classification data for children: digits (embedded), files as MNIST's, CIFAR-10 and others through tfds.

A source is a small frozen value that pickles; `load()` gives the arrays. Splits are fixed by the source alone, so that
the held-out validation set is the same for every rule, run and worker (Section 4.2).
"""

import gzip
import hashlib
import os
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Protocol, runtime_checkable

import gin
import numpy as np

from nos_tf.config import Configured, Count, Incidental, Natural, at_least


@dataclass(frozen=True)
class Split:
    """Examples: images float32 [N, H, W, C], standardised; labels int32 [N]."""

    images: np.ndarray
    labels: np.ndarray

    def head(self, count: int | None) -> 'Split':
        """The first `count` examples; all of them for None."""
        return Split(self.images[:count], self.labels[:count])


@dataclass(frozen=True)
class Images:
    """A data set in three parts; `train` learns, `validation` rewards, `test` is for reports."""

    name: str
    classes: int
    train: Split
    validation: Split
    test: Split

    def __post_init__(self) -> None:
        for part in ('train', 'validation', 'test'):
            split: Split = getattr(self, part)
            if split.images.ndim != 4:
                raise ValueError(f'{self.name}: {part} images have shape {split.images.shape}, expected [N, H, W, C]')
            if len(split.images) != len(split.labels) or not len(split.labels):
                raise ValueError(f'{self.name}: {part} has {len(split.images)} images, {len(split.labels)} labels')
            low, high = int(split.labels.min()), int(split.labels.max())
            if low < 0 or high >= self.classes:
                raise ValueError(f'{self.name}: {part} labels span {low}..{high}, expected 0..{self.classes - 1}')

    @property
    def shape(self) -> tuple[int, int, int]:
        """H, W, C."""
        return self.train.images.shape[1:]

    def fingerprint(self) -> str:
        """A hash of every pixel and label."""
        digest = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            digest.update(np.ascontiguousarray(split.images))
            digest.update(np.ascontiguousarray(split.labels))
        return digest.hexdigest()[:16]


@runtime_checkable
class ImageSource(Protocol):
    """Where images come from."""

    def load(self) -> Images:
        """The arrays.

        Raises:
            FileNotFoundError: the data are not there; the message says how to get them.
        """


@gin.register
@dataclass(frozen=True)
class Digits(Configured):
    """The 1,797 handwritten 8x8 digits that scikit-learn ships, made harder by noise.

    Clean, every sensible rule reaches the same accuracy; with noise on the pixels, drawn once, the ranking of rules
    resembles that on CIFAR-10.

    Args:
        noise: standard deviation added to pixels that span [-0.5, 0.5].
        train_examples: how many to learn from; 500 more validate, the rest test.
        seed: of the split and of the noise.
    """

    noise: Annotated[float, at_least(0)] = 0.25
    train_examples: Count = 1000
    seed: Natural = 0

    @lru_cache(maxsize=2)  # noqa: B019 (values are small and frozen, and two are kept)
    def load(self) -> Images:
        """Images [N, 8, 8, 1]."""
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        validation_examples = 500
        most = len(pixels) - validation_examples - 1
        if self.train_examples > most:
            raise ValueError(f'Digits.train_examples = {self.train_examples}: must be from 1 to {most}')
        random = np.random.Generator(np.random.PCG64(self.seed))
        order = random.permutation(len(pixels))
        clean = (pixels / 16 - 0.5).reshape(-1, 8, 8, 1)
        noisy = (clean + self.noise * random.standard_normal(clean.shape)).astype(np.float32)
        everything = Split(noisy[order], labels[order].astype(np.int32))
        n = self.train_examples
        return Images(
            'digits',
            10,
            everything.head(n),
            Split(everything.images[n : n + validation_examples], everything.labels[n : n + validation_examples]),
            Split(everything.images[n + validation_examples :], everything.labels[n + validation_examples :]),
        )


@gin.register
@dataclass(frozen=True)
class TfdsImages(Configured):
    """A labelled image data set of tensorflow-datasets, standardised by channel with the statistics of `train`.

    Args:
        dataset: its name, e.g. 'cifar10' or 'fashion_mnist'.
        validation_examples: held out from its train split, at random but fixed.
        side: shrink square images to this many pixels a side, by averaging; None keeps them.
        data_dir: where the data lie; None means TFDS_DATA_DIR, else ~/tensorflow_datasets.
        download: fetch the data if they are not there.
        seed: of the split.
    """

    dataset: str = 'cifar10'
    validation_examples: Count = 5000
    side: Count | None = None
    data_dir: Annotated[str | None, Incidental] = None
    download: Annotated[bool, Incidental] = True
    seed: Natural = 0

    @lru_cache(maxsize=2)  # noqa: B019 (values are small and frozen, and two are kept)
    def load(self) -> Images:
        """Images [N, side, side, C]."""
        return _parted(self, self.dataset, *_read_tfds(self))


@gin.register
@dataclass(frozen=True)
class IdxImages(Configured):
    """A data set in the four files that MNIST came in, plain or gzipped, standardised like `TfdsImages`.

    Args:
        directory: of train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte.
            The default is where Debian's package dataset-fashion-mnist has Fashion-MNIST (Xiao et al., 2017).
        validation_examples: held out from those to train on, at random but fixed.
        side: shrink square images to this many pixels a side, by averaging; None keeps them.
        seed: of the split.
    """

    directory: Annotated[str, Incidental] = '/usr/share/datasets/fashion-mnist'
    validation_examples: Count = 5000
    side: Count | None = None
    seed: Natural = 0

    @lru_cache(maxsize=2)  # noqa: B019 (values are small and frozen, and two are kept)
    def load(self) -> Images:
        """Images [N, side, side, 1].

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a file is not of this format.
        """
        directory = Path(self.directory)
        train, test = (
            Split(
                _read_idx(directory / f'{part}-images-idx3-ubyte', 3)[..., np.newaxis],
                _read_idx(directory / f'{part}-labels-idx1-ubyte', 1).astype(np.int32),
            )
            for part in ('train', 't10k')
        )
        return _parted(self, directory.resolve().name, train, test, int(train.labels.max(initial=0)) + 1)


def _read_idx(path: Path, rank: int) -> np.ndarray:
    """Bytes [N, ...] after a header of big-endian words: 0x800 + rank, and the length of each axis."""
    zipped = path.with_name(f'{path.name}.gz')
    if not path.exists() and not zipped.exists():
        raise FileNotFoundError(
            f'IdxImages.directory: no {path.name} or {zipped.name} in {path.parent}; for Fashion-MNIST on Debian, '
            '`apt install dataset-fashion-mnist`'
        )
    try:
        data = path.read_bytes() if path.exists() else gzip.decompress(zipped.read_bytes())
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f'{zipped} is damaged: {error}') from error
    header = np.frombuffer(data, '>u4', 1 + rank) if len(data) >= 4 * (1 + rank) else np.zeros(1)
    if header[0] != 0x800 + rank or len(data) - 4 * (1 + rank) != np.prod(header[1:], dtype=np.int64):
        raise ValueError(f'{path}: is no idx{rank} file of bytes, or not all of one')
    return np.frombuffer(data, np.uint8, offset=4 * (1 + rank)).reshape(header[1:])


def _parted(source: TfdsImages | IdxImages, name: str, train: Split, test: Split, classes: int) -> Images:
    """With a validation set held out, shrunk and standardised."""
    if not 1 <= source.validation_examples < len(train.labels):
        raise ValueError(
            f'{type(source).__name__}.validation_examples = {source.validation_examples}: {name} has '
            f'{len(train.labels)} training examples to take them from'
        )
    order = np.random.Generator(np.random.PCG64(source.seed)).permutation(len(train.labels))
    held_out, kept = np.split(order, [source.validation_examples])
    pixels = _shrink(train.images, source)
    mean, deviation = _moments(pixels[kept])

    def standardised(images: np.ndarray) -> np.ndarray:
        result = images.astype(np.float32)
        result -= mean
        result /= np.where(deviation > 0, deviation, 1)  # a channel that is constant stays 0
        return result

    return Images(
        name,
        classes,
        Split(standardised(pixels[kept]), train.labels[kept]),
        Split(standardised(pixels[held_out]), train.labels[held_out]),
        Split(standardised(_shrink(test.images, source)), test.labels),
    )


def _read_tfds(source: TfdsImages) -> tuple[Split, Split, int]:
    """The train and test splits as stored, and the number of classes."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(source.dataset, data_dir=source.data_dir)
        if not builder.data_path.exists() and not source.download:
            raise FileNotFoundError('TfdsImages.download is False')
        builder.download_and_prepare()
    except Exception as error:  # tfds raises many kinds: unknown name, no network, no permission, a corrupt file
        where = source.data_dir or os.environ.get(
            'TFDS_DATA_DIR', '~/tensorflow_datasets, for TFDS_DATA_DIR is not set'
        )
        arguments = f"'{source.dataset}'" + (f", data_dir='{source.data_dir}'" if source.data_dir else '')
        first_line = next(iter(str(error).strip().splitlines()), '')
        reason = f'{type(error).__name__}: {first_line}'[:120]
        raise FileNotFoundError(
            f'no data set {source.dataset!r} in {where} ({reason}); with a network, '
            f'`python -c "import tensorflow_datasets as tfds; tfds.load({arguments})"` fetches it'
        ) from error
    features = builder.info.features
    if not {'image', 'label'} <= set(features) or not {'train', 'test'} <= set(builder.info.splits):
        raise ValueError(
            f'TfdsImages.dataset = {source.dataset!r}: needs the features image and label and the splits train and '
            f'test; it has {", ".join(features)} and {", ".join(builder.info.splits)}'
        )
    parts = (tfds.as_numpy(builder.as_dataset(split=name, batch_size=-1)) for name in ('train', 'test'))
    train, test = (Split(part['image'], part['label'].astype(np.int32)) for part in parts)
    return train, test, features['label'].num_classes


def _shrink(images: np.ndarray, source: TfdsImages | IdxImages) -> np.ndarray:
    """Pixels summed over squares to the side that the source asks for: integers [N, S, S, C].

    Sums are as good as averages, since standardising follows, and exact.
    """
    n, height, width, channels = images.shape
    side = height if source.side is None else source.side
    if not 1 <= side <= height or height % side or width != height:
        raise ValueError(
            f'{type(source).__name__}.side = {source.side}: must divide {height}, of images {height}x{width}'
        )
    if side == height:
        return images
    factor = height // side
    return images.reshape(n, side, factor, side, factor, channels).sum(axis=(2, 4), dtype=np.int32)


def _moments(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, float32 [C], from exact sums: the same on every machine."""
    count = pixels[..., 0].size
    mean = np.einsum('nhwc->c', pixels, dtype=np.int64, casting='safe') / count
    square = np.einsum('nhwc,nhwc->c', pixels, pixels, dtype=np.int64, casting='safe') / count
    return mean.astype(np.float32), np.sqrt(square - mean**2).astype(np.float32)
