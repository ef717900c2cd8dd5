#!/usr/bin/env bash
# Usage: bash launch/tpu_pod.sh ACTION --name=NAME --zone=ZONE [OPTIONS] [COMMAND] FLAGS
#
# Runs `python -m pixel_rnn_jax.main [COMMAND] FLAGS` (train or evaluate) on every worker of a Cloud
# TPU slice, as one run. It needs gcloud, logged in, and for slices of several workers an ssh-agent
# that holds gcloud's key (ssh-add ~/.ssh/google_compute_engine).
#
#   run     creates the slice unless it is there (anew if it was preempted), copies this working tree
#           without hidden files and runs/, installs it, starts the run on all workers and follows its
#           log; a lost connection does not end the run
#   logs    shows the log of worker 0 from its beginning and follows it to the end of the run
#   stop    saves a checkpoint and ends the run; the slice stays
#   delete  deletes the slice, which costs until then
#
#   --type=TYPE        accelerator type (default: v5litepod-16)
#   --version=VERSION  runtime version (default: the one for the type)
#   --spot             a slice that is cheaper and may be preempted
#   --project=PROJECT  (default: gcloud's own)
#   --dry_run          prints the commands for a new slice; sends nothing
#
#   bash launch/tpu_pod.sh run --name=a --zone=us-west4-a --spot \
#     --config=configs/imagenet32.py --workdir=gs://BUCKET/imagenet32
#
# The options come first. --workdir must be in a bucket, which all workers reach and which outlives the
# slice. run and logs end with the run's exit status: after a preemption the same command goes on from
# the last checkpoint, so that `until bash launch/tpu_pod.sh run …; do sleep 300; done` completes a run.
set -euo pipefail

if [[ $# -eq 0 || $1 == --help || $1 == -h ]]; then
  sed -n '/^# Usage/,/^[^#]/s/^# \{0,1\}//p' "$0"
  exit
fi

fail() {
  echo "error: $*; see --help" >&2
  exit 2
}

action=$1
shift
name='' zone='' type=v5litepod-16 version='' spot='' project='' dry_run=''
while [[ $# -gt 0 ]]; do
  case $1 in
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --version=*) version=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --spot) spot=yes ;;
    --dry_run) dry_run=yes ;;
    *) break ;;
  esac
  shift
done
[[ $name && $zone ]] || fail "--name=NAME and --zone=ZONE say which slice"

call() {
  if [[ $dry_run ]]; then
    printf '%q ' "$@" && echo
  else
    "$@" </dev/null
  fi
}

tpu() {
  call gcloud compute tpus tpu-vm "$@" "--zone=$zone" ${project:+--project="$project"} --quiet
}

# The run holds the lock; its log, process group and exit status are beside it, in the home directory.
# shellcheck disable=SC2016
follow='tail --lines=+1 --follow pixel-rnn-jax.log & flock pixel-rnn-jax.lock sleep 1; kill $!
exit "$(cat pixel-rnn-jax.exit)"'

case $action in
  run) ;;
  logs)
    tpu ssh "$name" --worker=0 --command="$follow"
    exit
    ;;
  stop)
    # shellcheck disable=SC2016
    tpu ssh "$name" --worker=all --command='kill -TERM -- "-$(cat pixel-rnn-jax.pid)"'
    exit
    ;;
  delete)
    tpu delete "$name"
    exit
    ;;
  *) fail "the first argument must be run, logs, stop or delete, got '$action'" ;;
esac

[[ "$*" =~ --?workdir[=\ ]gs:// ]] || fail "--workdir must be in a bucket, as in --workdir=gs://BUCKET/NAME"
command=train
if [[ ${1:-} != -* ]]; then
  command=$1
  shift
fi
case $type in
  v6e-*) version=${version:-v2-alpha-tpuv6e} ;;
  v5p-*) version=${version:-v2-alpha-tpuv5} ;;
  v5litepod-*) version=${version:-v2-alpha-tpuv5-lite} ;;
  *) version=${version:-tpu-ubuntu2204-base} ;;
esac

state=''
[[ $dry_run ]] || state=$(tpu describe "$name" --format='value(state)' 2>/dev/null) || true
if [[ $state == PREEMPTED || $state == TERMINATED ]]; then
  tpu delete "$name"
  state=''
fi
[[ $state ]] || tpu create "$name" "--accelerator-type=$type" "--version=$version" ${spot:+--spot}

# The images have Python 3.10 only; uv brings a newer one, without root.
setup='flock --nonblock pixel-rnn-jax.lock true || { echo "error: a run is going on" >&2; exit 1; }
set -e
rm -rf pixel-rnn-jax
mkdir pixel-rnn-jax
tar --extract --gzip --file=pixel-rnn-jax.tar.gz --directory=pixel-rnn-jax
python3 -m pip install --quiet --user uv
~/.local/bin/uv venv --quiet --allow-existing --python=3.13 pixel-rnn-jax.venv
~/.local/bin/uv pip install --quiet --python=pixel-rnn-jax.venv --editable="pixel-rnn-jax[tpu,gcs]"'
flags=$(printf ' %q' "$command" --distributed "$@")
# A signal to the process group is for Python; its exit status is still written.
main="trap : TERM; cd pixel-rnn-jax; ~/pixel-rnn-jax.venv/bin/python -m pixel_rnn_jax.main$flags
echo \$? >~/pixel-rnn-jax.exit"
start="exec 9>pixel-rnn-jax.lock; flock --nonblock 9 || exit 1
setsid bash -c $(printf %q "$main") >pixel-rnn-jax.log 2>&1 </dev/null &
echo \$! >pixel-rnn-jax.pid"

root=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
archive=$folder/pixel-rnn-jax.tar.gz
call tar --create --gzip --file="$archive" --directory="$root" --exclude='./.*' --exclude=./runs \
  --exclude=__pycache__ --exclude='*.egg-info' .
tpu scp "$archive" "$name:" --worker=all
tpu ssh "$name" --worker=all --command="$setup"
tpu ssh "$name" --worker=all --command="$start"
tpu ssh "$name" --worker=0 --command="$follow"
