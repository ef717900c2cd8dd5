"""Config files, overrides and JSON; and the settings of the configs in configs/."""

import json
import runpy

import pytest
from helpers.workdirs import with_field

from pixel_rnn_jax.model.layers import BODIES
from pixel_rnn_jax.runs import config as cfg

DEFAULTS = dict(cfg.leaves(cfg.Config()))
VALUES = {
    "model.architecture": "row_lstm",
    "model.head": "own",
    "model.input": "categorical",
    "model.output": "gaussian_mixture",
    "model.scales": (4, 8),
    "model.scale_architectures": ("pixel_cnn", "row_lstm"),
    "model.dtype": "bfloat16",
    "data.binarize": "fixed",
    "data.name": "a=b",
    "optimizer.name": "adam",
    "optimizer.schedule": "constant",
    **dict.fromkeys((name for name in DEFAULTS if name.endswith("_split")), "test[:10]"),
    **dict.fromkeys(("data.data_dir", "init_from"), "runs/a"),
}
"""Other values of the fields that are neither numbers nor flags."""


def another(default):
    """Returns another number or flag."""
    if isinstance(default, bool):
        return not default
    return default + 2 if isinstance(default, int) else default / 2 + 0.1


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_field_can_be_overridden_and_is_kept(name):
    value = VALUES[name] if name in VALUES else another(DEFAULTS[name])
    scales = (4, 8) if name == "model.scale_architectures" else ()
    default = with_field(cfg.Config(), "model.scales", scales)
    config = with_field(default, name, value)
    text = ",".join(map(str, value)) if isinstance(value, tuple) else value
    assert cfg.with_flags(default, [f"--config.{name}={text}"]) == config != default
    assert cfg.from_config_dict(json.loads(cfg.to_json(config))) == config


@pytest.mark.parametrize(
    "body",
    [
        "return {'train': {'steps': int(n)}, 'model': {'scales': []}}",
        "c = base_config('', 'diagonal_bilstm', ()); c.train.update(steps=int(n)); return c",
    ],
)
def test_a_file_returns_some_fields_or_all_and_takes_an_argument(tmp_path, body):
    head = "from pixel_rnn_jax.runs.config import *\ndef get_config(n='3'):\n    "
    (tmp_path / "mine.py").write_text(head + body)
    for argument, steps in (("", 3), (":7", 7)):
        config = cfg.load_config(f"{tmp_path / 'mine.py'}{argument}")
        assert config == with_field(cfg.Config(), "train.steps", steps)


# Section 5 of the paper: architecture, layers, features, head, residual, batch.
PAPER = {
    "mnist": ("diagonal_bilstm", 7, 16, 32, True, 16),
    "mnist:pixel_cnn": ("pixel_cnn", 7, 16, 32, True, 16),
    "cifar10": ("diagonal_bilstm", 12, 128, 1024, True, 16),
    "cifar10:row_lstm": ("row_lstm", 12, 128, 1024, True, 16),
    "cifar10:pixel_cnn": ("pixel_cnn", 15, 128, 1024, True, 16),
    "imagenet32": ("row_lstm", 12, 384, 1024, True, 64),
    "imagenet64": ("row_lstm", 4, 512, 1024, False, 32),
}


@pytest.mark.parametrize("source", PAPER)
def test_config_files_have_the_settings_of_the_paper(source):
    config = cfg.load_config(source)
    m, batch_size = config.model, config.train.batch_size
    settings = (m.architecture, m.layers, m.features, m.head_features, m.residual, batch_size)
    assert settings == PAPER[source]
    assert (m.first_kernel, m.kernel, m.skip) == (7, 3, True)
    # Only on MNIST have runs compared optimisers.
    assert config.optimizer.name == ("muon" if source.startswith("mnist") else "rmsprop")


@pytest.mark.parametrize("name", cfg.CONFIGS)
def test_config_files_take_any_variant_and_name_their_command(name):
    for architecture in BODIES:
        assert cfg.load_config(f"{name}:{architecture}").model.architecture == architecture
    assert len(cfg.load_config(f"{name}:multi_scale").model.scales) >= 2
    text = runpy.run_path(str(cfg.CONFIGS[name]))["__doc__"]
    assert f"pixel-rnn-jax --config={name}\n" in text
    assert all(part in text for part in ("Data:", "Hardware:", "Results:"))
