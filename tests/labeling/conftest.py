"""Labelers in this process for the runs of a test."""

from __future__ import annotations

import pytest

from rlaif.engines.base import EngineSettings
from rlaif.labeling import labeler_pool
from tests.labeling.labelers import InProcessLabelers


@pytest.fixture
def backends(monkeypatch: pytest.MonkeyPatch) -> list[InProcessLabelers]:
    """Backends that the next runs get, one after the other."""
    made: list[InProcessLabelers] = []

    def next_one(judge: EngineSettings) -> InProcessLabelers:
        backend = made.pop(0)
        backend.judge = judge.model_copy(update={"data_parallel_size": 1})
        return backend

    monkeypatch.setattr(labeler_pool, "open_backend", next_one)
    return made
