# shellcheck shell=bash
# Sourced by the other scripts: makes the project's own Python environment.
#
# PYTHON=python3.11 in the environment chooses an interpreter, which then has an environment of its
# own beside the default one.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
environment=$root/.venv${PYTHON:+-${PYTHON##*/}}
# Scripts run this interpreter and nothing else from the environment, so that it can be moved.
# shellcheck disable=SC2034
python=$environment/bin/python

# Prints the first Python that can make the environment.
find_python() {
  local candidate without_venv="" candidates=(python3.13 python3.12 python3.11 python3)
  [[ -z ${PYTHON:-} ]] || candidates=("$PYTHON")
  for candidate in "${candidates[@]}"; do
    # Each one is run, not just looked up: a version manager's stand-in may be on the path for a
    # version that is not installed.
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
        echo "$candidate"
        return
      fi
      without_venv=${without_venv:-$candidate}
    fi
  done
  if [[ $without_venv ]]; then
    echo "error: $without_venv lacks the module venv or ensurepip;" \
      "install it (on Debian and Ubuntu: apt install python3-venv)" >&2
  else
    echo "error: there is no Python 3.11 or later" \
      "(looked for ${PYTHON:-python3.13, python3.12, python3.11 and python3}); install one" \
      "(on Debian 12, Ubuntu 24.04 and later: apt install python3-venv;" \
      "anywhere: uv python install 3.13)" >&2
  fi
  return 1
}

# Prints the extra for the accelerators of this machine: cuda only where a driver lists a GPU.
accelerator() {
  if nvidia-smi --list-gpus >/dev/null 2>&1; then
    echo cuda
  fi
}

# install [EXTRAS]: installs the package, with extras of setup.py (one, or several as in tpu,gcs),
# unless that was done before, perhaps with more of them, from the same setup.py in the same folder.
install() {
  local extra=${1:-} now found
  now="$root $(cksum <"$root/setup.py")"
  if [[ -x $python ]] && is_installed "$extra"; then
    return
  fi
  # One that was made without pip, as uv does, gets it and keeps what is installed there.
  if ! has_pip && { ! "$python" -m ensurepip >/dev/null 2>&1 || ! has_pip; }; then
    # None yet, half made, or its Python is gone.
    found=$(find_python)
    echo "Making an environment in $environment with $("$found" --version)." >&2
    "$found" -m venv --clear "$environment"
  fi
  echo "Installing pixel-rnn-jax${extra:+[$extra]}: once, a few minutes." >&2
  "$python" -m pip install --quiet --disable-pip-version-check --editable "$root${extra:+[$extra]}"
  echo "$now" >"$environment/installed${extra:+-$extra}"
}

has_pip() {
  "$python" -m pip --version >/dev/null 2>&1
}

# is_installed EXTRAS: whether a file says that these were installed, as $now has it.
is_installed() {
  local file has extra missing
  for file in "$environment"/installed*; do
    [[ -f $file && $(<"$file") == "$now" ]] || continue
    has=${file##*/installed} missing=
    for extra in ${1//,/ }; do
      [[ ,${has#-}, == *,$extra,* ]] || missing=$extra
    done
    [[ $missing ]] || return 0
  done
  return 1
}
