"""Files: written whole or not at all, and image files."""

import contextlib
import io
import os
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np
from etils import epath
from PIL import Image

from pixel_rnn_jax.system.errors import UserError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
# By name, since Pillow would hand a PostScript file to Ghostscript, which runs programs.
FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
GREYS_OF_16_BITS = ("I;16", "I;16B")
MODES = ("1", "L", "LA", "RGB", "RGBA", *GREYS_OF_16_BITS)
UNPACKED, RATIO = 2**27, 64
"""A file may unpack to so many bytes, or to this multiple of its own size if that is more."""

BUNDLED = Path(__file__).resolve().parents[1] / "weights"
"""A folder for each model: its file, the identity and the result of its run, its card, and
`slice.npz`: test images, their nats and their condition."""
MODEL_FILE = "model.safetensors"


def bundled_names() -> list[str]:
    """Returns the names of the models that come with the package."""
    return sorted(path.parent.name for path in BUNDLED.glob(f"*/{MODEL_FILE}"))


def cache_folder() -> Path:
    """Returns the project's folder in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pixel-rnn-jax"


def check_storage(path: epath.PathLike) -> None:
    """Checks a path before it is used; for gs:// also prepares gcsfs."""
    text = os.fspath(path)
    if not text.startswith("gs://"):
        if not text or "://" in text or "\0" in text:
            raise UserError(f"{text!r} is no path: files are local, or of a bucket, gs://")
        return
    import fsspec
    import gcsfs  # noqa: F401  # The extra `gcs` has both.

    # gcsfs would remember what it has listed, and not see what another process writes later.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    # Where TensorFlow is installed, epath would use its file system instead.
    os.environ.setdefault("EPATH_USE_TF", "false")


@contextlib.contextmanager
def error_context(path: epath.PathLike) -> Iterator[None]:
    """Names the file whose content raises an error; an error of the system passes as it is."""
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise UserError(f"{path} is a pipe or a device, no file")  # It may never end.
    try:
        yield
    except Exception as error:
        is_own = isinstance(error, UserError)
        if (is_own and str(path) in str(error)) or (isinstance(error, OSError) and error.errno):
            raise
        what = error if is_own else f"damaged, or of another format: {error!r}"
        raise UserError(f"{path}: {what}") from error


def open_lock(path: Path) -> TextIO:
    """Opens a file to lock, which is created if it is not there, and is no link."""
    return open(path, "a+", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o666))


@contextlib.contextmanager
def atomic_write(path: epath.PathLike) -> Iterator[BinaryIO]:
    """Gives a file to write, which takes the name `path` once it is complete and on disk.

    If writing fails, the old file stays. Devices and pipes are written directly.
    """
    target = epath.Path(path)
    if "://" in str(target):  # The objects of a bucket appear whole.
        buffer = io.BytesIO()
        yield buffer
        target.write_bytes(buffer.getvalue())
        return
    if target.exists() and not target.is_file():
        with target.open("wb") as file:
            yield file
        return
    final = Path(target).resolve()  # A link stays one.
    final.parent.mkdir(parents=True, exist_ok=True)
    unfinished = final.with_name(f".{final.name[:40]}.{uuid.uuid4().hex}")
    try:
        with unfinished.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(final)
    finally:
        unfinished.unlink(missing_ok=True)


def check_unpacked(path: epath.PathLike, size: int) -> None:
    """Refuses a decompression bomb: more than `UNPACKED` bytes and `RATIO` times the file."""
    packed = os.path.getsize(path)
    if size > max(UNPACKED, RATIO * packed):
        raise UserError(f"{path} has {packed:,} bytes, which would unpack to {size:,}")


def load_arrays(path: epath.PathLike) -> Any:
    """Opens an .npy file, as an array on disk, or an .npz file."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            check_unpacked(path, sum(member.file_size for member in archive.infolist()))
    return np.load(path, mmap_mode="r")


def image_size(file: Path) -> tuple[int, int]:
    """Returns the (H, W) of an image file."""
    with error_context(file), Image.open(file, formats=FORMATS) as image:
        return image.height, image.width


def read_image(file: Path) -> np.ndarray:
    """Returns the stored pixels of an image file, `[H, W, C]` of uint8, bool or uint16."""
    with error_context(file), Image.open(file, formats=FORMATS) as image:
        if (count := getattr(image, "n_frames", 1)) > 1:
            raise UserError(f"{file} has {count} pictures: write each to a file")
        check_unpacked(file, 4 * image.width * image.height)
        # Pillow reads 8 of 16 bits.
        deep = ";16" in str(image.tile) and image.mode not in GREYS_OF_16_BITS
        if deep or image.mode not in MODES:
            found = "16-bit colours" if deep else f"mode {image.mode!r}"
            raise UserError(f"{file} has {found}: convert it to grey or RGB, or to an .npy file")
        pixels = np.atleast_3d(np.asarray(image))
        return pixels.astype(pixels.dtype.newbyteorder("="))
