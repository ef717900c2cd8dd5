"""Every command and snippet of README and docs runs, or is marked and has flags that exist.

A block is run, page by page, with few steps of training, in a folder that has a trained run of the
digits. One with a comment `<!-- needs: data -->` before it, or another of NEEDS, is not; nor are
commands in running text. Of these the flags are checked.
"""

import ast
import dataclasses
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import snippets
from snippets import NEEDS, PAGES, ROOT, Command

import pixel_rnn_jax as prnn

FEW = ["--config.train.steps=4"]
TO_RUN = [
    page
    for page in PAGES
    if any(not block.needs and block.language != "text" for block in snippets.snippets(page))
]
LONG = ("docs/first_hour.md", "docs/generation.md")  # they train several models
COMMANDS = [command for page in PAGES for command in snippets.commands(page)]
FLAGS = [*PAGES, *sorted((ROOT / "configs").glob("*.py")), *sorted((ROOT / "launch").glob("*"))]
# Programs of others, in blocks that are marked.
FOREIGN = ("gcloud", "pre-commit")


def start(*words: str, cwd: Path, cache: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a Python program that finds the package wherever it is."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    if cache:  # The pages compile much the same.
        environment["JAX_COMPILATION_CACHE_DIR"] = str(cache)
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages take to be there: folders of the repository, and a run."""
    folder = tmp_path_factory.mktemp("pages") / "root"
    folder.mkdir()
    for part in ("configs", "launch", "benchmarks", "notebooks"):
        (folder / part).symlink_to(ROOT / part)
    words = [*snippets.MAIN[1:], "--config=configs/digits.py", *FEW]
    done = start(*words, cwd=folder, cache=folder.parent / "cache")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("page", PAGES, ids=snippets.name)
def test_blocks_say_what_they_are(page: Path) -> None:
    for block in snippets.snippets(page):
        where = f"{snippets.name(page)}, line {block.line}"
        assert block.language in snippets.LANGUAGES, f"{where}: language {block.language!r}"
        assert block.needs in ("", *NEEDS), f"{where}: needs {block.needs!r}, none of {NEEDS}"


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            page,
            id=snippets.name(page),
            marks=[pytest.mark.slow] if snippets.name(page) in LONG else [],
        )
        for page in TO_RUN
    ],
)
def test_page_runs(page: Path, trained: Path, tmp_path: Path) -> None:
    steps: list[list] = []
    for block in snippets.snippets(page):
        if block.language == "python" and not block.needs:
            steps.append(["python", snippets.name(page), block.line, block.code])
        if block.language == "bash" and not block.needs:
            for command in snippets.block_commands(block):
                words = command.main
                assert words is not None, f"{command}\nis not run here: mark what it needs"
                words = words + FEW if command.trains else words
                steps.append(["main", snippets.name(page), command.line, words])
    shutil.copytree(trained, tmp_path, symlinks=True, dirs_exist_ok=True)
    (tmp_path / "steps.json").write_text(json.dumps(steps), encoding="utf-8")
    program = ["-W", "error", snippets.__file__, "run", "steps.json"]
    done = start(*program, cwd=tmp_path, cache=trained.parent / "cache")
    assert done.returncode == 0, done.stdout + done.stderr


def refused(words: list[str], port: int) -> list[str]:
    """Returns a command that ends where it opens its workdir, when the flags have been read."""
    words = [word for word in words if not re.match("--?workdir=", word)]
    values = {"coordinator": f"localhost:{port}", "num_processes": "1", "process_id": "0"}
    for number, word in enumerate(words):
        option = word.partition("=")[0].lstrip("-")
        if option in values:  # One process finds itself.
            words[number] = f"--{option}={values[option]}"
    return [*words, "--workdir=no-run-is-here"]


def test_flags_exist(tmp_path: Path) -> None:
    """Of every command, also those that a test runs: where they do not, others would not either."""
    # A folder that holds something else than a run: to train there is an error, as the others are.
    (tmp_path / "no-run-is-here").mkdir()
    (tmp_path / "no-run-is-here" / "metrics.jsonl").touch()
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    found: dict[tuple[str, ...], Command] = {}
    for command in COMMANDS:
        words = command.main
        if words and not {"--help", "--version"} & {*words}:
            if command.trains and snippets.flag(words, "config") is None:
                words = [*words, "--config=digits"]  # In text that speaks of another flag.
            found.setdefault(tuple(refused(words, port)), command)
    assert len(found) > 20
    (tmp_path / "commands.json").write_text(json.dumps([*found]), encoding="utf-8")
    done = start(snippets.__file__, "parse", "commands.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    ends = json.loads(done.stdout)
    wrong = [
        f"{command}\n  status {status}: {written}"
        for command, (status, written) in zip(found.values(), ends, strict=True)
        if status != 2 or "no-run-is-here" not in written
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("file", FLAGS, ids=snippets.name)
def test_fields_exist(file: Path) -> None:
    """Of every --config.FIELD=VALUE, also in config files and scripts; and the value's type."""
    for line, field, value in snippets.overrides(file):
        where = f"{snippets.name(file)}, line {line}: --config.{field}={value}"
        default: object = prnn.Config()
        for part in field.split("."):
            names = [each.name for each in dataclasses.fields(default)]  # type: ignore[arg-type]
            assert part in names, f"{where}: there is no field {part}, only {', '.join(names)}"
            default = getattr(default, part)
        assert not dataclasses.is_dataclass(default), f"{where}: that is a group of fields"
        reads: dict[type, Callable[[str], object]] = {
            int: int,
            float: float,
            bool: ("true", "false").index,
            tuple: lambda value: tuple(ast.literal_eval(value)),
            str: str,
        }
        try:
            reads[type(default)](value)
        except (ValueError, SyntaxError, TypeError) as error:
            raise AssertionError(f"{where}: not of type {type(default).__name__}") from error


def extras() -> set[str]:
    """Returns the names of the extras in setup.py."""
    for node in ast.walk(ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "extras_require":
            return {*ast.literal_eval(node.value)}
    raise AssertionError("setup.py has no extras_require")


def dry(words: tuple[str, ...]) -> list[str]:
    """Returns the command of a launch script that shows what it would do."""
    script, *rest = words[1:]
    # Behind the word that says what to do, and before the verb and the flags of main.
    place = 0 if script.endswith(".sbatch") else 1
    return ["bash", script, *rest[:place], "--dry_run", *rest[place:]]


@pytest.mark.parametrize(
    "command", [command for command in COMMANDS if command.main is None], ids=str
)
def test_other_commands(command: Command) -> None:
    """Scripts are there and have what they are given; launchers show what they would do."""
    program, *rest = command.words
    target = rest[0] if rest else ""
    if target.startswith(("launch/", "benchmarks/", "notebooks/")):
        script = ROOT / target
        assert script.is_file(), f"{command}\nthere is no {target}"
        text = script.read_text(encoding="utf-8")
        if "--dry_run" in text and rest[1:]:
            done = subprocess.run(
                dry(command.words), cwd=ROOT, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        elif target == "launch/test.sh":  # The rest goes to pytest.
            for word in rest[1:]:
                if word.startswith("tests/"):
                    assert (ROOT / word).exists(), f"{command}\nthere is no {word}"
        else:
            for word in rest[1:]:
                option = word.partition("=")[0]
                assert option in text, f"{command}\n{target} does not know {option}"
    elif program == "pip":
        for wanted in re.findall(r"\[(.*)\]", " ".join(rest)):
            assert {*wanted.split(",")} <= extras(), f"{command}\nno such extra in setup.py"
    elif program == "python":
        ast.parse(command.words[2])
    else:
        known = program in FOREIGN or command.words in (("bash",), ("sbatch",), ("mpirun",))
        assert known and not command.runs, f"{command}\nthis test does not know {program}"


def paths(page: Path) -> set[str]:
    """Returns what a page names as a file of the repository, in backticks or as a link."""
    text = page.read_text(encoding="utf-8")
    named = {*re.findall(r"`([\w./-]+\.(?:py|sh|sbatch|md|ipynb|cff|yaml))(?::\w+)?`", text)}
    linked = {*re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", text)}
    return named | {str((page.parent / path).resolve().relative_to(ROOT)) for path in linked}


@pytest.mark.parametrize("page", PAGES, ids=snippets.name)
def test_files_exist(page: Path) -> None:
    package = ROOT / "pixel_rnn_jax"
    folders = [ROOT, ROOT / "configs", ROOT / "launch", package, *package.glob("*/")]
    for path in paths(page):
        if "NAME" not in path:
            assert any((folder / path).exists() for folder in folders), (
                f"{snippets.name(page)} names {path}, which is not there"
            )
