#!/usr/bin/env bash
# Installs the package into an empty environment and uses it from another folder; see --help.
set -euo pipefail

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
  cat <<'HELP'
Usage: bash launch/wheel.sh

Shows that the package works without the repository: makes an empty environment in a temporary
folder, installs the package into it (not editable), and runs `pixel-rnn-jax` in another folder: its
version, 20 steps of training with a config that comes with the package, and samples. Then it
removes all of it. Takes the network and a few minutes.

PYTHON=python3.11 in the environment chooses the interpreter (default: the newest of 3.13, 3.12,
3.11).
HELP
  exit
fi

# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

found=$(find_python)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# A copy: a build in the repository would leave files there, and take up those of an earlier one.
mkdir "$folder/source" "$folder/elsewhere"
cp -R "$root"/{setup.py,pyproject.toml,README.md,LICENSE,pixel_rnn_jax,configs} "$folder/source"
"$found" -m venv "$folder/environment"
"$folder/environment/bin/python" -m pip install --quiet --disable-pip-version-check "$folder/source"
rm -rf "$folder/source"

cd "$folder/elsewhere"
unset PYTHONPATH
command=$folder/environment/bin/pixel-rnn-jax
"$command" --version
"$command" --config=digits --config.train.steps=20 --workdir=run
"$command" sample --workdir=run --n=4 --out=samples.png
