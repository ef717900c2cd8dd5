"""The codec: exact round trips, sizes, and a sentence for every stream that cannot be read."""

import io
import os
import re
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest

import pixel_rnn_jax as prnn
from pixel_rnn_jax import block_coder, compress
from pixel_rnn_jax.images import Batch
from pixel_rnn_jax.likelihoods import Softmax

ROOT = Path(__file__).resolve().parents[1]
LANES = 4
SMALL = {"layers": 1, "features": 3, "head_features": 4, "first_kernel": 3}


@pytest.fixture(autouse=True)
def few_lanes(monkeypatch):
    monkeypatch.setattr(block_coder, "LANES", LANES)


def _model(architecture="row_lstm", shape=(3, 4, 1), levels=2, seed=0, **options):
    config = prnn.ModelConfig(architecture, **(SMALL | options))
    return prnn.create(config, shape, levels, seed)


def _images(model, count):
    random = np.random.default_rng(0)
    return random.integers(model.levels, size=(count, *model.image_shape)).astype(np.int32)


def _compressed(model, images):
    return compress.compress(model.module, model.params, images)


def _decompressed(model, data, **options):
    return compress.decompress(model.module, model.params, data, **options).images


def _header_length(data):
    fixed = len(compress.MAGIC) + 1 + compress.FORMAT.size
    return fixed + data[fixed - 1] + compress.CHECKSUM.size


def _block_starts(data):
    return [match.start() for match in re.finditer(re.escape(compress.MARKER), data)]


@pytest.fixture(scope="module")
def model():
    return _model(levels=5)


@pytest.fixture(scope="module")
def stream(model):
    """Eleven images in three blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_coder, "LANES", LANES)
        images = _images(model, 11)
        data = _compressed(model, images)
        assert len(_block_starts(data)) == 3
        return images, data


@pytest.mark.parametrize(
    ("architecture", "levels", "channels"),
    [
        ("pixel_cnn", 2, 1),
        ("row_lstm", 17, 3),
        ("diagonal_bilstm", 2, 3),
        ("diagonal_bilstm", 256, 1),
        ("row_lstm", 1000, 1),
    ],
)
def test_round_trip(architecture, levels, channels):
    model = _model(architecture, (3, 4, channels), levels)
    for count in (0, 1, LANES, LANES + 1):
        images = _images(model, count)
        images[:1] = levels - 1
        decoded = _decompressed(model, _compressed(model, images))
        np.testing.assert_array_equal(decoded, images)
        assert decoded.dtype == (np.uint8 if levels <= 256 else np.uint16)


def test_size_is_the_likelihood():
    model = _model(shape=(16, 16, 1), levels=7)
    images = _images(model, 4 * LANES)
    bits = -model.log_prob(images).sum() / np.log(2)
    data = _compressed(model, images)
    header = _header_length(data)
    assert header < 200
    assert bits / 8 < len(data) - header < 1.001 * bits / 8 + 4 * (28 + 8)


def test_precision_of_the_model_and_of_the_process_change_nothing(stream, model):
    images, data = stream
    coarse = _model(levels=5, dtype="bfloat16", remat=True)
    np.testing.assert_array_equal(_decompressed(coarse, data), images)
    block_coder._compiled.cache_clear()
    with jax.enable_x64(True), jax.default_matmul_precision("bfloat16"):
        assert _compressed(model, images) == data


def test_batches_of_any_size_give_one_stream(stream, model):
    images, data = stream
    file = io.BytesIO()
    batches = [images[:1], images[1:1], images[1:10], images[10:]]
    compress.write(model.module, model.params, map(Batch, batches), len(images), file)
    assert file.getvalue() == data
    file.seek(0)
    sizes = [len(block.images) for block in compress.read(model.module, model.params, file)]
    assert sizes == [4, 4, 3]


@pytest.mark.parametrize(
    "environment",
    [
        {"JAX_NUM_CPU_DEVICES": "3", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=true"},
        {"NPROC": "1", "XLA_FLAGS": "--xla_cpu_enable_fast_math=true --xla_cpu_use_onednn=true"},
    ],
)
def test_another_process_decodes(tmp_path, environment):
    model = _model("diagonal_bilstm", (6, 5, 3), 17, layers=2)
    images = _images(model, LANES + 1)
    np.savez(tmp_path / "images.npz", images)
    (tmp_path / "stream").write_bytes(_compressed(model, images))
    leaves = {str(i): leaf for i, leaf in enumerate(jax.tree.leaves(model.params))}
    np.savez(tmp_path / "params.npz", **leaves)
    program = f"""
import jax, numpy as np
import pixel_rnn_jax as prnn
from pixel_rnn_jax import block_coder, compress
block_coder.LANES = {LANES}
config = prnn.ModelConfig("diagonal_bilstm", **{SMALL | {"layers": 2}})
model = prnn.create(config, (6, 5, 3), 17)
# As a file gives them: under other flags, random ones could be others.
leaves = np.load("params.npz")
leaves = [leaves[str(i)] for i in range(len(leaves))]
params = jax.tree.unflatten(jax.tree.structure(model.params), leaves)
images = compress.decompress(model.module, params, open("stream", "rb").read()).images
np.testing.assert_array_equal(images, np.load("images.npz")["arr_0"])
print(jax.device_count(), "devices")
"""
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{environment.get('JAX_NUM_CPU_DEVICES', 1)} devices" in result.stdout


def test_what_cannot_be_read_is_refused_in_its_own_words(stream, model, monkeypatch):
    _, data = stream
    header = _header_length(data)
    starts = _block_starts(data)

    def refused(data, message, model=model):
        with pytest.raises(prnn.UserError, match=message):
            _decompressed(model, data)

    refused(b"", "not a compressed file")
    refused(b"GIF89a" + data, "not a compressed file")
    refused(data[: header - 1], "cut off in its header")
    refused(data[:header], "cut off before block 0 of 3")
    refused(data[: starts[1] + 9], "cut off in block 1 of 3")
    refused(data[:-1], "cut off in block 2 of 3")
    refused(data + b"\n", "goes on behind its last block")
    refused(_flipped(data, 8), "header of the compressed file is damaged")
    refused(_flipped(data, starts[1] + 5), "block 1 of 3 of the compressed file is damaged")
    refused(_flipped(data, starts[2] - 1), "block 1 of 3 of the compressed file is damaged")
    refused(data[: starts[0]] + data[starts[1] :], "block 0 of 3 is missing")
    refused(data[: starts[1]] + data[starts[0] :], "has block 0 where 1 belongs")
    newer = data[: len(compress.MAGIC)] + b"\x07" + data[len(compress.MAGIC) + 1 :]
    refused(newer, "version 7 of the format, .* reads versions up to 1")
    refused(data, r"shape \(3, 4, 1\) and 5 levels, but .* \(3, 4, 1\) and 6", _model(levels=6))
    refused(data, "written with another model", _model(levels=5, seed=1))
    refused(data, "written with another model", _model(levels=5, residual=False))
    with monkeypatch.context() as patch:
        patch.setattr(block_coder, "_cpu", lambda: ("Other CPU", ""))
        refused(data, 'was written on "cpu .*, jax .*", but this is "cpu Other CPU #')
    # A machine that passes for the same one, but computes otherwise.
    monkeypatch.setattr(Softmax, "inputs", lambda self, x: x / self.levels)
    block_coder._compiled.cache_clear()
    refused(data, "block 0 of 3 is intact, but this machine does not compute the model")
    block_coder._compiled.cache_clear()


def test_images_that_do_not_fit_are_refused(model):
    for images, message in [
        (np.zeros((2, 3, 4), int), r"images must have shape \[B, 3, 4, 1\], got \[2, 3, 4\]"),
        (np.zeros((2, 3, 4, 1)), "must be integers from 0 to 4 .unscaled., got float64"),
        (np.full((2, 3, 4, 1), 5), "must have values from 0 to 4, got 5 to 5"),
    ]:
        with pytest.raises(prnn.UserError, match=message):
            _compressed(model, images)
    with pytest.raises(prnn.UserError, match="there are 2 images to compress, but count is 3"):
        compress.write(model.module, model.params, [Batch(_images(model, 2))], 3, io.BytesIO())


@pytest.mark.parametrize("lost", [0, 1, 2])
@pytest.mark.parametrize("where", ["header", "code", "length", "gone", "inserted"])
def test_damaged_blocks_are_skipped(stream, model, lost, where):
    images, data = stream
    starts = [*_block_starts(data), len(data)]
    start, end = starts[lost], starts[lost + 1]
    damaged = {
        "header": _flipped(data, start + 2),
        "code": _flipped(data, end - 2),
        "length": data[: start + 8] + b"\xff\xff\xff\xff" + data[start + 12 :],
        "gone": data[: start + 20] + data[end:],
        "inserted": data[: end - 3] + 100 * compress.MARKER[:3] + data[end - 3 :],
    }[where]
    with pytest.raises(prnn.UserError):
        _decompressed(model, damaged)
    kept = np.delete(images, slice(LANES * lost, LANES * (lost + 1)), axis=0)
    with pytest.warns(UserWarning, match=f"{11 - len(kept)} of 11 images are lost"):
        decoded = _decompressed(model, damaged, skip_damaged=True)
    np.testing.assert_array_equal(decoded, kept)


def test_a_forged_header_costs_no_memory(stream, model):
    _, data = stream
    length = _header_length(data) - compress.CHECKSUM.size
    head = bytearray(data[:length])
    struct.pack_into("<Q", head, len(compress.MAGIC) + 1 + 16, 2**63)
    forged = bytes(head) + compress.CHECKSUM.pack(zlib.crc32(head)) + data[length + 4 :]
    for skip_damaged in (False, True):
        # The last block has fewer images than the header makes it have.
        with pytest.raises(prnn.UserError, match="block 2 of .* is intact, but"):
            _decompressed(model, forged, skip_damaged=skip_damaged)


def _flipped(data, position):
    return data[:position] + bytes([data[position] ^ 16]) + data[position + 1 :]


def _altered(data, random):
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
        data = _flipped(data, position)
    return data


@pytest.mark.parametrize("streams", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_altered_streams_give_an_error_or_the_right_pixels(stream, model, streams):
    images, data = stream
    random = np.random.default_rng(streams)
    right = {image.tobytes() for image in images.astype(np.uint8)}
    errors = 0
    for _ in range(streams):
        altered = _altered(data, random)
        skip = bool(random.integers(2))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                decoded = _decompressed(model, altered, skip_damaged=skip)
        except prnn.UserError:
            errors += 1
        else:
            assert {image.tobytes() for image in decoded} <= right
            assert skip or altered == data
    assert errors > streams / 2
