#!/usr/bin/env bash
# Trains on all workers of a Cloud TPU slice; see --help.
set -euo pipefail

help() {
  cat <<'HELP'
Usage: bash launch/tpu_pod.sh COMMAND --name=NAME --zone=ZONE [OPTIONS] [VERB] [FLAGS]

Runs `python -m pixel_rnn_jax.main [VERB] [FLAGS]` (train or evaluate) on every worker of a Cloud
TPU slice, as one run. It needs gcloud, logged in, and for slices of several workers an ssh-agent
that holds gcloud's key (ssh-add ~/.ssh/google_compute_engine).

  run     creates the slice unless it is there, installs, starts the run on all workers and follows
          the log of worker 0. A lost connection does not end the run. If the slice is preempted, it
          is deleted and created again, and the run goes on from its last checkpoint. Ends with the
          run's exit status. Where a run is going already, follows that one and starts none.
  logs    shows the log of the run from its beginning and follows it
  stop    saves a checkpoint and ends the run (exit status 143); the slice stays
  delete  deletes the slice

  --type=TYPE        accelerator type (default: v5litepod-16)
  --version=VERSION  runtime version (default: the one for the type)
  --spot             a slice that is cheaper and may be preempted
  --project=PROJECT  (default: gcloud's own)
  --dry_run          prints the commands for a new slice and a run without incident; sends nothing

  bash launch/tpu_pod.sh run --name=a --zone=us-west4-a --spot \
    --config=configs/imagenet32.py --workdir=gs://BUCKET/imagenet32
  bash launch/tpu_pod.sh logs --name=a --zone=us-west4-a      from any machine, at any time
  bash launch/tpu_pod.sh delete --name=a --zone=us-west4-a    it costs until then

The options come first. The workers get this working tree, without hidden files and runs/, so
--config is relative to its root; train needs one. --workdir must be in a bucket, which all workers
reach and which outlives the slice. A slice that was created otherwise is used as it is.
HELP
}

say() {
  [[ $dry_run ]] || echo "$*" >&2
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/words.sh
source "$root/launch/words.sh"

# What `run` calls on a worker, where the working directory is the home directory.
on_worker() {
  local action=$1 id status=0
  shift
  case $action in
    install)
      # The images have Python 3.10 only; uv brings a newer one, without root.
      python3 -m pip install --quiet --user uv
      ~/.local/bin/uv python install --quiet 3.13
      PYTHON=$(~/.local/bin/uv python find --no-project --managed-python 3.13)
      # shellcheck source=launch/environment.sh
      source "$root/launch/environment.sh"
      install tpu,gcs
      ;;
    start) # start ID VERB FLAGS
      id=$1
      shift
      exec 9>>pixel-rnn-jax.lock # is held as long as a process of the run lives
      if ! flock --nonblock 9; then
        # gcloud repeats a command whose connection broke: it may have come through before.
        [[ $(<pixel-rnn-jax.id) != "$id" ]] || return 0
        # Or else this is what is left of a run that has ended on worker 0.
        kill -KILL -- "-$(<pixel-rnn-jax.pid)" || true
        flock --timeout 60 9
      fi
      echo "$id" >pixel-rnn-jax.id
      rm -f pixel-rnn-jax.exit
      setsid bash "${BASH_SOURCE[0]}" worker main "$@" >pixel-rnn-jax.log 2>&1 </dev/null &
      echo $! >pixel-rnn-jax.pid
      ;;
    main)
      trap : TERM # goes to the whole group: the process saves, and its status is still written
      # shellcheck disable=SC2034
      PYTHON=python3.13 # by its name only: the environment is there
      # shellcheck source=launch/environment.sh
      source "$root/launch/environment.sh"
      (cd "$root" && exec "$python" -m pixel_rnn_jax.main "$1" --distributed "${@:2}") || status=$?
      echo "ended $status" >pixel-rnn-jax.exit
      ;;
  esac
}

command=${1:-}
[[ $# -eq 0 ]] || shift
case $command in
  --help | -h)
    help
    exit
    ;;
  worker)
    on_worker "$@"
    exit
    ;;
  run | logs | stop | delete) ;;
  *) fail "the first word must be run, logs, stop or delete, got '$command'; see --help" ;;
esac

name='' zone='' type=v5litepod-16 version='' spot='' project='' dry_run=''
while [[ $# -gt 0 ]]; do
  case $1 in
    --help | -h)
      help
      exit
      ;;
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --version=*) version=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --spot) spot=yes ;;
    --dry_run) dry_run=yes ;;
    [!-]* | --config* | -config* | --noconfig* | --workdir* | -workdir*) break ;; # main's
    *) fail "there is no option $1 (options come before the verb and the flags of main, and have" \
      "the form --name=NAME); see --help" ;;
  esac
  shift
done
[[ $name =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] ||
  fail "give the slice a name of small letters, digits and hyphens with --name=NAME, got '$name'"
[[ $zone ]] || fail "say where the slice is, for example --zone=us-west4-a"
[[ $command == run || $# -eq 0 ]] || fail "$command takes options only, got '$1'"

# call WORDS: runs a command, or prints it as one that can be pasted.
call() {
  if [[ $dry_run ]]; then
    printf '%q' "$1" >&3
    printf ' %q' "${@:2}" >&3
    echo >&3
  else
    "$@" </dev/null
  fi
}
exec 3>&1

tpu() {
  call gcloud compute tpus tpu-vm "$@" --zone="$zone" ${project:+--project="$project"} --quiet
}

# Prints the state of the slice, and nothing where there is none.
slice_state() {
  local listing
  # A list rather than `describe`, which fails alike for a slice that is gone and for no network.
  listing=$(tpu list --format='value(name.basename(),state)') || return
  if [[ $dry_run ]]; then
    echo "${rehearsed:+READY}"
  else
    awk -v name="$name" '$1 == name { print $2 }' <<<"$listing"
  fi
}

# Prints what the run on the slice does: none, going, or ended STATUS.
run_status() {
  # The exit status of gcloud will not do: gcloud has failures of its own.
  tpu ssh "$name" --worker=0 --command="if ! flock --nonblock pixel-rnn-jax.lock true; then \
echo going; else cat pixel-rnn-jax.exit 2>/dev/null || echo none; fi" || return
  [[ ! $dry_run ]] || echo "$rehearsed"
}

follow() { # follow LINES
  # The command is for the worker's shell.
  # shellcheck disable=SC2016
  tpu ssh "$name" --worker=0 \
    --command='tail --follow --pid="$(cat pixel-rnn-jax.pid)" --lines='"$1 pixel-rnn-jax.log"
}

if [[ -z $dry_run ]] && ! command -v gcloud >/dev/null; then
  fail "gcloud is not on the PATH; install the Google Cloud CLI and log in with gcloud auth login"
fi

if [[ $command != run ]]; then
  [[ -z $dry_run ]] || rehearsed=going
  state=$(slice_state)
  if [[ $command == delete && -z $state ]]; then
    say "There is no slice $name in $zone."
  elif [[ $command == delete ]]; then
    tpu delete "$name"
  elif [[ $state != READY ]]; then
    fail "the slice $name in $zone is ${state:-not there}; only a slice that is READY has a run"
  elif [[ $command == stop ]]; then
    # shellcheck disable=SC2016
    tpu ssh "$name" --worker=0 --command='kill -TERM -- "-$(cat pixel-rnn-jax.pid)"'
  else
    status=$(run_status)
    [[ $status != none ]] || fail "there is no run on the slice $name"
    follow +1
    status=$(run_status)
    say "The run: $status"
    [[ $status != ended\ * ]] || exit "${status#ended }"
  fi
  exit
fi

read_words "$@"
# Before bash 4.4, `set -u` refuses an empty array.
config=$(value_of config ${flags[@]+"${flags[@]}"})
[[ $verb != train || -f $root/${config%%:*} ]] ||
  fail "--config must name a file of this repository, such as configs/cifar10.py, got '$config'"
[[ $(value_of workdir ${flags[@]+"${flags[@]}"}) == gs://?* ]] ||
  fail "--workdir must be in a bucket, for example --workdir=gs://BUCKET/NAME: the workers share" \
    "no disk, and theirs go with the slice"
if [[ -z $version ]]; then
  case $type in
    v6e-*) version=v2-alpha-tpuv6e ;;
    v5p-*) version=v2-alpha-tpuv5 ;;
    v5litepod-*) version=v2-alpha-tpuv5-lite ;;
    v[234]-*) version=tpu-ubuntu2204-base ;;
    *) fail "give --version too: the runtime version for --type=$type is not known here" ;;
  esac
fi

# One archive for the whole run: what is edited meanwhile does not get into it after a preemption.
archive=${XDG_CACHE_HOME:-$HOME/.cache}/pixel-rnn-jax/$name/pixel-rnn-jax.tar.gz
packed=''
pack() {
  [[ -z $packed ]] || return 0
  call mkdir -p "${archive%/*}"
  call tar --create --gzip --file="$archive" --directory="$root" --exclude='./.*' --exclude=./runs \
    --exclude=__pycache__ --exclude='*.egg-info' .
  packed=yes
}

start() {
  local arguments
  pack
  tpu scp "$archive" "$name:pixel-rnn-jax.tar.gz" --worker=all || return
  tpu ssh "$name" --worker=all --command="mkdir -p pixel-rnn-jax \
&& find pixel-rnn-jax -mindepth 1 -maxdepth 1 ! -name '.venv*' -exec rm -rf {} + \
&& tar --extract --gzip --file=pixel-rnn-jax.tar.gz --directory=pixel-rnn-jax \
&& bash pixel-rnn-jax/launch/tpu_pod.sh worker install" || return
  arguments=$(printf ' %q' "$(date +%s)" "$verb" "${flags[@]}")
  tpu ssh "$name" --worker=all \
    --command="bash pixel-rnn-jax/launch/tpu_pod.sh worker start$arguments"
}

attached='' # whether the run on the slice is the one that this call answers for
confirmed='' lines=+1
rehearsed='' # in a dry run, what the slice would do

# Ends this call where it has no run to keep alive, and waits otherwise.
wait_or_exit() {
  [[ $attached ]] || exit 1
  say "Trying again in $1 seconds."
  sleep "$1"
}

watch() {
  say "Ctrl-C ends this view and its watch over preemptions, not the run."
  follow "$lines" || sleep 30
  lines=10
  rehearsed='ended 0'
}

while true; do
  if ! state=$(slice_state); then
    wait_or_exit 30
    continue
  fi
  case $state in
    READY)
      if ! status=$(run_status); then
        wait_or_exit 30
        continue
      fi
      ;;
    '')
      if ! tpu create "$name" --accelerator-type="$type" --version="$version" ${spot:+--spot}; then
        wait_or_exit 300
        continue
      fi
      status=none
      ;;
    PREEMPTED | TERMINATED | UNKNOWN)
      say "The slice is $state."
      tpu delete "$name" || wait_or_exit 30
      continue
      ;;
    CREATING | STARTING | RESTARTING | REIMAGING | REPAIRING | DELETING)
      say "The slice is $state; waiting."
      sleep 30
      continue
      ;;
    *) fail "the slice $name is $state; start it or delete it first" ;;
  esac

  if [[ $status == going ]]; then
    [[ $attached ]] || say "A run is going on $name already: following it, with its own arguments."
    attached=yes
    watch
  elif [[ $status == ended\ * && $attached ]]; then
    status=${status#ended }
    # A preemption ends the processes first, and shows in the state of the slice later.
    if [[ $status == 0 || $status == 2 || $confirmed ]]; then
      exit "$status"
    fi
    say "The run ended with status $status; whether the slice is lost will show in a minute."
    confirmed=yes
    sleep 60
  else
    if ! start; then
      wait_or_exit 30
      continue
    fi
    attached=yes confirmed='' lines=+1
    watch # at once: a run that ends soon has something to say too
  fi
done
