#!/usr/bin/env bash
# Usage: bash launch/docs.sh [OPTIONS OF SPHINX-BUILD]
#
# Builds the pages of docs/ into docs/_build/html, in the environment that launch/local.sh uses, with
# the package's extra `docs`. Warnings are errors. Notebooks are shown with the outputs that they have.
# The page of web/ is copied beside them, with three models.
#
#   bash launch/docs.sh       what has changed since the last time
#   bash launch/docs.sh -E -a everything anew
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "$0")/environment.sh"
install docs

cd "$root"
"$python" -m sphinx -b html -W --keep-going "$@" docs docs/_build/html
cp -r web docs/_build/html
for name in mnist_diagonal_1x32 digits cifar10; do
  cp "pixel_rnn_jax/weights/$name/model.safetensors" "docs/_build/html/web/$name.safetensors"
done
