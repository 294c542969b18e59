"""The endpoints that others have defined: chat completions, models, score and rerank."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse, StreamingResponse

from rlaif.api.answers import Score
from rlaif.api.judge import Judge
from rlaif.serve import schemas as s
from rlaif.serve.chat import RequestTooLarge, answer, logprobs_of, plain
from rlaif.serve.dialects import DIALECTS
from rlaif.serve.dialects.base import UnreadablePrompt
from rlaif.serve.failures import ALL_ERRORS, ERRORS
from rlaif.serve.server import Server


def add_openai(app: FastAPI, server: Server) -> None:
    """Add them.

    Long because it registers endpoints, each a function of its own inside.
    """

    @app.post(
        "/v1/chat/completions",
        responses={
            **ALL_ERRORS,
            200: {"model": s.ChatAnswer, "content": {"text/event-stream": {}}},
        },
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
            raise UnreadablePrompt("text_1 (prompts) and text_2 (responses) are required")
        prompts = [one] if isinstance(one, str) else one
        responses = [two] if isinstance(two, str) else two
        if len(prompts) == 1:
            prompts = prompts * len(responses)
        if len(prompts) != len(responses) or not prompts:
            raise UnreadablePrompt(
                f"{len(prompts)} prompts do not match {len(responses)} responses"
            )
        if sum(map(len, prompts)) + sum(map(len, responses)) > server.limits.body_bytes:
            raise RequestTooLarge(
                f"prompts and responses come to more than {server.limits.body_bytes} characters, "
                "one prompt counted for each response"
            )
        return list(zip(prompts, responses, strict=True))

    async def scores(judge: Judge, items: list[tuple[str, str]]) -> list[float | None]:
        rows = [s.ResponseIn(prompt=prompt, response=response) for prompt, response in items]
        found = await server.judge_all(rows, judge.submit_score)
        return [x.score if isinstance(x, Score) else None for x in found]

    def judge_of(model: str | None) -> tuple[str, Judge]:
        name = model or next(iter(server.aliases))
        return name, server.judge(server.alias(name).constitution)

    @app.post("/v1/score", responses=ALL_ERRORS, tags=["openai"])
    @app.post("/score", responses=ALL_ERRORS, include_in_schema=False)
    async def score(body: s.ScoreRequest) -> s.ScoreAnswer:
        """Pointwise scores in the form of vLLM's score endpoint."""
        name, judge = judge_of(body.model)
        found = await scores(judge, prompts_and_responses(body))
        data = [s.ScoreItem(index=i, score=value) for i, value in enumerate(found)]
        return s.ScoreAnswer(
            id=f"score-{uuid.uuid4().hex}", created=int(time.time()), model=name, data=data
        )

    @app.post("/v1/rerank", responses=ALL_ERRORS, tags=["openai"])
    @app.post("/rerank", responses=ALL_ERRORS, include_in_schema=False)
    async def rerank(body: s.RerankRequest) -> s.RerankAnswer:
        """Responses to a prompt, best first, in the form of vLLM's rerank endpoint."""
        name, judge = judge_of(body.model)
        for text in body.documents:
            if text != text.encode("utf-8", "replace").decode():
                raise UnreadablePrompt("a document contains an unpaired surrogate")
        found = await scores(judge, [(body.query, text) for text in body.documents])
        items = [
            s.RerankItem(index=i, document=s.RerankDocument(text=text), relevance_score=value)
            for i, (text, value) in enumerate(zip(body.documents, found, strict=True))
        ]
        items.sort(key=lambda item: (item.relevance_score is None, -(item.relevance_score or 0.0)))
        return s.RerankAnswer(
            id=f"rerank-{uuid.uuid4().hex}", model=name, results=items[: body.top_n or None]
        )

    @app.get("/v1/models", responses={401: ERRORS[401]}, tags=["openai"])
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
            piece = {
                "index": choice.index,
                "delta": part,
                "finish_reason": finish,
                "logprobs": logprobs if part else None,
            }
            yield f"data: {json.dumps({**head, 'choices': [piece]})}\n\n"
    yield "data: [DONE]\n\n"
