#!/usr/bin/env bash
# Sets up and runs the main job on the embedded models: label, train, compare.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh
exec .venv/bin/rlaif demo "$@"
