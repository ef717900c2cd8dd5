"""Folders, image files, .npy and .npz files: images as they are stored, and refusals."""

import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from pixel_rnn_jax import data
from pixel_rnn_jax.data import dataset, files

LABELS = np.array(["emu", "ape", "emu", "cat", "ape", "emu", "cat", "cat", "ape", "emu"])
NUMBERS = np.array([2, 0, 2, 1, 0, 2, 1, 1, 0, 2])
VECTORS = np.random.default_rng(0).normal(size=(10, 2))
PNGS = [f"{i}.png" for i in range(10)]


@pytest.fixture
def images(pictures):
    return pictures(10, 4, 5, 3)


@pytest.fixture
def sets(tmp_path, images):
    """Every kind of set, with the same ten images."""
    np.save(tmp_path / "a.npy", images)
    arrays = {
        "one": {"x": images, "labels": LABELS, "condition": VECTORS, "names": LABELS},
        "vectors": {"x": images, "condition": VECTORS},
        "numbers": {"x": images, "labels": NUMBERS},
        "named": {"x": images, "labels": NUMBERS, "class_names": ["ape", "cat", "emu"]},
        "parts": {"train": images[:7], "test": images[7:], "train_labels": LABELS[:7]},
    }
    arrays["parts"] |= {"test_labels": LABELS[7:], "labels": LABELS}
    for name, of_file in arrays.items():
        np.savez(tmp_path / f"{name}.npz", **of_file)
    for number, image in enumerate(images):
        of_split = f"parts/{'train' if number < 7 else 'val'}"
        for folder in "flat", f"nested/{number % 2}", of_split:
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(tmp_path / folder / f"{number}.png")
    (tmp_path / "flat" / "notes.txt").write_text("no image")
    return tmp_path


ROWS = list(map(str, range(10)))


@pytest.mark.parametrize(
    "file, split, rows, condition, names",
    [
        ("a.npy", None, range(10), None, ROWS),
        ("a.npy", "train", [0, 1, 2, 3, 4, 6, 7, 8], None, list("01234678")),
        ("a.npy", "train[50%:]", [4, 6, 7, 8], None, ["4", "6", "7", "8"]),
        ("a.npy", "validation", [5], None, ["5"]),
        ("one.npz", "x[8:]", [8, 9], LABELS, ["8", "9"]),
        ("one.npz", "test", [9], LABELS, ["9"]),
        ("vectors.npz", "all[:20%]", [0, 1], VECTORS, ["0", "1"]),
        ("numbers.npz", None, range(10), NUMBERS, ROWS),
        ("named.npz", None, range(10), LABELS, ROWS),
        ("parts.npz", "test[1:]", [8, 9], LABELS, ["1", "2"]),
        ("flat", "validation", [5], None, ["5.png"]),
        ("flat", "all[9:]", [9], None, ["9.png"]),
        ("flat/3.png", None, [3], None, ["3.png"]),
        ("nested", "all[4:6]", [8, 1], None, ["0/8.png", "1/1.png"]),
        ("parts", "val", [7, 8, 9], None, PNGS[7:]),
        ("parts", "train[:1]", [0], None, PNGS[:1]),
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
        ("nowhere", None, ("nowhere",)),
        ("flat/notes.txt", None, ("notes.txt",)),
        ("flat", "some[:5]", ("flat", "some[:5]", "all, test, train, validation")),
        ("flat", "all[10:]", ("flat", "all[10:]")),
        ("flat/3.png", "train", ("3.png", "'train'")),
        ("parts", None, ("parts", "'all'", "train, val")),
        ("parts.npz", "validation", ("parts.npz", "'validation'", "test, train")),
        ("two.npz", "train", ("two.npz", "a, b")),
        ("empty", None, ("empty", ".png")),
        ("sizes", None, ("b.png", "[3, 5, 3]", "a.png", "[4, 5, 3]")),
        ("palette.png", None, ("palette.png", "mode 'P'")),
        ("rows.npz", None, ("`condition`", "rows.npz", "10 images", "[9, 2]")),
        ("few_names.npz", None, ("`class_names`", "few_names.npz")),
        ("same_names.npz", None, ("`class_names`", "same_names.npz")),
        ("no_rows.npy", None, ("no_rows.npy", "[0, 2, 2]")),
        ("complex.npy", None, ("complex.npy", "complex128")),
        ("channels_first.npy", None, ("channels_first.npy", "[5, 3, 8, 8]")),
    ],
)
def test_files_and_splits_that_are_refused(sets, images, refused, file, split, parts):
    np.savez(sets / "two.npz", a=images, b=images)
    np.savez(sets / "rows.npz", x=images, condition=VECTORS[1:])
    np.savez(sets / "few_names.npz", x=images, labels=NUMBERS, class_names=["a", "b"])
    np.savez(sets / "same_names.npz", x=images, labels=NUMBERS, class_names=["a", "b", "a"])
    np.save(sets / "no_rows.npy", np.zeros((0, 2, 2)))
    np.save(sets / "complex.npy", np.zeros((4, 2, 2), complex))
    np.save(sets / "channels_first.npy", np.zeros((5, 3, 8, 8)))
    Image.new("P", (5, 4)).save(sets / "palette.png")
    for folder in "sizes", "empty":
        (sets / folder).mkdir()
    for name, image in ("a.png", images[0]), ("b.png", images[1, 1:]):
        Image.fromarray(image).save(sets / "sizes" / name)
    with refused(*parts):
        data.read_files(sets / file, split)


def test_a_set_that_does_not_exist_names_the_field(opened, refused):
    with refused("data.name", "no/such/folder"):
        opened("no/such/folder")


def test_importing_data_imports_no_large_library():
    large = {"sklearn", "tensorflow_datasets", "tensorflow"}
    program = f"import sys, pixel_rnn_jax.data; assert not {large} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_npy_stays_on_disk(sets):
    for split in None, "train":
        images = files.open_path(sets / "a.npy", "a.npy", split).images
        assert isinstance(images, dataset.LazyArray)


def test_a_folder_of_a_bare_name(sets, monkeypatch, opened, images):
    monkeypatch.chdir(sets)
    split = opened("parts", "validation", data_dir=str(sets / "none"), validation_split="val")
    np.testing.assert_array_equal(split.batch([0, 1, 2]).images, images[7:])


@pytest.mark.parametrize("spare, count", [(0, 10), (-1, 12)])
def test_files_are_decoded_once_unless_they_are_large(sets, monkeypatch, images, spare, count):
    monkeypatch.setattr(dataset, "CACHE_BYTES", images.nbytes + spare)
    decoded, decode = [], files._decode
    monkeypatch.setattr(files, "_decode", lambda file: decoded.append(file) or decode(file))
    stored = files.open_path(sets / "flat", "flat").images
    decoded.clear()  # The first is decoded for its shape.
    # An image that pads a batch is decoded once.
    np.testing.assert_array_equal(stored[np.array([7, 3, 7, 7])], images[[7, 3, 7, 7]])
    np.testing.assert_array_equal(stored[np.arange(10)], images)
    assert len(decoded) == count


@pytest.mark.parametrize(
    "mode, file, dtype, channels",
    [
        ("1", "a.png", bool, 1),
        ("L", "a.png", np.uint8, 1),
        ("LA", "a.png", np.uint8, 2),
        ("RGBA", "a.png", np.uint8, 4),
        ("I;16", "a.png", "<u2", 1),
        ("I;16B", "a.tif", ">u2", 1),
        ("I", "a.pgm", ">u2", 1),
    ],
)
def test_modes(tmp_path, mode, file, dtype, channels):
    highest = 1 if dtype is bool else np.iinfo(dtype).max
    values = np.random.default_rng(0).integers(highest, size=(4, 5, channels), endpoint=True)
    pixels = values.astype(dtype).squeeze()
    if mode == "I":  # As Pillow reads such a file, though it writes another mode.
        (tmp_path / file).write_bytes(b"P5 5 4 65535\n" + pixels.tobytes())
    elif mode.startswith("I"):
        Image.frombytes(mode, (5, 4), pixels.tobytes()).save(tmp_path / file)
    else:
        Image.fromarray(pixels).save(tmp_path / file)
    with Image.open(tmp_path / file) as stored:
        assert stored.mode == mode
    np.testing.assert_array_equal(data.read_files(tmp_path / file).images[0], values)


def _deep_png(path):
    """Writes a PNG file of RGB with 16 bits a value, which Pillow only reads."""

    def chunk(kind, content):
        body = kind + content
        return len(content).to_bytes(4) + body + zlib.crc32(body).to_bytes(4)

    header = (5).to_bytes(4) + (4).to_bytes(4) + bytes([16, 2, 0, 0, 0])
    rows = zlib.compress(b"".join(b"\0" + bytes(5 * 6) for _ in range(4)))
    parts = chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def _deep_tiff(path):
    """Turns a TIFF file of RGB into one that says that it has 16 bits a value."""
    Image.new("RGB", (5, 4)).save(path)
    content = path.read_bytes()
    assert content.count(struct.pack("<3H", 8, 8, 8)) == 1
    path.write_bytes(content.replace(struct.pack("<3H", 8, 8, 8), struct.pack("<3H", 16, 16, 16)))


def _frames(path):
    pages = [Image.new("L", (5, 4), value) for value in (0, 9)]
    pages[0].save(path, save_all=True, append_images=pages[1:])


def _turned(path, orientation=6, size=(5, 4)):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size).save(path, exif=exif)


@pytest.mark.parametrize(
    "file, write",
    [
        ("deep.png", _deep_png),
        ("deep.tif", _deep_tiff),
        ("deep.ppm", lambda path: path.write_bytes(b"P6 5 4 65535\n" + bytes(120))),
        ("stretched.pgm", lambda path: path.write_bytes(b"P5 5 4 15\n" + bytes(20))),
        ("frames.tif", _frames),
        ("turned.jpg", _turned),
    ],
)
def test_files_that_pillow_would_read_otherwise_are_refused(tmp_path, refused, file, write):
    write(tmp_path / file)
    for path in tmp_path / file, tmp_path:
        with refused(file):
            data.read_files(path)


def test_files_that_are_whole_though_they_say_more(tmp_path):
    _turned(tmp_path / "upright.jpg", orientation=0)  # Not known, as some cameras say.
    _turned(tmp_path / "turned_by_pillow.tif", size=(4, 5))
    (tmp_path / "plain.pgm").write_bytes(b"P2 5 4 255\n" + b"9 " * 20)
    (tmp_path / "bits.pbm.pgm").write_bytes(b"P1 5 4\n" + b"1 " * 20)
    for file in tmp_path.iterdir():
        assert data.read_files(file).images.shape[:3] == (1, 4, 5)


def test_a_damaged_image_is_named(sets, refused):
    file = sets / "flat" / "2.png"
    file.write_bytes(file.read_bytes()[:50])
    with refused(str(file), "truncated"):
        data.read_files(sets / "flat")
