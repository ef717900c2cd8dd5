# shellcheck shell=bash
# Sourced by the scripts for clusters: reads the verb and the flags of main among their arguments.

fail() {
  echo "error: $*" >&2
  exit 2
}

# value_of FLAG ARGUMENTS: prints the last value of --FLAG.
value_of() {
  local flag=$1 value=''
  while shift && [[ $# -gt 0 ]]; do
    if [[ $1 =~ ^--?$flag=(.*)$ ]]; then
      value=${BASH_REMATCH[1]}
    elif [[ $1 =~ ^--?$flag$ ]]; then
      value=${2:-}
    fi
  done
  printf '%s' "$value"
}

# read_words ARGUMENTS: sets `verb` (train, unless the first one is another) and the array `flags`.
# shellcheck disable=SC2034
read_words() {
  verb=train
  if [[ $# -gt 0 && $1 != -* ]]; then
    verb=$1
    shift
  fi
  [[ $verb == train || $verb == evaluate ]] ||
    fail "only train and evaluate run as several processes, got '$verb'; use launch/local.sh"
  [[ $verb != train || $(value_of config "$@") ]] ||
    fail "train needs --config=FILE, for example --config=configs/cifar10.py"
  [[ " $* " != *" --dry_run "* ]] || fail "--dry_run comes before the verb and the flags of main"
  flags=("$@")
}
