"""Lossless compression: images to files and back, at about -log2 p(image) bits each.

A file has a header and blocks of at most `coder.LANES` images, each coded on its own (see
`framing.py`). Only the same parameters on the same kind of machine decode it, and the header names
both. Each block has a digest of its pixels: one that decodes to other pixels is refused.
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import jax
import numpy as np
from jax.typing import ArrayLike

from pixel_rnn_jax import terminal
from pixel_rnn_jax.codec import coder as coder_lib
from pixel_rnn_jax.codec import framing
from pixel_rnn_jax.codec.coder import Coder
from pixel_rnn_jax.codec.framing import Block, DamageError, Header
from pixel_rnn_jax.data import Batch, value_dtype
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.models.checks import check_condition
from pixel_rnn_jax.pixel_rnn import PixelRNN

PyTree = Any


def write(
    model: PixelRNN,
    params: PyTree,
    batch_of: Callable[[np.ndarray], Batch],
    count: int,
    file: BinaryIO,
) -> None:
    """Compresses `count` images, which need not all be in memory at once.

    `batch_of` returns the images with given indices: `[B, H, W, C]` integers from 0 to K - 1, with
    their condition for a model that has one. Classes are stored, vectors and maps are not.

    Raises:
        UserError: A shape, type or value does not fit the model.
    """
    coder = Coder(model, params)
    file.write(_header(coder, count).pack())
    starts = range(0, count, coder_lib.LANES)
    for number, start in enumerate(terminal.bar(starts, len(starts), "compressing", "block")):
        batch = batch_of(np.arange(start, min(start + coder_lib.LANES, count)))
        batch = Batch(*jax.tree.map(np.asarray, model.checked(*batch)))
        images = batch.images.astype(value_dtype(model.levels))
        code = coder.encode(batch._replace(images=images))
        file.write(Block(number, code, _pixel_digest(images)).pack())


def read(
    model: PixelRNN,
    params: PyTree,
    data: bytes,
    condition: ArrayLike | None = None,
    *,
    skip_damaged: bool = False,
) -> tuple[Batch, str]:
    """Decompresses a file; `condition` are the vectors or maps that `write` was given.

    Returns:
        The images `[N, H, W, C]`, of the smallest of uint8, uint16 and int32 that holds K - 1, with
        their classes; and a sentence about the images of damaged blocks, which `skip_damaged`
        leaves out, or "" if none are lost.

    Raises:
        UserError: The file is damaged, cut off, or of another model, machine or format; or the
            condition does not fit.
    """
    coder = Coder(model, params)
    header, position = framing.read_header(data)
    _check_header(header, _header(coder, header.images))
    given = _given_condition(model, condition, header.images)
    blocks = _read_blocks(data, position, coder, header.images, given, skip_damaged)
    count = math.ceil(header.images / coder_lib.LANES)
    none = np.empty(0, np.int32) if model.config.classes else None
    none = given[:0] if given is not None else none
    images = np.empty((0, *model.image_shape), value_dtype(model.levels))
    found = [Batch(images, none)]
    for block in terminal.bar(blocks, count, "decompressing", "block"):
        found.append(block)  # Not list(bar), which allocates what the header claims.
    batch = jax.tree.map(lambda *arrays: np.concatenate(arrays), *found)
    lost = header.images - len(batch.images)
    if not lost:
        return batch, ""
    return batch, f"{lost} of {header.images} images are lost: they were in damaged blocks"


def _header(coder: Coder, count: int) -> Header:
    model = coder.model
    digest, machine = coder_lib.model_digest(model, coder.params), coder_lib.machine(coder.device)
    return Header(model.image_shape, model.levels, count, digest, machine)


def _given_condition(model: PixelRNN, condition: Any, count: int) -> np.ndarray | None:
    """Checks the vectors or maps of all images, which a file does not hold."""
    if not (model.config.condition_vector or model.config.condition_map):
        if condition is not None:
            raise UserError(
                "a condition is for models of condition_vector or condition_map: leave it out"
            )
        return None
    return np.asarray(check_condition(condition, count, model.config, model.image_shape))


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


def _read_blocks(
    data: bytes,
    position: int,
    coder: Coder,
    count: int,
    given: np.ndarray | None,
    skip_damaged: bool,
) -> Iterator[Batch]:
    """Yields the images of each intact block, from a position on."""
    blocks, expected = math.ceil(count / coder_lib.LANES), 0
    while 0 <= position < len(data):
        try:
            block, position = framing.read_block(data, position, expected, blocks)
        except DamageError:
            if not skip_damaged:
                raise
            position = data.find(framing.MARKER, position + 1)  # Its length may be wrong.
            continue
        if block.number != expected and not skip_damaged:
            missing = f"block {expected + 1} of {blocks}"
            raise DamageError(f"{missing} is missing from the compressed file")
        expected = block.number + 1
        start = block.number * coder_lib.LANES
        end = min(start + coder_lib.LANES, count)
        own = None if given is None else given[start:end]
        yield _decode(coder, block, end - start, own, blocks)
    if expected < blocks and not skip_damaged:
        raise DamageError(f"the compressed file is cut off before block {expected + 1} of {blocks}")


def _decode(coder: Coder, block: Block, count: int, given: np.ndarray | None, blocks: int) -> Batch:
    """Returns the images of a block, where they have the pixels that were encoded."""
    try:
        batch = coder.decode(block.code, count, given)
    except ValueError:
        batch = None
    if batch is None or _pixel_digest(batch.images) != block.pixels:
        other = "" if given is None else "the condition is not that of these images, or "
        raise UserError(
            f"block {block.number + 1} of {blocks} is intact, but {other}this machine does not "
            "compute the model to the last bit as the one that wrote it: decompress it there, with "
            "the same XLA_FLAGS"
        )
    return batch


def _pixel_digest(images: np.ndarray) -> bytes:
    little_endian = images.astype(images.dtype.newbyteorder("<"))
    return hashlib.blake2b(little_endian.tobytes(), digest_size=8).digest()
