"""Stand-ins for the tools of clusters, which the launch scripts call; no test reaches a cluster.

They (launch/stubs/cluster_tools.py) record every call and refuse what the real tools would not
take.
"""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LAUNCH = ROOT / "launch"
AWKWARD = ["--config.data.train_split=train[:10] 'a' \"b\" $(X) ${X} $X `x` \\ & *é😀", "a\tb\nc"]

# What a Python does in these tests: it makes environments of itself and records what it runs.
PYTHON = """
echo "${0##*/} $*" >>"$HOME/python.log"
case "$*" in
  "-m venv --clear "*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
  "-m pip install --quiet --user uv") mkdir -p ~/.local/bin && cp "${0%/*}/uv" ~/.local/bin ;;
  "-m pixel_rnn_jax.main "*)
    shift 2
    printf '%s\\0' "$@" >"$HOME/arguments"
    pwd
    . "$HOME/behaviour"
    ;;
  --version) echo Python 3.13.0 ;;
  "-m pip "* | "-c "*) ;;
  *) exit 64 ;;
esac
"""

Run = subprocess.CompletedProcess[str]


class Cluster:
    """The stand-ins, what they answer and what they were asked."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.bin, self.home = directory, directory / "bin", directory / "home"
        self.home.mkdir(parents=True)
        tools = LAUNCH.parent / "tests" / "launch" / "stubs" / "cluster_tools.py"
        for name in ("gcloud", "srun", "scontrol", "squeue", "kubectl"):
            command = shlex.join([sys.executable, "-I", "-S", str(tools), name])
            self.write(self.bin / name, f'exec {command} "$@"')
        self.write(self.bin / "sleep", f"echo $1 >>{directory}/sleeps")
        self.write(self.bin / "date", "echo 1700000000")

    def write(self, file: Path, text: str) -> None:
        """Writes a program."""
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)

    def answer(self, **script: list[Any]) -> None:
        """Says what the next calls give, outputs or exit statuses, and forgets earlier calls."""
        answers = {
            kind: [[item, ""] if isinstance(item, int) else [0, item] for item in items]
            for kind, items in script.items()
        }
        (self.directory / "script.json").write_text(json.dumps(answers))
        for name in ("calls.jsonl", "sleeps"):
            (self.directory / name).unlink(missing_ok=True)

    def run(self, *words: str | Path, cwd: Path = ROOT, **environment: str) -> Run:
        """Runs bash with the words."""
        path = {"PATH": f"{self.bin}:/usr/bin:/bin", "HOME": str(self.home), "LC_ALL": "C.UTF-8"}
        return subprocess.run(
            ["bash", *map(str, words)],
            cwd=cwd,
            env=path | {"CLUSTER_STUB": str(self.directory)} | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    @property
    def records(self) -> list[dict[str, Any]]:
        """The calls, with what came through their standard input."""
        return [json.loads(line) for line in self.lines_of("calls.jsonl")]

    @property
    def calls(self) -> list[list[str]]:
        """The words of the calls, with ~ for the home directory."""
        home = str(self.home)
        return [[word.replace(home, "~") for word in record["argv"]] for record in self.records]

    def lines_of(self, name: str, *, directory: Path | None = None) -> list[str]:
        file = (directory or self.directory) / name
        return file.read_text().splitlines() if file.exists() else []

    def installed(self, home: Path | None = None) -> list[str]:
        """Returns what the Python of an environment was asked to install."""
        pip = "python -m pip install --quiet --disable-pip-version-check --editable "
        lines = self.lines_of("python.log", directory=home or self.home)
        return [line.removeprefix(pip) for line in lines if line.startswith(pip)]

    def check_dry_run(self, dry: Run, records: list[dict[str, Any]]) -> None:
        """It has sent nothing; what it prints sends what the real run has sent."""
        assert dry.returncode == 0 and not dry.stderr
        assert not self.calls and not self.lines_of("sleeps")
        self.run("-c", dry.stdout)
        assert records and self.records == records

    def check_refused(self, run: Run, message: str) -> None:
        """A mistake is one sentence and status 2, and nothing is done."""
        assert run.returncode == 2 and not run.stdout and not self.calls
        assert run.stderr.startswith("error: ") and run.stderr.count("\n") == 1
        assert message in run.stderr
