"""Lossless compression: files of images, each as large as its negative log-likelihood.

A stream is a header and blocks of at most `coder_lib.LANES` images, each coded on its own:

    header  magic, version, H, W, C, K, number of images, digest of the model, machine, checksum
    block   marker, its number, length, checksum of the code, digest of its pixels, checksum of
            these fields; then the code

A stream can be decoded by the same parameters on the same kind of machine; the header says both.
Where that is not enough, the digest of the pixels does not fit, and nothing is returned.
"""

import hashlib
import io
import math
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, TypeVar

import jax
import numpy as np

from pixel_rnn_jax import terminal
from pixel_rnn_jax.codec import coder as coder_lib
from pixel_rnn_jax.codec.coder import Coder
from pixel_rnn_jax.data import Batch, check_images, check_labels, value_dtype
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.models import PixelRNN

PyTree = Any
T = TypeVar("T")

MAGIC, VERSION = b"\x89PRNN", 1
MARKER = b"\xb1PRB"
FORMAT = struct.Struct("<4IQ8sB")  # H, W, C, K, count, model, length of the machine's name.
BLOCK = struct.Struct("<4sIII8s")  # Marker, number, length of the code, its checksum, pixels.
CHECKSUM = struct.Struct("<I")
CHUNK = 1 << 16


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
    """Returns blocks of images, which may be none, as one batch."""
    labels = np.empty(0, np.int32) if model.config.classes else None
    none = Batch(np.empty((0, *model.image_shape), value_dtype(model.levels)), labels)
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), none, *blocks)


def write(
    model: PixelRNN, params: PyTree, batches: Iterable[Batch], count: int, file: BinaryIO
) -> None:
    """Compresses images that need not all be in memory at once.

    Args:
        model: The model.
        params: Its parameters.
        batches: Images `[B, H, W, C]` of integers from 0 to K - 1, each of any B, with the classes
            of a model with classes.
        count: Number of images in all of them.
        file: Is written to from where it stands.

    Raises:
        UserError: A shape, type or value does not fit the model, or there are not `count` images.
    """
    coder = Coder(model, params)
    file.write(_header(coder, count))
    written = 0
    for number, block in enumerate(_progress(_blocks(model, batches), count, "compressing")):
        code = coder.encode(block)
        fields = MARKER, number, len(code), zlib.crc32(code), _pixel_digest(block.images)
        head = BLOCK.pack(*fields)
        file.write(head + CHECKSUM.pack(zlib.crc32(head)) + code)
        written += len(block.images)
    if written != count:
        raise UserError(f"there are {written} images to compress, but count is {count}")


def read(
    model: PixelRNN, params: PyTree, file: BinaryIO, *, skip_damaged: bool = False
) -> Iterator[Batch]:
    """Decompresses one block after another.

    Args:
        model: The model.
        params: Its parameters.
        file: Is read to its end from where it stands.
        skip_damaged: Whether to leave out damaged blocks instead of raising; a warning says how
            many images have been lost.

    Yields:
        Images `[B, H, W, C]`, of the smallest of uint8, uint16 and int32 that holds K - 1, with
        their classes.

    Raises:
        UserError: The stream is damaged, cut off, or of another model, machine or format.
    """
    source = _Source(file)
    coder = Coder(model, params)
    count = _read_header(source, coder)
    blocks = _read_blocks(source, coder, count, skip_damaged)
    returned = 0
    for block in _progress(blocks, count, "decompressing"):
        returned += len(block.images)
        yield block
    if returned != count:
        warnings.warn(
            f"{count - returned} of {count} images are lost: they were in damaged blocks",
            stacklevel=2,
        )


def _blocks(model: PixelRNN, batches: Iterable[Batch]) -> Iterator[Batch]:
    """Checks the images of all batches, and yields them again in blocks of `LANES`."""
    dtype = value_dtype(model.levels)
    waiting: list[Batch] = []
    for batch in batches:
        images, labels = np.asarray(batch.images), batch.labels
        check_images(images, model.image_shape, model.levels)
        labels = check_labels(labels, len(images), model.config.classes)
        images = images.astype(dtype)
        while len(images):
            missing = coder_lib.LANES - sum(len(part.images) for part in waiting)
            waiting.append(Batch(images[:missing], labels if labels is None else labels[:missing]))
            if len(images) >= missing:
                yield joined(model, waiting)
                waiting = []
            images, labels = images[missing:], labels if labels is None else labels[missing:]
    if waiting:
        yield joined(model, waiting)


def _header(coder: Coder, count: int) -> bytes:
    model, machine = coder.model, coder_lib.machine(coder.device).encode()
    digest = coder_lib.model_digest(model, coder.params)
    fields = *model.image_shape, model.levels, count, digest, len(machine)
    head = MAGIC + bytes([VERSION]) + FORMAT.pack(*fields) + machine
    return head + CHECKSUM.pack(zlib.crc32(head))


def _read_header(source: "_Source", coder: Coder) -> int:
    """Returns the number of images.

    Raises:
        UserError: The stream is not one that this model can decode here.
    """
    start = source.peek(len(MAGIC) + 1)
    if start[: len(MAGIC)] != MAGIC:
        raise UserError("this is not a compressed file of pixel_rnn_jax")
    if start[-1] > VERSION and len(start) > len(MAGIC):
        raise UserError(
            f"the compressed file has version {start[-1]} of the format, but this pixel_rnn_jax "
            f"reads versions up to {VERSION}: update it"
        )
    size = len(start) + FORMAT.size
    head = source.peek(size)
    if len(head) == size:
        size += head[-1]
    head = source.peek(size + CHECKSUM.size)
    if len(head) < size + CHECKSUM.size:
        raise UserError("the compressed file is cut off in its header: get the whole file")
    if CHECKSUM.unpack(head[size:])[0] != zlib.crc32(head[:size]):
        raise UserError("the header of the compressed file is damaged: get an intact copy")
    *shape, levels, count, digest, _ = FORMAT.unpack_from(head, len(start))
    machine = head[len(start) + FORMAT.size : size].decode(errors="replace")
    model = coder.model
    if (*shape, levels) != (*model.image_shape, model.levels):
        raise UserError(
            f"the compressed file holds images of shape {tuple(shape)} and {levels} levels, but "
            f"the model is of shape {model.image_shape} and {model.levels} levels: use the model "
            "that compressed them"
        )
    if digest != coder_lib.model_digest(model, coder.params):
        raise UserError(
            "the compressed file was written with another model (other parameters or another "
            "architecture): use the one that compressed it"
        )
    here = coder_lib.machine(coder.device)
    if machine != here:
        raise UserError(
            f'the compressed file was written on "{machine}", but this is "{here}": decompress it '
            "on the same kind of machine with the same versions"
        )
    source.skip(len(head))
    return int(count)


def _read_blocks(
    source: "_Source", coder: Coder, count: int, skip_damaged: bool
) -> Iterator[Batch]:
    """Yields the images of each intact block.

    Raises:
        UserError: A block is damaged or missing, and `skip_damaged` is False.
    """
    blocks = math.ceil(count / coder_lib.LANES)
    expected = 0
    while source.peek(1):
        try:
            number, block = _read_block(source, coder, count, expected)
        except _DamageError:
            if not skip_damaged:
                raise
            source.find(MARKER)
            continue
        if number != expected and not skip_damaged:
            raise _damage(f"block {expected} of {blocks} is missing from the compressed file")
        expected = number + 1
        yield block
    if expected < blocks and not skip_damaged:
        raise _damage(f"the compressed file is cut off before block {expected} of {blocks}")


class _DamageError(UserError):
    """A block that cannot be read, while others perhaps can."""


def _damage(what: str) -> _DamageError:
    return _DamageError(f"{what}: get an intact copy, or skip damaged blocks")


def _read_block(source: "_Source", coder: Coder, count: int, expected: int) -> tuple[int, Batch]:
    """Returns the number and the images of the block that `source` stands at, and passes it.

    Of a damaged block it passes no more than the first byte: its length may not be right.

    Raises:
        _DamageError: The block is damaged, or does not belong here.
        UserError: This machine decodes it to other pixels.
    """
    blocks = math.ceil(count / coder_lib.LANES)
    head = source.peek(BLOCK.size + CHECKSUM.size)
    source.skip(1)
    rest = len(head) - 1
    if expected == blocks:
        raise _damage("the compressed file goes on behind its last block")
    if len(head) < BLOCK.size + CHECKSUM.size:
        raise _damage(f"the compressed file is cut off in block {expected} of {blocks}")
    marker, number, length, checksum, pixels = BLOCK.unpack_from(head)
    (head_checksum,) = CHECKSUM.unpack_from(head, BLOCK.size)
    # No value and no class takes more than the 24 bits that the coder has for its probability.
    most = 3 * coder_lib.LANES * (math.prod(coder.model.image_shape) + 1) + 64
    if marker != MARKER or head_checksum != zlib.crc32(head[: BLOCK.size]) or length > most:
        raise _damage(f"block {expected} of {blocks} of the compressed file is damaged")
    if not expected <= number < blocks:
        raise _damage(f"the compressed file has block {number} where {expected} belongs")
    code = source.peek(rest + length)[rest:]
    if len(code) < length:
        raise _damage(f"the compressed file is cut off in block {number} of {blocks}")
    if zlib.crc32(code) != checksum or length % 4:
        raise _damage(f"block {number} of {blocks} of the compressed file is damaged")
    try:
        block = coder.decode(code, min(coder_lib.LANES, count - number * coder_lib.LANES))
    except ValueError:
        block = None
    if block is None or _pixel_digest(block.images) != pixels:
        raise UserError(
            f"block {number} of {blocks} is intact, but this machine does not compute the model to "
            "the last bit as the one that wrote it: decompress it there, with the same XLA_FLAGS"
        )
    source.skip(rest + length)
    return number, block


class _Source:
    """Reads a file ahead, as far as it is asked to."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._ahead = bytearray()

    def peek(self, size: int) -> bytes:
        """Returns the next `size` bytes, or as many as there are."""
        while len(self._ahead) < size:
            # In chunks: what a damaged file claims to hold is not allocated before it is there.
            chunk = self._file.read(CHUNK)
            if not chunk:
                break
            self._ahead += chunk
        return bytes(self._ahead[:size])

    def skip(self, size: int) -> None:
        """Passes bytes that `peek` has returned."""
        del self._ahead[:size]

    def find(self, word: bytes) -> None:
        """Goes on to the next `word`, or to the end of the file."""
        while self.peek(len(word)) != word and self.peek(1):
            position = self._ahead.find(word)
            # The last bytes may be the beginning of the word.
            passed = len(self._ahead) - len(word) + 1 if position < 0 else position
            self.skip(max(1, passed))


def _progress(blocks: Iterable[T], count: int, verb: str) -> Iterator[T]:
    return iter(terminal.bar(blocks, math.ceil(count / coder_lib.LANES), verb, "block"))


def _pixel_digest(images: np.ndarray) -> bytes:
    little_endian = images.astype(images.dtype.newbyteorder("<"))
    return hashlib.blake2b(little_endian.tobytes(), digest_size=8).digest()
