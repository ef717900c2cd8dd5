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
from typing import NoReturn

STUB = Path(os.environ["CLUSTER_STUB"])

# How many words that are no flags a command takes (None: any number), and the flags that the
# scripts may use, which have a value if they end in "=". No others are accepted.
COMMANDS: dict[str, tuple[int | None, str]] = {
    # https://cloud.google.com/sdk/gcloud/reference/compute/tpus/tpu-vm/create and so on; --project,
    # --quiet and --format are gcloud-wide flags (https://cloud.google.com/sdk/gcloud/reference).
    "gcloud compute tpus tpu-vm create": (
        1,
        "--zone= --accelerator-type= --version= --spot --project= --quiet",
    ),
    "gcloud compute tpus tpu-vm delete": (1, "--zone= --project= --quiet"),
    "gcloud compute tpus tpu-vm list": (0, "--zone= --format= --project= --quiet"),
    "gcloud compute tpus tpu-vm scp": (2, "--worker= --zone= --project= --quiet"),
    "gcloud compute tpus tpu-vm ssh": (1, "--worker= --command= --zone= --project= --quiet"),
    # https://slurm.schedmd.com/srun.html
    "srun": (None, "--gpu-bind= --wait= --cpus-per-task="),
    # https://slurm.schedmd.com/scontrol.html, https://slurm.schedmd.com/squeue.html
    "scontrol requeue": (1, ""),
    "squeue": (0, "--noheader --format= --jobs="),
    # https://kubernetes.io/docs/reference/kubectl/generated/ (kubectl_apply and so on);
    # --namespace is one of kubectl's own options and may come before the command.
    "kubectl apply": (0, "--namespace= --filename="),
    "kubectl logs": (0, "--namespace= --follow --tail= --container= --selector="),
    "kubectl delete": (2, "--namespace= --ignore-not-found"),
}
SSH = {"if ! flock": "query", "tail": "follow", "kill": "kill", "mkdir": "install", "bash": "start"}


def refuse(why: str) -> NoReturn:
    """Ends as the real tools do when they are called wrongly; no script expects this status."""
    with (STUB / "refused").open("a") as file:
        print(why, file=file)
    sys.exit(99)


def parse(argv: list[str]) -> tuple[str, dict[str, str], list[str]]:
    """Returns the command, its flags and its other words."""
    if argv[0] == "kubectl":  # takes flags before the command
        argv = ["kubectl", *sorted(argv[1:], key=lambda word: word.startswith("-"))]
    command = next((c for c in COMMANDS if argv[: len(c.split())] == c.split()), None)
    if command is None:
        refuse(f"there is no command {argv}")
    count, known = COMMANDS[command]
    flags: dict[str, str] = {}
    words: list[str] = []
    for word in argv[len(command.split()) :]:
        if not word.startswith("-") or (command == "srun" and words):
            words.append(word)
            continue
        name, equals, value = word.partition("=")
        if name + equals not in known.split() or name in flags:
            refuse(f"{command} has no flag {word}, or has it twice")
        flags[name] = value
    if count not in (None, len(words)):
        refuse(f"{command} takes {count} words, got {words}")
    if command.startswith("gcloud") and "--zone" not in flags:
        refuse(f"{command} needs --zone")
    return command, flags, words


def answer(kind: str) -> tuple[int, str]:
    """Returns the exit status and the output that the script has for a kind of call."""
    file = STUB / "script.json"
    script = json.loads(file.read_text()) if file.exists() else {}
    if kind not in script:
        return 0, ""
    status, output = script[kind][0]
    if len(script[kind]) > 1:
        script[kind].pop(0)
        file.write_text(json.dumps(script))
    return status, output


def on_workers(flags: dict[str, str], words: list[str]) -> int:
    """Does what ssh and scp do; returns the first exit status other than 0."""
    import shutil
    import subprocess

    workers = sorted(STUB.glob("worker-*"))
    if flags["--worker"] != "all":
        workers = [STUB / f"worker-{flags['--worker']}"]
    if "--command" not in flags:
        for worker in workers:
            shutil.copy(words[0], worker / words[1].partition(":")[2])
        return 0
    path = f"{STUB}/bin-on-workers:/usr/bin:/bin"
    processes = [
        subprocess.Popen(
            ["bash", "-c", flags["--command"]],
            cwd=worker,
            env=os.environ | {"PATH": path, "HOME": str(worker)},
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
    if "--worker" in flags and (STUB / "worker-0").exists():
        return on_workers(flags, words)
    sent = flags.get("--command", "")
    kinds = [kind for start, kind in SSH.items() if sent.startswith(start)]
    status, output = answer(kinds[0] if kinds else command.split()[-1])
    print(output, end="\n" if output else "")
    return status


if __name__ == "__main__":
    sys.exit(main())
