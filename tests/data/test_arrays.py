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
        np.testing.assert_array_equal(batch.condition, labels if labels is None else labels[chosen])


def test_digits_are_divided_once_and_for_all(opened, read):
    parts = [opened("digits", split, num_classes=10) for split in SPLITS]
    assert [len(part) for part in parts] == [1297, 250, 250]
    assert (parts[0].image_shape, parts[0].levels) == ((8, 8, 1), 17)
    check_division("digits", parts, load_digits().images, load_digits().target)
    # Published figures are on this very test split.
    assert read(parts[2]).sum() == 78634


@pytest.mark.parametrize("dtype", ["bool", "uint8", ">u2", "int32", "int64"])
def test_npy_of_any_integers_is_divided(tmp_path, opened, pictures, dtype):
    images = pictures(10, 3, 4, below=2 if dtype == "bool" else 7).astype(dtype)
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
        (np.zeros((4, 2, 2), np.float32), ("float32", "np.uint8", "model.output=gaussian_mixture")),
        (np.zeros((4, 2, 2), complex), ("or real numbers, got complex128",)),
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
    source = opened({key: images, name: labels}, num_classes=3)
    for image, label in zip(*source.batch(range(len(source))), strict=True):
        assert labels[(images == image[..., 0]).all(axis=(1, 2))] == [label]


def test_labels_do_not_say_of_which_split_they_are(opened, pictures, refused):
    images, labels = pictures(20, 2, 2), np.arange(10) % 3
    arrays = {"train": images[:10], "test": images[10:], "labels": labels}
    opened(arrays)
    with refused("`labels` does not say of which images it is: name it `train_labels`"):
        opened(arrays, num_classes=3)


NAMES = np.array(["dog", "cat", "älg", "cat"] * 8)[:30]
NUMBERS = np.array([1, 0, 2, 0] * 8)[:30]


@pytest.mark.parametrize("kind", [str, str.encode])
def test_strings_are_the_names_of_classes(opened, pictures, kind):
    """Sorted, and the same in all splits, whichever of them has a class."""
    images, names = pictures(30, 2, 2), np.array([kind(name) for name in NAMES])
    source = opened({"images": images, "labels": names}, num_classes=3)
    assert source.class_names == ("cat", "dog", "älg")
    for image, label in zip(*source.batch(range(len(source))), strict=True):
        assert NUMBERS[(images == image[..., 0]).all(axis=(1, 2))] == [label]
    arrays = {"train": images[:2], "train_labels": names[:2]}
    arrays |= {"test": images, "test_labels": NAMES}
    for split, count in ("train", 2), ("test", 30):
        source = opened(arrays, split, num_classes=3)
        np.testing.assert_array_equal(source.batch(range(count)).condition, NUMBERS[:count])
        assert source.class_names == ("cat", "dog", "älg")
    assert opened(arrays).class_names == ()


def test_names_of_integers(opened, refused, pictures):
    arrays = {"images": pictures(30, 2, 2), "labels": NUMBERS, "class_names": ["a", "c", "b", "d"]}
    assert opened(arrays, num_classes=4).class_names == ("a", "c", "b", "d")
    with refused("has 4 classes, but model.num_classes is 3"):
        opened(arrays, num_classes=3)
    assert opened(arrays | {"class_names": [b"a", b"c", b"b"]}, num_classes=3).class_names[2] == "b"


@pytest.mark.parametrize(
    "labels, others, parts",
    [
        (NUMBERS[1:], {}, ("a string for each of the 30 images", "got shape [29] of int64")),
        (NAMES[1:], {}, ("`labels` must hold", "got shape [29] of <U3")),
        (np.eye(30, dtype=int), {}, ("got shape [30, 30] of int64",)),
        (NUMBERS / 1, {}, ("got shape [30] of float64",)),
        (NUMBERS - 1, {}, ("an integer from 0 on", "got -1")),
        (np.full(30, None), {}, ("`labels` cannot be read: Object arrays",)),
        (NAMES, {"images_labels": NUMBERS}, ("all hold integers, or all strings",)),
        (NUMBERS, {"images_labels": NAMES}, ("all hold integers, or all strings",)),
        (NAMES, {"class_names": ["a", "b", "c"]}, ("`class_names` is for integers", "`labels`")),
        (NUMBERS, {"class_names": ["a", "b"]}, ("from 0 to 2", "got shape [2] of <U1: a, b")),
        (NUMBERS, {"class_names": ["a", "b", "a"]}, ("of its own", "[3] of <U1: a, b, a")),
        (NUMBERS, {"class_names": np.arange(3)}, ("from 0 to 2", "got shape [3] of int64")),
        (NUMBERS, {"class_names": [["a", "b", "c"]]}, ("from 0 to 2", "got shape [1, 3] of <U1")),
    ],
)
def test_labels_that_do_not_fit_are_refused_where_they_are_used(
    opened, refused, pictures, labels, others, parts
):
    arrays = {"images": pictures(30, 2, 2), "labels": labels, **others}
    assert len(opened(arrays)) == 24
    with refused("the labels of split 'train' of data.name", "do not fit its images: ", *parts):
        opened(arrays, num_classes=3)


VECTORS = np.random.default_rng(1).normal(size=(30, 5))
MAPS = np.random.default_rng(2).integers(0, 9, (30, 2, 3, 4))


@pytest.mark.parametrize(
    "condition, field", [(VECTORS, "condition_vector"), (MAPS, "condition_map")]
)
@pytest.mark.parametrize("key, name", [("all", "condition"), ("train", "train_condition")])
def test_conditions_of_an_npz_file(opened, pictures, condition, field, key, name):
    images = pictures(30, 2, 3)
    # Beside labels, of which this model knows nothing.
    arrays = {key: images, name: condition, "labels": NAMES}
    source = opened(arrays, **{field: condition.shape[-1]})
    batch = source.batch(range(len(source)))
    assert batch.condition.dtype == np.float32 and source.class_names == ()
    for image, found in zip(*batch, strict=True):
        (row,) = np.flatnonzero((images == image[..., 0]).all(axis=(1, 2)))
        np.testing.assert_array_equal(found, condition[row].astype(np.float32))
    assert opened(arrays).batch([0]).condition is None
    assert opened(arrays, num_classes=3).batch([0]).condition.dtype == np.int32


@pytest.mark.parametrize(
    "condition, parts",
    [
        (VECTORS[1:], ("`condition` must hold", "[30, D] or", "got shape [29, 5] of float64")),
        (NUMBERS, ("got shape [30] of int64",)),
        (NAMES[:, None], ("must hold numbers", "got shape [30, 1] of <U3")),
        (np.full((30, 5), None), ("`condition` cannot be read: Object arrays",)),
    ],
)
def test_conditions_that_do_not_fit_are_refused_where_they_are_used(
    opened, refused, pictures, condition, parts
):
    arrays = {"images": pictures(30, 2, 3), "condition": condition}
    assert len(opened(arrays)) == 24
    with refused("the condition of split 'train' of data.name", "do", *parts):
        opened(arrays, condition_vector=5)


@pytest.mark.parametrize("dtype", ["float16", ">f4", "float64"])
@pytest.mark.parametrize("name", ["set.npy", "set.npz"])
def test_real_values(tmp_path, opened, dtype, name):
    images = np.random.default_rng(0).normal(size=(10, 3, 4, 2)).astype(dtype)
    (np.save if name == "set.npy" else np.savez)(tmp_path / name, images)
    assert data.open_records(DataConfig(name=str(tmp_path / name)), "all").dtype == images.dtype
    source = opened(tmp_path / name, "all", output="gaussian_mixture")
    assert (source.image_shape, source.levels, source.dtype) == ((3, 4, 2), 0, np.float32)
    found = source.batch(range(10)).images
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, images.astype(np.float32))


def test_channels_that_come_first_are_refused(tmp_path, opened, refused, pictures):
    np.save(tmp_path / "a.npy", np.moveaxis(pictures(5, 8, 8, 3), -1, 1))
    with refused("[5, 3, 8, 8], as if its channels came first", "np.moveaxis(images, 1, -1)"):
        opened(tmp_path / "a.npy")
