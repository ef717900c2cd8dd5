"""Grids show every image in its place; files keep every value."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from pixel_rnn_jax.data import pictures
from pixel_rnn_jax.system.errors import UserError

GREY = pictures.GREY


def random_images(levels, *shape):
    dtype = np.uint8 if levels <= 256 else np.uint16
    return np.random.default_rng(0).integers(levels, size=shape, dtype=dtype)


def read_folder(folder):
    """Returns the arrays of the images of a folder by their names."""
    files = sorted(folder.rglob("*.png"))
    return {str(f.relative_to(folder)): np.asarray(Image.open(f)) for f in files}


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


def test_names_of_rows_lie_beside_them(plain):
    images = random_images(256, 4, 20, 9, 3)
    picture, named = pictures.grid(images, 256, 2), pictures.grid(images, 256, 2, ("i", "MMM"))
    width = named.shape[1] - picture.shape[1]
    np.testing.assert_array_equal(named[:, width:], picture)
    short, long = (int((half != 255).sum()) for half in np.split(named[:40, :width], 2))
    assert 0 < 5 * short < long


def test_a_grid_is_about_square_and_its_columns_are_full(plain):
    for height, width, rows, columns in ((8, 8, 8, 8), (2, 20, 22, 3)):
        shape = pictures.grid(np.zeros((64, height, width, 1), int), 2).shape
        assert shape == (rows * (height + 1) - 1, columns * (width + 1) - 1)


def test_levels_and_channels(plain):
    for levels, values, drawn in ((2, [0, 1], [0, 255]), (1000, [0, 500, 999], [0, 128, 255])):
        images = np.array(values).reshape(1, 1, -1, 1)
        np.testing.assert_array_equal(pictures.grid(images, levels), [drawn])
    for channels in (3, 4):
        images = random_images(256, 1, 3, 4, channels)
        np.testing.assert_array_equal(pictures.grid(images, 256), images[0])
    images = random_images(256, 1, 3, 4, 2)
    sides = images[0, ..., 0], np.full((3, 1), GREY), images[0, ..., 1]
    np.testing.assert_array_equal(pictures.grid(images, 256), np.concatenate(sides, axis=1))


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
    """Below the labels; what is unknown, and gaps, have colours that no level of grey has."""
    images, completed = random_images(5, 2, 3, 4, channels)
    known = np.zeros((1, 3, 4, channels), bool)
    known[:, :2] = True
    both = (pictures.UNKNOWN, pictures.GROUND)
    blue, ground = np.array([[*colour, 255][: max(3, channels)] for colour in both], np.uint8)
    first, last = (pictures.grid(one[None], 5) for one in (images, completed))
    if channels < 3:
        first, last = (np.stack([one] * 3, -1) for one in (first, last))
    middle = first.copy()
    middle[2:] = blue
    if channels == 2:
        middle[:, 4] = GREY  # Between the two, which lie side by side.
    gap = np.broadcast_to(ground, first[:, :1].shape)
    margin = gap.repeat(1 + first.shape[1] // 8, axis=1)
    row = np.concatenate([margin, first, gap, middle, gap, last, margin], axis=1)
    three = [np.concatenate([array] * 3) for array in (images[None], known, completed[None])]
    picture = pictures.completions(*three, 5, columns=2)
    labels, rows = np.split(picture, [pictures.LABELS_HEIGHT])
    assert (labels != ground).any()
    width = row.shape[1]
    np.testing.assert_array_equal(rows[:3], np.concatenate([row, gap, row], axis=1))
    np.testing.assert_array_equal(rows[4:, :width], row)
    assert (rows[3] == ground).all() and (rows[4:, width:] == ground).all()  # There is no fourth.


def test_completions_are_named_above():
    """In "known" no letter goes below the line, and "completed" is the longest word."""
    images = np.zeros((1, 60, 60, 1), int)
    picture = pictures.completions(images, images == 0, images, 2)
    ink = (picture[: pictures.LABELS_HEIGHT] != np.array(pictures.GROUND)).any(-1)
    image, known, completed = np.array_split(ink, 3, axis=1)
    depth, of_known, same = (np.flatnonzero(x.any(1)).max() for x in (image, known, completed))
    assert of_known < depth == same
    assert image.any(0).sum() < completed.any(0).sum() > known.any(0).sum()


@pytest.mark.parametrize("channels", [1, 3])
def test_pixel_map(plain, channels):
    images = random_images(5, 2, 1, 4, channels)
    nats = np.array([[[0.0, 1.0, 2.0, 3.0]], [[6.0, 4.0, 0.0, 5.0]]])
    picture, black, white = pictures.pixel_map(images, nats, 5)
    assert (picture.shape, black, white) == ((3, 9, 3), 0, 6)
    alone = pictures.grid(images[:1], 5).reshape(1, 4, -1)
    np.testing.assert_array_equal(picture[:1, :4], np.broadcast_to(alone, (1, 4, 3)))
    assert (picture[:, 4] == GREY).all()
    assert picture[0, -4:].tolist() == [[0, 0, 0], [128, 0, 0], [255, 0, 0], [255, 128, 0]]
    white, yellow, _, pale = picture[2, -4:].tolist()  # One scale for all.
    assert (white, yellow, pale) == ([255, 255, 255], [255, 255, 0], [255, 255, 128])
    # Of a density, which may give less than 0 nats.
    shifted, *_ = pictures.pixel_map(jnp.asarray(images), jnp.asarray(nats - 7), 5)
    np.testing.assert_array_equal(shifted, picture)


def test_values_that_are_no_levels_are_drawn_as_levels():
    noisy = jnp.array([-0.5, 0.0, 0.99, 4.2, 5.0])
    for values, levels, drawn, drawn_levels in (
        (noisy, 5, [0, 0, 0, 4, 4], 5),
        (10 * noisy, 0, [0, 23, 69, 218, 255], 256),
        (np.full(3, 7.5), 0, [0, 0, 0], 256),
    ):
        as_drawn, count = pictures.as_levels(values, levels)
        assert (as_drawn.tolist(), count) == (drawn, drawn_levels)


@pytest.mark.parametrize(("levels", "channels"), [(2, 1), (17, 1), (1000, 1), (2, 3), (256, 4)])
def test_files_keep_the_values_and_the_order(tmp_path, levels, channels):
    images = random_images(levels, 12, 3, 4, channels)
    for name in ("new/folder", "new/images.npz", "new/grid.png"):
        pictures.write_images(images, levels, str(tmp_path / name), arrays={"x": np.arange(12)})
    files = read_folder(tmp_path / "new" / "folder")
    assert [*files] == [f"{i:02}.png" for i in range(12)]
    stored = np.stack([*files.values()]).reshape(images.shape)
    np.testing.assert_array_equal(stored, images)
    # Two levels come back as such; they are black and white to look at.
    assert (stored.dtype == bool) == (levels == 2 and channels == 1)
    with np.load(tmp_path / "new" / "images.npz") as file:
        assert file["images"].dtype == images.dtype
        np.testing.assert_equal(dict(file), {"images": images, "x": np.arange(12)})
    with Image.open(tmp_path / "new" / "grid.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), pictures.grid(images, levels))


@pytest.mark.parametrize(("levels", "channels"), [(1000, 3), (2, 5), (70_000, 1), (0, 1)])
def test_a_folder_is_refused_values_that_no_png_holds(levels, channels):
    pictures.check_out("images.npz", levels, channels)
    with pytest.raises(UserError, match="--out=images"):
        pictures.check_out("images", levels, channels)


def test_names_of_files(tmp_path):
    images = random_images(256, 3, 3, 4, 1)
    names = ["a/b.png", "b.jpg", "b.png"]
    pictures.write_images(images, 256, str(tmp_path / "out"), names=names)
    files = read_folder(tmp_path / "out")
    for name, image in zip(["a/b.png", "b.jpg.png", "b.png"], images, strict=True):
        np.testing.assert_array_equal(files[name], image[..., 0])


@pytest.mark.parametrize("name", ["../d", "/tmp/d", "a/../../d.png", "a.png", "a"])
def test_a_folder_is_there_whole_or_not_at_all(tmp_path, name):
    """No name leaves the folder or takes the place of another."""
    images = random_images(2, 2, 3, 4, 1)
    with pytest.raises((UserError, FileExistsError)):
        pictures.write_images(images, 2, str(tmp_path / "out"), names=["a.png", name])
    assert not [*tmp_path.iterdir()]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "0").write_text("precious")
    with pytest.raises(OSError, match="out"):
        pictures.write_images(images, 2, str(tmp_path / "out"))
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "0"]


def test_known_halves():
    masks = {
        half: pictures.known_mask(f"{half}_half", (3, 4, 2))
        for half in ("top", "bottom", "left", "right")
    }
    assert masks["top"][:1].all() and not masks["top"][1:].any()
    assert masks["left"][:, :2].all() and not masks["left"][:, 2:].any()
    np.testing.assert_array_equal(masks["bottom"], ~masks["top"])
    np.testing.assert_array_equal(masks["right"], ~masks["left"])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "I;16"])
def test_known_by_an_image_file(tmp_path, mode):
    expected = np.random.default_rng(0).integers(2, size=(3, 4)).astype(bool)
    file = tmp_path / "mask.png"
    image = Image.fromarray(65535 * expected.astype(np.uint16))
    (image if mode == "I;16" else Image.fromarray(expected).convert(mode)).save(file)
    mask = pictures.known_mask(str(file), (3, 4, 2))
    np.testing.assert_array_equal(mask, np.stack([expected, expected], -1))
    for known, shape in (("upper_half", (3, 4, 1)), (str(file), (4, 3, 1))):
        with pytest.raises(UserError, match=f"--known.*{known}"):
            pictures.known_mask(known, shape)
