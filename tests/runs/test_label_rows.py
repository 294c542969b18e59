"""A label as a row and back: whichever side won, no probability and no text changes sides."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.records import Origin, Pair, Preference, PrincipleScore
from rlaif.runs.labels import parse_label
from rlaif.runs.rows import label_row

SCORE = PrincipleScore("kind", 1, 2.0, 0.0)
PAIR = Pair(
    id="p",
    row=3,
    prompt=({"role": "user", "content": "Q"},),
    a=({"role": "assistant", "content": "first"},),
    b=({"role": "assistant", "content": "second"},),
    origin_a="one/model",
    origin_b="two/model",
    origins=(Origin("human"), Origin("model", depth=1), Origin("model", depth=2)),
    tools=({"type": "function", "function": {"name": "look_up"}},),
)
probability = st.floats(0.0, 1.0)


def log_odds(p: float) -> float:
    p = min(max(p, 1e-9), 1 - 1e-9)
    return math.log(p / (1 - p))


@given(st.sampled_from(["a", "b", None]), probability, st.lists(probability, max_size=4))
def test_a_row_is_read_back_as_it_was_told(
    winner: str | None, p_a: float, principles: list[float]
) -> None:
    scores = tuple(
        replace(SCORE, principle=f"k{i}", logit=log_odds(p)) for i, p in enumerate(principles)
    )
    preference = Preference(
        status="decided" if winner else "tie",
        winner=winner,  # type: ignore[arg-type]
        p_a=p_a,
        margin=abs(2.0 * p_a - 1.0),
        scores=scores,
    )
    row = json.loads(json.dumps(label_row(PAIR, preference, {"judge": "j"})))
    assert ("chosen" in row) == (winner is not None)
    label = parse_label(row)
    assert (label.a[0]["content"], label.b[0]["content"]) == ("first", "second")
    assert label.p_a == pytest.approx(p_a, abs=1e-5)
    assert [p.p_a for p in label.principles] == pytest.approx(principles, abs=1e-5)
    assert label.origins == ("one/model", "two/model")
    assert label.origin_columns is not None
    assert [int(o["depth"]) for o in label.origin_columns] == [0, 1, 2]
    assert label.extras == {"tools": row["tools"]}
    if winner is not None:
        assert row["chosen"][0]["content"] == {"a": "first", "b": "second"}[winner]
        assert row["p_chosen"] == pytest.approx(p_a if winner == "a" else 1 - p_a, abs=1e-5)
