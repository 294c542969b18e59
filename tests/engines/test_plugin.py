"""An engine from another package is found by its entry point and used as it is."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from rlaif.engines import base
from rlaif.engines.base import EngineSettings, codec_for, create_engine, model_fingerprint


def test_engine_of_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_package.py").write_text(
        "from rlaif.engines.scripted import ByteCodec, ScriptedEngine\n"
        "def create(settings):\n    return ScriptedEngine(lambda text: (1.0, 1.0), name='theirs')\n"
        "def codec(settings):\n    return ByteCodec()\n"
        "def fingerprint(settings):\n    return 'theirs/' + settings.model\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    entry = EntryPoint("theirs", "their_package:create", base.ENTRY_POINT_GROUP)
    monkeypatch.setattr(base, "entry_points", lambda group: [entry])
    settings = EngineSettings(engine="theirs", model="m")
    assert "theirs" in [e.name for e in base.list_engines()]
    assert model_fingerprint(settings) == "theirs/m"
    assert codec_for(settings).spellings("A") == (65,)
    assert create_engine(settings).stats().requests == 0
