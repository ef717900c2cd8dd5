"""What is never read as an image: files of other formats, whatever they are called, and bombs."""

import contextlib
import io
import re
import stat
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

import pixel_rnn_jax as prnn
from pixel_rnn_jax import pictures
from pixel_rnn_jax.image_files import SUFFIXES, open_image

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 4\n%%EndComments\nshowpage\n%%EOF\n"


def png(length=13):
    """A PNG whose header promises 30,000x30,000 pixels, if it is not too short."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)[:length]
    chunks = [(b"IHDR", header), (b"IDAT", b"")]
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    """A program `gs` that leaves a file where it is called."""
    called = tmp_path / "called"
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch '{called}'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return called


@pytest.mark.parametrize(
    "content, reason",
    [
        (POSTSCRIPT, "cannot identify image file"),
        (png(), r"Image size \(900000000 pixels\)"),
        (png(length=9), "Truncated IHDR chunk"),
    ],
)
@pytest.mark.parametrize("reader", ["folder", "file", "mask"])
def test_what_is_refused_by_a_sentence(tmp_path, ghostscript, content, reason, reader):
    file = tmp_path / "images" / "0.png"
    file.parent.mkdir()
    file.write_bytes(content)
    read = {
        "folder": lambda: prnn.read_images(file.parent),
        "file": lambda: prnn.read_images(file),
        "mask": lambda: pictures.known_mask(str(file), (4, 5, 1)),
    }[reader]
    with pytest.raises(prnn.UserError, match=f"cannot be read as an image: {reason}") as found:
        read()
    assert not re.search(r"\n|\. |\.$", str(found.value))
    assert not ghostscript.exists()


def test_stand_in_is_called_where_any_format_is_read(ghostscript):
    """Pillow by itself hands the file over, so that the test above would see it."""
    with Image.open(io.BytesIO(POSTSCRIPT)) as image, contextlib.suppress(OSError):
        image.load()
    assert ghostscript.exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_suffix_has_its_format(tmp_path, suffix):
    mode = "L" if suffix in (".pgm", ".gif") else "RGB"
    Image.new(mode, (5, 4)).save(tmp_path / f"a{suffix}")
    with open_image(tmp_path / f"a{suffix}", "a") as image:
        assert np.asarray(image).shape[:2] == (4, 5)
