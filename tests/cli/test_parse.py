"""The command line: what the words of a command mean, and what a mistake says."""

import re
import shlex
import subprocess
import sys
from dataclasses import replace

import pytest
from example_configs import OTHERS, other

import pixel_rnn_jax as prnn
from pixel_rnn_jax.cli.parse import VERBS, parse
from pixel_rnn_jax.config import CONFIGS, Config, from_config_dict, leaves
from pixel_rnn_jax.runs.workdir import write_config

DIGITS = "--config=digits"


def parsed(words):
    """Returns the function and the flags of a command, without running it."""
    command = parse(["main", *shlex.split(words)])
    return command.func, command.args[0]


def trained(words):
    """Returns the config that training gets."""
    return from_config_dict(parsed(words)[1].config)


def test_train_is_the_default():
    function, values = parsed(f"{DIGITS} --workdir=somewhere")
    assert function is VERBS["train"].run and values.workdir == "somewhere"
    assert trained(DIGITS) == trained(f"train {DIGITS}") != Config()


@pytest.mark.parametrize(
    "words, workdir",
    [
        (DIGITS, "runs/digits"),
        ("--config mnist:row_lstm", "runs/mnist-row_lstm"),
        (f"{DIGITS} -config=cifar10:pixel_cnn --config.train.steps=3", "runs/cifar10-pixel_cnn"),
        (f"{DIGITS} --config.train.steps 3 -config {CONFIGS}/cifar10.py", "runs/cifar10"),
    ],
)
def test_last_config_counts_and_names_the_workdir(words, workdir):
    assert parsed(words)[1].workdir == workdir
    name, _, architecture = workdir.removeprefix("runs/").partition("-")
    config = trained(words)
    assert config.train.steps == (
        3 if "steps" in words else trained(f"--config={name}").train.steps
    )
    assert config.model.architecture == (architecture or "diagonal_bilstm")


def test_a_workdir_alone_goes_on_with_its_config(tmp_path):
    config = trained(f"{DIGITS} --config.model.layers=3")
    write_config(config, tmp_path)
    assert trained(f"--workdir={tmp_path}") == config
    longer = trained(f"train --config.train.steps=7 --workdir {tmp_path}")
    assert longer == replace(config, train=replace(config.train, steps=7))


def test_a_path_is_a_config_with_and_without_its_ending(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text("def get_config():\n    return {'seed': 3}\n")
    (tmp_path / "digits.py").write_text("def get_config():\n    return {'seed': 4}\n")
    for source, seed in [("mine", 3), ("digits.py", 4), ("./digits.py", 4), ("digits", 0)]:
        assert trained(f"--config={source}").seed == seed
    assert parsed("--config=mine")[1].workdir == "runs/mine"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert trained("--config=~/digits.py").seed == 4
    with pytest.raises(prnn.UserError, match="digits names no config file"):
        trained(f"--config={tmp_path}/digits")


def test_every_field_can_be_overridden():
    for config in OTHERS:
        words = [f"--config.{name}={value}" for name, value in leaves(config)]
        assert trained(shlex.join([DIGITS, *words])) == config
    for name, value in leaves(trained(DIGITS)):
        assert dict(leaves(other(name)))[name] != value


@pytest.mark.parametrize(
    "override, name, value",
    [
        ("--config.train.steps 30", "train.steps", 30),
        ("--config.train.steps=20 --config.train.steps=30", "train.steps", 30),
        ("-config.train.steps=30", "train.steps", 30),
        ("--noconfig.model.residual", "model.residual", False),
        ("--config.model.residual=false", "model.residual", False),
        ("--config.optimizer.learning_rate=1", "optimizer.learning_rate", 1.0),
        ("--config.optimizer.clip_norm=1e-3", "optimizer.clip_norm", 1e-3),
        ("--config.data.train_split='train[:10]'", "data.train_split", "train[:10]"),
        ("--config.model.scales=4,8", "model.scales", (4, 8)),
        (
            "--config.optimizer.schedule=piecewise --config.optimizer.boundaries=10 "
            "--config.optimizer.boundary_factors=0.1",
            "optimizer.boundary_factors",
            (0.1,),
        ),
    ],
)
def test_ways_to_write_an_override(override, name, value):
    assert dict(leaves(trained(f"{DIGITS} {override}")))[name] == value


@pytest.mark.parametrize(
    "words, expected",
    [
        ("evaluate", dict(split="test", pixel_map=None, dequantize=None, continuous=None)),
        (
            "evaluate --split 'test[:10]' --pixel_map=a.png --continuous=b --dequantize=5",
            dict(split="test[:10]", pixel_map="a.png", continuous="b", dequantize=5),
        ),
        (
            "evaluate --coordinator=a:1 --num_processes=3 --process_id=0 --distributed",
            dict(coordinator="a:1", num_processes=3, process_id=0, distributed=True),
        ),
        (
            "evaluate --images=a.png --out=b.npz --per_value",
            dict(images="a.png", out="b.npz", per_value=True, split="test"),
        ),
        ("evaluate --nodistributed", dict(distributed=False)),
        ("sample", dict(n=None, temperature=1.0, seed=0, label=None, out="samples.png")),
        (
            "sample --n=3 --temperature=0 --seed 5 --label=2 --out=folder",
            dict(n=3, temperature=0.0, seed=5, label="2", out="folder"),
        ),
        (
            "complete",
            dict(images=None, n=None, known="top_half", particles=1, out="completions.png", seed=0),
        ),
        (
            "complete --images=a.npz --n=2 --known=mask.png --particles=64 --seed=1 --out=b.npz",
            dict(images="a.npz", n=2, known="mask.png", particles=64, seed=1, out="b.npz"),
        ),
        ("compress --images=folder", dict(images="folder", out="images.prnn")),
        ("decompress x.prnn", dict(file="x.prnn", skip_damaged=False, out="images.npz")),
        (
            "decompress --file=x.prnn --skip_damaged --out=y",
            dict(file="x.prnn", skip_damaged=True, out="y"),
        ),
        ("decompress --out=y x.prnn", dict(file="x.prnn", out="y")),
        ("export", dict(out="model.safetensors")),
    ],
)
def test_flags_of_a_verb(words, expected):
    function, values = parsed(f"{words} --workdir=somewhere")
    assert function is VERBS[words.split()[0]].run and values.workdir == "somewhere"
    assert {name: values[name].value for name in expected} == expected


@pytest.mark.parametrize(
    "words, workdirs",
    [
        ("--workdir=a", ["a"]),
        ("--workdir=a b c", ["a", "b", "c"]),
        ("--workdir a --workdir=b", ["a", "b"]),
        ("a --out=x.html b", ["a", "b"]),
    ],
)
def test_a_report_takes_several_workdirs(words, workdirs):
    assert parsed(f"report {words}")[1].workdir == workdirs


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_an_example_and_the_own_flags(verb, run, capsys):
    assert run(f"{verb} --help") == 0
    text = capsys.readouterr().out
    assert f"\n  python -m pixel_rnn_jax.main {verb} {VERBS[verb].example}\n" in text
    shown = set(re.findall(r"^  --(?:\[no\])?(\w+): ", text, flags=re.MULTILINE))
    processes = {"distributed", "coordinator", "num_processes", "process_id"}
    own = {
        "train": {"config", "allow_change"} | processes,
        "evaluate": {"split", "images", "data", "out", "per_value", "pixel_map", "dequantize"}
        | {"continuous", "json"}
        | processes,
        "sample": {"n", "out", "temperature", "seed", "label", "condition"},
        "complete": {"images", "split", "data", "n", "known", "particles", "out", "seed"},
        "compress": {"images", "split", "out", "fast"},
        "append": {"file", "images", "split"},
        "decompress": {"file", "out", "skip_damaged"},
        "extract": {"file", "names", "out"},
        "info": {"file", "json"},
        "verify": {"file", "json"},
        "export": {"out"},
        "report": {"out", "maps"},
        "completion": {"shell", "line"},
    }
    shared = {"info": {"compilation_cache", "quiet"}, "completion": set()}
    shared["train"] = shared["report"] = shared["info"] | {"workdir"}
    assert shown == own[verb] | shared.get(verb, shared["train"] | {"model"})
    field = "\n  --config.model.features=16: h, the features of a body layer; "
    assert (field in text) == (verb == "train")
    statuses = re.findall(r"^  (\d+) +[A-Z].*\.$", text, flags=re.MULTILINE)
    lost = ["3"] if verb in ("train", "evaluate") else []  # Verbs of several processes.
    assert statuses == ["0", "2", *lost, "130", "143"]
    assert max(map(len, text.splitlines())) <= 120
    if verb != "completion":
        parsed(f"{verb} {VERBS[verb].example}")


def test_help_does_without_jax():
    """It takes a tenth of a second."""
    code = "import sys; from pixel_rnn_jax.main import main\n"
    code += f"for verb in {list(VERBS)}: assert main([verb, '--help']) == 0\n"
    code += "assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


def test_help_without_a_verb_lists_the_verbs_and_version_the_version(run, capsys):
    for words in ("--help", "-h", f"{DIGITS} --help"):
        assert run(words) == 0
        text = capsys.readouterr().out
        for name, verb in VERBS.items():
            assert re.search(rf"^  {name} +{re.escape(verb.run.__doc__)}$", text, re.MULTILINE)
    for words in ("--version", "sample --version"):
        assert run(words) == 0
        assert capsys.readouterr().out == f"pixel-rnn-jax {prnn.__version__}\n"
