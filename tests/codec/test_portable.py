"""A file decodes where the logits have other last digits: other instructions, flags, versions."""

import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from codec_streams import random_images, small_model

import pixel_rnn_jax as prnn
from pixel_rnn_jax.codec import loop, quantise

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
FAST_MATH = "--xla_cpu_enable_fast_math=true --xla_cpu_fast_math_honor_nans=false"
ISA = "--xla_cpu_max_isa="


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Written by a process of the default settings, since a group here has few images."""
    folder = tmp_path_factory.mktemp("files")
    done = program("write", folder)
    assert done.returncode == 0, done.stderr
    return folder


def check(folder, *noise, **options):
    done = program("check", folder, *noise, **options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == sorted(path.stem for path in folder.glob("*.prnn"))


def program(command, folder, *noise, flags="", **environment):
    return subprocess.run(
        [sys.executable, ROOT / "tests" / "portable_files.py", command, folder, *map(str, noise)],
        env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
        | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
        | ({"XLA_FLAGS": flags} if flags else {})
        | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.parametrize(
    "options",
    [
        dict(flags=f"{ISA}SSE4_2"),
        dict(flags=f"{ISA}AVX2 {FAST_MATH}", JAX_NUM_CPU_DEVICES="2"),
        pytest.param(dict(flags=f"{ISA}AVX {FAST_MATH}", NPROC="1"), marks=pytest.mark.slow),
        pytest.param(
            dict(JAX_ENABLE_X64="1", JAX_DEFAULT_MATMUL_PRECISION="bfloat16"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=str,
)
def test_other_machines_decode(files, options):
    check(files, **options)


def test_noise_far_above_the_last_digits_changes_nothing(files):
    check(files, 1e-11)


def test_files_of_an_earlier_version_decode():
    """They are part of the repository, so they are of another processor and version of JAX."""
    check(FOLDER / "files")


@pytest.mark.parametrize("levels", [2, 256])
def test_too_much_noise_is_refused(levels, monkeypatch):
    model = small_model(levels=levels, shape=(8, 8, 1))
    data = model.compress(random_images(model, 8))
    exact = quantise.on_grid

    def noisy(logits):
        largest = 1e-3
        return exact(logits + largest * jnp.sin(1e6 * logits))

    monkeypatch.setattr(loop, "on_grid", noisy)
    loop._compiled.cache_clear()
    with pytest.raises(prnn.UserError, match="images 1 to 4"):
        model.decompress(data)
    loop._compiled.cache_clear()


def test_every_doubtful_logit_is_corrected(monkeypatch):
    """With a margin of half the grid all logits are doubtful, and the decoder needs no own ones."""
    monkeypatch.setattr(quantise, "MARGIN", 2e-4)
    loop._compiled.cache_clear()
    model = small_model(levels=7, shape=(8, 8, 1))
    images = random_images(model, 8)
    data = model.compress(images)
    exact = quantise.on_grid
    monkeypatch.setattr(loop, "on_grid", lambda x: exact(x + 1e-4 * jnp.sin(1e6 * x)))
    loop._compiled.cache_clear()
    np.testing.assert_array_equal(model.decompress(data), images)
    loop._compiled.cache_clear()
