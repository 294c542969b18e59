"""Judging by batch files: equal to asking one by one, and nothing is paid for twice."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest
from click.testing import CliRunner

from rlaif.cli.main import cli
from rlaif.engines import batch_runner
from rlaif.engines.base import EngineSettings
from rlaif.engines.batch_ledger import BatchLedger
from rlaif.engines.registry import create_engine
from rlaif.engines.server_client import ServerClient
from rlaif.engines.voting import VotePlan
from rlaif.errors import EngineStopped, RlaifError
from rlaif.generation.lanes import EngineQueue, make_lanes
from rlaif.labeling.job import prepare, run_label
from rlaif.labeling.settings import LabelSettings
from rlaif.runs.context import RunContext
from rlaif.runs.cost import Prices
from tests.engines.test_chat_judge import Drawing
from tests.engines.test_hostile_servers import say
from tests.generation.helpers import read, write_rows
from tests.http_server import LocalServer, QuietHandler


class Provider:
    """A server with batch files.

    Attributes:
        paid: how often each body was answered, in a batch or alone.
        batches: by id, as the server shows them.
        fault: what it does to a line of a batch: gets the batch's number and the line's, and
            gives the status of an error, "lost", or None to answer.
        polls: how often a batch is asked about before it ends.
        creating: what it does where a batch is created; gets the number of the batch.
    """

    def __init__(self, gives: str = "all") -> None:
        self.model = Drawing(gives)
        self.paid: Counter[str] = Counter()
        self.alone = 0
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.asked: Counter[str] = Counter()
        self.fault: Callable[[int, int], Any] = lambda batch, line: None
        self.creating: Callable[[int], str] = lambda batch: ""
        self.ends_as: Callable[[int], str] = lambda batch: "completed"
        self.polls = 2
        self.lock = threading.Lock()
        own = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                with own.lock:
                    own.get(self, urlparse(self.path))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with own.lock:
                    own.post(self, self.path, body)

        self.http = LocalServer(Handler)
        self.http.start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def get(self, handler: BaseHTTPRequestHandler, where: Any) -> None:
        path = where.path
        if path == "/v1/models":
            say(handler, {"data": [{"id": "m"}]})
        elif path == "/v1/batches":
            asked = parse_qs(where.query)
            newest = list(reversed(self.batches.values()))
            ids = [b["id"] for b in newest]
            start = ids.index(asked["after"][0]) + 1 if "after" in asked else 0
            page = newest[start : start + 2]  # small pages: looking further is tried
            say(handler, {"data": page, "has_more": start + 2 < len(newest)})
        elif path.startswith("/v1/batches/"):
            batch = self.batches[path.rpartition("/")[2]]
            self.asked[batch["id"]] += 1
            if self.asked[batch["id"]] > self.polls and batch["status"] == "in_progress":
                self.end(batch)
            say(handler, batch)
        elif path.endswith("/content"):
            say(handler, self.files[path.split("/")[-2]])
        else:
            say(handler, {"error": "no such place"}, 404)

    def post(self, handler: BaseHTTPRequestHandler, path: str, body: bytes) -> None:
        if path == "/v1/chat/completions":
            self.alone += 1
            status, answer = self.answer(json.loads(body))
            say(handler, answer, status)
        elif path == "/v1/files":
            (content,) = re.findall(rb'filename="[^"]*".*?\r\n\r\n(.*?)\r\n--', body, re.DOTALL)
            name = f"file-{len(self.files)}"
            self.files[name] = content
            say(handler, {"id": name})
        elif path == "/v1/batches":
            asked = json.loads(body)
            number = len(self.batches)
            how = self.creating(number)
            if how == "refuse":
                say(handler, {"error": "no batches here"}, 404)
                return
            batch = {
                "id": f"batch_{number}",
                "status": "in_progress",
                "created_as": number,
                **{k: asked.get(k) for k in ("input_file_id", "metadata", "endpoint")},
            }
            if how == "unmarked":
                batch["metadata"] = None
            if how != "lost":
                self.batches[batch["id"]] = batch
            if how in ("then fail", "unmarked", "lost"):
                say(handler, {"error": "internal"}, 500)
            else:
                say(handler, batch)
        else:
            say(handler, {"error": "no such place"}, 404)

    def answer(self, body: dict[str, Any]) -> tuple[int, Any]:
        """What the model says, as it would to one request."""
        found: list[tuple[int, Any]] = []

        class Kept:
            def __getattr__(self, name: str) -> Any:
                return lambda *_: None

            def send_response(self, status: int) -> None:
                self.status = status

            @property
            def wfile(self) -> Any:
                return self

            def write(self, data: bytes) -> None:
                found.append((self.status, json.loads(data)))

        self.model(Kept(), body)  # type: ignore[arg-type]
        if found[0][0] == 200:
            self.paid[json.dumps(body, sort_keys=True)] += 1
        return found[0]

    def end(self, batch: dict[str, Any]) -> None:
        """Answer a batch's lines."""
        number = batch["created_as"]
        status = batch["status"] = self.ends_as(number)
        if status == "failed":
            batch["errors"] = {"data": [{"message": "token_limit_exceeded: too much is enqueued"}]}
            return
        good, bad = [], []
        for k, line in enumerate(self.files[batch["input_file_id"]].splitlines()):
            row = json.loads(line)
            fault = self.fault(number, k)
            if fault == "lost":
                continue
            code, answer = (fault, {"error": {"message": f"{fault}"}}) if fault else (0, None)
            if not fault:
                code, answer = self.answer(row["body"])
            out = {"custom_id": row["custom_id"], "response": {"status_code": code, "body": answer}}
            (good if code == 200 else bad).append(json.dumps(out))
        for kind, lines in (("output", good), ("error", bad)):
            if lines:
                name = f"file-{len(self.files)}"
                self.files[name] = "\n".join(reversed(lines)).encode()  # in any order
                batch[f"{kind}_file_id"] = name


@pytest.fixture
def provider() -> Iterator[Callable[..., Provider]]:
    made: list[Provider] = []

    def start(gives: str = "all") -> Provider:
        made.append(Provider(gives))
        return made[-1]

    yield start
    for one in made:
        one.http.stop()


@pytest.fixture(autouse=True)
def no_lingering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_runner, "_LINGER", 0.1)


def settings(provider: Provider, folder: Path, **options: Any) -> LabelSettings:
    own = {"base_url": provider.url, "retries": 2, "timeout": 5, "poll": 0.01, **options}
    judge = EngineSettings(engine="openai", model="m", options={"batch": str(folder), **own})
    return LabelSettings(judge=judge, template="pairwise")


def write_pairs(folder: Path, count: int) -> str:
    rows = [
        {"prompt": f"q {k}", "response_a": f"a {k}", "response_b": f"b {k}"} for k in range(count)
    ]
    return write_rows(folder / "p.jsonl", rows)


def label(folder: Path, chosen: LabelSettings, name: str = "run", **more: Any) -> list[Any]:
    job = prepare(str(folder / "p.jsonl"), "demo", chosen)
    run_label(job, folder / name, RunContext(cache_dir=folder / f"cache-{name}"), **more)
    return told(folder / name)


def told(run: Path) -> list[Any]:
    return [
        [v[k] for k in ("pair", "principle", "order", "p_first", "label_mass", "invalid")]
        for v in read(run / "verdicts.jsonl")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("gives", ["all", "none", "refuses"])
def test_batches_come_to_what_single_requests_come_to(
    provider: Callable[..., Provider], tmp_path: Path, gives: str
) -> None:
    write_pairs(tmp_path, 8)
    one, many = provider(gives), provider(gives)
    single = settings(one, tmp_path / "x")
    options = {k: v for k, v in single.judge.options.items() if k not in ("batch", "poll")}
    judge = single.judge.model_copy(update={"options": options})
    alone = label(tmp_path, single.model_copy(update={"judge": judge}), "single")
    assert label(tmp_path, settings(many, tmp_path / "b"), "many") == alone
    assert many.alone <= 10, "all but the first question are asked in batches"
    assert many.paid.keys() <= one.paid.keys(), "and no more votes are drawn"
    more = one.paid.keys() - many.paid.keys()
    assert len(more) <= (8 if gives == "none" else 0), "eight at once learn what one learns here"
    assert set(many.paid.values()) == {1}
    rounds = {"all": 1}.get(gives, 9)
    assert 1 <= len(many.batches) <= rounds
    # With another cache, the answers are still found in the batches on the disk.
    paid, alone_before = sum(many.paid.values()), many.alone
    assert label(tmp_path, settings(many, tmp_path / "b"), "third") == alone
    assert many.alone == alone_before, "how the server is asked is known"
    assert sum(many.paid.values()) - paid <= 15


def test_a_model_that_is_asked_in_batches_is_no_lane_of_its_own(
    provider: Callable[..., Provider], tmp_path: Path
) -> None:
    """A batch holds all that can be asked: it is sent once the other models have nothing to do."""
    batched = settings(provider("all"), tmp_path / "b").judge
    options = {k: v for k, v in batched.options.items() if k not in ("batch", "poll")}
    plain = batched.model_copy(update={"options": options})
    with closing(create_engine(batched)) as one, closing(create_engine(plain)) as two:
        queues = {n: EngineQueue(engine) for n, engine in enumerate((one, two, one))}
        lanes = [[queue.engine for queue in lane] for lane in make_lanes(queues)]
        assert lanes == [[one, one], [two]]


class Killed(BaseException):
    """The process dies."""


class Death:
    """Kills the process at the k-th step: before or after a request, or a write of the ledger."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps, self.at = 0, -1
        for owner, name in (
            (ServerClient, "request"),
            (ServerClient, "download"),
            (BatchLedger, "add"),
            (BatchLedger, "update"),
            (BatchLedger, "keep_manner"),
            (BatchLedger, "_write"),
        ):
            monkeypatch.setattr(owner, name, self.around(getattr(owner, name)))

    def around(self, real: Any) -> Any:
        def called(*args: Any, **more: Any) -> Any:
            self.step()
            found = real(*args, **more)
            self.step()
            return found

        return called

    def step(self) -> None:
        self.steps += 1
        if self.steps == self.at:
            raise Killed


@pytest.mark.slow
def test_a_kill_at_any_moment_pays_for_nothing_twice(
    provider: Callable[..., Provider], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pairs(tmp_path, 2)
    whole = label(tmp_path, settings(provider(), tmp_path / "b"), "whole")
    death = Death(monkeypatch)
    at, kills, lost = 0, 0, 0
    while True:
        at += 3  # a third of all steps: writes, requests and downloads, before and after
        fresh = provider()
        folder = tmp_path / f"kill-{at}"
        folder.mkdir()
        write_pairs(folder, 2)
        chosen = settings(fresh, folder / "b").model_copy(
            update={
                "judge": settings(fresh, folder / "b").judge.model_copy(
                    update={"max_in_flight": 18}
                )
            }
        )
        death.steps, death.at = 0, at
        try:
            label(folder, chosen)
            died = False
        except Killed:
            died = True
        if not died:
            break
        kills += 1
        death.at = -1
        assert label(folder, chosen) == whole, f"killed at step {at}"
        # Only the request that is asked alone can be lost, before its answer is on the disk.
        twice = sum(fresh.paid.values()) - len(fresh.paid)
        assert twice <= fresh.alone - 1 <= 1, f"killed at step {at}"
        lost += twice
    assert lost <= 1
    assert kills > 12, "requests, downloads and writes were all interrupted"


@pytest.mark.parametrize("how", ["then fail", "unmarked"])
def test_a_batch_that_was_created_without_our_knowing_is_found_and_not_created_again(
    provider: Callable[..., Provider], tmp_path: Path, how: str
) -> None:
    write_pairs(tmp_path, 20)
    server = provider()
    server.creating = lambda number: how if number in (0, 3) else ""
    chosen = settings(server, tmp_path / "b")
    judge = chosen.judge.model_copy(update={"max_in_flight": 30})
    label(tmp_path, chosen.model_copy(update={"judge": judge}))
    assert len(server.batches) >= 5
    assert set(server.paid.values()) == {1}
    files = [b["input_file_id"] for b in server.batches.values()]
    assert len(files) == len(set(files))


def test_a_batch_that_the_server_lost_is_created_again(
    provider: Callable[..., Provider], tmp_path: Path
) -> None:
    write_pairs(tmp_path, 5)
    server, tries = provider(), [0]

    def creating(_: int) -> str:
        tries[0] += 1
        return "lost" if tries[0] < 3 else ""

    server.creating = creating
    label(tmp_path, settings(server, tmp_path / "b"))
    assert len(server.batches) == 1
    assert set(server.paid.values()) == {1}


def test_what_expired_or_met_a_passing_fault_is_sent_again_and_alone(
    provider: Callable[..., Provider], tmp_path: Path
) -> None:
    write_pairs(tmp_path, 30)
    server = provider()
    server.ends_as = lambda number: "expired" if number == 0 else "completed"
    server.fault = lambda batch, line: (
        ("lost" if line % 3 == 0 else 429 if line % 3 == 1 else None) if batch == 0 else None
    )
    found = label(tmp_path, settings(server, tmp_path / "b"))
    assert found == label(tmp_path, settings(provider(), tmp_path / "c"), "other")
    assert len(server.batches) == 2
    assert set(server.paid.values()) == {1}


def test_what_a_server_refuses_is_a_reason(
    provider: Callable[..., Provider], tmp_path: Path
) -> None:
    write_pairs(tmp_path, 30)
    server = provider()
    server.fault = lambda batch, line: 400 if line == 7 else None
    found = label(tmp_path, settings(server, tmp_path / "b"))
    invalid = [row[-1] for row in found if row[-1]]
    assert len(invalid) == 1
    assert "status 400" in invalid[0]
    assert len(server.batches) == 1


def test_what_never_comes_stops_the_run_which_goes_on_later(
    provider: Callable[..., Provider], tmp_path: Path
) -> None:
    write_pairs(tmp_path, 10)
    server = provider()
    server.fault = lambda batch, line: 503 if line == 2 or batch > 0 else None
    with pytest.raises(RlaifError, match="status 503"):
        label(tmp_path, settings(server, tmp_path / "b"))
    assert len(server.batches) == 3, "two more tries"
    server.fault = lambda batch, line: None
    label(tmp_path, settings(server, tmp_path / "b"))
    assert set(server.paid.values()) == {1}


def test_a_cancelled_batch_stops_the_run_and_a_failed_one_says_why(
    provider: Callable[..., Provider], tmp_path: Path
) -> None:
    write_pairs(tmp_path, 10)
    server = provider()
    server.ends_as = lambda number: "cancelled" if number == 0 else "completed"
    server.fault = lambda batch, line: "lost" if batch == 0 and line > 20 else None
    with pytest.raises(EngineStopped, match="batch batch_0 was cancelled"):
        label(tmp_path, settings(server, tmp_path / "b"))
    label(tmp_path, settings(server, tmp_path / "b"))
    assert set(server.paid.values()) == {1}
    other = provider()
    other.ends_as = lambda number: "failed" if number == 0 else "completed"
    with pytest.raises(RlaifError, match="failed before it began: token_limit_exceeded"):
        label(tmp_path, settings(other, tmp_path / "c"), "other")
    label(tmp_path, settings(other, tmp_path / "c"), "other")
    assert set(other.paid.values()) == {1}


def test_a_server_without_batch_files_is_one_line(
    provider: Callable[..., Provider], tmp_path: Path
) -> None:
    write_pairs(tmp_path, 3)
    server = provider()
    server.creating = lambda number: "refuse"
    with pytest.raises(
        RlaifError, match=r"refuses POST /batches \(status 404.*\. Leave out --batch"
    ):
        label(tmp_path, settings(server, tmp_path / "b"))


def test_a_damaged_ledger_is_one_line(provider: Callable[..., Provider], tmp_path: Path) -> None:
    write_pairs(tmp_path, 3)
    label(tmp_path, settings(provider(), tmp_path / "b"))
    server = provider()
    label(tmp_path, settings(server, tmp_path / "b"), "second")
    for file in (tmp_path / "b").glob("*/batch.json"):
        file.write_text(file.read_text()[:30])
    with pytest.raises(RlaifError, match=r"batch\.json is damaged"):
        label(tmp_path, settings(server, tmp_path / "b"), "third")


def test_costs_are_looked_at_before_a_batch_is_sent(
    provider: Callable[..., Provider], tmp_path: Path
) -> None:
    """Every answer costs 102 tokens, at a currency unit each."""
    write_pairs(tmp_path, 60)
    server = provider()
    chosen = settings(server, tmp_path / "b")
    prices = Prices(computed=1e6, written=1e6, most=20_000.0)
    with pytest.raises(RlaifError, match="as much as --max-cost allows"):
        label(tmp_path, chosen, prices=prices)
    cost = 102 * sum(server.paid.values())
    assert 20_000 <= cost <= 20_000 + 2 * 102
    label(tmp_path, chosen, prices=Prices(computed=1e6, written=1e6, most=1e9))
    assert set(server.paid.values()) == {1}


def test_votes_that_are_needed_anyway_are_drawn_together() -> None:
    plan = VotePlan(15, 0.05)
    for first in range(15):
        for second in range(15 - first):
            if plan.is_clear(first, second):
                continue
            least = plan.least_votes(first, second)
            assert least >= 1
            for more in range(least):
                for ours in range(more + 1):
                    assert not plan.is_clear(first + ours, second + more - ours)
            assert any(
                plan.is_clear(first + ours, second + least - ours) for ours in range(least + 1)
            )


def test_the_flag_keeps_its_files_beside_the_caches(
    provider: Callable[..., Provider], tmp_path: Path
) -> None:
    data = write_pairs(tmp_path, 3)
    server = provider()
    line = ["label", data, "-c", "demo", "--template", "pairwise", "-j", "m", "--batch"]
    options = ["--engine", "openai", "--option", f"base_url={server.url}", "--option", "poll=0.01"]
    cache = ["--cache-dir", str(tmp_path / "cache"), "-o", str(tmp_path / "r")]
    done = CliRunner().invoke(cli, [*line, *options, *cache], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "cache" / "batches").glob("rlaif-*/output.jsonl"))) == 1
    assert "batch" not in (tmp_path / "r" / "run.yaml").read_text()
    with pytest.raises(RlaifError, match="--batch needs --engine openai"):
        CliRunner().invoke(
            cli, [*line, "--engine", "scripted", "-o", str(tmp_path / "x")], catch_exceptions=False
        )
    with suppress(FileNotFoundError):
        assert not (tmp_path / "x").exists()
