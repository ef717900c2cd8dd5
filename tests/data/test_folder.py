"""Folders of image files."""

import numpy as np
import pytest
from PIL import Image

from pixel_rnn_jax.data import folder, open_images, records
from pixel_rnn_jax.data.records import SPLITS


def save(directory, images):
    directory.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(directory / f"{number}.png")


def test_folder_without_splits_is_divided(tmp_path, opened, read, refused, pictures):
    (tmp_path / "notes.txt").write_text("not an image")
    with refused("no image files"):
        opened(tmp_path)
    images = pictures(20, 4, 5, 3)
    save(tmp_path / "a", images[:2])
    with refused("at least 3 images", "got 2"):
        opened(tmp_path)
    save(tmp_path / "b", images[2:])
    parts = [read(tmp_path, split) for split in SPLITS]
    assert [len(part) for part in parts] == [16, 2, 2]
    found = sorted(image.tobytes() for image in np.concatenate(parts))
    assert found == sorted(image.tobytes() for image in images)
    with refused("no split 'some'", "all, test, train, validation"):
        opened(tmp_path, "some[:5]")
    np.testing.assert_array_equal(read(tmp_path, "train[:5]"), parts[0][:5])


def test_folder_with_splits_and_a_bare_name(tmp_path, monkeypatch, opened, read, refused, pictures):
    images = pictures(5, 4, 4)
    save(tmp_path / "holiday" / "train", images[:3])
    save(tmp_path / "holiday" / "val", images[3:])
    monkeypatch.chdir(tmp_path)
    fields = {"data_dir": str(tmp_path / "none"), "validation_split": "val"}
    np.testing.assert_array_equal(read("holiday", **fields), images[:3, ..., None])
    np.testing.assert_array_equal(read("holiday", "validation", **fields), images[3:, ..., None])
    with refused("no split 'test'", "train, val"):
        opened("holiday", "test", **fields)


@pytest.mark.parametrize(
    "mode, levels, channels", [("1", 2, 1), ("L", 256, 1), ("LA", 256, 2), ("RGB", 256, 3)]
)
def test_modes(tmp_path, opened, read, mode, levels, channels):
    for number in range(3):
        Image.new(mode, (5, 4)).save(tmp_path / f"{number}.png")
    source = opened(tmp_path)
    assert (source.image_shape, source.levels) == ((4, 5, channels), levels)
    assert read(source).dtype == np.uint8


@pytest.mark.parametrize(
    "file, mode, size, parts",
    [
        ("2.png", "L", (4, 4), ("one size and mode", "2.png is 4x4 'L'", "0.png is 4x5 'L'")),
        ("2.png", "RGB", (5, 4), ("2.png is 4x5 'RGB'",)),
        ("0.png", "P", (5, 4), ("0.png has mode 'P'", "convert")),
        ("2.png", "no image", None, ("2.png cannot be read as an image",)),
        ("2.png", "damaged", None, ("2.png cannot be read as an image",)),
    ],
)
def test_files_that_are_refused(tmp_path, read, refused, pictures, file, mode, size, parts):
    save(tmp_path, pictures(5, 4, 5))
    if size:
        Image.new(mode, size).save(tmp_path / file)
    else:
        content = (tmp_path / file).read_bytes()[:50] if mode == "damaged" else b"not a picture"
        (tmp_path / file).write_bytes(content)
    with refused(*parts):
        for split in SPLITS:
            read(tmp_path, split)


@pytest.mark.parametrize("limit, count", [(8 * 9, 8), (8 * 9 - 1, 8 + 8 + 2)])
def test_files_are_decoded_once_unless_they_are_large(
    tmp_path, monkeypatch, opened, read, pictures, limit, count
):
    images = pictures(10, 3, 3)
    save(tmp_path, images)
    monkeypatch.setattr(records, "CACHE_BYTES", limit)
    source = opened(tmp_path)
    decoded, decode = [], folder.decode_image
    monkeypatch.setattr(folder, "decode_image", lambda *a: decoded.append(a) or decode(*a))
    two = source.batch([7, 3]).images
    np.testing.assert_array_equal(read(source)[[7, 3]], two)
    found = {image.tobytes() for image in read(source)}
    assert len(found) == 8 and found < {image.tobytes() for image in images}
    assert len(decoded) == count


def test_an_image_that_pads_a_batch_is_decoded_once(tmp_path, monkeypatch, pictures):
    images = pictures(3, 3, 3)
    save(tmp_path, images)
    found = open_images(tmp_path)
    decoded, decode = [], folder.decode_image
    monkeypatch.setattr(folder, "decode_image", lambda *a: decoded.append(a) or decode(*a))
    np.testing.assert_array_equal(found.read(np.array([2, 0, 2, 2]))[..., 0], images[[2, 0, 2, 2]])
    assert len(decoded) == 2
