"""The report page: prompt injection stays text, and the contested pairs are the contested ones."""

from __future__ import annotations

import json
from pathlib import Path

from rlaif.reporting.contested import most_contested
from rlaif.reporting.fill_page import write_report
from tests.labeling.helpers import label, rows, write_inputs


def test_hostile_markup_is_escaped(tmp_path: Path) -> None:
    _, constitution = write_inputs(tmp_path, 1)
    data = tmp_path / "hostile.jsonl"
    bad = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'>"
    rows_in = [
        {"id": bad, "prompt": bad, "response_a": f"{bad} {i}", "response_b": "b"} for i in range(9)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows_in))
    label(data, constitution, tmp_path / "run")
    page = write_report(tmp_path / "run").read_text()
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_contested_pairs_are_those_that_contradict_themselves(tmp_path: Path) -> None:
    data, constitution = write_inputs(tmp_path, 150)
    label(data, constitution, tmp_path / "run")
    top = most_contested(tmp_path / "run", most=10)
    assert len(top) == 10

    def trouble(evidence: dict, p: float) -> float:
        signs = [2 * o["p_chosen"] - 1 for o in evidence["principles"]]
        opposed = max(0, min(max(signs), -min(signs)))
        hidden = max(0, max(abs(s) for s in signs) - abs(2 * p - 1))
        return opposed + 1 - evidence["order_consistency"] + hidden

    scores = {}
    for name, p in (("preferences.jsonl", "p_chosen"), ("undecided.jsonl", "p_a")):
        for row in rows(tmp_path / "run", name):
            if row["provenance"]["principles"]:
                scores[row["provenance"]["id"]] = trouble(row["provenance"], row[p])
    best = sorted(scores.values(), reverse=True)[:10]
    assert [round(scores[pair.id], 9) for pair in top] == [round(s, 9) for s in best]
