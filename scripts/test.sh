#!/usr/bin/env bash
# Sets up and runs every check and every test; arguments go to pytest.
#   scripts/test.sh           everything
#   scripts/test.sh --fast    the checks, and the tests that start no engine, trainer or browser and
#                             simulate little
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
.venv/bin/lint-imports
# Types are checked beside the tests, which often wait.
types=$(mktemp)
.venv/bin/mypy >"$types" 2>&1 &
checking=$!
# Tests run two at a time: more threads would only wait for each other, and more engines would not
# fit into memory.
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1
# Commands are started by the hundred: their modules are compiled once.
unset PYTHONDONTWRITEBYTECODE
code=0
lines=$(mktemp)
# Lines are counted by changing the code once, not by a call at each line: that would take twice as
# long.  What is compiled, for CPUs and for GPUs, is left as it is.
compiled='rlaif/engines/cpu/*,rlaif/engines/tree_attention.py'
.venv/bin/python -m slipcover --source rlaif --omit "$compiled" --json --out "$lines" \
  -m pytest --numprocesses 2 --dist worksteal --durations=15 "${chosen[@]}" "$@" || code=$?
.venv/bin/python - "$lines" <<'END' || true
import json, sys
total = json.load(open(sys.argv[1]))["summary"]["percent_covered_display"]
print(f"coverage: {total}% of the lines of rlaif (subprocesses and compiled kernels are not counted)")
END
wait "$checking" || code=1
cat "$types"
rm -f "$lines" "$types"
exit "$code"
