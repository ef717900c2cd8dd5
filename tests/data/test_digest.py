"""The digest of a split knows its images again, wherever they are."""

import threading

import numpy as np
import pytest

from pixel_rnn_jax.data import digest
from pixel_rnn_jax.data.digest import checking
from pixel_rnn_jax.errors import UserError


@pytest.mark.parametrize("binarize", ["none", "dynamic"])
def test_the_same_images_have_the_same_digest(opened, binarize):
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(1200, 2, 2), dtype=np.uint8)

    def of(images, labels=None):
        labels = np.arange(len(images)) % 2 if labels is None else labels
        splits = {"train": images, "train_labels": labels}
        return digest(opened(splits, binarize=binarize, num_classes=2))

    found = of(images)
    assert of(images.copy()) == found
    others = {of(images[:-1]), of(images[::-1]), of(images, np.zeros(1200, int))}
    assert len(others | {found}) == 4


def test_images_are_checked_beside_other_work(opened, monkeypatch):
    images = np.zeros((300, 2, 2), np.int32)
    source, looked, go_on = opened({"any": images}, levels=2), [], threading.Event()
    check = source.check

    def wait(rows):
        assert go_on.wait(60)
        looked.append(len(rows))
        check(rows)

    monkeypatch.setattr(source, "check", wait)
    with checking(source) as checked:
        assert not checked.done()
        go_on.set()
        assert checked.result() is None
    assert sum(looked) == len(source) == 240
    images[100:] = 2
    with (
        pytest.raises(UserError, match="has the value 2"),
        checking(opened({"any": images}, levels=2)) as checked,
    ):
        checked.result()


def test_the_check_ends_with_the_work(opened, monkeypatch):
    source, begun, go_on = opened("digits"), threading.Event(), threading.Event()
    looked = []

    def wait(rows):
        looked.append(rows)
        begun.set()
        assert go_on.wait(60)

    monkeypatch.setattr(source, "check", wait)
    with checking(source):
        assert begun.wait(60)
        threading.Timer(0.5, go_on.set).start()  # Once the `with` is being left.
    assert len(looked) == 1
