"""`rlaif serve` on real vLLM, asked as clients ask it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from rlaif.api.judge import Judge
from rlaif.api.remote import RemoteJudge
from rlaif.errors import RlaifError
from rlaif.serve.guarding import GuardMiddleware
from tests.harness.helpers import TOKEN, Labeled, Server, start_server

pytestmark = pytest.mark.slow

POLITE = {
    "prompt": "How do I clean a small kettle?",
    "response_a": "Thank you for asking. Clean the kettle with warm water.",
    "response_b": "That is a silly question. Clean the kettle with warm water.",
}


def test_answers_are_those_of_label_for_one_pair_and_for_many(
    judge_server: Server, demo_labels: Labeled
) -> None:
    body = {"pairs": demo_labels.rows}
    found = judge_server.post("/v1/judge/pairwise", body).json()["results"]
    assert [f["id"] for f in found] == [row["id"] for row in demo_labels.rows]
    for item in found:
        assert item["p_a"] == pytest.approx(demo_labels.p_a[item["id"]], abs=2e-4)
        assert item["winner"] == demo_labels.winner[item["id"]]
        assert len(item["principles"]) == 6
        assert item["provenance"]["judge"] == "demo"
    one = judge_server.post("/v1/judge/pairwise", demo_labels.rows[0]).json()
    assert one == found[0]


def test_nothing_is_lost_or_crossed_between_clients(
    judge_server: Server, demo_labels: Labeled
) -> None:
    """Forty clients at once, each with pairs of its own, half of them the other way round."""
    with RemoteJudge(judge_server.url, token=TOKEN) as judge:

        def client(number: int) -> None:
            rows = demo_labels.rows[number % 5 :: 5]
            turned = [
                {**r, "response_a": r["response_b"], "response_b": r["response_a"]} for r in rows
            ]
            for asked, sign in ((rows, 1), (turned, -1)):
                for row, answer in zip(asked, judge.compare_many(asked), strict=True):
                    assert answer.id == row["id"]
                    p = demo_labels.p_a[row["id"]]
                    assert answer.p_a == pytest.approx(p if sign > 0 else 1 - p, abs=2e-4)

        with concurrent.futures.ThreadPoolExecutor(40) as pool:
            for done in [pool.submit(client, i) for i in range(40)]:
                done.result()
    assert judge_server.get("/health").json()["waiting"] == 0


def test_one_unreadable_item_of_a_batch_is_an_error_of_its_own(judge_server: Server) -> None:
    bad = {
        "id": "bad",
        "prompt": [{"role": "assistant", "content": "x"}],
        "response_a": "a",
        "response_b": "b",
    }
    found = judge_server.post("/v1/judge/pairwise", {"pairs": [POLITE, bad, POLITE]}).json()
    first, second, third = found["results"]
    assert first["winner"] == third["winner"] == "a"
    assert second["id"] == "bad"
    assert "ends with an assistant message" in second["error"]
    assert judge_server.post("/v1/judge/pairwise", bad).status_code == 422
    for nothing in ("", " "):
        empty = judge_server.post("/v1/judge/pairwise", {**POLITE, "response_a": nothing}).json()
        assert (empty["status"], empty["winner"]) == ("abstained", None)
        assert "empty" in empty["reason"]
        item = {"prompt": "q", "response": nothing}
        alone = judge_server.post("/v1/judge/pointwise", item).json()
        assert (alone["score"], alone["reason"]) == (None, "the response is empty")


def test_pointwise_and_critique(judge_server: Server) -> None:
    items = [
        {"prompt": POLITE["prompt"], "response": POLITE[k]} for k in ("response_a", "response_b")
    ]
    good, rude = judge_server.post("/v1/judge/pointwise", {"items": items}).json()["results"]
    marks = [{m["principle"]: m["p"] for m in s["principles"]} for s in (good, rude)]
    assert marks[0]["be-polite"] > 0.6 > 0.4 > marks[1]["be-polite"]
    assert good["score"] > rude["score"]
    weights = [m["weight"] for m in good["principles"]]
    mean = sum(w * m["p"] for w, m in zip(weights, good["principles"], strict=True)) / sum(weights)
    assert good["score"] == pytest.approx(mean)
    body = {**items[1], "principles": ["be-polite"], "revise": True}
    (critique,) = judge_server.post("/v1/judge/critique", body).json()["principles"]
    assert critique["principle"] == "be-polite"
    assert "silly" in critique["critique"]
    assert critique["revision"]
    assert "silly" not in critique["revision"]
    unknown = judge_server.post("/v1/judge/critique", {**items[0], "principles": ["nope"]})
    assert unknown.status_code == 422
    assert "unknown principle 'nope'" in unknown.json()["error"]["message"]


def test_score_and_rerank_have_the_shapes_of_vllm(judge_server: Server) -> None:
    responses = [POLITE["response_b"], POLITE["response_a"]]
    body = {"model": "rlaif/demo", "text_1": POLITE["prompt"], "text_2": responses}
    found = judge_server.post("/v1/score", body).json()
    assert found["object"] == "list"
    assert [d["index"] for d in found["data"]] == [0, 1]
    scores = [d["score"] for d in found["data"]]
    assert scores[0] < scores[1]
    ranked = judge_server.post(
        "/v1/rerank", {"query": POLITE["prompt"], "documents": responses}
    ).json()["results"]
    assert [r["index"] for r in ranked] == [1, 0]
    assert ranked[0]["document"]["text"] == responses[1]
    assert [r["relevance_score"] for r in ranked] == scores[::-1]
    odd = judge_server.post("/v1/score", {"text_1": ["a", "b"], "text_2": ["c"]})
    assert odd.status_code == 422


PAIRWISE, CHAT = "/v1/judge/pairwise", "/v1/chat/completions"
MISSING = {"model": "gpt-9", "messages": [{"role": "user", "content": "x"}]}
IMAGE = {"model": "rlaif/demo", "messages": [{"role": "user", "content": [{"type": "image"}]}]}
HALF = {"model": "rlaif/demo:json", "messages": [{"role": "user", "content": "\ud800"}]}


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        (PAIRWISE, {"prompt": "x"}, 422, "field required"),
        (
            PAIRWISE,
            {**POLITE, "constitution": "other"},
            404,
            "'other' is not served; avail",
        ),
        (PAIRWISE, {**POLITE, "prompt": "\ud800"}, 422, "UTF-8"),
        (PAIRWISE, {"pairs": []}, 422, ""),
        (CHAT, MISSING, 404, "GET /v1/models lists"),
        (CHAT, IMAGE, 422, "parts that are not text"),
        (CHAT, HALF, 422, "unpaired surrogate"),
    ],
)
def test_bad_requests_are_one_sentence(
    judge_server: Server, path: str, body: Any, status: int, message: str
) -> None:
    raw = json.dumps(body).encode()
    answer = httpx.post(
        judge_server.url + path,
        content=raw,
        headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
    )
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert message in error["message"]
    assert error["code"] == status
    assert "\n" not in error["message"]


@pytest.mark.parametrize(
    "raw",
    [
        '{"prompt": "q", "response_a": "x", "response_b": "y", "response_a": "z"}',
        '{"pairs": [{"prompt": "q", "prompt": "r", "response_a": "x", "response_b": "y"}]}',
        '{"model": "rlaif/demo", "model": "rlaif/demo", "messages": []}',
    ],
)
def test_a_key_that_comes_twice_is_refused(judge_server: Server, raw: str) -> None:
    answer = httpx.post(
        judge_server.url + (CHAT if "model" in raw else PAIRWISE),
        content=raw,
        headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
    )
    assert answer.status_code == 422, answer.text
    assert "comes twice" in answer.json()["error"]["message"]


def test_only_the_token_opens_and_large_bodies_are_refused(judge_server: Server) -> None:
    for headers in ({}, {"Authorization": "Bearer no"}, {"Authorization": TOKEN}):
        answer = httpx.post(f"{judge_server.url}/v1/judge/pairwise", json=POLITE, headers=headers)
        assert answer.status_code == 401, headers
    assert httpx.get(f"{judge_server.url}/health").status_code == 200
    assert httpx.get(f"{judge_server.url}/metrics").status_code == 401
    huge = {**POLITE, "response_a": "x" * (17 << 20)}
    assert judge_server.post("/v1/judge/pairwise", huge).status_code == 413
    # One prompt goes with each of many responses: what they come to is bounded, too.
    many = {"text_1": "x y " * 25_000, "text_2": ["a"] * 4096}
    answer = judge_server.post("/v1/score", many)
    assert (answer.status_code, "one prompt counted for each" in answer.text) == (413, True)

    def chunks() -> Any:
        for _ in range(20):
            yield b"x" * (1 << 20)

    answer = httpx.post(
        f"{judge_server.url}/v1/judge/pairwise",
        content=chunks(),
        headers={"Authorization": f"Bearer {TOKEN}"},
    )
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        (PAIRWISE, {**POLITE, "prompt": "b" * (10 << 20)}, "10485"),
        (PAIRWISE, {**POLITE, "response_b": "how are you " * 800_000}, "characters"),
        ("/v1/judge/pointwise", {"prompt": "q", "response": "b " * (5 << 20)}, "characters"),
        ("/v1/judge/critique", {"prompt": "q", "response": "b " * (5 << 20)}, "characters"),
        (PAIRWISE, {**POLITE, **{f"x{i}": i for i in range(500_000)}}, "fields are more"),
        (PAIRWISE, {**POLITE, "tags": ["x"] * 900_000}, "at most 4096"),
        (
            PAIRWISE,
            {**POLITE, "prompt": [{"role": "user", "content": "x"}] * 200_000},
            "prompt",
        ),
    ],
)
def test_one_huge_request_is_answered_before_it_is_tokenized(
    judge_server: Server, path: str, body: Any, told: str
) -> None:
    answer = judge_server.post(path, body)
    assert answer.status_code in (200, 422)
    assert told in answer.text
    assert judge_server.post(PAIRWISE, POLITE).status_code == 200


def test_models_metrics_and_documentation(judge_server: Server) -> None:
    names = {m["id"] for m in judge_server.get("/v1/models").json()["data"]}
    assert {"rlaif/demo", "rlaif/demo:alpaca-eval", "gpt-4o-2024-08-06"} <= names
    before = judge_server.get("/metrics").text
    judge_server.post("/v1/judge/pairwise", POLITE)
    after = judge_server.get("/metrics").text

    def count(text: str) -> float:
        line = next(
            (
                x
                for x in text.splitlines()
                if x.startswith('rlaif_requests_total{endpoint="/v1/judge/pairwise",status="200"}')
            ),
            "0",
        )
        return float(line.split()[-1])

    assert count(after) == count(before) + 1
    assert 'rlaif_judge_answers_total{how="asked"}' in after
    paths = judge_server.get("/openapi.json").json()["paths"]
    assert "/v1/judge/pointwise" in paths
    page = httpx.get(f"{judge_server.url}/docs")
    assert page.status_code == 401
    assert page.headers["www-authenticate"].startswith("Basic"), "a browser asks for the token"
    assert httpx.get(f"{judge_server.url}/openapi.json").status_code == 401
    login = ("anyone", TOKEN)
    for bad in (("anyone", "no"), ("anyone", ""), (TOKEN, "")):
        assert httpx.get(f"{judge_server.url}/docs", auth=bad).status_code == 401
    assert httpx.post(f"{judge_server.url}/v1/judge/pairwise", auth=login, json={}).status_code == (
        401
    ), "a browser would send the password with requests of other pages"
    page = httpx.get(f"{judge_server.url}/docs", auth=login)
    assert page.status_code == 200
    files = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert files
    for file in files:  # nothing from elsewhere: it works offline
        assert file.startswith("/"), file
        assert httpx.get(judge_server.url + file, auth=login).status_code == 200
        assert httpx.get(judge_server.url + file).status_code == 401
    assert "kettle" in json.dumps(judge_server.get("/openapi.json").json())


def test_no_prompt_and_no_key_is_in_the_log(judge_server: Server) -> None:
    judge_server.post("/v1/judge/pairwise", {**POLITE, "response_a": "zanzibar"})
    judge_server.chat("json", "zanzibar")
    log = judge_server.log.read_text()
    assert "zanzibar" not in log
    assert TOKEN not in log


def test_streaming_clients_get_the_whole_verdict(judge_server: Server) -> None:
    text = judge_server.chat("json", json.dumps(POLITE), stream=True).text
    pieces = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert pieces[-1] == "[DONE]"
    said = "".join(json.loads(p)["choices"][0]["delta"].get("content", "") for p in pieces[:-1])
    assert json.loads(said)["winner"] == "a"


def test_the_schema_says_what_the_server_does(judge_server: Server, tmp_path: Path) -> None:
    """schemathesis makes requests from the OpenAPI and checks every answer against it."""
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "schemathesis"),
            "run",
            f"{judge_server.url}/openapi.json",
            "--header",
            f"Authorization: Bearer {TOKEN}",
            "--max-examples",
            "12",
            "--phases",
            "examples,fuzzing",
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,"
            "response_schema_conformance",
            "--exclude-path",
            "/v1/judge/critique",
            "--seed",
            "1",
            "--workers",
            "2",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-4000:]


def test_a_remote_judge_is_a_judge(judge_server: Server, demo_labels: Labeled) -> None:
    row = demo_labels.rows[0]
    with RemoteJudge(judge_server.url, token=TOKEN) as judge:
        found = judge.compare(row["prompt"], row["response_a"], row["response_b"])
        assert found.p_a == pytest.approx(demo_labels.p_a["p0"], abs=2e-4)
        assert judge.score(row["prompt"], row["response_a"]).score is not None
        critique = judge.critique(POLITE["prompt"], POLITE["response_b"], principles=["be-polite"])
        assert critique.principles[0].critique
    with (
        RemoteJudge(judge_server.url, token="wrong") as judge,
        pytest.raises(RlaifError, match="rejected the request: 401, the token is missing or wrong"),
    ):
        judge.compare("a", "b", "c")
    with RemoteJudge("http://127.0.0.1:9") as judge, pytest.raises(RlaifError, match="no response"):
        judge.compare("a", "b", "c")


def test_a_remote_judge_reads_every_layout_and_bad_input_is_one_sentence(
    judge_server: Server, demo_labels: Labeled
) -> None:
    first = demo_labels.rows[0]
    rows: list[Any] = [
        {
            "id": 7,
            "prompt": first["prompt"],
            "chosen": first["response_a"],
            "rejected": first["response_b"],
            "source": "x",
            "number": float("nan"),
        },
        (first["prompt"], first["response_a"], ""),
    ]
    with RemoteJudge(judge_server.url, token=TOKEN) as judge:
        one, two = judge.compare_many(rows)
        assert one.p_a == pytest.approx(demo_labels.p_a["p0"], abs=2e-4)
        assert two.status == "abstained"
        assert next(judge.score_many([("q", "")])).score is None
        for bad in (5, None, "text", ("a", "b"), {"prompt": "q"}, ("\ud800", "a", "b")):
            with pytest.raises(RlaifError):
                list(judge.compare_many([bad]))  # type: ignore[list-item]
    with RemoteJudge("http://127.0.0.1:99999") as judge, pytest.raises(RlaifError):
        judge.compare("a", "b", "c")


def test_a_client_that_leaves_or_dawdles_writes_no_traceback(judge_server: Server) -> None:
    host, port = judge_server.url.removeprefix("http://").split(":")
    head = (
        f"POST /v1/judge/pairwise HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    )
    for _ in range(5):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head.encode())
    assert judge_server.post("/v1/judge/pairwise", POLITE).status_code == 200
    assert "Traceback" not in judge_server.log.read_text()


def test_a_body_has_to_come_in_time() -> None:
    sent: list[Any] = []

    async def never(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("the request is not whole")

    async def receive() -> Any:
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    guard = GuardMiddleware(never, None, 1000, 0.3)
    asyncio.run(guard({"type": "http", "headers": [], "path": "/x"}, receive, send))
    assert sent[0]["status"] == 408


def test_a_small_server_takes_large_data_sets_and_says_where_it_is(
    tmp_path: Path, demo_labels: Labeled
) -> None:
    """Sixteen places: batches are split, clients wait for their turn, and nothing is lost."""
    with start_server(tmp_path, "--engine", "packed", "--max-waiting", "16") as server:
        rows = demo_labels.rows + [{**r, "id": f"again-{r['id']}"} for r in demo_labels.rows]
        with RemoteJudge(server.url, token=TOKEN) as judge:
            found = list(judge.compare_many(rows))
        assert [f.id for f in found] == [r["id"] for r in rows]
        too_many = server.post("/v1/judge/pairwise", {"pairs": rows[:17]})
        assert too_many.status_code == 413
        assert "send fewer" in too_many.json()["error"]["message"]
        port = server.url.rpartition(":")[2]
        taken = subprocess.run(
            [sys.executable, "-m", "rlaif", "serve", "-c", "demo", "--port", port],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert taken.returncode == 2
        assert f"can't listen on 127.0.0.1:{port}" in taken.stderr
        assert "starting" not in taken.stderr


def test_open_to_the_network_needs_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rlaif", "serve", "-c", "demo", "--host", "0.0.0.0"],
        capture_output=True,
        text=True,
        env={"PATH": "", "HOME": "/tmp"},
    )
    assert done.returncode == 2
    assert "is reachable from other machines, but no token is set" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_api_in_this_process_says_the_same(demo_labels: Labeled) -> None:
    with Judge("demo", engine="packed") as judge:
        found = list(judge.compare_many(iter(demo_labels.rows), progress=True))
    for row, answer in zip(demo_labels.rows, found, strict=True):
        assert answer.id == row["id"]
        assert answer.p_a == pytest.approx(demo_labels.p_a[row["id"]], abs=2e-4)
