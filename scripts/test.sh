#!/usr/bin/env bash
# Sets up and runs every check and every test; arguments go to pytest.
#   scripts/test.sh           everything
#   scripts/test.sh --fast    the checks, and the tests that start no engine, trainer or browser
set -euo pipefail
cd "$(dirname "$0")/.."
chosen=()
if [ "${1:-}" = "--fast" ]; then
  chosen=(-m "not slow")
  shift
fi
scripts/setup.sh --dev
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/lint-imports
# Tests run two at a time: more threads would only wait for each other.
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1
# Commands are started by the hundred: their modules are compiled once.
unset PYTHONDONTWRITEBYTECODE
code=0
.venv/bin/python -m pytest --numprocesses 2 --dist worksteal --durations=15 \
  --cov=rlaif --cov-report= "${chosen[@]}" "$@" || code=$?
if total=$(.venv/bin/coverage report --format=total 2>/dev/null); then
  echo "coverage: $total% of the lines of rlaif (subprocesses and compiled kernels are not counted)"
fi
exit "$code"
