#!/usr/bin/env bash
# Trains with several processes on this machine; see --help.
set -euo pipefail

if [[ $# -eq 0 || $1 == --help || $1 == -h ]]; then
  cat <<'HELP'
Usage: bash launch/processes.sh N [--restarts=R] [--dry_run] [VERB] [FLAGS]

Runs `python -m pixel_rnn_jax.main [VERB] [FLAGS]` as N processes of one run, each with an equal
part of this machine's cores (or of its NVIDIA GPUs) and of every batch. VERB is train or evaluate;
training without --config and --workdir takes configs/digits.py.

  bash launch/processes.sh 2                               two processes train on digits
  bash launch/processes.sh 2 --restarts=3                  start again after a crash, thrice at most
  bash launch/processes.sh 2 --dry_run                     only show the commands

The first process writes here, the others to files that are named at the start. If one ends before
its time, this script says which and how, ends the others, and with --restarts starts all of them
again, which go on from the last checkpoint; an error that says what to put right is not tried
again. Ctrl-C or SIGTERM lets all of them save and stop.

JAX_NUM_CPU_DEVICES in the environment gives another number of CPU devices for each process.
HELP
  exit
fi

# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
launcher=("$python")
"$python" -c '' 2>/dev/null || launcher=("$(find_python)")
launcher+=("$root/launch/processes.py" "$python")
dry_run=$("${launcher[@]}" "$1" --dry_run "${@:2}") # refuses wrong words before it is installed
for word in "${@:2}"; do
  case $word in
    --dry_run)
      echo "$dry_run"
      exit
      ;;
    --restarts=*) ;;
    *) break ;;
  esac
done
install "$(accelerator)"
exec "${launcher[@]}" "$@"
