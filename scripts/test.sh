#!/usr/bin/env bash
# Sets up and runs every check and every test; arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh --dev
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/lint-imports
exec .venv/bin/python -m pytest --numprocesses 2 --dist worksteal --durations=15 "$@"
