"""What a model sees of stored images: levels, binarisation, noise, mirroring and conditions."""

import zlib

import numpy as np
import pytest
from sklearn.datasets import load_digits
from tensorflow_datasets.core.features import Image

from pixel_rnn_jax import data

SPLITS = ("train", "validation", "test")
DENSITY = {"output": "logistic_mixture"}


def test_digits_are_divided_once_and_for_all(opened):
    parts = [opened("digits", split, num_classes=10) for split in SPLITS]
    assert [len(part) for part in parts] == [1297, 250, 250]
    rows = np.concatenate([part.ids[:, 1] for part in parts])
    np.testing.assert_array_equal(np.sort(rows), np.arange(1797))
    digits = load_digits()
    for part in parts:
        assert (part.image_shape, part.levels) == ((8, 8, 1), 17)
        images, labels = part.batch(range(len(part)))
        np.testing.assert_array_equal(images[..., 0], digits.images[part.ids[:, 1]])
        np.testing.assert_array_equal(labels, digits.target[part.ids[:, 1]])


@pytest.mark.parametrize(
    "fields, first, late, test",
    [
        ({}, 1932334684, 1624562123, 3668641754),
        ({"binarize": "fixed"}, 1909859050, 1031029419, 2325007797),
        ({"binarize": "dynamic"}, 745118032, 38474289, 2325007797),
        ({"flip": True}, 352610246, 4140529249, 3668641754),
        (DENSITY, 341347365, 3187665455, 1499747173),
        (
            DENSITY | {"noise": 3, "binarize": "dynamic", "flip": True},
            1236162343,
            583693548,
            862098111,
        ),
    ],
)
def test_draws_and_order_never_change(opened, read, fields, first, late, test):
    """Figures that were measured stay comparable, and runs can be resumed: CRC-32 of batches."""
    train = opened("digits", **fields)
    for start, expected in (0, first), (1000, late):
        batch = next(data.train_batches(train, batch_size=16, seed=5, start_step=start))
        assert zlib.crc32(batch.images.tobytes()) == expected
    assert zlib.crc32(read("digits", "test", **fields).tobytes()) == test


ZEROS = np.zeros((30, 2, 3), np.uint8)
NUMBERS = np.arange(30) % 3
PARTS = {"train": ZEROS, "test": ZEROS}
NAMES = np.array(["dog", "cat", "älg"])[NUMBERS]


@pytest.mark.parametrize(
    "arrays, fields, parts",
    [
        ({"any": ZEROS / 1}, {}, ("float64", "model.output", "softmax", "gaussian_mixture")),
        ({"any": ZEROS.astype(int)}, {}, ("data.levels", "int64", "opened.npz")),
        ({"any": np.arange(-9, 171).reshape(30, 2, 3)}, {}, ("from -9 to 170", "add 9")),
        ({"any": 200 * ZEROS / 1}, {}, ("np.round(255 * x)",)),
        ({"any": ZEROS + 900.0}, {}, ("np.round(x)", "int32")),
        ({"any": ZEROS + np.uint8(1)}, {}, ("data.levels", "from 1 to 1", "opened.npz")),
        ({"any": ZEROS > 0}, {"levels": 3}, ("bool", "0 to 2")),
        ({"x": ZEROS}, {"num_classes": 3}, ("no `labels`", "model.num_classes")),
        ({"x": ZEROS, "labels": NUMBERS / 1}, {"num_classes": 3}, ("float64", "integers [N]")),
        ({"x": ZEROS, "labels": NAMES[:, None]}, {"num_classes": 3}, ("labels", "[24, 1]")),
        ({**PARTS, "labels": NUMBERS}, {"num_classes": 3}, ("no `labels`", "`train_labels`")),
        ({"x": ZEROS}, {"condition_map": 2}, ("no `condition`", "[N, 2, 3, 2]")),
        ({"x": ZEROS, "condition": NAMES[:, None]}, {"condition_vector": 1}, ("condition", "<U3")),
    ],
)
def test_sets_that_do_not_fit_the_model_are_refused(opened, refused, arrays, fields, parts):
    with refused(*parts):
        opened(arrays, **fields)


def test_the_range_of_an_array_on_disk_is_of_all_images(tmp_path, opened, refused):
    np.save(tmp_path / "x.npy", np.arange(90, dtype=np.int16)[:, None, None])
    with refused("data.levels", "0 to 89"):
        opened(tmp_path / "x.npy", "all")


def test_values_outside_the_levels_name_their_image(opened, refused):
    images = np.zeros((4, 2, 2), np.int32)
    images[2, 1, 0] = 5
    arrays = {"train": images, "test": -images}
    split = opened(arrays, levels=5)
    split.batch([0, 1, 3])
    with refused("image 2 of split 'train'", "value 5", "0 to 4", "data.levels"):
        split.batch([0, 2])
    with refused("image 2 of split 'test'", "value -5", "add 5"):
        opened(arrays, "test", levels=5).batch([2])


VECTORS = np.random.default_rng(1).normal(size=(30, 5))
MAPS = np.random.default_rng(2).integers(0, 9, (30, 2, 3, 4))
BY_NAME = np.array([1, 0, 2])[NUMBERS]


@pytest.mark.parametrize(
    "arrays, fields, expected, class_names",
    [
        ({"labels": NUMBERS}, {"num_classes": 4}, NUMBERS, ()),
        ({"x_labels": NAMES}, {"num_classes": 3}, BY_NAME, ("cat", "dog", "älg")),
        ({"condition": VECTORS, "labels": NAMES}, {"condition_vector": 5}, VECTORS, ()),
        ({"x_condition": MAPS}, {"condition_map": 4}, MAPS, ()),
        ({"labels": NUMBERS / 1, "condition": VECTORS}, {}, None, ()),  # Unused, so of any form.
    ],
)
def test_conditions_of_an_npz_file(opened, arrays, fields, expected, class_names):
    split = opened({"x": ZEROS, **arrays}, **fields)
    assert split.class_names == class_names
    condition = split.batch(range(len(split))).condition
    if expected is None:
        assert condition is None
        return
    assert condition.dtype == (np.int32 if "num_classes" in fields else np.float32)
    np.testing.assert_array_equal(condition, expected[split.ids[:, 1]].astype(condition.dtype))


def test_a_class_has_the_same_number_in_all_splits(opened):
    arrays = {"train": ZEROS[:2], "train_labels": NAMES[:2], "test": ZEROS, "test_labels": NAMES}
    split = opened(arrays, num_classes=3)
    assert split.class_names == ("cat", "dog", "älg")
    np.testing.assert_array_equal(split.batch([0, 1]).condition, BY_NAME[:2])


@pytest.mark.parametrize("dtype", [">f4", "float64", "int64"])
def test_real_values(tmp_path, opened, read, dtype):
    images = (9 * np.random.default_rng(0).normal(size=(10, 3, 4, 2))).astype(dtype)
    np.save(tmp_path / "set.npy", images)
    split = opened(tmp_path / "set.npy", "all", output="gaussian_mixture", noise=1)
    assert (split.levels, read(split).dtype) == (0, np.float32)
    np.testing.assert_array_equal(read(split), images.astype(np.float32))
    np.testing.assert_array_equal(split.batch([4], [9], seed=2).images, read(split)[[4]])


@pytest.mark.parametrize("what, wrong", [("", np.nan), ("the condition of ", 1e300)])
def test_numbers_that_are_not_finite_name_their_image(opened, refused, what, wrong):
    arrays = {"train": np.zeros((4, 2, 2)), "train_condition": np.zeros((4, 3))}
    arrays["train_condition" if what else "train"][2, 1] = wrong
    split = opened(arrays, output="gaussian_mixture", condition_vector=3)
    split.batch([0, 1, 3])
    with refused(f"{what}image 2 of split 'train' of data.name", str(wrong)):
        split.batch([0, 2])


@pytest.fixture
def greys(opened):
    """Opens 40 equal images of one value of 0..256."""

    def open_greys(binarize, value=64):
        return opened({"any": np.full((50, 8, 8), value)}, levels=257, binarize=binarize)

    return open_greys


def check_draws(images):
    """Checks that the images are independent draws of probability 1/4."""
    assert set(np.unique(images)) == {0, 1}
    assert abs(images.mean() - 0.25) < 4 * (0.25 * 0.75 / images.size) ** 0.5
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)


def train_images(split, seed, batches=1):
    stream = data.train_batches(split, batch_size=40, seed=seed)
    return np.concatenate([next(stream).images for _ in range(batches)])


def test_binarisation_is_a_draw_by_image_or_by_visit(greys, read):
    fixed, dynamic = greys("fixed"), greys("dynamic")
    images = read(fixed)
    assert (fixed.levels, images.dtype) == (2, np.uint8)
    assert not read(greys("fixed", 0)).any() and read(greys("fixed", 256)).all()
    check_draws(images)
    np.testing.assert_array_equal(fixed.batch([7, 3]).images, images[[7, 3]])
    for seen in np.split(train_images(fixed, seed=3, batches=2), 2):
        assert {image.tobytes() for image in seen} == {image.tobytes() for image in images}
    # "dynamic" draws anew at each visit, in training only.
    np.testing.assert_array_equal(read(dynamic), images)
    visits = train_images(dynamic, seed=3, batches=5)
    check_draws(visits)
    assert (train_images(dynamic, seed=4) != visits[:40]).any(axis=(1, 2, 3)).all()


def test_fixed_binarisation_is_the_same_whatever_part_is_read(write_tfds, read):
    images = np.full((12, 4, 4, 1), 128, np.uint8)
    shards = {"train": [images[:7], images[7:]], "test": [images]}
    write_tfds("mnist", shards, Image(shape=(4, 4, 1)))
    train = read("mnist", binarize="fixed")
    assert len(np.unique(train.reshape(12, -1), axis=0)) == 12
    np.testing.assert_array_equal(read("mnist", "train[5:9]", binarize="fixed"), train[5:9])
    assert (read("mnist", "test", binarize="fixed") != train).any()


def test_half_of_the_images_are_mirrored_anew_at_each_visit_in_training_only(
    opened, read, pictures
):
    images = {"any": pictures(50, 5, 6)}
    flipped, plain = (opened(images, flip=flip, **DENSITY) for flip in (True, False))
    np.testing.assert_array_equal(read(flipped), read(plain))
    seen, straight = (train_images(split, seed=3, batches=10) for split in (flipped, plain))
    straight, seen = np.floor(straight), np.floor(seen)
    mirrored = (seen != straight).any((1, 2, 3))
    rows = mirrored[:, None, None, None]
    np.testing.assert_array_equal(seen, np.where(rows, straight[:, :, ::-1], straight))
    assert abs(mirrored.mean() - 0.5) < 4 * 0.5 / 400**0.5
    # Each image has been seen ten times.
    assert 0 < mirrored[:40].mean() < 1 and (mirrored[:200] != mirrored[200:]).any()


@pytest.mark.parametrize("binarize", ["none", "dynamic"])
def test_noise(opened, read, binarize):
    # Above 2**15 the rounding to float32 reaches the next level at one value in 500.
    images = {"any": np.random.default_rng(0).integers(2**15, 2**16, (50, 8, 8))}
    fields = {"levels": 2**16, "binarize": binarize}
    split, other = (opened(images, noise=noise, **fields, **DENSITY) for noise in (0, 1))
    clean = opened(images, **fields)
    images, others = read(split), read(other)
    assert (images.dtype, split.levels) == (np.float32, clean.levels)
    np.testing.assert_array_equal(np.floor(images), read(clean))
    noise = images - np.floor(images)
    assert abs(noise.mean() - 0.5) < 0.02 and noise.std() == pytest.approx(12**-0.5, rel=0.02)
    # The same at every look, another in another draw, and in training at every visit.
    np.testing.assert_array_equal(read(split), images)
    np.testing.assert_array_equal(np.floor(others), np.floor(images))
    assert (others != images).mean() > 0.9
    one, two = np.sort(train_images(split, seed=0, batches=2).reshape(2, -1))
    assert (one != two).mean() > 0.9


def test_splits_that_overlap_are_refused(opened, refused):
    train, validation = opened("digits", "train[:1167]"), opened("digits", "train[1167:]")
    data.check_disjoint(train=train, validation=validation, test=opened("digits", "test"))
    with refused("data.train_split", "data.test_split", "1 "):
        data.check_disjoint(train=train, test=opened("digits", "train[1166:1168]"))
