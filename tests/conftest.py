"""Shared by all tests: an own verdict cache, and one vLLM engine for the whole session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rlaif.cli.output import quiet_libraries
from rlaif.engines.base import Engine, EngineSettings, create_engine

quiet_libraries()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's verdict cache."""
    monkeypatch.setenv("RLAIF_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def demo_judge() -> Iterator[Engine]:
    """The embedded judge on real vLLM."""
    engine = create_engine(EngineSettings(model="demo"))
    yield engine
    engine.close()
