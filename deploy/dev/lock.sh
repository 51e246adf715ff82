#!/usr/bin/env bash
# Resolves the two lock files, for every platform and Python from 3.11 on, with hashes and without a word about any index.
# What is locked stays unless it must move; UPGRADE=1 takes the newest of everything.
set -euo pipefail
cd "$(dirname "$0")/../.."

resolve() {
  .venv/bin/python -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
    --custom-compile-command "make lock" ${UPGRADE:+--upgrade} pyproject.toml deploy/dev/build.in "$@"
}

resolve --extra edge --extra hub --extra mobile --extra train --output-file requirements.lock
resolve --all-extras --constraints requirements.lock --output-file requirements-dev.lock
if grep -nE '://|^--(index|extra-index|find-links)' requirements.lock requirements-dev.lock; then
  echo "lock: a lock file names an index; it must not" >&2
  exit 1
fi
git --no-pager diff --stat -- requirements.lock requirements-dev.lock || true
