#!/usr/bin/env bash
# Makes .venv with everything pinned for a machine without a GPU; quick when nothing changed.
#   scripts/setup.sh          what running needs
#   scripts/setup.sh --dev    and what testing needs
# PYTHON names the interpreter (default python3; 3.11 is tested, 3.12 and 3.13 are declared).
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
command -v "$python" >/dev/null || { echo "error: no $python here. Install Python 3.11, or set PYTHON." >&2; exit 2; }
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || {
  echo "error: $("$python" --version) does not fit the pinned packages. Install Python 3.11, or set PYTHON." >&2; exit 2; }

locks=(requirements/cpu.lock)
[ "${1:-}" = "--dev" ] && locks+=(requirements/dev.lock)
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  "$python" -m venv --clear .venv || { echo "error: could not make .venv. On Debian: apt install python3-venv." >&2; exit 2; }
fi
pip() { .venv/bin/python -m pip --disable-pip-version-check -q "$@" 2> >(grep -v '^WARNING: Location' >&2); }
for lock in "${locks[@]}"; do
  stamp=.venv/installed-$(basename "$lock")
  if cmp -s "$lock" "$stamp"; then continue; fi
  echo "installing $lock (some minutes the first time) ..." >&2
  if [ "$lock" = requirements/cpu.lock ]; then
    pip install "$(grep '^torch==' "$lock")"
  fi
  pip install --no-deps -r "$lock"
  pip uninstall -y torchvision torchaudio torchcodec >/dev/null 2>&1 || true
  cp "$lock" "$stamp"
done
# The review page is tested in a browser.
if [ "${1:-}" = "--dev" ] && ! command -v chromium chromium-browser google-chrome >/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing chromium (a minute, once) ..." >&2
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium; } >/dev/null
  else
    echo "error: the tests need Chromium. On Debian: apt install chromium." >&2; exit 2
  fi
fi
if ! cmp -s pyproject.toml .venv/installed-pyproject.toml; then
  pip install --no-deps --no-build-isolation -e .
  cp pyproject.toml .venv/installed-pyproject.toml
fi
