"""What a model sees of stored images: levels, labels, binarisation and noise."""

import subprocess
import sys

import numpy as np
import pytest
from tensorflow_datasets.core.features import Image

from pixel_rnn_jax import data
from pixel_rnn_jax.config import Config, DataConfig, ModelConfig
from pixel_rnn_jax.data import standard


def test_importing_data_imports_no_large_library():
    large = {"sklearn", "tensorflow_datasets", "tensorflow"}
    program = f"import sys, pixel_rnn_jax.data; assert not {large} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    "levels, dtype", [(256, "uint8"), (257, "uint16"), (65536, "uint16"), (65537, "int32")]
)
def test_dtype_is_the_smallest_that_holds_the_levels(opened, read, levels, dtype):
    source = opened({"any": np.full((3, 2, 2, 1), levels - 1)}, levels=levels)
    assert source.dtype == read(source).dtype == np.dtype(dtype)
    assert (read(source) == levels - 1).all()


def test_where_a_set_or_a_folder_of_such_a_name_is_now(tmp_path):
    (tmp_path / "cifar10").mkdir()
    here = str(tmp_path)
    assert data.moved(DataConfig("cifar10:3.0.2"), here) == DataConfig("cifar10:3.0.2", here)
    wrong = str(tmp_path / "wrong")  # For which the error tells how to prepare the set.
    assert data.moved(DataConfig("cifar10"), wrong) == DataConfig("cifar10", wrong)
    (tmp_path / "new" / "a").mkdir(parents=True)
    (tmp_path / "new" / "a" / "b.PNG").touch()
    for name, place in [("pets", "new"), ("digits", "wrong"), ("cifar10", "new.npz")]:
        place = str(tmp_path / place)
        assert data.moved(DataConfig(name), place) == DataConfig(place)


def test_values_outside_the_levels_name_their_record(opened, read, refused):
    images = np.zeros((4, 2, 2), np.int32)
    images[2, 1, 0] = 5
    arrays = {"train": images, "test": -images}
    source = opened(arrays, levels=5)
    source.batch([0, 1, 3])
    with refused("record 2 of split 'train'", "value 5", "0 to 4", "data.levels"):
        source.batch([0, 2])
    with refused("record 2 of split 'train'"):
        list(data.eval_batches(source, batch_size=2))
    with refused("record 2 of split 'test'", "value -5"):
        read(arrays, "test", levels=5)
    assert read(arrays, levels=6).max() == 5


def test_labels_that_do_not_fit_the_model_are_refused(opened, refused, pictures):
    images = pictures(30, 2, 2)
    with refused("has no labels", "model.num_classes must be 0"):
        opened({"images": images}, num_classes=3)
    labelled = {"images": images, "labels": np.arange(30) % 5}
    with refused("has 5 classes, but model.num_classes is 3"):
        opened(labelled, num_classes=3)
    assert opened(labelled).batch([0]).condition is None


@pytest.mark.parametrize(
    "fields, parts",
    [
        (
            {"condition_vector": 3},
            ("shape [N, 5], but model.condition_vector is 3", "of shape [N, 3]"),
        ),
        (
            {"condition_map": 5},
            ("shape [N, 5], but model.condition_map is 5", "of shape [N, 2, 3, 5]"),
        ),
    ],
)
def test_conditions_of_another_shape_are_refused(opened, refused, pictures, fields, parts):
    with refused("split 'train' of data.name", *parts):
        opened({"any": pictures(30, 2, 3), "condition": np.zeros((30, 5))}, **fields)


@pytest.mark.parametrize("shape", [(30, 2, 4, 5), (30, 3, 2, 5), (30, 2, 3, 4)])
def test_maps_of_another_size_are_refused(opened, refused, pictures, shape):
    found = ", ".join(map(str, shape[1:]))
    with refused(f"shape [N, {found}], but model.condition_map is 5", "of shape [N, 2, 3, 5]"):
        opened({"any": pictures(30, 2, 3), "condition": np.zeros(shape)}, condition_map=5)


@pytest.mark.parametrize("field", ["condition_vector", "condition_map"])
@pytest.mark.parametrize("which", ["digits", "arrays"])
def test_a_set_without_condition_is_refused(opened, refused, pictures, which, field):
    which = {"any": pictures(30, 8, 8)} if which == "arrays" else which
    with refused(f"has no condition, but model.{field} is 2", "[N, ", ", 2]", "array `condition`"):
        opened(which, **{field: 2})


# ----------------------------------------------------------------------------------- real numbers


@pytest.mark.parametrize("wrong, said", [(np.nan, "nan"), (-np.inf, "-inf"), (1e300, "1e+300")])
@pytest.mark.parametrize("where", ["", "the condition of "])
def test_numbers_that_are_not_finite_name_their_record(opened, refused, where, wrong, said):
    arrays = {"train": np.zeros((4, 2, 2)), "train_condition": np.zeros((4, 3))}
    arrays["train_condition" if where else "train"][2, 1] = wrong
    source = opened(arrays, output="gaussian_mixture", condition_vector=3)
    source.batch([0, 1, 3])
    with refused(f"record 2 of {where}split 'train' of data.name", f"has the value {said}"):
        source.batch([0, 2])


@pytest.mark.parametrize("output", ["softmax", "discretized_logistic_mixture", "logistic_mixture"])
def test_floats_are_refused_for_levels(opened, refused, output):
    ways_out = "np.round(255 * x).astype(np.uint8)", "model.output=gaussian_mixture"
    with refused(f'float64, but model.output "{output}" takes integers', *ways_out):
        opened({"any": np.zeros((4, 2, 2))}, output=output, levels=3)


@pytest.mark.parametrize("fields", [{"levels": 17}, {"binarize": "fixed"}])
def test_levels_and_binarisation_are_refused_for_real_values(opened, refused, fields):
    with refused("data.levels must be 0 and data.binarize", *map(str, fields.values())):
        opened("digits", output="gaussian_mixture", **fields)


def test_integers_are_real_values_too(opened, read, write_tfds, pictures):
    images = pictures(6, 4, 4, 1)
    write_tfds("photos", {"train": [images]}, Image(shape=(4, 4, 1)))
    for which in ("photos", {"train": images.astype(np.int64)}):
        source = opened(which, output="gaussian_mixture", noise=1)
        assert (source.levels, source.dtype, read(source).dtype) == (0, np.float32, np.float32)
        np.testing.assert_array_equal(read(source), images)
        np.testing.assert_array_equal(source.batch([4], [9], seed=2).images, images[[4]])


def test_standardisation(opened, monkeypatch):
    """Also of large values of little variance; in a channel of one value; of the first images."""
    images = np.random.default_rng(0).normal(size=(23, 4, 4, 4))
    images = (images * [3, 1e-2, 0, 1e-3] + [-5, 1000, 0.1, 1e-3]).astype(np.float32)
    source = opened({"train": images}, output="gaussian_mixture")
    offset, scale = data.standardisation(source, 5)
    exact = images.astype(np.longdouble)
    np.testing.assert_allclose(offset, exact.mean((0, 1, 2)), rtol=1e-14)
    np.testing.assert_allclose(scale[:2], exact.std((0, 1, 2))[:2], rtol=1e-12)
    np.testing.assert_allclose(scale[3], exact.std((0, 1, 2))[3], rtol=1e-12)
    assert (offset[2], scale[2]) == (np.float32(0.1), 1)
    assert all(isinstance(number, float) for number in (*offset, *scale))
    for size in (1, 7, 23, 100):
        assert data.standardisation(source, size) == (offset, scale)
    monkeypatch.setattr(standard, "STANDARDISATION_IMAGES", 10)
    offset, scale = data.standardisation(source, 4)
    np.testing.assert_allclose(offset, exact[:10].mean((0, 1, 2)), rtol=1e-14)
    np.testing.assert_allclose(scale[0], exact[:10].std((0, 1, 2))[0], rtol=1e-12)


# ----------------------------------------------------------------------------------- binarisation


@pytest.fixture
def greys(opened):
    """Opens 40 equal images of one value of 0..256 (K = 257, so that 128 is a half)."""

    def open_greys(binarize, value=64):
        return opened({"any": np.full((50, 8, 8), value)}, levels=257, binarize=binarize)

    return open_greys


def check_draws(images):
    """Checks that the images are independent draws of probability 1/4."""
    assert set(np.unique(images)) == {0, 1}
    assert abs(images.mean() - 0.25) < 4 * (0.25 * 0.75 / images.size) ** 0.5
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)


def train_images(source, seed, batches=1):
    stream = data.train_batches(source, batch_size=40, seed=seed)
    return np.concatenate([next(stream).images for _ in range(batches)])


def test_fixed_binarisation_is_a_draw_by_record(greys, read):
    source = greys("fixed")
    images = read(source)
    assert (source.levels, images.dtype) == (2, np.uint8)
    check_draws(images)
    np.testing.assert_array_equal(source.batch([7, 3]).images, images[[7, 3]])
    for seen in np.split(train_images(source, seed=3, batches=2), 2):
        assert {image.tobytes() for image in seen} == {image.tobytes() for image in images}


def test_fixed_binarisation_never_changes(read):
    # A figure that was measured on these draws must stay comparable.
    assert read("digits", "test", binarize="fixed").sum() == 4937


def test_fixed_binarisation_is_the_same_whatever_part_is_read(write_tfds, read):
    images = np.full((12, 4, 4, 1), 128, np.uint8)
    shards = {"train": [images[:7], images[7:]], "test": [images]}
    write_tfds("mnist", shards, Image(shape=(4, 4, 1)))
    train = read("mnist", binarize="fixed")
    assert len(np.unique(train.reshape(12, -1), axis=0)) == 12
    np.testing.assert_array_equal(read("mnist", "train[5:9]", binarize="fixed"), train[5:9])
    assert (read("mnist", "test", binarize="fixed") != train).any()


def test_dynamic_binarisation_draws_anew_at_each_visit_in_training_only(greys, read):
    source = greys("dynamic")
    images = train_images(source, seed=3, batches=5)
    check_draws(images)
    assert (train_images(source, seed=4) != images[:40]).any(axis=(1, 2, 3)).all()
    np.testing.assert_array_equal(read(source), read(greys("fixed")))


@pytest.mark.parametrize(
    "binarize, value, expected",
    [("threshold", 128, 0), ("threshold", 129, 1), ("fixed", 0, 0), ("fixed", 256, 1)],
)
def test_values_that_are_always_black_or_white(greys, read, binarize, value, expected):
    assert (read(greys(binarize, value)) == expected).all()


# --------------------------------------------------------------------------------------- mirrored


@pytest.mark.parametrize("binarize, noise", [("none", None), ("none", 0), ("fixed", None)])
def test_half_of_the_images_are_mirrored_anew_at_each_visit_in_training_only(
    opened, read, pictures, binarize, noise
):
    images = {"any": pictures(50, 5, 6)}
    flipped, plain = (
        opened(images, flip=flip, binarize=binarize, noise=noise) for flip in (True, False)
    )
    np.testing.assert_array_equal(read(flipped), read(plain))
    seen, straight = (train_images(source, seed=3, batches=25) for source in (flipped, plain))
    assert seen.dtype == flipped.dtype
    mirrored = (seen != straight).any((1, 2, 3))
    rows = mirrored[:, None, None, None]
    np.testing.assert_array_equal(seen, np.where(rows, straight[:, :, ::-1], straight))
    assert abs(mirrored.mean() - 0.5) < 4 * 0.5 / 1000**0.5
    again = train_images(flipped, seed=3, batches=25)
    np.testing.assert_array_equal(again, seen)
    # Each image has been seen 20 times.
    assert 0 < mirrored[:40].mean() < 1 and (mirrored[:500] != mirrored[500:]).any()


# ------------------------------------------------------------------------------------------ noise


@pytest.mark.parametrize("binarize", ["none", "dynamic", "fixed"])
def test_noise(opened, read, binarize):
    # Above 2**15 the rounding to float32 reaches the next level at one value in 500.
    images = {"any": np.random.default_rng(0).integers(2**15, 2**16, (50, 8, 8))}
    source, other, clean = (
        opened(images, levels=2**16, binarize=binarize, noise=noise) for noise in (0, 1, None)
    )
    images, others = read(source), read(other)
    assert (images.dtype, source.levels) == (np.float32, clean.levels)
    np.testing.assert_array_equal(np.floor(images), read(clean))
    noise = images - np.floor(images)
    assert abs(noise.mean() - 0.5) < 0.02 and noise.std() == pytest.approx(12**-0.5, rel=0.02)
    # The same at every look, another in another draw, and in training at every visit.
    np.testing.assert_array_equal(read(source), images)
    np.testing.assert_array_equal(np.floor(others), np.floor(images))
    assert (others != images).mean() > 0.9
    one, two = np.sort(train_images(source, seed=0, batches=2).reshape(2, -1))
    assert (one != two).mean() > 0.9
    np.testing.assert_array_equal(np.sort(train_images(source, seed=0).ravel()), one)


def test_noise_does_not_repeat_the_draws_of_binarisation(read):
    """A value of 1 has noise of any size: the number that made it 1 is another."""
    images = read("digits", binarize="fixed", noise=0)
    noise = images - np.floor(images)
    assert abs(noise[images >= 1].mean() - noise[images < 1].mean()) < 0.02


def test_continuous_model_takes_the_first_draw(read):
    source = data.open_source(Config(ModelConfig(output="logistic_mixture")), "test")
    np.testing.assert_array_equal(read(source), read("digits", "test", noise=0))


def test_two_values_are_not_taken_for_256_levels(opened, refused):
    images = np.random.default_rng(0).integers(2, size=(30, 4, 5), dtype=np.uint8)
    with refused("has the values 0 and 1 in its first images", "uint8 stands for 256 levels: set"):
        opened({"any": images})
    for levels in (2, 256):
        assert opened({"any": images}, levels=levels).levels == levels
