"""A service comes back from what passes, and ends where nothing helps."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rlaif.api.judge import Judge
from rlaif.api.service import Recovery, Service, ServiceRestarting, ServiceStopped
from rlaif.api.setup import JudgeSettings, prepare_judge, with_defaults
from rlaif.engines import roles as starting
from rlaif.engines.base import EngineSettings
from rlaif.engines.scripted import ScriptedEngine
from rlaif.errors import EngineStopped, RlaifError
from rlaif.records import Failure
from rlaif.runs.context import RunContext
from rlaif.serve.app import build_app
from rlaif.serve.server import RequestLimits, Server, read_aliases
from rlaif.store.verdict_cache import VerdictCache

SCRIPTED = EngineSettings(engine="scripted", model="hashed", max_in_flight=4)
SECRET = "/home/someone/models/judge"


class Fragile(ScriptedEngine):
    """Fails while `ill`: as a whole, or (`silent`) one request at a time."""

    ill = False
    silent = False

    def _answer(self, request: Any) -> Any:
        if self.ill and self.silent:
            return Failure(request.id, f"status 502 from {SECRET}", passing=True)
        if self.ill:
            raise EngineStopped(f"the server at {SECRET} does not answer any more")
        return super()._answer(request)


class Power:
    """Makes engines; each of those made while it is `off` does not start."""

    def __init__(self) -> None:
        self.off = False
        self.made: list[Fragile] = []

    def create(self, settings: EngineSettings) -> Fragile:
        if self.off:
            raise RlaifError(f"no server answers at {SECRET}", hint="")
        self.made.append(Fragile(max_in_flight=4))
        return self.made[-1]


@pytest.fixture
def power(monkeypatch: pytest.MonkeyPatch) -> Power:
    power = Power()
    monkeypatch.setattr(starting, "create_engine", power.create)
    monkeypatch.setattr("rlaif.api.service._LONGEST_PAUSE", 0.05)
    return power


class Serving:
    """A service with its judge, what it told, and whether it gave up."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.told: list[str] = []
        self.given_up = threading.Event()
        recovery = Recovery(seconds, self.told.append, self.given_up.set)
        self.service = Service(
            {"judge": SCRIPTED, "writer": SCRIPTED},
            RunContext(cache_dir=folder),
            recovery=recovery,
        )
        values = with_defaults({"template": "demo", "pointwise": "anchored"}, SCRIPTED)
        self.judge = Judge.of(prepare_judge("demo", JudgeSettings(**values)), service=self.service)

    def ask(self, path: str, number: int = 0) -> httpx.Response:
        """A request over HTTP: a pair, or a look at a page."""

        async def send() -> httpx.Response:
            limits = RequestLimits()
            server = Server({"demo": self.judge}, self.service, read_aliases((), ["demo"]), limits)
            transport = httpx.ASGITransport(build_app(server), raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
                if path == "/health":
                    return await http.get(path)
                pair = {"prompt": f"q {number}", "response_a": "left", "response_b": "right"}
                return await http.post(path, json=pair)

        return asyncio.run(send())


@pytest.fixture
def serve(tmp_path: Path, power: Power) -> Iterator[Callable[[float], Serving]]:
    opened: list[Serving] = []

    def start(seconds: float) -> Serving:
        opened.append(Serving(tmp_path, seconds))
        return opened[-1]

    yield start
    for one in opened:
        one.service.close()


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


PAIRWISE = "/v1/judge/pairwise"


def test_a_backend_that_is_restarted_costs_the_requests_of_that_moment_and_no_more(
    serve: Callable[[float], Serving], power: Power
) -> None:
    serving = serve(60.0)
    before = serving.ask(PAIRWISE, 1)
    assert before.status_code == 200
    power.off = True
    power.made[-1].ill = True
    lost = serving.ask(PAIRWISE, 2)
    assert lost.status_code == 503
    assert int(lost.headers["Retry-After"]) > 0
    assert SECRET not in lost.text
    assert any(SECRET in line for line in serving.told), "the operator is told the cause"
    down = serving.ask("/health")
    assert (down.status_code, SECRET in down.text) == (503, False)
    assert serving.ask(PAIRWISE, 3).status_code == 503
    with pytest.raises(ServiceRestarting):
        serving.judge.compare("q", "a", "b")
    power.off = False
    wait_until(lambda: not serving.service.restarting)
    assert serving.ask("/health").status_code == 200
    assert len(power.made) == 2
    again = serving.ask(PAIRWISE, 1).json()
    assert again == before.json()
    assert serving.ask(PAIRWISE, 2).status_code == 200
    assert not serving.given_up.is_set()
    for _ in range(3):  # it may happen again and again
        power.made[-1].ill = True
        assert serving.ask(PAIRWISE, 100 + len(power.made)).status_code == 503
        wait_until(lambda: not serving.service.restarting)
        assert serving.ask(PAIRWISE, 200 + len(power.made)).status_code == 200


def test_an_engine_that_stays_dead_is_given_up(
    serve: Callable[[float], Serving], power: Power
) -> None:
    serving = serve(0.2)
    power.off = True
    power.made[-1].ill = True
    assert serving.ask(PAIRWISE).status_code == 503
    assert serving.given_up.wait(60)
    assert serving.service.problem is not None
    answer = serving.ask(PAIRWISE)
    assert (answer.status_code, SECRET in answer.text) == (503, False)
    assert "Retry-After" not in answer.headers
    assert "stopped" in serving.told[-1]
    with pytest.raises(ServiceStopped):
        serving.judge.compare("q", "a", "b")


def test_zero_seconds_give_up_at_once(serve: Callable[[float], Serving], power: Power) -> None:
    serving = serve(0.0)
    power.made[-1].ill = True
    assert serving.ask(PAIRWISE).status_code == 503
    assert serving.given_up.wait(60)
    assert len(power.made) == 1


def test_a_service_can_be_closed_while_its_engine_is_down(
    serve: Callable[[float], Serving], power: Power, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlaif.api.service._LONGEST_PAUSE", 1e6)
    serving = serve(1e9)
    power.off = True
    power.made[-1].ill = True
    for number in range(3):
        assert serving.ask(PAIRWISE, number).status_code == 503
    serving.service.close()
    assert not serving.given_up.is_set()


def test_one_request_that_the_server_did_not_answer_fails_alone(
    serve: Callable[[float], Serving], power: Power
) -> None:
    serving = serve(60.0)
    power.made[-1].ill = power.made[-1].silent = True
    answer = serving.ask(PAIRWISE, 1)
    assert (answer.status_code, SECRET in answer.text) == (503, False)
    power.made[-1].ill = False
    assert serving.ask(PAIRWISE, 1).status_code == 200
    assert len(power.made) == 1
    assert serving.told == []


def test_a_full_disk_stops_no_answer(
    serve: Callable[[float], Serving], power: Power, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    serving = serve(60.0)
    kept = VerdictCache.put
    full = True

    def put(self: VerdictCache, answers: Any) -> None:
        with self._guarded():
            if full:
                self._db.execute("BEGIN IMMEDIATE")
                raise sqlite3.OperationalError("database or disk is full")
        kept(self, answers)

    monkeypatch.setattr(VerdictCache, "put", put)
    for number in range(3):
        assert serving.ask(PAIRWISE, number).status_code == 200
    assert len(serving.told) == 1
    assert "disk is full" in serving.told[0]
    full = False
    assert serving.ask(PAIRWISE, 7).status_code == 200
    asked = serving.service.counts.asked
    assert serving.ask(PAIRWISE, 7).status_code == 200
    assert serving.service.counts.asked == asked, "kept again, once there is room"
    assert len(power.made) == 1


@pytest.mark.parametrize(
    ("path", "body", "place"),
    [
        ("pairwise", {"pairs": [{"prompt": "q", "response_a": "a"}]}, "pairs.0.response_b"),
        ("pairwise", {"pairs": []}, "pairs:"),
        ("pairwise", {"prompt": "q", "response_a": "a"}, "response_b"),
        ("pointwise", {"items": [{"prompt": "q", "response": "r"}, {"prompt": "q"}]}, "items.1."),
        ("pointwise", {"prompt": "q", "respnse": "r"}, "response"),
    ],
)
def test_what_is_wrong_with_a_batch_is_named_with_its_place(
    serve: Callable[[float], Serving], path: str, body: dict[str, Any], place: str
) -> None:
    serving = serve(60.0)

    async def send() -> httpx.Response:
        server = Server(
            {"demo": serving.judge}, serving.service, read_aliases((), ["demo"]), RequestLimits()
        )
        transport = httpx.ASGITransport(build_app(server), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            return await http.post(f"/v1/judge/{path}", json=body)

    answer = asyncio.run(send())
    assert answer.status_code == 422
    assert answer.json()["error"]["message"].startswith(place), answer.text
