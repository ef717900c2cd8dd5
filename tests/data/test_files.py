"""Folders, image files, .npy and .npz files: images as they are stored, and refusals."""

import gc
import zlib

import numpy as np
import pytest
from PIL import Image

from pixel_rnn_jax import data
from pixel_rnn_jax.data import dataset
from pixel_rnn_jax.data import open as open_
from pixel_rnn_jax.system import files

LABELS = np.array(["emu", "ape", "emu", "cat", "ape", "emu", "cat", "cat", "ape", "emu"])
NUMBERS = np.array([2, 0, 2, 1, 0, 2, 1, 1, 0, 2])
VECTORS = np.random.default_rng(0).normal(size=(10, 2))
PNGS = [f"{i}.png" for i in range(10)]


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (10, 4, 5, 3), np.uint8)


@pytest.fixture(scope="module")
def sets(tmp_path_factory, images):
    """Every kind of set, with the same ten images; and what is refused."""
    path = tmp_path_factory.mktemp("sets")
    np.save(path / "a.npy", images)
    arrays = {
        "one": {"x": images, "labels": LABELS, "condition": VECTORS, "names": LABELS},
        "vectors": {"x": images, "condition": VECTORS},
        "numbers": {"x": images, "labels": NUMBERS},
        "parts": {"train": images[:7], "test": images[7:], "train_labels": LABELS[:7]},
        "two": {"a": images, "b": images},
        "rows": {"x": images, "condition": VECTORS[1:]},
    }
    arrays["parts"] |= {"test_labels": LABELS[7:], "labels": LABELS}
    for name, of_file in arrays.items():
        np.savez(path / f"{name}.npz", **of_file)
    for number, image in enumerate(images):
        of_split = f"parts/{'train' if number < 7 else 'val'}"
        for folder in "flat", f"nested/{number % 2}", of_split:
            (path / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path / folder / f"{number}.png")
    (path / "flat" / "notes.txt").write_text("no image")
    np.save(path / "no_rows.npy", np.zeros((0, 2, 2)))
    np.save(path / "complex.npy", np.zeros((4, 2, 2), complex))
    for folder in "sizes", "empty":
        (path / folder).mkdir()
    for name, image in ("a.png", images[0]), ("b.png", images[1, 1:]):
        Image.fromarray(image).save(path / "sizes" / name)
    (path / "cut.png").write_bytes((path / "flat" / "2.png").read_bytes()[:50])
    return path


@pytest.mark.parametrize(
    "file, split, rows, condition, names",
    [
        ("a.npy", "train", [0, 1, 2, 3, 4, 6, 7, 8], None, list("01234678")),
        ("a.npy", "train[4:]", [4, 6, 7, 8], None, ["4", "6", "7", "8"]),
        ("a.npy", "validation", [5], None, ["5"]),
        ("a.npy", "all[-3:90%]", [7, 8], None, ["7", "8"]),
        ("one.npz", "x[8:]", [8, 9], LABELS, ["8", "9"]),
        ("one.npz", "test", [9], LABELS, ["9"]),
        ("vectors.npz", "all[:2]", [0, 1], VECTORS, ["0", "1"]),
        ("numbers.npz", None, range(10), NUMBERS, list("0123456789")),
        ("parts.npz", "test[1:]", [8, 9], LABELS, ["1", "2"]),
        ("flat", "validation", [5], None, ["5.png"]),
        ("flat/3.png", None, [3], None, ["3.png"]),
        ("nested", "all[4:6]", [8, 1], np.array(list("0101010101")), ["0/8.png", "1/1.png"]),
        ("parts", "val", [7, 8, 9], None, PNGS[7:]),
    ],
)
def test_images_as_they_are_stored(sets, images, file, split, rows, condition, names):
    stored = data.read_files(sets / file, split)
    np.testing.assert_array_equal(stored.images, images[list(rows)])
    expected = None if condition is None else condition[list(rows)]
    np.testing.assert_array_equal(stored.condition, expected)
    assert list(stored.names) == names


@pytest.mark.parametrize(
    "file, split, parts",
    [
        ("flat", "some[:5]", ("flat", "some[:5]", "all, test, train, validation")),
        ("flat", "all[10:]", ("flat", "all[10:]")),
        ("flat", "all[:x]", ("flat", "all[:x]")),
        ("parts", None, ("parts", "'all'", "train, val")),
        ("parts.npz", "validation", ("parts.npz", "'validation'", "test, train")),
        ("two.npz", "train", ("two.npz", "a, b")),
        ("empty", None, ("empty", ".png")),
        ("rows.npz", None, ("`condition`", "rows.npz", "10 images", "[9, 2]")),
        ("no_rows.npy", None, ("no_rows.npy", "[0, 2, 2]")),
        ("complex.npy", None, ("complex.npy", "complex128")),
        ("cut.png", None, ("cut.png", "truncated")),
    ],
)
def test_files_and_splits_that_are_refused(sets, refused, file, split, parts):
    with refused(*parts):
        data.read_files(sets / file, split)


def test_a_folder_of_a_bare_name(sets, monkeypatch, opened, images):
    monkeypatch.chdir(sets)
    split = opened("parts", "validation", data_dir=str(sets / "none"), validation_split="val")
    np.testing.assert_array_equal(split.batch([0, 1, 2]).images, images[7:])


def test_subfolders_are_classes(sets, images, opened):
    """Of a folder, and of each of its splits, also where a split lacks one."""
    names = np.array(list("0101010101"))
    np.testing.assert_array_equal(data.read_files(sets / "nested").condition, np.sort(names))
    for number, (split, name) in enumerate((("train", "b"), ("train", "a"), ("test", "b"))):
        folder = sets / "classes" / split / name
        folder.mkdir(parents=True)
        Image.fromarray(images[number]).save(folder / "0.png")
        (folder.parent / ".git").mkdir(exist_ok=True)
        Image.fromarray(images[number]).save(folder.parent / ".git" / "0.png")
    for split, rows, classes in (("train", [1, 0], [0, 1]), ("test", [2], [1])):
        fields = dict(num_classes=2, train_split="train", test_split="test")
        part = opened(sets / "classes", split, **fields)
        assert part.class_names == ("a", "b")
        batch = part.batch(range(len(part)))
        np.testing.assert_array_equal(batch.images, images[rows])
        assert batch.condition.tolist() == classes
    unused = opened(sets / "classes")
    assert [*unused.remarks()] == ["2 classes, not used: --config.model.num_classes=2"]


@pytest.mark.parametrize("spare, count", [(0, 10), (-1, 11)])
def test_files_are_decoded_once_unless_they_are_large(sets, monkeypatch, images, spare, count):
    monkeypatch.setattr(dataset, "CACHE_BYTES", images.nbytes + spare)
    decoded, read = [], files.read_image
    monkeypatch.setattr(open_, "read_image", lambda file: decoded.append(file) or read(file))
    stored = open_.open_path(sets / "flat", "flat").images
    decoded.clear()  # The first is decoded for its shape.
    np.testing.assert_array_equal(stored[np.array([7, 3, 7, 7])], images[[7, 3, 7, 7]])
    for _ in range(2):
        np.testing.assert_array_equal(stored[np.arange(10)], images)
    assert len(decoded) == count
    on_disk = open_.open_path(sets / "a.npy", "a.npy", "train").images
    assert isinstance(on_disk, dataset.LazyArray) == (spare < 0)


@pytest.mark.parametrize(
    "mode, dtype, channels",
    [("1", bool, 1), ("L", "u1", 1), ("LA", "u1", 2), ("RGBA", "u1", 4), ("I;16", "u2", 1)],
)
def test_modes(tmp_path, mode, dtype, channels):
    highest = 1 if dtype is bool else np.iinfo(dtype).max
    values = np.random.default_rng(0).integers(highest, size=(4, 5, channels), endpoint=True)
    picture = Image.fromarray(values.astype(dtype).squeeze())
    assert picture.mode == mode
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(data.read_files(tmp_path / "a.png").images[0], values)


def test_palettes_colours_of_16_bits_and_several_pictures_are_refused(tmp_path, refused):
    Image.new("P", (5, 4)).save(tmp_path / "palette.png")
    Image.new("RGB", (5, 4)).save(tmp_path / "deep.png")
    content = bytearray((tmp_path / "deep.png").read_bytes())
    content[24] = 16  # Bits of a value, in the header,
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4)  # and its checksum.
    (tmp_path / "deep.png").write_bytes(content)
    wrong = {"palette.png": "mode 'P'", "deep.png": "16-bit colours"}
    for name in "moves.png", "pages.tif":
        wrong[name], other = "2 pictures", Image.new("L", (5, 4), 9)
        Image.new("L", (5, 4)).save(tmp_path / name, save_all=True, append_images=[other])
    for file, what in wrong.items():
        with refused(file, what):
            data.read_files(tmp_path / file)


# NumPy leaves a damaged file open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_damaged_arrays_are_named(tmp_path, images, refused, suffix):
    path = tmp_path / f"cut{suffix}"
    (np.save if suffix == ".npy" else np.savez)(path, images)
    content = path.read_bytes()
    for damaged in (b"", b"text", content[:-100], content[:70]):
        path.write_bytes(damaged)
        with refused(str(path)):
            data.read_files(path)
    gc.collect()


def test_a_reader_of_ones_own(tmp_path, images, monkeypatch, opened, read, refused):
    """Its arrays are split, labelled and cut as an .npz file's; its errors name the file."""
    arrays = dict(train=images, train_labels=LABELS, test=images[:2], test_labels=LABELS[:2])
    monkeypatch.setitem(
        data.READERS, ".raw", lambda path: np.fromfile(path, "u1").reshape(-1, 4, 6)
    )
    monkeypatch.setitem(data.READERS, ".set", lambda path: arrays)
    images.tofile(tmp_path / "x.raw")
    (tmp_path / "y.set").touch()
    assert data.read_files(tmp_path / "x.raw").images.shape == (25, 4, 6, 1)
    assert len(opened(tmp_path / "x.raw", "test", crop=2)) == 12
    monkeypatch.chdir(tmp_path)
    train = opened("y.set", num_classes=3)  # No name of TFDS.
    assert train.batch([0, 1]).condition.tolist() == [2, 0]
    np.testing.assert_array_equal(read("y.set", "test"), images[:2])
    (tmp_path / "x.raw").write_bytes(b"short")
    with refused("x.raw", "reshape"):
        data.read_files(tmp_path / "x.raw")
