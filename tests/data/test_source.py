"""What a model sees of stored images: levels, labels, binarisation and noise."""

import subprocess
import sys

import numpy as np
import pytest
from tensorflow_datasets.core.features import Image

from pixel_rnn_jax import data
from pixel_rnn_jax.config import Config, ModelConfig


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
    with refused("has no labels", "model.classes must be 0"):
        opened({"images": images}, classes=3)
    labelled = {"images": images, "labels": np.arange(30) % 5}
    with refused("has 5 classes, but model.classes is 3"):
        opened(labelled, classes=3)
    assert opened(labelled).batch([0]).labels is None


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
    source = data.open_source(Config(ModelConfig(output="continuous")), "test")
    np.testing.assert_array_equal(read(source), read("digits", "test", noise=0))
