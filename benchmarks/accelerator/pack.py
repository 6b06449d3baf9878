"""Packs CIFAR-10, made small, into one file for `evolve.py`: where JAX is, TensorFlow need not be.

python benchmarks/accelerator/pack.py --output runs/images.npz
"""

import argparse
from pathlib import Path

import numpy as np

from nos_tf import output
from nos_tf.tasks.data import TfdsImages

LEVELS = 255  # a byte a value: off by a 500th of the range at most


def read_split(path: Path, part: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first images float32 [N, H, W, C] and labels int32 [N] of a part: 'train', 'validation' or 'test'.

    Raises:
        ValueError: there are fewer.
    """
    with np.load(path) as file:
        low, high = file['range']
        pixels, labels = file[f'{part}_images'][:count], file[f'{part}_labels'][:count]
    if len(labels) < count:
        raise ValueError(f'{path} has {len(labels)} {part} images: {count} are wanted')
    return (pixels / LEVELS * (high - low) + low).astype(np.float32), labels.astype(np.int32)


def main() -> None:
    """Writes the images that `nos_tf.tasks` would train on, standardised."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').partition('\n')[0])
    parser.add_argument('--output', type=Path, required=True, help='an npz file')
    parser.add_argument('--dataset', default='cifar10', help='of tensorflow-datasets')
    parser.add_argument('--side', type=int, default=16, help='pixels, averaged')
    parser.add_argument('--train_examples', type=int, default=20_000)
    arguments = parser.parse_args()
    images = TfdsImages(arguments.dataset, side=arguments.side).load()
    splits = {
        'train': images.train.head(arguments.train_examples),
        'validation': images.validation,
        'test': images.test,
    }
    low = min(float(split.images.min()) for split in splits.values())
    high = max(float(split.images.max()) for split in splits.values())
    content = {'range': np.array([low, high], np.float32)}
    for name, split in splits.items():
        content[f'{name}_images'] = np.round((split.images - low) / (high - low) * LEVELS).astype(np.uint8)
        content[f'{name}_labels'] = split.labels.astype(np.int32)
    np.savez(arguments.output, **content)  # type: ignore[arg-type]  # its allow_pickle is unknown to NumPy 1


if __name__ == '__main__':
    output.command(main)
