#!/usr/bin/env bash
# Every GPU figure that BENCHMARKS.md is to have, by one command, in ten minutes on an H100 or little
# more.  (Nothing in it was tried on a GPU yet.  With small shapes its contenders ran on a CPU under
# vLLM 0.25.1 and 0.32.)
#   scripts/bench_gpu.sh [FOLDER [NAME ...]]
# JSON lines and logs go to FOLDER (default gpu-figures); NAMEs of 8b, 8b-fp8, 0.6b, 1.7b choose among
# the measurements (default all).  PYTHON names an interpreter with rlaif and vLLM (default: that of
# the checkout's .venv).  What fails or takes too long leaves its log, and the rest goes on.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-gpu-figures}
shift
wanted=${*:-8b 8b-fp8 0.6b 1.7b}
python=${PYTHON:-.venv/bin/python}
mkdir -p "$out"
measure() {
  local name=$1 seconds=$2 pairs=$3 repetitions=$4
  shift 4
  [[ " $wanted " == *" $name "* ]] || return 0
  echo "$name ..." >&2
  timeout "$seconds" "$python" scripts/bench_peers.py --json --principles 16 --dtype bfloat16 \
    --pairs "$pairs" --repetitions "$repetitions" "$@" >"$out/$name.jsonl" 2>"$out/$name.log" ||
    echo "$name: see $out/$name.log" >&2
}
nvidia-smi >"$out/machine.txt" 2>&1
measure 8b 420 48 2 --shape 8b --patience 90 --contenders rlaif planned generate generate-uncached http
measure 8b-fp8 150 48 3 --shape 8b --quantization fp8 --contenders rlaif planned
measure 0.6b 120 200 3 --shape 0.6b --contenders rlaif packed
measure 1.7b 120 200 3 --shape 1.7b --contenders rlaif packed
