"""The format of a compressed file: a header, then blocks that are checked one by one.

header  magic, version, H, W, C, K, number of images, digest of the model, machine, checksum
block   marker, its number from 0, length of the code, checksum of the code, digest of the pixels,
        checksum of these fields; then the code

Messages count blocks from 1.
"""

import struct
import zlib
from typing import BinaryIO, NamedTuple

from pixel_rnn_jax.errors import UserError

MAGIC, VERSION = b"\x89PRNN", 1
MARKER = b"\xb1PRB"
FORMAT = struct.Struct("<4IQ8sB")  # H, W, C, K, count, model, length of the machine's name.
BLOCK = struct.Struct("<4sIII8s")  # Marker, number, length of the code, its checksum, pixels.
CHECKSUM = struct.Struct("<I")
CHUNK = 1 << 16


class ReadAhead:
    """A file whose next bytes can be looked at before they are passed."""

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


def read_header(source: ReadAhead) -> Header:
    """Reads the header, or raises `UserError`."""
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
    if _with_checksum(head[:size]) != head:
        raise UserError("the header of the compressed file is damaged: get an intact copy")
    source.skip(len(head))
    height, width, channels, levels, count, model, _ = FORMAT.unpack_from(head, len(start))
    machine = head[len(start) + FORMAT.size : size].decode(errors="replace")
    return Header((height, width, channels), levels, count, model, machine)


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


def read_block(source: ReadAhead, expected: int, blocks: int, longest: int) -> Block:
    """Reads the next block: number `expected` of `blocks` or a later one, of a limited length.

    The code has at most `longest` bytes. Of a damaged block only the first byte is passed, since
    its length may be wrong.

    Raises:
        DamageError: It is damaged, or another one.
    """
    place = f"block {expected + 1} of {blocks}"
    head = source.peek(BLOCK.size + CHECKSUM.size)
    source.skip(1)
    rest = len(head) - 1
    if expected == blocks:
        raise DamageError("the compressed file goes on after its last block")
    if len(head) < BLOCK.size + CHECKSUM.size:
        raise DamageError(f"the compressed file is cut off in {place}")
    marker, number, length, checksum, pixels = BLOCK.unpack_from(head)
    if marker != MARKER or _with_checksum(head[: BLOCK.size]) != head or length > longest:
        raise DamageError(f"{place} of the compressed file is damaged")
    if not expected <= number < blocks:
        raise DamageError(f"the compressed file has block {number + 1} in place of {place}")
    place = f"block {number + 1} of {blocks}"
    code = source.peek(rest + length)[rest:]
    if len(code) < length:
        raise DamageError(f"the compressed file is cut off in {place}")
    if zlib.crc32(code) != checksum or length % 4:
        raise DamageError(f"{place} of the compressed file is damaged")
    source.skip(rest + length)
    return Block(number, code, pixels)


def _with_checksum(head: bytes) -> bytes:
    return head + CHECKSUM.pack(zlib.crc32(head))
