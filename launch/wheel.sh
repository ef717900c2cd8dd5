#!/usr/bin/env bash
# Usage: bash launch/wheel.sh
#
# Shows that the package works without the repository: builds its sdist, checks it, installs it into a
# temporary folder, looks for its models, and trains from another folder for two steps. The packages
# that it needs are those of the environment that launch/test.sh uses.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "$0")/environment.sh"
install dev

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# A copy: a build in the repository would leave files there, and take up those of an earlier one.
mkdir "$folder/source" "$folder/elsewhere"
cp -R "$root"/{setup.py,pyproject.toml,README.md,LICENSE,pixel_rnn_jax,configs} "$folder/source"
(cd "$folder/source" && "$python" -c 'from setuptools import build_meta as b; b.build_sdist("../sdist")') \
  >"$folder/log" 2>&1 || { cat "$folder/log" && exit 1; }
"$python" -m twine check --strict "$folder/sdist/"*
"$python" -m pip install --quiet --disable-pip-version-check --no-compile --no-deps \
  --no-build-isolation --target "$folder/site" "$folder/sdist/"*

ls "$folder/site/pixel_rnn_jax/"{py.typed,weights/digits/model.safetensors}
cd "$folder/elsewhere"
export PYTHONPATH=$folder/site # before the repository, which the environment has too
"$folder/site/bin/pixel-rnn-jax" --help
"$folder/site/bin/pixel-rnn-jax" --config=digits --config.train.steps=2 --workdir=run
