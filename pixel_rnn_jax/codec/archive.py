"""Compressed files: images with their names, at about -log2 p(image) bits each.

A file is a sequence of blocks (`framing.py`), each with some images, their names and their vectors
or maps. Only the same parameters decode it, and the header names them. Each block has a checksum of
its images: one that decodes to other images is refused.
"""

import json
import math
import zlib
from collections.abc import Callable, Collection, Iterator
from typing import Any, BinaryIO, NamedTuple

import jax
import numpy as np

from pixel_rnn_jax import terminal
from pixel_rnn_jax.codec import framing
from pixel_rnn_jax.codec.coder import Coder, Encoder, decode
from pixel_rnn_jax.codec.framing import MAX_SECTION, MAX_VALUES, Block, Damage, Header
from pixel_rnn_jax.codec.identity import machine, model_digest
from pixel_rnn_jax.data import Batch, value_dtype
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.models.checks import condition_form
from pixel_rnn_jax.pixel_rnn import PixelRNN

PyTree = Any

__all__ = ["Damage", "Part", "Source", "append", "read", "read_all", "unpack_names", "write"]

BLOCK_BYTES = 2**16
"""A block ends with the group that brings its code to this size, so that its head does not count;
what is damaged in a file takes one block with it."""
NAMES_LENGTH = 2**20
"""A block ends with the group that brings its names to this length."""
CONDITION_BYTES = 2**26
"""A block ends with the group that brings its vectors or maps to this size."""
_MAX_NAMES, _LONGEST_NAME = 2**24, 2**12
"""Bytes of the names of a block, and characters of one name, that are read; more are forged."""


class Part(NamedTuple):
    """Some images of a file, perhaps with the names of their files and the mode of their pixels."""

    batch: Batch
    names: tuple[str, ...] = ()
    mode: str = ""  # As Pillow calls it.


class Source(NamedTuple):
    """Images to compress, which need not all be in memory at once.

    Attributes:
        length: Their number.
        batch: Maps indices to images, `[B, H, W, C]` integers from 0 to K - 1, with their condition
            for a model that has one.
        names: Of all images; () for none.
        mode: Of their pixels.
    """

    length: int
    batch: Callable[[np.ndarray], Batch]
    names: tuple[str, ...] = ()
    mode: str = ""


class Writer:
    """Writes a file, to which groups of images are added. Nothing is complete before `close`.

    Attributes:
        size: Bytes that are written.
    """

    def __init__(self, coder: Coder, file: BinaryIO):
        self._coder, self._file, self.size = coder, file, 0
        self._header, self._checksums, self._count = b"", b"", 0
        self._new_block()

    def _new_block(self) -> None:
        self._encoder, self._parts = Encoder(self._coder), list[Part]()

    def add(self, part: Part) -> None:
        """Compresses a group of images; a smaller one ends its block.

        Raises:
            UserError: A shape, type or value does not fit the model, or its condition is too large.
        """
        model = self._coder.model
        batch = Batch(*jax.tree.map(np.asarray, model.checked(*part.batch)))
        batch = batch._replace(images=batch.images.astype(value_dtype(model.levels)))
        self._encoder.add(batch)
        self._parts.append(part._replace(batch=batch))
        size = sum(len(part.batch.images) for part in self._parts)
        group, most = self._coder.group, MAX_VALUES // model.dims
        text = sum(len(name) for part in self._parts for name in part.names)
        conditions = jax.tree.leaves([part.batch.condition for part in self._parts])
        given = sum(array.nbytes for array in conditions)
        full = (
            self._encoder.size >= BLOCK_BYTES
            or size + group > most
            or text >= NAMES_LENGTH
            or given >= CONDITION_BYTES
        )
        if full or len(batch.images) < group:
            self._end_block()

    def add_all(self, source: Source) -> None:
        """Compresses images, a group at a time."""
        starts = range(0, source.length, self._coder.group)
        for start in terminal.bar(starts, len(starts), "compressing", "groups"):
            rows = np.arange(start, min(start + self._coder.group, source.length))
            names = source.names[start : start + len(rows)]
            self.add(Part(source.batch(rows), names, source.mode))

    def _end_block(self) -> None:
        batches = [part.batch for part in self._parts]
        batch = jax.tree.map(lambda *arrays: np.concatenate(arrays), *batches)
        names = [name for part in self._parts for name in part.names]
        given = None if self._coder.class_model else batch.condition
        block = Block(
            self._count,
            len(batch.images),
            _pack_names(names, self._parts[0].mode),
            b"" if given is None else zlib.compress(np.asarray(given, "<f4").tobytes(), 9),
            *self._encoder.finish(),
            pixels=_checksum(batch),
        )
        if len(block.condition) > MAX_SECTION:
            first, last = self._count + 1, self._count + block.length
            raise UserError(
                f"the condition of images {first:,} to {last:,} takes "
                f"{len(block.condition) / 2**20:,.0f} MiB, compressed, and the format has place "
                f"for {MAX_SECTION // 2**20}: use a model whose condition is smaller"
            )
        self.copy(block)
        self._new_block()

    def copy(self, block: Block) -> None:
        """Adds a block that is compressed already."""
        if not self._header:
            first = zlib.crc32(b"".join(block.sections))
            self._header = own_header(self._coder)._replace(first=first).pack()
            self._write(self._header)
        packed = block._replace(start=self._count).pack(self._header)
        self._write(packed)
        self._checksums += packed[-4:]
        self._count += block.length

    def close(self) -> None:
        """Ends the file."""
        if self._parts:
            self._end_block()
        if not self._header:
            self._header = own_header(self._coder).pack()
            self._write(self._header)
        self._write(framing.pack_end(self._header, self._count, self._checksums))

    def _write(self, packed: bytes) -> None:
        self._file.write(packed)  # Which may be a pipe, and then knows no position.
        self.size += len(packed)


def write(
    model: PixelRNN, params: PyTree, source: Source, file: BinaryIO, *, fast: bool = False
) -> int:
    """Compresses images, and returns the size of the file.

    Raises:
        UserError: A shape, type or value does not fit the model, or its condition is too large.
    """
    writer = Writer(Coder(model, params, fast=fast), file)
    writer.add_all(source)
    writer.close()
    return writer.size


def append(model: PixelRNN, params: PyTree, old: BinaryIO, source: Source, file: BinaryIO) -> int:
    """Writes a file that has the blocks of an old one and then more images, in the same form.

    Returns:
        The size of the file.

    Raises:
        UserError: As `write`; or the old file is damaged, or of another model or machine.
    """
    header, blocks = framing.read(old)
    coder = Coder(model, params, fast=bool(header.machine))
    check_header(header, own_header(coder))
    writer = Writer(coder, file)
    for block in blocks:
        if isinstance(block, Damage):
            raise UserError(f"{block}: append to an intact copy")
        writer.copy(block)
    writer.add_all(source)
    writer.close()
    return writer.size


def read(
    model: PixelRNN, params: PyTree, file: BinaryIO, only: Collection[str] | None = None
) -> Iterator[Part | Damage]:
    """Decompresses a file block by block, as it comes; a `Damage` stands for images that are lost.

    `only` are names of the images that are wanted; blocks without them are not decoded.

    Raises:
        UserError: The file is not one, or of another model, machine or format; or a block decodes
            to other images than were compressed.
    """
    header, blocks = framing.read(file)
    coder = Coder(model, params, fast=bool(header.machine))
    check_header(header, own_header(coder))
    for block in blocks:
        if isinstance(block, Damage):
            yield block
            continue
        names, mode = unpack_names(block)
        if only is None or not set(only).isdisjoint(names):
            yield Part(_decode(coder, block), names, mode)


def read_all(
    model: PixelRNN, params: PyTree, file: BinaryIO, *, skip_damaged: bool = False
) -> tuple[Part, str]:
    """Decompresses a file.

    Returns:
        The images `[N, H, W, C]`, of the smallest of uint8, uint16 and int32 that holds K - 1, with
        their condition; and a sentence about the images of damaged blocks, which `skip_damaged`
        leaves out, or "" if none are lost.

    Raises:
        UserError: As `read`; or the file is damaged.
    """
    shape, kind = condition_form(model.config, model.image_shape)
    dtype = np.int32 if model.config.num_classes else np.float32
    images = np.empty((0, *model.image_shape), value_dtype(model.levels))
    batches = [Batch(images, np.empty((0, *shape), dtype) if kind else None)]
    names: list[str] = []
    mode, lost = "", []
    for part in read(model, params, file):
        if isinstance(part, Damage):
            if not skip_damaged:
                raise UserError(
                    f"{part}: get an intact copy, or leave out damaged blocks with --skip_damaged "
                    "(from Python skip_damaged=True)"
                )
            lost.append(str(part))
            continue
        batches.append(part.batch)
        names += part.names or [""] * len(part.batch.images)
        mode = part.mode or mode
    batch = jax.tree.map(lambda *arrays: np.concatenate(arrays), *batches)
    return Part(batch, tuple(names) if any(names) else (), mode), "; ".join(lost)


def own_header(coder: Coder) -> Header:
    """Returns the header of files of a coder."""
    model, name = coder.model, machine(coder.device) if coder.fast else ""
    return Header(model.image_shape, model.levels, model_digest(model, coder.params), name)


def check_header(header: Header, own: Header) -> None:
    """Checks that the model and the machine of the header `own` can decode such a file."""
    if (header.image_shape, header.levels) != (own.image_shape, own.levels):
        raise UserError(
            f"the compressed file holds images of shape {header.image_shape} and {header.levels} "
            f"levels, but the model is of shape {own.image_shape} and {own.levels} levels: use the "
            "model that compressed them"
        )
    if header.model != own.model:
        raise UserError(
            f"the compressed file was written with another model, {header.model.hex()}; this one "
            f"is {own.model.hex()} (other parameters or another architecture): use the one that "
            "compressed it"
        )
    if header.machine != own.machine:
        raise UserError(
            f'the compressed file is of the fast form and was written on "{header.machine}", but '
            f'this is "{own.machine}": use it on the same kind of machine with the same '
            "versions"
        )


def _decode(coder: Coder, block: Block) -> Batch:
    """Returns the images of a block, where they are those that were compressed."""
    try:
        condition = _unpack_condition(coder.model, block)
        batch = decode(coder, block.corrections, block.code, block.length, condition)
    except (ValueError, zlib.error):
        batch = None
    if batch is None or _checksum(batch) != block.pixels:
        first, last = block.start + 1, block.start + block.length
        raise UserError(
            f"the block of images {first:,} to {last:,} is intact, but this machine does not "
            "compute the model as the one that compressed it did: decompress it there"
        )
    return batch


def _unpack_condition(model: PixelRNN, block: Block) -> np.ndarray | None:
    shape, kind = condition_form(model.config, model.image_shape)
    if not kind or model.config.num_classes:
        return None
    size = 4 * block.length * math.prod(shape)
    packed = zlib.decompressobj().decompress(block.condition, size + 1)
    return np.frombuffer(packed, "<f4").astype(np.float32).reshape(block.length, *shape)


def _pack_names(names: list[str], mode: str) -> bytes:
    if not names:
        return b""
    text = json.dumps({"names": names, "mode": mode}, ensure_ascii=False, separators=(",", ":"))
    return zlib.compress(text.encode(errors="surrogateescape"), 9)


def unpack_names(block: Block | Damage) -> tuple[tuple[str, ...], str]:
    """Returns the names of the images of a block, () if it has none, and their mode."""
    try:
        text = zlib.decompressobj().decompress(block.names, _MAX_NAMES)
        found = json.loads(text.decode(errors="surrogateescape"))
        names, mode = tuple(map(str, found["names"])), str(found["mode"])
        # A forged name may be none of any file; UnicodeEncodeError is a ValueError.
        "".join(names).encode(errors="surrogateescape")
        if any("\0" in name or len(name) > _LONGEST_NAME for name in names):
            return (), ""
    except (ValueError, KeyError, TypeError, RecursionError, zlib.error):
        return (), ""
    return (names, mode) if isinstance(block, Damage) or len(names) == block.length else ((), "")


def _checksum(batch: Batch) -> int:
    """Returns the CRC-32 of the classes, if there are any, and the values of images."""
    images, classes = batch
    seed = 0
    if classes is not None and classes.dtype.kind != "f":
        seed = zlib.crc32(classes.astype("<i4").tobytes())
    return zlib.crc32(images.astype(images.dtype.newbyteorder("<")).tobytes(), seed)
