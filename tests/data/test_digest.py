"""The digest of a split knows its images again, wherever they are."""

import numpy as np
import pytest

from pixel_rnn_jax.data import digest


@pytest.mark.parametrize("binarize", ["none", "dynamic"])
def test_the_same_images_have_the_same_digest(opened, binarize):
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(1200, 2, 2), dtype=np.uint8)

    def of(images, labels=None):
        labels = np.arange(len(images)) % 2 if labels is None else labels
        splits = {"train": images, "train_labels": labels}
        return digest(opened(splits, binarize=binarize, classes=2))

    found = of(images)
    assert of(images.copy()) == found
    others = {of(images[:-1]), of(images[::-1]), of(images, np.zeros(1200, int))}
    assert len(others | {found}) == 4
