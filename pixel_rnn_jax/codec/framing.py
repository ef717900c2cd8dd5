"""The bytes of a compressed file: a header, blocks that are checked one by one, an end.

docs/format.md specifies them. A checksum is a CRC-32; those of blocks and of the end go on from
that of the header, which has a checksum of the first block. So a block of another file does not
pass.
"""

import itertools
import math
import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from pixel_rnn_jax.codec import varint
from pixel_rnn_jax.errors import UserError

MAGIC, VERSION = b"\x89PRN", 1
BLOCK, END = b"\xb1PB", b"\xb1PE"
MAX_VALUES = 2**22
"""A block has no more values than this, unless it has one image."""
MAX_SECTION = 2**28
"""Bytes of a section of a block, so that a forged length costs no memory."""
_CHUNK, _LONGEST_NAME = 2**16, 2**10
_MARKERS = re.compile(re.escape(BLOCK) + b"|" + re.escape(END))
_IN_VAIN = 2**28, 16
"""The search behind damage ends where this many bytes, and so many times those that it has passed,
were looked at in vain: heads of blocks may be forged to overlap."""


class Header(NamedTuple):
    """What a file holds, and which model decodes it."""

    image_shape: tuple[int, int, int]
    levels: int
    model: bytes  # Its digest, 8 bytes.
    machine: str  # Of the fast form; "" of the portable one.
    first: int = 0  # Checksum of the sections of the first block; 0 without any.

    def pack(self) -> bytes:
        """Returns the header as bytes, of which the last four are its checksum."""
        machine = self.machine.encode()
        numbers = (*self.image_shape, self.levels, len(machine))
        body = MAGIC + bytes([VERSION]) + b"".join(map(varint.pack, numbers))
        return _checked(body + machine + self.model + _word(self.first))


class Block(NamedTuple):
    """Some images, which are decoded without the other blocks."""

    start: int  # Number of its first image.
    length: int  # Number of its images.
    names: bytes  # Four sections: see docs/format.md.
    condition: bytes
    corrections: bytes
    code: bytes
    pixels: int  # Checksum of what it decodes to.

    @property
    def sections(self) -> tuple[bytes, bytes, bytes, bytes]:
        """Returns its sections in their order."""
        return self.names, self.condition, self.corrections, self.code

    def pack(self, header: bytes) -> bytes:
        """Returns the block as bytes, in a file with this header."""
        numbers = (self.start, self.length, *map(len, self.sections))
        body = BLOCK + b"".join(map(varint.pack, numbers)) + b"".join(self.sections)
        return _checked(body + _word(self.pixels), _value(header[-4:]))


class Damage(NamedTuple):
    """Images that cannot be read."""

    what: str  # In words.
    start: int  # The first of them.
    stop: int | None  # After the last of them; None where the file does not tell.
    names: bytes = b""  # The section of their names, if it may be whole.

    def __str__(self) -> str:
        if self.stop == self.start:
            return self.what
        last = "the last" if self.stop is None else f"{self.stop:,}"
        single = self.stop is not None and self.stop == self.start + 1
        which = f"image {self.stop:,}" if single else f"images {self.start + 1:,} to {last}"
        return f"{self.what}: {which} cannot be read"


def pack_end(header: bytes, count: int, blocks: bytes) -> bytes:
    """Returns the end of a file of `count` images; `blocks` are the checksums of its blocks."""
    body = END + varint.pack(count) + _word(zlib.crc32(blocks))
    return _checked(body, _value(header[-4:]))


def read(file: BinaryIO) -> tuple[Header, Iterator[Block | Damage]]:
    """Returns the header of a file, and its blocks as they come.

    Where something is damaged, a `Damage` comes in place of what is lost. The file may be a pipe:
    nothing is read before it is needed.

    Raises:
        UserError: This is no such file, it has a newer format, or its header is damaged.
    """
    window = _Window(file)
    header, packed = _read_header(window)
    return header, _read_blocks(window, header, packed)


class _Window:
    """The bytes of a file from a place on, of which those that were looked at are in memory."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.data = bytearray()
        self.passed = 0  # Bytes before it.

    def need(self, size: int) -> bool:
        """Reads on until `data` has this size; returns whether it does."""
        while len(self.data) < size:
            try:
                more = self._file.read(min(_CHUNK, size - len(self.data)))
            except OSError as error:
                reason = error.strerror or error
                raise UserError(f"the compressed file cannot be read: {reason}") from error
            if not more:
                return False
            self.data += more
        return True

    def drop(self, size: int) -> None:
        """Goes on to a later place."""
        self.passed += size
        del self.data[:size]

    def seek(self) -> bool:
        """Goes on to the next marker, from the next byte on; returns whether there is one."""
        self.drop(min(1, len(self.data)))
        while not (found := _MARKERS.search(self.data)):
            self.drop(max(0, len(self.data) - len(BLOCK) + 1))
            if not self.need(len(BLOCK)):
                return False
            self.need(_CHUNK)
        self.drop(found.start())
        return True

    def intact(self, size: int, seed: int = 0) -> bool:
        """Returns whether the first `size` bytes end with their checksum."""
        with memoryview(self.data) as view:
            return zlib.crc32(view[: size - 4], seed) == _value(bytes(view[size - 4 : size]))


def _read_header(window: _Window) -> tuple[Header, bytes]:
    start = len(MAGIC) + 1
    if not window.need(len(MAGIC)) or not window.data.startswith(MAGIC):
        raise UserError("this is not a compressed file of pixel_rnn_jax")
    window.need(start)
    if len(window.data) >= start and window.data[start - 1] > VERSION:
        raise UserError(
            f"the compressed file has version {window.data[start - 1]} of the format, but this "
            f"pixel_rnn_jax reads versions up to {VERSION}: update it"
        )
    data, cut = window.data, "the compressed file is cut off in its header: get the whole file"
    try:
        numbers, position = _numbers(window, start, 5)
    except EOFError as error:
        raise UserError(cut) from error
    except ValueError:
        numbers, position = [0] * 5, start
    size = position + numbers[-1] + 8 + 4 + 4
    if numbers[-1] <= _LONGEST_NAME and not window.need(size):
        raise UserError(cut)
    packed = bytes(data[:size])
    sound = numbers[-1] <= _LONGEST_NAME and all(numbers[:4])
    if not sound or _checked(packed[:-4]) != packed:
        raise UserError("the header of the compressed file is damaged: get an intact copy")
    machine, rest = packed[position : size - 16].decode(errors="replace"), packed[size - 16 :]
    if not machine.isprintable():  # It is shown on a terminal.
        raise UserError("the header of the compressed file is damaged: get an intact copy")
    height, width, channels, levels, _ = numbers
    window.drop(size)
    header = Header((height, width, channels), levels, rest[:8], machine, _value(rest[8:12]))
    return header, packed


def _read_blocks(window: _Window, header: Header, packed: bytes) -> Iterator[Block | Damage]:
    seed, expected, blocks = _value(packed[-4:]), 0, b""
    damage: Damage | None = None  # Since the last block that could be read.
    lost = False  # Whether anything was.
    in_vain = 0  # Bytes that were looked at.
    while True:
        found, size = _parse(window, header, seed, expected)
        if isinstance(found, Damage):
            damage, lost = damage or found, True
            in_vain += size
            tired = in_vain > _IN_VAIN[0] + _IN_VAIN[1] * window.passed
            if tired or not window.seek():
                yield damage
                return
            continue
        start = found if isinstance(found, int) else found.start
        if damage or start > expected:
            missing = Damage("a block of the compressed file is missing", expected, start)
            yield (damage or missing)._replace(stop=start)
            damage, lost = None, True
        checksum = bytes(window.data[size - 4 : size])
        if isinstance(found, int):
            other = _value(window.data[size - 8 : size - 4]) != zlib.crc32(blocks)
            window.drop(size)
            if other and not lost:
                # All that came could be read; which one it is cannot be told.
                yield Damage("a block of the compressed file is of another file", found, found)
            if window.need(1):
                yield Damage("the compressed file goes on after its end", found, found)
            return
        yield found
        blocks += checksum
        window.drop(size)
        expected = start + found.length


def _parse(
    window: _Window, header: Header, seed: int, expected: int
) -> tuple[Block | int | Damage, int]:
    """Returns the block, or the number of images at the end, that comes next, and its size.

    Of damage it is the size of what was looked at.
    """
    damaged = Damage("a block of the compressed file is damaged", expected, None)
    cut = damaged._replace(what="the compressed file is cut off")
    if not window.need(1):
        return cut, 0
    window.need(3)
    data = window.data
    try:
        if data.startswith(END):
            (count,), position = _numbers(window, len(END), 1)
            size = position + 8
            if not window.need(size):
                return cut, 0
            good = window.intact(size, seed) and count >= expected
            return (count if good else damaged), size
        if not data.startswith(BLOCK):
            return (cut if BLOCK.startswith(data) or END.startswith(data) else damaged), 0
        (start, count, *lengths), position = _numbers(window, len(BLOCK), 6)
    except EOFError:
        return cut, 0
    except ValueError:
        return damaged, 0
    most = max(1, MAX_VALUES // math.prod(header.image_shape))
    if start < expected or not 0 < count <= most or max(lengths) > MAX_SECTION:
        return damaged, 0
    size = position + sum(lengths) + 8
    whole = window.need(size)
    if whole and window.intact(size, seed):
        ends = itertools.accumulate(lengths, initial=position)
        names, given, doubts, code = (bytes(data[a:b]) for a, b in itertools.pairwise(ends))
        pixels = _value(data[size - 8 : size - 4])
        return Block(start, count, names, given, doubts, code, pixels), size
    if start == expected:  # Their names may be whole.
        names = bytes(data[position : position + lengths[0]])
        damaged, cut = damaged._replace(names=names), cut._replace(names=names)
    return (damaged if whole else cut), min(size, len(data))


def _numbers(window: _Window, position: int, count: int) -> tuple[list[int], int]:
    """Returns some numbers from a position on, and the position after them.

    Raises:
        EOFError: The file ends before.
        ValueError: These are no numbers.
    """
    numbers = []
    for _ in range(count):
        end = position + 1
        while window.need(end) and window.data[end - 1] > 127 and end - position < 10:
            end += 1
        if len(window.data) < end:
            raise EOFError
        number, position = varint.unpack(window.data, position)
        numbers.append(number)
    return numbers, position


def _word(value: int) -> bytes:
    return value.to_bytes(4, "little")


def _value(word: bytes | bytearray) -> int:
    return int.from_bytes(word, "little")


def _checked(body: bytes, seed: int = 0) -> bytes:
    """Returns bytes with their checksum."""
    return body + _word(zlib.crc32(body, seed))
