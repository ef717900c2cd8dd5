"""Every command and snippet of README and docs runs, or is marked and has flags that exist.

A block is run, page by page, with few steps of training, in a folder that has a trained run of the
digits. One with a comment `<!-- needs: data -->` before it, or another of NEEDS, is not; nor are
commands in running text. Of all commands the flags are checked.
"""

import ast
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from programs import MAIN, ROOT, environment

from pixel_rnn_jax import config as config_lib
from pixel_rnn_jax.cli import parse

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_FIELDS = [*PAGES, *sorted((ROOT / "configs").glob("*.py")), *(ROOT / "launch").glob("*")]
# They train several models, or one for long.
LONG = ("data", "first_hour", "functions", "generation", "training")
NEEDS = ("", "GPU", "TPU", "cluster", "data", "network", "time")
# Programs of others, in blocks that are marked.
FOREIGN = ("gcloud", "pre-commit")
INLINE = r"pixel-rnn-jax|python\s+-m\s+pixel_rnn_jax\.main|bash|sbatch|mpirun|python\s+benchmarks/"
# What running text has where a reader puts something of their own.
PLACEHOLDERS = {"CONFIG:VARIANT": "digits:row_lstm", "N": "2", "I": "0"}


class Block(NamedTuple):
    """A fenced block. `needs` is what the comment before it says that it needs, or ""."""

    where: str
    language: str
    needs: str
    code: str


class Command(NamedTuple):
    """A command of the shell, split into words, without assignments to environment variables."""

    where: str
    words: list[str]
    runs: bool

    @property
    def main(self) -> list[str] | None:
        """The words after the program's name if it is `pixel-rnn-jax`, however started."""
        words = self.words[3:] if self.words[0] == "mpirun" else self.words
        if words[:2] == ["bash", "launch/local.sh"]:
            config = any(word.startswith(("--config=", "--workdir=")) for word in words)
            # What the script adds.
            return words[2:] + ([] if config or not trains(words[2:]) else ["--config=digits"])
        if words[:3] == ["python", "-m", "pixel_rnn_jax.main"]:
            return words[3:]
        return words[1:] if words[:1] == ["pixel-rnn-jax"] else None


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def trains(words: list[str]) -> bool:
    return not words or words[0].startswith("-") or words[0] == "train"


def blocks(page: Path) -> Iterator[Block]:
    """Yields the fenced blocks of a page, but for the directives of Sphinx."""
    text = page.read_text(encoding="utf-8")
    assert len(re.findall("^```", text, re.MULTILINE)) % 2 == 0, f"{name(page)}: a block has no end"
    pattern = r"^(?:<!-- needs: (.*) -->\n)?```(.*)\n((?s:.*?))^```$"
    for match in re.finditer(pattern, text, re.MULTILINE):
        line = text[: match.start(3)].count("\n") + 1
        if not match[2].startswith("{"):
            yield Block(f"{name(page)}, line {line}", match[2], match[1] or "", match[3])


def block_commands(block: Block) -> Iterator[Command]:
    """Yields the commands of a block of shell; one may go over several lines."""
    text = ""
    for line in block.code.replace("\\\n", "").splitlines():
        text += line
        try:
            words = shlex.split(text, comments=True)
        except ValueError:  # A quotation that goes on.
            text += "\n"
            continue
        while words and re.match(r"[A-Z_]+=", words[0]):
            words.pop(0)
        if words:
            yield Command(block.where, words, runs=not block.needs)
        text = ""
    assert not text, f"{block.where}: a command does not end"


def inline_commands(page: Path) -> Iterator[Command]:
    """Yields the commands with arguments in the running text and the tables of a page."""
    text = re.sub(r"(?ms)^```.*?^```$", "", page.read_text(encoding="utf-8"))
    for match in re.finditer(rf"`((?:{INLINE})\s*[^`]*)`", text):
        # [--split=test] and CONFIG[:VARIANT] may be left out; 'test[:100]' is a split.
        plain = re.sub(r"(?<= )\[([^]]*)\]|(?<=[A-Z])\[([^]]*)\]", r"\1\2", match[1])
        words = []
        for word in shlex.split(plain.replace("…", "")):
            option, equals, value = word.rpartition("=")
            words.append(option + equals + PLACEHOLDERS.get(value, value))
        yield Command(f"{name(page)}, in the text", words, runs=False)


BLOCKS = {page: [*blocks(page)] for page in PAGES}
TO_RUN = [page for page in PAGES if any(not b.needs and b.language != "text" for b in BLOCKS[page])]
COMMANDS = [
    command
    for page in PAGES
    for commands in (
        *(block_commands(block) for block in BLOCKS[page] if block.language == "bash"),
        inline_commands(page),
    )
    for command in commands
]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_say_what_they_are(page: Path) -> None:
    for block in BLOCKS[page]:
        assert block.language in ("bash", "python", "text"), f"{block.where}: {block.language!r}"
        assert block.needs in NEEDS, f"{block.where}: needs {block.needs!r}, none of {NEEDS}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, compilation_cache: dict[str, str]) -> Path:
    """A folder with what the pages take to be there: folders of the repository, and a run."""
    folder = tmp_path_factory.mktemp("pages")
    for part in ("configs", "launch", "benchmarks", "notebooks"):
        (folder / part).symlink_to(ROOT / part)
    words = [*MAIN, "--config=configs/digits.py", "--config.train.steps=4"]
    subprocess.run(words, cwd=folder, env=environment(compilation_cache, devices=2), check=True)
    return folder


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=name(page), marks=[pytest.mark.slow] if page.stem in LONG else [])
        for page in TO_RUN
    ],
)
def test_page_runs(
    page: Path, trained: Path, tmp_path: Path, compilation_cache: dict[str, str]
) -> None:
    program = ["import subprocess"]
    for block in BLOCKS[page]:
        if block.language == "python" and not block.needs:
            program += [f"# {block.where}", block.code]
        if block.language == "bash" and not block.needs:
            for command in block_commands(block):
                words = command.main
                assert words is not None, f"{command}\nis not run here: mark what it needs"
                few = ["--config.train.steps=4"] if trains(words) else []
                program.append(f"subprocess.run({[*MAIN, *words, *few]}, check=True)")
    shutil.copytree(trained, tmp_path, symlinks=True, dirs_exist_ok=True)
    (tmp_path / "page.py").write_text("\n".join(program), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "page.py"],
        cwd=tmp_path,
        env=environment(compilation_cache, devices=2),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def refusal(words: list[str]) -> str:
    """Returns what the program says against the flags of a command; "" if it takes them."""
    try:
        command = parse.parse(["pixel-rnn-jax", *words])
        if command.func is parse.VERBS["train"].run:
            config_lib.from_config_dict(command.args[0].config)
    except ValueError as error:
        return str(error)
    except SystemExit:  # After --help or --version.
        pass
    return ""


def test_flags_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every command, also those that a test runs: where they do not, others would not either."""
    monkeypatch.chdir(ROOT)
    wrong = []
    for command in COMMANDS:
        if (words := command.main) is not None:
            if trains(words) and not any(word.startswith("--config=") for word in words):
                words = [*words, "--config=digits"]  # In text that speaks of another flag.
            named = re.search("--(workdir|model)", " ".join(words))
            alone = named or words[0] in parse.WITHOUT_MODEL
            if said := refusal(words if alone else [*words, "--workdir=a"]):
                wrong.append(f"{command}\n  {said}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("file", WITH_FIELDS, ids=name)
def test_fields_exist(file: Path) -> None:
    """Of every --config.FIELD=VALUE, also in config files and scripts; and the value's type."""
    value = r"'[^']*'|\"[^\"]*\"|[^\s`|\\]+"
    text = file.read_text(encoding="utf-8")
    for override, found in re.findall(rf"(--config\.[a-z_.]+=)({value})", text):
        parse.parse(["pixel-rnn-jax", "--config=digits", override + found.strip("'\"")])


def dry(words: list[str]) -> list[str]:
    """Returns the command of a launch script that shows what it would do."""
    script, *rest = words[1:]
    # After the word that says what to do, and before the verb and the flags of main.
    place = 0 if script.endswith(".sbatch") else 1
    return ["bash", script, *rest[:place], "--dry_run", *rest[place:]]


@pytest.mark.parametrize(
    "command", [command for command in COMMANDS if command.main is None], ids=lambda c: c.where
)
def test_other_commands(command: Command) -> None:
    """Scripts are there and have what they are given; launchers show what they would do."""
    program, *rest = command.words
    target = rest[0] if rest else ""
    if target.startswith(("launch/", "benchmarks/", "notebooks/")):
        text = (ROOT / target).read_text(encoding="utf-8")
        if "--dry_run" in text and rest[1:]:
            done = subprocess.run(
                dry(command.words), cwd=ROOT, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        elif target == "launch/test.sh":  # The rest goes to pytest.
            for word in rest[1:]:
                assert not word.startswith("tests/") or (ROOT / word).exists(), command
        else:
            passes_on = "[FLAGS OF TRAIN]" in text  # Fields are checked by `test_fields_exist`.
            for word in rest[1:]:
                flag = word.partition("=")[0]
                quoted = f'"{flag}"' if target.endswith(".py") else flag  # Not in a docstring.
                known = quoted in text or (passes_on and word.startswith("--config."))
                assert known, f"{command}\n{target} does not know {word}"
    elif program == "pip":
        extras = re.findall(r'^ +"(\w+)": \[', (ROOT / "setup.py").read_text(), re.MULTILINE)
        for wanted in re.findall(r"\[(.*)\]", " ".join(rest)):
            assert {*wanted.split(",")} <= {*extras}, f"{command}\nno such extra in setup.py"
    elif program == "python":
        ast.parse(rest[1])
    else:
        known = program in FOREIGN or command.words in (["bash"], ["sbatch"], ["mpirun"])
        assert known and not command.runs, f"{command}\nthis test does not know {program}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_exist(page: Path) -> None:
    """Those that a page names in backticks or as links."""
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`([\w./-]+\.(?:py|sh|sbatch|md|ipynb|cff|yaml))(?::\w+)?`", text)
    linked = re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", text)
    package = ROOT / "pixel_rnn_jax"
    folders = [ROOT, ROOT / "configs", ROOT / "launch", package, *package.glob("*/")]
    missing = [path for path in linked if not (page.parent / path).exists()] + [
        path
        for path in named
        if "NAME" not in path and not any((folder / path).exists() for folder in folders)
    ]
    assert not missing
