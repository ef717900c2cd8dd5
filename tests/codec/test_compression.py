"""Compressed files: what is refused, and what is saved of a damaged one."""

import json
import zlib

import numpy as np
import pytest
from helpers.codec_streams import GROUP, block_starts, random_images, read, small_model, written

import pixel_rnn_jax as prnn
from pixel_rnn_jax.codec.format import BLOCK, MAGIC, pack_end, read_blocks

NAMES = ("a/ä.png", "b.jpg", "c", "d" * 30, *"efghij", "the last")


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


def test_a_changed_byte_loses_whole_blocks_or_everything(named):
    model, *_, data = named
    content, lost = read(model, data)
    assert_holds(content, named, range(11))
    assert not lost
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
        with pytest.raises(prnn.UserError, match="version 3"):
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


def forged(data, count=None, **sections):
    """A file of the first block with other sections, or another count, and right checksums."""
    header, (block, *_), _ = read_blocks(data)
    names = ("sizes", "names", "condition", "corrections", "code")
    parts = [sections.get(name, old) for name, old in zip(names, block.sections, strict=True)]
    count = block.length if count is None else count
    head = header._replace(first_crc=zlib.crc32(b"".join(parts))).pack()
    packed = block._replace(length=count, sections=tuple(parts)).pack(head)
    return head + packed + pack_end(head, count, packed[-4:])


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
    with pytest.raises(prnn.UserError, match="compressed file"):
        model.decompress(forged(stream[1], count, names=zlib.compress(names) if names else b""))


def test_sections_that_are_larger_than_their_images_are_refused(stream, model):
    with pytest.raises(prnn.UserError, match="corrections"):
        model.decompress(forged(stream[1], corrections=bytes(10**6)))
    model = small_model(condition_vector=2)
    data = written(model, random_images(model, 3), np.zeros((3, 2), np.float32))
    with pytest.raises(prnn.UserError, match="24 bytes"):
        model.decompress(forged(data, condition=zlib.compress(bytes(25))))


def test_images_that_the_model_does_not_take_are_refused():
    mixture = small_model(levels=100, output="discretized_logistic_mixture")
    for model, value, field in ((small_model(total=9), 1, "total"), (mixture, 105, "99")):
        data = written(model, np.full((3, *model.image_shape), value))
        with pytest.raises(prnn.UserError, match=field):
            model.decompress(data)
