"""`RemoteJudge` against servers and proxies that misbehave."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from rlaif.api.answers import Comparison, Provenance
from rlaif.api.remote import RemoteJudge
from rlaif.errors import RlaifError
from tests.http_server import LocalServer, QuietHandler

Answer = tuple[int, dict[str, str], bytes]
"""Status, headers, body; status 0 for a connection that is cut."""


def comparison(number: int) -> dict[str, Any]:
    found = Comparison.model_construct(
        id=str(number),
        status="tie",
        winner=None,
        p_a=0.5,
        margin=0.0,
        reason="",
        deciding_tier=None,
        order_consistency=None,
        principles=[],
        provenance=None,
    )
    return {**found.model_dump(), "provenance": given_provenance()}


def given_provenance() -> dict[str, Any]:
    return {
        name: "x" if field.annotation is str else None
        for name, field in Provenance.model_fields.items()
    }


class Standin:
    """A server that gives the next of its answers, and the last one for good."""

    def __init__(self) -> None:
        self.answers: list[Callable[[int], Answer]] = []
        self.asked = 0
        own = self

        class Handler(QuietHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                make = own.answers[min(own.asked, len(own.answers) - 1)]
                own.asked += 1
                status, headers, data = make(len(body.get("pairs", ())))
                if not status:
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.server = LocalServer(Handler)
        self.server.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def ask(self, *answers: Callable[[int], Answer], timeout: float = 30.0) -> list[Comparison]:
        self.answers, self.asked = list(answers), 0
        with RemoteJudge(self.url, timeout=timeout) as judge:
            return list(judge.compare_many([("q", "a", "b")] * 3))


@pytest.fixture
def standin() -> Iterator[Standin]:
    found = Standin()
    yield found
    found.server.stop()


def say(data: Any, status: int = 200, **headers: str) -> Callable[[int], Answer]:
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    return lambda _: (status, {k.replace("_", "-"): v for k, v in headers.items()}, body)


def right(count: int) -> Answer:
    return 200, {}, json.dumps({"results": [comparison(i) for i in range(count)]}).encode()


def cut(_: int) -> Answer:
    return 0, {}, b""


@pytest.mark.parametrize(
    "passing",
    [
        cut,
        say({"error": {"message": "the judge is restarting"}}, 503, Retry_After="0"),
        say(b"<html>bad gateway</html>", 502),
        say({}, 429, Retry_After="Wed, 21 Oct 2099 07:28:00 GMT"),
        say({}, 429, Retry_After="-5"),
        say({}, 429, Retry_After="nan"),
        say({}, 429, Retry_After="0.01"),
        say({}, 504),
    ],
)
def test_what_passes_is_asked_again(
    standin: Standin, passing: Callable[[int], Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlaif.api.remote._LONGEST_PAUSE", 0.01)
    found = standin.ask(passing, passing, right)
    assert [item.id for item in found] == ["0", "1", "2"]
    assert standin.asked == 3


@pytest.mark.parametrize("wait", ["inf", "1e400", "99999999", "5"])
def test_no_wait_is_longer_than_the_timeout(
    standin: Standin, wait: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=waited.append)
    monkeypatch.setattr("rlaif.api.remote.time", clock)
    with pytest.raises(RlaifError, match="429"):
        standin.ask(say({}, 429, Retry_After=wait), timeout=0.5)
    assert waited == [], "it waited although the answer would come too late"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (say({"results": []}), "returned 0 results for 3 questions"),
        (lambda n: right(n - 1), "returned 2 results for 3 questions"),
        (lambda n: right(n + 1), "returned 4 results for 3 questions"),
        (say({"x": 1}), "returned no results for 3 questions"),
        (say({"results": None}), "returned no results"),
        (say([1]), "did not return a JSON object"),
        (say(b"[" * 100_000), "did not return a JSON object"),
        (say(b"not json"), "did not return a JSON object"),
        (say({"results": [{"id": 1}] * 3}), "can't be read"),
        (say({"results": [None] * 3}), "can't be read"),
        (say({"results": [{"id": "1", "error": "it is empty"}] * 3}), "it is empty"),
        (say(b"", 302, Location="http://127.0.0.1:1/"), "302"),
        (say({"error": "x"}, 422), "422"),
        (say({"error": {"message": "no such constitution"}}, 404), "no such constitution"),
    ],
)
def test_an_answer_that_is_none_is_said(
    standin: Standin, answer: Callable[[int], Answer], message: str
) -> None:
    with pytest.raises(RlaifError, match=message) as caught:
        standin.ask(answer)
    assert standin.asked == 1
    assert "\n" not in str(caught.value)


def test_a_server_that_was_never_there_is_said_at_once_and_without_secrets() -> None:
    with (
        RemoteJudge("http://me:hunter2@127.0.0.1:9/?key=abc") as judge,
        pytest.raises(RlaifError) as caught,
    ):
        judge.compare("q", "a", "b")
    assert "hunter2" not in str(caught.value)
    assert "abc" not in str(caught.value)
