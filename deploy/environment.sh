#!/bin/sh
# Brings the virtual environment to what the lock files say, making it where there is none.
#
# usage: environment.sh runtime       what the service needs
#        environment.sh dev           that, and what tests and checks need
#        environment.sh bench         that, and what benchmarks compare with
#        environment.sh interpreter   prints the Python that would be used
# VENV   where the environment is (default .venv)
# PYTHON the interpreter to make it with (default: the first suitable one of $candidates)
set -eu
cd "$(dirname "$0")/.."
project=$(pwd -P)

candidates="python3.13 python3.12 python3.11 python3 python"
venv=${VENV:-.venv}
case $venv in /*) ;; *) venv=$project/$venv ;; esac
stamp=$venv/.coursewire-installed

say() { echo "coursewire: $*" >&2; }
fail() { say "$@"; exit 1; }

# Prints what makes two interpreters the same to us: version and installation.
identify='import os, sys
print("%d.%d of %s" % (sys.version_info[0], sys.version_info[1], os.path.realpath(sys.base_prefix)))'

# $1: the version of a Python that is there but cannot make environments; empty if none is there.
system_package() {
  if [ "$(uname -s)" = Darwin ]; then
    echo "brew install python@3.13"
    return
  fi
  # shellcheck source=/dev/null
  family=$( (. /etc/os-release && echo "$ID ${ID_LIKE:-}") 2>/dev/null || true)
  case " $family " in
    *" debian "* | *" ubuntu "*) [ -n "$1" ] && echo "apt install python$1-venv" || echo "apt install python3 python3-venv" ;;
    *" fedora "* | *" rhel "* | *" centos "*) echo "dnf install python${1:-3.12}" ;;
    *" alpine "*) echo "apk add python3 py3-pip" ;;
    *" arch "*) echo "pacman -S python" ;;
    *suse*) echo "zypper install python313" ;;
    *) echo "install Python 3.11 or newer, with venv and ensurepip, from your system's packages" ;;
  esac
}

# Prints the path of the first Python that is new enough and can make environments. An
# interpreter inside an environment stands for the one it was made from, which stays when the
# environment is replaced.
find_interpreter() {
  without_venv=
  if [ -n "${PYTHON:-}" ]; then
    set -- "$PYTHON"
  else
    # shellcheck disable=SC2086 # a list of words
    set -- $candidates
  fi
  for candidate; do
    found=$("$candidate" -c 'import sys
if sys.version_info >= (3, 11):
    print(getattr(sys, "_base_executable", None) or sys.executable)' 2>/dev/null) || continue
    [ -n "$found" ] || continue
    if "$found" -c 'import ensurepip, venv' 2>/dev/null; then
      echo "$found"
      return
    fi
    without_venv=${without_venv:-$found}
  done
  if [ -n "$without_venv" ]; then
    version=$("$without_venv" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    fail "$without_venv cannot make virtual environments (no venv or ensurepip): $(system_package "$version")"
  fi
  [ -z "${PYTHON:-}" ] || fail "PYTHON=$PYTHON is not Python 3.11 or newer, or does not run"
  fail "no Python 3.11 or newer among $candidates: $(system_package ""), or name one with PYTHON=..."
}

# What the installation depends on. Contents, not times: a checkout touches files.
fingerprint() {
  echo "$venv"
  "$venv/bin/python" -c "$identify" 2>/dev/null || echo "no interpreter"
  cksum requirements*.lock pyproject.toml deploy/environment.sh
}

# True if the installation made for $1 (or for more) is still what it would be made to now.
installed() {
  [ -f "$stamp" ] && made_with_chosen_python || return 1
  case $1-in-$(head -n 1 "$stamp") in
    *-in-bench | dev-in-dev | runtime-in-dev | runtime-in-runtime) ;;
    *) return 1 ;;
  esac
  [ "$(tail -n +2 "$stamp")" = "$(fingerprint)" ]
}

made_with_chosen_python() {
  [ -z "${PYTHON:-}" ] || [ "$("$venv/bin/python" -c "$identify" 2>/dev/null)" = "$("$PYTHON" -c "$identify" 2>/dev/null)" ]
}

# True if the environment works and was not copied here from elsewhere: the commands in it
# would then start the other place's Python.
usable() {
  "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || return 1
  case $("$venv/bin/pip" --version 2>/dev/null) in *"$venv/"*) ;; *) return 1 ;; esac
  made_with_chosen_python
}

install() {
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-deps "$@"
}

bring_to() {
  started=$(date +%s)
  if ! usable; then
    python=$(find_interpreter)
    say "making ${venv#"$project/"} with $("$python" --version) ($python)"
    rm -rf "$venv"
    "$python" -m venv "$venv" || fail "$python could not make $venv; what it says is above"
  fi
  case $1 in
    runtime) set -- "$1" requirements.lock requirements-build.lock ;;
    *) set -- "$1" "requirements-$1.lock" ;;
  esac
  level=$1
  shift
  say "installing the packages of $*"
  for lock; do
    set -- "$@" -r "$lock"
    shift
  done
  rm -f "$stamp"
  install --require-hashes "$@" || fail "the packages could not be installed; what pip says is above"
  say "installing coursewire itself"
  install --no-build-isolation --editable . || fail "coursewire could not be installed; what pip says is above"
  { echo "$level"; fingerprint; } >"$stamp"
  say "ready after $(($(date +%s) - started)) s"
}

case ${1:-} in
  interpreter) find_interpreter ;;
  runtime | dev | bench) installed "$1" || bring_to "$1" ;;
  *) fail "usage: environment.sh runtime | dev | bench | interpreter" ;;
esac
