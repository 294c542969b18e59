"""Wrong bodies are given up at their first fault: to tell a million would hold up everybody."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from rlaif.serve import schemas as s

PAIR = {"prompt": "p", "response_a": "a", "response_b": "b"}
PAIRS = s.PairRequest | s.PairsRequest


@pytest.mark.parametrize(
    ("form", "body"),
    [
        (PAIRS, {**PAIR, "prompt": [{"role": "user", "content": [1] * 300_000}]}),
        (PAIRS, {**PAIR, "prompt": [{"role": "user", "content": [{}] * 300_000}]}),
        (PAIRS, {"pairs": [{"prompt": [{}] * 60, "response_a": [{}] * 60}] * 4000}),
        (PAIRS, {"pairs": [{}] * 4096}),
        (PAIRS, {"pairs": [{f"k{i}": 1 for i in range(99)}] * 4000}),
        (PAIRS, {**PAIR, "tags": [1] * 300_000}),
        (
            s.ResponseRequest | s.ResponsesRequest,
            {"items": [{"prompt": "p", "response": [{"role": 1, "content": 1}] * 4000}] * 4000},
        ),
        (s.ChatRequest, {"model": "m", "messages": [{"role": 1}] * 300_000}),
        (s.ScoreRequest, {"model": "m", "text_1": [1] * 300_000, "text_2": [1] * 300_000}),
        (s.RerankRequest, {"model": "m", "query": "q", "documents": [1] * 300_000}),
    ],
)
def test_few_errors_are_made_of_many_faults(form: type[BaseModel], body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as error:
        TypeAdapter(form).validate_python(body)
    assert error.value.error_count() <= 2 * s.MOST_FIELDS + 10
