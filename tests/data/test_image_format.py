"""What a workdir keeps of its data set, which the images of every later command must have."""

import dataclasses
import json

import pytest

from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.runs.image_format import ImageFormat
from pixel_rnn_jax.runs.workdir import read_image_format, write_image_format

REAL = ImageFormat((3, 4, 2), 0, (0.1, -5.0), (1.0, 0.25))
NAMED = ImageFormat((3, 4, 2), 17, class_names=("cat", "älg"))


@pytest.mark.parametrize("images", [REAL, NAMED])
def test_round_trip(tmp_path, images):
    write_image_format(images, tmp_path)
    assert read_image_format(tmp_path) == images


def test_file_of_an_earlier_version(tmp_path):
    """It goes on with the names of classes that it did not keep."""
    (tmp_path / "images.json").write_text('{"image_shape": [3, 4, 2], "levels": 17}')
    assert read_image_format(tmp_path) == dataclasses.replace(NAMED, class_names=())
    for class_names in NAMED.class_names, ():
        write_image_format(dataclasses.replace(NAMED, class_names=class_names), tmp_path)
        assert read_image_format(tmp_path) == NAMED


@pytest.mark.parametrize(
    "damage",
    [
        {"offset": 1.0},
        {"offset": [1.0]},
        {"offset": [1.0, "x"]},
        {"offset": [1.0, float("nan")]},
        {"offset": []},
        {"scale": [1.0, 0.0]},
        {"class_names": "ab"},
        {"class_names": [1, 2]},
        {"class_names": None},
    ],
    ids=str,
)
def test_damaged_values_are_refused(tmp_path, damage):
    text = json.dumps(dataclasses.asdict(REAL) | damage)
    (tmp_path / "images.json").write_text(text)
    with pytest.raises(UserError, match=r"images\.json is damaged"):
        read_image_format(tmp_path)


@pytest.mark.parametrize(
    "images, changes",
    [
        (REAL, {"image_shape": (3, 5, 2)}),
        (REAL, {"levels": 2}),
        (NAMED, {"class_names": ("cat", "dog")}),
        (NAMED, {"class_names": ("älg", "cat")}),
    ],
)
def test_other_images(tmp_path, images, changes):
    other = dataclasses.replace(images, **changes)
    assert not images.same_images(other) and not other.same_images(images)
    write_image_format(images, tmp_path)
    with pytest.raises(UserError) as caught:
        write_image_format(other, tmp_path)
    assert f"images of {images}, the data set now has {other}: " in str(caught.value)
    assert read_image_format(tmp_path) == images


def test_offset_and_scale_are_those_of_the_first_time(tmp_path):
    others = [dataclasses.replace(REAL, offset=offset, scale=offset) for offset in ((), (2.0, 3.0))]
    write_image_format(others[0], tmp_path)
    for images in (REAL, *others):
        assert REAL.same_images(images)
        write_image_format(images, tmp_path)
        assert read_image_format(tmp_path) == REAL


def test_text():
    assert str(REAL) == "shape (3, 4, 2) and real values"
    assert str(NAMED) == "shape (3, 4, 2) and 17 levels in 2 classes (cat, älg)"
    many = dataclasses.replace(NAMED, class_names=tuple(f"class{n}" for n in range(1000)))
    assert "in 1000 classes (class0, class1, " in str(many) and len(str(many)) < 110
