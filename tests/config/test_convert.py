"""Config files, ConfigDicts, JSON and dotted names; and what the configs of configs/ say."""

import re
import runpy

import ml_collections
import pytest
from example_configs import OTHER, OTHERS, replace

from pixel_rnn_jax import config as cfg
from pixel_rnn_jax.errors import UserError

STEPS = replace(cfg.Config(), "train.steps", 7)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"model": {"featurs": 3}}, "no field model.featurs in the config; did you mean model.fea"),
        ({"modle": {"features": 3}}, "no field modle.features in the config; did you mean model.f"),
        ({"steps": 3}, "no field steps in the config; did you mean train.steps?"),
        ({"model": 3}, "model is a group of fields; set one of them, for example model.arch"),
        (None, "the config must be a group of fields, got None"),
    ],
)
def test_unknown_field_is_refused_with_the_nearest_name(values, message):
    for given in (values, ml_collections.ConfigDict(values) if values else values):
        with pytest.raises(UserError) as error:
            cfg.from_config_dict(given)
        assert message in str(error.value)


def test_round_trips():
    for config in OTHERS:
        assert cfg.from_config_dict(cfg.to_config_dict(config)) == config
        assert cfg.from_json(cfg.to_json(config)) == config
    assert cfg.from_config_dict(ml_collections.ConfigDict({"train": {"steps": 7}})) == STEPS


@pytest.mark.parametrize(
    "name, kind",
    [
        ("model.layers", "an integer"),
        ("model.skip", "true or false"),
        ("data.name", "text"),
        ("optimizer.ema_decay", "a finite number"),
        ("optimizer.boundaries", "a tuple of integers"),
        ("optimizer.boundary_factors", "a tuple of finite numbers"),
        ("model.scale_architectures", "a tuple of words"),
        ("seed", "an integer"),
    ],
)
def test_field_kind(name, kind):
    assert cfg.field_kind(name) == kind
    with pytest.raises(UserError, match=f"no field {name}s in the config; did you mean {name}"):
        cfg.field_kind(f"{name}s")


# Config files of users.


@pytest.fixture
def loaded(tmp_path):
    """Returns the config that a file with this body of `get_config` gives."""

    def load(body, parameters="", argument=""):
        file = tmp_path / "mine.py"
        file.write_text(
            "import numpy as np\n"
            "from ml_collections import ConfigDict, FrozenConfigDict\n"
            "from pixel_rnn_jax.config import *\n"
            f"def get_config({parameters}):\n    {body}\n"
        )
        return cfg.from_config_dict(cfg.load_config_dict(f"{file}{argument}"))

    return load


@pytest.mark.parametrize(
    "body, expected",
    [
        ("return {'train': {'steps': 7}}", STEPS),
        ("return ConfigDict({'train': {'steps': 7}})", STEPS),
        ("return FrozenConfigDict({'train': {'steps': 7}})", STEPS),
        ("return {'train': {'steps': np.int64(7)}, 'model': {'scales': []}}", STEPS),
        ("c = to_config_dict(Config()); c.train.steps = 7; return c", STEPS),
        ("c = base_config('', 'diagonal_bilstm'); c.train.update(steps=7); return c", STEPS),
        (
            "c = ConfigDict({'n': 7, 'train': {}}); c.train.steps = c.get_ref('n'); "
            "return {'train': c.train}",
            STEPS,
        ),
        (f"return to_config_dict({OTHER!r})", OTHER),
    ],
)
def test_a_file_returns_some_fields_or_all(loaded, body, expected):
    assert loaded(body) == expected


@pytest.mark.parametrize(
    "body, message",
    [
        ("return None", "the config must be a group of fields, got None"),
        ("return {'model': {'layer': 3}}", "no field model.layer in the config; did you mean mod"),
        ("return {'model': {'layers': 2.5}}", "model.layers must be an integer, got 2.5"),
        ("return {'model': {'layers': 0}}", "model.layers must be at least 1, got 0"),
        ("return base_config('rnn', 'row_lstm')", 'colon of --config must be one of .* got "rnn"'),
        ("return 1 / 0", r"mine\.py, line 5: ZeroDivisionError: division by zero$"),
        ("return undefined", r"mine\.py, line 5: NameError: name 'undefined' is not defined$"),
        ("from os import nothing", r"mine\.py, line 5: ImportError: cannot import name"),
        ("x = = 3", r"mine\.py: SyntaxError: invalid syntax \(mine\.py, line 5\)$"),
        (
            "c = to_config_dict(Config()); c.model.featurs = 3",
            r'mine\.py, line 5: AttributeError: .*"featurs" does not .* Did you mean "features"',
        ),
        (
            "c = to_config_dict(Config()); c.model.update(features='many')",
            r"mine\.py, line 5: TypeError: .*features.* many is of original type",
        ),
    ],
)
def test_a_mistake_in_a_file_is_one_sentence(loaded, body, message):
    with pytest.raises(UserError) as error:
        loaded(body)
    text = str(error.value)
    assert re.search(message, text), text
    assert "\n" not in text and len(text) < 300


def test_a_file_without_get_config():
    with pytest.raises(UserError, match="convert.py is no config file: it defines no function get"):
        cfg.load_config_dict(__file__)


def test_argument_of_a_file(loaded):
    assert loaded("return {'train': {'steps': int(n)}}", "n=3", ":7") == STEPS
    assert loaded("return {'train': {'steps': int(n)}}", "n=7", ":") == STEPS
    with pytest.raises(UserError, match="mine.py takes no argument after a colon, got '7'"):
        loaded("return {}", "", ":7")


# The configs that come with the package.

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


def shipped(source):
    return cfg.from_config_dict(cfg.load_config_dict(source))


@pytest.mark.parametrize("source", PAPER)
def test_config_files_have_the_settings_of_the_paper(source):
    config = shipped(source)
    m, batch_size = config.model, config.train.batch_size
    found = (m.architecture, m.layers, m.features, m.head_features, m.residual, batch_size)
    assert found == PAPER[source]
    assert (m.first_kernel, m.kernel, m.skip) == (7, 3, True)
    # Only on MNIST have runs compared optimisers.
    assert config.optimizer.name == ("muon" if source.startswith("mnist") else "rmsprop")


@pytest.mark.parametrize("name", cfg.config_names())
def test_config_files_take_any_variant_and_name_their_command(name):
    for architecture in cfg.ARCHITECTURES:
        assert shipped(f"{name}:{architecture}").model.architecture == architecture
    scales = shipped(f"{name}:multi_scale").model.scales
    both = shipped(f"{name}:pixel_cnn,multi_scale").model
    assert len(scales) >= 2 and (both.architecture, both.scales) == ("pixel_cnn", scales)
    with pytest.raises(UserError, match='must be one of "pixel_cnn", .* got "transformer"'):
        shipped(f"{name}:transformer")
    with pytest.raises(UserError, match="one architecture after the colon, got 'pixel_cnn,row_ls"):
        shipped(f"{name}:pixel_cnn,row_lstm")
    text = runpy.run_path(str(cfg.CONFIGS / f"{name}.py"))["__doc__"]
    assert f"python -m pixel_rnn_jax.main --config=configs/{name}.py\n" in text
    assert all(part in text for part in ("Data:", "Hardware:", "Results:"))
