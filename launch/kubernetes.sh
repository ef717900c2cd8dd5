#!/usr/bin/env bash
# Usage: bash launch/kubernetes.sh ACTION --name=NAME [OPTIONS] [COMMAND] FLAGS
#
# Runs `python -m pixel_rnn_jax.main [COMMAND] FLAGS` (train or evaluate) as one run of several pods.
# It needs kubectl and, in the cluster, JobSet 0.6 or later (https://jobset.sigs.k8s.io). Pods that
# fail start again together and go on from the last checkpoint; an error of the user ends the run.
#
#   run     applies the manifest that --dry_run prints
#   logs    shows the log of process 0 from its beginning and follows it
#   delete  ends the run, after a checkpoint, and deletes it
#
#   --image=IMAGE                 what the pods run, see below; needed by run
#   --hosts=N                     number of pods, each a process (default: 2)
#   --accelerator=RESOURCE:COUNT  of each pod (default: nvidia.com/gpu:8)
#   --selector=KEY=VALUE          a label that the nodes must have; may be repeated
#   --claim=CLAIM:DIR             a volume claim that the pods share, and where they see it
#   --service_account=ACCOUNT     (default: default)
#   --namespace=NAMESPACE         (default: kubectl's own)
#   --dry_run                     prints the manifest or the command; sends nothing
#
#   bash launch/kubernetes.sh run --name=a --image=IMAGE --claim=shared:/data \
#     --config=configs/imagenet32.py --workdir=/data/runs/a
#   bash launch/kubernetes.sh run --name=b --image=IMAGE --hosts=4 --accelerator=google.com/tpu:4 \
#     --selector=cloud.google.com/gke-tpu-accelerator=tpu-v5-lite-podslice \
#     --selector=cloud.google.com/gke-tpu-topology=4x4 \
#     --config=configs/cifar10.py --workdir=gs://BUCKET/b
#
# The options come first. --workdir must be in a bucket or under the DIR of --claim. The image is any
# in which this repository was installed and is the working directory, for example (for TPUs with tpu)
#
#   FROM python:3.13
#   COPY . /pixel-rnn-jax
#   WORKDIR /pixel-rnn-jax
#   RUN pip install '.[cuda,gcs]'
#   ENV PIXEL_RNN_JAX_DATA=/data/sets
set -euo pipefail

if [[ $# -eq 0 || $1 == --help || $1 == -h ]]; then
  sed -n '/^# Usage/,/^[^#]/s/^# \{0,1\}//p' "$0"
  exit
fi

fail() {
  echo "error: $*; see --help" >&2
  exit 2
}

call() {
  if [[ $dry_run ]]; then
    printf '%q ' "$@" && echo
  else
    "$@"
  fi
}

# Prints a word as a JSON string, which is YAML too.
json() {
  local text=${1//\\/\\\\}
  printf '"%s"' "${text//\"/\\\"}"
}

action=$1
shift
name='' image='' hosts=2 accelerator=nvidia.com/gpu:8 selector='' mounts='' volumes=''
account=default namespace='' dry_run=''
while [[ $# -gt 0 ]]; do
  value=${1#*=}
  case $1 in
    --name=*) name=$value ;;
    --image=*) image=$value ;;
    --hosts=*) hosts=$value ;;
    --accelerator=*) accelerator=$value ;;
    --selector=*) selector+="$(json "${value%%=*}"): $(json "${value#*=}"), " ;;
    --claim=*)
      mounts=", {name: shared, mountPath: $(json "${value#*:}")}"
      volumes=", {name: shared, persistentVolumeClaim: {claimName: $(json "${value%%:*}")}}"
      ;;
    --service_account=*) account=$value ;;
    --namespace=*) namespace=$value ;;
    --dry_run) dry_run=yes ;;
    *) break ;;
  esac
  shift
done
[[ $name ]] || fail "--name=NAME is missing"

kubectl=(kubectl ${namespace:+--namespace="$namespace"})
case $action in
  run) [[ $image ]] || fail "--image=IMAGE is missing" ;;
  logs)
    call "${kubectl[@]}" logs --follow --tail=-1 --container=main \
      --selector="jobset.sigs.k8s.io/jobset-name=$name,batch.kubernetes.io/job-completion-index=0"
    exit
    ;;
  delete)
    call "${kubectl[@]}" delete jobset "$name" --ignore-not-found
    exit
    ;;
  *) fail "the first argument must be run, logs or delete, got '$action'" ;;
esac

arguments=''
for word in "$@"; do
  arguments+="$(json "${word//\$/\$\$}"), " # $$ is a $ to the kubelet
done
if ((hosts > 1)); then # JAX takes this port on Kubernetes; the kubelet fills in $(…)
  arguments+="--coordinator=$name-worker-0-0.$name:55527, --num_processes=$hosts"
  arguments+=", --process_id=\$(JOB_COMPLETION_INDEX)"
fi
send=("${kubectl[@]}" apply --filename=-)
[[ -z $dry_run ]] || send=(cat)
"${send[@]}" <<MANIFEST
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata: {name: $name}
spec:
  network: # pod 0 is NAME-worker-0-0.NAME, where the others find the coordinator
    enableDNSHostnames: true
    publishNotReadyAddresses: true
  failurePolicy: # all pods start again together, for one process cannot join the others later
    maxRestarts: 20
    rules:
    - {name: userError, action: FailJobSet, onJobFailureReasons: [PodFailurePolicy]}
  replicatedJobs:
  - name: worker
    replicas: 1
    template:
      spec:
        completionMode: Indexed
        completions: $hosts
        parallelism: $hosts
        backoffLimit: 0
        podFailurePolicy:
          rules: # status 2 is an error of the user, 143 and a disruption are no failures
          - {action: FailJob, onExitCodes: {containerName: main, operator: In, values: [2]}}
          - {action: Ignore, onPodConditions: [{type: DisruptionTarget, status: "True"}]}
          - {action: Ignore, onExitCodes: {containerName: main, operator: In, values: [143]}}
        template:
          spec:
            restartPolicy: Never
            terminationGracePeriodSeconds: 300 # to finish the step and save
            serviceAccountName: $account
            nodeSelector: {${selector%, }}
            containers:
            - name: main
              image: $(json "$image")
              command: [python, -m, pixel_rnn_jax.main]
              args: [${arguments%, }]
              ports: [{containerPort: 55527}]
              resources: {limits: {$(json "${accelerator%:*}"): ${accelerator##*:}}}
              volumeMounts: [{name: shm, mountPath: /dev/shm}$mounts]
            # NCCL needs more shared memory than containers have by themselves
            volumes: [{name: shm, emptyDir: {medium: Memory}}$volumes]
MANIFEST
