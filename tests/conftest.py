"""Shared by all tests: an own verdict cache, and one vLLM engine for the whole session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rlaif.cli.common.output import quiet_libraries
from rlaif.engines.base import Engine, EngineSettings
from rlaif.engines.registry import create_engine
from tests.harness.helpers import Labeled, Server, label_pairs, start_server

quiet_libraries()
STARTS_AN_ENGINE = {"demo_judge", "judge_server", "demo_labels"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What stands on an engine is slow, whatever its module says."""
    for item in items:
        if STARTS_AN_ENGINE & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's verdict cache."""
    monkeypatch.setenv("RLAIF_CACHE_DIR", str(tmp_path / "cache"))
    # Texts say when they were written: runs that are compared are made at one time.
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


@pytest.fixture(scope="session")
def demo_judge() -> Iterator[Engine]:
    """The embedded judge on real vLLM."""
    engine = create_engine(EngineSettings(model="demo"))
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def judge_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`rlaif serve` with the demo judge on real vLLM, as a user starts it."""
    folder = tmp_path_factory.mktemp("server")
    with start_server(folder, "--engine", "vllm", "--writer", "demo-writer") as server:
        yield server


@pytest.fixture(scope="session")
def demo_labels(tmp_path_factory: pytest.TempPathFactory) -> Labeled:
    """Pairs of the demo world with what `rlaif label` says of them."""
    return label_pairs(tmp_path_factory.mktemp("labels"), 40)
