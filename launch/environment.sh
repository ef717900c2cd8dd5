# shellcheck shell=bash
# Sourced by the other scripts: makes the project's own Python environment.
#
# PYTHON=python3.11 in the environment chooses an interpreter, which then has an environment of its
# own beside the default one.

# The first lines of a script are its help.
if [[ ${1:-} == --help || ${1:-} == -h ]]; then
  sed -n '/^# Usage/,/^[^#]/s/^# \{0,1\}//p' "$0"
  exit
fi

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
environment=$root/.venv${PYTHON:+-${PYTHON##*/}}
python=$environment/bin/python

# Prints the first Python that can make the environment, the newest first.
find_python() {
  local candidate candidates=(python3.13 python3.12 python3.11 python3)
  [[ -z ${PYTHON:-} ]] || candidates=("$PYTHON")
  for candidate in "${candidates[@]}"; do
    # Run, not just looked up: a version manager may have a stand-in for one that is not installed.
    if "$candidate" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "error: no Python >= 3.11 with the module venv among: ${candidates[*]}" \
    "(Debian and Ubuntu: apt install python3-venv; anywhere: uv python install 3.13)" >&2
  return 1
}

# Prints the extra for the accelerators of this machine.
accelerator() {
  if nvidia-smi --list-gpus >/dev/null 2>&1; then
    echo cuda
  fi
}

# install [EXTRAS]: installs the package with extras of setup.py (as in "dev" or "cuda,gcs"), unless
# that was done before from the same setup.py.
install() {
  local extras=${1:-} now interpreter
  local file=$environment/installed${extras:+-$extras}
  now="$root $(cksum <"$root/setup.py")"
  if [[ -x $python && -f $file && $(<"$file") == "$now" ]]; then
    return
  fi
  if ! "$python" -m pip --version >/dev/null 2>&1; then # none yet, or half made
    interpreter=$(find_python)
    echo "Making an environment in $environment with $("$interpreter" --version)." >&2
    "$interpreter" -m venv --clear "$environment"
  fi
  echo "Installing pixel-rnn-jax${extras:+[$extras]}: once, about a minute." >&2
  # Python compiles what it imports; to compile all files takes twice the time.
  "$python" -m pip install --quiet --disable-pip-version-check --no-compile \
    --editable "$root${extras:+[$extras]}"
  echo "$now" | tee "$environment/installed" >"$file"
}
