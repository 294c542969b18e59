"""Writing with the scripted engine, whose rules a test chooses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlaif.engines import roles as starting
from rlaif.engines.base import EngineSettings
from rlaif.engines.scripted import ScriptedEngine, ScriptedWriter, hashed_rule, scripted_text
from rlaif.generation.candidates import (
    GenerateSettings,
    SamplingSettings,
    Teacher,
    prepare_generate,
)
from rlaif.generation.runner import GenerationSummary, run_generation
from rlaif.runs.context import RunContext

SCRIPTED = EngineSettings(engine="scripted", model="hashed", max_in_flight=16)


class Watched(ScriptedEngine):
    """Remembers what it was asked, and how much was in flight at most."""

    asked: list[str]
    most: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.asked = []
        self.most = 0

    def _answer(self, request: Any) -> Any:
        self.asked.append(self.codec.decode(request.token_ids))
        return super()._answer(request)

    def run(self, requests: Any) -> Any:
        flying = 0

        def counted() -> Any:
            nonlocal flying
            for request in requests:
                flying += request is not None
                self.most = max(self.most, flying)
                yield request

        for results in super().run(counted()):
            flying -= len(results)
            yield results


def use_writer(
    monkeypatch: pytest.MonkeyPatch, writer: ScriptedWriter = scripted_text, rule: Any = hashed_rule
) -> list[Watched]:
    """Every engine that a run starts writes by `writer`; the engines, as they are started."""
    started: list[Watched] = []

    def create(settings: EngineSettings) -> Watched:
        assert settings.engine == "scripted"
        started.append(Watched(rule, writer, max_in_flight=settings.most_in_flight))
        return started[-1]

    monkeypatch.setattr(starting, "create_engine", create)
    return started


def write_rows(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def teacher(name: str = "hashed", **sampling: Any) -> Teacher:
    return Teacher(SCRIPTED.model_copy(update={"model": name}), SamplingSettings(**sampling))


def generate(
    data: str, out: Path, teachers: list[Teacher], settings: GenerateSettings, **more: Any
) -> GenerationSummary:
    cache = more.pop("cache", out.parent / "cache")
    told = {k: more.pop(k) for k in ("on_progress",) if k in more}
    job = prepare_generate(data, teachers, settings, **more)
    return run_generation(job, out, RunContext(cache_dir=cache, **told))


def prompts(folder: Path, count: int) -> str:
    rows: list[dict[str, Any]] = [{"id": f"p{i}", "prompt": f"question {i}"} for i in range(count)]
    rows[1] = {
        "prompt": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"},
        ]
    }
    rows[2] = {"text": "no prompt"}
    return write_rows(folder / "prompts.jsonl", rows)
