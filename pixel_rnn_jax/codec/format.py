"""The bytes of a compressed file: a header, blocks that are checked one by one, an end.

docs/format.md specifies them. A checksum is a CRC-32; those of blocks and of the end go on from
that of the header, which has a checksum of the first block. So a block of another file does not
pass.
"""

import itertools
import math
import zlib
from typing import NamedTuple

from pixel_rnn_jax.errors import UserError

MAGIC, VERSION = b"\x89PRN", 1
BLOCK, END = b"\xb1PB", b"\xb1PE"
MAX_VALUES = 2**22
"""A block has no more values than this, unless it has one image, so that a forged number of images
costs no memory."""


class Header(NamedTuple):
    """The form of the images of a file, and the model that decodes it."""

    image_shape: tuple[int, int, int]
    levels: int
    model: bytes  # Its digest, 8 bytes.
    first: int = 0  # Checksum of the sections of the first block; 0 without any.

    def pack(self) -> bytes:
        """Returns the header as bytes, of which the last four are its checksum."""
        numbers = b"".join(map(pack_number, (*self.image_shape, self.levels)))
        return _sealed(MAGIC + bytes([VERSION]) + numbers + self.model + _word(self.first))


class Block(NamedTuple):
    """Some images, which are decoded without the other blocks."""

    start: int  # Number of its first image.
    length: int  # Number of its images.
    sections: tuple[bytes, ...]  # Names, condition, corrections, code.
    pixels: int  # Checksum of what it decodes to.

    def pack(self, header: bytes) -> bytes:
        """Returns the block as bytes, in a file with this header."""
        numbers = (self.start, self.length, *map(len, self.sections))
        body = BLOCK + b"".join(map(pack_number, numbers)) + b"".join(self.sections)
        return _sealed(body + _word(self.pixels), header)


def pack_end(header: bytes, count: int, checksums: bytes) -> bytes:
    """Returns the end of a file of `count` images; `checksums` are those of its blocks."""
    return _sealed(END + pack_number(count) + _word(zlib.crc32(checksums)), header)


def read_header(data: bytes) -> tuple[Header, int]:
    """Returns the header of a file, and its size.

    Raises:
        UserError: This is no such file, it has a newer format, or its header is damaged.
    """
    if not data.startswith(MAGIC):
        raise UserError("this is not a compressed file of pixel_rnn_jax")
    start = len(MAGIC) + 1
    if (version := data[len(MAGIC) : start]) > bytes([VERSION]):
        raise UserError(
            f"the compressed file has version {version[0]} of the format, and this pixel_rnn_jax "
            f"reads versions up to {VERSION}: update it"
        )
    try:
        (*shape, levels), position = _numbers(data, start, 4)
    except ValueError:
        shape, levels, position = [0, 0, 0], 0, start
    size = position + 8 + 4 + 4
    if not math.prod((*shape, levels)) or not _intact(data, 0, size):
        raise UserError("the header of the compressed file is damaged or cut off")
    height, width, channels = shape
    digest, first = data[position : position + 8], _value(data, position + 8)
    return Header((height, width, channels), levels, digest, first), size


def read_blocks(
    data: bytes, *, skip_damaged: bool = False
) -> tuple[Header, list[Block], list[str]]:
    """Returns the header of a file, its blocks, and which images are lost with damaged blocks.

    With `skip_damaged` a damaged block is left out if the lengths of its sections lead to the next
    one. Which images are lost follows from the numbers in the others and in the end.

    Raises:
        UserError: As `read_header`; or the file is damaged in any other way.
    """
    header, position = read_header(data)
    packed_header = data[:position]
    most = max(1, MAX_VALUES // math.prod(header.image_shape))
    blocks: list[Block] = []
    gaps: list[tuple[int, int]] = []  # Numbers of lost images: the first one, and after the last.
    checksums, count, damaged = b"", 0, False
    try:
        while data.startswith(BLOCK, position):
            block, stop = _block(data, position)
            sound = block.start >= count and 0 < block.length <= most
            if sound and _intact(data, position, stop, packed_header):
                gaps.append((count, block.start))
                blocks.append(block)
                checksums += data[stop - 4 : stop]
                count = block.start + block.length
            else:
                damaged = True
            position = stop
        total, checksum = _end(data, position, packed_header)
        if total < count:
            raise ValueError("the end has too few images")
    except ValueError as error:
        raise UserError(
            f"the compressed file is damaged or cut off ({error}): images {count + 1:,} to the "
            "last cannot be read"
        ) from error
    gaps.append((count, total))
    lost = [f"images {start + 1:,} to {stop:,}" for start, stop in gaps if start < stop]
    if (damaged or lost) and not skip_damaged:
        raise UserError(
            f"the compressed file is damaged, {'; '.join(lost) or 'beside its images'}: get an "
            "intact copy, or leave out damaged blocks (--skip_damaged, skip_damaged=True)"
        )
    if not damaged and not lost and checksum != zlib.crc32(checksums):
        raise UserError("the compressed file has a block of another file")
    return header, blocks, lost


def _block(data: bytes, position: int) -> tuple[Block, int]:
    """Returns the block at a position, intact or not, and the position after it."""
    (start, count, *lengths), first = _numbers(data, position + len(BLOCK), 6)
    *ends, stop = itertools.accumulate((*lengths, 8), initial=first)
    if stop > len(data):
        raise ValueError("a block has no end")
    sections = tuple(data[a:b] for a, b in itertools.pairwise(ends))
    return Block(start, count, sections, _value(data, stop - 8)), stop


def _end(data: bytes, position: int, header: bytes) -> tuple[int, int]:
    """Returns the number of images in the end, and the checksum of the checksums of all blocks."""
    if not data.startswith(END, position):
        raise ValueError("no block follows")
    (count,), first = _numbers(data, position + len(END), 1)
    if first + 8 != len(data) or not _intact(data, position, len(data), header):
        raise ValueError("its end is damaged")
    return count, _value(data, first)


def pack_number(value: int) -> bytes:
    """Returns a number from 0 on as a varint: seven bits a byte, the lowest first.

    All bytes but the last have bit 7.
    """
    packed = bytearray()
    while value > 127:
        packed.append(value & 127 | 128)
        value >>= 7
    return bytes([*packed, value])


def unpack_number(data: bytes, position: int) -> tuple[int, int]:
    """Returns the varint at a position, and the position after it.

    Raises:
        ValueError: It has no end within ten bytes.
    """
    value = 0
    for index, byte in enumerate(data[position : position + 10]):
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, position + index + 1
    raise ValueError("a number has no end")


def _numbers(data: bytes, position: int, count: int) -> tuple[list[int], int]:
    numbers = []
    for _ in range(count):
        number, position = unpack_number(data, position)
        numbers.append(number)
    return numbers, position


def _word(value: int) -> bytes:
    return value.to_bytes(4, "little")


def _value(data: bytes, position: int) -> int:
    return int.from_bytes(data[position : position + 4], "little")


def _sealed(body: bytes, header: bytes = bytes(4)) -> bytes:
    """Returns bytes with their checksum, which goes on from that at the end of a header."""
    return body + _word(zlib.crc32(body, _value(header, len(header) - 4)))


def _intact(data: bytes, start: int, stop: int, header: bytes = bytes(4)) -> bool:
    """Whether the bytes from `start` to `stop` end with their checksum."""
    return _sealed(data[start : stop - 4], header) == data[start:stop]
