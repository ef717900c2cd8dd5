"""Grids show every image in its place; files keep every value."""

import io
import time

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from pixel_rnn_jax import pictures
from pixel_rnn_jax.config import DataConfig
from pixel_rnn_jax.data import open_records
from pixel_rnn_jax.errors import UserError

GREY = pictures.GREY


def random_images(levels, *shape):
    dtype = np.uint8 if levels <= 256 else np.uint16
    return np.random.default_rng(0).integers(levels, size=shape, dtype=dtype)


def read_all(name):
    records = open_records(DataConfig(name=str(name)), "all")
    return records.read(np.arange(len(records.keys))), records.levels


@pytest.fixture
def plain(monkeypatch):
    """Leaves images as large as they are."""
    monkeypatch.setattr(pictures, "HEIGHT", 1)


@pytest.mark.parametrize("columns", [None, 2])
def test_grid_has_every_image_once_with_gaps(plain, columns):
    images = random_images(256, 5, 3, 4, 1)
    expected = np.full((3 * 3 + 2, 2 * 4 + 1), GREY, np.uint8)  # There is no sixth image.
    for index, image in enumerate(images):
        top, left = index // 2 * 4, index % 2 * 5
        expected[top : top + 3, left : left + 4] = image[..., 0]
    picture = pictures.grid(images, 256, columns)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, expected)
    assert pictures.grid(images, 256, 5).shape == (3, 5 * 5 - 1)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (2, 20), (20, 2)])
def test_grid_is_about_as_wide_as_high(plain, height, width):
    rows, columns = pictures.grid(np.zeros((64, height, width, 1), int), 2).shape
    assert 0.6 < rows / columns < 1.7


@pytest.mark.parametrize(("height", "count"), [(9, 25), (9, 64), (8, 25)])
def test_a_grid_has_no_more_columns_than_its_rows_need(plain, height, count):
    side = int(count**0.5)
    shape = pictures.grid(np.zeros((count, height, 8, 1), int), 2).shape
    assert shape == (side * (height + 1) - 1, side * 9 - 1)


@pytest.mark.parametrize(
    ("levels", "values", "shown"),
    [(2, [0, 1], [0, 255]), (17, [0, 8, 16], [0, 128, 255]), (1000, [0, 500, 999], [0, 128, 255])],
)
def test_levels_reach_from_black_to_white(plain, levels, values, shown):
    images = np.array(values).reshape(1, 1, -1, 1)
    np.testing.assert_array_equal(pictures.grid(images, levels), [shown])


def test_channels(plain):
    for channels in (3, 4):
        images = random_images(256, 1, 3, 4, channels)
        np.testing.assert_array_equal(pictures.grid(images, 256), images[0])
    left, right = np.moveaxis(images := random_images(256, 1, 3, 4, 2), -1, 0)[:, 0]
    expected = np.concatenate([left, np.full((3, 1), GREY), right], axis=1)
    np.testing.assert_array_equal(pictures.grid(images, 256), expected)
    # A gap between images with opacity is not a hole.
    picture = pictures.grid(random_images(256, 2, 3, 4, 4), 256)
    assert picture[0, 4].tolist() == [GREY, GREY, GREY, 255]


def test_small_images_are_magnified_by_a_whole_factor(monkeypatch):
    images = random_images(2, 4, 28, 28, 1)
    picture = pictures.grid(images, 2)
    assert pictures.grid(random_images(2, 1, 100, 100, 1), 2).shape == (100, 100)
    monkeypatch.setattr(pictures, "LARGEST", 100)
    small = pictures.grid(images, 2)
    assert small.shape == (57, 57)
    np.testing.assert_array_equal(picture, np.kron(small, np.ones((2, 2), int)))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_completions(plain, channels):
    images, completed = random_images(5, 2, 3, 4, channels)
    known = np.zeros((1, 3, 4, channels), bool)
    known[:, :2] = True
    first, last = (pictures.grid(one[None], 5) for one in (images, completed))
    middle = np.concatenate([first[:2], np.full_like(first[2:], GREY)])
    gap = np.full_like(first[:, :1], GREY)
    if channels == 4:
        gap[..., 3] = 255
    picture = pictures.completions(images[None], known, completed[None], 5)
    np.testing.assert_array_equal(picture, np.concatenate([first, gap, middle, gap, last], axis=1))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pixel_map(plain, channels):
    images = random_images(5, 2, 1, 4, channels)
    nats = np.array([[[0.0, 1.0, 2.0, 3.0]], [[6.0, 4.0, 0.0, 5.0]]])
    picture = pictures.pixel_map(images, nats, 5)
    assert pictures.black_and_white(nats) == (0, 6)
    width = 9 if channels == 2 else 4
    assert picture.shape == (3, width + 1 + 4, 3)
    alone = pictures.grid(images[:1], 5).reshape(1, width, -1)[..., :3]
    np.testing.assert_array_equal(picture[:1, :width], np.broadcast_to(alone, (1, width, 3)))
    assert (picture[:, width] == GREY).all()
    black, half_red, red, orange = picture[0, -4:].tolist()
    assert (black, half_red, red) == ([0, 0, 0], [128, 0, 0], [255, 0, 0])
    assert orange == [255, 128, 0]
    white, yellow, _, pale = picture[2, -4:].tolist()  # One scale for all.
    assert (white, yellow, pale) == ([255, 255, 255], [255, 255, 0], [255, 255, 128])
    assert not pictures.pixel_map(images, 0 * nats, 5)[[0, 2], -4:].any()
    of_jax = pictures.pixel_map(jnp.asarray(images), jnp.asarray(nats), 5)
    np.testing.assert_array_equal(of_jax, picture)
    # Of a density, which may give less than 0 nats.
    np.testing.assert_array_equal(pictures.pixel_map(images, nats - 7, 5), picture)
    assert pictures.black_and_white(nats - 7) == (-7, -1)


def test_what_stands_for_unknown_values_does_not_change_the_picture():
    known = np.array([[[[True], [False]]]])
    completed = np.array([[[[0.0], [2.0]]]])
    low, high = (
        pictures.completions(np.where(known, 0.0, value), known, completed, 0)
        for value in (-9999.0, 9999.0)
    )
    differs = low != high  # Only where it stands itself, as the least or the most.
    assert differs.any() and not low[differs].any() and (high[differs] == 255).all()
    assert low[..., -1].max() == 255 and low[..., 0].min() == 0


def test_values_that_are_no_levels_are_drawn_as_levels():
    noisy = jnp.array([-0.5, 0.0, 0.99, 4.2, 5.0])
    found, levels = pictures.as_levels(noisy, 5)
    assert (found.tolist(), levels) == ([0, 0, 0, 4, 4], 5)
    found, levels = pictures.as_levels(10 * noisy, 0)
    assert (found.tolist(), levels) == ([0, 23, 69, 218, 255], 256)
    found, levels = pictures.as_levels(np.full(3, 7.5), 0)
    assert (found.tolist(), levels) == ([0, 0, 0], 256)
    assert pictures.as_levels(np.zeros((0, 2)), 0)[0].shape == (0, 2)
    found, levels = pictures.as_levels(np.array([np.nan, 1.0, -np.inf, 3.0, 2.0]), 0)
    assert (found.tolist(), levels) == ([0, 0, 0, 255, 128], 256)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png(tmp_path, channels):
    images = random_images(17, 3, 5, 4, channels)
    picture = pictures.grid(images, 17)
    pictures.write_images(images, 17, str(tmp_path / "new" / "grid.png"))
    for file in (io.BytesIO(pictures.png(picture)), tmp_path / "new" / "grid.png"):
        with Image.open(file) as image:
            assert image.format == "PNG"
            np.testing.assert_array_equal(np.asarray(image), picture)


@pytest.mark.parametrize(
    ("levels", "channels"), [(2, 1), (17, 1), (256, 1), (2, 3), (256, 3), (256, 4)]
)
def test_folder_keeps_the_values_and_the_order(tmp_path, levels, channels):
    images = random_images(levels, 12, 3, 4, channels)
    pictures.write_images(images, levels, str(tmp_path / "new" / "folder"))
    found, found_levels = read_all(tmp_path / "new" / "folder")
    np.testing.assert_array_equal(found, images)
    # Two levels come back as such; they are black and white to look at.
    assert found_levels == (2 if levels == 2 and channels == 1 else 256)


@pytest.mark.parametrize(("levels", "channels"), [(2, 1), (1000, 1), (256, 2)])
def test_npz_keeps_the_values(tmp_path, levels, channels):
    images, labels = random_images(levels, 12, 3, 4, channels), np.arange(12)
    out = str(tmp_path / "images.npz")
    for arrays in ({"images": images, "labels": labels}, {"images": images}):
        pictures.write_images(
            images, levels, out, arrays={k: v for k, v in arrays.items() if k != "images"}
        )
        with np.load(out) as file:
            assert file["images"].dtype == images.dtype
            np.testing.assert_equal(dict(file), arrays)
    np.testing.assert_array_equal(read_all(out)[0], images)


@pytest.mark.parametrize(
    ("levels", "channels", "out", "message"),
    [
        (2, 1, "images.jpg", "to a .png or .npz file, or to a folder .*, got '.*images.jpg'"),
        (1000, 3, "images", r"of 1000 levels and 3 channels: .* .npz file, .*/images\.npz for"),
        (2, 5, "images/", r"of 2 levels and 5 channels: .* .npz file, .*/images\.npz for"),
        (2, 1, "full", "full is there already and is no empty folder: choose another name"),
        (2, 1, "full/0", "full/0 is there already and is no empty folder: choose another name"),
        (2, 1, "full/0/images.npz", "images.npz cannot be written: "),
        (2, 1, "full.npz", "full.npz is a folder: give the name of a file"),
        (2, 1, "full.png", "full.png is a folder: give the name of a file"),
        (2, 1, "full/0/images.png", "images.png cannot be written: "),
        (2, 1, "full/0/images", "images cannot be written: "),
    ],
)
def test_where_images_cannot_go(tmp_path, levels, channels, out, message):
    folders = {"full", "full.npz", "full.png"}
    for name in folders:
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "0").write_text("precious")
    with pytest.raises(UserError, match=message):
        pictures.write_images(random_images(levels, 3, 3, 4, channels), levels, f"{tmp_path}/{out}")
    assert {path.name for path in tmp_path.rglob("*")} == folders | {"0"}
    assert (tmp_path / "full" / "0").read_text() == "precious"


def test_files_keep_the_names_of_images(tmp_path):
    """Below the folder, whatever they are, and each its own."""
    names = ["a/b.png", "b.jpg", "b.png", "../../etc/c.png", "/d", "e.tar.gz", "..", "b.png"]
    images = random_images(2, len(names), 3, 4, 1)
    pictures.write_images(images, 2, str(tmp_path / "out"), names=names, mode="L")
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png"))
    files = ["a/b", "b", "b.png-2", "b.png-3", "d", "e.tar.gz", "etc/c", "image"]
    assert found == [f"out/{name}.png" for name in files]
    with Image.open(tmp_path / "out" / "b.png-2.png") as image:
        assert image.mode == "L"  # Not "1", as of two levels without a mode.
        np.testing.assert_array_equal(np.asarray(image), images[2, ..., 0])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_names_that_a_file_system_does_not_tell_apart(tmp_path, monkeypatch):
    """As A and a on some; equal names stand for them."""
    monkeypatch.setattr(pictures, "_file_names", lambda names: ["a/b", "a/b", "a/b"])
    images = random_images(2, 3, 3, 4, 1)
    pictures.write_images(images, 2, str(tmp_path / "out"), names=["a/b", "A/b", "a/B"])
    for image, name in zip(images, ("b", "b-2", "b-3"), strict=True):
        with Image.open(tmp_path / "out" / "a" / f"{name}.png") as file:
            np.testing.assert_array_equal(np.asarray(file), image[..., 0])


def test_no_name_leads_out_of_the_folder(tmp_path):
    names = [f"/{tmp_path}/a.png", "//b.png", "///c.png", ".//../d.png", "..png", "...png", "./."]
    names += ["E.PNG", 900 * "f/" + "f.png"]
    images = random_images(2, len(names), 3, 4, 1)
    pictures.write_images(images, 2, str(tmp_path / "out"), names=names)
    found = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")]
    files = [f"{tmp_path}/a"[1:], "b", "c", "d", "..png", "...png", "image", "E", 63 * "f/" + "f"]
    assert sorted(found) == sorted(f"out/{name}.png" for name in files)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_many_images_of_one_name_take_no_longer():
    start = time.monotonic()
    names = pictures._file_names(["a.png"] * 30_000)  # They took a minute.
    assert names[0] == "a" and names[-1] == "a.png-30000"
    assert time.monotonic() - start < 10


def test_what_cannot_be_drawn():
    with pytest.raises(UserError, match="that ends in .png, got 'map.jpg'"):
        pictures.check_picture_out("map.jpg")
    with pytest.raises(UserError, match="no images to draw"):
        pictures.grid(np.zeros((0, 3, 4, 1), int), 2)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ("top_half", [[1, 1, 1], [0, 0, 0], [0, 0, 0]]),
        ("bottom_half", [[0, 0, 0], [1, 1, 1], [1, 1, 1]]),
        ("left_half", [[1, 0, 0]] * 3),
        ("right_half", [[0, 1, 1]] * 3),
    ],
)
def test_known_halves(known, expected):
    mask = pictures.known_mask(known, (3, 3, 2))
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, np.stack([expected, expected], -1))


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P", "I;16"])
def test_known_by_an_image_file(tmp_path, mode):
    expected = np.random.default_rng(0).integers(2, size=(3, 4)).astype(bool)
    file = tmp_path / "mask.png"
    greys = np.where(expected, 2**15, 2**15 - 1).astype(np.uint16)
    image = Image.fromarray(greys) if mode == "I;16" else Image.fromarray(expected).convert(mode)
    image.save(file)
    mask = pictures.known_mask(str(file), (3, 4, 2))
    np.testing.assert_array_equal(mask, np.stack([expected, expected], -1))


def test_what_is_no_mask(tmp_path):
    file = tmp_path / "mask.png"

    def check(message, known=str(file)):
        with pytest.raises(UserError, match=message):
            pictures.known_mask(known, (3, 4, 1))

    check("be top_half, .*right_half or an image file .*, got 'upper_half'", "upper_half")
    Image.fromarray(np.zeros((4, 3), np.uint8)).save(file)
    check("mask.png must be as large as the images, 3x4, got 4x3")
    for content in (file.read_bytes()[:45], b"no picture"):
        file.write_bytes(content)
        check("mask.png cannot be read as an image")
