"""Archives of image sets in their original forms, read without unpacking them to files."""

import gzip
import io
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from pixel_rnn_jax.system.files import check_unpacked

Item = tuple[int | str, np.ndarray, Any]
"""The key by which TFDS orders an image, the image `[H, W, C]`, and its label or None."""
Reader = Callable[[Sequence[Path], str], Iterator[Item]]
"""Takes the archives of a split and its name."""
LARGEST = 30_730_000
"""Bytes of the largest file in a tar archive of a set: 10,000 records of CIFAR-10."""


def read_text(paths: Sequence[Path], split: str) -> Iterator[Item]:
    """Reads lines of the digits 0 and 1 with spaces between them."""
    values = np.frombuffer(paths[0].read_bytes(), np.uint8)
    values = values[values > ord(" ")] - np.uint8(ord("0"))
    yield from ((row, image, None) for row, image in enumerate(values.reshape(-1, 28, 28, 1)))


def read_idx(paths: Sequence[Path], split: str) -> Iterator[Item]:
    """Reads bytes of images and bytes of labels, after headers of 16 and 8 bytes."""
    images, labels = (np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8) for path in paths)
    rows = range(len(labels) - 8)
    yield from zip(rows, images[16:].reshape(-1, 28, 28, 1), labels[8:], strict=True)


def read_records(paths: Sequence[Path], split: str) -> Iterator[Item]:
    """Reads batches of records in any order: a byte for the label, C * H * W for the image."""
    pattern = {"train": r"data_batch_(\d)\.bin$", "test": r"tes(t)_batch\.bin$"}[split]
    for name, file in _members(paths[0]):
        if match := re.search(pattern, name):
            first = 10_000 * (int(match[1]) - 1) if split == "train" else 0
            records = np.frombuffer(file.read(), np.uint8).reshape(-1, 1 + 3 * 32 * 32)
            for row, record in enumerate(records):
                yield first + row, record[1:].reshape(3, 32, 32).transpose(1, 2, 0), record[0]


def read_pngs(paths: Sequence[Path], split: str) -> Iterator[Item]:
    """Reads files of single images."""
    for name, file in _members(paths[0]):
        if name.endswith(".png"):
            with Image.open(io.BytesIO(file.read()), formats=("PNG",)) as image:
                yield name, np.asarray(image.convert("RGB")), None


def read_npz(paths: Sequence[Path], split: str) -> Iterator[Item]:
    """Reads batches `[N, C * H * W]`, one at a time, whose labels begin with 1."""
    for name, file in (member for path in paths for member in _members(path)):
        if name.endswith(".npz"):
            with np.load(file) as batch:
                images, labels = batch["data"], batch["labels"]
            size = round((images.shape[1] / 3) ** 0.5)
            for row, image in enumerate(images.reshape(-1, 3, size, size)):
                yield f"{name}{row}", image.transpose(1, 2, 0), labels[row] - 1


def _members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            check_unpacked(path, sum(member.file_size for member in archive.infolist()))
            for name in archive.namelist():
                with archive.open(name) as file:
                    yield name, file
        return
    with tarfile.open(path, "r|*") as stream:
        for member in stream:
            if member.size > LARGEST:
                raise ValueError(f"{member.name} has {member.size:,} bytes")
            if member.isfile() and (content := stream.extractfile(member)):
                yield member.name, content
            stream.members.clear()  # type: ignore[attr-defined]  # 1.3 million need 1 GB.
