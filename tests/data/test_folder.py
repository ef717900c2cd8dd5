"""Folders of image files."""

import struct
import zlib

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
    "mode, file, levels, channels",
    [
        ("1", "a.png", 2, 1),
        ("L", "a.png", 256, 1),
        ("LA", "a.png", 256, 2),
        ("RGB", "a.png", 256, 3),
        ("RGBA", "a.png", 256, 4),
        ("I;16", "a.png", 65536, 1),
        ("I;16B", "a.tif", 65536, 1),
        ("I", "a.pgm", 65536, 1),
    ],
)
def test_modes(tmp_path, opened, read, mode, file, levels, channels):
    values = np.random.default_rng(0).integers(levels, size=(4, 5, channels))
    pixels = values.astype({2: bool, 256: np.uint8, 65536: np.uint16}[levels])
    if mode == "I;16B":
        pixels = pixels.astype(">u2")
    squeezed = pixels[..., 0] if channels == 1 else pixels
    (tmp_path / "train").mkdir()
    if mode == "I":  # As Pillow reads such a file, though it writes another mode.
        header = b"P5 5 4 65535\n"
        (tmp_path / "train" / file).write_bytes(header + pixels.astype(">u2").tobytes())
    else:
        raw = mode if mode.startswith("I") else None
        picture = (
            Image.frombytes(raw, (5, 4), squeezed.tobytes()) if raw else Image.fromarray(squeezed)
        )
        assert picture.mode == mode
        picture.save(tmp_path / "train" / file)
    with Image.open(tmp_path / "train" / file) as stored:
        assert stored.mode == mode
    source = opened(tmp_path, levels=0 if levels <= 256 else levels)
    assert (source.image_shape, source.levels) == ((4, 5, channels), levels)
    np.testing.assert_array_equal(read(source)[0], values)


def _deep_png(path):
    """Writes a PNG file of RGB with 16 bits a value, which Pillow only reads."""

    def chunk(kind, data):
        body = kind + data
        return len(data).to_bytes(4) + body + zlib.crc32(body).to_bytes(4)

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


def _turned(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (5, 4)).save(path, exif=exif)


@pytest.mark.parametrize(
    "file, write, said",
    [
        ("a.png", _deep_png, "colours of 16 bits"),
        ("a.ppm", lambda path: path.write_bytes(b"P6 5 4 999\n" + bytes(120)), "of 16 bits"),
        ("a.tif", _deep_tiff, "colours of 16 bits"),
        ("a.tif", _frames, "several pages or frames"),
        ("a.png", _frames, "several pages or frames"),
        ("a.jpg", _turned, "its EXIF orientation is 6"),
        ("a.webp", _turned, "its EXIF orientation is 6"),
    ],
)
def test_files_of_which_a_part_would_be_read_are_refused(tmp_path, refused, file, write, said):
    write(tmp_path / file)
    with refused(file, said):
        open_images(tmp_path / file)
    with refused(file, said):
        open_images(tmp_path)


def test_files_that_are_whole_though_they_say_more(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 0  # Not known, as some cameras say.
    Image.new("RGB", (5, 4)).save(tmp_path / "upright.jpg", exif=exif)
    exif[0x0112] = 6
    Image.new("RGB", (4, 5)).save(tmp_path / "turned_by_pillow.tif", exif=exif)
    head = b"BM" + struct.pack("<3I", 70 + 48, 0, 70)
    info = struct.pack("<I2i2H6I", 40, 5, 4, 1, 16, 3, 48, 0, 0, 0, 0)
    masks = struct.pack("<4I", 0xF800, 0x7E0, 0x1F, 0)
    (tmp_path / "of_16_bits_a_pixel.bmp").write_bytes(head + info + masks + bytes(48))
    assert open_images(tmp_path / "of_16_bits_a_pixel.bmp").image_shape == (4, 5, 3)
    assert len(open_images(tmp_path / "upright.jpg").keys) == 1
    assert open_images(tmp_path / "turned_by_pillow.tif").image_shape == (4, 5, 3)


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
    source = opened(tmp_path, levels=256)
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
