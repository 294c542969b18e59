"""inspect_ai: the scorers `rlaif/pairwise` and `rlaif/constitution`.

    inspect score LOG --scorer rlaif/pairwise -S constitution=my.yaml -S judge=MODEL
    inspect score LOG --scorer rlaif/constitution -S url=http://127.0.0.1:8000
    inspect score LOG --scorer rlaif/pairwise --model-role grader=openai-api/rlaif/rlaif/my:json

The judge runs in this process (`constitution`), behind `rlaif serve` (`url`), or, where neither is
named, is the model of the role `grader` (a served model name in the dialect `json`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from inspect_ai.model import Model, model_roles
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import TaskState

from rlaif.api.answers import Comparison
from rlaif.api.answers import Score as Answer
from rlaif.api.judge import Judge
from rlaif.errors import RlaifError
from rlaif.harness.judges import open_judge
from rlaif.records import Message

GRADER = "grader"


@scorer(metrics=[mean(), stderr()])
def pairwise(
    constitution: str | None = None, judge: str = "demo", url: str | None = None, **settings: Any
) -> Scorer:
    """The model's response against the target: 1 if it is better, 0 if worse, 0.5 for a tie.

    A pair that the judge abstains from is unscored, with the reason.
    """

    async def score(state: TaskState, target: Target) -> Score:
        row = {
            "prompt": _prompt(state),
            "response_a": state.output.completion,
            "response_b": target.text,
        }
        found = await _compare(row=row, name=constitution, model=judge, url=url, settings=settings)
        evidence = found.model_dump()
        answer = state.output.completion
        if found.status == "abstained":
            return Score.unscored(reason=found.reason, answer=answer, metadata=evidence)
        value = {"a": 1.0, "b": 0.0}.get(found.winner or "", 0.5)
        said = f"p(better) {found.p_a:.3f}; " + "; ".join(
            f"{o.principle} {o.p_a:.2f}" for o in found.principles
        )
        return Score(value=value, answer=answer, explanation=said, metadata=evidence)

    return score


@scorer(metrics=[mean(), stderr()])
def constitution(
    constitution: str | None = None, judge: str = "demo", url: str | None = None, **settings: Any
) -> Scorer:
    """How well the model's response follows the constitution, from 0 to 1."""

    async def score(state: TaskState, target: Target) -> Score:
        row = {"prompt": _prompt(state), "response": state.output.completion}
        found = await _score(row=row, name=constitution, model=judge, url=url, settings=settings)
        evidence, answer = found.model_dump(), state.output.completion
        if found.score is None:
            return Score.unscored(reason=found.reason, answer=answer, metadata=evidence)
        said = "; ".join(f"{m.principle} {m.p:.2f}" for m in found.principles if m.p is not None)
        return Score(value=found.score, answer=answer, explanation=said, metadata=evidence)

    return score


def _prompt(state: TaskState) -> list[Message]:
    """The conversation up to the response that is scored."""
    turns: list[Message] = [
        {"role": m.role, "content": m.text} for m in state.messages if m.role != "tool"
    ]
    last = max((i for i, m in enumerate(turns) if m["role"] != "assistant"), default=-1)
    return turns[: last + 1] or [{"role": "user", "content": state.input_text}]


async def _compare(
    row: dict[str, Any], name: str | None, model: str, url: str | None, settings: Mapping[str, Any]
) -> Comparison:
    grader = None if name or url else _grader()
    if grader is not None:
        return Comparison.model_validate_json(await _ask(grader, row))
    judge = await asyncio.to_thread(open_judge, name, model, url=url, **settings)
    if isinstance(judge, Judge):
        future = await asyncio.to_thread(judge.submit_comparison, row)
        return await asyncio.wrap_future(future)
    return await asyncio.to_thread(lambda: next(judge.compare_many([row])))


async def _score(
    row: dict[str, Any], name: str | None, model: str, url: str | None, settings: Mapping[str, Any]
) -> Answer:
    grader = None if name or url else _grader()
    if grader is not None:
        return Answer.model_validate_json(await _ask(grader, row))
    judge = await asyncio.to_thread(open_judge, name, model, url=url, **settings)
    if isinstance(judge, Judge):
        future = await asyncio.to_thread(judge.submit_score, row)
        return await asyncio.wrap_future(future)
    return await asyncio.to_thread(lambda: next(judge.score_many([row])))


def _grader() -> Model | None:
    found = model_roles().get(GRADER)
    return found[0] if isinstance(found, list) else found


async def _ask(grader: Model, row: Mapping[str, Any]) -> str:
    """The native JSON dialect takes prompts of one turn as text, longer ones as messages."""
    output = await grader.generate(json.dumps(row))
    text = str(output.completion)
    if not text.lstrip().startswith("{"):
        raise RlaifError(
            f"the grader returned {text[:80]!r}, which is not a verdict",
            hint="Use a model of `rlaif serve` with the json dialect: rlaif/CONSTITUTION:json.",
        )
    return text


__all__ = ["constitution", "pairwise"]
