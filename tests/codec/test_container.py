"""Compressed files: a sentence for each that cannot be read, and what is saved of a damaged one."""

import struct
import warnings
import zlib

import numpy as np
import pytest
from codec_streams import LANES, block_starts, header_length, small_model

import pixel_rnn_jax as prnn
from pixel_rnn_jax.codec import coder, framing
from pixel_rnn_jax.image_model import LostImages
from pixel_rnn_jax.models.likelihoods import Softmax


def flipped(data, position):
    return data[:position] + bytes([data[position] ^ 16]) + data[position + 1 :]


def test_what_cannot_be_read_is_refused_in_its_own_words(stream, model, monkeypatch):
    _, data = stream
    header = header_length(data)
    starts = block_starts(data)

    def refused(data, message, model=model):
        with pytest.raises(prnn.UserError, match=message):
            model.decompress(data)

    refused(b"", "not a compressed file")
    refused(b"GIF89a" + data, "not a compressed file")
    refused(data[: header - 1], "cut off in its header")
    refused(data[:header], "cut off before block 1 of 3")
    refused(data[: starts[1] + 9], "cut off in block 2 of 3")
    refused(data[:-1], "cut off in block 3 of 3")
    refused(data + b"\n", "goes on after its last block")
    refused(flipped(data, 8), "header of the compressed file is damaged")
    refused(flipped(data, starts[1] + 5), "block 2 of 3 of the compressed file is damaged")
    refused(flipped(data, starts[2] - 1), "block 2 of 3 of the compressed file is damaged")
    refused(data[: starts[0]] + data[starts[1] :], "block 1 of 3 is missing")
    refused(data[: starts[1]] + data[starts[0] :], "has block 1 in place of block 2 of 3")
    newer = data[: len(framing.MAGIC)] + b"\x07" + data[len(framing.MAGIC) + 1 :]
    refused(newer, "version 7 of the format, .* reads versions up to 1")
    levels = small_model(levels=6)
    refused(data, r"shape \(3, 4, 1\) and 5 levels, but .* \(3, 4, 1\) and 6", levels)
    refused(data, "written with another model", small_model(seed=1))
    refused(data, "written with another model", small_model(residual=False))
    with monkeypatch.context() as patch:
        patch.setattr(coder, "_cpu", lambda: ("Other CPU", ""))
        refused(data, 'was written on "cpu .*, jax .*", but this is "cpu Other CPU #')
    # A machine that passes for the same one, but computes otherwise.
    monkeypatch.setattr(Softmax, "inputs", lambda self, x, dtype: x.astype(dtype) / self.levels)
    coder._compiled.cache_clear()
    refused(data, "block 1 of 3 is intact, but this machine does not compute the model")
    coder._compiled.cache_clear()


@pytest.mark.parametrize("lost", [0, 1, 2])
@pytest.mark.parametrize("where", ["header", "code", "length", "gone", "inserted"])
def test_damaged_blocks_are_skipped(stream, model, lost, where):
    images, data = stream
    starts = [*block_starts(data), len(data)]
    start, end = starts[lost], starts[lost + 1]
    damaged = {
        "header": flipped(data, start + 2),
        "code": flipped(data, end - 2),
        "length": data[: start + 8] + b"\xff\xff\xff\xff" + data[start + 12 :],
        "gone": data[: start + 20] + data[end:],
        "inserted": data[: end - 3] + 100 * framing.MARKER[:3] + data[end - 3 :],
    }[where]
    with pytest.raises(prnn.UserError, match=r"--skip_damaged .from Python skip_damaged=True.$"):
        model.decompress(damaged)
    kept = np.delete(images, slice(LANES * lost, LANES * (lost + 1)), axis=0)
    with pytest.warns(LostImages, match=f"{11 - len(kept)} of 11 images are lost"):
        decoded = model.decompress(damaged, skip_damaged=True)
    np.testing.assert_array_equal(decoded, kept)


@pytest.mark.parametrize("skip_damaged", [False, True])
def test_a_forged_header_costs_no_memory(stream, model, skip_damaged):
    _, data = stream
    length = header_length(data) - framing.CHECKSUM.size
    head = bytearray(data[:length])
    struct.pack_into("<Q", head, len(framing.MAGIC) + 1 + 16, 2**63)
    forged = bytes(head) + framing.CHECKSUM.pack(zlib.crc32(head)) + data[length + 4 :]
    # The last block has fewer images than the header makes it have.
    with pytest.raises(prnn.UserError, match="block 3 of .* is intact, but"):
        model.decompress(forged, skip_damaged=skip_damaged)


def altered_at_random(data, random):
    """Flips bits, overwrites, removes, doubles or inserts bytes somewhere, or cuts the end off."""
    start, end = sorted(random.integers(len(data) + 1, size=2))
    match random.integers(6):
        case 0:
            return data[:start]
        case 1:
            return data[:start] + data[end:]
        case 2:
            return data[:end] + data[start:]
        case 3:
            return data[:start] + random.bytes(end - start) + data[end:]
        case 4:
            return data[:start] + random.bytes(9) + data[start:]
    for position in random.integers(len(data), size=random.integers(1, 4)):
        data = flipped(data, position)
    return data


@pytest.mark.parametrize("streams", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_altered_streams_give_an_error_or_the_right_pixels(stream, model, streams):
    images, data = stream
    random = np.random.default_rng(streams)
    right = {image.tobytes() for image in images.astype(np.uint8)}
    errors = 0
    for _ in range(streams):
        altered = altered_at_random(data, random)
        skip = bool(random.integers(2))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", LostImages)
                decoded = model.decompress(altered, skip_damaged=skip)
        except prnn.UserError:
            errors += 1
        else:
            assert {image.tobytes() for image in decoded} <= right
            assert skip or altered == data
    assert errors > streams / 2
