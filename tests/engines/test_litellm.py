"""Judges through the real LiteLLM, which asks a server on this machine in a provider's own form."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rlaif.cli.main import cli
from rlaif.engines.base import EngineSettings
from rlaif.engines.registry import create_engine
from rlaif.errors import RlaifError
from rlaif.records import ChoiceResult, Failure
from tests.engines.test_chat_judge import Drawing, questions, truth
from tests.engines.test_hostile_servers import Server, say
from tests.engines.test_hostile_servers import serve as serve
from tests.generation.helpers import read, write_rows

pytestmark = pytest.mark.slow  # the library takes seconds to import


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-openai")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret-of-anthropic")
    for name in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "ANTHROPIC_API_BASE"):
        monkeypatch.delenv(name, raising=False)


def settings(model: str, url: str, **options: Any) -> EngineSettings:
    own = {"base_url": url, "retries": 1, "timeout": 20, **options}
    return EngineSettings(engine="litellm", model=model, max_in_flight=4, options=own)


def answers(chosen: EngineSettings, count: int) -> dict[str, tuple[Any, float]]:
    with closing(create_engine(chosen)) as engine:
        asked = questions(engine, count)
        came = [r for batch in engine.run(q for q, _ in asked.values()) for r in batch]
        return {r.id: (r, asked[r.id][1]) for r in came}


def test_likely_tokens_are_read_where_a_provider_gives_them(serve: Callable[..., Server]) -> None:
    server = serve(Drawing("all"))
    for result, p in answers(settings("openai/some-model", server.url), 12).values():
        assert isinstance(result, ChoiceResult), result
        assert math.exp(result.logprobs[0]) == pytest.approx(0.99 * p, rel=1e-6)
    assert all(body["model"] == "some-model" for body in server.asked)


def anthropic(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    """Anthropic's own form: no probabilities, no seed."""
    assert handler.path == "/v1/messages"
    assert "logprobs" not in body
    text = body["messages"][0]["content"]
    if isinstance(text, list):
        text = "".join(part["text"] for part in text)
    p = truth(text.split("\n\nComplete this sentence")[0])
    content = [{"type": "text", "text": "A" if p > 0.5 else "B"}]
    usage = {"input_tokens": 50, "output_tokens": 1}
    say(
        handler,
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": content,
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": usage,
        },
    )


def test_votes_are_drawn_where_a_provider_gives_no_probabilities(
    serve: Callable[..., Server],
) -> None:
    server = serve(anthropic)
    found = answers(settings("anthropic/claude-x", server.url.removesuffix("/v1")), 6)
    assert len(found) == 6
    for result, p in found.values():
        assert isinstance(result, ChoiceResult), result
        assert (result.logprobs[0] > result.logprobs[1]) == (p > 0.5)
        assert "answers chose the response shown first" in result.evidence


@pytest.mark.parametrize("status", [400, 429, 500])
def test_errors_of_a_provider_are_reasons_without_its_key(
    serve: Callable[..., Server], status: int
) -> None:
    drawn, count = Drawing("all"), [0]

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        count[0] += 1
        if count[0] == 3:
            said = {"error": {"message": f"no, {handler.headers['Authorization']}"}}
            say(handler, said, status)
        else:
            drawn(handler, body)

    server = serve(reply)
    found = [r for r, _ in answers(settings("openai/m", server.url), 8).values()]
    failed = [r for r in found if isinstance(r, Failure)]
    assert len(failed) == (status == 400), "what passes is asked again"
    assert not any("secret" in r.reason for r in failed)
    assert all(f"status {status}" in r.reason for r in failed)


def test_label_takes_such_a_judge(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(Drawing("all"))
    rows = [{"prompt": f"q {k}", "response_a": f"a {k}", "response_b": f"b {k}"} for k in range(5)]
    data = write_rows(tmp_path / "p.jsonl", rows)
    line = ["label", data, "-c", "demo", "--template", "pairwise", "-j", "openai/m"]
    line += ["--engine", "litellm", "--option", f"base_url={server.url}"]
    done = CliRunner().invoke(cli, [*line, "-o", str(tmp_path / "r")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert len(read(tmp_path / "r" / "verdicts.jsonl")) >= 50
    assert "secret" not in json.dumps(read(tmp_path / "r" / "verdicts.jsonl"))


def test_a_key_that_is_missing_and_a_model_that_is_none_are_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = [{"prompt": "q", "response_a": "a", "response_b": "b"}]
    data = write_rows(tmp_path / "p.jsonl", rows)
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    for model in ("anthropic/claude-x", "no-such-provider/m"):
        line = ["label", data, "-c", "demo", "--template", "pairwise", "-j", model]
        line += ["--engine", "litellm", "--option", "retries=0", "-o", str(tmp_path / "r")]
        with pytest.raises(RlaifError) as refused:
            CliRunner().invoke(cli, line, catch_exceptions=False)
        assert "\n" not in str(refused.value)
        assert len(str(refused.value)) < 900
    with pytest.raises(RlaifError, match="has no option 'batch'"):
        create_engine(settings("openai/m", "http://127.0.0.1:1", batch="x"))
    with pytest.raises(RlaifError, match="invalid value 'x' for option base_url"):
        create_engine(settings("openai/m", "x"))
