"""Images and labels that a user gives are checked against the model."""

import numpy as np
import pytest

from pixel_rnn_jax.data import check_images, check_labels

IMAGES = np.arange(60).reshape(5, 3, 4, 1) % 5


@pytest.mark.parametrize(
    "images, discrete, part",
    [
        (IMAGES[..., 0], True, "images must have shape [B, 3, 4, 1], got [5, 3, 4]"),
        (IMAGES / 5, True, "integers from 0 to 4 (unscaled), got float64"),
        (IMAGES + 1, True, "values from 0 to 4, got 1 to 5"),
        (IMAGES - 1, True, "values from 0 to 4, got -1 to 3"),
        (IMAGES, False, "floats from 0 to 5, got int64 values: add noise with `dequantize`"),
        (IMAGES * np.nan, False, "finite values, got NaN"),
    ],
)
def test_images_that_do_not_fit(refused, images, discrete, part):
    with refused(part):
        check_images(images, (3, 4, 1), 5, discrete=discrete)


@pytest.mark.parametrize("images", [IMAGES, IMAGES > 2, IMAGES[:0]])
def test_images_that_fit(images):
    check_images(images, (3, 4, 1), 5)
    check_images(images - 9.5, (3, 4, 1), 5, discrete=False)


@pytest.mark.parametrize(
    "labels, classes, part",
    [
        ([0, 1], 0, "labels are for a model with classes"),
        (None, 3, "this model has 3 classes: give labels, [B] integers from 0 to 2"),
        ([0], 3, "labels must be 2 integers, one for each image, got shape [1] of int64"),
        ([0.0, 1.0], 3, "labels must be 2 integers"),
        ([0, 3], 3, "labels must be from 0 to 2, got 0 to 3"),
        ([-1, 2], 3, "labels must be from 0 to 2, got -1 to 2"),
    ],
)
def test_labels_that_do_not_fit(refused, labels, classes, part):
    with refused(part):
        check_labels(labels, 2, classes)


def test_labels_that_fit():
    assert check_labels(None, 2, 0) is None
    assert np.array_equal(check_labels([0, 2], 2, 3), np.array([0, 2], np.int32))
