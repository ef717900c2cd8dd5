"""Compressed files: what is refused, and what is saved of a damaged one."""

import json
import zlib

import numpy as np
import pytest
from helpers.codec_streams import GROUP, block_starts, random_images, read, small_model, written

import pixel_rnn_jax as prnn
from pixel_rnn_jax.codec import compression
from pixel_rnn_jax.codec.format import BLOCK, MAGIC, pack_end, read_blocks
from pixel_rnn_jax.data import Batch

NAMES = ("a/ä.png", "b.jpg", "c", "d" * 30, *"efghijk")


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
    header, blocks, _ = read_blocks(data)
    assert (header.image_shape, header.levels, len(blocks)) == ((3, 4, 1), 5, 3)
    assert header.digest == compression.model_digest(model.pixel_rnn, model.params)


def test_a_changed_byte_loses_whole_blocks_or_everything(named):
    model, *_, data = named
    starts, skipped = block_starts(data), set()
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
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


def test_a_cut_or_longer_file_is_refused(named):
    model, *_, data = named
    for altered in (*(data[:size] for size in range(len(data))), data + b"\n"):
        with pytest.raises(prnn.UserError):
            read(model, altered, skip_damaged=True)


def test_other_models_and_formats_are_refused(stream, model):
    data = stream[1]
    for other in (b"GIF89a" + data, data.replace(MAGIC, MAGIC[:-1] + b"\7")):
        with pytest.raises(prnn.UserError, match="version 2"):
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
        with pytest.warns(UserWarning, match="images 5 to 8"):
            decoded = model.decompress(damaged, skip_damaged=True)
        np.testing.assert_array_equal(decoded, np.delete(images, range(4, 8), axis=0))
    # Of a file that begins with the same images: its blocks pass one by one.
    sibling = spliced(model.compress(np.concatenate([images[:4], images[::-1][:7]])))
    for skip_damaged in (False, True):
        with pytest.raises(prnn.UserError, match="another file"):
            model.decompress(sibling, skip_damaged=skip_damaged)


@pytest.mark.parametrize(
    ("count", "names"),
    [
        (5, json.dumps(["x" * 5000] * 5).encode()),  # More bytes than names have.
        (5, b'["a","b"]'),
        (5, b"[1,2,3,4,5]"),
        (5, b"text"),
        (0, b""),
        (2**30, b""),
    ],
)
def test_a_forged_block_is_refused(stream, model, count, names):
    _, data = stream
    header, (block, *_), _ = read_blocks(data)
    sections = (zlib.compress(names) if names else b"", *block.sections[1:])
    forged = block._replace(length=count, sections=sections)
    head = header._replace(first_crc=zlib.crc32(b"".join(sections))).pack()
    packed = forged.pack(head)
    with pytest.raises(prnn.UserError, match="compressed file"):
        model.decompress(head + packed + pack_end(head, count, packed[-4:]))


def forged(data, section):
    """A file of one block with other corrections, and with the right checksums."""
    header, (block,), _ = read_blocks(data)
    names, condition, _, code = block.sections
    sections = names, condition, section, code
    head = header._replace(first_crc=zlib.crc32(b"".join(sections))).pack()
    packed = block._replace(sections=sections).pack(head)
    return head + packed + pack_end(head, 3, packed[-4:])


def test_more_corrections_than_logits_and_other_images_are_refused():
    model = small_model()
    data = written(model, random_images(model, 3))
    with pytest.raises(prnn.UserError, match="corrections"):
        model.decompress(forged(data, bytes(10**6)))
    mixture = small_model(levels=100, output="discretized_logistic_mixture")
    for model, value, field in ((small_model(total=9), 1, "total"), (mixture, 105, "99")):
        images = np.full((3, *model.image_shape), value)
        data = compression.compress(
            model.pixel_rnn, model.params, 3, lambda rows, images=images: Batch(images[rows])
        )
        with pytest.raises(prnn.UserError, match=field):
            model.decompress(data)


def test_a_condition_is_no_larger_than_its_images():
    model = small_model(condition_vector=2)
    data = written(model, random_images(model, 3), np.zeros((3, 2), np.float32))
    header, (block,), _ = read_blocks(data)
    names, _, *rest = block.sections
    sections = (names, zlib.compress(bytes(25)), *rest)
    head = header._replace(first_crc=zlib.crc32(b"".join(sections))).pack()
    packed = block._replace(sections=sections).pack(head)
    with pytest.raises(prnn.UserError, match="24 bytes"):
        model.decompress(head + packed + pack_end(head, 3, packed[-4:]))
