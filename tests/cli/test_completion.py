"""What bash and zsh complete, and that everything that is offered is accepted."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pixel_rnn_jax.cli.completion import candidates
from pixel_rnn_jax.cli.parse import VERBS, parse
from pixel_rnn_jax.cli.verb_flags import HALVES
from pixel_rnn_jax.config import Config, config_names, from_config_dict, leaves
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.pictures import known_mask
from pixel_rnn_jax.shipped import names

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "line, found",
    [
        ("", [f"{verb} " for verb in VERBS]),
        ("ev", ["evaluate "]),
        ("evaluate ", []),  # A file may stand here.
        ("completion ", ["bash ", "zsh "]),
        ("evaluate --p", ["--per_value ", "--pixel_map=", "--process_id="]),
        ("evaluate --pixel_map=", []),
        ("evaluate --conf", []),
        ("sample --model=", [f"--model={name} " for name in names()]),
        ("complete --known=t", ["--known=top_half "]),
        ("evaluate --split=te", ["--split=test "]),
        ("train --split=", []),
        ("train --dist", ["--distributed "]),
        ("train --nod", ["--nodistributed "]),
        ("report --no", ["--nomaps "]),
        ("--he", ["--help "]),
        ("nothing --he", []),
        ("--conf", ["--config=", "--config."]),
        ("--config=mn", ["--config=mnist ", "--config=mnist:"]),
        (
            "--config=mnist:row",
            ["--config=mnist:row_lstm ", "--config=mnist:row_lstm,multi_scale "],
        ),
        ("--config=./mi", []),
        ("train  --config=mnist --config.opt", ["--config.optimizer."]),
        ("--config.model.d", ["--config.model.dtype="]),
        (
            "--config.optimizer.name=",
            [f"--config.optimizer.name={x} " for x in ("rmsprop", "adam", "muon")],
        ),
        ("--config.model.skip=", ["--config.model.skip=true ", "--config.model.skip=false "]),
        ("--config.model.layers=", []),
    ],
)
def test_candidates(line, found):
    assert candidates(f"pixel-rnn-jax {line}") == found


def test_a_line_without_a_word_is_completed_too():
    assert candidates("") == candidates("pixel-rnn-jax ")


def test_the_names_of_masks_are_those_that_there_are():
    for name in HALVES:
        assert known_mask(name, (4, 4, 1)).sum() == 8
    with pytest.raises(UserError, match=f"must be {', '.join(HALVES)} or an image file"):
        known_mask("other", (4, 4, 1))


NEEDS = {
    "piecewise": "--config.optimizer.boundaries=10 --config.optimizer.boundary_factors=0.1",
    "init_partial": "--config.init_from=a",
    "in_turn": "--config.model.scales=4,8",
}


def test_every_name_variant_and_choice_is_accepted():
    for name in config_names():
        for word in candidates(f"pixel-rnn-jax --config={name}:"):
            from_config_dict(parse(["main", word.strip()]).args[0].config)
    choices = [
        word.strip()
        for name, _ in leaves(Config())
        for word in candidates(f"pixel-rnn-jax --config.{name}=")
    ]
    assert len(choices) > 30
    for word in choices:
        more = next((words.split() for name, words in NEEDS.items() if name in word), [])
        from_config_dict(parse(["main", "--config=digits", word, *more]).args[0].config)


LINES = ["eva", "--config=mnist:row", "--config.model.dtype=bf", "evaluate --out=a"]
BASH = """
try() {
  COMP_LINE=$1 COMP_POINT=${#1}
  _pixel_rnn_jax pixel-rnn-jax
  printf '%s|' "${COMPREPLY[@]}"; echo
}
COMP_WORDBREAKS=$' =:'
"""
ZSH = """
compdef() { }
compset() { printf '%s ' $* }
compadd() { printf '%s|' ${(P)@[-1]}; echo }
_files() { echo files }
try() { words=(${(s: :)1}) CURRENT=${#words} PREFIX=$words[-1]; _pixel_rnn_jax; }
"""


@pytest.mark.parametrize(
    "shell, definitions, expected",
    [
        ("bash", BASH, ["evaluate |", "row_lstm |row_lstm,multi_scale |", "bfloat16 |", "|"]),
        (
            "zsh",
            ZSH,
            [
                "evaluate |",
                "--config=mnist:row_lstm |--config=mnist:row_lstm,multi_scale |",
                "--config.model.dtype=bfloat16 |",
                "-P *= files",
            ],
        ),
    ],
)
def test_shells(shell, definitions, expected, tmp_path):
    """The functions that the shells call; bash takes what follows = and : as words of their own."""
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    program = tmp_path / "pixel-rnn-jax"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m pixel_rnn_jax.main "$@"\n')
    program.chmod(0o755)
    tries = "".join(f"try {shlex.quote(f'pixel-rnn-jax {line}')}\n" for line in LINES)
    script = f'{definitions}\neval "$(pixel-rnn-jax completion {shell})"\n{tries}'
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    words = [shell, *(["-f"] if shell == "zsh" else ["--norc"]), "-c", script]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == expected and not done.stderr


def test_a_shell_must_be_named(run, capsys):
    for words in ("completion", "completion fish"):
        assert run(words) == 2
        assert capsys.readouterr().err.startswith("error: completion needs a shell, bash or zsh: ")
