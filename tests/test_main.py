"""The command line: what reaches the calls behind it, and what a mistake says."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pixel_rnn_jax import commands, compare, evaluate, parallel, train
from pixel_rnn_jax.config import ARCHITECTURES, Config, changed_fields, leaves
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.main import VERBS, main

ROOT = Path(__file__).parents[1]
DIGITS = "--config=configs/digits.py"
COMMANDS = ("sample", "complete", "compress", "decompress", "pixel_map")


@pytest.fixture(autouse=True)
def calls(monkeypatch):
    """Puts a record in the place of what main calls, and main in the root of the repository."""
    record = []
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(parallel, "set_up_host_devices", lambda: record.append("devices"))
    monkeypatch.setattr(train, "train", lambda *given: record.append(given))
    monkeypatch.setattr(evaluate, "evaluate", lambda *given, **named: record.append((given, named)))
    for name in COMMANDS:

        def call(*given, name=name, **named):
            record.append((name, given, named))

        monkeypatch.setattr(commands, name, call)
    return record


def run(words: str) -> int:
    """Calls main with the words of a shell command."""
    return main(shlex.split(words))


def trained(words: str, calls: list) -> Config:
    """Returns the config that train gets from the words of a shell command."""
    assert run(words) == 0
    _, (config, _) = calls
    return config


def test_train_is_the_default_and_comes_after_the_devices(calls, capsys):
    assert run(f"{DIGITS} --workdir=somewhere") == 0
    assert run(f"train {DIGITS} --workdir=somewhere") == 0
    assert calls[0] == calls[2] == "devices"
    assert calls[1] == calls[3]
    assert calls[1][1] == "somewhere"
    assert capsys.readouterr().out == "workdir: somewhere\n" * 2


@pytest.mark.parametrize(
    "words, workdir",
    [
        (DIGITS, "runs/digits"),
        ("--config=configs/mnist.py:row_lstm", "runs/mnist-row_lstm"),
        (f"{DIGITS} --config configs/mnist.py:pixel_cnn", "runs/mnist-pixel_cnn"),
        (f"{DIGITS} --config=configs/cifar10.py", "runs/cifar10"),
    ],
)
def test_default_workdir_is_named_after_the_config_and_printed(words, workdir, calls, capsys):
    config = trained(words, calls)
    assert calls[1] == (config, workdir)
    assert capsys.readouterr().out == f"workdir: {workdir}\n"


@pytest.mark.parametrize("name", ["digits", "mnist", "cifar10", "imagenet32", "imagenet64"])
def test_a_variant_of_every_config_with_few_steps(name, calls):
    config = trained(
        f"--config=configs/{name}.py:{ARCHITECTURES[0]} --config.train.steps=10", calls
    )
    assert config.model.architecture == ARCHITECTURES[0]
    assert config.train.steps == 10


def test_every_field_can_be_overridden(tmp_path, calls):
    new = {
        "model.architecture": "pixel_cnn",
        "data.binarize": "fixed",
        "optimizer.name": "adam",
        "optimizer.schedule": "piecewise",
        "model.dtype": "bfloat16",
        "optimizer.average": 0.5,
        "optimizer.boundaries": (100, 200),
        "optimizer.factors": (0.5, 1.0),
        "model.output": "logistic",
        "model.scales": (4, 8),
        "model.scale_architectures": ("row_lstm", "pixel_cnn"),
    }
    for name, value in leaves(Config()):
        if name not in new:
            new[name] = {
                bool: lambda value: not value,
                str: lambda value: f"{value}x",
            }.get(type(value), lambda value: value + 2)(value)
    file = tmp_path / "empty.py"
    file.write_text(
        "import ml_collections\ndef get_config():\n    return ml_collections.ConfigDict()\n"
    )
    words = [f"--config={file}"] + [f"--config.{name}={value}" for name, value in new.items()]
    assert main(words) == 0
    assert {
        name: value for name, (_, value) in changed_fields(Config(), calls[1][0]).items()
    } == new


@pytest.mark.parametrize(
    "override, name, value",
    [
        ("--config.train.steps 30", "train.steps", 30),
        ("--config.train.steps=20 --config.train.steps=30", "train.steps", 30),
        ("--noconfig.model.residual", "model.residual", False),
        ("--config.model.residual=false", "model.residual", False),
        ("--config.optimizer.learning_rate=1", "optimizer.learning_rate", 1.0),
        ("--config.optimizer.clip_norm=1e-3", "optimizer.clip_norm", 1e-3),
        ("--config.data.train_split='train[:10]'", "data.train_split", "train[:10]"),
    ],
)
def test_ways_to_write_an_override(override, name, value, calls):
    config = trained(f"{DIGITS} {override}", calls)
    assert dict(leaves(config))[name] == value


def test_a_tuple_of_one_value_needs_no_brackets(calls):
    config = trained(
        f"{DIGITS} --config.optimizer.schedule=piecewise --config.optimizer.boundaries=10 "
        "--config.optimizer.factors=0.1",
        calls,
    )
    assert (config.optimizer.boundaries, config.optimizer.factors) == ((10,), (0.1,))


@pytest.mark.parametrize(
    "words, split",
    [("", "test"), ("--split=validation", "validation"), ("--split 'test[:10]'", "test[:10]")],
)
def test_evaluate(words, split, calls):
    assert run(f"evaluate --workdir=somewhere {words}") == 0
    assert calls == ["devices", (("somewhere",), {"split": split})]


def test_evaluate_beside_a_continuous_model(monkeypatch, calls):
    monkeypatch.setattr(compare, "compare", lambda *args, **named: calls.append((args, named)))
    assert run("evaluate --workdir=a --continuous=b --dequantize=5 --split=train") == 0
    assert calls == ["devices", (("a", "b", "train"), {"draws": 5})]


def test_evaluate_with_a_pixel_map(calls):
    assert run("evaluate --workdir=somewhere --split=train --pixel_map=map.png") == 0
    # The picture first: a wrong name for it shows before the long work.
    assert calls[1] == ("pixel_map", ("somewhere", "map.png"), {"split": "train"})
    assert calls[2] == (("somewhere",), {"split": "train"})


@pytest.mark.parametrize(
    "words, out, named",
    [
        ("sample", "samples.png", {"n": None, "temperature": 1.0, "seed": 0, "label": None}),
        (
            "sample --n=3 --temperature=0 --seed 5 --label=2 --out=folder",
            "folder",
            {"n": 3, "temperature": 0.0, "seed": 5, "label": 2},
        ),
        (
            "complete",
            "completions.png",
            {"images": None, "n": None, "known": "top_half", "particles": 1, "seed": 0},
        ),
        (
            "complete --images=a.npz --n=2 --known=mask.png --particles=64 --seed=1 --out=b.npz",
            "b.npz",
            {"images": "a.npz", "n": 2, "known": "mask.png", "particles": 64, "seed": 1},
        ),
        ("compress --images=folder", "images.prnn", {"images": "folder"}),
        ("compress --images=folder --out=x.prnn", "x.prnn", {"images": "folder"}),
        ("decompress x.prnn", "images.npz", {"file": "x.prnn", "skip_damaged": False}),
        (
            "decompress --file=x.prnn --skip_damaged --out=y",
            "y",
            {"file": "x.prnn", "skip_damaged": True},
        ),
        ("decompress --out=y x.prnn", "y", {"file": "x.prnn", "skip_damaged": False}),
    ],
)
def test_what_reaches_the_commands(words, out, named, calls):
    assert run(f"{words} --workdir=somewhere") == 0
    assert calls == ["devices", (words.split()[0], ("somewhere", out), named)]


@pytest.mark.parametrize(
    "words, message",
    [
        ("", "train needs --config=FILE, for example --config=configs/digits.py"),
        (
            "--workdir=x --config",
            "train needs --config=FILE, for example --config=configs/digits.py",
        ),
        ("trian", "there is no command trian; did you mean train?"),
        ("evaluate", "evaluate needs --workdir=DIR, the directory of a training run"),
        ("decompress x", "decompress needs --workdir=DIR, the directory of a training run"),
        (
            "compress --workdir=x",
            "compress needs --images=PATH, a folder or an .npy or .npz file",
        ),
        (
            "decompress --workdir=x",
            "decompress needs a file, for example decompress images.prnn",
        ),
        ("decompress --workdir=x a b", "decompress takes nothing but flags, got 'b'"),
        ("decompress --file=a --workdir=x b", "decompress takes nothing but flags, got 'b'"),
        ("sample --workdir=x --n=0", "flag --n=0: 0 is not a positive integer"),
        (
            "sample --workdir=x --temperature=-1",
            "flag --temperature=-1: -1.0 is not a non-negative number",
        ),
        (
            f"evaluate --workdir=x {DIGITS}",
            "evaluate has no flag --config; see python -m pixel_rnn_jax.main evaluate --help",
        ),
        (
            f"{DIGITS} --worddir=x",
            "train has no flag --worddir; see python -m pixel_rnn_jax.main train --help",
        ),
        (f"{DIGITS} --workdir", "Missing value for flag --workdir"),
        (f"{DIGITS} more", "train takes nothing but flags, got 'more'"),
        ("--config=no.py:row_lstm", "--config=no.py:row_lstm names no file: there is no no.py"),
        ("--config=configs", "--config=configs names no file: there is no configs"),
        (
            f"{DIGITS}:rnn",
            'what stands after the colon of --config must be one of "pixel_cnn", "row_lstm", '
            '"diagonal_bilstm", "multi_scale", got "rnn"',
        ),
        (
            f"{DIGITS} --config.model.featurs=3",
            "there is no field model.featurs in the config; did you mean model.features?",
        ),
        (
            f"{DIGITS} --noconfig.model.residul",
            "there is no field model.residul in the config; did you mean model.residual?",
        ),
        (
            f"{DIGITS} --config.steps 3",
            "there is no field steps in the config; did you mean train.steps?",
        ),
        (
            f"{DIGITS} --config.model={{}}",
            "model is a group of fields; set one of them, for example model.architecture",
        ),
        (f"{DIGITS} --config.train.steps=1e3", "train.steps must be an integer, got '1e3'"),
        (f"{DIGITS} --config.train.steps=", "train.steps must be an integer, got ''"),
        (f"{DIGITS} --config.train.steps=0", "train.steps must be at least 1, got 0"),
        (f"{DIGITS} --config.model.skip=maybe", "model.skip must be true or false, got 'maybe'"),
        (
            f"{DIGITS} --config.optimizer.average=x",
            "optimizer.average must be a finite number, got 'x'",
        ),
        (
            f"{DIGITS} --config.optimizer.boundaries=0.5",
            "optimizer.boundaries must be a tuple of integers, got (0.5,)",
        ),
        (
            f"{DIGITS} --config.optimizer.boundaries='(1,'",
            "optimizer.boundaries must be a tuple of integers, got '(1,'",
        ),
    ],
)
def test_a_mistake_ends_in_one_sentence_and_status_2(words, message, calls, capsys):
    assert run(words) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert not [call for call in calls if call != "devices"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("x = 1", "is no config file: it defines no function get_config"),
        ("def get_config():\n    return None", "the config must be a group of fields, got None"),
        (
            "def get_config():\n    return {'model': {'layer': 3}}",
            "there is no field model.layer in the config; did you mean model.layers?",
        ),
    ],
)
def test_a_file_that_is_no_config(text, message, tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text(text)
    assert main([f"--config={file}"]) == 2
    assert capsys.readouterr().err.endswith(f"{message}\n")


def test_an_argument_for_a_config_that_takes_none(tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text("def get_config():\n    return {}\n")
    assert main([f"--config={file}"]) == 0
    assert main([f"--config={file}:row_lstm"]) == 2
    message = f"error: {file} takes no argument after a colon, got 'row_lstm'\n"
    assert capsys.readouterr().err == message


def test_error_of_the_call_itself(monkeypatch, capsys):
    def refuse(*given, **named):
        raise UserError("somewhere holds no training run")

    monkeypatch.setattr(evaluate, "evaluate", refuse)
    assert run("evaluate --workdir=somewhere") == 2
    assert capsys.readouterr().err == "error: somewhere holds no training run\n"


def test_other_errors_keep_their_traceback(monkeypatch):
    monkeypatch.setattr(train, "train", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(DIGITS)


def test_ctrl_c_ends_quietly(monkeypatch, capsys):
    def interrupt(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "train", interrupt)
    assert run(DIGITS) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_an_example_and_the_own_flags(verb, calls, capsys):
    assert run(f"{verb} --help") == 0
    text = capsys.readouterr().out
    assert f"\n  python -m pixel_rnn_jax.main {verb} {VERBS[verb].example}\n" in text
    flags = set(re.findall(r"^  --(\w+) ", text, flags=re.MULTILINE))
    processes = {"distributed", "coordinator", "num_processes", "process_id"}
    own = {
        "train": {"config"} | processes,
        "evaluate": {"split", "pixel_map", "dequantize", "continuous"} | processes,
        "sample": {"n", "out", "temperature", "seed", "label"},
        "complete": {"images", "n", "known", "particles", "out", "seed"},
        "compress": {"images", "out"},
        "decompress": {"file", "out", "skip_damaged"},
    }
    assert flags == {"workdir"} | own[verb]
    assert ("--config.model.features=16" in text) == (verb == "train")
    assert calls == []


def test_help_without_a_verb_lists_the_verbs(capsys):
    assert run("--help") == 0
    text = capsys.readouterr().out
    for name, verb in VERBS.items():
        assert re.search(rf"^  {name} +{re.escape(verb.summary)}$", text, flags=re.MULTILINE)


@pytest.mark.parametrize("verb", VERBS)
def test_examples_of_the_help_are_valid(verb, calls):
    assert run(f"{verb} {VERBS[verb].example}") == 0
    assert len(calls) == 2


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """Runs the command as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "pixel_rnn_jax.main", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_exit_status_of_the_process():
    done = command("--config=configs/digits.py", "--config.model.layers=0")
    assert done.returncode == 2
    assert done.stderr == "error: model.layers must be at least 1, got 0\n"


@pytest.mark.slow
def test_train_and_evaluate_as_a_user_does(tmp_path):
    workdir = f"--workdir={tmp_path / 'run'}"
    small = ["--config.train.steps=4", "--config.model.layers=1", "--config.model.features=4"]
    done = command(DIGITS, *small, workdir)
    assert done.returncode == 0, done.stderr
    done = command("evaluate", workdir)
    assert done.returncode == 0, done.stderr
    assert "bits/dim" in done.stdout
