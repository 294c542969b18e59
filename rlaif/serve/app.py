"""The HTTP server: endpoints over one running judge."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from rlaif import __version__
from rlaif.answers import Comparison, Critique, Score
from rlaif.errors import RlaifError
from rlaif.judge import Judge
from rlaif.pipeline.service import Busy, Service, Stopped
from rlaif.serve import schemas as s
from rlaif.serve.chat import TooLarge, answer, logprobs_of, plain
from rlaif.serve.dialects import DIALECTS
from rlaif.serve.dialects.base import NotUnderstood
from rlaif.serve.guarding import Guard
from rlaif.serve.metrics import Counting, Metrics

PREFIX = "rlaif/"
DEFAULT_DIALECT = "json"
RETRY_AFTER = 1
BODY_SECONDS = 30.0
"""In which a request has to arrive whole."""


@dataclass(frozen=True)
class Limits:
    """What one request may take.

    Attributes:
        token: what a bearer must present, or None.
        body_bytes: size of a request.
        seconds: until a request is answered with 504.
    """

    token: str | None = None
    body_bytes: int = 16 << 20
    seconds: float = 600.0


@dataclass(frozen=True)
class Alias:
    """What a model name stands for."""

    constitution: str
    dialect: str


class TooSlow(Exception):
    """A request that took longer than it may."""


class Unknown(Exception):
    """A constitution or a model that is not served."""


def read_aliases(given: Sequence[str], constitutions: Sequence[str]) -> dict[str, Alias]:
    """All model names: `rlaif/<constitution>[:<dialect>]`, and those given as `NAME=C:DIALECT`.

    Raises:
        RlaifError: an alias is malformed or names what is not served.
    """
    found = {}
    for name in constitutions:
        found[f"{PREFIX}{name}"] = Alias(name, DEFAULT_DIALECT)
        for dialect in DIALECTS:
            found[f"{PREFIX}{name}:{dialect}"] = Alias(name, dialect)
    for text in given:
        name, equals, target = text.rpartition("=")
        constitution, colon, dialect = target.removeprefix(PREFIX).rpartition(":")
        if not (equals and colon and name):
            raise RlaifError(
                f"alias {text!r} is malformed", hint="Write NAME=CONSTITUTION:DIALECT."
            )
        if constitution not in constitutions:
            raise RlaifError(
                f"alias {text!r}: constitution {constitution!r} is not served",
                hint=f"Served: {', '.join(constitutions)}.",
            )
        if dialect not in DIALECTS:
            raise RlaifError(
                f"alias {text!r}: dialect {dialect!r} is unknown",
                hint=f"Use one of {', '.join(DIALECTS)}.",
            )
        found[name] = Alias(constitution, dialect)
    return found


_ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": s.ErrorAnswer, "description": "The token is missing or wrong."},
    413: {"model": s.ErrorAnswer, "description": "The body is too large."},
    422: {"model": s.ErrorAnswer, "description": "The request can't be read, and why."},
    429: {"model": s.ErrorAnswer, "description": "Too much is waiting; see Retry-After."},
    503: {"model": s.ErrorAnswer, "description": "The engine has stopped."},
    504: {"model": s.ErrorAnswer, "description": "It took longer than a request may."},
}
_NAMED: dict[int | str, dict[str, Any]] = {
    404: {"model": s.ErrorAnswer, "description": "No such constitution or model."}
}
_ALL: dict[int | str, dict[str, Any]] = {
    **_ERRORS,
    **_NAMED,
    400: {"model": s.ErrorAnswer, "description": "No JSON."},
}


class Server:
    """The judges that are served, and how requests reach them.

    Args:
        judges: by the name of their constitution; the first is the default.
        service: drives all of them.
    """

    def __init__(
        self,
        judges: Mapping[str, Judge],
        service: Service,
        aliases: Mapping[str, Alias],
        limits: Limits,
    ) -> None:
        self.judges = judges
        self.service = service
        self.aliases = aliases
        self.limits = limits
        self.metrics = Metrics(service)
        self.began = int(time.time())

    def judge(self, name: str | None) -> Judge:
        """A judge by the name of its constitution.

        Raises:
            Unknown: it is not served.
        """
        if name is None:
            return next(iter(self.judges.values()))
        if name not in self.judges:
            raise Unknown(f"constitution {name[:80]!r} is not served: {', '.join(self.judges)}")
        return self.judges[name]

    def alias(self, model: str) -> Alias:
        """What a model name stands for.

        Raises:
            Unknown: nothing.
        """
        found = self.aliases.get(model)
        if found is None:
            raise Unknown(
                f"model {model[:80]!r} does not exist; GET /v1/models lists those that do "
                f"({', '.join(list(self.aliases)[:3])}, ...)"
            )
        return found

    async def wait(self, future: Future[Any]) -> Any:
        """What a future holds, if it comes in time.

        Raises:
            TooSlow: it does not; it is cancelled.
        """
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self.limits.seconds)
        except TimeoutError:
            raise TooSlow(f"no answer within {self.limits.seconds:g} s") from None

    async def wait_for_all(self, futures: list[Future[Any] | s.ItemError]) -> list[Any]:
        """What all of them hold, within the time of one request."""
        try:
            return await asyncio.gather(
                *(f if isinstance(f, Awaitable) else self._item(f) for f in futures)
            )
        finally:
            for future in futures:
                if isinstance(future, Future):
                    future.cancel()

    async def _item(self, item: Future[Any] | s.ItemError) -> Any:
        return item if isinstance(item, s.ItemError) else await self.wait(item)

    def submit_all(
        self, items: Sequence[s.PairIn | s.ResponseIn], submit: Callable[[Any], Future[Any]]
    ) -> list[Future[Any] | s.ItemError]:
        """Put every item to the judge; one that can't be read is an error of its own.

        Raises:
            Busy: there is no room for all of them; none is asked.
            TooLarge: there never will be.
        """
        if self.service.most_waiting is not None and len(items) > self.service.most_waiting:
            raise TooLarge(
                f"a batch of {len(items)} is more than may wait at once "
                f"({self.service.most_waiting}): send fewer"
            )
        futures: list[Future[Any] | s.ItemError] = []
        try:
            for item in items:
                try:
                    futures.append(submit(_row(item)))
                except (Busy, Stopped):
                    raise
                except RlaifError as error:
                    name = item.id.encode("utf-8", "replace").decode()
                    futures.append(s.ItemError(id=name, error=error.message))
        except (Busy, Stopped):
            for future in futures:
                if isinstance(future, Future):
                    future.cancel()
            raise
        return futures


def build_app(server: Server) -> FastAPI:
    """The application; shutting it down finishes what was accepted and closes the engine."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(server.service.close)

    app = FastAPI(
        title="rlaif judge",
        version=__version__,
        summary="Preferences by a constitution: pairwise and pointwise verdicts with evidence.",
        lifespan=lifespan,
        # Said in the schema; who may ask is checked before (`Guard`).
        dependencies=[Security(HTTPBearer(auto_error=False))] if server.limits.token else [],
    )
    app.add_middleware(
        Guard,
        token=server.limits.token,
        most_bytes=server.limits.body_bytes,
        most_seconds=min(BODY_SECONDS, server.limits.seconds),
    )
    app.add_middleware(Counting, metrics=server.metrics)
    _errors(app)
    _native(app, server)
    _openai(app, server)
    _about(app, server)
    return app


def _row(item: s.PairIn | s.ResponseIn) -> dict[str, Any]:
    row = item.model_dump(exclude_none=True, exclude={"constitution"})
    return {k: v for k, v in row.items() if v or k not in ("id", "tags")}


def _error(status: int, message: str, kind: str, headers: dict[str, str] | None = None) -> Response:
    body = {"error": {"message": message, "type": kind, "code": status}}
    return JSONResponse(body, status, headers)


def _errors(app: FastAPI) -> None:
    """What goes wrong is one sentence in OpenAI's form."""

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part != "body")
        if first["type"] == "json_invalid":
            return _error(400, "the body is no JSON", "invalid_request_error")
        return _error(422, f"{place or 'body'}: {first['msg']}", "invalid_request_error")

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        headers = dict(error.headers) if error.headers else None
        return _error(error.status_code, str(error.detail), "invalid_request_error", headers)

    @app.exception_handler(NotUnderstood)
    async def not_understood(_: Request, error: NotUnderstood) -> Response:
        return _error(422, str(error), "invalid_request_error")

    @app.exception_handler(Unknown)
    async def unknown(_: Request, error: Unknown) -> Response:
        return _error(404, str(error), "invalid_request_error")

    @app.exception_handler(TooLarge)
    async def too_large(_: Request, error: TooLarge) -> Response:
        return _error(413, str(error), "invalid_request_error")

    @app.exception_handler(TooSlow)
    async def too_slow(_: Request, error: TooSlow) -> Response:
        return _error(504, str(error), "timeout_error")

    @app.exception_handler(RlaifError)
    async def ours(_: Request, error: RlaifError) -> Response:
        if isinstance(error, Busy):
            headers = {"Retry-After": str(RETRY_AFTER)}
            return _error(429, error.message, "rate_limit_error", headers)
        if isinstance(error, Stopped):
            return _error(503, error.message, "server_error")
        return _error(422, error.message, "invalid_request_error")


def _native(app: FastAPI, server: Server) -> None:
    @app.post("/v1/judge/pairwise", responses=_ALL, tags=["judge"])
    async def pairwise(
        body: s.PairRequest | s.PairsRequest,
    ) -> Comparison | s.Comparisons:
        """Which of two responses follows the constitution better, for one pair or many.

        Both orders are asked; every principle's probability comes back.
        """
        judge = server.judge(body.constitution)
        if isinstance(body, s.PairRequest):
            found: Comparison = await server.wait(judge.submit_comparison(_row(body)))
            return found
        futures = server.submit_all(body.pairs, judge.submit_comparison)
        return s.Comparisons(results=await server.wait_for_all(futures))

    @app.post("/v1/judge/pointwise", responses=_ALL, tags=["judge"])
    async def pointwise(body: s.ResponseRequest | s.ResponsesRequest) -> Score | s.Scores:
        """How well a response follows the constitution, from 0 to 1, for one or many."""
        judge = server.judge(body.constitution)
        if isinstance(body, s.ResponseRequest):
            found: Score = await server.wait(judge.submit_score(_row(body)))
            return found
        futures = server.submit_all(body.items, judge.submit_score)
        return s.Scores(results=await server.wait_for_all(futures))

    @app.post("/v1/judge/critique", responses=_ALL, tags=["judge"])
    async def critique(body: s.CritiqueRequest) -> Critique:
        """What is wrong with a response, by each principle, and if asked the response anew."""
        judge = server.judge(body.constitution)
        future = judge.submit_critique(
            _row(s.ResponseIn(**body.model_dump(include={"prompt", "response", "id", "tags"}))),
            principles=body.principles,
            revise=body.revise,
        )
        found: Critique = await server.wait(future)
        return found


def _openai(app: FastAPI, server: Server) -> None:
    @app.post(
        "/v1/chat/completions",
        responses={**_ALL, 200: {"model": s.ChatAnswer, "content": {"text/event-stream": {}}}},
        response_model=None,
        tags=["openai"],
    )
    async def chat(body: s.ChatRequest) -> Response:
        """A harness's judge prompt, in the dialect that the model name says."""
        alias = server.alias(body.model)
        judge = server.judge(alias.constitution)
        reply, evidence = await answer(
            judge, DIALECTS[alias.dialect], plain(body.messages), server.wait
        )
        tops = body.top_logprobs or 0
        choices = [
            s.ChatChoice(
                index=i,
                message=s.AnswerMessage(content=reply.text),
                logprobs=logprobs_of(reply, tops) if body.logprobs else None,
            )
            for i in range(body.n or 1)
        ]
        found = s.ChatAnswer(
            id=f"chatcmpl-{uuid.uuid4().hex}",
            created=int(time.time()),
            model=body.model,
            choices=choices,
            system_fingerprint=judge.provenance.constitution_hash,
            rlaif={**evidence, "dialect": alias.dialect},
        )
        if body.stream:
            return StreamingResponse(_stream(found), media_type="text/event-stream")
        return JSONResponse(found.model_dump())

    def prompts_and_responses(body: s.ScoreRequest) -> list[tuple[str, str]]:
        one = body.text_1 if body.text_1 is not None else body.queries
        two = body.text_2 if body.text_2 is not None else body.documents
        if one is None or two is None:
            raise NotUnderstood("text_1 (the prompts) and text_2 (the responses) are needed")
        prompts = [one] if isinstance(one, str) else one
        responses = [two] if isinstance(two, str) else two
        if len(prompts) == 1:
            prompts = prompts * len(responses)
        if len(prompts) != len(responses) or not prompts:
            raise NotUnderstood(f"{len(prompts)} prompts and {len(responses)} responses")
        return list(zip(prompts, responses, strict=True))

    async def scores(judge: Judge, items: list[tuple[str, str]]) -> list[float | None]:
        rows = [s.ResponseIn(prompt=prompt, response=response) for prompt, response in items]
        found = await server.wait_for_all(server.submit_all(rows, judge.submit_score))
        return [x.score if isinstance(x, Score) else None for x in found]

    def judge_of(model: str | None) -> tuple[str, Judge]:
        name = model or next(iter(server.aliases))
        return name, server.judge(server.alias(name).constitution)

    @app.post("/v1/score", responses=_ALL, tags=["openai"])
    @app.post("/score", responses=_ALL, include_in_schema=False)
    async def score(body: s.ScoreRequest) -> s.ScoreAnswer:
        """Pointwise scores in the form of vLLM's score endpoint."""
        name, judge = judge_of(body.model)
        found = await scores(judge, prompts_and_responses(body))
        data = [s.ScoreItem(index=i, score=value) for i, value in enumerate(found)]
        return s.ScoreAnswer(
            id=f"score-{uuid.uuid4().hex}", created=int(time.time()), model=name, data=data
        )

    @app.post("/v1/rerank", responses=_ALL, tags=["openai"])
    @app.post("/rerank", responses=_ALL, include_in_schema=False)
    async def rerank(body: s.RerankRequest) -> s.RerankAnswer:
        """Responses to a prompt, best first, in the form of vLLM's rerank endpoint."""
        name, judge = judge_of(body.model)
        for text in body.documents:
            if text != text.encode("utf-8", "replace").decode():
                raise NotUnderstood("a document holds half of a character")
        found = await scores(judge, [(body.query, text) for text in body.documents])
        items = [
            s.RerankItem(index=i, document=s.RerankDocument(text=text), relevance_score=value)
            for i, (text, value) in enumerate(zip(body.documents, found, strict=True))
        ]
        items.sort(key=lambda item: (item.relevance_score is None, -(item.relevance_score or 0.0)))
        return s.RerankAnswer(
            id=f"rerank-{uuid.uuid4().hex}", model=name, results=items[: body.top_n or None]
        )

    @app.get("/v1/models", responses={401: _ERRORS[401]}, tags=["openai"])
    async def models() -> s.ModelList:
        """Every model name that requests may use."""
        return s.ModelList(
            data=[
                s.ModelCard(
                    id=name, created=server.began, constitution=a.constitution, dialect=a.dialect
                )
                for name, a in server.aliases.items()
            ]
        )


async def _stream(found: s.ChatAnswer) -> AsyncIterator[str]:
    """The whole answer as one chunk: a verdict is not written word by word."""
    head = {
        "id": found.id,
        "created": found.created,
        "model": found.model,
        "object": "chat.completion.chunk",
        "system_fingerprint": found.system_fingerprint,
    }
    for choice in found.choices:
        logprobs = choice.logprobs.model_dump() if choice.logprobs else None
        delta = {"role": "assistant", "content": choice.message.content}
        for part, finish in ((delta, None), ({}, "stop")):
            piece = {"index": choice.index, "delta": part, "finish_reason": finish,
                     "logprobs": logprobs if part else None}  # fmt: skip
            yield f"data: {json.dumps({**head, 'choices': [piece]})}\n\n"
    yield "data: [DONE]\n\n"


def _about(app: FastAPI, server: Server) -> None:
    @app.get("/health", responses={503: _ERRORS[503]}, tags=["server"])
    async def health() -> s.Health:
        """Whether the judge runs."""
        problem = server.service.problem
        if problem is not None:
            raise Stopped(f"the judge has stopped ({problem})", hint="Start it again.")
        return s.Health(status="ok", waiting=server.service.waiting)

    @app.get("/metrics", response_class=Response, responses={401: _ERRORS[401]}, tags=["server"])
    async def metrics() -> Response:
        """Counters in Prometheus' form."""
        return Response(server.metrics.text(), media_type="text/plain; version=0.0.4")
