"""Every command and snippet of README and docs runs, or is marked and has flags that exist.

The blocks of a page are run in turn, with few steps of training, in a folder that has a trained run
of the digits. A block after a comment `<!-- needs: data -->`, or another of NEEDS, is not run; nor
are commands in running text. The flags of all commands are checked.
"""

import contextlib
import functools
import io
import operator
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers.programs import MAIN, ROOT, STRICT, environment

from pixel_rnn_jax.main import COMMANDS, parse
from pixel_rnn_jax.runs import config as config_lib

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "docs/logs/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
CARDS = sorted((ROOT / "pixel_rnn_jax" / "weights").glob("*/card.md"))
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
WITH_FIELDS = [*PAGES, *CARDS, *CONFIGS, *(ROOT / "launch").glob("*.*")]
SMALL = [
    "--config.train.steps=4",
    "--config.model.layers=1",
    "--config.model.features=4",
    "--config.model.head_features=4",
]
"""Flags of every training."""
IN_PROCESS = """
from pixel_rnn_jax import main as program
from pixel_rnn_jax.system import devices
devices.set_up_host_devices()
devices.set_up_host_devices = lambda: None
def main(words):
    return program.main(program.parse_flags(["", *words]))
"""
"""What a page's program begins with: its commands run in one process, which compiles less."""
NEEDS = ("", "cluster", "data", "network", "time")
INLINE = r"`((?:pixel-rnn-jax|python|bash|sbatch|mpirun) [^`]*)`"


class Block(NamedTuple):
    """A fenced block; `needs` is from the comment before it, or ""."""

    place: str
    language: str
    needs: str
    code: str


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> Iterator[Block]:
    """Yields the fenced blocks of a page, without the directives of Sphinx."""
    text = page.read_text(encoding="utf-8")
    pattern = r"^(?:<!-- needs: (.*) -->\n)?```(.*)\n((?s:.*?))^```$"
    for match in re.finditer(pattern, text, re.MULTILINE):
        if match[2].startswith("{"):
            continue
        place = f"{name(page)}, line {text[: match.start(3)].count(chr(10)) + 1}"
        assert match[2] in ("bash", "python", "text"), f"{place}: {match[2]!r}"
        assert (match[1] or "") in NEEDS, f"{place}: needs {match[1]!r}"
        yield Block(place, match[2], match[1] or "", match[3])


def commands(code: str) -> Iterator[list[str]]:
    """Yields the commands of a block of shell as words, without assignments to variables."""
    text = ""
    for line in code.replace("\\\n", " ").splitlines():
        text += line + "\n"
        try:
            words = shlex.split(text, comments=True)
        except ValueError:  # A quotation that spans lines.
            continue
        while words and re.match(r"[A-Z_]+=", words[0]):
            words.pop(0)
        if words:
            yield words
        text = ""


def all_commands() -> Iterator[tuple[str, list[str]]]:
    """Yields (place, words) of the commands in blocks, running text and tables."""
    for page in PAGES:
        for block in blocks(page):
            if block.language == "bash":
                yield from ((block.place, words) for words in commands(block.code))
        text = re.sub(r"(?ms)^```.*?^```$", "", page.read_text(encoding="utf-8"))
        for match in re.finditer(INLINE, text):
            yield name(page), shlex.split(re.sub(r"(?<= )\[|\](?= |$)|…", "", match[1]))


def program_words(words: list[str]) -> list[str] | None:
    """Returns the words after the name of the program, as started by any of its launchers."""
    if words[:2] == ["bash", "launch/local.sh"]:
        return words[2:] or ["--config=digits"]
    if words[0] == "mpirun":
        words = words[3:]
    return words[1:] if words[:1] == ["pixel-rnn-jax"] else None


def trains(words: list[str]) -> bool:
    return not words or words[0].startswith("-") or words[0] == "train"


@functools.cache
def help_of(command: str) -> str:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        parse([command, "--help"])
    return shown.getvalue()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, compilation_cache: dict[str, str]) -> Path:
    """A folder with the folders of the repository that pages name, and a run."""
    folder = tmp_path_factory.mktemp("pages")
    for part in ("configs", "launch", "benchmarks", "notebooks"):
        (folder / part).symlink_to(ROOT / part)
    words = [*MAIN, "--config=digits", *SMALL]
    subprocess.run(words, cwd=folder, env=environment(compilation_cache, devices=2), check=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(b.language != "text" and not b.needs for b in blocks(page))],
    ids=name,
)
def test_page_runs(
    page: Path, trained: Path, tmp_path: Path, compilation_cache: dict[str, str]
) -> None:
    program = [IN_PROCESS]
    for block in blocks(page):
        if block.language == "python" and not block.needs:
            program += [f"# {block.place}", re.sub(r"\bsteps=\d+", "steps=4", block.code)]
        if block.language == "bash" and not block.needs:
            for command in commands(block.code):
                words = program_words(command)
                assert words is not None, f"{block.place}: mark what {command} needs"
                program.append(f"assert main({words + SMALL * trains(words)}) == 0")
    shutil.copytree(trained, tmp_path, symlinks=True, dirs_exist_ok=True)
    (tmp_path / "page.py").write_text("\n".join(program), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, *STRICT, "page.py"],
        cwd=tmp_path,
        # On several devices NetKet warns of every sampler whose state holds no samples.
        env=environment(compilation_cache, devices=2) | {"NETKET_SHARDING": "0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_flags_and_values_exist() -> None:
    """Also of the commands that a test runs: a renamed flag is then found in seconds."""
    wrong = []
    for place, words in all_commands():
        words = program_words(words) or []
        command = "train" if trains(words) else words[0]
        if not words or command == "COMMAND":
            continue
        assert command in ("train", *COMMANDS), f"{place}: {words}"
        given = dict(
            word.removeprefix("--").partition("=")[::2] for word in words if word[:2] == "--"
        )
        source = given.get("config", "digits")
        config = config_lib.load_config("digits" if source.startswith("CONFIG") else source)
        fields = [f"--{name}={value}" for name, value in given.items() if name[:7] == "config."]
        config_lib.with_flags(config, fields)
        for flag in given:
            known = re.search(rf"--(\[no\])?{flag.removeprefix('no')}\b", help_of(command))
            if flag != "help" and not flag.startswith("config.") and not known:
                wrong.append(f"{place}: {command} has no --{flag}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("file", WITH_FIELDS, ids=name)
def test_fields_exist(file: Path) -> None:
    """Of every --config.FIELD, also in config files and scripts."""
    config = config_lib.Config()
    for field in re.findall(r"--config\.([a-z_.]+)=", file.read_text(encoding="utf-8")):
        operator.attrgetter(field)(config)


def test_scripts_exist() -> None:
    """Scripts know the flags that they are given, and pip the extras."""
    extras = re.findall(r'^ +"(\w+)": \[', (ROOT / "setup.py").read_text(), re.MULTILINE)
    for place, words in all_commands():
        script = ROOT / words[1] if words[1:] else ROOT
        if script.suffix in (".py", ".sh", ".sbatch"):
            text = script.read_text(encoding="utf-8")
            for word in words[2:]:
                flag = re.match(r"--(?!config\.|workdir=)\w+", word)
                assert not flag or flag[0] in text, f"{place}: {words[1]} has no {word}"
        elif words[0] == "pip":
            for extra in re.findall(r"\[(\w+)\]", " ".join(words)):
                assert extra in extras, f"{place}: no extra {extra}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_exist(page: Path) -> None:
    """Those that a page names in backticks or as links."""
    text = page.read_text(encoding="utf-8")
    linked = re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", text)
    named = re.findall(r"`([\w./-]+\.(?:py|sh|sbatch|md|ipynb))`", text)
    package = ROOT / "pixel_rnn_jax"
    folders = [ROOT, ROOT / "configs", ROOT / "launch", package, *package.glob("*/")]
    missing = [path for path in linked if not (page.parent / path).exists()] + [
        path
        for path in named
        if "NAME" not in path and not any((folder / path).exists() for folder in folders)
    ]
    assert not missing
