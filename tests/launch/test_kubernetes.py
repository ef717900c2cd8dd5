"""launch/kubernetes.sh: the manifest that a cluster gets, and what is refused before."""

import re
from typing import Any

import kubernetes_validate
import pytest
import yaml
from cluster import AWKWARD, LAUNCH, Cluster

KUBERNETES = LAUNCH / "kubernetes.sh"
RUN = ["run", "--name=a", "--image=registry/image:1", "--claim=shared:/data"]
TRAIN = ["--config=configs/digits.py", "--workdir=/data/runs/a"]


class StrictLoader(yaml.SafeLoader):
    """A YAML loader that refuses a key which is there twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key is there twice: {keys}"
        return super().construct_mapping(node, deep)


def applied(cluster: Cluster, *words: str) -> dict[str, Any]:
    """Returns the fields of the manifest that a run applies, its job, its pods and containers."""
    cluster.answer()
    run = cluster.run(KUBERNETES, *words)
    assert run.returncode == 0, run.stderr
    (record,) = cluster.records
    assert record["argv"] == ["kubectl", "apply", "--filename=-"]
    manifest = yaml.load(record["stdin"], StrictLoader)
    (job,) = manifest["spec"].pop("replicatedJobs")
    assert (job.pop("name"), job.pop("replicas"), job.keys()) == ("worker", 1, {"template"})
    valid = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {}, **job["template"]}
    for version in ("1.31", "1.37"):  # the first with a stable podFailurePolicy; a new one
        assert kubernetes_validate.validate(valid, version, strict=True) == version
    pod = job["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return {"job_set": manifest} | job["template"]["spec"] | pod | container


# A JobSet has these fields, and podFailurePolicy demands that restartPolicy, as of
# https://github.com/kubernetes-sigs/jobset/blob/main/api/jobset/v1alpha2/jobset_types.go
GPU_PODS = """
job_set:
  apiVersion: jobset.x-k8s.io/v1alpha2
  kind: JobSet
  metadata: {name: a}
  spec:
    network: {enableDNSHostnames: true, publishNotReadyAddresses: true}
    failurePolicy:
      maxRestarts: 20
      rules:
      - {name: userError, action: FailJobSet, onJobFailureReasons: [PodFailurePolicy]}
completions: 3
parallelism: 3
completionMode: Indexed
backoffLimit: 0
podFailurePolicy:
  rules:
  - {action: FailJob, onExitCodes: {containerName: main, operator: In, values: [2]}}
  - {action: Ignore, onPodConditions: [{type: DisruptionTarget, status: "True"}]}
  - {action: Ignore, onExitCodes: {containerName: main, operator: In, values: [143]}}
restartPolicy: Never
terminationGracePeriodSeconds: 300
name: main
image: registry/image:1
command: [python, -m, pixel_rnn_jax.main]
resources: {limits: {nvidia.com/gpu: 8}}
volumeMounts: [{name: shm, mountPath: /dev/shm}, {name: shared, mountPath: /data}]
volumes:
- {name: shm, emptyDir: {medium: Memory}}
- {name: shared, persistentVolumeClaim: {claimName: shared}}
nodeSelector: {}
serviceAccountName: default
# The processes find each other: https://jobset.sigs.k8s.io, which names a pod
# <jobset>-<replicated job>-<job index>-<pod index>.<jobset>
args: [train, "--coordinator=a-worker-0-0.a:55527", --num_processes=3,
  --process_id=$(JOB_COMPLETION_INDEX), --config=configs/digits.py, --workdir=/data/runs/a]
"""
TPU_PODS = """
completions: 1
resources: {limits: {google.com/tpu: 4}}
volumeMounts: [{name: shm, mountPath: /dev/shm}]
volumes: [{name: shm, emptyDir: {medium: Memory}}]
nodeSelector: {cloud.google.com/gke-tpu-accelerator: tpu-v5, cloud.google.com/gke-tpu-topology: 4x4}
serviceAccountName: trainer
args: [evaluate, --workdir=gs://bucket/a]
"""
TPU_OPTIONS = [
    *("--accelerator=google.com/tpu:4", "--service_account=trainer", "--hosts=1"),
    "--selector=cloud.google.com/gke-tpu-accelerator=tpu-v5",
    "--selector=cloud.google.com/gke-tpu-topology=4x4",
]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([*RUN, "--hosts=3", *TRAIN], GPU_PODS),
        ([*RUN[:3], *TPU_OPTIONS, "evaluate", "--workdir=gs://bucket/a"], TPU_PODS),
    ],
)
def test_manifest(words, expected, cluster):
    found, wanted = applied(cluster, *words), yaml.safe_load(expected)
    assert {name: found[name] for name in wanted} == wanted


def test_arguments_arrive(cluster):
    """The kubelet takes $(X) for a variable, if there is one, and $$ for a $."""

    def expanded(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else {"X": "x"}.get(match[1], match[0])

    words = [
        *("train", *TRAIN, *AWKWARD, "$(X) $$(X) $", "${hosts}", "", "MANIFEST"),
        *("- a: b # c", "a \x85 b \u2028 c \u2029 d"),
        "".join(map(chr, [*range(1, 32), 127, 0x85, 0xA0, 0x2028, 0x2029, 0xFEFF])),
    ]
    args = applied(cluster, *RUN, "--hosts=1", *words)["args"]
    assert [re.sub(r"\$\$|\$\(([^)]*)\)", expanded, word) for word in args] == words


LOGS = (
    "logs --follow --tail=-1 --container=main --selector=jobset.sigs.k8s.io/jobset-name=a,"
    "batch.kubernetes.io/job-completion-index=0"
)


@pytest.mark.parametrize("namespace", [[], ["--namespace=n"]])
@pytest.mark.parametrize(
    ("words", "call"),
    [
        ("run --image=i --claim=c:/d --config=c.py --workdir=/d/a", "apply --filename=-"),
        ("logs", LOGS),
        ("delete", "delete jobset a --ignore-not-found"),
    ],
)
def test_commands_and_dry_runs(words, call, namespace, cluster):
    command, *options = words.split()
    if command == "run":
        options += AWKWARD
    real = cluster.run(KUBERNETES, command, "--name=a", *namespace, *options)
    assert real.returncode == 0, real.stderr
    records = cluster.records
    assert [record["argv"] for record in records] == [["kubectl", *namespace, *call.split()]]

    cluster.answer()
    dry = cluster.run(KUBERNETES, command, "--name=a", *namespace, "--dry_run", *options)
    cluster.check_dry_run(dry, records)


def test_failure_of_kubectl(cluster):
    cluster.answer(apply=[3], logs=[4])
    run = cluster.run(KUBERNETES, *RUN, *TRAIN)
    assert run.returncode == 3 and not run.stdout
    assert cluster.run(KUBERNETES, "logs", "--name=a").returncode == 4
