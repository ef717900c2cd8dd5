"""`launch/processes.py`, which starts several processes on one machine."""

import os
import shlex
import shutil

import programs
import pytest

ROOT, LAUNCHER = programs.ROOT, programs.LAUNCHER


@pytest.fixture
def environment():
    """An environment without a number of CPU devices."""
    values = programs.environment()
    del values["JAX_NUM_CPU_DEVICES"]
    return values


def dry_run(count, *words, env):
    output = programs.run(*LAUNCHER, count, "--dry_run", *words, env=env).stdout
    return [shlex.split(line) for line in output.splitlines()]


def test_commands(environment):
    cores = len(os.sched_getaffinity(0))
    assert dry_run("2", "evaluate", "--workdir=a b", "--split=train", env=environment) == [
        [
            *("env", f"JAX_NUM_CPU_DEVICES={max(1, cores // 2)}", *programs.MAIN),
            *("evaluate", "--workdir=a b", "--split=train", "--coordinator=127.0.0.1:PORT"),
            *("--num_processes=2", f"--process_id={index}"),
        ]
        for index in range(2)
    ]
    [command] = dry_run("1", env=environment)
    assert f"--config={ROOT}/configs/digits.py" in command and "train" in command
    for words in (["--config", "a.py"], ["--workdir=a"], ["-workdir", "a"]):
        [command] = dry_run("1", *words, env=environment)
        assert not any("digits" in word for word in command)


@pytest.mark.parametrize(
    ("count", "variables", "shares"),
    [
        (8, {}, [["0,1,2,3"], ["4,5,6,7"]]),
        (3, {}, [["0"], ["1"]]),  # As many for each.
        (8, {"CUDA_VISIBLE_DEVICES": "6,7"}, [["0"], ["1"]]),
        (8, {"CUDA_VISIBLE_DEVICES": "6,7,-1,5"}, [["0"], ["1"]]),
        (8, {"CUDA_VISIBLE_DEVICES": "-1"}, [[], []]),
        (2, {"JAX_PLATFORMS": ""}, [["0"], ["1"]]),
        (2, {"JAX_PLATFORMS": "gpu"}, [["0"], ["1"]]),
        (8, {"JAX_PLATFORMS": "cpu"}, [[], []]),
        (0, {}, [[], []]),
        (1, {}, None),
    ],
)
def test_gpus_are_shared_out(environment, tmp_path, count, variables, shares):
    stub = tmp_path / "nvidia-smi"
    lines = "".join(f"GPU {i}: Name (UUID: GPU-{i})\n" for i in range(count))
    stub.write_text(f"#!/bin/sh\ncat <<'EOF'\n{lines}EOF\n")
    stub.chmod(0o755)
    gpus = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "JAX_PLATFORMS": "cuda,cpu"}
    env = environment | gpus | variables
    if shares is None:
        error = programs.run(*LAUNCHER, "2", env=env, status=2).stderr
        assert "there are 2 processes for 1 GPUs: start fewer" in error
        return
    name = "JAX_LOCAL_DEVICE_IDS="
    assert shares == [
        [word.removeprefix(name) for word in command if word.startswith(name)]
        for command in dry_run("2", env=env)
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["two"], "the first word must be the number of processes, such as 2, got two"),
        (["0"], "got 0"),
        (["2", "--restarts=many"], "--restarts must be a number"),
        (["2", "sample"], "sample needs one process: launch/local.sh runs it"),
    ],
)
def test_wrong_words(words, message):
    error = programs.run(*LAUNCHER, *words, status=2).stderr
    assert error.startswith("error: ") and message in error


def test_nothing_is_installed_to_show_the_commands(environment, tmp_path):
    shutil.copytree(ROOT / "launch", tmp_path / "launch")
    script = ["bash", tmp_path / "launch" / "processes.sh", "2"]
    words = ["--restarts=1", "--dry_run", "--workdir=a b"]
    shown = programs.run(*script, *words, env=environment)
    assert not shown.stderr
    first, second = map(shlex.split, shown.stdout.splitlines())
    assert f"{tmp_path}/.venv/bin/python" in first and "--workdir=a b" in first
    assert "--process_id=1" in second
    wrong = programs.run(*script, "sample", env=environment, status=2)
    assert wrong.stderr.startswith("error: sample needs one process")
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("words", [["--help"], []])
def test_help(words):
    text = programs.run("bash", ROOT / "launch" / "processes.sh", *words).stdout
    assert text.startswith("Usage: bash launch/processes.sh N ")
    assert max(map(len, text.splitlines())) <= 100
