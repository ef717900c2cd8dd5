"""Stands in for gcloud, srun, scontrol, squeue and kubectl: `python cluster_tools.py TOOL WORDS`.

A call is written to calls.jsonl in the directory CLUSTER_STUB. Words that the real tool would not
take are refused. What it answers comes from script.json there, which maps kinds of calls to lists
of [exit status, output]; each call takes the next one, and the last one stays. A kind that is not
in there succeeds silently.

With workers (directories worker-0, worker-1, … in CLUSTER_STUB), gcloud's ssh and scp really work,
with those as home directories.
"""

import json
import os
import sys
from pathlib import Path

STUB = Path(os.environ["CLUSTER_STUB"])

# The flags that the scripts may use; a value follows those that end in "=". No others are accepted.
FLAGS = {
    # https://cloud.google.com/sdk/gcloud/reference/compute/tpus/tpu-vm/create and so on; --project,
    # --quiet and --format are gcloud-wide flags (https://cloud.google.com/sdk/gcloud/reference).
    "gcloud compute tpus tpu-vm create": (
        "--zone= --accelerator-type= --version= --spot --project= --quiet"
    ),
    "gcloud compute tpus tpu-vm delete": "--zone= --project= --quiet",
    "gcloud compute tpus tpu-vm list": "--zone= --format= --project= --quiet",
    "gcloud compute tpus tpu-vm scp": "--worker= --zone= --project= --quiet",
    "gcloud compute tpus tpu-vm ssh": "--worker= --command= --zone= --project= --quiet",
    # https://slurm.schedmd.com/srun.html
    "srun": "--gpu-bind= --wait= --cpus-per-task=",
    # https://slurm.schedmd.com/scontrol.html, https://slurm.schedmd.com/squeue.html
    "scontrol requeue": "",
    "squeue": "--noheader --format= --jobs=",
    # https://kubernetes.io/docs/reference/kubectl/generated/ (kubectl_apply and so on);
    # --namespace is one of kubectl's own options and may come before the command.
    "kubectl apply": "--namespace= --filename=",
    "kubectl logs": "--namespace= --follow --tail= --container= --selector=",
    "kubectl delete": "--namespace= --ignore-not-found",
}
# The words that are no flags, by number.
POSITIONAL = {
    "gcloud compute tpus tpu-vm create": 1,
    "gcloud compute tpus tpu-vm delete": 1,
    "gcloud compute tpus tpu-vm list": 0,
    "gcloud compute tpus tpu-vm scp": 2,
    "gcloud compute tpus tpu-vm ssh": 1,
    "scontrol requeue": 1,
    "squeue": 0,
    "kubectl apply": 0,
    "kubectl logs": 0,
    "kubectl delete": 2,
}


def refuse(why: str) -> None:
    """Ends as the real tools do when they are called wrongly; no script expects this status."""
    with (STUB / "refused").open("a") as file:
        print(why, file=file)
    print(f"stub: {why}", file=sys.stderr)
    sys.exit(99)


def parse(argv: list[str]) -> tuple[str, dict[str, str], list[str]]:
    """Returns the command, its flags and its other words."""
    if argv[0] == "kubectl":  # takes flags before the command
        argv = ["kubectl", *sorted(argv[1:], key=lambda word: word.startswith("-"))]
    command = next((c for c in FLAGS if argv[: len(c.split())] == c.split()), None)
    if command is None:
        refuse(f"there is no command {argv}")
        raise AssertionError
    known = FLAGS[command].split()
    flags: dict[str, str] = {}
    rest = argv[len(command.split()) :]
    while rest and (command != "srun" or rest[0].startswith("-")):
        word = rest.pop(0)
        if not word.startswith("-"):
            flags.setdefault("", "")
            flags[""] += f"{word}\0"
            continue
        name, equals, value = word.partition("=")
        if name + equals not in known:
            refuse(f"{command} has no flag {word}")
        if name in flags:
            refuse(f"{command} has {name} twice")
        flags[name] = value
    words = rest if command == "srun" else flags.pop("", "").split("\0")[:-1]
    if len(words) != POSITIONAL.get(command, len(words)):
        refuse(f"{command} takes {POSITIONAL[command]} words, got {words}")
    if command.startswith("gcloud") and "--zone" not in flags:
        refuse(f"{command} needs --zone")
    return command, flags, words


def kind_of(command: str, flags: dict[str, str]) -> str:
    """Returns under what name script.json has the answer to a call."""
    kind = command.split()[-1]
    if kind == "ssh":
        for part, name in [
            ("if ! flock", "query"),
            ("tail", "follow"),
            ("kill", "kill"),
            ("mkdir", "install"),
            ("bash", "start"),
        ]:
            if flags["--command"].startswith(part):
                return name
    return kind


def answer(kind: str) -> tuple[int, str]:
    """Returns the exit status and the output that the script has for a call."""
    file = STUB / "script.json"
    script = json.loads(file.read_text()) if file.exists() else {}
    if kind not in script:
        return 0, ""
    status, output = script[kind][0]
    if len(script[kind]) > 1:
        script[kind].pop(0)
        file.write_text(json.dumps(script))
    return status, output


def on_workers(command: str, flags: dict[str, str], words: list[str]) -> int:
    """Does what ssh and scp do; returns the first exit status other than 0."""
    import shutil
    import subprocess

    workers = sorted(STUB.glob("worker-*"))
    if flags["--worker"] != "all":
        workers = [STUB / f"worker-{flags['--worker']}"]
    if command.endswith("scp"):
        for worker in workers:
            shutil.copy(words[0], worker / words[1].partition(":")[2])
        return 0
    environment = dict(os.environ, PATH=f"{STUB}/bin-on-workers:/usr/bin:/bin")
    processes = [
        subprocess.Popen(
            ["bash", "-c", flags["--command"]],
            cwd=worker,
            env=dict(environment, HOME=str(worker)),
            stdin=subprocess.DEVNULL,
        )
        for worker in workers
    ]
    return next((status for process in processes if (status := process.wait())), 0)


def main() -> int:
    """Takes one call."""
    argv = sys.argv[1:]
    command, flags, words = parse(argv)
    with (STUB / "calls.jsonl").open("a") as file:
        print(json.dumps({"argv": argv, "stdin": sys.stdin.read()}), file=file)
    if ("--command" in flags or command.endswith("scp")) and (STUB / "worker-0").exists():
        return on_workers(command, flags, words)
    status, output = answer(kind_of(command, flags))
    print(output, end="\n" if output else "")
    return status


if __name__ == "__main__":
    sys.exit(main())
