"""Compressed files: images with their names, at about -log2 p(image) bits each.

A file is a sequence of blocks (`format.py`), each with some images, their names and their vectors
or maps. Only the same parameters decode it, and the header names them. Each block has a checksum of
its images: one that decodes to other images is refused.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import math
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from pixel_rnn_jax.codec.coder import decode, encode, groups
from pixel_rnn_jax.codec.format import Block, Header, Sections, pack_end, pack_number, read_blocks
from pixel_rnn_jax.codec.loop import Loop, canonical_config
from pixel_rnn_jax.codec.portable import Encoder
from pixel_rnn_jax.data import Batch, Images
from pixel_rnn_jax.data.dataset import stacked
from pixel_rnn_jax.model.checks import MOST_VALUES, check_images
from pixel_rnn_jax.model.config import ModelConfig
from pixel_rnn_jax.model.likelihoods import value_dtype
from pixel_rnn_jax.model.pixel_rnn import PixelRNN
from pixel_rnn_jax.system import terminal, tuning
from pixel_rnn_jax.system.errors import UserError
from pixel_rnn_jax.system.files import error_context

PyTree = Any

BLOCK_BYTES = 2**16
"""A block ends with the group that brings its code to this size, since what is damaged in a file
takes one block with it."""
MAX_VALUES = 2**22
"""A block has no more values than this, unless it has one image."""
MOST_THREADS = 8
"""At most so many blocks are decoded side by side, since each takes memory for its lanes."""
NAME_BYTES = 2**26
"""The names in a block have no more bytes than this, nor than 1,024 for each image."""


def compress(
    model: PixelRNN,
    params: PyTree,
    images: Iterable[Batch],
    count: int,
    part: int,
    names: Sequence[str] = (),
) -> bytes:
    """Compresses `count` images, and returns the content of the file; raises as `Loop`.

    An image is `[H, W, C]`, with its condition. `part` is T of `model.parts`.
    """
    loop = Loop(model, params)
    blocks = [*_blocks(loop, terminal.progress(images, count, "compressing", "image"), part, names)]
    first = zlib.crc32(b"".join(blocks[0].sections)) if blocks else 0
    channels, digest = model.image_shape[-1], model_digest(model, loop.params)
    header = Header(channels, model.levels, part, digest, first).pack()
    packed = [block.pack(header) for block in blocks]
    end = pack_end(header, count, b"".join(block[-4:] for block in packed))
    return b"".join((header, *packed, end))


def decompress(
    model: PixelRNN, params: PyTree, data: bytes, *, skip_damaged: bool = False
) -> tuple[Images, list[str]]:
    """Decompresses a file with the model that has compressed it.

    Returns the images, `[N, H, W, C]` or N arrays `[H, W, C]` of several sizes, of the smallest of
    uint8, uint16 and int32 that holds K - 1, with their conditions, `[N, ...]` or N arrays, and
    names; and with `skip_damaged` which images are left out, in words.
    """
    header, blocks, lost = read_blocks(data, skip_damaged=skip_damaged)
    loop = Loop(model, params)
    digest, channels = model_digest(model, loop.params), model.image_shape[-1]
    if header != Header(channels, model.levels, header.part, digest, header.first_crc):
        raise UserError(
            f"the file was compressed with model {header.digest.hex()}; this is {digest.hex()}"
        )
    images = [image for block in _all_decoded(loop, blocks, header.part) for image in block]
    names = [name for block in blocks for name in names_of(block) or [""] * block.length]
    arrays, conditions = zip(*images, strict=True) if images else ((), ())
    whole, condition = stacked(arrays, model.image_shape, value_dtype(model.levels)), None
    if model.config.condition.size:
        form, classes = model.config.condition, model.config.condition.classes
        shape = form.shape(model.image_shape)
        condition = stacked(conditions, shape, np.dtype(np.int32 if classes else np.float32))
    return Images(whole, condition, tuple(names) if any(names) else ()), lost


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
    loop: Loop, images: Iterable[Batch], part: int, names: Sequence[str]
) -> Iterator[Block]:
    """Compresses images, a group at a time."""
    start, encoder, block = 0, Encoder(), list[Batch]()
    for group in groups(images):
        values = sum(image.images.size for image in (*block, *group))
        if block and (encoder.size >= BLOCK_BYTES or values > MAX_VALUES):
            yield _packed(loop, start, block, names, encoder)
            start, encoder, block = start + len(block), Encoder(), []
        encode(loop, encoder, group, part)
        block += group
    if block:
        yield _packed(loop, start, block, names, encoder)


def _packed(
    loop: Loop, start: int, images: list[Batch], names: Sequence[str], encoder: Encoder
) -> Block:
    count, condition = len(images), loop.model.config.condition
    text = json.dumps(list(names[start : start + count]), separators=(",", ":"))
    if len(text) > min(NAME_BYTES, 1024 * count):
        raise UserError("the names of images may have 1,024 bytes on average")
    runs = itertools.groupby(image.images.shape[:2] for image in images)
    numbers = [number for size, run in runs for number in (sum(1 for _ in run), *size)]
    stored = b"".join(
        np.asarray(image.condition, "<f4").tobytes()
        for image in images
        if condition.size and not condition.classes
    )
    sections = Sections(
        b"".join(map(pack_number, numbers)),
        zlib.compress(text.encode(), 9) if names else b"",
        zlib.compress(stored, 9) if stored else b"",
        *encoder.finish(),
    )
    return Block(start, count, sections, _checksum(loop, images))


def _all_decoded(loop: Loop, blocks: Sequence[Block], part: int) -> list[list[Batch]]:
    """Returns the images of blocks, of which each core decodes one at a time."""
    with error_context("the compressed file"):
        pixels = sum(math.prod(run) for block in blocks for run in block.runs())
    bar: Any = terminal.progress((), pixels * loop.model.image_shape[-1], "decompressing", "value")
    stopped = threading.Event()

    def advance(values: int) -> None:
        if stopped.is_set():
            raise InterruptedError
        bar.update(values)

    # In threads even if there is one, since only the main thread, waiting, hears Ctrl-C.
    with ThreadPoolExecutor(min(tuning.cores(), MOST_THREADS)) as pool:
        try:
            return list(pool.map(lambda block: _decoded(loop, block, part, advance), blocks))
        except BaseException:
            stopped.set()
            raise
        finally:
            bar.close()


def _decoded(loop: Loop, block: Block, part: int, advance: Callable[[int], object]) -> list[Batch]:
    """Returns the images of a block, if they are those that were compressed."""
    model, channels = loop.model, loop.model.image_shape[-1]
    form, decoded = model.config.condition, None
    with error_context("the compressed file"):
        runs = block.runs()
        values = sum(count * height * width * channels for count, height, width in runs)
        if values > (MAX_VALUES if block.length > 1 else MOST_VALUES):
            raise ValueError("a block has too many values")
        # A correction takes a byte, or fewer bytes than there are logits from the one before.
        logits = max(model.levels, 16 * len(model.discrete_likelihood().digit_sizes))
        if len(block.sections.corrections) > values * logits:
            raise ValueError("there are more corrections than logits")
        sizes = [(height, width) for count, height, width in runs for _ in range(count)]
        shapes = [form.shape((*size, channels)) for size in sizes]
        most = 4 * sum(math.prod(shape) for shape in shapes if shape)
        packed = _unpacked(block.sections.condition, most) if most else b""
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        floats = np.split(np.frombuffer(packed, "<f4"), ends[:-1])
        images = [
            Batch(
                np.zeros((*size, channels), value_dtype(model.levels)),
                row.reshape(shape) if shape else None,
            )
            for size, row, shape in zip(
                sizes, floats if most else [None] * len(sizes), shapes, strict=True
            )
        ]
    with contextlib.suppress(ValueError, AssertionError):  # It may be no code on this machine.
        decoded = decode(loop, block.sections, images, part, advance)
    if decoded is None or _checksum(loop, decoded) != block.values_crc:
        raise UserError(
            f"the block of images {block.start + 1:,} to {block.start + block.length:,} is intact, "
            "but this machine does not compute the model as the one that compressed it did: "
            "decompress it there"
        )
    for image in decoded:
        check_images(
            model,
            image.images[None],
            None if image.condition is None else np.asarray(image.condition)[None],
        )
    return decoded


def _checksum(loop: Loop, images: list[Batch]) -> int:
    """Returns the CRC-32 of the classes, if there are any, and the values of images."""
    classes = [image.condition for image in images] if loop.model.config.condition.classes else []
    crc = zlib.crc32(np.array(classes, "<i4").tobytes())
    for image in images:
        values = np.ascontiguousarray(image.images, value_dtype(loop.model.levels))
        crc = zlib.crc32(values.astype(values.dtype.newbyteorder("<")).tobytes(), crc)
    return crc
