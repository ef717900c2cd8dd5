"""Config files, overrides and JSON; and the settings of the configs in configs/."""

import json
import runpy

import pytest
from absl import flags
from helpers.example_configs import OTHERS, other, replace

from pixel_rnn_jax.model.layers import LAYERS
from pixel_rnn_jax.system.errors import UserError
from pixel_rnn_jax.training import config as cfg

STEPS = replace(cfg.Config(), "train.steps", 7)


def test_json_keeps_every_field():
    for config in OTHERS:
        assert cfg.from_config_dict(json.loads(cfg.to_json(config))) == config


@pytest.mark.parametrize("name", [name for name, _ in cfg.leaves(cfg.Config())])
def test_every_field_can_be_overridden(name):
    config = other(name)
    value = dict(cfg.leaves(config))[name]
    text = ",".join(map(str, value)) if isinstance(value, tuple) else value
    assert cfg.with_flags(config, [f"--config.{name}={text}"]) == config


def test_how_values_are_written():
    fields = ["data.name=a=b", "model.scales=8,16", "model.skip=False"]
    config = cfg.with_flags(cfg.Config(), [f"--config.{field}" for field in fields])
    values = config.data.name, config.model.scales, config.model.skip
    assert values == ("a=b", (8, 16), False)


@pytest.mark.parametrize(
    "word, name",
    [
        ("model.featurs=3", "model.features"),
        ("steps=3", "steps"),
        ("train.steps=1e3", "train.steps"),
        ("model.skip=maybe", "model.skip"),
        ("model.scales=1,b", "model.scales"),
    ],
)
def test_a_wrong_flag_names_the_field(word, name):
    with pytest.raises((UserError, flags.Error), match=name):
        cfg.with_flags(cfg.Config(), [f"--config.{word}"])


@pytest.fixture
def loaded(tmp_path):
    """Returns the config that a file with this body of `get_config` gives."""

    def load(body, parameters="", argument=""):
        head = f"from pixel_rnn_jax.training.config import *\ndef get_config({parameters}):\n    "
        (tmp_path / "mine.py").write_text(head + body)
        return cfg.load_config(f"{tmp_path / 'mine.py'}{argument}")

    return load


@pytest.mark.parametrize(
    "body",
    [
        "return {'train': {'steps': 7}, 'model': {'scales': []}}",
        "c = base_config('', 'diagonal_bilstm', ()); c.train.update(steps=7); return c",
    ],
)
def test_a_file_returns_some_fields_or_all(loaded, body):
    assert loaded(body) == STEPS


@pytest.mark.parametrize(
    "body, name",
    [
        ("return {'model': {'layer': 3}}", "model.layers"),
        ("return {'model': 3}", "model"),
        ("return {'model': {'layers': 0}}", "model.layers"),
    ],
)
def test_a_mistake_in_a_file_names_the_field(loaded, body, name):
    with pytest.raises(UserError, match=name):
        loaded(body)


def test_argument_of_a_file(loaded):
    assert loaded("return {'train': {'steps': int(n)}}", "n=3", ":7") == STEPS


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
    for architecture in LAYERS:
        assert cfg.load_config(f"{name}:{architecture}").model.architecture == architecture
    assert len(cfg.load_config(f"{name}:multi_scale").model.scales) >= 2
    text = runpy.run_path(str(cfg.CONFIGS[name]))["__doc__"]
    assert f"pixel-rnn-jax --config={name}\n" in text
    assert all(part in text for part in ("Data:", "Hardware:", "Results:"))
