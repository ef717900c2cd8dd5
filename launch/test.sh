#!/usr/bin/env bash
# Checks the format, lints, checks the types and runs the tests; see --help.
set -euo pipefail

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
  cat <<'HELP'
Usage: bash launch/test.sh [ARGUMENTS OF PYTEST]

Runs ruff format --check, ruff check, mypy and pytest in the environment that launch/local.sh uses,
with the package's extra `dev`. The files of tests are shared out over all cores. Tests marked slow
are left out unless -m says otherwise.

  bash launch/test.sh                      what a change must pass
  bash launch/test.sh -m slow              the slow tests
  bash launch/test.sh -m ""                all tests
  bash launch/test.sh tests/models/test_masks.py  one file

PYTHON=python3.11 in the environment chooses the interpreter (default: the newest of 3.13, 3.12,
3.11), which gets an environment of its own.
HELP
  exit
fi

# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
install dev

cd "$root"
"$python" -m ruff format --check
"$python" -m ruff check
"$python" -m mypy
exec "$python" -m pytest --numprocesses=auto --dist=loadgroup --no-loadscope-reorder "$@"
