"""Sets that TFDS has prepared."""

import io
import sys

import numpy as np
import pytest
from PIL import Image as Picture
from tensorflow_datasets.core.features import Image, Tensor, Text

GREY = Image(shape=(4, 4, 1))
CODES = np.arange(48).reshape(3, 4, 4, 1)
BYTES, WORDS = CODES.astype(np.uint8), (1000 * CODES).astype(np.uint16)


def test_set_is_read_as_it_was_written_and_silently(
    caplog, capfd, write_tfds, opened, read, pictures
):
    images = pictures(11, 5, 4, 3)
    shards = {"train": [images[:6], images[6:9]], "test": [images[9:]]}
    write_tfds("photos", shards, Image(shape=(5, 4, 3)))
    source = opened("photos", num_classes=3)
    assert (source.image_shape, source.levels, source.dtype) == ((5, 4, 3), 256, np.uint8)
    np.testing.assert_array_equal(read(source), images[:9])
    np.testing.assert_array_equal(source.batch([7, 2]).images, images[[7, 2]])
    np.testing.assert_array_equal(source.batch([7, 2]).condition, [1, 1])
    np.testing.assert_array_equal(read("photos", "train[5:7]"), images[5:7])
    np.testing.assert_array_equal(read("photos", "test+train[8:]"), images[[9, 10, 8]])
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize("name", ["photos/small", "photos/small:1.0.0"])
def test_configurations_versions_and_named_splits(write_tfds, read, name):
    write_tfds("photos/small", {"left": [BYTES]}, GREY)
    np.testing.assert_array_equal(read(name, train_split="left[1:]"), BYTES[1:])


@pytest.mark.parametrize(
    "name, feature, images, levels, channels",
    [
        ("binarized_mnist", GREY, BYTES % 2, 2, 1),
        # As downsampled_imagenet declares it: without a size.
        ("unsized", Image(), np.repeat(BYTES, 3, axis=-1), 256, 3),
        ("grey_in_colour", Image(shape=(4, 4, 3)), BYTES, 256, 3),
        ("scans", Image(shape=(4, 4, 1), dtype=np.uint16), WORDS, 48000, 1),
        ("codes", Tensor(shape=(4, 4), dtype=np.int64), CODES, 48, 1),
    ],
)
def test_kinds_of_images(
    write_tfds, opened, read, refused, name, feature, images, levels, channels
):
    tensor = {"encode": np.squeeze} if name == "codes" else {}
    write_tfds(name, {"train": [images]}, feature, **tensor)
    fields = {} if images.dtype == np.uint8 else {"levels": levels}
    if fields:
        with refused("data.levels", images.dtype.name):
            opened(name)
    source = opened(name, **fields)
    assert (source.levels, source.image_shape) == (levels, (4, 4, channels))
    np.testing.assert_array_equal(read(source), np.broadcast_to(images, (3, 4, 4, channels)))


def _stored_as(mode):
    """Returns what encodes pixels as a builder does that gives TFDS files of this mode."""

    def encode(pixels):
        file = io.BytesIO()
        Picture.fromarray(pixels.squeeze()).convert(mode).save(file, "PNG")
        return file.getvalue()

    return encode


@pytest.mark.parametrize("mode, channels", [("1", 1), ("1", 3), ("P", 3), ("P", 1)])
def test_stored_files_are_decoded_as_tensorflow_does(write_tfds, opened, read, mode, channels):
    images = 255 * (BYTES % 2)
    feature = Image(shape=(4, 4, channels))
    write_tfds("files", {"train": [images]}, feature, encode=_stored_as(mode))
    assert opened("files").levels == 256
    np.testing.assert_array_equal(read("files"), np.broadcast_to(images, (3, 4, 4, channels)))


def test_stored_files_of_other_channels_are_refused(write_tfds, opened, refused):
    colour = Image(shape=(4, 4, 3))
    write_tfds("files", {"train": [BYTES]}, colour, encode=_stored_as("RGBA"))
    with refused("record 0", "has 4 channels, but the set declares 3"):
        opened("files")


def test_two_values_are_not_taken_for_256_levels(write_tfds, opened, refused):
    write_tfds("spots", {"train": [BYTES % 2]}, GREY)
    with refused("has the values 0 and 1 in its first images", "set data.levels=2, or 256 if"):
        opened("spots")
    assert opened("spots", levels=2).levels == 2


@pytest.mark.parametrize("names, expected", [("ab", ("a", "b")), ("10", ("1", "0")), ("01", ())])
def test_names_of_classes(write_tfds, opened, names, expected):
    """TFDS itself gives the names "0", "1", ... to classes that have none."""
    write_tfds("photos", {"train": [BYTES]}, GREY, classes=names)
    assert opened("photos", num_classes=2).class_names == expected
    assert opened("photos").class_names == ()


def test_images_of_several_sizes_are_refused(write_tfds, read, refused, pictures):
    write_tfds("photos", {"train": [[pictures(6, 5, 3), pictures(5, 5, 3)]]}, Image())
    with refused("one size", "record 1 of split 'train'", "5x5x3", "6x5x3"):
        read("photos")


def test_damaged_image(write_tfds, opened, refused):
    write_tfds("photos", {"train": [[b"not a picture"]]}, GREY, encode=bytes)
    with refused("record 0 of split 'train' of data.name 'photos'", "cannot be read"):
        opened("photos")


def test_set_that_is_not_prepared(tmp_path, caplog, opened, refused, monkeypatch):
    name = "downsampled_imagenet/32x32"
    command = (
        f'python -c "import tensorflow_datasets as tfds; tfds.builder({name!r}, '
        f"data_dir={str(tmp_path)!r}, file_format='array_record').download_and_prepare()\""
    )
    with refused("data.name", "not prepared", "pip install 'pixel-rnn-jax[prepare]'", command):
        opened(name)
    (tmp_path / "mnist").mkdir()
    monkeypatch.chdir(tmp_path)
    with refused("data.name", "'mnist' is not prepared", "; ./mnist is the folder of that name"):
        opened("mnist")
    assert not caplog.records


def test_format_without_random_access(tmp_path, write_tfds, opened, refused):
    write_tfds("mnist", {"train": [BYTES]}, GREY, form="tfrecord")
    with refused("tfrecord", str(tmp_path), "data.data_dir", "file_format='array_record'"):
        opened("mnist")


@pytest.mark.parametrize(
    "name, split, parts",
    [
        ("minst", "train", ("'minst'", "did you mean 'mnist'")),
        ("cifar/10/x", "train", ("'cifar/10/x'", "no such folder")),
        ("photos/small", "validation", ("no split 'validation'", "train,")),
        ("photos/small", "train[:x]", ("no split 'train[:x]'", "train,")),
        ("photos/small", "train[:0]", ("split 'train[:0]'", "empty")),
    ],
)
def test_names_and_splits_that_do_not_exist(write_tfds, opened, refused, name, split, parts):
    write_tfds("photos/small", {"train": [BYTES]}, GREY)
    with refused(*parts):
        opened(name, split)


@pytest.mark.parametrize(
    "key, feature, value, message",
    [
        ("picture", GREY, b"", "no `image` feature, only"),
        ("image", Tensor(shape=(2, 2), dtype=np.float32), np.ones((2, 2)), "float32"),
        ("image", Text(), b"a cat", "Text, not one image"),
    ],
)
def test_sets_of_something_else(write_tfds, opened, refused, key, feature, value, message):
    write_tfds("things", {"train": [[value]]}, feature, encode=lambda each: each, key=key)
    with refused("data.name 'things'", message):
        opened("things")
