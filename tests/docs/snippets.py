"""The commands and Python snippets of the pages: found, read as words, and run.

Run as a program, this file takes `run` or `parse` and a file of JSON. `run` carries out a page, the
steps [kind, page, line, code or words], in the working directory: all Python in one namespace,
commands as processes. `parse` starts the commands `[words, ...]` and prints as JSON how each ended.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NEEDS = ("GPU", "TPU", "cluster", "data", "network", "time")
LANGUAGES = ("bash", "python", "text")
MAIN = ["python", "-m", "pixel_rnn_jax.main"]

# What running text has where a reader puts something of their own.
PLACEHOLDERS = {
    "CONFIG:VARIANT": "digits:row_lstm",
    "DIR": "runs/digits",
    "DIR2": "runs/other",
    "DISCRETE": "runs/digits",
    "CONTINUOUS": "runs/other",
    "PATH": "images.npz",
    "N": "2",
    "I": "0",
}
INLINE = r"pixel-rnn-jax|python\s+-m\s+pixel_rnn_jax\.main|bash|sbatch|mpirun|python\s+benchmarks/"


@dataclass(frozen=True)
class Snippet:
    """A fenced block.

    Attributes:
        page: The file.
        line: The number of its first line of code, from 1 on.
        language: The word behind the fence.
        needs: What the comment before it says that running it needs; "" without one.
        code: Its text.
    """

    page: Path
    line: int
    language: str
    needs: str
    code: str


@dataclass(frozen=True)
class Command:
    """A command of the shell.

    Attributes:
        page: The file.
        line: The number of the line on which it begins.
        words: As the shell splits it, without assignments to environment variables.
        runs: Whether it is in a block that is to be run.
    """

    page: Path
    line: int
    words: tuple[str, ...]
    runs: bool

    def __str__(self) -> str:
        return f"{name(self.page)}, line {self.line}: {shlex.join(self.words)}"

    @property
    def main(self) -> list[str] | None:
        """The words behind the program's name if it is `pixel-rnn-jax`, however started."""
        words = list(self.words)
        if words[:2] == ["mpirun", "-n"]:
            words = words[3:]
        if words[:2] == ["bash", "launch/local.sh"]:
            # What the script adds.
            others = ["--config=configs/digits.py"] if _trains(words[2:]) else []
            return words[2:] + (others if not flag(words, "config") else [])
        if words[:3] == MAIN:
            return words[3:]
        return words[1:] if words[0] == "pixel-rnn-jax" else None

    @property
    def trains(self) -> bool:
        """Whether it is `pixel-rnn-jax` with the verb train."""
        return self.main is not None and _trains(self.main)


def name(page: Path) -> str:
    """Returns the path of a page as messages give it."""
    return str(page.relative_to(ROOT))


def flag(words: list[str], wanted: str) -> str | None:
    """Returns the value of --WANTED=VALUE among the words, or None."""
    found = [word.partition("=")[2] for word in words if re.match(rf"--?{wanted}=", word)]
    return found[-1] if found else None


def _trains(words: list[str]) -> bool:
    return not words or words[0].startswith("-") or words[0] == "train"


def snippets(page: Path) -> Iterator[Snippet]:
    """Yields the fenced blocks of a page, but for the directives of Sphinx."""
    lines = page.read_text(encoding="utf-8").splitlines()
    before, begun, language, needs = "", 0, "", ""
    for number, line in enumerate(lines, start=1):
        if not line.startswith("```"):
            before = line if line.strip() and not begun else before
        elif not begun:
            begun, language = number + 1, line.strip("` ")
            comment = re.fullmatch(r"<!-- needs: (.*) -->", before)
            needs = comment[1] if comment else ""
        else:
            if not language.startswith("{"):
                code = "\n".join(lines[begun - 1 : number - 1])
                yield Snippet(page, begun, language, needs, code)
            begun, before = 0, ""
    assert not begun, f"{name(page)}: the block of line {begun} has no end"


def block_commands(snippet: Snippet) -> Iterator[Command]:
    """Yields the commands of a block of shell; one may go over several lines."""
    text, begun = "", snippet.line
    for number, line in enumerate(snippet.code.splitlines(), start=snippet.line):
        text += line
        try:
            if text.endswith("\\"):
                text = text[:-1]
                continue
            words = shlex.split(text, comments=True)
        except ValueError:  # A quotation that goes on.
            text += "\n"
            continue
        while words and re.match(r"[A-Z_]+=", words[0]):
            words.pop(0)
        if words:
            yield Command(snippet.page, begun, tuple(words), runs=not snippet.needs)
        text, begun = "", number + 1
    assert not text, f"{name(snippet.page)}, line {begun}: a command that does not end"


def inline_commands(page: Path) -> Iterator[Command]:
    """Yields the commands with arguments in the running text and the tables of a page."""
    text = re.sub(
        r"^```.*?^```$",
        lambda block: re.sub(r".", " ", block[0]),
        page.read_text(encoding="utf-8"),
        flags=re.MULTILINE | re.DOTALL,
    )
    for match in re.finditer(rf"`((?:{INLINE})\s*[^`]*)`", text):
        line = text[: match.start()].count("\n") + 1
        # [--split=test] and CONFIG[:VARIANT] may be left out; 'test[:100]' is a split.
        plain = re.sub(r"(?<= )\[([^]]*)\]|(?<=[A-Z])\[([^]]*)\]", r"\1\2", match[1])
        words = []
        for word in shlex.split(plain.replace("…", "")):
            option, equals, value = word.rpartition("=")
            words.append(option + equals + PLACEHOLDERS.get(value, value))
        yield Command(page, line, tuple(words), runs=False)


def commands(page: Path) -> Iterator[Command]:
    """Yields all commands of a page."""
    for snippet in snippets(page):
        if snippet.language == "bash":
            yield from block_commands(snippet)
    yield from inline_commands(page)


def overrides(file: Path) -> Iterator[tuple[int, str, str]]:
    """Yields (line, field, value) of every --config.FIELD=VALUE in a text."""
    text = file.read_text(encoding="utf-8")
    for match in re.finditer(r"--config\.([a-z_.]+)=('[^']*'|\"[^\"]*\"|[^\s`|\\]+)", text):
        yield text[: match.start()].count("\n") + 1, match[1], match[2].strip("'\"")


def run(steps: list[list]) -> int:
    """Carries out the steps of a page; returns 1 after the first that fails, having said which."""
    namespace: dict = {"__name__": "__main__"}
    for kind, page, line, content in steps:
        if kind == "python":
            try:
                exec(compile("\n" * (line - 1) + content, page, "exec"), namespace)
            except BaseException:
                print(f"{page}, line {line}: this snippet fails\n{traceback.format_exc()}")
                return 1
            continue
        done = subprocess.run(
            [sys.executable, *MAIN[1:], *content], capture_output=True, text=True, check=False
        )
        if done.returncode:
            print(f"{page}, line {line}: pixel-rnn-jax {shlex.join(content)}")
            print(f"ended with status {done.returncode}\n{done.stdout}{done.stderr}"[-3000:])
            return 1
    return 0


def parse(arguments: list[list[str]]) -> list[tuple[int, str]]:
    """Runs `pixel-rnn-jax` with each list of words; returns (status, what it wrote).

    Each is a process of its own, forked from one that has imported what takes long.
    """
    import pixel_rnn_jax.main

    found = []
    for words in arguments:
        reading, writing = os.pipe()
        process = os.fork()
        if process == 0:
            os.dup2(writing, 1)
            os.dup2(writing, 2)
            os.close(reading)
            sys.argv = ["pixel-rnn-jax", *words]
            status = 70
            try:
                pixel_rnn_jax.main.run()
            except SystemExit as end:
                status = int(end.code or 0)
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        os.close(writing)
        with open(reading, encoding="utf-8") as output:
            written = output.read()
        _, code = os.waitpid(process, 0)
        found.append((os.waitstatus_to_exitcode(code), written))
    return found


if __name__ == "__main__":
    what, file = sys.argv[1:]
    content = json.loads(Path(file).read_text(encoding="utf-8"))
    if what == "run":
        sys.exit(run(content))
    print(json.dumps(parse(content)))
