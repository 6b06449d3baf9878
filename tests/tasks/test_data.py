"""The splits that every child shares: sizes, disjointness, standardisation; and what missing data say."""

import dataclasses
import gzip
import pickle
import struct

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from nos_tf.tasks.data import Digits, IdxImages, Images, Split, TfdsImages

COUNTS = {'train': 40, 'test': 12}

DIGIT_LABELS = [6, 6, 6, 2, 5, 6, 6, 2, 2, 1, 1, 9, 0, 4, 1, 9]
DIGIT_SUMS = [-12492.8347, -6157.7507, -3753.0079]
DIGIT_ROW = [-0.69715, 0.02393, -0.061902, -0.090777, 0.631598, -0.43254, -0.461648, 0.040131]


def parts(images):
    return [images.train, images.validation, images.test]


def rows(split):
    return [image.tobytes() for image in split.images]


def store(folder, name, classes, arrays):
    """Writes a real tfds data set of the given images and labels: part -> arrays."""
    import tensorflow_datasets as tfds

    _, *shape = arrays['train'][0].shape
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version='1.0.0',
        data_dir=folder,
        features=tfds.features.FeaturesDict(
            {
                'image': tfds.features.Image(shape=shape, encoding_format='png'),
                'label': tfds.features.ClassLabel(num_classes=classes),
            }
        ),
        split_datasets={
            part: tf.data.Dataset.from_tensor_slices({'image': images, 'label': labels})
            for part, (images, labels) in arrays.items()
        },
        disable_shuffling=True,
    )


@pytest.fixture(scope='module')
def stored(tmp_path_factory):
    """A data set 'shades', of 4x4 images whose channels differ in range: its raw arrays, and its folder."""
    random = np.random.default_rng(0)
    arrays = {
        part: (random.integers(0, [100, 256, 30], [count, 4, 4, 3]).astype(np.uint8), random.integers(0, 5, count))
        for part, count in COUNTS.items()
    }
    folder = tmp_path_factory.mktemp('tfds')
    store(folder, 'shades', 5, arrays)
    return arrays, str(folder)


def source(stored, **arguments):
    arguments = {'validation_examples': 10, 'download': False, **arguments}
    return TfdsImages('shades', data_dir=stored[1], **arguments)


# Digits


def test_digits_are_split_in_1000_to_learn_from_500_to_validate_and_the_rest():
    digits = Digits().load()
    assert [split.images.shape for split in parts(digits)] == [(1000, 8, 8, 1), (500, 8, 8, 1), (297, 8, 8, 1)]
    assert digits.shape == (8, 8, 1)
    assert digits.classes == 10
    for split in parts(digits):
        assert split.images.dtype == np.float32
        assert split.labels.dtype == np.int32


def test_clean_digits_are_those_of_scikit_learn_each_once():
    pixels, labels = load_digits(return_X_y=True)
    ours = {}
    for split in parts(Digits(noise=0.0).load()):
        for image, label in zip(split.images, split.labels, strict=True):
            ours[tuple(np.round((image.ravel() + 0.5) * 16).astype(int))] = label
    theirs = {tuple(row): label for row, label in zip(pixels.astype(int), labels, strict=True)}
    assert ours == theirs
    assert len(ours) == 1797


def test_noise_has_the_deviation_asked_for_and_differs_between_images():
    clean, noisy = Digits(noise=0.0).load(), Digits(noise=0.25).load()
    noise = noisy.train.images - clean.train.images
    assert np.std(noise) == pytest.approx(0.25, rel=0.02)
    assert abs(np.mean(noise)) < 0.01
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.5
    np.testing.assert_array_equal(clean.train.labels, noisy.train.labels)


def test_digits_are_the_same_for_ever():
    """Rewards in old stores were earned on these."""
    digits = Digits().load()
    assert digits.train.labels[:16].tolist() == DIGIT_LABELS
    sums = [float(np.sum(split.images, dtype=np.float64)) for split in parts(digits)]
    np.testing.assert_allclose(sums, DIGIT_SUMS, rtol=1e-5)
    np.testing.assert_allclose(digits.validation.images[0, 3, :, 0], DIGIT_ROW, rtol=0, atol=1e-6)


def test_the_seed_decides_the_split_and_the_fingerprint_sees_it():
    first, again, other = (Digits(seed=seed, train_examples=900).load() for seed in (1, 1, 2))
    assert first.fingerprint() == again.fingerprint()
    assert first.fingerprint() != other.fingerprint()
    assert first.train.labels.tolist() != other.train.labels.tolist()


@pytest.mark.parametrize('part', ['train', 'validation', 'test'])
@pytest.mark.parametrize('field', ['images', 'labels'])
def test_the_fingerprint_sees_one_pixel_and_one_label_of_each_part(part, field):
    images = Digits().load()
    split = getattr(images, part)
    array = getattr(split, field).copy()
    array.flat[-1] = (array.flat[-1] + 1) % 10
    changed = dataclasses.replace(images, **{part: dataclasses.replace(split, **{field: array})})
    assert changed.fingerprint() != images.fingerprint()
    assert dataclasses.replace(images).fingerprint() == images.fingerprint()


def test_fewer_training_digits_leave_more_to_test():
    digits = Digits(train_examples=100).load()
    assert [len(split.labels) for split in parts(digits)] == [100, 500, 1197]


@pytest.mark.parametrize(
    'values', [{'side': 0}, {'validation_examples': 0}, {'validation_examples': 'x'}, {'seed': -1}]
)
def test_tfds_refuse_counts_that_are_none(values):
    (name,) = values
    with pytest.raises(ValueError, match=f'TfdsImages.{name} = .*: must be (None, or )?a whole number, at least'):
        TfdsImages(**values)


@pytest.mark.parametrize(
    'values, says',
    [
        ({'train_examples': 1297}, 'Digits.train_examples = 1297: must be from 1 to 1296'),
        ({'train_examples': 0}, 'Digits.train_examples = 0: must be a whole number, at least 1'),
        ({'train_examples': True}, 'Digits.train_examples = True: must be a whole number'),
        ({'noise': -0.1}, 'Digits.noise = -0.1: must be a number, at least 0'),
        ({'noise': 'a'}, "Digits.noise = 'a': must be a number"),
        ({'seed': [1]}, r'Digits.seed = \[1\]: must be a whole number'),
    ],
)
def test_digits_refuse_what_they_cannot_be(values, says):
    with pytest.raises(ValueError, match=says):
        Digits(**values).load()


def test_sources_pickle():
    for value in (Digits(noise=0.5), TfdsImages('mnist', side=7)):
        assert pickle.loads(pickle.dumps(value)) == value


# tfds


def test_tfds_parts_are_disjoint_and_hold_every_example_once(stored):
    images = source(stored).load()
    assert [len(split.labels) for split in parts(images)] == [30, 10, 12]
    assert images.classes == 5
    assert images.name == 'shades'
    kept, held_out = set(rows(images.train)), set(rows(images.validation))
    assert (len(kept), len(held_out), len(kept & held_out)) == (30, 10, 0)
    everything = np.concatenate([images.train.images, images.validation.images])
    raw, _ = stored[0]['train']
    np.testing.assert_allclose(np.sort(unstandardised(everything, stored), 0), np.sort(raw, 0), atol=1e-4)


def unstandardised(images, stored):
    """Back to pixels, by two extremes of the raw data in each channel."""
    raw = np.asarray(stored[0]['train'][0], np.float64)
    low, high = raw.min((0, 1, 2)), raw.max((0, 1, 2))
    ours_low, ours_high = images.min((0, 1, 2)), images.max((0, 1, 2))
    return (images - ours_low) / (ours_high - ours_low) * (high - low) + low


def test_tfds_labels_stay_with_their_images(stored):
    images = source(stored).load()
    raw, labels = stored[0]['train']
    by_image = {image.tobytes(): label for image, label in zip(raw, labels, strict=True)}
    everything = np.concatenate([images.train.images, images.validation.images])
    pixels = np.round(unstandardised(everything, stored)).astype(np.uint8)
    found = [by_image[image.tobytes()] for image in pixels]
    assert found == [*images.train.labels, *images.validation.labels]


def test_tfds_pixels_are_standardised_by_channel_with_what_the_training_part_says(stored):
    images = source(stored).load()
    np.testing.assert_allclose(images.train.images.mean((0, 1, 2), dtype=np.float64), 0, atol=1e-6)
    np.testing.assert_allclose(images.train.images.std((0, 1, 2), dtype=np.float64), 1, rtol=1e-6)
    assert np.all(np.abs(images.validation.images.mean((0, 1, 2))) > 1e-4)
    raw = stored[0]['train'][0]
    everything = np.concatenate([images.train.images, images.validation.images])
    kept = np.round(unstandardised(everything, stored))[:30]
    mean, deviation = kept.mean((0, 1, 2)), kept.std((0, 1, 2))
    assert not np.allclose(mean, raw.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(images.test.images, (stored[0]['test'][0] - mean) / deviation, atol=1e-5)
    np.testing.assert_array_equal(images.test.labels, stored[0]['test'][1])


def test_tfds_side_averages_squares(stored):
    images = source(stored, side=2).load()
    assert images.shape == (2, 2, 3)
    full = source(stored).load()
    average = np.zeros([12, 2, 2, 3])
    for i in range(2):
        for j in range(2):
            average[:, i, j] = full.test.images[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((1, 2))
    ratio = images.test.images - images.test.images.mean((0, 1, 2))
    expected = average - average.mean((0, 1, 2))
    np.testing.assert_allclose(ratio / ratio.std((0, 1, 2)), expected / expected.std((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(images.train.images.mean((0, 1, 2), dtype=np.float64), 0, atol=1e-6)
    np.testing.assert_allclose(images.train.images.std((0, 1, 2), dtype=np.float64), 1, rtol=1e-6)


def test_tfds_averages_by_hand(tmp_path):
    """From 2x2 to 1x1: the averages 25 and 75 of the training images make -1 and 1; that of the test, 100, makes 2."""
    learn = np.array([[[10, 20], [30, 40]], [[60, 70], [80, 90]], [[60, 70], [80, 90]]], np.uint8)[..., None]
    test = np.full([1, 2, 2, 1], 100, np.uint8)
    store(tmp_path, 'grey', 2, {'train': (learn, np.array([0, 1, 1])), 'test': (test, np.array([0]))})
    for seed in range(20):  # until an image of the second kind is held out
        images = TfdsImages('grey', validation_examples=1, side=1, data_dir=str(tmp_path), seed=seed).load()
        if images.validation.labels[0] == 1:
            break
    order = np.argsort(images.train.labels)
    np.testing.assert_allclose(images.train.images[order].ravel(), [-1, 1], rtol=1e-6)
    np.testing.assert_allclose(images.validation.images.ravel(), [1], rtol=1e-6)
    np.testing.assert_allclose(images.test.images.ravel(), [2], rtol=1e-6)


def test_tfds_split_is_a_function_of_the_seed_alone(stored):
    first = source(stored).load()
    same = source(stored, download=True).load()  # another value, so read again
    assert first is not same
    assert first.fingerprint() == same.fingerprint()
    assert set(rows(source(stored, seed=1).load().validation)) != set(rows(first.validation))


@pytest.mark.parametrize('side', [3, 8])
def test_tfds_side_must_divide(stored, side):
    with pytest.raises(ValueError, match=r'must divide 4, of images 4x4'):
        source(stored, side=side).load()


@pytest.mark.parametrize('count', [40, 41])
def test_tfds_validation_must_leave_something_to_learn_from(stored, count):
    with pytest.raises(ValueError, match=rf'TfdsImages.validation_examples = {count}: shades has 40'):
        source(stored, validation_examples=count).load()


# Files as MNIST's


def write_idx(folder, zipped, images, labels, part):
    """Two files in the format of MNIST."""
    for kind, array in ((f'images-idx{images.ndim}', images), (f'labels-idx{labels.ndim}', labels)):
        data = struct.pack('>i', 0x800 + array.ndim) + struct.pack(f'>{array.ndim}i', *array.shape) + array.tobytes()
        name = f'{part}-{kind}-ubyte'
        if zipped:
            (folder / f'{name}.gz').write_bytes(gzip.compress(data))
        else:
            (folder / name).write_bytes(data)


@pytest.fixture
def idx(tmp_path):
    """A folder 'clothes', of 4x4 images in files, those to train on gzipped."""
    random = np.random.default_rng(0)
    folder = tmp_path / 'clothes'
    folder.mkdir()
    arrays = {
        part: (random.integers(0, 256, [count, 4, 4]).astype(np.uint8), random.integers(0, 5, count).astype(np.uint8))
        for part, count in (('train', 40), ('t10k', 12))
    }
    for part, (images, labels) in arrays.items():
        write_idx(folder, part == 'train', images, labels, part)
    return arrays, folder


def test_idx_files_give_what_tfds_gives_of_the_same(idx, tmp_path):
    arrays, folder = idx
    same = {name: (images[..., None], labels) for name, (images, labels) in zip(COUNTS, arrays.values(), strict=True)}
    store(tmp_path, 'clothes', 5, same)
    for side in (None, 2):
        ours = IdxImages(str(folder), validation_examples=10, side=side).load()
        theirs = TfdsImages('clothes', validation_examples=10, side=side, data_dir=str(tmp_path)).load()
        assert (ours.name, ours.classes, ours.shape) == ('clothes', 5, theirs.shape)
        assert ours.fingerprint() == theirs.fingerprint()


@pytest.mark.parametrize(
    ('damage', 'says'),
    [
        (lambda data: data[:-1], 'is no idx1 file of bytes, or not all of one'),
        (lambda data: data[:3], 'is no idx1 file of bytes'),
        (lambda data: b'\0\0\x08\x03' + data[4:], 'is no idx1 file of bytes'),
    ],
)
def test_idx_files_that_are_damaged_are_named(idx, damage, says):
    path = idx[1] / 't10k-labels-idx1-ubyte'
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=says) as error:
        IdxImages(str(idx[1]), validation_examples=10).load()
    assert str(path) in str(error.value)


def test_idx_files_that_are_cut_or_missing_are_named(idx):
    path = idx[1] / 'train-images-idx3-ubyte.gz'
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r'train-images-idx3-ubyte\.gz is damaged'):
        IdxImages(str(idx[1])).load()
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r'IdxImages.directory: no train-images-idx3-ubyte or .*apt install'):
        IdxImages(str(idx[1])).load()


@pytest.mark.parametrize(
    ('values', 'says'), [({'validation_examples': 40}, 'clothes has 40'), ({'side': 3}, 'divide 4')]
)
def test_idx_files_refuse_what_does_not_fit(idx, values, says):
    with pytest.raises(ValueError, match=f'IdxImages.*{says}'):
        IdxImages(**{'directory': str(idx[1]), 'validation_examples': 10, **values}).load()


@pytest.mark.parametrize('name', ['cifar10', 'no_such_data_set'])
def test_missing_data_say_in_one_line_where_and_how(tmp_path, name):
    folder = str(tmp_path / 'nothing')
    with pytest.raises(FileNotFoundError) as error:
        TfdsImages(name, data_dir=folder, download=False).load()
    message = str(error.value)
    assert len(message.splitlines()) == 1
    assert f"no data set '{name}' in {folder}" in message
    assert f"tfds.load('{name}', data_dir='{folder}')" in message
    assert not (tmp_path / 'nothing').exists()


def test_missing_data_elsewhere_name_the_variable_or_its_value(monkeypatch, tmp_path):
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"no data set 'no_such_data_set' in {tmp_path}"):
        TfdsImages('no_such_data_set', download=False).load()
    monkeypatch.delenv('TFDS_DATA_DIR')
    with pytest.raises(FileNotFoundError, match=r"TFDS_DATA_DIR.*tfds.load\('no_such_data_set'\)"):
        TfdsImages('no_such_data_set', download=False).load()


# Images


def images_of(train_images, train_labels, classes=3):
    fine = Split(np.zeros([2, 4, 4, 1], np.float32), np.array([0, 2], np.int32))
    return Images('mine', classes, Split(train_images, np.array(train_labels, np.int32)), fine, fine)


def test_images_refuse_what_is_not_a_batch_of_images():
    with pytest.raises(ValueError, match=r'mine: train images have shape \(2, 4, 4\), expected \[N, H, W, C\]'):
        images_of(np.zeros([2, 4, 4]), [0, 1])


@pytest.mark.parametrize(('labels', 'message'), [([0], '2 images, 1 labels'), ([0, 1, 2], '2 images, 3 labels')])
def test_images_refuse_other_counts(labels, message):
    with pytest.raises(ValueError, match=f'mine: train has {message}'):
        images_of(np.zeros([2, 4, 4, 1]), labels)


def test_images_refuse_an_empty_part():
    with pytest.raises(ValueError, match='mine: train has 0 images, 0 labels'):
        images_of(np.zeros([0, 4, 4, 1]), [])


@pytest.mark.parametrize('labels', [[0, 3], [-1, 2]])
def test_images_refuse_labels_out_of_range(labels):
    with pytest.raises(ValueError, match=rf'train labels span {labels[0]}..{labels[1]}, expected 0..2'):
        images_of(np.zeros([2, 4, 4, 1]), labels)


def test_head_takes_the_first():
    split = Split(np.arange(5), np.arange(5) * 2)
    assert split.head(2).images.tolist() == [0, 1]
    assert split.head(2).labels.tolist() == [0, 2]
    assert split.head(None).images.tolist() == [0, 1, 2, 3, 4]
