#!/usr/bin/env bash
# Trains on this machine, from nothing but Python >= 3.11; see --help.
set -euo pipefail

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
  cat <<'HELP'
Usage: bash launch/local.sh [VERB] [FLAGS]

Runs `python -m pixel_rnn_jax.main [VERB] [FLAGS]` in an environment of its own (.venv), which the
first call makes and installs the package into, for NVIDIA GPUs where it finds any. Training
without --config and --workdir takes configs/digits.py, which needs no data set.

  bash launch/local.sh                                    train on digits, in runs/digits
  bash launch/local.sh --config.train.steps=500           the same with one field changed
  bash launch/local.sh --config=configs/mnist.py:row_lstm train on another set
  bash launch/local.sh evaluate --workdir=runs/digits     another verb
  bash launch/local.sh train --help                       the flags of a verb

PYTHON=python3.11 in the environment chooses the interpreter (default: the newest of 3.13, 3.12,
3.11). Only the first call needs the network.
HELP
  exit
fi

# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
if [[ -x $python ]]; then # as it was made, perhaps where there was no GPU
  install
else
  install "$(accelerator)"
fi

verb=train
if [[ $# -gt 0 && $1 != -* ]]; then
  verb=$1
  shift
fi
if [[ $verb == train ]]; then # the other verbs take no config
  config=--config=$root/configs/digits.py
  for argument in "$@"; do
    [[ $argument =~ ^--?(config|workdir)(=|$) ]] && config= # a run has a config of its own
  done
  [[ -z $config ]] || set -- "$config" "$@"
fi
exec "$python" -m pixel_rnn_jax.main "$verb" "$@"
