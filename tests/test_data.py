"""Data: every kind of set, what is refused, binarisation, and the order of the batches."""

import contextlib
import io
import itertools
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter  # type: ignore[import-untyped]
from PIL import Image
from sklearn.datasets import load_digits  # type: ignore[import-untyped]

from pixel_rnn_jax import data, sources
from pixel_rnn_jax.config import DataConfig
from pixel_rnn_jax.errors import UserError


def pictures(count, *shape, below=256, seed=0):
    return np.random.default_rng(seed).integers(0, below, (count, *shape), np.uint8)


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, "PNG")
    return file.getvalue()


def write_tfds(
    data_dir, name, shards, feature, encode=png, file_format="array_record", key="image"
):
    """Writes a prepared TFDS set without TensorFlow: {split: [images of each shard]}."""
    folder = data_dir / name / "1.0.0"
    folder.mkdir(parents=True)
    features = tfds.features.FeaturesDict(
        {key: feature, "label": tfds.features.ClassLabel(num_classes=2)}
    )
    features.save_config(str(folder))
    serializer = tfds.core.ExampleSerializer(features.get_serialized_info())
    info = {"name": name.split("/")[0], "version": "1.0.0", "fileFormat": file_format, "splits": []}
    if "/" in name:
        info["configName"] = name.split("/")[1]
    for split, parts in shards.items():
        for number, images in enumerate(parts):
            file = f"{info['name']}-{split}.{file_format}-{number:05}-of-{len(parts):05}"
            writer = ArrayRecordWriter(str(folder / file), "group_size:1")
            for image in images:
                writer.write(serializer.serialize_example({key: encode(image), "label": 1}))
            writer.close()
        info["splits"].append(
            {
                "name": split,
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "numBytes": "1",
                "shardLengths": [str(len(images)) for images in parts],
            }
        )
    (folder / "dataset_info.json").write_text(json.dumps(info))


def everything(source):
    return source.__getitems__(np.arange(len(source)))


def open_array(tmp_path, images, split="train", **fields):
    np.save(tmp_path / "images.npy", images)
    return data.open_source(DataConfig(name=str(tmp_path / "images.npy"), **fields), split)


@contextlib.contextmanager
def refused(*parts):
    """Expects a UserError of one sentence that contains every part."""
    with pytest.raises(UserError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    assert not re.search(r"\. |\.$", message)
    for part in parts:
        assert part in message


# ---------------------------------------------------------------------------------------- sources


def test_importing_data_imports_no_source():
    heavy = {"sklearn", "tensorflow_datasets", "PIL", "grain", "tensorflow"}
    program = f"import sys, pixel_rnn_jax.data; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_digits_are_divided_once_and_for_all():
    parts = [data.open_source(DataConfig(), split) for split in sources.SPLITS]
    assert [len(part) for part in parts] == [1297, 250, 250]
    assert parts[0].image_shape == (8, 8, 1)
    assert (parts[0].levels, parts[0].dtype) == (17, np.uint8)
    rows = np.concatenate([part._records.keys[:, 1] for part in parts])
    np.testing.assert_array_equal(np.sort(rows), np.arange(1797))
    # Published figures are on this very test split.
    assert everything(parts[2]).sum() == 78634


def test_tfds_set_is_read_as_it_was_written_and_silently(tmp_path, caplog, capfd):
    images = pictures(11, 5, 4, 3)
    feature = tfds.features.Image(shape=(5, 4, 3))
    write_tfds(
        tmp_path, "photos", {"train": [images[:6], images[6:9]], "test": [images[9:]]}, feature
    )
    config = DataConfig(name="photos", data_dir=str(tmp_path))
    source = data.open_source(config, "train")
    assert (source.image_shape, source.levels, source.dtype) == ((5, 4, 3), 256, np.uint8)
    np.testing.assert_array_equal(everything(source), images[:9])
    np.testing.assert_array_equal(source[7], images[7])
    np.testing.assert_array_equal(everything(data.open_source(config, "train[5:7]")), images[5:7])
    np.testing.assert_array_equal(
        everything(data.open_source(config, "test+train[8:]")), images[[9, 10, 8]]
    )
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
    assert "tensorflow" not in sys.modules


def test_tfds_set_with_configurations_versions_and_named_splits(tmp_path):
    images = pictures(3, 4, 4, 1)
    feature = tfds.features.Image(shape=(4, 4, 1))
    write_tfds(tmp_path, "photos/small", {"left": [images]}, feature)
    for name in ("photos/small", "photos/small:1.0.0"):
        config = DataConfig(name=name, data_dir=str(tmp_path), train_split="left[1:]")
        np.testing.assert_array_equal(everything(data.open_source(config, "train")), images[1:])


def test_tfds_image_without_a_declared_size(tmp_path):
    # As downsampled_imagenet declares it.
    images = pictures(4, 6, 5, 3)
    write_tfds(tmp_path, "photos", {"train": [images]}, tfds.features.Image())
    source = data.open_source(DataConfig(name="photos", data_dir=str(tmp_path)), "train")
    assert source.image_shape == (6, 5, 3)
    np.testing.assert_array_equal(everything(source), images)


def test_tfds_images_of_several_sizes_are_refused(tmp_path):
    images = [pictures(1, 6, 5, 3)[0], pictures(1, 5, 5, 3)[0]]
    write_tfds(tmp_path, "photos", {"train": [images]}, tfds.features.Image())
    source = data.open_source(DataConfig(name="photos", data_dir=str(tmp_path)), "train")
    with refused("one size", "record 1", "5x5x3", "6x5x3"):
        everything(source)


def test_tfds_grey_file_in_a_colour_set(tmp_path):
    images = pictures(2, 4, 4, 1)
    write_tfds(tmp_path, "photos", {"train": [images]}, tfds.features.Image(shape=(4, 4, 3)))
    source = data.open_source(DataConfig(name="photos", data_dir=str(tmp_path)), "train")
    np.testing.assert_array_equal(everything(source), np.repeat(images, 3, axis=-1))


def test_tfds_16_bit_images(tmp_path):
    images = np.arange(32, dtype=np.uint16).reshape(2, 4, 4, 1) * 1000
    feature = tfds.features.Image(shape=(4, 4, 1), dtype=np.uint16)
    write_tfds(tmp_path, "scans", {"train": [images]}, feature)
    config = DataConfig(name="scans", data_dir=str(tmp_path), levels=40000)
    source = data.open_source(config, "train")
    assert source.dtype == np.uint16
    np.testing.assert_array_equal(everything(source), images)


def test_tfds_image_that_is_a_tensor(tmp_path):
    codes = pictures(3, 4, 4, below=50).astype(np.int64)
    feature = tfds.features.Tensor(shape=(4, 4), dtype=np.int64)
    write_tfds(tmp_path, "codes", {"train": [codes]}, feature, encode=lambda image: image)
    config = DataConfig(name="codes", data_dir=str(tmp_path))
    with refused("data.levels", "int64"):
        data.open_source(config, "train")
    source = data.open_source(DataConfig(name="codes", data_dir=str(tmp_path), levels=50), "train")
    np.testing.assert_array_equal(everything(source), codes[..., None])


def test_binarized_mnist_has_two_levels(tmp_path):
    images = pictures(3, 4, 4, 1, below=2)
    feature = tfds.features.Image(shape=(4, 4, 1))
    write_tfds(tmp_path, "binarized_mnist", {"train": [images]}, feature)
    source = data.open_source(DataConfig(name="binarized_mnist", data_dir=str(tmp_path)), "train")
    assert source.levels == 2
    np.testing.assert_array_equal(everything(source), images)


def test_tfds_name_that_is_not_prepared(tmp_path, caplog):
    name = "downsampled_imagenet/32x32"
    command = (
        "pip install 'pixel-rnn-jax[prepare]'",
        f'python -c "import tensorflow_datasets as tfds; tfds.builder({name!r}, '
        f"data_dir={str(tmp_path)!r}, file_format='array_record').download_and_prepare()\"",
    )
    with refused("data.name", "not prepared", *command):
        data.open_source(DataConfig(name=name, data_dir=str(tmp_path)), "train")
    assert not caplog.records


def test_tfds_set_in_a_format_without_random_access(tmp_path):
    feature = tfds.features.Image(shape=(4, 4, 1))
    shards = {"train": [pictures(3, 4, 4, 1)]}
    write_tfds(tmp_path, "mnist", shards, feature, file_format="tfrecord")
    with refused("tfrecord", str(tmp_path), "data.data_dir", "file_format='array_record'"):
        data.open_source(DataConfig(name="mnist", data_dir=str(tmp_path)), "train")


def test_unknown_names(tmp_path):
    with refused("'minst'", "did you mean 'mnist'"):
        data.open_source(DataConfig(name="minst", data_dir=str(tmp_path)), "train")
    shards = {"train": [pictures(3, 4, 4, 1)]}
    write_tfds(tmp_path, "photos/small", shards, tfds.features.Image(shape=(4, 4, 1)))
    with refused("'photos'", "did you mean 'photos/small'"):
        data.open_source(DataConfig(name="photos", data_dir=str(tmp_path)), "train")
    with refused("'cifar/10/x'", "no such folder"):
        data.open_source(DataConfig(name="cifar/10/x", data_dir=str(tmp_path)), "train")


def test_tfds_splits_that_do_not_exist(tmp_path):
    feature = tfds.features.Image(shape=(4, 4, 1))
    images = pictures(3, 4, 4, 1)
    write_tfds(tmp_path, "mnist", {"train": [images], "test": [images]}, feature)
    config = DataConfig(name="mnist", data_dir=str(tmp_path))
    for split in ("validation", "train[:x]"):
        with refused(f"no split {split!r}", "test, train", "data.validation_split"):
            data.open_source(config, split)
    with refused("'train[:0]'", "empty"):
        data.open_source(config, "train[:0]")


@pytest.mark.parametrize(
    "key, feature, value, message",
    [
        ("picture", tfds.features.Image(shape=(4, 4, 1)), b"", "no `image` feature, only"),
        ("image", tfds.features.Tensor(shape=(2, 2), dtype=np.float32), np.ones((2, 2)), "float32"),
        ("image", tfds.features.Text(), b"a cat", "Text, not one image"),
    ],
)
def test_tfds_sets_of_something_else(tmp_path, key, feature, value, message):
    shards = {"train": [np.zeros((1, 2, 2), np.uint8)]}
    write_tfds(tmp_path, "things", shards, feature, encode=lambda _: value, key=key)
    with refused("data.name 'things'", message):
        data.open_source(DataConfig(name="things", data_dir=str(tmp_path)), "train")


def test_tfds_damaged_image(tmp_path):
    feature = tfds.features.Image(shape=(20, 20, 1))
    shards = {"train": [pictures(2, 20, 20, 1)]}
    write_tfds(tmp_path, "photos", shards, feature, encode=lambda image: png(image)[:60])
    with refused("record 0 of split 'train' of data.name 'photos'", "cannot be read"):
        data.open_source(DataConfig(name="photos", data_dir=str(tmp_path)), "train")


def test_folder_without_splits_is_divided(tmp_path):
    images = pictures(20, 4, 5, 3)
    for number, image in enumerate(images):
        (tmp_path / f"{number % 3}").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / f"{number % 3}" / f"{number:02}.png")
    (tmp_path / "notes.txt").write_text("not an image")
    config = DataConfig(name=str(tmp_path))
    parts = [everything(data.open_source(config, split)) for split in sources.SPLITS]
    assert [len(part) for part in parts] == [16, 2, 2]
    found = sorted(image.tobytes() for image in np.concatenate(parts))
    assert found == sorted(image.tobytes() for image in images)
    with refused("no split 'train[:5]'", "test, train, validation"):
        data.open_source(config, "train[:5]")


def test_folder_with_splits_and_a_bare_name(tmp_path, monkeypatch):
    images = pictures(5, 4, 4)
    for split, part in (("train", images[:3]), ("val", images[3:])):
        (tmp_path / "holiday" / split).mkdir(parents=True)
        for number, image in enumerate(part):
            Image.fromarray(image).save(tmp_path / "holiday" / split / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    config = DataConfig(name="holiday", data_dir=str(tmp_path / "none"), validation_split="val")
    train, validation = (data.open_source(config, split) for split in ("train", "validation"))
    assert train.image_shape == (4, 4, 1)
    np.testing.assert_array_equal(everything(train), images[:3, ..., None])
    np.testing.assert_array_equal(everything(validation), images[3:, ..., None])
    with refused("no split 'test'", "train, val"):
        data.open_source(config, "test")


@pytest.mark.parametrize(
    "mode, levels, channels", [("1", 2, 1), ("L", 256, 1), ("LA", 256, 2), ("RGB", 256, 3)]
)
def test_folder_modes(tmp_path, mode, levels, channels):
    for number in range(3):
        Image.new(mode, (5, 4)).save(tmp_path / f"{number}.png")
    source = data.open_source(DataConfig(name=str(tmp_path)), "train")
    assert (source.image_shape, source.levels) == ((4, 5, channels), levels)
    assert source[0].dtype == np.uint8


def test_folders_that_are_refused(tmp_path):
    config = DataConfig(name=str(tmp_path))

    def opened():
        for split in sources.SPLITS:
            everything(data.open_source(config, split))

    with refused("no image files"):
        opened()
    Image.new("L", (5, 4)).save(tmp_path / "0.png")
    with refused("at least 3 images", "got 1"):
        opened()
    for number in range(1, 5):
        Image.new("L", (5, 4)).save(tmp_path / f"{number}.png")
    opened()
    Image.new("L", (4, 4)).save(tmp_path / "2.png")
    with refused("one size and mode", "2.png is 4x4 'L'", "0.png is 4x5 'L'"):
        opened()
    Image.new("RGB", (5, 4)).save(tmp_path / "2.png")
    with refused("2.png is 4x5 'RGB'"):
        opened()
    (tmp_path / "2.png").write_bytes(b"not a picture")
    with refused("2.png cannot be read as an image"):
        opened()
    Image.fromarray(pictures(1, 4, 5)[0]).save(tmp_path / "2.png")
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:50])
    with refused("2.png cannot be read as an image"):
        opened()
    Image.new("P", (5, 4)).save(tmp_path / "0.png")
    with refused("0.png has mode 'P'", "convert"):
        opened()


@pytest.mark.parametrize("dtype", ["bool", "uint8", ">u2", "int32", "int64"])
def test_npy_of_any_integers(tmp_path, dtype):
    images = pictures(10, 3, 4, below=2).astype(dtype)
    config_levels = 0 if dtype in ("bool", "uint8") else 7
    parts = [open_array(tmp_path, images, s, levels=config_levels) for s in sources.SPLITS]
    assert [len(part) for part in parts] == [8, 1, 1]
    assert parts[0].levels == {"bool": 2, "uint8": 256}.get(dtype, 7)
    rows = np.concatenate([part._records.keys[:, 1] for part in parts])
    for row, image in zip(rows, itertools.chain(*map(everything, parts)), strict=True):
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, images[row, ..., None])


@pytest.mark.parametrize(
    "levels, dtype", [(256, "uint8"), (257, "uint16"), (65536, "uint16"), (65537, "int32")]
)
def test_dtype_is_the_smallest_that_holds_the_levels(tmp_path, levels, dtype):
    images = np.full((3, 2, 2, 1), levels - 1)
    source = open_array(tmp_path, images, levels=levels)
    assert source.dtype == source[0].dtype == np.dtype(dtype)
    assert (source[0] == levels - 1).all()


def test_npy_stays_on_disk(tmp_path, monkeypatch):
    loaded = []
    load = np.load
    monkeypatch.setattr(np, "load", lambda *a, **k: loaded.append(load(*a, **k)) or loaded[-1])
    open_array(tmp_path, pictures(10, 3, 3))
    assert isinstance(loaded[0], np.memmap)


def test_npz_with_splits_or_one_array(tmp_path):
    images = pictures(10, 3, 3, 2)
    config = DataConfig(name=str(tmp_path / "set.npz"))
    np.savez(tmp_path / "set.npz", train=images[:7], validation=images[7:], other=images)
    np.testing.assert_array_equal(everything(data.open_source(config, "train")), images[:7])
    np.testing.assert_array_equal(everything(data.open_source(config, "validation")), images[7:])
    with refused("no split 'test'", "other, train, validation"):
        data.open_source(config, "test")
    np.savez_compressed(tmp_path / "set.npz", images)
    assert [len(data.open_source(config, split)) for split in sources.SPLITS] == [8, 1, 1]
    np.savez(tmp_path / "set.npz", a=images, b=images)
    with refused("one array", "got a, b"):
        data.open_source(config, "train")


def test_arrays_that_are_refused(tmp_path):
    with refused("float32", "np.uint8"):
        open_array(tmp_path, np.zeros((4, 2, 2), np.float32))
    with refused("[N, H, W]", "got [4, 2]"):
        open_array(tmp_path, np.zeros((4, 2), np.uint8))
    with refused("got [0, 2, 2]"):
        open_array(tmp_path, np.zeros((0, 2, 2), np.uint8))
    with refused("data.levels must be set", "int32"):
        open_array(tmp_path, np.zeros((4, 2, 2), np.int32))
    with refused("cannot be read"):
        open_array(tmp_path, np.array([[[None]]]))
    for ending in ("npy", "npz"):
        config = DataConfig(name=str(tmp_path / f"x.{ending}"))
        with refused(f"x.{ending}", "no such file"):
            data.open_source(config, "train")
        (tmp_path / f"x.{ending}").write_bytes(b"not an array")
        with refused(f"x.{ending}", "cannot be read"):
            data.open_source(config, "train")


def test_values_outside_the_levels_name_their_record(tmp_path):
    images = np.zeros((4, 2, 2), np.int32)
    images[2, 1, 0] = 5
    np.savez(tmp_path / "set.npz", train=images, test=-images)
    config = DataConfig(name=str(tmp_path / "set.npz"), levels=5)
    source = data.open_source(config, "train")
    source.__getitems__([0, 1, 3])
    with refused("record 2 of split 'train'", "value 5", "0 to 4", "data.levels"):
        source.__getitems__([0, 2])
    with refused("record 2 of split 'test'", "value -5"):
        everything(data.open_source(config, "test"))
    with refused("record 2 of split 'train'"):
        list(data.eval_batches(source, batch_size=2))
    assert everything(data.open_source(DataConfig(name=config.name, levels=6), "train")).max() == 5


def test_records_outside_the_split_raise(tmp_path):
    source = open_array(tmp_path, pictures(10, 2, 2))
    for index in (-1, len(source)):
        with pytest.raises(IndexError):
            source[index]


def test_files_are_decoded_once_unless_they_are_large(tmp_path, monkeypatch):
    for number, image in enumerate(pictures(10, 3, 3)):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    decoded = []
    decode = sources._decode
    monkeypatch.setattr(sources, "_decode", lambda *a: decoded.append(a) or decode(*a))
    source = data.open_source(DataConfig(name=str(tmp_path)), "train")
    decoded.clear()
    first = everything(source)
    assert len(decoded) == 8
    np.testing.assert_array_equal(everything(source), first)
    assert len(decoded) == 8
    monkeypatch.setattr(sources, "KEEP_BYTES", 8 * 9 - 1)
    source = data.open_source(DataConfig(name=str(tmp_path)), "train")
    decoded.clear()
    for _ in range(2):
        np.testing.assert_array_equal(everything(source), first)
    assert len(decoded) == 16


# ----------------------------------------------------------------------------------- binarisation


def greys(tmp_path, binarize, value=64, **fields):
    """Opens 40 equal images of one value of 0..256 (K=257, so that 128 is a half)."""
    return open_array(tmp_path, np.full((50, 8, 8), value), levels=257, binarize=binarize, **fields)


def test_fixed_binarisation_is_a_draw_by_record(tmp_path):
    source = greys(tmp_path, "fixed")
    images = everything(source)
    assert (source.levels, images.dtype) == (2, np.uint8)
    assert set(np.unique(images)) == {0, 1}
    assert abs(images.mean() - 0.25) < 4 * (0.25 * 0.75 / images.size) ** 0.5
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)
    np.testing.assert_array_equal(everything(source), images)
    np.testing.assert_array_equal(source.__getitems__([7, 3]), images[[7, 3]])
    for value in (0, 256):
        assert (everything(greys(tmp_path, "fixed", value)) == value // 256).all()


def test_fixed_binarisation_never_changes():
    # A figure that was measured on these draws must stay comparable.
    images = everything(data.open_source(DataConfig(binarize="fixed"), "test"))
    assert images.sum() == 4937


def test_fixed_binarisation_is_the_same_whatever_part_is_read(tmp_path):
    images = np.full((12, 4, 4, 1), 128, np.uint8)
    shards = {"train": [images[:7], images[7:]], "test": [images]}
    write_tfds(tmp_path, "mnist", shards, tfds.features.Image(shape=(4, 4, 1)))
    config = DataConfig(name="mnist", data_dir=str(tmp_path), binarize="fixed")
    train = everything(data.open_source(config, "train"))
    assert len(np.unique(train.reshape(12, -1), axis=0)) == 12
    np.testing.assert_array_equal(everything(data.open_source(config, "train[5:9]")), train[5:9])
    assert (everything(data.open_source(config, "test")) != train).any()


def test_dynamic_binarisation_draws_anew_at_each_visit_in_training_only(tmp_path):
    source = greys(tmp_path, "dynamic")
    np.testing.assert_array_equal(everything(source), everything(greys(tmp_path, "fixed")))
    batches = data.train_batches(source, batch_size=40, seed=3)
    images = np.concatenate([next(batches).images for _ in range(5)])
    assert abs(images.mean() - 0.25) < 4 * (0.25 * 0.75 / images.size) ** 0.5
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)
    other = next(data.train_batches(source, batch_size=40, seed=4)).images
    assert (other != images[:40]).any(axis=(1, 2, 3)).all()


def test_fixed_binarisation_in_training_is_the_evaluated_one(tmp_path):
    source = greys(tmp_path, "fixed")
    batches = data.train_batches(source, batch_size=40, seed=3)
    for images, _ in itertools.islice(batches, 2):
        assert {i.tobytes() for i in images} == {i.tobytes() for i in everything(source)}


@pytest.mark.parametrize("value, expected", [(128, 0), (129, 1)])
def test_threshold_binarisation(tmp_path, value, expected):
    assert (everything(greys(tmp_path, "threshold", value)) == expected).all()


# ---------------------------------------------------------------------------------------- batches


@pytest.fixture
def numbered(tmp_path):
    """23 images, each filled with its own number."""
    images = np.broadcast_to(np.arange(23, dtype=np.uint8)[:, None, None], (23, 2, 2))
    np.savez(tmp_path / "set.npz", train=images)
    return data.open_source(DataConfig(name=str(tmp_path / "set.npz")), "train")


def first(batches, count):
    return [batch.images for batch in itertools.islice(batches, count)]


def numbers(batches, count):
    return np.stack([images[:, 0, 0, 0] for images in first(batches, count)])


def test_every_epoch_has_every_image_once_in_its_own_order(numbered):
    stream = numbers(data.train_batches(numbered, batch_size=4, seed=0), 23).reshape(4, 23)
    for epoch in stream:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(23))
    assert len(np.unique(stream, axis=0)) == 4
    assert (np.diff(stream) != 1).any()
    other = numbers(data.train_batches(numbered, batch_size=4, seed=1), 23).reshape(4, 23)
    assert not (stream[:, None] == other).all(axis=-1).any()


@pytest.mark.parametrize("binarize", ["none", "dynamic"])
def test_a_batch_is_a_function_of_seed_and_step(tmp_path, binarize):
    source = open_array(tmp_path, pictures(50, 8, 8), binarize=binarize)
    whole = first(data.train_batches(source, batch_size=7, seed=5), 30)
    again = first(data.train_batches(source, batch_size=7, seed=5), 30)
    np.testing.assert_array_equal(whole, again)
    for start in (1, 6, 22):
        late = data.train_batches(source, batch_size=7, seed=5, start_step=start)
        np.testing.assert_array_equal(first(late, 30 - start), whole[start:])


def test_a_late_start_reads_nothing_before_it(numbered, monkeypatch):
    steps = []
    visit = numbered.visit

    def recorded(indices, positions, seed):
        steps.append(positions[0] // 4)
        return visit(indices, positions, seed)

    monkeypatch.setattr(numbered, "visit", recorded)
    next(data.train_batches(numbered, batch_size=4, seed=0, start_step=10**9))
    assert min(steps) == 10**9
    assert len(steps) < 20


@pytest.mark.parametrize("binarize", ["none", "dynamic"])
def test_processes_together_have_the_batch_of_one(tmp_path, binarize):
    source = open_array(tmp_path, pictures(50, 8, 8), binarize=binarize)
    whole = first(data.train_batches(source, batch_size=12, seed=5), 9)
    for count in (2, 3, 4):
        for index in range(count):
            mine = data.train_batches(
                source, batch_size=12, seed=5, process_index=index, process_count=count
            )
            np.testing.assert_array_equal(first(mine, 9), [batch[index::count] for batch in whole])


def test_a_training_split_smaller_than_the_batch(numbered):
    stream = numbers(data.train_batches(numbered, batch_size=46, seed=0), 3)
    np.testing.assert_array_equal(np.sort(stream), np.repeat(np.arange(23), 2)[None].repeat(3, 0))


@pytest.mark.parametrize("size", [1, 4, 23, 30])
def test_evaluation_has_every_image_once_in_order(numbered, size):
    batches = list(data.eval_batches(numbered, batch_size=size))
    assert all(len(batch.images) == len(valid) == size for batch, valid in batches)
    found = np.concatenate([batch.images[valid] for batch, valid in batches])
    np.testing.assert_array_equal(found, everything(numbered))
    assert sum(len(valid) for _, valid in batches) - 23 < size


def test_evaluation_over_processes(numbered):
    whole = list(data.eval_batches(numbered, batch_size=6))
    shares = [
        list(data.eval_batches(numbered, batch_size=6, process_index=index, process_count=3))
        for index in range(3)
    ]
    for (batch, valid), *parts in zip(whole, *shares, strict=True):
        images, valids = zip(*((part.images, valid) for part, valid in parts), strict=True)
        np.testing.assert_array_equal(np.concatenate(images), batch.images)
        np.testing.assert_array_equal(np.concatenate(valids), valid)


def test_batches_that_processes_cannot_share_are_refused(numbered):
    with refused("train.batch_size", "got 16 for 3 processes"):
        data.train_batches(numbered, batch_size=16, seed=0, process_count=3)
    with refused("train.eval_batch_size", "got 16 for 3 processes"):
        data.eval_batches(numbered, batch_size=16, process_count=3)


# ----------------------------------------------------------------------------------------- labels


CLASSES = 3


def test_labels_of_digits():
    source = data.open_source(DataConfig(), "test", classes=10)
    assert set(source.labels(np.arange(250)).tolist()) == set(range(10))
    digits = load_digits()
    for index in (0, 7, 249):
        same = (digits.images == source[index][..., 0]).all(axis=(1, 2))
        assert source.labels([index])[0] in digits.target[same]
    assert data.open_source(DataConfig(), "test").labels(np.arange(3)) is None


@pytest.mark.parametrize("names", [("all", "labels"), ("train", "train_labels")])
def test_labels_of_an_array_file(tmp_path, names):
    images = pictures(30, 2, 2)
    labels = np.arange(30) % 3
    np.savez(tmp_path / "set.npz", **dict(zip(names, (images, labels), strict=True)))
    config = DataConfig(name=str(tmp_path / "set.npz"))
    source = data.open_source(config, "train", classes=CLASSES)
    for index in range(len(source)):
        (number,) = np.flatnonzero((images == source[index][..., 0]).all(axis=(1, 2)))
        assert source.labels([index]) == [number % 3]
    batch = next(data.train_batches(source, batch_size=8, seed=0))
    assert batch.labels.shape == (8,) and batch.labels.dtype == np.int32
    for image, label in zip(batch.images, batch.labels, strict=True):
        assert labels[(images == image[..., 0]).all(axis=(1, 2))] == [label]
    for batch, valid in data.eval_batches(source, batch_size=7):
        assert batch.labels.shape == valid.shape


def test_labels_of_a_tfds_set(tmp_path):
    shards = {"train": [np.zeros((3, 4, 4, 1), np.uint8)]}
    write_tfds(tmp_path, "mnist", shards, tfds.features.Image(shape=(4, 4, 1)))
    config = DataConfig(name="mnist", data_dir=str(tmp_path))
    source = data.open_source(config, "train", classes=CLASSES)
    np.testing.assert_array_equal(source.labels([0, 2]), [1, 1])


def test_missing_or_wrong_labels_are_refused(tmp_path):
    np.save(tmp_path / "set.npy", pictures(30, 2, 2))
    with refused("has no labels", "model.classes must be 0"):
        data.open_source(DataConfig(name=str(tmp_path / "set.npy")), "train", classes=CLASSES)
    config = DataConfig(name=str(tmp_path / "set.npz"))
    for wrong in (np.arange(29), np.eye(30), np.full(30, None), np.arange(30) - 1):
        np.savez(tmp_path / "set.npz", images=pictures(30, 2, 2), labels=wrong)
        assert len(data.open_source(config, "train")) == 24  # Of no use, and no harm.
        with refused("has no labels", "an integer from 0 on for each image"):
            data.open_source(config, "train", classes=CLASSES)
    np.savez(tmp_path / "set.npz", images=pictures(30, 2, 2), labels=np.arange(30) % 5)
    with refused("has 5 classes, but model.classes is 3"):
        data.open_source(config, "train", classes=CLASSES)


# ------------------------------------------------------------------------------------------ noise


@pytest.mark.parametrize("binarize", ["none", "dynamic", "fixed"])
def test_noise_of_a_density(tmp_path, binarize):
    np.save(tmp_path / "images.npy", pictures(50, 8, 8))
    config = DataConfig(name=str(tmp_path / "images.npy"), binarize=binarize)
    source, clean = data.open_source(config, "train", noise=0), data.open_source(config, "train")
    images = everything(source)
    assert (images.dtype, source.levels) == (np.float32, clean.levels)
    np.testing.assert_array_equal(np.floor(images), everything(clean))
    noise = images - np.floor(images)
    assert abs(noise.mean() - 0.5) < 0.02 and noise.std() == pytest.approx(12**-0.5, rel=0.02)
    # The same at every look, another in another draw, and in training at every visit.
    np.testing.assert_array_equal(everything(source), images)
    other = everything(data.open_source(config, "train", noise=1))
    assert (other != images).mean() > 0.9
    np.testing.assert_array_equal(np.floor(other), np.floor(images))
    batches = data.train_batches(source, batch_size=40, seed=0)
    one, two = (np.sort(next(batches).images.ravel()) for _ in range(2))
    assert (one != two).mean() > 0.9
    again = next(data.train_batches(source, batch_size=40, seed=0)).images
    np.testing.assert_array_equal(np.sort(again.ravel()), one)


def test_noise_does_not_repeat_the_draws_of_binarisation():
    """A value of 1 has noise of any size: the number that made it 1 is another."""
    config = DataConfig(binarize="fixed")
    images = everything(data.open_source(config, "train", noise=0))
    noise = images - np.floor(images)
    assert abs(noise[images >= 1].mean() - noise[images < 1].mean()) < 0.02
