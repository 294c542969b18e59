"""Where people and judges look at labels, calls are shown: reports, reviews, and the server."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rlaif.harness.trl_rewards import _plain
from rlaif.reporting.fill_page import write_report
from rlaif.serve.dialects.base import UnreadablePrompt
from rlaif.serve.dialects.native import _messages
from tests.labeling.helpers import label, write_inputs
from tests.review.helpers import store_of
from tests.review.test_pages import client, log_in

CITIES = ("Oslo", "Bergen")


def trajectory(city: str, k: int) -> list[dict[str, Any]]:
    call = {"name": "get_weather", "arguments": json.dumps({"city": city, "days": k})}
    return [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": call}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": f"RESULT {k}"},
        {"role": "assistant", "content": f"It is {k} degrees."},
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calls")
    _, constitution = write_inputs(folder, 1)
    data = folder / "calls.jsonl"
    rows = [
        {
            "id": str(k),
            "prompt": f"Weather on day {k}?",
            "responses": [trajectory(city, k) for city in CITIES],
        }
        for k in range(24)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    label(data, constitution, folder / "run")
    return folder / "run"


def test_the_report_shows_calls(run: Path) -> None:
    page = html.unescape(write_report(run).read_text())
    for city in CITIES:
        assert f'[call c1] get_weather({{"city": "{city}", "days":' in page
    assert "RESULT" in page


@pytest.fixture
def pages(run: Path) -> Iterator[tuple[str, str]]:
    with closing(store_of(run, 10, overlap=0.0)) as store:
        c = client(store)
        path = log_in(c)
        yield c.get(path).text, c.get(f"{path}/edit").text


def test_a_review_shows_calls(pages: tuple[str, str]) -> None:
    for page in map(html.unescape, pages):
        for city in CITIES:
            assert f'[call c1] get_weather({{"city": "{city}", "days":' in page


def test_the_server_and_rewards_keep_calls() -> None:
    one, other = (_messages({"r": trajectory(city, 1)}, "r", "assistant") for city in CITIES)
    assert one != other
    assert one[0]["tool_calls"][0]["function"]["arguments"] == {"city": "Oslo", "days": 1}
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    with pytest.raises(UnreadablePrompt, match="contains content that is no text"):
        _messages({"p": picture}, "p", "user")
    kept = _plain(trajectory("Oslo", 1))
    assert kept[0]["content"] == ""
    assert kept[0]["tool_calls"] == trajectory("Oslo", 1)[0]["tool_calls"]
    assert kept[1]["tool_call_id"] == "c1"
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]
    assert _plain(parts) == [{"role": "user", "content": "Hello"}]
