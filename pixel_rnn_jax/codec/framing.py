"""The format of a compressed file: a header, then blocks that are checked one by one.

header  magic, version, H, W, C, K, number of images, digest of the model, machine, checksum
block   marker, its number from 0, length of the code, checksum of the code, digest of the pixels,
        checksum of these fields; then the code

Messages count blocks from 1.
"""

import struct
import zlib
from typing import NamedTuple

from pixel_rnn_jax.errors import UserError

MAGIC, VERSION = b"\x89PRNN", 1
MARKER = b"\xb1PRB"
FORMAT = struct.Struct("<4IQ8sB")  # H, W, C, K, count, model, length of the machine's name.
BLOCK = struct.Struct("<4sIII8s")  # Marker, number, length of the code, its checksum, pixels.
CHECKSUM = struct.Struct("<I")


class Header(NamedTuple):
    """What a file holds, and which model on which machine can decode it."""

    image_shape: tuple[int, int, int]
    levels: int
    images: int
    model: bytes  # A digest.
    machine: str

    def pack(self) -> bytes:
        """Returns the header as bytes."""
        machine = self.machine.encode()
        fields = *self.image_shape, self.levels, self.images, self.model, len(machine)
        return _with_checksum(MAGIC + bytes([VERSION]) + FORMAT.pack(*fields) + machine)


def read_header(data: bytes) -> tuple[Header, int]:
    """Returns the header of a file and the position after it, or raises `UserError`."""
    start = len(MAGIC) + 1
    if not data.startswith(MAGIC):
        raise UserError("this is not a compressed file of pixel_rnn_jax")
    if len(data) >= start and data[start - 1] > VERSION:
        raise UserError(
            f"the compressed file has version {data[start - 1]} of the format, but this "
            f"pixel_rnn_jax reads versions up to {VERSION}: update it"
        )
    fixed = start + FORMAT.size
    size = fixed + data[fixed - 1] if len(data) >= fixed else fixed
    head = data[: size + CHECKSUM.size]
    if len(head) < size + CHECKSUM.size:
        raise UserError("the compressed file is cut off in its header: get the whole file")
    if _with_checksum(head[:size]) != head:
        raise UserError("the header of the compressed file is damaged: get an intact copy")
    height, width, channels, levels, count, model, _ = FORMAT.unpack_from(head, start)
    machine = head[fixed:size].decode(errors="replace")
    return Header((height, width, channels), levels, count, model, machine), len(head)


class Block(NamedTuple):
    """The code of some images."""

    number: int
    code: bytes
    pixels: bytes  # A digest.

    def pack(self) -> bytes:
        """Returns the block as bytes."""
        fields = MARKER, self.number, len(self.code), zlib.crc32(self.code), self.pixels
        return _with_checksum(BLOCK.pack(*fields)) + self.code


class DamageError(UserError):
    """A block that cannot be read, while others perhaps can."""

    def __init__(self, what: str):
        super().__init__(
            f"{what}: get an intact copy, or leave out damaged blocks with --skip_damaged "
            "(from Python skip_damaged=True)"
        )


def read_block(data: bytes, position: int, expected: int, blocks: int) -> tuple[Block, int]:
    """Returns block number `expected` of `blocks`, or a later one, and the position after it.

    Raises:
        DamageError: It is damaged, or another one.
    """
    place = f"block {expected + 1} of {blocks}"
    start = position + BLOCK.size + CHECKSUM.size
    head = data[position:start]
    if expected == blocks:
        raise DamageError("the compressed file goes on after its last block")
    if len(head) < BLOCK.size + CHECKSUM.size:
        raise DamageError(f"the compressed file is cut off in {place}")
    marker, number, length, checksum, pixels = BLOCK.unpack_from(head)
    if marker != MARKER or _with_checksum(head[: BLOCK.size]) != head:
        raise DamageError(f"{place} of the compressed file is damaged")
    if not expected <= number < blocks:
        raise DamageError(f"the compressed file has block {number + 1} in place of {place}")
    place = f"block {number + 1} of {blocks}"
    code = data[start : start + length]
    if len(code) < length:
        raise DamageError(f"the compressed file is cut off in {place}")
    if zlib.crc32(code) != checksum or length % 4:
        raise DamageError(f"{place} of the compressed file is damaged")
    return Block(number, code, pixels), start + length


def _with_checksum(head: bytes) -> bytes:
    return head + CHECKSUM.pack(zlib.crc32(head))
