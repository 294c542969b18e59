"""Models behind a chat server: the protocol against a small server of our own."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rlaif.engines.base import EngineSettings
from rlaif.engines.registry import create_engine
from rlaif.errors import RlaifError
from rlaif.generation.candidates import (
    GenerateSettings,
    SamplingSettings,
    Teacher,
    prepare_generate,
)
from rlaif.generation.runner import GenerationJob, run_generation
from rlaif.records import Failure, GenerationRequest, GenerationResult
from rlaif.runs.context import RunContext
from tests.generation.helpers import read, write_rows
from tests.http_server import LocalServer, QuietHandler


class Server(LocalServer):
    """Answers with the last message in capitals; what to do wrong first is up to the test."""

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.seen: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.faults: dict[str, list[int]] = {}
        self.key: str | None = None
        self.now = self.most = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(QuietHandler):
    server: Server

    def _send(self, status: int, body: dict[str, Any] | str) -> None:
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        allowed = self.server.key is None or (
            self.headers.get("Authorization") == f"Bearer {self.server.key}"
        )
        self._send(200 if allowed else 401, {"data": []})

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.seen.append(body)
            server.keys.add(self.headers.get("Authorization"))
            server.now += 1
            server.most = max(server.most, server.now)
            text = body["messages"][-1]["content"]
            fault = server.faults[text].pop(0) if server.faults.get(text) else 0
        time.sleep(0.02)
        with server.lock:
            server.now -= 1
        if fault == 1:
            self._send(200, "this is no JSON")
        elif fault:
            self._send(fault, {"error": f"fault {fault}"})
        else:
            reason = "length" if "cut" in text else "stop"
            choice = {"message": {"content": text.upper()}, "finish_reason": reason}
            self._send(200, {"choices": [choice], "usage": {"prompt_tokens": 3}})


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    made.start()
    yield made
    made.stop()


def settings(server: Server, **options: Any) -> EngineSettings:
    return EngineSettings(
        engine="openai", model="big", max_in_flight=8, options={"base_url": server.url, **options}
    )


@pytest.mark.slow
def test_requests_go_out_together_and_faults_that_pass_are_tried_again(server: Server) -> None:
    server.faults = {"q 3": [503, 429], "q 4": [400], "q 5": [500] * 9, "q 6": [1]}
    with closing(create_engine(settings(server, retries=3))) as engine:
        asked = [
            GenerationRequest(
                id=str(i),
                token_ids=engine.codec.encode_chat(
                    [{"role": "user", "content": f"q {i} {{ü}}"[:3]}]
                ),
                max_tokens=50,
                temperature=0.5,
                top_p=0.9,
                seed=7,
            )
            for i in range(10)
        ]
        found = {r.id: r for results in engine.run(iter(asked)) for r in results}
        stats = engine.stats()
    assert len(found) == 10
    texts = {
        name: engine.codec.decode(r.token_ids)
        for name, r in found.items()
        if isinstance(r, GenerationResult)
    }
    assert texts == {str(i): f"Q {i}" for i in (0, 1, 2, 3, 6, 7, 8, 9)}
    reasons = {n: r.reason for n, r in found.items() if isinstance(r, Failure)}
    assert reasons.keys() == {"4", "5"}
    assert "status 400" in reasons["4"]
    assert "status 500" in reasons["5"]
    counts = {
        i: sum(b["messages"][0]["content"] == f"q {i}" for b in server.seen) for i in (3, 4, 5)
    }
    assert counts == {3: 3, 4: 1, 5: 4}
    assert server.most > 3
    hellos = sum(b["messages"][0]["content"].startswith("Say hello") for b in server.seen)
    assert 0 < hellos < 4, "whether the server answers others"
    assert (stats.requests, stats.prompt_tokens) == (10, 24 + 3 * hellos)
    body = server.seen[0]
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("big", 50, 0.5)
    assert (body["top_p"], body["seed"]) == (0.9, 7)


def test_generate_mixes_a_server_with_another_model(tmp_path: Path, server: Server) -> None:
    data = write_rows(
        tmp_path / "p.jsonl", [{"prompt": f"question {i}"} for i in range(5)] + [{"prompt": "cut"}]
    )
    local = EngineSettings(engine="scripted", model="hashed")
    teachers = [
        Teacher(settings(server), SamplingSettings(n=1)),
        Teacher(local, SamplingSettings(n=1)),
    ]
    job = prepare_generate(data, teachers, GenerateSettings())
    summary = run_generation(
        job, tmp_path / "run", context=RunContext(cache_dir=tmp_path / "cache")
    )
    rows = read(tmp_path / "run" / "candidates.jsonl")
    assert rows[0]["completions"][0]["content"] == "QUESTION 0"
    assert [c["model"] for c in rows[0]["completions"]] == ["big", "hashed"]
    assert summary.counts["unfinished"] == 1
    assert rows[0]["completions"][0]["origin"]["license"] == "unknown"


def test_a_server_that_stays_away_stops_the_run_which_later_goes_on(
    tmp_path: Path, server: Server
) -> None:
    rows = [{"prompt": f"question {i}"} for i in range(30)]
    server.faults = {"question 17": [503] * 3}
    data = write_rows(tmp_path / "p.jsonl", rows)

    def job(retries: int, timeout: int) -> GenerationJob:
        teacher = Teacher(settings(server, retries=retries, timeout=timeout), SamplingSettings(n=1))
        return prepare_generate(data, [teacher], GenerateSettings())

    for retries, timeout in ((0, 10), (1, 20)):
        with pytest.raises(RlaifError, match=r"(responding|any more) \(status 503"):
            run_generation(
                job(retries, timeout),
                tmp_path / "run",
                context=RunContext(cache_dir=tmp_path / "cache"),
            )
    summary = run_generation(
        job(1, 30), tmp_path / "run", context=RunContext(cache_dir=tmp_path / "cache")
    )
    assert summary.counts["completions"] == 30
    assert len(server.seen) < 50, "what was answered is not asked again"


def test_what_is_wrong_with_a_server_is_said(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "right"
    monkeypatch.setenv("OPENAI_API_KEY", "wrong")
    with pytest.raises(RlaifError, match=r"API key \(status 401\)\. Set OPENAI_API_KEY"):
        create_engine(settings(server))
    monkeypatch.setenv("OPENAI_API_KEY", "right")
    create_engine(settings(server)).close()
    with pytest.raises(RlaifError, match="no server answers at"):
        create_engine(
            EngineSettings(
                engine="openai", model="m", options={"base_url": "http://127.0.0.1:9/v1"}
            )
        )
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(RlaifError, match="needs a server address"):
        create_engine(EngineSettings(engine="openai", model="m"))
    with pytest.raises(RlaifError, match="no option 'color'"):
        create_engine(settings(server, color="red"))
