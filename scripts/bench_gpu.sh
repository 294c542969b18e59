#!/usr/bin/env bash
# Every GPU figure that BENCHMARKS.md is to have, by one command, in ten minutes on an H100 or little
# more.  (Written without one at hand: nothing in it was tried on a GPU yet.)
#   scripts/bench_gpu.sh [FOLDER]     JSON lines and logs go there (default gpu-figures)
# PYTHON names an interpreter with rlaif and vLLM (default: that of the checkout's .venv).
# What fails or takes too long leaves its log, and the rest goes on.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-gpu-figures}
python=${PYTHON:-.venv/bin/python}
mkdir -p "$out"
measure() {
  local name=$1 seconds=$2
  shift 2
  echo "$name ..." >&2
  timeout "$seconds" "$python" scripts/bench_peers.py --json --pairs 24 --principles 16 --repetitions 2 \
    --dtype bfloat16 "$@" >"$out/$name.jsonl" 2>"$out/$name.log" || echo "$name: see $out/$name.log" >&2
}
nvidia-smi >"$out/machine.txt" 2>&1
measure 8b 400 --shape 8b --patience 90 --contenders rlaif planned generate generate-uncached http
measure 8b-fp8 120 --shape 8b --quantization fp8 --contenders rlaif planned
measure 0.6b 90 --shape 0.6b --contenders rlaif packed
measure 1.7b 90 --shape 1.7b --contenders rlaif packed
