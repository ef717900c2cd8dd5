"""The format of a file: a decoder written after its specification reads what the codec writes."""

import zlib

import jax
import numpy as np
import pytest
from helpers import reference_decoder as reference
from helpers.codec_streams import GROUP, small_model, written

from pixel_rnn_jax.codec import coder, compression, loop, quantise
from pixel_rnn_jax.codec.loop import Loop
from pixel_rnn_jax.codec.quantise import RoundingWriter, frequencies


@pytest.mark.usefixtures("new_loops")
@pytest.mark.parametrize(
    "options",
    [
        dict(levels=2),
        dict(levels=7, num_classes=3),
        dict(levels=300, shape=(2, 4, 1), output="discretized_logistic_mixture", mixtures=2),
        pytest.param(dict(levels=300, shape=(2, 4, 1), scales=(1, 2)), marks=pytest.mark.slow),
    ],
)
def test_a_decoder_after_the_specification_reads_a_file(options, monkeypatch):
    monkeypatch.setattr(compression, "BLOCK_BYTES", 30)
    monkeypatch.setattr(coder, "GROUP_VALUES", 2**6)
    monkeypatch.setattr(loop, "MARGIN", 1e-4)  # More corrections than there would be.
    model = small_model(**options)
    stride, count = model.pixel_rnn.stride, 2 * GROUP + 3
    sizes, random = (
        [model.image_shape[:2], (2 * stride, 9), (5 * stride, 5)],
        np.random.default_rng(0),
    )
    images = [
        random.integers(model.levels, size=(height, stride * width, 1), dtype=np.int32)
        for height, width in (sizes[min(i // 2 % 4, 2)] for i in range(count))
    ]
    classes = random.integers(3, size=count) if model.config.num_classes else None
    names = [f"{i}.png" for i in range(count)]
    model.part = 4 * stride
    data = written(model, images, classes, names)

    heavy = 32 if "mixtures" in options else max(32, model.levels)
    whole, decoded_blocks, corrected = Loop(model.pixel_rnn, model.params), [], 0
    form, digest, blocks = reference.read(data)
    assert form == [1, model.levels, model.part]
    assert digest == compression.model_digest(model.pixel_rnn, whole.params)
    assert [name for block in blocks for name in reference.names(block[2])] == names
    for count, shapes, _, condition, corrections, code, pixels in blocks:
        assert not condition
        stream, fixed, number = reference.RangeDecoder(code), reference.corrections(corrections), 0
        corrected += len(fixed)
        decoded = [np.zeros((*size, 1), int) for size in reference.sizes(shapes)]
        labels, form = [None] * count, (1, model.part, stride, GROUP, 2**6, heavy)
        for group, lanes in reference.lanes(reference.sizes(shapes), *form):
            if classes is not None:
                thirds = [2**24 // 3, 2**24 // 3, 2**24 - 2 * (2**24 // 3)]
                labels[group[0] : group[-1] + 1] = [stream.value(thirds) for _ in group]
            for size, parts in lanes:

                def code_of(
                    doubled, place, unit, parts=parts, stream=stream, fixed=fixed, to=decoded
                ):
                    nonlocal number
                    digits = []
                    for logits, (image, top, left) in zip(doubled >> 1, parts, strict=True):
                        grid = []
                        for q in map(int, logits):
                            if number in fixed:
                                (q,) = (p for p in (q - 1, q, q + 1) if p % 4 == fixed[number])
                            grid.append(q)
                            number += 1
                        digits.append(stream.value(reference.frequencies(grid)))
                        row, column, channel = place
                        to[image][top + row, left + column, channel] += digits[-1] * unit
                    return np.array(digits)

                condition = None
                if classes is not None:
                    condition = np.array([labels[image] for image, *_ in parts], np.int32)
                whole.each_value(size, len(parts), condition, code_of)
        dtype = "<u1" if model.levels <= 256 else "<u2"
        checked = b"".join(image.astype(dtype).tobytes() for image in decoded)
        before = zlib.crc32(np.array(labels, "<i4").tobytes()) if classes is not None else 0
        assert zlib.crc32(checked, before) == pixels
        decoded_blocks.append((decoded, labels))
    assert len(decoded_blocks) > 1 and corrected
    every = [image for decoded, _ in decoded_blocks for image in decoded]
    for image, expected in zip(every, images, strict=True):
        np.testing.assert_array_equal(image, expected)
    if classes is not None:
        assert [label for _, labels in decoded_blocks for label in labels] == classes.tolist()


def test_frequencies_are_those_of_whole_numbers():
    random = np.random.default_rng(0)
    for levels, scale in ((1, 300), (1, 6000), (3, 1000), (256, 900), (5000, 3000)):
        grid = np.rint(scale * random.normal(size=(4, levels))).astype(np.int32)
        shares = frequencies(grid)
        for row, of_row in zip(grid.tolist(), shares, strict=True):
            assert [1 + int(f) for f in of_row] == reference.frequencies(row)
        assert (shares >= 0).all() and (shares == np.floor(shares)).all()
        assert (shares.sum(-1) == 2**24 - max(levels, 2)).all()
    ends = frequencies(np.array([[-(2**29)], [2**29]]))
    np.testing.assert_array_equal(ends, [[2**24 - 2, 0], [0, 2**24 - 2]])


def doubled(logits):
    with jax.enable_x64(True):
        return np.asarray(quantise.on_grid(logits, quantise.MARGIN))


def test_the_grid_costs_less_than_a_millionth_of_a_nat():
    random = np.random.default_rng(0)
    logits = random.normal(size=(500, 256)) * 3
    exact = np.exp(logits - logits.max(-1, keepdims=True))
    exact /= exact.sum(-1, keepdims=True)
    grid = doubled(logits) >> 1
    coded = (1 + frequencies(grid)) / 2**24
    cost = (exact * np.log(exact / coded)).sum(-1)

    assert 0 < cost.mean() < 1e-6


def test_logits_whose_neighbours_have_the_same_weight_need_no_correction():
    steps = np.arange(len(quantise.WEIGHTS) + 5) + 0.5
    writer = RoundingWriter()
    grid = writer.round(doubled(np.stack([0 * steps, -steps / 256], axis=1)))
    others = [frequencies(grid + np.array([0, step])) for step in (-1, 1)]
    changes = np.any([other != frequencies(grid) for other in others], axis=(0, 2))
    more = {*reference.corrections(writer.packed)} ^ {*(2 * np.flatnonzero(changes) + 1).tolist()}
    assert more < {2 * len(steps) - 2 * near + 1 for near in range(9)}  # A weight of 1 is no share.
    assert 0.5 < changes.mean() < 0.9
