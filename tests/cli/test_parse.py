"""How a command line names a command with its flags, and what --help shows."""

import subprocess
import sys

import pytest

from pixel_rnn_jax import bundled
from pixel_rnn_jax import config as cfg
from pixel_rnn_jax.cli import flags
from pixel_rnn_jax.cli.parse import COMMANDS, parse


def overridden(words, source="digits"):
    _, arguments = parse(words.split())
    return cfg.override(cfg.load_config(source), flags.overrides(arguments))


def test_a_line_without_a_command_trains():
    command, arguments = parse(["--config=configs/mnist.py:row_lstm"])
    assert command is COMMANDS["train"][0]
    assert (arguments.config, arguments.workdir) == ("configs/mnist.py:row_lstm", None)


def test_overrides_of_the_config():
    config = overridden(
        "train --config.model.scales=(4,8) --config.train.steps 3 --config.model.skip=false "
        "--config.optimizer.learning_rate=2e-4 --config.seed=5 --config.seed=6"
    )
    assert (config.model.scales, config.train.steps, config.model.skip) == ((4, 8), 3, False)
    assert (config.optimizer.learning_rate, config.seed) == (2e-4, 6)
    assert config.data == cfg.load_config("digits").data


def test_a_bundled_model_is_no_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, arguments = parse(["sample", "--model=digits"])
    assert arguments.workdir == bundled.path("digits")
    _, arguments = parse(["sample", "--workdir=digits"])
    assert str(arguments.workdir) == "digits" and not isinstance(arguments.workdir, str)


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_a_screen(name, capsys):
    with pytest.raises(SystemExit):
        parse([name, "--help"] if name else ["--help"])
    assert 8 < len(capsys.readouterr().out.splitlines()) <= 45


def test_help_of_train_shows_the_config_that_stands_before_it(capsys):
    words = "train --config=mnist --config.model.layers=3 --config.seed=5"
    shown = {}
    for last in ("--help", "--help=all"):
        with pytest.raises(SystemExit) as end:
            parse([*words.split(), last])
        assert not end.value.code
        shown[last] = capsys.readouterr().out
        for field in ("model.layers=3", "seed=5", "optimizer.learning_rate=0.006"):
            assert f"  {field} " in shown[last]
    assert len(shown["--help"].splitlines()) <= 45
    for name, value in cfg.leaves(cfg.load_config("mnist")):
        assert f"  {name}=" in shown["--help=all"], (name, value)
        assert len(cfg.describe(name)) > 10
    assert "model.remat" not in shown["--help"]


def test_help_needs_no_jax():
    code = (
        "import sys\nfrom pixel_rnn_jax.main import main\n"
        "try: main(['train', '--help'])\nfinally: assert 'jax' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
