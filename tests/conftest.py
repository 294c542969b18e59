"""Shared by all tests: an own verdict cache, and one vLLM engine for the whole session."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from rlaif.cli.common.output import quiet_libraries
from rlaif.engines import registry
from rlaif.engines.base import Engine, EngineSettings, EngineSpec
from rlaif.engines.registry import create_engine, load_spec
from tests.harness.helpers import Labeled, Server, label_pairs, start_server

quiet_libraries()
# No test fails because a machine is slow.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")
WHOLLY_SLOW = "\npytestmark = pytest.mark.slow\n"
STARTS_AN_ENGINE = {"demo_judge", "judge_server", "demo_labels", "revised", "botched"}


def pytest_configure() -> None:
    """Started in the background by a script, Python ignores ^C; what tests start must not."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Modules that are slow as a whole are not imported for the fast tests."""
    if config.getoption("markexpr") != "not slow" or collection_path.suffix != ".py":
        return None
    return True if WHOLLY_SLOW in collection_path.read_text(encoding="utf-8") else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What stands on an engine is slow, whatever its module says."""
    for item in items:
        if STARTS_AN_ENGINE & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def refuse_engines_in_fast_tests(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test that runs a model in this process must be marked slow."""
    if request.node.get_closest_marker("slow"):
        return

    def refuse(settings: EngineSettings) -> Engine:
        raise AssertionError(f"mark this test slow: it starts {settings.engine!r}")

    def load(name: str) -> EngineSpec:
        spec = load_spec(name)
        return replace(spec, create=refuse) if spec.has_files else spec

    monkeypatch.setattr(registry, "load_spec", load)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's verdict cache."""
    monkeypatch.setenv("RLAIF_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("RLAIF_ALLOW_FUNCTIONS", "")
    # Texts say when they were written: runs that are compared are made at one time.
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this run of the tests that all of its processes share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


@pytest.fixture(scope="session", autouse=True)
def compiled_once(run_folder: Path) -> None:
    """The kernels for CPUs are compiled once in a run of the tests, not in every process."""
    os.environ["NUMBA_CACHE_DIR"] = str(run_folder / "kernels")


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
