"""How a command line names a command with its flags, and what --help shows."""

import subprocess
import sys

import pytest

from pixel_rnn_jax.cli import train
from pixel_rnn_jax.main import COMMANDS, parse, run_plugins
from pixel_rnn_jax.runs import config as cfg


def parsed(words):
    """The function of a command and its arguments."""
    command = parse(words.split())
    return command.func, *command.args


def test_a_line_without_a_command_trains():
    for words in ("--config=configs/mnist.py:row_lstm", "train --config=mnist:row_lstm"):
        function, config, workdir, _ = parsed(words)
        assert function is train.train
        assert config == cfg.load_config("mnist:row_lstm")
        assert str(workdir) == "runs/mnist-row_lstm"


def test_flags_set_fields_of_the_config():
    _, config, workdir, flag_values = parsed(
        "train --config.model.scales=(4,8) --config.train.steps 3 --config.model.skip=false "
        "--config digits --config.optimizer.learning_rate=2e-4 --config.seed=5 --config.seed=6 "
        "--noconfig.model.residual --config.model.scale_architectures=row_lstm,pixel_cnn "
        "--workdir=a --num_processes=2"
    )
    model = config.model
    assert (model.scales, model.skip, model.residual) == ((4, 8), False, False)
    assert config.train.steps == 3
    assert model.scale_architectures == ("row_lstm", "pixel_cnn")
    assert (config.optimizer.learning_rate, config.seed) == (2e-4, 6)
    assert config.data == cfg.load_config("digits").data
    assert (str(workdir), flag_values.num_processes) == ("a", 2)


def test_every_plugin_runs(tmp_path):
    files = tmp_path / "a.py", tmp_path / "b.py"
    for file in files:
        file.write_text("open(__file__ + '.ran', 'w').close()")
    assert run_plugins([f"--plugin={files[0]}", "info", "--plugin", f"{files[1]}", "--n=3"]) == [
        "info",
        "--n=3",
    ]
    assert all(file.with_suffix(".py.ran").exists() for file in files)


@pytest.mark.parametrize("name", ["", "train", *COMMANDS])
def test_help_fits_a_screen(name, capsys):
    with pytest.raises(SystemExit) as end:
        parsed(f"{name} --help")
    assert not end.value.code
    most = 45 if name != "train" else 160  # Which describes each field of the config.
    assert 3 < len(capsys.readouterr().out.splitlines()) <= most


def test_help_of_train_shows_the_config_beside_it(capsys):
    with pytest.raises(SystemExit):
        parsed("train --help --config=mnist --config.model.layers=3 --config.seed=5")
    shown = capsys.readouterr().out.split()
    for field in ("model.layers=3", "seed=5", "optimizer.learning_rate=0.006", "model.scales=()"):
        assert field in shown
    assert cfg.meanings().keys() == {name for name, _ in cfg.leaves(cfg.Config())}


def test_help_needs_no_jax():
    code = (
        "import sys\nfrom pixel_rnn_jax.main import parse_flags\n"
        "try: parse_flags(['', 'train', '--help'])\nfinally: assert 'jax' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
