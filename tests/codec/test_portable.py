"""A file decodes where the logits have other last digits: other instructions, flags, versions."""

import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import portable_files, programs
from helpers.codec_streams import random_images, small_model

import pixel_rnn_jax as prnn
from pixel_rnn_jax.codec import Decoder, Encoder, coder, loop, quantise

FOLDER = Path(__file__).parent / "files"
FAST_MATH = "--xla_cpu_enable_fast_math=true --xla_cpu_fast_math_honor_nans=false"
ISA = "--xla_cpu_max_isa="


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Written by a process of the default settings, since a group here has few images."""
    folder = tmp_path_factory.mktemp("files")
    run("write", folder)
    return folder


def run(command, folder, **variables):
    paths = {"PYTHONPATH": str(programs.ROOT / "tests")}
    variables = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0"} | paths | variables
    words = sys.executable, "-m", "helpers.portable_files", command, folder
    return programs.run(*words, env=programs.environment(variables)).stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        dict(XLA_FLAGS=f"{ISA}SSE4_2"),
        dict(XLA_FLAGS=f"{ISA}AVX2 {FAST_MATH}", JAX_NUM_CPU_DEVICES="2"),
        dict(JAX_ENABLE_X64="1", JAX_DEFAULT_MATMUL_PRECISION="bfloat16"),
    ],
    ids=str,
)
def test_other_machines_decode(files, options):
    output = run("check", files, **options)
    assert output.split() == sorted(portable_files.MODELS)


@pytest.mark.parametrize("pattern", ["[crs]*", pytest.param("[dp]*", marks=pytest.mark.slow)])
def test_files_of_an_earlier_version_decode(monkeypatch, pattern):
    """They are part of the repository, so they are of another processor and version of JAX."""
    monkeypatch.setattr(coder, "GROUP", 64)
    portable_files.check(FOLDER, pattern)


def add_noise(monkeypatch, largest):
    exact = quantise.on_grid
    monkeypatch.setattr(
        loop, "on_grid", lambda x, margin: exact(x + largest * jnp.sin(1e6 * x), margin)
    )
    loop._compiled.cache_clear()


@pytest.mark.usefixtures("new_loops")
@pytest.mark.parametrize("levels", [2, 256])
def test_too_much_noise_is_refused(levels, monkeypatch):
    model = small_model(levels=levels, shape=(8, 8, 1))
    data = model.compress(random_images(model, 8))
    add_noise(monkeypatch, 1e-3)
    with pytest.raises(prnn.UserError, match="images 1 to 4"):
        model.decompress(data)


@pytest.mark.usefixtures("new_loops")
@pytest.mark.parametrize("levels", [2, 7])
def test_every_doubtful_logit_is_corrected(levels, monkeypatch):
    """With a margin of half the grid all logits are doubtful, and the decoder needs no own ones."""
    monkeypatch.setattr(loop, "MARGIN", 2e-4)
    model = small_model(levels=levels, shape=(8, 8, 1))
    images = random_images(model, 8)
    data = model.compress(images)
    add_noise(monkeypatch, 1e-4)
    np.testing.assert_array_equal(model.decompress(data), images)


@pytest.mark.parametrize(("levels", "columns"), [(2, 1), (2, 2), (17, 17), (2**16, 2**16)])
def test_anybodys_logits_code_values_at_their_probability(levels, columns):
    random = np.random.default_rng(levels)
    logits = random.normal(size=(8, 5, columns)) * 3
    both = np.concatenate([0 * logits, logits], axis=-1) if columns == 1 else logits
    values = random.integers(levels, size=(8, 5))
    encoder = Encoder()
    for some, their_values in zip(logits, values, strict=True):
        encoder.encode(some, their_values, margin=1e-7)
    corrections, code = encoder.finish()
    assert corrections or columns < 2**16
    decoder = Decoder(corrections, code)
    noise = 1 + 5e-8 * random.uniform(-1, 1, size=logits.shape)
    decoded = [decoder.decode(some) for some in logits * noise]
    np.testing.assert_array_equal(decoded, values)
    chosen = np.take_along_axis(both, values[..., None], -1)[..., 0]
    bits = (np.log(np.exp(both).sum(-1)) - chosen).sum() / np.log(2)
    assert abs(8 * len(code) - bits) < 64 + 0.02 * bits


@pytest.mark.parametrize(
    ("logits", "values", "margin", "field"),
    [
        (np.zeros((2, 3)), [0, 3], 1e-10, "values"),
        (np.zeros((2, 3)), [0], 1e-10, "values"),
        (np.zeros((2, 3)), [0.0, 1.0], 1e-10, "values"),
        (np.zeros((2, 3)), [0, 1], 0.1, "margin"),
        (np.zeros(3), [0], 1e-10, "logits"),
        (np.full((1, 3), np.nan), [0], 1e-10, "logits"),
        (np.zeros((1, 2**16 + 1)), [0], 1e-10, "logits"),
    ],
)
def test_what_does_not_fit_an_encoder_is_named(logits, values, margin, field):
    with pytest.raises(prnn.UserError, match=f"^{field} must"):
        Encoder().encode(logits, values, margin)


def test_encoder_and_decoder_import_no_jax():
    program = "import sys, pixel_rnn_jax.codec; sys.exit('jax' in sys.modules)"
    programs.run(sys.executable, "-c", program)
