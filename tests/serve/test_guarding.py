"""Who may ask a judge without a token, and how long half a request may last."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from rlaif.serve.guarding import GuardMiddleware
from rlaif.util import http_protocol
from rlaif.util.http_protocol import BoundedProtocol
from rlaif.util.network import host_name, listen


def answer_to(host: str | None, allowed: frozenset[str] | None) -> int:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [] if host is None else [(b"host", host.encode("latin-1"))]
    guard = GuardMiddleware(app, None, 1000, 1.0, allowed)
    scope = {"type": "http", "headers": headers, "path": "/health", "method": "GET"}
    asyncio.run(guard(scope, receive, send))
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000", "127.8.9.1", "judge.lan:80"],
)
def test_this_machine_and_named_hosts_may_be_asked_for(host: str) -> None:
    assert answer_to(host, frozenset({"judge.lan"})) == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "judge.lan.evil",
        "evil@judge.lan.x",
        "10.0.0.1",
        "0.0.0.0",
        "[::1",
        "",
        None,
    ],
)
def test_a_page_whose_name_points_here_reads_no_judge(host: str | None) -> None:
    assert answer_to(host, frozenset({"judge.lan"})) == 421
    assert answer_to(host, None) == 200, "with a token, that is what is asked for"


def test_names_have_no_port_and_no_case() -> None:
    assert host_name("Judge.LAN:99") == "judge.lan"
    assert host_name("[::1]:8") == "::1"


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A server that gives headers half a second."""
    monkeypatch.setattr(http_protocol, "HEADER_SECONDS", 0.5)
    app = FastAPI()

    @app.get("/")
    async def slow() -> str:
        await asyncio.sleep(1.0)  # an answer may take longer than headers
        return "done"

    bound = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, http=BoundedProtocol, log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield bound.getsockname()[1]
    server.should_exit = True
    thread.join(30)


@pytest.mark.parametrize("half", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nX: "])
def test_half_sent_headers_are_cut_off(port: int, half: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(half)
        assert client.recv(1000) == b"", "the server closed the connection"


@pytest.mark.parametrize(("value", "pause"), [("y", 0.02), ("y" * 1000, 0.0)])
def test_headers_without_end_are_cut_off(port: int, value: str, pause: float) -> None:
    """Dripping slowly, and as much as fits."""
    sent = 0
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(b"GET / HTTP/1.1\r\n")
        try:
            for sent in range(100_000):
                client.sendall(f"X-{sent}: {value}\r\n".encode())
                time.sleep(pause)
        except OSError:
            pass
    assert 0 < sent < 99_999


def test_whole_requests_on_one_connection_are_answered(port: int) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        for _ in range(3):
            assert client.get("/").json() == "done"
