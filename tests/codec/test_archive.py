"""Compressed files: a sentence for each that cannot be read, and what is saved of a damaged one."""

import io
import struct
import time
import warnings
import zlib

import numpy as np
import pytest
from codec_streams import GROUP, block_starts, header_length, random_images, small_model

import pixel_rnn_jax as prnn
from pixel_rnn_jax.codec import archive, framing, identity, loop
from pixel_rnn_jax.data import Batch
from pixel_rnn_jax.models.likelihoods import Softmax


def flipped(data, position):
    return data[:position] + bytes([data[position] ^ 16]) + data[position + 1 :]


def test_what_cannot_be_read_is_refused_in_its_own_words(stream, model, monkeypatch):
    images, data = stream
    header = header_length(data)
    starts = block_starts(data)

    def refused(data, message, model=model):
        with pytest.raises(prnn.UserError, match=message):
            model.decompress(data)

    refused(b"", "not a compressed file")
    refused(b"GIF89a" + data, "not a compressed file")
    refused(data[: header - 1], "cut off in its header")
    refused(data[:header], "file is cut off: images 1 to the last cannot be read")
    refused(data[: starts[1] + 9], "file is cut off: images 5 to the last")
    refused(data[:-1], "cut off: images 12 to the last")
    refused(data + b"\n", "goes on after its end")
    refused(flipped(data, 8), "header of the compressed file is damaged")
    refused(flipped(data, starts[1] + 3), "a block of the .* is damaged: images 5 to 8 cannot be")
    refused(flipped(data, starts[2] - 1), "a block of the .* is damaged: images 5 to 8 cannot be")
    refused(data[: starts[0]] + data[starts[1] :], "a block of .* is missing: images 1 to 4")
    refused(data[: starts[1]] + data[starts[0] :], "a block of the .* is damaged")
    newer = data[: len(framing.MAGIC)] + b"\x07" + data[len(framing.MAGIC) + 1 :]
    refused(newer, "version 7 of the format, .* reads versions up to 1")
    levels = small_model(levels=6)
    refused(data, r"shape \(3, 4, 1\) and 5 levels, but .* \(3, 4, 1\) and 6", levels)
    refused(data, "written with another model, [0-9a-f]{16}; this one is", small_model(seed=1))
    refused(data, "written with another model", small_model(residual=False))
    fast = model.compress(images, fast=True)
    with monkeypatch.context() as patch:
        patch.setattr(identity, "_cpu", lambda: ("Other CPU", ""))
        refused(fast, 'was written on "cpu .*, jax .*", but this is "cpu Other CPU #')
        np.testing.assert_array_equal(model.decompress(data), images)
    # A machine that computes another function.
    monkeypatch.setattr(Softmax, "inputs", lambda self, x, dtype: x.astype(dtype) / self.levels)
    loop._compiled.cache_clear()
    refused(data, "block of images 1 to 4 is intact, but this machine does not compute the model")
    loop._compiled.cache_clear()


def test_a_block_of_another_file_of_the_same_model_is_refused(stream, model):
    images, data = stream
    other = model.compress(images[::-1])
    starts, others = block_starts(data), block_starts(other)
    spliced = data[: starts[1]] + other[others[1] : others[2]] + data[starts[2] :]
    with pytest.raises(prnn.UserError, match="is damaged: images 5 to 8 cannot be read"):
        model.decompress(spliced)
    # Of one that begins with the same images: its blocks pass one by one.
    other = model.compress(np.concatenate([images[:4], images[::-1][:7]]))
    others = block_starts(other)
    spliced = data[: starts[1]] + other[others[1] : others[2]] + data[starts[2] :]
    with pytest.raises(prnn.UserError, match="is of another file: get an intact copy"):
        model.decompress(spliced)
    with pytest.warns(prnn.LostImages, match="is of another file$"):  # No image is lost.
        assert len(model.decompress(spliced, skip_damaged=True)) == 11


@pytest.mark.parametrize("lost", [0, 1, 2])
@pytest.mark.parametrize("where", ["head", "code", "length", "gone", "inserted"])
def test_damaged_blocks_are_skipped(stream, model, lost, where):
    images, data = stream
    starts = block_starts(data)
    start, end = starts[lost], starts[lost + 1]
    damaged = {
        "head": flipped(data, start + 2),
        "code": flipped(data, end - 2),
        "length": data[: start + 8] + b"\xff\xff\xff\xff" + data[start + 12 :],
        "gone": data[: start + 20] + data[end:],
        "inserted": data[: end - 3] + 100 * framing.BLOCK[:2] + data[end - 3 :],
    }[where]
    with pytest.raises(prnn.UserError, match=r"--skip_damaged .from Python skip_damaged=True.$"):
        model.decompress(damaged)
    rows = slice(GROUP * lost, GROUP * (lost + 1))
    kept = np.delete(images, rows, axis=0)
    which = f"images {rows.start + 1} to {min(rows.stop, 11)} cannot be read"
    with pytest.warns(prnn.LostImages, match=which):
        decoded = model.decompress(damaged, skip_damaged=True)
    np.testing.assert_array_equal(decoded, kept)


def archived(model, names, mode="L"):
    images = random_images(model, len(names)).astype(np.uint8)
    file = io.BytesIO()
    source = archive.Source(len(names), lambda rows: Batch(images[rows], None), tuple(names), mode)
    archive.write(model.pixel_rnn, model.params, source, file)
    return images, file.getvalue()


NAMES = ["a/ä.png", "b.jpg", "c", "d" * 300, "e.png", "f.png"]


def test_names_and_modes_are_kept(model):
    images, data = archived(model, NAMES)
    part, lost = archive.read_all(model.pixel_rnn, model.params, io.BytesIO(data))
    assert part.names == tuple(NAMES) and part.mode == "L" and not lost
    np.testing.assert_array_equal(part.batch.images, images)
    # Of a damaged block they may be whole: verify tells them.
    starts = block_starts(data)
    _, blocks = framing.read(io.BytesIO(flipped(data, starts[1] - 9)))
    damage, whole = blocks
    assert archive.unpack_names(damage) == (tuple(NAMES[:4]), "L")
    assert archive.unpack_names(whole) == (tuple(NAMES[4:]), "L")


def test_only_blocks_with_wanted_names_are_decoded(model, monkeypatch):
    images, data = archived(model, NAMES)
    decoded = []
    decode = archive.decode
    monkeypatch.setattr(archive, "decode", lambda *a: decoded.append(a[3]) or decode(*a))
    (part,) = archive.read(model.pixel_rnn, model.params, io.BytesIO(data), ["f.png"])
    np.testing.assert_array_equal(part.batch.images, images[4:])
    assert decoded == [2]


def test_append_adds_blocks_to_those_that_are_there(stream, model):
    images, data = stream
    source = archive.Source(5, lambda rows: Batch(images[rows], None))
    file = io.BytesIO()
    archive.append(model.pixel_rnn, model.params, io.BytesIO(data), source, file)
    longer, end = file.getvalue(), block_starts(data)[-1]
    assert longer[:end] == data[:end]
    both = np.concatenate([images, images[:5]])
    np.testing.assert_array_equal(model.decompress(longer), both)
    damaged = io.BytesIO(flipped(data, block_starts(data)[0] + 3))
    with pytest.raises(prnn.UserError, match="damaged: images 1 to 4 .*: append to an intact copy"):
        archive.append(model.pixel_rnn, model.params, damaged, source, io.BytesIO())


class Pipe(io.RawIOBase):
    """Gives what was written to it so far, and fails where more is read."""

    def __init__(self):
        self.data = b""

    def read(self, size=-1):
        assert self.data or size == 0, "nothing has come yet"
        given, self.data = self.data[:size], self.data[size:]
        return given


def test_a_stream_is_decoded_while_it_comes(model):
    images = random_images(model, 4 * GROUP)
    data, pipe = model.compress(images), Pipe()
    starts = block_starts(data)
    pipe.data = data[: starts[1]]
    found = model.decompress_stream(pipe)
    first = next(found)
    np.testing.assert_array_equal(first.images, images[:GROUP])
    assert first.names.tolist() == ["0", "1", "2", "3"]
    pipe.data += data[starts[1] : starts[2]]
    second = next(found)
    np.testing.assert_array_equal(second.images, images[GROUP : 2 * GROUP])


def checked(body, seed=0):
    return body + struct.pack("<I", zlib.crc32(body, seed))


@pytest.mark.parametrize("skip_damaged", [False, True])
@pytest.mark.parametrize("number", [0, 1, 2, 3, 5])
def test_forged_numbers_cost_no_memory(stream, model, skip_damaged, number):
    """The first image, the count, or the length of a section of a block, with a right checksum."""
    _, data = stream
    header, (block, *_) = framing.read(io.BytesIO(data))
    numbers = [block.start, block.length, *map(len, block.sections)]
    numbers[number] += 2**62
    body = framing.BLOCK + b"".join(map(framing.varint.pack, numbers)) + b"".join(block.sections)
    seed = struct.unpack("<I", header.pack()[-4:])[0]
    forged = header.pack() + checked(body + struct.pack("<I", block.pixels), seed)
    end = framing.pack_end(header.pack(), 4, b"")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", prnn.LostImages)
        if skip_damaged:
            assert len(model.decompress(forged + end, skip_damaged=True)) <= 4
        else:
            with pytest.raises(prnn.UserError, match=r"damaged|missing|intact"):
                model.decompress(forged + end)


def forged(model, **changes):
    """Returns a file of one block that has been changed and given its right checksums."""
    images, names = random_images(model, GROUP), tuple("abcd")
    classes = np.arange(GROUP) % 3 if model.config.num_classes else None

    def batch(rows):
        return Batch(images[rows], None if classes is None else classes[rows])

    file = io.BytesIO()
    source = archive.Source(GROUP, batch, names)
    archive.write(model.pixel_rnn, model.params, source, file)
    header, (block,) = framing.read(io.BytesIO(file.getvalue()))
    packed = block._replace(**changes).pack(header.pack())
    return header.pack() + packed + framing.pack_end(header.pack(), GROUP, packed[-4:])


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize(
    "changes",
    [
        dict(code=b""),
        dict(code=b"abc"),
        dict(code=b"\xff" * 40),
        dict(corrections=b"\x80"),
        dict(corrections=b"\xff" * 20),
        dict(pixels=0),
    ],
    ids=str,
)
def test_forged_codes_are_refused(classes, changes):
    model = small_model(num_classes=classes)
    with pytest.raises(prnn.UserError, match="is intact, but this machine does not compute"):
        model.decompress(forged(model, **changes))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"names":' + "[" * 100_000,
        r'{"names":["\ud800","b","c","d"],"mode":""}',
        r'{"names":["\u0000","b","c","d"],"mode":""}',
        f'{{"names":["{"a" * 5000}","b","c","d"],"mode":""}}',
        '{"names":["a","b","c"],"mode":""}',
        '{"names":4,"mode":""}',
        "[]",
        '{"names":[' + "0.5," * 2**25 + '"d"],"mode":""}',
    ],
    ids=lambda text: text[:20],
)
def test_forged_names_are_none(model, text):
    data = forged(model, names=zlib.compress(text.encode()))
    part, lost = archive.read_all(model.pixel_rnn, model.params, io.BytesIO(data))
    np.testing.assert_array_equal(part.batch.images, random_images(model, GROUP))
    assert not part.names and not lost


def test_a_block_ends_with_long_names(model, monkeypatch):
    monkeypatch.setattr(archive, "BLOCK_BYTES", 2**16)
    names = [str(i) * 300 for i in range(3 * GROUP)]
    assert len(block_starts(archived(model, names)[1])) == 2  # One block and the end.
    monkeypatch.setattr(archive, "NAMES_LENGTH", 1000)
    assert len(block_starts(archived(model, names)[1])) == 4


def test_a_block_ends_with_large_maps_and_none_is_too_large(monkeypatch):
    config = prnn.ModelConfig("pixel_cnn", layers=1, features=2, condition_map=3)
    model = prnn.create(config, (2, 2, 1), levels=2)
    count = 3 * GROUP
    maps = np.random.default_rng(0).normal(size=(count, 2, 2, 3)).astype(np.float32)
    images = np.zeros((count, 2, 2, 1), np.uint8)
    monkeypatch.setattr(archive, "BLOCK_BYTES", 2**16)
    assert len(block_starts(model.compress(images, maps))) == 2  # One block and the end.
    monkeypatch.setattr(archive, "CONDITION_BYTES", 100)
    data = model.compress(images, maps)
    assert len(block_starts(data)) == 4
    np.testing.assert_array_equal(model.decompress(data, return_condition=True)[1], maps)
    monkeypatch.setattr(archive, "MAX_SECTION", 100)
    with pytest.raises(prnn.UserError, match="the condition of images 1 to .* takes 0 MiB"):
        model.compress(images, maps)


def test_a_header_without_values_or_with_control_characters_is_refused(stream):
    _, data = stream
    header, _ = framing.read(io.BytesIO(data))
    for changes in (dict(image_shape=(0, 4, 1)), dict(levels=0), dict(machine="a\x1b[2Jb")):
        forged = header._replace(**changes).pack() + data[len(header.pack()) :]
        with pytest.raises(prnn.UserError, match="header of the compressed file is damaged"):
            framing.read(io.BytesIO(forged))


@pytest.mark.parametrize("length", [0, 10**6])
def test_many_forged_heads_cost_no_time(stream, length):
    """Each says that it is a long block, of which the checksum would have to be computed."""
    packed = framing.read(io.BytesIO(stream[1]))[0].pack()
    head = framing.BLOCK + b"".join(map(framing.varint.pack, (0, 1, 0, 0, 0, length)))
    start = time.monotonic()
    _, blocks = framing.read(io.BytesIO(packed + head * (2 * 10**6 // len(head))))
    (damage,) = blocks
    assert str(damage).endswith("is damaged: images 1 to the last cannot be read")
    assert time.monotonic() - start < 10  # They took a minute.


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


KINDS = {
    "256 levels": dict(levels=256),
    "2 levels": dict(levels=2),
    "logistic": dict(levels=17, output="discretized_logistic_mixture", mixtures=2),
    "classes": dict(num_classes=3),
    "scales": dict(architecture="pixel_cnn", shape=(4, 4, 1), scales=(2, 4)),
}


@pytest.mark.parametrize("streams", [20, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_altered_streams_give_an_error_or_the_right_pixels(kind, streams, rng):
    model, random = small_model(**KINDS[kind]), np.random.default_rng(rng.randrange(2**32))
    images = random_images(model, 11)
    classes = np.arange(11) % 3 if model.config.num_classes else None
    data = model.compress(images, classes)

    def pairs(images, classes):
        labels = np.zeros(len(images), int) if classes is None else classes
        return {(image.tobytes(), int(own)) for image, own in zip(images, labels, strict=True)}

    right, said = pairs(images.astype(np.uint8), classes), []
    for _ in range(streams):
        altered = altered_at_random(data, random)
        skip = bool(random.integers(2))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", prnn.LostImages)
                found = model.decompress(altered, skip_damaged=skip, return_condition=True)
        except prnn.UserError as error:
            said.append(str(error))
        else:
            assert pairs(*found) <= right
            assert skip or altered == data
    assert len(said) > streams / 4 and not any("\n" in text for text in said)
