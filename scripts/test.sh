#!/usr/bin/env bash
# Sets up and runs every check and every test; arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh --dev
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/lint-imports
# Tests run two at a time: a thread that waits by spinning would take a core from the other one.
export OMP_WAIT_POLICY=passive
exec .venv/bin/python -m pytest --numprocesses 2 --dist worksteal --durations=15 "$@"
