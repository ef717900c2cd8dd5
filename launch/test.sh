#!/usr/bin/env bash
# Usage: bash launch/test.sh [ARGUMENTS OF PYTEST]
#
# Runs ruff, mypy, import-linter and pytest in the environment that launch/local.sh uses, with the
# package's extra `dev`. The files of tests are shared out over all cores. Tests marked slow are left
# out unless -m says otherwise.
#
#   bash launch/test.sh                             format, lint, types, imports, quick tests
#   bash launch/test.sh -m slow                     the slow tests
#   bash launch/test.sh -m ""                       all tests
#   bash launch/test.sh tests/model/test_masks.py   one file
#
# PYTHON=python3.11 in the environment chooses the interpreter, as for launch/local.sh.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "$0")/environment.sh"
install dev

cd "$root"
"$python" -m ruff format --check
"$python" -m ruff check
"$python" -m mypy
"$environment/bin/lint-imports" --no-logo
exec "$python" -m pytest --numprocesses=auto --dist=loadfile --no-loadscope-reorder "$@"
