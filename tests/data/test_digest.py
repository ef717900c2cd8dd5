"""The digest of a split knows its images again, wherever they are."""

import threading

import numpy as np
import pytest

from pixel_rnn_jax.data import digest
from pixel_rnn_jax.data.digest import check_beside
from pixel_rnn_jax.errors import UserError


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


def test_images_are_checked_beside_other_work(opened, monkeypatch):
    """By a thread that no one waits for at the end of the program."""
    images = np.zeros((300, 2, 2), np.int32)
    begin, source = threading.Event(), opened({"any": images}, levels=2)
    read = source.check

    def check(rows):
        assert threading.current_thread().daemon and begin.wait(60)
        read(rows)

    monkeypatch.setattr(source, "check", check)
    checked = check_beside(source)
    assert not checked.done()
    begin.set()
    assert checked.result() is None
    images[100:] = 2
    with pytest.raises(UserError, match="has the value 2"):
        check_beside(opened({"any": images}, levels=2)).result()
