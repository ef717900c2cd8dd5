"""The order of batches, in training and evaluation, on one process or several."""

import itertools

import numpy as np
import pytest

from pixel_rnn_jax.data import eval_batches, train_batches


@pytest.fixture
def numbered(opened):
    """23 images, each filled with its own number, which is its label too."""
    numbers = np.arange(23, dtype=np.uint8)
    images = np.broadcast_to(numbers[:, None, None], (23, 2, 2))
    return opened({"train": images, "train_labels": numbers}, num_classes=23)


@pytest.fixture(params=["none", "dynamic"])
def drawn(request, opened, pictures):
    """40 images, which with dynamic binarisation are drawn anew at each visit."""
    return opened({"any": pictures(50, 4, 4)}, binarize=request.param)


def first(count, source, **arguments):
    stream = itertools.islice(train_batches(source, seed=5, **arguments), count)
    return [batch.images for batch in stream]


def epochs(source, batch_size, seed):
    """Returns the numbers of the images in four epochs, [4, 23]."""
    stream = train_batches(source, batch_size=batch_size, seed=seed)
    images, labels = map(
        np.stack, zip(*itertools.islice(stream, 4 * 23 // batch_size), strict=True)
    )
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
    for start in (0, 1, 6, 17):
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


@pytest.mark.parametrize("count", [2, 3, 4])
def test_processes_together_have_the_batch_of_one(drawn, count):
    whole = first(9, drawn, batch_size=12)
    for index in range(count):
        mine = first(9, drawn, batch_size=12, process_index=index, process_count=count)
        np.testing.assert_array_equal(mine, [batch[index::count] for batch in whole])


@pytest.mark.parametrize("size, processes", [(1, 1), (4, 1), (23, 1), (30, 1), (6, 3), (24, 2)])
def test_evaluation_has_every_image_once_in_order(numbered, size, processes):
    share = {"batch_size": size, "process_count": processes}
    shares = [eval_batches(numbered, process_index=index, **share) for index in range(processes)]
    found = []
    for parts in zip(*shares, strict=True):
        assert all(len(valid) == len(batch.images) == size // processes for batch, valid in parts)
        for (images, labels), valid in parts:
            np.testing.assert_array_equal(images[:, 0, 0, 0], labels)
            found.append(np.where(valid, labels, -1))
    found = np.concatenate(found)
    np.testing.assert_array_equal(found, np.pad(np.arange(23), (0, -23 % size), constant_values=-1))


def test_batches_that_processes_cannot_share_are_refused(numbered, refused):
    with refused("train.batch_size", "got 16 for 3 processes"):
        train_batches(numbered, batch_size=16, seed=0, process_count=3)
    with refused("train.eval_batch_size", "got 16 for 3 processes"):
        eval_batches(numbered, batch_size=16, process_count=3)
