#!/usr/bin/env bash
# Checks that every package that rlaif needs has a wheel for each Python that it declares.
#   scripts/check_wheels.sh [VERSION ...]     default: 3.12 3.13
set -euo pipefail
cd "$(dirname "$0")/.."
versions=("$@")
[ $# -gt 0 ] || versions=(3.12 3.13)
target=$(mktemp -d)
trap 'rm -rf "$target"' EXIT
for version in "${versions[@]}"; do
  .venv/bin/python -m pip install --quiet --dry-run --ignore-installed --no-deps \
    --only-binary=:all: --python-version "$version" --target "$target" \
    -r requirements/cpu.lock 2> >(grep -v '^WARNING: Location' >&2)
  echo "python $version: all of requirements/cpu.lock have wheels"
done
