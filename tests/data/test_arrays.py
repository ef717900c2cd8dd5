"""scikit-learn's digits, and .npy and .npz files."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from pixel_rnn_jax import data
from pixel_rnn_jax.config import DataConfig
from pixel_rnn_jax.data.records import SPLITS


def check_division(name, sources, images, labels=None):
    """Checks that the splits have each record once, with its image and label, as its key says."""
    rows = [data.open_records(DataConfig(name=str(name)), split).keys[:, 1] for split in SPLITS]
    np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.arange(len(images)))
    for source, chosen in zip(sources, rows, strict=True):
        batch = source.batch(range(len(source)))
        np.testing.assert_array_equal(batch.images, images[chosen, ..., None])
        assert batch.images.dtype == source.dtype == np.uint8
        np.testing.assert_array_equal(batch.labels, labels if labels is None else labels[chosen])


def test_digits_are_divided_once_and_for_all(opened, read):
    parts = [opened("digits", split, classes=10) for split in SPLITS]
    assert [len(part) for part in parts] == [1297, 250, 250]
    assert (parts[0].image_shape, parts[0].levels) == ((8, 8, 1), 17)
    check_division("digits", parts, load_digits().images, load_digits().target)
    # Published figures are on this very test split.
    assert read(parts[2]).sum() == 78634


@pytest.mark.parametrize("dtype", ["bool", "uint8", ">u2", "int32", "int64"])
def test_npy_of_any_integers_is_divided(tmp_path, opened, pictures, dtype):
    images = pictures(10, 3, 4, below=2).astype(dtype)
    path = tmp_path / "set.npy"
    np.save(path, images)
    levels = {"bool": 2, "uint8": 256}.get(dtype)
    parts = [opened(path, split, levels=0 if levels else 7) for split in SPLITS]
    assert [(len(part), part.levels) for part in parts] == [(n, levels or 7) for n in (8, 1, 1)]
    check_division(path, parts, images)


def test_npy_stays_on_disk(tmp_path, monkeypatch, opened, pictures):
    np.save(tmp_path / "set.npy", pictures(10, 3, 3))
    loaded, load = [], np.load
    monkeypatch.setattr(np, "load", lambda *a, **k: loaded.append(load(*a, **k)) or loaded[-1])
    opened(tmp_path / "set.npy")
    assert isinstance(loaded[0], np.memmap)


def test_npz_with_splits_or_one_array(opened, read, refused, pictures):
    images = pictures(10, 3, 3, 2)
    arrays = {"train": images[:7], "validation": images[7:], "other": images}
    for split, part in arrays.items():
        np.testing.assert_array_equal(read(arrays, split), part)
    with refused("no split 'test'", "other, train, validation"):
        opened(arrays, "test")
    with refused("is divided into other, train, validation: give a folder or file"):
        opened(arrays, "all")
    assert [len(opened({"any": images}, split)) for split in (*SPLITS, "all")] == [8, 1, 1, 10]
    with refused("one array", "got a, b"):
        opened({"a": images, "b": images})


@pytest.mark.parametrize(
    "array, parts",
    [
        (np.zeros((4, 2, 2), np.float32), ("float32", "np.uint8")),
        (np.zeros((4, 2), np.uint8), ("[N, H, W]", "got [4, 2]")),
        (np.zeros((0, 2, 2), np.uint8), ("got [0, 2, 2]",)),
        (np.zeros((4, 2, 2), np.int32), ("data.levels must be set", "int32", "split 'train'")),
        (np.array([[[None]]]), ("cannot be read",)),
    ],
)
def test_arrays_that_are_refused(opened, refused, array, parts):
    with refused(*parts):
        opened({"any": array})


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_files_that_cannot_be_read(tmp_path, opened, refused, name):
    with refused(name, "no such file"):
        opened(tmp_path / name)
    (tmp_path / name).write_bytes(b"not an array")
    with refused(name, "cannot be read"):
        opened(tmp_path / name)


@pytest.mark.parametrize("key, name", [("all", "labels"), ("train", "train_labels")])
def test_labels_of_an_npz_file(opened, pictures, key, name):
    images, labels = pictures(30, 2, 2), np.arange(30) % 3
    source = opened({key: images, name: labels}, classes=3)
    for image, label in zip(*source.batch(range(len(source))), strict=True):
        assert labels[(images == image[..., 0]).all(axis=(1, 2))] == [label]


@pytest.mark.parametrize("wrong", [np.arange(29), np.eye(30), np.full(30, None), np.arange(30) - 1])
def test_arrays_that_cannot_be_labels_are_ignored(opened, refused, pictures, wrong):
    arrays = {"images": pictures(30, 2, 2), "labels": wrong}
    assert len(opened(arrays)) == 24
    with refused("has no labels", "an integer from 0 on for each image"):
        opened(arrays, classes=3)
