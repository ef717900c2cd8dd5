"""The bytes of a compressed file: a header, blocks that are checked one by one, an end.

docs/format.md specifies them. A checksum is a CRC-32. Blocks and end continue the CRC of the
header, which covers the first block, so that a block of another file fails.
"""

import itertools
import zlib
from typing import NamedTuple

from pixel_rnn_jax.system.errors import UserError

MAGIC = b"\x89PRN\x03"  # The last byte is the version.
BLOCK, END = b"\xb1PB", b"\xb1PE"


class Header(NamedTuple):
    """The format of the images of a file, and the model that decodes it."""

    channels: int
    levels: int
    part: int  # T: a picture of more than T x T pixels is a grid of parts.
    digest: bytes  # The 8 bytes of `model_digest`.
    first_crc: int = 0  # CRC of the sections of the first block; 0 without any.

    def pack(self) -> bytes:
        """Returns the header as bytes, of which the last four are its checksum."""
        numbers = b"".join(map(pack_number, (self.channels, self.levels, self.part)))
        return _sealed(MAGIC + numbers + self.digest + _word(self.first_crc))


class Sections(NamedTuple):
    """The bytes of a block."""

    sizes: bytes = b""
    names: bytes = b""
    condition: bytes = b""
    corrections: bytes = b""
    code: bytes = b""


class Block(NamedTuple):
    """Some images, which are decoded without the other blocks."""

    start: int  # Number of its first image.
    length: int  # Number of its images.
    sections: Sections
    values_crc: int  # CRC of the decoded classes and values.

    def runs(self) -> list[tuple[int, int, int]]:
        """Returns the sizes of the images, as runs (number of images, H, W)."""
        count = sum(byte < 128 for byte in self.sections.sizes)
        numbers = iter(unpack_numbers(self.sections.sizes, 0, count)[0] if count else ())
        runs = list(zip(numbers, numbers, numbers, strict=True))
        if min(map(min, runs), default=1) < 1 or sum(run[0] for run in runs) != self.length:
            raise ValueError("sizes of other images")
        return runs

    def pack(self, header: bytes) -> bytes:
        """Returns the block as bytes, in a file with this header."""
        numbers = (self.start, self.length, *map(len, self.sections))
        body = BLOCK + b"".join(map(pack_number, numbers)) + b"".join(self.sections)
        return _sealed(body + _word(self.values_crc), header)


def pack_end(header: bytes, count: int, checksums: bytes) -> bytes:
    """Returns the end of a file of `count` images; `checksums` are its blocks'."""
    return _sealed(END + pack_number(count) + _word(zlib.crc32(checksums)), header)


def read_blocks(
    data: bytes, *, skip_damaged: bool = False
) -> tuple[Header, list[Block], list[str]]:
    """Returns the header of a file, its blocks, and which images are lost with damaged blocks.

    With `skip_damaged` a damaged block is left out if the lengths of its sections lead to the next
    one. Which images are lost follows from the numbers in the others and in the end.
    """
    if not data.startswith(MAGIC):
        raise UserError(f"this is no file that `compress` wrote, of version {MAGIC[-1]}")
    blocks: list[Block] = []
    checksums, count = list[bytes](), 0
    try:
        header, position = _header(data)
        packed_header = data[:position]
        while data.startswith(BLOCK, position):
            block, stop = _block(data, position)
            if block.start >= count and _is_sealed(data[position:stop], packed_header):
                blocks.append(block)
                checksums.append(data[stop - 4 : stop])
                count = block.start + block.length
            position = stop
        total, checksum = _end(data[position:], packed_header)
    except ValueError as error:
        raise UserError(
            f"the compressed file is damaged or cut off ({error}): images {count + 1:,} to the "
            "last cannot be read"
        ) from error
    starts = [0, *(block.start + block.length for block in blocks)]
    gaps = zip(starts, [*(block.start for block in blocks), total], strict=True)
    lost = [f"images {start + 1:,} to {stop:,}" for start, stop in gaps if start < stop]
    if lost and not skip_damaged:
        raise UserError(
            f"the compressed file is damaged, {'; '.join(lost)}: get an intact copy, or leave out "
            "damaged blocks (--skip_damaged, skip_damaged=True)"
        )
    if not lost and checksum != zlib.crc32(b"".join(checksums)):
        raise UserError("the compressed file has a block of another file")
    return header, blocks, lost


def _header(data: bytes) -> tuple[Header, int]:
    numbers, position = unpack_numbers(data, len(MAGIC), 3)
    digest, stop = data[position : position + 8], position + 16
    if not _is_sealed(data[:stop]):
        raise ValueError("its header is damaged")
    channels, levels, part = numbers
    return Header(channels, levels, part, digest, _value(data, stop - 8)), stop


def _block(data: bytes, position: int) -> tuple[Block, int]:
    """Returns the block at a position, intact or not, and the position after it."""
    (start, count, *lengths), first = unpack_numbers(data, position + len(BLOCK), 7)
    *ends, stop = itertools.accumulate((*lengths, 8), initial=first)
    if stop > len(data) or not count:
        raise ValueError("a block has no images, or no end")
    sections = Sections(*(data[a:b] for a, b in itertools.pairwise(ends)))
    return Block(start, count, sections, _value(data, stop - 8)), stop


def _end(data: bytes, header: bytes) -> tuple[int, int]:
    """Returns the number of images in the end, and the checksum of the checksums of all blocks."""
    (count,), position = unpack_numbers(data, len(END), 1)
    whole = data.startswith(END) and position + 8 == len(data)
    if not whole or not _is_sealed(data, header):
        raise ValueError("no block or end follows")
    return count, _value(data, position)


def pack_number(value: int) -> bytes:
    """Returns a number from 0 on as a varint: seven bits a byte, the lowest first.

    All bytes but the last have bit 7.
    """
    packed = bytearray()
    while value > 127:
        packed.append(value & 127 | 128)
        value >>= 7
    return bytes([*packed, value])


def unpack_numbers(data: bytes, position: int, count: int) -> tuple[list[int], int]:
    """Returns the varints from a position on, and the position after them."""
    numbers, value, shift = list[int](), 0, 0
    for stop, byte in enumerate(data[position : position + 10 * count], position + 1):
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            numbers.append(value)
            value = shift = 0
        if len(numbers) == count:
            return numbers, stop
    raise ValueError("a number has no end")


def _word(value: int) -> bytes:
    return value.to_bytes(4, "little")


def _value(data: bytes, position: int) -> int:
    return int.from_bytes(data[position : position + 4], "little")


def _sealed(body: bytes, header: bytes = bytes(4)) -> bytes:
    """Returns bytes with their checksum, which goes on from that at the end of a header."""
    return body + _word(zlib.crc32(body, _value(header, len(header) - 4)))


def _is_sealed(data: bytes, header: bytes = bytes(4)) -> bool:
    return data == _sealed(data[:-4], header)
