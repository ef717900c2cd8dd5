"""Lossless compression: images to files and back, each as large as its negative log-likelihood.

A file has a header and blocks of at most `coder.LANES` images, each coded on its own (see
`framing.py`). Only the same parameters on the same kind of machine decode it, and the header names
both. Each block has a digest of its pixels as well: one that decodes to other pixels is refused.
"""

import hashlib
import io
import math
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, TypeVar

import jax
import numpy as np

from pixel_rnn_jax import terminal
from pixel_rnn_jax.codec import coder as coder_lib
from pixel_rnn_jax.codec import framing
from pixel_rnn_jax.codec.coder import Coder
from pixel_rnn_jax.codec.framing import Block, DamageError, Header, Source
from pixel_rnn_jax.data import Batch, check_images, check_labels, value_dtype
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.models import PixelRNN

PyTree = Any
T = TypeVar("T")


def compress(model: PixelRNN, params: PyTree, batch: Batch) -> bytes:
    """Compresses images as `ImageModel.compress` describes."""
    file = io.BytesIO()
    write(model, params, [batch], len(batch.images), file)
    return file.getvalue()


def decompress(
    model: PixelRNN, params: PyTree, data: bytes, *, skip_damaged: bool = False
) -> Batch:
    """Returns the images that `compress` was given, with their classes."""
    return joined(model, read(model, params, io.BytesIO(data), skip_damaged=skip_damaged))


def joined(model: PixelRNN, blocks: Iterable[Batch]) -> Batch:
    """Returns blocks of images, perhaps none, as one batch."""
    labels = np.empty(0, np.int32) if model.config.classes else None
    none = Batch(np.empty((0, *model.image_shape), value_dtype(model.levels)), labels)
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), none, *blocks)


def write(
    model: PixelRNN, params: PyTree, batches: Iterable[Batch], count: int, file: BinaryIO
) -> None:
    """Compresses `count` images, which need not all be in memory at once.

    A batch has any number of images `[B, H, W, C]`, integers from 0 to K - 1, and the classes of a
    model with classes.

    Raises:
        UserError: A shape, type or value does not fit the model, or there are not `count` images.
    """
    coder = Coder(model, params)
    file.write(_header(coder, count).pack())
    written = 0
    for number, block in enumerate(_progress(_blocks(model, batches), count, "compressing")):
        file.write(Block(number, coder.encode(block), _pixel_digest(block.images)).pack())
        written += len(block.images)
    if written != count:
        raise UserError(f"there are {written} images to compress, but count is {count}")


def read(
    model: PixelRNN, params: PyTree, file: BinaryIO, *, skip_damaged: bool = False
) -> Iterator[Batch]:
    """Decompresses one block after another, up to the end of the file.

    With `skip_damaged`, damaged blocks are left out, and a warning says how many images are lost.

    Yields:
        Images `[B, H, W, C]`, of the smallest of uint8, uint16 and int32 that holds K - 1, with
        their classes.

    Raises:
        UserError: The file is damaged, cut off, or of another model, machine or format.
    """
    source, coder = Source(file), Coder(model, params)
    header = framing.read_header(source)
    _check_header(header, _header(coder, header.images))
    blocks = _read_blocks(source, coder, header.images, skip_damaged)
    returned = 0
    for block in _progress(blocks, header.images, "decompressing"):
        returned += len(block.images)
        yield block
    if returned != header.images:
        warnings.warn(
            f"{header.images - returned} of {header.images} images are lost: they were in damaged "
            "blocks",
            stacklevel=2,
        )


def _blocks(model: PixelRNN, batches: Iterable[Batch]) -> Iterator[Batch]:
    """Checks the images of all batches, and yields them again in blocks of `LANES`."""
    waiting = joined(model, [])
    for batch in batches:
        images = np.asarray(batch.images)
        check_images(images, model.image_shape, model.levels)
        labels = check_labels(batch.labels, len(images), model.config.classes)
        waiting = joined(model, [waiting, Batch(images.astype(waiting.images.dtype), labels)])
        while len(waiting.images) >= coder_lib.LANES:
            yield jax.tree.map(lambda array: array[: coder_lib.LANES], waiting)
            waiting = jax.tree.map(lambda array: array[coder_lib.LANES :], waiting)
    if len(waiting.images):
        yield waiting


def _header(coder: Coder, count: int) -> Header:
    model = coder.model
    digest, machine = coder_lib.model_digest(model, coder.params), coder_lib.machine(coder.device)
    return Header(model.image_shape, model.levels, count, digest, machine)


def _check_header(header: Header, own: Header) -> None:
    """Checks that the model and the machine of the header `own` can decode such a file."""
    if (header.image_shape, header.levels) != (own.image_shape, own.levels):
        raise UserError(
            f"the compressed file holds images of shape {header.image_shape} and {header.levels} "
            f"levels, but the model is of shape {own.image_shape} and {own.levels} levels: use the "
            "model that compressed them"
        )
    if header.model != own.model:
        raise UserError(
            "the compressed file was written with another model (other parameters or another "
            "architecture): use the one that compressed it"
        )
    if header.machine != own.machine:
        raise UserError(
            f'the compressed file was written on "{header.machine}", but this is "{own.machine}": '
            "decompress it on the same kind of machine with the same versions"
        )


def _read_blocks(source: Source, coder: Coder, count: int, skip_damaged: bool) -> Iterator[Batch]:
    """Yields the images of each intact block."""
    blocks = math.ceil(count / coder_lib.LANES)
    # No value and no class takes more than the 24 bits that the coder has for its probability.
    longest = 3 * coder_lib.LANES * (math.prod(coder.model.image_shape) + 1) + 64
    expected = 0
    while source.peek(1):
        try:
            block = framing.read_block(source, expected, blocks, longest)
        except DamageError:
            if not skip_damaged:
                raise
            source.find(framing.MARKER)
            continue
        if block.number != expected and not skip_damaged:
            raise DamageError(f"block {expected} of {blocks} is missing from the compressed file")
        expected = block.number + 1
        start = block.number * coder_lib.LANES
        yield _decode(coder, block, min(coder_lib.LANES, count - start), blocks)
    if expected < blocks and not skip_damaged:
        raise DamageError(f"the compressed file is cut off before block {expected} of {blocks}")


def _decode(coder: Coder, block: Block, count: int, blocks: int) -> Batch:
    """Returns the images of a block, where they have the pixels that were encoded."""
    try:
        batch = coder.decode(block.code, count)
    except ValueError:
        batch = None
    if batch is None or _pixel_digest(batch.images) != block.pixels:
        raise UserError(
            f"block {block.number} of {blocks} is intact, but this machine does not compute the "
            "model to the last bit as the one that wrote it: decompress it there, with the same "
            "XLA_FLAGS"
        )
    return batch


def _progress(blocks: Iterable[T], count: int, verb: str) -> Iterator[T]:
    return iter(terminal.bar(blocks, math.ceil(count / coder_lib.LANES), verb, "block"))


def _pixel_digest(images: np.ndarray) -> bytes:
    little_endian = images.astype(images.dtype.newbyteorder("<"))
    return hashlib.blake2b(little_endian.tobytes(), digest_size=8).digest()
