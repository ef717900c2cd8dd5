"""launch/tpu_pod.sh: what it asks of gcloud in every course that a run can take."""

import contextlib
import os
import shlex
import signal
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster import AWKWARD, LAUNCH, PYTHON, Cluster, Run

TPU = LAUNCH / "tpu_pod.sh"
PLACE = ["--zone=us-west4-a", "--quiet"]
SLICE = ["--name=a", "--zone=us-west4-a"]
MAIN = ["--config=configs/digits.py", "--workdir=gs://bucket/a"]
ARCHIVE = "~/.cache/pixel-rnn-jax/a/pixel-rnn-jax.tar.gz"


def gcloud(*words: str) -> list[str]:
    return ["gcloud", "compute", "tpus", "tpu-vm", *words, *PLACE]


def ssh(command: str, worker: str = "0") -> list[str]:
    return gcloud("ssh", "a", f"--worker={worker}", f"--command={command}")


CALLS = {
    "list": gcloud("list", "--format=value(name.basename(),state)"),
    "create": gcloud(
        "create", "a", "--accelerator-type=v5litepod-16", "--version=v2-alpha-tpuv5-lite"
    ),
    "delete": gcloud("delete", "a"),
    "query": ssh(
        "if ! flock --nonblock pixel-rnn-jax.lock true; then echo going; "
        "else cat pixel-rnn-jax.exit 2>/dev/null || echo none; fi"
    ),
    "copy": gcloud("scp", ARCHIVE, "a:pixel-rnn-jax.tar.gz", "--worker=all"),
    "install": ssh(
        "mkdir -p pixel-rnn-jax "
        "&& find pixel-rnn-jax -mindepth 1 -maxdepth 1 ! -name '.venv*' -exec rm -rf {} + "
        "&& tar --extract --gzip --file=pixel-rnn-jax.tar.gz --directory=pixel-rnn-jax "
        "&& bash pixel-rnn-jax/launch/tpu_pod.sh worker install",
        worker="all",
    ),
    "start": ssh(
        "bash pixel-rnn-jax/launch/tpu_pod.sh worker start 1700000000 train "
        "--config=configs/digits.py --workdir=gs://bucket/a",
        worker="all",
    ),
    "follow": ssh('tail --follow --pid="$(cat pixel-rnn-jax.pid)" --lines=+1 pixel-rnn-jax.log'),
    "refollow": ssh('tail --follow --pid="$(cat pixel-rnn-jax.pid)" --lines=10 pixel-rnn-jax.log'),
    "stop": ssh('kill -TERM -- "-$(cat pixel-rnn-jax.pid)"'),
}
NONE, READY = "ab\tREADY", "ab\tCREATING\na\tREADY"  # beside another slice


def tpu(cluster: Cluster, command: str = "run", *words: str) -> Run:
    return cluster.run(TPU, command, *SLICE, *words, *(MAIN if command == "run" else []))


# What the cluster answers, kind by kind, and the calls that it gets. RUN stands for four of them.
COURSES = """
fresh slice: {list: [none, READY], query: [ended 0], calls: list create RUN list query}
slice that is there: {list: [READY], query: [none, ended 0], calls: list query RUN list query}
run that has failed: {list: [READY], query: [ended 1, ended 0], calls: list query RUN list query}
run that has ended: {list: [READY], query: [ended 0, ended 0], calls: list query RUN list query}
run that is going: {list: [READY], query: [going, ended 0], calls: list query follow list query,
  says: A run is going on a already}
preemption: {list: [none, PREEMPTED, none, none, READY], create: [0, 1, 0], query: [ended 0],
  follow: [255, 0], sleeps: 30 300,
  calls: list create RUN list delete list create list create RUN list query}
broken connection: {list: [READY, 1, READY], query: [going, 255, going, ended 0],
  follow: [255, 0], sleeps: 30 30 30,
  calls: list query follow list list query list query refollow list query}
processes end before the slice is preempted: {list: [READY, READY, TERMINATED, none, READY],
  query: [none, ended 143, ended 0], sleeps: 60,
  calls: list query RUN list query list delete list create RUN list query}
worker that was restarted: {list: [READY, REPAIRING, READY], query: [none, none, ended 0],
  sleeps: 30, calls: list query RUN list list query RUN list query}
mistake: {list: [READY], query: [none, ended 2], status: 2, calls: list query RUN list query}
failure: {list: [READY], query: [none, ended 1], status: 1, sleeps: 60,
  calls: list query RUN list query list query}
signal: {list: [READY], query: [none, ended 143], status: 143, sleeps: 60,
  calls: list query RUN list query list query}
list fails: {list: [1], status: 1, calls: list}
create fails: {list: [none], create: [1], status: 1, calls: list create}
query fails: {list: [READY], query: [255], status: 1, calls: list query}
delete fails: {list: [PREEMPTED], delete: [1], status: 1, calls: list delete}
install fails: {list: [READY], query: [none], install: [1], status: 1,
  calls: list query copy install}
stopped slice: {list: [STOPPED], status: 2, calls: list, says: the slice a is STOPPED}
logs: {command: logs, list: [READY], query: [going, ended 3], status: 3,
  calls: list query follow query}
no run to log: {command: logs, list: [READY], query: [none], status: 2, calls: list query}
no slice to log: {command: logs, list: [none], status: 2, calls: list,
  says: the slice a in us-west4-a is not there}
delete: {command: delete, list: [READY], calls: list delete}
no slice to delete: {command: delete, list: [none], calls: list,
  says: There is no slice a in us-west4-a.}
stop: {command: stop, list: [READY], calls: list stop}
"""
PARSED: dict[str, dict[str, Any]] = yaml.safe_load(COURSES)


@pytest.mark.parametrize("name", PARSED)
def test_course(name, cluster):
    course = {"command": "run", "status": 0, "sleeps": "", "says": ""} | PARSED[name]
    slices = {"none": NONE, "READY": READY, 1: 1}
    states = [slices.get(state, f"a\t{state}") for state in course["list"]]
    kinds = ("create", "delete", "query", "follow", "install")
    cluster.answer(list=states, **{kind: course[kind] for kind in kinds if kind in course})
    cluster.write(cluster.bin / "tar", f'echo >>{cluster.directory}/tars; exec /usr/bin/tar "$@"')
    run = tpu(cluster, course["command"])
    assert run.returncode == course["status"], run.stderr
    calls = course["calls"].replace("RUN", "copy install start follow").split()
    assert cluster.calls == [CALLS[call] for call in calls]
    assert cluster.lines_of("sleeps") == str(course["sleeps"]).split()
    assert course["says"] in run.stderr
    assert len(cluster.lines_of("tars")) == ("copy" in calls)  # The same tree each time.


def test_options_of_the_slice(cluster):
    cluster.answer(list=[NONE, READY], query=["ended 0"])
    run = tpu(cluster, "run", "--type=v6e-64", "--spot", "--project=p")
    assert run.returncode == 0, run.stderr
    create = "create a --accelerator-type=v6e-64 --version=v2-alpha-tpuv6e --spot"
    where = ["--zone=us-west4-a", "--project=p", "--quiet"]
    assert cluster.calls[1][4:] == [*create.split(), *where]
    assert all(call[-3:] == where for call in cluster.calls)


@pytest.mark.parametrize(
    ("slice_type", "version"),
    [
        # https://cloud.google.com/tpu/docs/runtimes
        ("v6e-16", "v2-alpha-tpuv6e"),
        ("v5p-16", "v2-alpha-tpuv5"),
        ("v5litepod-16", "v2-alpha-tpuv5-lite"),
        ("v4-16", "tpu-ubuntu2204-base"),
        ("v3-32", "tpu-ubuntu2204-base"),
    ],
)
def test_runtime_version(slice_type, version, cluster):
    words = "run", f"--type={slice_type}", "--dry_run"
    made = f" --accelerator-type={slice_type} --version="
    assert f"{made}{version} " in tpu(cluster, *words).stdout
    assert f"{made}mine " in tpu(cluster, *words, "--version=mine").stdout


@pytest.mark.parametrize("command", ["run", "logs", "stop", "delete"])
def test_dry_run_prints_what_a_run_sends(command, cluster):
    runs = command == "run"
    words = [*SLICE, *MAIN, *AWKWARD] if runs else SLICE
    states = [NONE, READY] if runs else [READY]
    courses = ["ended 0"] if runs else ["going", "ended 0"]
    archive = cluster.home / ARCHIVE.removeprefix("~/")
    cluster.answer(list=states, query=courses)
    real = cluster.run(TPU, command, *words)
    assert real.returncode == 0, real.stderr
    records = cluster.records
    assert archive.exists() == runs
    archive.unlink(missing_ok=True)

    cluster.answer(list=states, query=courses)
    dry = cluster.run(TPU, command, "--dry_run", *words)
    assert not archive.exists()
    cluster.check_dry_run(dry, records)
    assert archive.exists() == runs


def test_last_flag_counts_as_for_main(cluster):
    options = ["--dry_run", "train", "--config=no.py", "--config", "configs/mnist.py:row_lstm"]
    for workdir, status in (("--workdir gs://b/a", 0), ("--workdir=gs://b/a --workdir=a", 2)):
        run = cluster.run(TPU, "run", *SLICE, *options, *workdir.split())
        assert run.returncode == status, shlex.join(run.args)


def test_without_gcloud(cluster):
    (cluster.bin / "gcloud").unlink()
    cluster.check_refused(tpu(cluster), "install the Google Cloud CLI")


# On workers, where commands are really carried out.

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


@pytest.fixture
def workers(cluster):
    """Two workers, which have Python 3.10 and no uv."""
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


def test_run(cluster, workers):
    trees = [worker / "pixel-rnn-jax" for worker in workers]
    trees[0].mkdir()
    (trees[0] / "stale.py").touch()
    run = cluster.run(TPU, "run", *SLICE, *MAIN, *AWKWARD)
    assert run.returncode == 7, run.stderr
    assert run.stdout.splitlines() == [str(trees[0]), "working"]
    for worker, tree in zip(workers, trees, strict=True):
        arguments = (worker / "arguments").read_text().split("\0")[:-1]
        assert arguments == ["train", "--distributed", *MAIN, *AWKWARD]
        assert (tree / "pixel_rnn_jax" / "main.py").exists() and (tree / "configs").exists()
        assert [path.name for path in tree.glob(".*")] == [".venv-python3.13"]
        assert not (tree / "stale.py").exists()
        log = cluster.lines_of("python.log", directory=worker)
        assert log.count("python3 -m pip install --quiet --user uv") == 1
        assert cluster.installed(worker) == [f"{tree}[tpu,gcs]"]
    with tarfile.open(cluster.home / ".cache/pixel-rnn-jax/a/pixel-rnn-jax.tar.gz") as tar:
        names = {Path(name).parts[0] for name in tar.getnames() if name != "."}
    assert {"launch", "setup.py", "README.md"} <= names
    assert not {name for name in names if name.startswith(".") or name == "runs"}

    # A second run finds the environment made.
    assert tpu(cluster).returncode == 7
    assert cluster.installed(workers[0]) == [f"{trees[0]}[tpu,gcs]"]


def wait_until(condition):
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


def test_one_run_at_a_time(cluster, workers):
    for worker in workers:
        (worker / "behaviour").write_text(
            f"trap 'exit 143' TERM; echo $$ >>{worker}/pids; while :; do sleep 0.1; done\n"
        )
        (worker / "pixel-rnn-jax.exit").write_text("ended 0\n")  # of an earlier run

    def begin(identity: str, worker: int) -> None:
        start = f"bash pixel-rnn-jax/launch/tpu_pod.sh worker start {identity} train"
        assert cluster.run("-c", shlex.join(ssh(start, worker=str(worker)))).returncode == 0

    def pids(worker: int) -> list[str]:
        return cluster.lines_of("pids", directory=workers[worker])

    # What `run` sends before it follows: from mkdir to the start.
    commands = tpu(cluster, "run", "--dry_run").stdout.splitlines()[2:7]
    assert cluster.run("-c", "\n".join(commands)).returncode == 0
    wait_until(lambda: bool(pids(0) and pids(1)))
    assert not any((worker / "pixel-rnn-jax.exit").exists() for worker in workers)

    begin("1700000000", 0)  # the same start, which gcloud repeats
    time.sleep(0.2)
    assert len(pids(0)) == 1
    assert cluster.run("-c", shlex.join(CALLS["query"])).stdout == "going\n"

    begin("1700000001", 1)  # a new run where worker 1 still has the old one
    wait_until(lambda: len(pids(1)) == 2)
    old, new = pids(1)
    wait_until(lambda: not lives(old))
    assert lives(new)

    assert tpu(cluster, "stop").returncode == 0
    assert tpu(cluster, "logs").returncode == 143
    wait_until(lambda: not lives(pids(0)[0]))
    assert lives(new)  # but the processes of a real run end together
