"""The format of a file: a decoder written after its specification reads what the codec writes."""

import zlib

import jax
import numpy as np
import pytest
from helpers import reference_decoder as reference
from helpers.codec_streams import GROUP, random_images, small_model, written

from pixel_rnn_jax.codec import compression, quantise
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
    monkeypatch.setattr(quantise, "MARGIN", 1e-4)  # More corrections than there would be.
    model = small_model(**options)
    images, classes = random_images(model, 2 * GROUP + 3), None
    if model.config.num_classes:
        classes = np.random.default_rng(0).integers(3, size=len(images))
    names = [f"{i}.png" for i in range(len(images))]
    data = written(model, images, classes, names)

    coder, parts, corrected = Loop(model.pixel_rnn, model.params), [], 0
    form, digest, blocks = reference.read(data)
    assert form == [*model.image_shape, model.levels]
    assert digest == compression.model_digest(model.pixel_rnn, coder.params)
    assert [name for block in blocks for name in reference.names(block[1])] == names
    for count, _, condition, corrections, code, pixels in blocks:
        assert not condition
        stream, fixed, number = reference.RangeDecoder(code), reference.corrections(corrections), 0
        corrected += len(fixed)
        decoded, labels = np.zeros((count, *model.image_shape), int), []
        for start in range(0, count, GROUP):
            rows = range(start, min(start + GROUP, count))
            if classes is not None:
                thirds = [2**24 // 3, 2**24 // 3, 2**24 - 2 * (2**24 // 3)]
                labels += [stream.value(thirds) for _ in rows]

            def code_of(doubled, place, size, rows=rows, stream=stream, fixed=fixed, to=decoded):
                nonlocal number
                digits = []
                for logits in doubled >> 1:
                    grid = []
                    for q in map(int, logits):
                        if number in fixed:
                            (q,) = (p for p in (q - 1, q, q + 1) if p % 4 == fixed[number])
                        grid.append(q)
                        number += 1
                    digits.append(stream.value(reference.frequencies(grid)))
                to[rows, *place] += np.array(digits) * size
                return np.array(digits)

            condition = None if classes is None else np.array(labels[start:], np.int32)
            coder.each_value(len(rows), condition, code_of)
        checked = decoded.astype("<u1" if model.levels <= 256 else "<u2").tobytes()
        before = zlib.crc32(np.array(labels, "<i4").tobytes()) if labels else 0
        assert zlib.crc32(checked, before) == pixels
        parts.append((decoded, labels))
    assert len(parts) > 1 and corrected
    np.testing.assert_array_equal(np.concatenate([images for images, _ in parts]), images)
    if classes is not None:
        assert [label for _, labels in parts for label in labels] == classes.tolist()


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
        return np.asarray(quantise.on_grid(logits))


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
