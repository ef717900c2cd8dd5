#!/usr/bin/env bash
# Trains on the nodes of a Kubernetes cluster; see --help.
set -euo pipefail

help() {
  cat <<'HELP'
Usage: bash launch/kubernetes.sh COMMAND --name=NAME [OPTIONS] [VERB] [FLAGS]

Runs `python -m pixel_rnn_jax.main [VERB] [FLAGS]` (train or evaluate) as one run of several pods,
by means of launch/kubernetes.yaml. It needs bash 4.4 or later, kubectl and, in the cluster, JobSet
(https://jobset.sigs.k8s.io). Pods that fail start again together and go on from the last
checkpoint; a mistake in the arguments ends the run at once.

  run     applies the manifest; a run of that name that is there already stays as it is
  logs    shows the log of process 0 from its beginning and follows it
  delete  ends the run, after a checkpoint, and deletes it

  --image=IMAGE                 what the pods run, see below; needed by run
  --hosts=N                     number of pods, each a process (default: 2)
  --accelerator=RESOURCE:COUNT  of each pod (default: nvidia.com/gpu:8)
  --selector=KEY=VALUE          a label that the nodes must have; may be repeated
  --claim=CLAIM:DIR             a volume claim that the pods share, and where they see it
  --service_account=ACCOUNT     (default: default)
  --namespace=NAMESPACE         (default: kubectl's own)
  --dry_run                     prints the manifest and the command; sends nothing

  bash launch/kubernetes.sh run --name=a --image=IMAGE --claim=shared:/data \
    --config=configs/imagenet32.py --config.data.data_dir=/data/tfds --workdir=/data/runs/a
  bash launch/kubernetes.sh run --name=b --image=IMAGE --hosts=4 --accelerator=google.com/tpu:4 \
    --selector=cloud.google.com/gke-tpu-accelerator=tpu-v5-lite-podslice \
    --selector=cloud.google.com/gke-tpu-topology=4x4 \
    --config=configs/cifar10.py --workdir=gs://BUCKET/b

The options come first. train needs --config=FILE, a file in the image. --workdir must be in a
bucket or under the DIR of --claim. The image is any in which this repository was installed with pip
and is the working directory, for example (with tpu in the place of cuda for TPUs)

  FROM python:3.13
  COPY . /pixel-rnn-jax
  WORKDIR /pixel-rnn-jax
  RUN pip install '.[cuda,gcs]'
HELP
}

# shellcheck source=launch/words.sh
source "$(dirname "${BASH_SOURCE[0]}")/words.sh"

command=${1:-}
[[ $# -eq 0 ]] || shift
case $command in
  --help | -h)
    help
    exit
    ;;
  run | logs | delete) ;;
  *) fail "the first word must be run, logs or delete, got '$command'; see --help" ;;
esac
((BASH_VERSINFO[0] * 10 + BASH_VERSINFO[1] >= 44)) ||
  fail "this is bash $BASH_VERSION: install 4.4 or later (on macOS: brew install bash)"

name='' image='' hosts=2 accelerator=nvidia.com/gpu:8 selectors=() claim=''
service_account=default namespace='' dry_run=''
while [[ $# -gt 0 ]]; do
  case $1 in
    --help | -h)
      help
      exit
      ;;
    --name=*) name=${1#*=} ;;
    --image=*) image=${1#*=} ;;
    --hosts=*) hosts=${1#*=} ;;
    --accelerator=*) accelerator=${1#*=} ;;
    --selector=*) selectors+=("${1#*=}") ;;
    --claim=*) claim=${1#*=} ;;
    --service_account=*) service_account=${1#*=} ;;
    --namespace=*) namespace=${1#*=} ;;
    --dry_run) dry_run=yes ;;
    [!-]* | --config* | -config* | --noconfig* | --workdir* | -workdir*) break ;; # main's
    *) fail "there is no option $1 (options come before the verb and the flags of main, and have" \
      "the form --name=NAME); see --help" ;;
  esac
  shift
done
# The name of a pod, which has 63 characters at most, is longer than that of the run.
[[ $name =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
  fail "give the run a name of at most 40 small letters, digits and hyphens with --name=NAME," \
    "got '$name'"
[[ $command == run || $# -eq 0 ]] || fail "$command takes options only, got '$1'"

kubectl_words=(kubectl ${namespace:+--namespace="$namespace"})
case $command in
  run) kubectl_words+=(apply --filename=-) ;;
  logs)
    kubectl_words+=(logs --follow --tail=-1 --container=main
      --selector="jobset.sigs.k8s.io/jobset-name=$name,batch.kubernetes.io/job-completion-index=0")
    ;;
  delete) kubectl_words+=(delete jobset "$name" --ignore-not-found) ;;
esac
pasteable=$(printf ' %q' "${kubectl_words[@]}")
pasteable=${pasteable# }
if [[ -z $dry_run ]] && ! command -v kubectl >/dev/null; then
  fail "kubectl is not on the PATH; install it and choose a cluster with kubectl config use-context"
fi
if [[ $command != run ]]; then
  if [[ $dry_run ]]; then
    echo "$pasteable"
    exit
  fi
  exec "${kubectl_words[@]}"
fi

read_words "$@"
[[ $image ]] || fail "say what the pods run with --image=IMAGE; --help shows how to build one"
[[ $hosts =~ ^[1-9][0-9]*$ ]] || fail "--hosts must be a number of pods, got '$hosts'"
[[ $accelerator =~ ^[^:]+:[1-9][0-9]*$ ]] ||
  fail "--accelerator must be RESOURCE:COUNT, such as nvidia.com/gpu:8, got '$accelerator'"
[[ ! $claim || $claim =~ ^[^:]+:/. ]] || fail "--claim must be CLAIM:/DIR, got '$claim'"
claim=${claim%/}
workdir=$(value_of workdir "${flags[@]}")
[[ $workdir == gs://?* || ($claim && $workdir == "${claim#*:}"/*) ]] ||
  fail "--workdir must be in a bucket (gs://BUCKET/NAME) or under the DIR of --claim=CLAIM:DIR:" \
    "the pods share no other disk, and theirs go with them"

# json TEXT: prints it as a JSON string that is YAML too.
json() {
  local LC_ALL=C text=$1 code character escape # bytes, whatever they mean
  text=${text//\\/\\\\}
  text=${text//\"/\\\"}
  for code in {1..31} 127; do
    printf -v escape '\\x%02x' "$code"
    printf -v character '%b' "$escape"
    printf -v escape '\\u%04x' "$code"
    text=${text//"$character"/"$escape"}
  done
  # YAML takes these for the ends of lines.
  text=${text//$'\xc2\x85'/'\u0085'}
  text=${text//$'\xe2\x80\xa8'/'\u2028'}
  text=${text//$'\xe2\x80\xa9'/'\u2029'}
  printf '"%s"' "$text"
}

# list ITEMS: prints a JSON list of what is JSON already.
list() {
  local IFS=,
  printf '[%s]' "$*"
}

arguments=("$(json "$verb")")
if [[ $hosts -gt 1 ]]; then
  # 55527 is the port that JAX chooses on Kubernetes. The kubelet fills in $(…).
  # shellcheck disable=SC2016
  arguments+=("\"--coordinator=$name-worker-0-0.$name:55527\"" "\"--num_processes=$hosts\""
    '"--process_id=$(JOB_COMPLETION_INDEX)"')
fi
for argument in "${flags[@]}"; do
  arguments+=("$(json "${argument//$/\$\$}")") # $$ is a $ to the kubelet
done
labels=()
for selector in ${selectors[@]+"${selectors[@]}"}; do
  [[ $selector == ?*=* ]] || fail "--selector must be KEY=VALUE, got '$selector'"
  labels+=("$(json "${selector%%=*}"): $(json "${selector#*=}")")
done
# NCCL needs more shared memory than containers have by themselves.
mounts=('{"name": "shm", "mountPath": "/dev/shm"}')
volumes=('{"name": "shm", "emptyDir": {"medium": "Memory"}}')
if [[ $claim ]]; then
  mounts+=('{"name": "shared", "mountPath": '"$(json "${claim#*:}")}")
  volumes+=('{"name": "shared", "persistentVolumeClaim": {"claimName": '"$(json "${claim%%:*}")}}")
fi

declare -A values=(
  [name]=$(json "$name") [hosts]=$hosts [image]=$(json "$image")
  [service_account]=$(json "$service_account")
  [selector]="{$(IFS=, && echo "${labels[*]-}")}"
  [arguments]=$(list "${arguments[@]}")
  [limits]="{$(json "${accelerator%%:*}"): ${accelerator##*:}}"
  [mounts]=$(list "${mounts[@]}") [volumes]=$(list "${volumes[@]}")
)
manifest=''
# shellcheck disable=SC2016
while IFS= read -r line; do
  while [[ $line == *'${'*'}'* ]]; do # in one pass: what is filled in is not looked at again
    manifest+=${line%%'${'*}
    line=${line#*'${'}
    manifest+=${values[${line%%'}'*}]}
    line=${line#*'}'}
  done
  manifest+=$line$'\n'
done <"$(dirname "${BASH_SOURCE[0]}")/kubernetes.yaml"

if [[ $dry_run ]]; then
  printf "%s <<'MANIFEST'\n%sMANIFEST\n" "$pasteable" "$manifest"
  exit
fi
"${kubectl_words[@]}" <<<"${manifest%$'\n'}"
echo "Its log: bash launch/kubernetes.sh logs --name=$name${namespace:+ --namespace=$namespace}"
