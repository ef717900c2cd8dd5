"""Sets that TFDS has prepared."""

import functools
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers.pictures import png
from tensorflow_datasets.core.features import Image, Text

GREY = Image(shape=(4, 4, 1))
BYTES = np.arange(48, dtype=np.uint8).reshape(3, 4, 4, 1)


def test_set_is_read_as_it_was_written_and_silently(
    caplog, capfd, write_tfds, opened, read, pictures, tmp_path
):
    images = pictures(11, 5, 4, 3)
    shards = {"train": [images[:6], images[6:9]], "test": [images[9:]]}
    write_tfds("photos", shards, Image(shape=(5, 4, 3)))
    split = opened("photos", num_classes=3)
    assert (split.image_shape, split.levels) == ((5, 4, 3), 256)
    np.testing.assert_array_equal(read(split), images[:9])
    np.testing.assert_array_equal(split.batch([7, 2]).images, images[[7, 2]])
    np.testing.assert_array_equal(split.batch([7, 2]).condition, [1, 1])
    np.testing.assert_array_equal(read("photos", "train[5:7]"), images[5:7])
    names = [f"photos-train.array_record-0000{i}-of-00002__{row}" for i, row in ((0, 5), (1, 0))]
    assert opened("photos", "train[5:7]").dataset.names() == names  # As TFDS has its ids.
    np.testing.assert_array_equal(read("photos", "train[-2:]"), images[7:9])
    info = tfds.builder_from_directory(str(tmp_path / "photos/1.0.0")).info
    for part in "train[17%:]", "train[:50%]", "train[6%:95%]", "train[:-3]":
        assert len(read("photos", part)) == info.splits[part].num_examples
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
    assert "tensorflow" not in sys.modules


def test_configurations_versions_and_named_splits(write_tfds, read):
    write_tfds("photos/small", {"left": [BYTES]}, GREY)
    for name in "photos/small", "photos/small:1.0.0":
        np.testing.assert_array_equal(read(name, train_split="left[1:]"), BYTES[1:])


@pytest.mark.parametrize(
    "name, feature, images, levels",
    [
        ("binarized_mnist", GREY, BYTES % 2, 2),
        # As downsampled_imagenet declares it: without a size.
        ("unsized", Image(), np.repeat(BYTES, 3, axis=-1), 256),
    ],
)
def test_kinds_of_images(write_tfds, opened, read, name, feature, images, levels):
    write_tfds(name, {"train": [images]}, feature)
    assert opened(name).levels == levels
    np.testing.assert_array_equal(read(name), images)


@pytest.mark.parametrize("mode, channels", [("L", 3), ("1", 1), ("P", 3), ("RGBA", 3)])
def test_stored_files_are_decoded_as_tensorflow_does(write_tfds, opened, read, mode, channels):
    images = 255 * (BYTES % 2)
    feature = Image(shape=(4, 4, channels))
    encode = functools.partial(png, mode=mode)
    write_tfds("files", {"train": [images]}, feature, encode=encode)
    assert opened("files").levels == 256
    np.testing.assert_array_equal(read("files"), np.broadcast_to(images, (3, 4, 4, channels)))


@pytest.mark.parametrize("names, expected", [("ab", ("a", "b")), ("01", ())])
def test_names_of_classes(write_tfds, opened, names, expected):
    """TFDS itself gives the names "0", "1", ... to classes that have none."""
    write_tfds("photos", {"train": [BYTES]}, GREY, classes=names)
    assert opened("photos", num_classes=2).class_names == expected
    assert opened("photos").class_names == ()


def test_labels_are_refused_where_they_occur(write_tfds, opened, refused):
    write_tfds("photos", {"train": [BYTES]}, GREY, classes="012", label=-1)
    with refused("photos-train", "__1 of split 'train'", "-1", "model.num_classes"):
        opened("photos", num_classes=2).batch([1])


@pytest.mark.parametrize(
    "name, split, parts",
    [
        ("minst", "train", ("data.name 'minst'", "array_record", "data.data_dir")),
        ("records", "train", ("data.name 'records'", "array_record", "data.data_dir")),
        ("photos/small", "validation", ("data.name 'photos/small'", "'validation'", "train")),
        ("photos/small", "train[:0]", ("data.name 'photos/small'", "'train[:0]'")),
        ("deep", "train", ("__0 of data.name 'deep'", "mode 'I;16'")),
        ("no_image", "train", ("data.name 'no_image'", "`image`")),
        ("text", "train", ("data.name 'text'", "`image`")),
    ],
)
def test_sets_and_splits_that_are_refused(write_tfds, read, refused, name, split, parts):
    plain = {"encode": lambda value: value}
    write_tfds("photos/small", {"train": [BYTES]}, GREY)
    write_tfds("records", {"train": [BYTES]}, GREY, form="tfrecord")
    write_tfds("deep", {"train": [BYTES.astype(np.uint16)]}, GREY)
    write_tfds("no_image", {"train": [[b""]]}, GREY, key="picture", **plain)
    write_tfds("text", {"train": [[b"a cat"]]}, Text(), **plain)
    with refused(*parts):
        read(name, split, levels=256)
