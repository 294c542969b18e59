#!/usr/bin/env bash
# Checks that every pinned package has a wheel for each Python that the project declares.
# rouge_score, which a harness needs in tests, is plain Python that is published as source only.
#   scripts/check_wheels.sh [VERSION ...]     default: 3.12 3.13
set -euo pipefail
cd "$(dirname "$0")/.."
versions=("$@")
[ $# -gt 0 ] || versions=(3.12 3.13)
target=$(mktemp -d)
trap 'rm -rf "$target"' EXIT
for version in "${versions[@]}"; do
  for lock in cpu dev; do
    .venv/bin/python -m pip install --quiet --dry-run --ignore-installed --no-deps \
      --only-binary=:all: --no-binary=rouge_score --python-version "$version" --target "$target" \
      -r "requirements/$lock.lock"
    echo "python $version: all of requirements/$lock.lock have wheels"
  done
done
