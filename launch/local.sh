#!/usr/bin/env bash
# Usage: bash launch/local.sh [COMMAND] [FLAGS]
#
# Runs `python -m pixel_rnn_jax.main [COMMAND] [FLAGS]` on this machine, in an environment of its own
# (.venv), which the first call makes and installs the package into, for NVIDIA GPUs where it finds
# any. It needs Python >= 3.11 and, the first time, the network. Training without --config and
# --workdir takes configs/digits.py, which needs no data set.
#
#   bash launch/local.sh                                    train on digits, in runs/digits
#   bash launch/local.sh --config.train.steps=500           the same with one field changed
#   bash launch/local.sh --config=configs/mnist.py:row_lstm train on another set
#   bash launch/local.sh evaluate --model=runs/digits       another command
#   bash launch/local.sh train --help                       the flags of a command
#
# PYTHON=python3.11 in the environment chooses the interpreter (default: the newest of 3.13, 3.12,
# 3.11), which gets an environment of its own.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "$0")/environment.sh"
install "$(accelerator)"

if [[ ${1:-train} == train || $1 == --config* ]] && [[ ! " $*" =~ \ --?(config|workdir)(=|\ |$) ]]; then
  [[ ${1:-} != train ]] || shift # the default command
  set -- "--config=$root/configs/digits.py" "$@"
fi
exec "$python" -m pixel_rnn_jax.main "$@"
