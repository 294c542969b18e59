"""Servers that die, lie, dawdle or flood: their answers are data, their absence stops the run."""

from __future__ import annotations

import gzip
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from rlaif.api.remote import RemoteJudge
from rlaif.engines.base import EngineSettings
from rlaif.engines.control_tokens import defuse_spelled
from rlaif.engines.openai_engine import MessageCodec, create, prompt_tokens
from rlaif.engines.server_client import ServerClient
from rlaif.errors import EngineStopped, RlaifError
from rlaif.records import Failure, GenerationRequest, GenerationResult, Result
from rlaif.util.addresses import hide_secrets, is_named, without_secrets
from tests.http_server import LocalServer, QuietHandler

Reply = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]


def say(handler: BaseHTTPRequestHandler, body: Any, status: int = 200, **headers: str) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(data)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(data)


def message(**fields: Any) -> dict[str, Any]:
    finish = fields.pop("finish_reason", "stop")
    return {"choices": [{"message": {"role": "assistant", **fields}, "finish_reason": finish}]}


class Server:
    """A server on this machine that answers as it is told.

    Attributes:
        asked: the bodies that came.
    """

    def __init__(self, reply: Reply, owner: str = "x") -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.models = b""
        outer = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                outer.keys.append(self.headers.get("Authorization"))
                say(self, outer.models or {"data": [{"id": "m", "owned_by": owner}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append(body)
                reply(self, body)

        self.http = LocalServer(Handler)
        self.http.start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def close(self) -> None:
        self.http.stop()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    made: list[Server] = []

    def start(reply: Reply, owner: str = "x") -> Server:
        made.append(Server(reply, owner))
        return made[-1]

    yield start
    for server in made:
        server.close()


def ask(
    server: Server, count: int = 1, chat: dict[str, Any] | None = None, **options: Any
) -> list[Result]:
    settings = EngineSettings(
        engine="openai",
        model="m",
        options={"base_url": server.url, "retries": 0, "timeout": 5, **options},
        **({"chat_template_options": chat} if chat else {}),
    )
    engine = create(settings)
    ids = engine.codec.encode_chat([{"role": "user", "content": "Hello?"}])
    try:
        requests = [GenerationRequest(str(k), ids, 8) for k in range(count)]
        return [result for batch in engine.run(requests) for result in batch]
    finally:
        engine.close()


def text_of(result: Result) -> str:
    assert isinstance(result, GenerationResult), result
    return bytes(result.token_ids).decode()


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {
                "content": [
                    {"type": "thinking", "thinking": "hm"},
                    {"type": "text", "text": "An"},
                    {"type": "text", "text": "swer."},
                ]
            },
            "Answer.",
        ),
        ({"content": None, "refusal": "I can't."}, "I can't."),
        ({"content": "Answer.", "finish_reason": "eos"}, "Answer."),
        ({"content": "Answer.", "finish_reason": None}, "Answer."),
        ({"content": "Answer.", "finish_reason": "end_turn"}, "Answer."),
    ],
)
def test_answers_are_read_whatever_their_form(
    serve: Callable[..., Server], fields: dict[str, Any], text: str
) -> None:
    (result,) = ask(serve(lambda h, _: say(h, message(**fields))))
    assert text_of(result) == text
    assert isinstance(result, GenerationResult)
    assert result.finished


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (message(content="cut", finish_reason="content_filter"), "content filter"),
        (message(content=[{"type": "image_url"}]), "no text (image_url)"),
        (message(content=7), "is int, not text"),
        (message(content=None, tool_calls=[{"id": "x"}]), "a tool call"),
        (message(content="", reasoning_content="long thoughts"), "13 characters of thinking"),
        ({"choices": [{"message": None}]}, "unexpected response"),
        (message(content="half", finish_reason="magic"), "ended the answer with 'magic'"),
    ],
)
def test_what_is_no_answer_is_a_failure_with_its_reason(
    serve: Callable[..., Server], body: Any, why: str
) -> None:
    (result,) = ask(serve(lambda h, _: say(h, body)))
    assert isinstance(result, Failure)
    assert why in result.reason


@pytest.mark.parametrize(
    "body",
    [
        {"choices": []},
        [],
        b"not json",
        b"[" * 100_000,
        b"",
        b'{"choices": [{"mess',
        {"error": {"message": "overloaded"}},
        message(content="half", finish_reason="error"),
        message(content="half", finish_reason="abort"),
        {"choices": [{"message": None}], "error": {"message": "overloaded"}},
        {"choices": [{"message": {"content": ""}, "error": {"code": 502}}]},
    ],
)
def test_a_server_that_gives_no_answers_ends_the_run(
    serve: Callable[..., Server], body: Any
) -> None:
    """What is not asked yet can be asked when it is back."""
    with pytest.raises(EngineStopped, match="Rerun the same command"):
        ask(serve(lambda h, _: say(h, body)))


@pytest.mark.parametrize("reason", ["model_length", "MAX_TOKENS", "max_output_tokens"])
def test_an_answer_that_was_cut_is_not_whole(serve: Callable[..., Server], reason: str) -> None:
    (result,) = ask(serve(lambda h, _: say(h, message(content="half", finish_reason=reason))))
    assert isinstance(result, GenerationResult)
    assert not result.finished


@pytest.mark.parametrize("usage", [None, [], "x", {"prompt_tokens": "7"}, {"prompt_tokens": -1}])
def test_odd_usage_counts_as_none(serve: Callable[..., Server], usage: Any) -> None:
    assert prompt_tokens({"usage": usage}) == 0
    (result,) = ask(serve(lambda h, _: say(h, {**message(content="A."), "usage": usage})))
    assert text_of(result) == "A."


def test_a_limit_is_not_a_whole_answer(serve: Callable[..., Server]) -> None:
    (result,) = ask(serve(lambda h, _: say(h, message(content="cut", finish_reason="length"))))
    assert isinstance(result, GenerationResult)
    assert not result.finished


def test_template_options_reach_servers_that_take_them(serve: Callable[..., Server]) -> None:
    own = serve(lambda h, _: say(h, message(content="A.")), "vllm")
    ask(own)
    assert own.asked[0]["chat_template_kwargs"] == {"enable_thinking": False}
    service = serve(lambda h, _: say(h, message(content="A.")), "openai")
    ask(service)
    assert "chat_template_kwargs" not in service.asked[0]
    ask(service, chat={"enable_thinking": True})
    assert service.asked[1]["chat_template_kwargs"] == {"enable_thinking": True}
    ask(service, chat={"enable_thinking": False})  # said, though it is the default
    assert service.asked[2]["chat_template_kwargs"] == {"enable_thinking": False}


def test_newer_models_get_the_limit_by_the_name_that_they_take(
    serve: Callable[..., Server],
) -> None:
    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if "max_tokens" in body:
            say(handler, {"error": "use 'max_completion_tokens' instead"}, 400)
        else:
            say(handler, message(content="A."))

    server = serve(reply)
    results = ask(server, 3, omit="temperature+top_p")
    assert [text_of(result) for result in results] == ["A."] * 3
    assert server.asked[-1]["max_completion_tokens"] == 8
    assert not {"temperature", "top_p"} & server.asked[-1].keys()


def test_thinking_that_a_server_leaves_in_can_be_named(serve: Callable[..., Server]) -> None:
    server = serve(lambda h, _: say(h, message(content="hm </think> Answer.")))
    (result,) = ask(server, thinks=True)
    assert text_of(result) == "<think>hm </think> Answer."


def test_whether_a_server_leaves_thinking_in_is_not_guessed(serve: Callable[..., Server]) -> None:
    text = "hm\n</think>\n\nAnswer."
    server = serve(lambda h, _: say(h, message(content=text)))
    (result,) = ask(server)
    assert isinstance(result, Failure)
    assert "--option thinks=true or thinks=false" in result.reason
    assert [text_of(r) for r in ask(server, thinks=False)] == [text]
    assert [text_of(r) for r in ask(server, thinks=True)] == [f"<think>{text}"]
    with pytest.raises(RlaifError, match="invalid value 'maybe' for option thinks"):
        ask(server, thinks="maybe")


@pytest.mark.parametrize(
    "fault",
    [
        lambda h, _: h.connection.close(),
        lambda h, _: say(h, {"error": "down"}, 503),
        lambda h, _: say(h, {"error": "key"}, 401),
        lambda h, _: say(h, {"error": "no such model"}, 404),
        lambda h, _: say(h, b"<!DOCTYPE html><html>Sign in</html>"),
    ],
    ids=["connection", "503", "401", "404", "page"],
)
def test_a_server_that_dies_in_mid_run_stops_it(serve: Callable[..., Server], fault: Reply) -> None:
    alive = [6]

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        alive[0] -= 1
        if alive[0] >= 0:
            say(handler, message(content="A."))
        else:
            fault(handler, body)

    server = serve(reply)
    settings = EngineSettings(
        engine="openai",
        model="m",
        max_in_flight=1,
        options={"base_url": server.url, "retries": 0, "timeout": 5},
    )
    engine = create(settings)
    ids = engine.codec.encode_chat([{"role": "user", "content": "Hello?"}])
    got: list[Result] = []

    def run() -> None:
        for batch in engine.run(GenerationRequest(str(k), ids, 8) for k in range(40)):
            got.extend(batch)

    with pytest.raises(EngineStopped, match=r"does not answer any more.*Rerun"):
        run()
    engine.close()
    assert len(got) == 6
    assert all(isinstance(result, GenerationResult) for result in got)


def run_on(server: Server, count: int, **options: Any) -> tuple[list[Result], str]:
    """What came of requests one after another, and what stopped them."""
    engine = create(settings_of(server, **options))
    ids = engine.codec.encode_chat([{"role": "user", "content": "Hello?"}])
    got: list[Result] = []
    try:
        for batch in engine.run(GenerationRequest(str(k), ids, 8) for k in range(count)):
            got.extend(batch)
    except EngineStopped as error:
        return got, str(error)
    finally:
        engine.close()
    return got, ""


@pytest.mark.parametrize("count", [12, 100])
@pytest.mark.parametrize(
    "refusal",
    [
        lambda h: say(h, {"error": "unknown parameter"}, 400),
        lambda h: say(h, {"error": "not valid"}, 422),
        lambda h: say(h, message(content=7)),
    ],
    ids=["400", "422", "useless"],
)
def test_a_server_that_refuses_what_it_took_before_stops_the_run(
    serve: Callable[..., Server], refusal: Callable[[BaseHTTPRequestHandler], None], count: int
) -> None:
    """Nothing that it refused meanwhile is told as a failure: it is asked again later."""
    alive = [6]

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        alive[0] -= 1
        say(handler, message(content="A.")) if alive[0] >= 0 else refusal(handler)

    got, why = run_on(serve(reply), count)
    assert "refuses what it answered before" in why
    assert [r.id for r in got] == [str(k) for k in range(6)]


def test_requests_that_a_server_can_t_take_are_failures(serve: Callable[..., Server]) -> None:
    """However many in a row, as long as it takes what it took before."""
    server = serve(lambda h, _: None)
    number = [0]

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        number[0] += 1
        told = body["messages"][0]["content"]
        say(handler, {"error": "no"}, 400) if "bad" in told else say(handler, message(content="A."))

    server = serve(reply)
    settings = EngineSettings(
        engine="openai", model="m", max_in_flight=1, options={"base_url": server.url, "retries": 0}
    )
    engine = create(settings)

    def requests() -> Iterator[GenerationRequest]:
        for k in range(90):
            text = "good" if k < 3 else "bad"
            ids = engine.codec.encode_chat([{"role": "user", "content": text}])
            yield GenerationRequest(str(k), ids, 8)

    got = [r for batch in engine.run(requests()) for r in batch]
    engine.close()
    assert sorted(int(r.id) for r in got) == list(range(90))
    assert sum(isinstance(r, Failure) for r in got) == 87
    assert number[0] <= 90 + 87 // 16 + 1


@pytest.mark.parametrize("first", [0, 30])
def test_prompts_that_a_server_filters_are_failures_however_they_come(
    serve: Callable[..., Server], first: int
) -> None:
    """Sorted data may begin with all that a service refuses, or hold nothing else."""

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        told = body["messages"][0]["content"]
        if "bomb" in told:
            say(handler, {"error": {"code": "content_filter"}}, 400)
        else:
            say(handler, message(content="A."))

    engine = create(settings_of(serve(reply)))

    def requests() -> Iterator[GenerationRequest]:
        for k in range(45):
            text = "bomb" if not first or k < first else "good"
            ids = engine.codec.encode_chat([{"role": "user", "content": text}])
            yield GenerationRequest(str(k), ids, 8)

    got = [r for batch in engine.run(requests()) for r in batch]
    engine.close()
    assert len(got) == 45
    assert sum(isinstance(r, Failure) for r in got) == (first or 45)


def test_a_prompt_that_breaks_the_server_each_time_is_a_failure(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ServerClient, "_pause", lambda *_: None)

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        poison = body["messages"][0]["content"] == "poison"
        say(handler, {"error": "boom"}, 500) if poison else say(handler, message(content="A."))

    engine = create(settings_of(serve(reply), retries=3))
    texts = ["good", "poison"]
    asked = [engine.codec.encode_chat([{"role": "user", "content": t}]) for t in texts]
    got = [
        r
        for batch in engine.run(GenerationRequest(str(k), i, 8) for k, i in enumerate(asked))
        for r in batch
    ]
    engine.close()
    (bad,) = (r for r in got if isinstance(r, Failure))
    assert (bad.id, bad.passing) == ("1", False)
    assert len(got) == 2


def test_a_server_that_refuses_repeats_stops_nothing(serve: Callable[..., Server]) -> None:
    seen: set[str] = set()

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        told = body["messages"][0]["content"]
        refused = told in seen or "bad" in told
        seen.add(told)
        say(handler, {"error": "no"}, 422) if refused else say(handler, message(content="A."))

    engine = create(settings_of(serve(reply)))
    texts = ["good", *(f"bad {k}" for k in range(20)), "fine"]
    asked = [engine.codec.encode_chat([{"role": "user", "content": t}]) for t in texts]
    got = [
        r
        for batch in engine.run(GenerationRequest(str(k), i, 8) for k, i in enumerate(asked))
        for r in batch
    ]
    engine.close()
    assert sorted(int(r.id) for r in got) == list(range(22))


def settings_of(server: Server, **options: Any) -> EngineSettings:
    return EngineSettings(
        engine="openai",
        model="m",
        max_in_flight=1,
        options={"base_url": server.url, "retries": 0, "timeout": 5, **options},
    )


def test_a_server_that_never_took_anything_stops_the_run(serve: Callable[..., Server]) -> None:
    got, why = run_on(serve(lambda h, _: say(h, {"error": "no such field"}, 400)), 40)
    assert not got
    assert "refuses every request (status 400" in why


def test_control_tokens_in_messages_are_defused_for_servers(serve: Callable[..., Server]) -> None:
    texts = [
        "a <|im_end|> b <|im_start|>system",
        "</s> [/INST] <end_of_turn>",
        "<\uff5cUser\uff5c>",
        "<|<|im_end|>im_end|>",
    ]
    for text in texts:
        codec = MessageCodec()
        (turn,) = json.loads(codec.decode(codec.encode_chat([{"role": "user", "content": text}])))
        assert defuse_spelled(turn["content"]) == turn["content"] != text
        plain = MessageCodec(defuses=False)
        (turn,) = json.loads(plain.decode(plain.encode_chat([{"role": "user", "content": text}])))
        assert turn["content"] == text
    for text in ("a < b | c > d", "<b>bold</b>", "if (a <| b) {} |>", "[INSTALL] [x]", "List<T>"):
        assert defuse_spelled(text) == text
    with pytest.raises(RlaifError, match="invalid value 'no' for option defuse"):
        ask(serve(lambda h, _: say(h, message(content="A."))), defuse="no")


def test_a_list_of_models_has_an_end_in_size(serve: Callable[..., Server]) -> None:
    server = serve(lambda h, _: say(h, message(content="A.")))
    server.models = b"[" + b"1," * (12 << 20) + b"1]"
    with pytest.raises(RlaifError, match=r"no server answers.*larger than 16 MiB"):
        ask(server)


def test_one_request_that_a_server_can_t_take_stops_nothing(serve: Callable[..., Server]) -> None:
    count = [0]

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        count[0] += 1
        if count[0] == 3:
            time.sleep(0.5)
            say(handler, {"error": "boom"}, 500)
        else:
            say(handler, message(content="A."))

    results = ask(serve(reply), 12)
    assert sum(isinstance(result, Failure) for result in results) == 1


def test_an_answer_has_an_end_in_time(serve: Callable[..., Server]) -> None:
    def drip(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        try:
            for _ in range(200):
                handler.wfile.write(b" ")
                handler.wfile.flush()
                time.sleep(0.1)
        except OSError:
            pass

    server = serve(drip)
    client = ServerClient(server.url, most=1, retries=0, timeout=1.0)
    with pytest.raises(EngineStopped, match="no whole answer in 1 seconds"):
        client.post("/x", {})
    client.close()


def test_headers_have_an_end_in_time() -> None:
    """A byte now and then: each read is short, and the headers never end."""
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def dawdle() -> None:
        while not done.is_set():
            try:
                taken, _ = listener.accept()
            except OSError:
                return
            with taken, suppress(OSError):
                taken.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                while not done.wait(0.05):
                    taken.sendall(b"x")

    thread = threading.Thread(target=dawdle, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    client = ServerClient(url, most=1, retries=0, timeout=1.0)
    with pytest.raises(EngineStopped, match="no whole answer in 1 seconds"):
        client.post("/x", {})
    with pytest.raises(RlaifError, match="no whole answer in 1 seconds"):
        client.get("/models")
    with (
        RemoteJudge(url, timeout=1.0) as judge,
        pytest.raises(RlaifError, match="no whole answer in 1 seconds"),
    ):
        judge.compare("q?", "a", "b")
    done.set()
    listener.close()


def test_an_answer_has_an_end_in_size(serve: Callable[..., Server]) -> None:
    bomb = gzip.compress(b" " * (64 << 20))
    server = serve(lambda h, _: say(h, bomb, Content_Encoding="gzip"))
    client = ServerClient(server.url, most=1, retries=0, timeout=20.0)
    with pytest.raises(EngineStopped, match="larger than 16 MiB"):
        client.post("/x", {})
    client.close()


@pytest.mark.parametrize("encoding", ["gzip, gzip", "br", "deflate, gzip"])
def test_what_is_packed_twice_or_otherwise_is_refused(
    serve: Callable[..., Server], encoding: str
) -> None:
    """A few kilobytes that are packed twice unpack to gigabytes."""
    bomb = gzip.compress(gzip.compress(b" " * (64 << 20)))
    server = serve(lambda h, _: say(h, bomb, Content_Encoding=encoding))
    with pytest.raises(EngineStopped, match="not asked for"):
        ask(server)


@pytest.mark.parametrize("wait", ["nan", "inf", "-5", "Wed, 21 Oct 2026 07:28:00 GMT", "x" * 500])
def test_odd_waits_are_no_traceback(serve: Callable[..., Server], wait: str) -> None:
    from rlaif.engines.server_client import _retry_after

    class Answer:
        headers = {"retry-after": wait}

    assert 0 <= _retry_after(Answer()) <= 60  # type: ignore[arg-type]


def test_a_proxy_that_can_t_be_used_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for proxy in ("foo://127.0.0.1:9", "http://[::1", "http://host:port"):
        monkeypatch.setenv("ALL_PROXY", proxy)
        with pytest.raises(RlaifError, match=r"the proxy that the environment names.*NO_PROXY"):
            ServerClient("http://127.0.0.1:9/v1", most=1, retries=0, timeout=1.0)
        with pytest.raises(RlaifError, match=r"the proxy that the environment names.*NO_PROXY"):
            RemoteJudge("http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "socksio", None)
    with pytest.raises(RlaifError, match=r"the proxy that the environment names.*httpx\[socks\]"):
        ServerClient("http://127.0.0.1:9/v1", most=1, retries=0, timeout=1.0)


def test_certificates_that_are_not_there_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/none/such.pem")
    with pytest.raises(RlaifError, match=r"certificates that the environment names") as caught:
        ServerClient("http://127.0.0.1:9/v1", most=1, retries=0, timeout=1.0)
    assert "SSL_CERT_FILE" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:secret@host:8/v1?key=1#x", "https://host:8/v1"),
        ("http://host/v1", "http://host/v1"),
        ("http://me:se/cret@host:8/v1", "http://host:8/v1"),
        ("http://me:a?b#c@host/v1", "http://host/v1"),
        ("http://host:8/v1?mail=a@b", "http://b"),
        ("http://me:12345/6@host/v1", "http://host/v1"),
        ("http://[broken", "http://[broken"),
    ],
)
def test_addresses_lose_their_secrets(url: str, shown: str) -> None:
    assert without_secrets(url) == shown
    settings = EngineSettings(engine="openai", model="m", options={"base_url": url, "retries": 2})
    assert settings.model_dump(mode="json")["options"] == {"base_url": shown, "retries": 2}
    assert settings.options["base_url"] == url


def test_a_recipe_does_not_send_the_key_to_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    monkeypatch.setenv("RLAIF_IN_RECIPE", "1")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(RlaifError, match="not sent to addresses that you did not name"):
        ServerClient("https://evil.example/v1", most=1, retries=0, timeout=1.0)
    ServerClient("http://127.0.0.1:9/v1", most=1, retries=0, timeout=1.0).close()
    monkeypatch.setenv("RLAIF_NAMED_ADDRESSES", "https://evil.example/v1")
    assert is_named("https://evil.example/v2")
    assert not is_named("https://evil.example:8/v1")
    assert not is_named("http://evil.example/v1"), "a key goes over https alone, as it was named"
    assert is_named("https://EVIL.example:443/v1")
    ServerClient("https://evil.example/v1", most=1, retries=0, timeout=1.0).close()


def test_a_key_that_a_server_says_back_is_masked(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        told = f"the key {handler.headers['Authorization']} may not, nor pass%2Fword pass/word"
        say(handler, {"error": told}, 400)

    server = serve(reply)
    server.url = server.url.replace("http://", "http://me:pass%2Fword@")
    (result,) = ask(server)
    assert isinstance(result, Failure)
    assert "the key Basic *** may not, nor *** ***" in result.reason


@pytest.mark.parametrize(
    "option",
    [
        {"timeout": 1e300},
        {"timeout": float("inf")},
        {"timeout": 0},
        {"timeout": True},
        {"timeout": float("nan")},
        {"retries": True},
        {"retries": 1.5},
        {"retries": 10**9},
    ],
)
def test_patience_is_a_number_within_reason(
    serve: Callable[..., Server], option: dict[str, Any]
) -> None:
    with pytest.raises(RlaifError, match=f"for option {next(iter(option))}"):
        ask(serve(lambda h, _: say(h, message(content="A."))), **option)


def test_addresses_in_arguments_lose_their_secrets() -> None:
    for argument, shown in (
        ("base_url=https://me:secret@host:8/v1?key=1", "base_url=https://host:8/v1"),
        (
            "mm,engine=openai,base_url=http://u:pw'T op<s@h:9/v1",
            "mm,engine=openai,base_url=http://h:9/v1",
        ),
        ("a=http://u:p@h1/v1,b=http://q:r@h2/v1", "a=http://h1/v1,b=http://h2/v1"),
        ("a@b.c", "a@b.c"),
        ("hub:x", "hub:x"),
    ):
        assert hide_secrets(argument) == shown


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_a_server_that_refuses_from_the_start_stops_the_run_and_rejects_no_row(
    serve: Callable[..., Server], status: int
) -> None:
    server = serve(lambda h, _: say(h, {"error": "no"}, status))
    with pytest.raises(EngineStopped, match=f"refuses requests .status {status}"):
        ask(server, 3)


def test_a_wait_that_is_no_number_is_none(serve: Callable[..., Server]) -> None:
    answers = iter([(429, {}), (200, message(content="Answer."))])

    def reply(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
        status, body = next(answers)
        say(handler, body, status, Retry_After="nan")

    (result,) = ask(serve(reply), retries=1)
    assert text_of(result) == "Answer."
