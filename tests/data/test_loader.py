"""The order of batches on one process or several, the digest of a split, its standardisation."""

import itertools

import numpy as np
import pytest

from pixel_rnn_jax import data
from pixel_rnn_jax.data import eval_batches, loader, train_batches


@pytest.fixture
def numbered(opened):
    """23 images, each filled with its own number, which is its label too."""
    numbers = np.arange(23, dtype=np.uint8)
    images = np.broadcast_to(numbers[:, None, None], (23, 2, 2))
    return opened({"train": images, "train_labels": numbers}, num_classes=23)


@pytest.fixture
def drawn(opened, pictures):
    """40 images, which are drawn anew at each visit."""
    return opened({"any": pictures(50, 4, 4)}, binarize="dynamic")


def first(count, split, **arguments):
    stream = itertools.islice(train_batches(split, seed=5, **arguments), count)
    return [batch.images for batch in stream]


def epochs(split, batch_size, seed):
    """Returns the numbers of the images in four epochs, [4, 23]."""
    stream = train_batches(split, batch_size=batch_size, seed=seed)
    batches = itertools.islice(stream, 4 * 23 // batch_size)
    images, labels = map(np.stack, zip(*batches, strict=True))
    np.testing.assert_array_equal(images[..., 0, 0, 0], labels)
    return labels.reshape(4, 23)


def test_every_epoch_has_every_image_once_in_its_own_order(numbered):
    stream, other = (epochs(numbered, 4, seed) for seed in (0, 1))
    np.testing.assert_array_equal(np.sort(stream), np.tile(np.arange(23), (4, 1)))
    assert len(np.unique(np.concatenate([stream, other]), axis=0)) == 8
    assert (np.diff(stream) != 1).any()
    # A batch may be larger than the split, or a single image.
    for size in (46, 1):
        np.testing.assert_array_equal(epochs(numbered, size, 0), stream)


def test_a_batch_is_a_function_of_seed_and_step(drawn):
    whole = first(20, drawn, batch_size=7)
    for start in (1, 17):
        late = first(20 - start, drawn, batch_size=7, start_step=start)
        np.testing.assert_array_equal(late, whole[start:])


def test_a_late_start_reads_nothing_before_it(numbered, monkeypatch):
    steps, read = [], numbered.batch

    def recorded(indices, positions, seed):
        steps.append(positions[0] // 4)
        return read(indices, positions, seed)

    monkeypatch.setattr(numbered, "batch", recorded)
    first(1, numbered, batch_size=4, start_step=10**9)
    assert min(steps) == 10**9
    assert len(steps) < 20


def test_processes_together_have_the_batch_of_one(drawn):
    whole = first(5, drawn, batch_size=12)
    for index in range(3):
        mine = first(5, drawn, batch_size=12, process_index=index, process_count=3)
        np.testing.assert_array_equal(mine, [batch[index::3] for batch in whole])


@pytest.mark.parametrize("size, processes", [(1, 1), (30, 1), (6, 3)])
def test_evaluation_has_every_image_once_in_order(numbered, size, processes):
    share = {"batch_size": size, "process_count": processes}
    shares = [eval_batches(numbered, process_index=index, **share) for index in range(processes)]
    numbers = []
    for parts in zip(*shares, strict=True):
        assert all(len(valid) == len(batch.images) == size // processes for batch, valid in parts)
        for (images, labels), valid in parts:
            np.testing.assert_array_equal(images[:, 0, 0, 0], labels)
            numbers.append(np.where(valid, labels, -1))
    expected = np.pad(np.arange(23), (0, -23 % size), constant_values=-1)
    np.testing.assert_array_equal(np.concatenate(numbers), expected)


def test_the_same_images_have_the_same_digest(opened, pictures):
    images, labels = pictures(1200, 2, 2), np.arange(1200) % 2

    def digest_of(images, labels, binarize="dynamic"):
        splits = {"train": images, "train_labels": labels[: len(images)]}
        return data.digest(opened(splits, binarize=binarize, num_classes=2))

    digest = digest_of(images, labels)
    assert digest_of(images.copy(), labels) == digest
    changed = (images[:-1], labels), (images[::-1], labels), (images, 0 * labels)
    assert len({digest, *(digest_of(*arrays) for arrays in changed)}) == 4
    plain = digest_of(images, labels, "none")
    for row in range(0, 1200, 101):  # Every image counts.
        other = images.copy()
        other[row] = 255 - other[row]
        assert digest_of(other, labels, "none") != plain


def test_standardisation(opened, monkeypatch):
    """Also of large values of little variance; in a channel of one value; of the first images."""
    images = np.random.default_rng(0).normal(size=(23, 4, 4, 4))
    images = (images * [3, 1e-2, 0, 1e-3] + [-5, 1000, 0.1, 1e-3]).astype(np.float32)
    split = opened({"train": images}, output="gaussian_mixture")
    monkeypatch.setattr(loader, "AT_ONCE", 7)
    mean, std = data.standardisation(split)
    exact = images.astype(np.longdouble)
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=1e-14)
    rows = [0, 1, 3]
    np.testing.assert_allclose(np.array(std)[rows], exact.std((0, 1, 2))[rows], rtol=1e-12)
    assert (mean[2], std[2]) == (np.float32(0.1), 1)
    monkeypatch.setattr(loader, "STANDARDISATION_IMAGES", 10)
    mean, std = data.standardisation(split)
    np.testing.assert_allclose(mean, exact[:10].mean((0, 1, 2)), rtol=1e-14)
