"""Compressed files: what is refused, and what is saved of a damaged one."""

import io
import struct
import zlib

import numpy as np
import pytest
from codec_streams import GROUP, block_starts, random_images, read, small_model, written

import pixel_rnn_jax as prnn
from pixel_rnn_jax.codec import archive
from pixel_rnn_jax.codec.format import BLOCK, MAGIC, pack_end, pack_number, read_blocks

NAMES = ("a/ä.png", "b.jpg", "c", "d" * 300, *"efghijk")
EITHER_WAY = pytest.mark.parametrize("skip_damaged", [False, True])


@pytest.fixture(scope="module")
def named():
    """A model with classes, eleven images with names in three blocks, and their file."""
    model = small_model(num_classes=3)
    images, classes = random_images(model, 11), np.arange(11) % 3
    data = written(model, images, classes, NAMES)
    assert len(block_starts(data)) == 4
    return model, images, classes, data


def assert_holds(content, named, rows):
    """Asserts that these images come back, with their classes and names."""
    _, images, classes, _ = named
    np.testing.assert_array_equal(content.images, images[rows])
    np.testing.assert_array_equal(content.condition, classes[rows])
    assert content.names == tuple(NAMES[i] for i in rows)


def test_images_come_back_with_condition_and_names(named):
    model, *_, data = named
    content, lost = read(model, data)
    assert_holds(content, named, range(11))
    assert not lost
    info = archive.info(io.BytesIO(data))
    assert (info.image_shape, info.levels, info.images) == ((3, 4, 1), 5, 11)
    assert (info.names, info.blocks, info.size) == (NAMES, 3, len(data))
    assert bytes.fromhex(info.model) == archive.model_digest(model.pixel_rnn, model.params)


def test_a_changed_byte_loses_whole_blocks_or_everything(named):
    model, *_, data = named
    starts, skipped = block_starts(data), set()
    for position in range(len(data)):
        for change in (1, 0x80):
            changed = bytearray(data)
            changed[position] ^= change
            with pytest.raises(prnn.UserError):
                read(model, bytes(changed))
            try:
                content, lost = read(model, bytes(changed), skip_damaged=True)
            except prnn.UserError:
                continue
            block = np.searchsorted(starts, position, side="right") - 1
            assert_holds(content, named, [i for i in range(11) if i // GROUP != block])
            assert lost == [f"images {GROUP * block + 1} to {min(GROUP * (block + 1), 11)}"]
            skipped.add(position)
    heads = sum(len(BLOCK) + 8 for _ in starts)
    assert len(skipped) > starts[-1] - starts[0] - heads  # All but the lengths in the heads.


@EITHER_WAY
def test_a_cut_or_longer_file_is_refused(named, skip_damaged):
    model, *_, data = named
    for altered in (*(data[:size] for size in range(len(data))), data + b"\n"):
        with pytest.raises(prnn.UserError):
            read(model, altered, skip_damaged=skip_damaged)


def test_other_models_and_formats_are_refused(stream, model):
    data = stream[1]
    for other in (b"GIF89a" + data, data.replace(MAGIC, MAGIC[:-1] + b"\7")):
        with pytest.raises(prnn.UserError, match="version 1"):
            model.decompress(other)
    for other in (small_model(levels=6), small_model(seed=1), small_model(residual=False)):
        with pytest.raises(prnn.UserError, match="model [0-9a-f]{16}"):
            other.decompress(data)


def test_a_missing_block_and_one_of_another_file(stream, model):
    images, data = stream
    starts = block_starts(data)

    def spliced(other):
        others = block_starts(other)
        return data[: starts[1]] + other[others[1] : others[2]] + data[starts[2] :]

    without = data[: starts[1]] + data[starts[2] :]
    for damaged in (without, spliced(model.compress(images[::-1]))):
        with pytest.raises(prnn.UserError, match="images 5 to 8"):
            model.decompress(damaged)
        decoded = model.decompress(damaged, skip_damaged=True)
        np.testing.assert_array_equal(decoded, np.delete(images, range(4, 8), axis=0))
    # Of a file that begins with the same images: its blocks pass one by one.
    sibling = spliced(model.compress(np.concatenate([images[:4], images[::-1][:7]])))
    for skip_damaged in (False, True):
        with pytest.raises(prnn.UserError, match="another file"):
            model.decompress(sibling, skip_damaged=skip_damaged)


@EITHER_WAY
@pytest.mark.parametrize("number", [0, 1, 2, 3, 5])
def test_forged_numbers_cost_no_memory(stream, model, skip_damaged, number):
    """The first image, the count, or the length of a section of a block, with a right checksum."""
    header, (block, *_), _ = read_blocks(stream[1])
    numbers = [block.start, block.length, *map(len, block.sections)]
    numbers[number] += 2**62
    body = BLOCK + b"".join(map(pack_number, numbers)) + b"".join(block.sections)
    body += struct.pack("<I", block.pixels)
    packed = header.pack()
    checksum = struct.pack("<I", zlib.crc32(body, struct.unpack("<I", packed[-4:])[0]))
    data = packed + body + checksum + pack_end(packed, 4, b"")
    if skip_damaged and number == 1:  # Its lengths lead to the end.
        assert not len(model.decompress(data, skip_damaged=True))
    else:
        with pytest.raises(prnn.UserError, match="damaged"):
            model.decompress(data, skip_damaged=skip_damaged)


def forged(model, section, content):
    """Returns a file of one block with another section and right checksums."""
    images = random_images(model, GROUP)
    classes = np.arange(GROUP) % 3 if model.config.num_classes else None
    header, (block,), _ = read_blocks(written(model, images, classes, tuple("abcd")))
    sections = [*block.sections]
    sections[section] = content
    packed = block._replace(sections=tuple(sections)).pack(header.pack())
    return header.pack() + packed + pack_end(header.pack(), GROUP, packed[-4:])


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize(
    ("section", "content"),
    [(3, b""), (3, b"abc"), (3, b"\xff" * 40), (2, b"\x80"), (2, b"\xff" * 20)],
    ids=str,
)
def test_forged_codes_are_refused(classes, section, content):
    model = small_model(num_classes=classes)
    with pytest.raises(prnn.UserError, match="images 1 to 4"):
        model.decompress(forged(model, section, content))


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '["a","b","c"]', "[1,2,3,4]", '{"a":4}', '["a",' * 2**25],
    ids=lambda text: text[:20],
)
def test_forged_names_are_refused(model, text):
    data = forged(model, 0, zlib.compress(text.encode()))
    for reading in (lambda: model.decompress(data), lambda: archive.info(io.BytesIO(data))):
        with pytest.raises(prnn.UserError, match="names"):
            reading()


def test_a_block_ends_with_long_names_and_large_maps(monkeypatch):
    monkeypatch.setattr(archive, "BLOCK_BYTES", 2**16)
    model = small_model("pixel_cnn", (2, 2, 1), 2, condition_map=3)
    images = np.zeros((3 * GROUP, 2, 2, 1), np.uint8)
    maps = np.random.default_rng(0).normal(size=(len(images), 2, 2, 3)).astype(np.float32)
    names = [str(i) * 300 for i in range(len(images))]
    assert len(block_starts(written(model, images, maps, names))) == 2  # One block and the end.
    for limit in ("NAMES_LENGTH", "CONDITION_BYTES"):
        with monkeypatch.context() as patch:
            patch.setattr(archive, limit, 100)
            data = written(model, images, maps, names)
        assert len(block_starts(data)) == 4
        np.testing.assert_array_equal(read(model, data)[0].condition, maps)
