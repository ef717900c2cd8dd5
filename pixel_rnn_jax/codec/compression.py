"""Compressed files: images with their names, at about -log2 p(image) bits each.

A file is a sequence of blocks (`format.py`), each with some images, their names and their vectors
or maps. Only the same parameters decode it, and the header names them. Each block has a checksum of
its images: one that decodes to other images is refused.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from pixel_rnn_jax.codec.coder import Encoder, decode
from pixel_rnn_jax.codec.format import Block, Header, Sections, pack_end, read_blocks
from pixel_rnn_jax.codec.loop import Loop, canonical_config
from pixel_rnn_jax.data import Batch, Images
from pixel_rnn_jax.model.checks import check_images
from pixel_rnn_jax.model.config import ModelConfig
from pixel_rnn_jax.model.likelihoods import value_dtype
from pixel_rnn_jax.model.pixel_rnn import PixelRNN
from pixel_rnn_jax.system import terminal
from pixel_rnn_jax.system.errors import UserError
from pixel_rnn_jax.system.files import error_context

PyTree = Any

BLOCK_BYTES = 2**16
"""A block ends with the group that brings its code to this size, since what is damaged in a file
takes one block with it."""
MAX_VALUES = 2**22
"""A block has no more values than this, unless it has one image."""
NAME_BYTES = 2**26
"""The names in a block have no more bytes than this, nor than 1,024 for each image."""


def compress(
    model: PixelRNN,
    params: PyTree,
    count: int,
    batch: Callable[[np.ndarray], Batch],
    names: Sequence[str] = (),
) -> bytes:
    """Compresses images, and returns the content of the file; raises as `Loop`.

    `batch` gives the rows of some of the `count` images, which need not all be in memory at once.
    """
    loop = Loop(model, params)
    blocks = [*_blocks(loop, count, batch, names)]
    first = zlib.crc32(b"".join(blocks[0].sections)) if blocks else 0
    header = Header(model.image_shape, model.levels, model_digest(model, loop.params), first).pack()
    packed = [block.pack(header) for block in blocks]
    end = pack_end(header, count, b"".join(block[-4:] for block in packed))
    return b"".join((header, *packed, end))


def decompress(
    model: PixelRNN, params: PyTree, data: bytes, *, skip_damaged: bool = False
) -> tuple[Images, list[str]]:
    """Decompresses a file with the model that has compressed it.

    Returns the images `[N, H, W, C]`, of the smallest of uint8, uint16 and int32 that holds K - 1,
    with their condition and names; and with `skip_damaged` which images are left out, in words.
    """
    header, blocks, lost = read_blocks(data, skip_damaged=skip_damaged)
    loop = Loop(model, params)
    digest = model_digest(model, loop.params)
    if header != Header(model.image_shape, model.levels, digest, header.first_crc):
        raise UserError(
            f"the file was compressed with model {header.digest.hex()}; this is {digest.hex()}"
        )
    if any(block.length > max(1, MAX_VALUES // model.num_values) for block in blocks):
        raise UserError("the compressed file has a block of too many images")
    # A correction takes a byte, or fewer bytes than there are logits from the one before.
    logits = model.num_values * max(model.levels, 16 * len(model.discrete_likelihood().digit_sizes))
    if any(len(block.sections.corrections) > block.length * logits for block in blocks):
        raise UserError("the compressed file has more corrections than logits")
    names = [name for block in blocks for name in names_of(block) or [""] * block.length]
    no_images = Block(0, 0, Sections(), values_crc=0)
    batches = [_decoded(loop, block) for block in (no_images, *blocks)]
    images, condition = jax.tree.map(lambda *arrays: np.concatenate(arrays), *batches)
    return Images(images, condition, tuple(names) if any(names) else ()), lost


def names_of(block: Block) -> list[str]:
    """Returns the names of the images of a block, [] if it has none."""
    if not block.sections.names:
        return []
    with error_context("the compressed file"):
        names = json.loads(_unpacked(block.sections.names, min(NAME_BYTES, 1024 * block.length)))
        if [*map(type, names)] != [str] * block.length:
            raise ValueError("names of other images")
        return names


def _unpacked(packed: bytes, most: int) -> bytes:
    """Returns what zlib has packed, `most` bytes or less."""
    content = (stream := zlib.decompressobj()).decompress(packed, most)
    if not stream.eof:
        raise ValueError(f"a section is cut off, or has more than {most:,} bytes")
    return content


def model_digest(model: PixelRNN, params: PyTree) -> bytes:
    """Returns a digest, 8 bytes, of the function that a model computes.

    It is over the architecture, the format of the images and the parameters in float32.
    """
    digest = hashlib.blake2b(digest_size=8)
    # Without the defaults: a field that a later version adds leaves the digest as it was.
    default = dataclasses.asdict(ModelConfig())
    fields = dataclasses.asdict(canonical_config(model.config)).items()
    changed = sorted(item for item in fields if item[1] != default[item[0]])
    units = (model.mean, model.std) if model.std else ()
    digest.update(repr((changed, model.image_shape, model.levels, *units)).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.shape}".encode())
        digest.update(np.asarray(leaf, "<f4").tobytes())
    return digest.digest()


def _blocks(
    loop: Loop, count: int, batch: Callable[[np.ndarray], Batch], names: Sequence[str]
) -> Iterator[Block]:
    """Compresses images, a group at a time."""
    model, most = loop.model, MAX_VALUES // loop.model.num_values
    groups = range(0, count, loop.group)
    start, encoder, batches = 0, Encoder(loop), list[Batch]()
    for first in terminal.progress(groups, len(groups), "compressing", "group"):
        stop = min(first + loop.group, count)
        images, condition = batch(np.arange(first, stop))
        batches.append(Batch(images.astype(value_dtype(model.levels)), condition))
        encoder.add(batches[-1])
        full = encoder.size >= BLOCK_BYTES or stop - start + loop.group > most
        if full or stop == count:
            whole = jax.tree.map(lambda *arrays: np.concatenate(arrays), *batches)
            text = json.dumps(list(names[start:stop]), separators=(",", ":"))
            if len(text) > min(NAME_BYTES, 1024 * (stop - start)):
                raise UserError("the names of images may have 1,024 bytes on average")
            stored = None if model.config.condition.classes else whole.condition
            sections = Sections(
                zlib.compress(text.encode(), 9) if names else b"",
                b"" if stored is None else zlib.compress(stored.astype("<f4").tobytes(), 9),
                *encoder.finish(),
            )
            yield Block(start, stop - start, sections, _checksum(whole))
            start, encoder, batches = stop, Encoder(loop), []


def _decoded(loop: Loop, block: Block) -> Batch:
    """Returns the images of a block, if they are those that were compressed."""
    shape = loop.model.config.condition.shape(loop.model.image_shape)
    condition = None
    if shape:
        with error_context("the compressed file"):
            most = 4 * block.length * math.prod(shape)
            values = _unpacked(block.sections.condition, most) if most else b""
            condition = np.frombuffer(values, "<f4").reshape(block.length, *shape)
    model, batch = loop.model, None
    with contextlib.suppress(ValueError, AssertionError):  # It may be no code on this machine.
        batch = decode(loop, block.sections, block.length, condition)
    if batch is None or _checksum(batch) != block.values_crc:
        raise UserError(
            f"the block of images {block.start + 1:,} to {block.start + block.length:,} is intact, "
            "but this machine does not compute the model as the one that compressed it did: "
            "decompress it there"
        )
    check_images(model, *batch)
    return batch


def _checksum(batch: Batch) -> int:
    """Returns the CRC-32 of the classes, if there are any, and the values of images."""
    images, condition = batch
    coded = condition is not None and condition.dtype.kind != "f"
    classes = condition.astype("<i4").tobytes() if coded else b""
    return zlib.crc32(classes + images.astype(images.dtype.newbyteorder("<")).tobytes())
