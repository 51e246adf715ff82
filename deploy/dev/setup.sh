#!/usr/bin/env bash
# Makes .venv hold exactly the locked versions, and the commands of this checkout.
#
#   setup.sh run    what the product runs on (requirements.lock); enough for the demo
#   setup.sh dev    the same and the tools for development (requirements-dev.lock)
#
# Does nothing when nothing changed. Uses whatever package index this machine is set up for; every file is checked against its hash.
set -euo pipefail
cd "$(dirname "$0")/../.."

kind="${1:-run}"
case "$kind" in
  run) lock=requirements.lock ;;
  dev) lock=requirements-dev.lock ;;
  *) echo "usage: $0 run|dev" >&2; exit 2 ;;
esac

find_python() {
  local name
  for name in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
    if "$name" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$name"; return
    fi
  done
  echo "Longshore needs Python 3.11 or newer; found: $(python3 --version 2>&1 || echo none)." >&2
  echo "Install it, or name it: make PYTHON=/path/to/python3.12 ..." >&2
  exit 3
}

make_venv() {
  local python
  python="$(find_python)"
  if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    echo "$python cannot make virtual environments (its venv or ensurepip module is missing)." >&2
    echo "On Debian and Ubuntu: apt-get install python3-venv" >&2
    exit 3
  fi
  echo "setup: making .venv with $("$python" --version)"
  "$python" -m venv --clear .venv
}

# What an installation depends on. The dev stamp serves `run` too, because its lock holds everything of the other.
fingerprint() { cat "$1" requirements.lock pyproject.toml deploy/dev/setup.sh <(pwd -P) | cksum; }
current() { [ -x .venv/bin/python ] && [ "$(cat ".venv/.longshore-$1" 2>/dev/null)" = "$(fingerprint "$2")" ]; }

if current dev requirements-dev.lock || current "$kind" "$lock"; then exit 0; fi
if ! .venv/bin/python -c 'import pip' 2>/dev/null; then make_venv; fi
# A checkout that was moved or copied has scripts that point at its old place.
if ! grep -qsF "$(pwd -P)/.venv" .venv/bin/activate; then make_venv; fi

log="$(mktemp)"
trap 'rm -f "$log"' EXIT
pip_install() { # quiet, because its warnings are about its own affairs; everything it said when it fails
  if ! .venv/bin/python -m pip --disable-pip-version-check --no-input install --quiet "$@" >"$log" 2>&1 </dev/null; then
    cat "$log" >&2
    echo "setup: pip could not install $*; is the package index of this machine reachable?" >&2
    exit 1
  fi
}

# Of the tools a tenth is ever imported: Python compiles that when it is, and installing takes half as long.
compile=()
[ "$kind" = run ] || compile=(--no-compile)

echo "setup: installing $(grep -c '==' "$lock") locked packages from $lock (a minute the first time)"
pip_install ${compile[@]+"${compile[@]}"} --require-hashes -r "$lock"
pip_install --no-deps --no-build-isolation -e .
fingerprint "$lock" > ".venv/.longshore-$kind"
echo "setup: ready in ${SECONDS} s"
