"""A decoder after docs/format.md alone, with whole numbers of Python. It is given the logits."""

import itertools
import json
import math
import zlib
from decimal import Decimal, getcontext

getcontext().prec = 50


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


def varints(data, at, count):
    values = []
    for _ in range(count):
        value, at = varint(data, at)
        values.append(value)
    return values, at


def word(data, at):
    return int.from_bytes(data[at : at + 4], "little")


def weight(d):
    return math.floor(2**24 * (Decimal(-d) / 256).exp() + Decimal("0.5"))


def frequencies(grid):
    """Returns the frequencies of all levels."""
    if len(grid) == 1:
        grid = [0, *grid]
    weights = [weight(min(max(grid) - q, 10_000)) for q in grid]
    free = 2**24 - len(grid)
    shares = [w * free // sum(weights) for w in weights]
    shares[grid.index(max(grid))] += free - sum(shares)
    return [1 + share for share in shares]


class RangeDecoder:
    def __init__(self, code):
        self.words = iter(word(code, at) for at in range(0, len(code), 4))
        self.low, self.range = 0, 2**64 - 1
        self.point = next(self.words, 0) << 32 | next(self.words, 0)

    def value(self, frequencies):
        unit = self.range >> 24
        place, left = ((self.point - self.low) % 2**64) // unit, 0
        for value, frequency in enumerate(frequencies):  # noqa: B007
            if place < left + frequency:
                break
            left += frequency
        self.low = (self.low + unit * left) % 2**64
        self.range = unit * frequency
        if self.range < 2**32:
            self.low, self.range = self.low << 32 & 2**64 - 1, self.range << 32
            self.point = (self.point << 32 | next(self.words, 0)) & 2**64 - 1
        return value


def read(data):
    """Returns the numbers of the header, the digest of the model, and the blocks."""
    assert data[:5] == b"\x89PRN\x03"
    form, at = varints(data, 5, 3)
    digest, at = data[at : at + 8], at + 8
    first, seed, at = word(data, at), word(data, at + 4), at + 8
    assert zlib.crc32(data[: at - 4]) == seed
    blocks, checksums, images = [], b"", 0
    while data[at : at + 3] == b"\xb1PB":
        start = at
        (number, count, *lengths), at = varints(data, at + 3, 7)
        sections = []
        for size in lengths:
            sections.append(data[at : at + size])
            at += size
        pixels, checksum, at = word(data, at), word(data, at + 4), at + 8
        assert zlib.crc32(data[start : at - 4], seed) == checksum
        assert number == images
        if not blocks:
            assert zlib.crc32(b"".join(sections)) == first
        checksums += data[at - 4 : at]
        blocks.append((count, *sections, pixels))
        images += count
    assert data[at : at + 3] == b"\xb1PE"
    start = at
    total, at = varint(data, at + 3)
    assert total == images and word(data, at) == zlib.crc32(checksums)
    assert zlib.crc32(data[start : at + 4], seed) == word(data, at + 4) and len(data) == at + 8
    return form, digest, blocks


def sizes(section):
    numbers, at = [], 0
    while at < len(section):
        number, at = varint(section, at)
        numbers.append(number)
    runs = zip(*(numbers[i::3] for i in range(3)), strict=True)
    return [(height, width) for count, height, width in runs for _ in range(count)]


def lanes(sizes, channels, part, stride, group, values, heavy):
    """Returns the groups of a block's images, each as its images and their lanes.

    Lanes are the shape of parts and their (image, top, left).
    """
    groups = [[]]
    for image, (height, width) in enumerate(sizes):
        area = sum(sizes[i][0] * sizes[i][1] for i in groups[-1]) + height * width
        if groups[-1] and (len(groups[-1]) == group or area * channels > values):
            groups.append([])
        groups[-1].append(image)
    for images in groups:
        by_shape = {}
        for image in images:
            rows, columns = (edges(length // stride, part // stride) for length in sizes[image])
            for top, bottom in itertools.pairwise(rows):
                for left, right in itertools.pairwise(columns):
                    shape = stride * (bottom - top), stride * (right - left)
                    by_shape.setdefault(shape, []).append((image, stride * top, stride * left))
        yield (
            images,
            [
                (shape, parts[i : i + most])
                for shape, parts in by_shape.items()
                for most in [
                    min(group, max(1, 32 * values // (shape[0] * shape[1] * channels * heavy)))
                ]
                for i in range(0, len(parts), most)
            ],
        )


def edges(length, most):
    count = -(-length // most)
    return [i * (length // count) + min(i, length % count) for i in range(count + 1)]


def names(section):
    return json.loads(zlib.decompress(section)) if section else []


def corrections(section):
    bits, number, at = {}, 0, 0
    while at < len(section):
        value, at = varint(section, at)
        number += value >> 2
        bits[number] = value & 3
    return bits
