#!/usr/bin/env bash
# Builds the site of the documentation; see --help.
set -euo pipefail

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
  cat <<'HELP'
Usage: bash launch/docs.sh [OPTIONS OF SPHINX-BUILD]

Builds the pages of docs/ into docs/_build/html, in the environment that launch/local.sh uses, with
the package's extra `docs`. Warnings are errors. Notebooks are shown with the outputs that they have.

  bash launch/docs.sh       what has changed since the last time
  bash launch/docs.sh -E -a everything anew

PYTHON=python3.11 in the environment chooses the interpreter (default: the newest of 3.13, 3.12,
3.11), which gets an environment of its own. Only the first call needs the network.
HELP
  exit
fi

# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
install docs

cd "$root"
exec "$python" -m sphinx -b html -W --keep-going "$@" docs docs/_build/html
