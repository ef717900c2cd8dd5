"""launch/slurm.sbatch: what a job runs, when it goes back into the queue, and what it refuses."""

import shutil

import pytest
from cluster import AWKWARD, LAUNCH, PYTHON, ROOT, Cluster, Run

# https://slurm.schedmd.com/sbatch.html. The signal comes to the processes, but not to the script.
DIRECTIVES = """\
#SBATCH --job-name=pixel-rnn-jax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@300
#SBATCH --open-mode=append
"""
SCRIPT = LAUNCH / "slurm.sbatch"
SQUEUE = ["squeue", "--noheader", "--format=%T", "--jobs=42"]
REQUEUE = ["scontrol", "requeue", "42"]


class Slurm:
    """A repository on a shared disk, and a SLURM that starts jobs from it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.root = cluster.directory / "repository"
        (self.root / "launch").mkdir(parents=True)
        for path in (LAUNCH / "environment.sh", LAUNCH / "words.sh", SCRIPT, ROOT / "setup.py"):
            shutil.copy(path, self.root / path.relative_to(ROOT))
        cluster.write(cluster.bin / "python3.13", PYTHON)

    def job(self, *words: str, **changes: str) -> Run:
        """Does what sbatch does: runs a copy of the script, with what it knows in variables."""
        spool = self.cluster.directory / "slurm_script"
        shutil.copy(SCRIPT, spool)
        variables = {"JOB_ID": "42", "SUBMIT_DIR": str(self.root), "CPUS_PER_TASK": "8"}
        variables |= {"NTASKS_PER_NODE": "4", "GPUS_ON_NODE": "4"} | changes
        given = {f"SLURM_{name}": value for name, value in variables.items() if value}
        return self.cluster.run(spool, *words, cwd=self.root, **given)

    def srun(self, *words: str) -> list[str]:
        python = str(self.root / ".venv" / "bin" / "python")
        options = ["--gpu-bind=none", "--wait=300", "--cpus-per-task=8"]
        return ["srun", *options, python, "-m", "pixel_rnn_jax.main", *words]


@pytest.fixture
def slurm(cluster):
    return Slurm(cluster)


def test_directives():
    """At the top: sbatch stops looking at the first line that is no comment."""
    text = SCRIPT.read_text()
    assert text.startswith(f"#!/usr/bin/env bash\n{DIRECTIVES}# ")
    assert text.count("#SBATCH") == DIRECTIVES.count("#SBATCH")


@pytest.mark.parametrize(
    ("words", "status", "state", "requeued", "calls"),
    [
        (["train", "--config=c.py", *AWKWARD], 0, "RUNNING", 0, []),
        (["train", "--config=c.py"], 1, "RUNNING", 0, []),
        (["train", "--config=c.py"], 2, "RUNNING", 0, []),
        (["train", "--config=c.py"], 143, "RUNNING", 0, [SQUEUE, REQUEUE]),
        (["train", "--config=c.py"], 143, "RUNNING", 1, [SQUEUE, REQUEUE]),
        (["train", "--config=c.py"], 143, "COMPLETING", 0, [SQUEUE]),  # scancel
        (["evaluate", "--workdir=a"], 143, "RUNNING", 0, []),  # has saved nothing to go on from
    ],
)
def test_job(words, status, state, requeued, calls, slurm):
    slurm.cluster.answer(srun=[status], squeue=[state], requeue=[requeued])
    run = slurm.job(*(words[1:] if words[0] == "train" else words))
    assert run.returncode == status, run.stderr
    assert slurm.cluster.calls == [slurm.srun(*words), *calls]
    assert slurm.cluster.installed() == [f"{slurm.root}[cuda]"]
    assert ("submit it again" in run.stderr) == bool(requeued)


def test_signal_to_the_script_waits_for_the_run(slurm):
    slurm.cluster.answer(squeue=["RUNNING"])
    slurm.cluster.write(slurm.cluster.bin / "srun", "kill $PPID; /usr/bin/sleep 0.2; exit 143")
    assert slurm.job("--config=c.py").returncode == 143
    assert slurm.cluster.calls == [SQUEUE, REQUEUE]


def test_installs_each_extra_once_and_if_asked_beforehand(slurm):
    script, evaluate = slurm.root / "launch" / "slurm.sbatch", ["evaluate", "--workdir=gs://b/a"]
    runs = [
        slurm.job("--config=c.py", GPUS_ON_NODE=""),
        slurm.cluster.run(script, "--install", cwd=slurm.root),
        slurm.job("--config=c.py"),
        slurm.cluster.run(script, "--install", *evaluate, cwd=slurm.root),
        slurm.job(*evaluate),
        slurm.job(*evaluate, GPUS_ON_NODE=""),  # Needs fewer.
        slurm.job("--config=c.py", GPUS_ON_NODE=""),
    ]
    assert [run.returncode for run in runs] == [0] * 7
    extras = "", "[cuda]", "[cuda,gcs]"
    assert slurm.cluster.installed() == [f"{slurm.root}{extra}" for extra in extras]
    train = slurm.srun("train", "--config=c.py")
    assert slurm.cluster.calls == [train, train, *2 * [slurm.srun(*evaluate)], train]


def test_dry_run(slurm):
    words = ["--config=c.py", *AWKWARD]
    assert slurm.job(*words).returncode == 0
    records = slurm.cluster.records
    slurm.cluster.answer()
    dry = slurm.job("--dry_run", *words)
    slurm.cluster.check_dry_run(dry, records)
    outside = slurm.cluster.run(SCRIPT, "--dry_run", *words).stdout
    inside = dry.stdout.replace(str(slurm.root), str(ROOT))
    assert outside == inside.replace("--cpus-per-task=8 ", "")


@pytest.mark.parametrize(
    ("words", "variables", "message"),
    [
        ("--workdir=a", {}, "train needs --config=FILE"),
        ("--config=", {}, "train needs --config=FILE"),
        ("--config=c.py --dry_run", {}, "--dry_run comes before the verb"),
        ("sample --workdir=a", {}, "only train and evaluate"),
        ("--config=c.py", {"SUBMIT_DIR": "/usr"}, "is not the root of the"),
        ("--config=c.py", {"NTASKS_PER_NODE": "1"}, "got 1 for 4 GPUs"),
        ("--config=c.py", {"JOB_ID": ""}, "submit with sbatch"),
    ],
)
def test_mistakes(words, variables, message, slurm):
    run = slurm.job(*words.split(), **variables)
    if variables == {"JOB_ID": ""}:  # Then the script itself is run.
        run = slurm.cluster.run(SCRIPT, *words.split())
    slurm.cluster.check_refused(run, message)
    assert not slurm.cluster.installed()
