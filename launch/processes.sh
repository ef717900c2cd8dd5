#!/usr/bin/env bash
# Usage: bash launch/processes.sh N [--dry_run] [COMMAND] FLAGS
#
# Runs `python -m pixel_rnn_jax.main [COMMAND] FLAGS` (train or evaluate) as N processes of one run on
# this machine, each with an equal part of its cores, or of its NVIDIA GPUs, and of every batch.
#
#   bash launch/processes.sh 2 --config=configs/digits.py            two processes train on digits
#   bash launch/processes.sh 2 --dry_run --config=configs/digits.py  prints the commands
#
# The first process writes here, the others to files that are named at the start. Ctrl-C or SIGTERM
# lets all of them save and stop. If one is lost, the others end within a minute, and the same command
# goes on from the last checkpoint. JAX_NUM_CPU_DEVICES in the environment gives another number of CPU
# devices for each process.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "$0")/environment.sh"

count=${1:-}
if [[ ! $count =~ ^[1-9][0-9]*$ ]]; then
  echo "error: the first argument must be the number of processes, got '$count'; see --help" >&2
  exit 2
fi
shift
dry_run=''
if [[ ${1:-} == --dry_run ]]; then
  dry_run=yes
  shift
fi

port=PORT logs=''
if [[ ! $dry_run ]]; then
  install "$(accelerator)"
  port=$("$python" -c 'import socket; print(socket.create_server(("", 0)).getsockname()[1])')
  logs=$(mktemp -d)
fi
cores=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
cores=${JAX_NUM_CPU_DEVICES:-$((cores / count > 0 ? cores / count : 1))}
if [[ ${CUDA_VISIBLE_DEVICES+set} ]]; then
  gpus=$(tr , '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -c .) || true
else
  gpus=$(nvidia-smi --list-gpus 2>/dev/null | wc -l) || true
fi
share=$((gpus / count))

pids=()
trap 'kill -TERM "${pids[@]}" 2>/dev/null' INT TERM HUP
for ((i = 0; i < count; i++)); do
  words=(env "JAX_NUM_CPU_DEVICES=$cores")
  ((share == 0)) || words+=("JAX_LOCAL_DEVICE_IDS=$(seq -s, $((i * share)) $((i * share + share - 1)))")
  words+=("$python" -m pixel_rnn_jax.main "$@"
    "--coordinator=127.0.0.1:$port" "--num_processes=$count" "--process_id=$i")
  if [[ $dry_run ]]; then
    printf '%q ' "${words[@]}" && echo
  elif ((i == 0)); then
    "${words[@]}" &
    pids+=($!)
  else
    echo "process $i writes to $logs/$i.log"
    "${words[@]}" >"$logs/$i.log" 2>&1 &
    pids+=($!)
  fi
done

status=0
for i in "${!pids[@]}"; do
  code=0
  wait "${pids[i]}" || code=$?
  while kill -0 "${pids[i]}" 2>/dev/null; do # a signal has ended the waiting, not the process
    code=0
    wait "${pids[i]}" || code=$?
  done
  ((code == 0 || code == 143)) || echo "process $i has ended with status $code" >&2
  ((status)) || status=$code
done
exit "$status"
