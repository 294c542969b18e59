"""Our own endpoints: pairwise, pointwise, critique."""

from __future__ import annotations

from fastapi import FastAPI

from rlaif.api.answers import Comparison, Critique, Score
from rlaif.serve import schemas as s
from rlaif.serve.failures import ALL_ERRORS
from rlaif.serve.server import Server, row_of


def add_native(app: FastAPI, server: Server) -> None:
    """Add them."""

    @app.post("/v1/judge/pairwise", responses=ALL_ERRORS, tags=["judge"])
    async def pairwise(
        body: s.PairRequest | s.PairsRequest,
    ) -> Comparison | s.Comparisons:
        """Which of two responses follows the constitution better, for one pair or many.

        Both orders are asked; every principle's probability comes back.
        """
        judge = server.judge(body.constitution)
        if isinstance(body, s.PairRequest):
            found: Comparison = await server.wait(judge.submit_comparison(row_of(body)))
            return found
        results = await server.judge_all(body.pairs, judge.submit_comparison)
        return s.Comparisons(results=results)

    @app.post("/v1/judge/pointwise", responses=ALL_ERRORS, tags=["judge"])
    async def pointwise(body: s.ResponseRequest | s.ResponsesRequest) -> Score | s.Scores:
        """How well a response follows the constitution, from 0 to 1, for one or many."""
        judge = server.judge(body.constitution)
        if isinstance(body, s.ResponseRequest):
            found: Score = await server.wait(judge.submit_score(row_of(body)))
            return found
        results = await server.judge_all(body.items, judge.submit_score)
        return s.Scores(results=results)

    @app.post("/v1/judge/critique", responses=ALL_ERRORS, tags=["judge"])
    async def critique(body: s.CritiqueRequest) -> Critique:
        """What is wrong with a response, by each principle, and if asked the response anew."""
        judge = server.judge(body.constitution)
        future = judge.submit_critique(
            row_of(s.ResponseIn(**body.model_dump(include={"prompt", "response", "id", "tags"}))),
            principles=body.principles,
            revise=body.revise,
        )
        found: Critique = await server.wait(future)
        return found
