"""A judge that writes first: the label is read after its words, clamped, cached and kept."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from rlaif.engines.scripted import hashed_rule
from rlaif.errors import RlaifError
from rlaif.prompts import load_judge_template
from tests.pipeline.helpers import contents, label, rows, write_inputs


def test_label_is_read_after_the_reasoning_and_clamped(tmp_path: Path) -> None:
    data, constitution = write_inputs(tmp_path, 40)
    label(data, constitution, tmp_path / "run", template="reasoned")
    verdicts = rows(tmp_path / "run", "verdicts.jsonl")
    assert {v["reasoning"] for v in verdicts} == {"scripted"}
    template = load_judge_template("reasoned")
    pair = next(r for r in rows(tmp_path / "run", "preferences.jsonl"))
    seen = 0
    for verdict in verdicts:
        if verdict["pair"] != pair["provenance"]["id"]:
            continue
        texts = {pair[side][0]["content"] for side in ("chosen", "rejected")}
        for first in texts:
            (second,) = texts - {first}
            prompt = template.render(
                conversation=f"User: {pair['prompt'][0]['content']}",
                first=first,
                second=second,
                principle=f"Which response is {verdict['principle']}?",
            )
            words = f"user: {prompt}\nassistant:scripted\n\nThe better response is"
            logit, mass = hashed_rule(words)
            p = 1 / (1 + math.exp(-logit))
            share = mass * p / (mass * p + mass * (1 - p))
            clamped = max(0.4, min(0.6, share))
            seen += verdict["p_first"] == pytest.approx(clamped, abs=2e-5)
    assert seen == 4


def test_resume_takes_answer_and_reasoning_from_the_cache(tmp_path: Path) -> None:
    data, constitution = write_inputs(tmp_path, 40)
    cache = tmp_path / "c.sqlite"
    one = label(data, constitution, tmp_path / "one", template="reasoned", cache=cache)
    two = label(data, constitution, tmp_path / "two", template="reasoned", cache=cache)
    assert one.manifest["last_process"]["verdicts_asked"] > 0
    assert two.manifest["last_process"]["verdicts_asked"] == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    # Other limits are another manner of judging: nothing is shared with it.
    three = label(
        data, constitution, tmp_path / "three", template="reasoned", cache=cache,
        reasoning_tokens=9,
    )  # fmt: skip
    assert three.manifest["last_process"]["verdicts_from_cache"] == 0


def test_answer_text_must_not_end_in_white_space(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    body = "{{conversation}}{{first}}{{second}}{{principle}}"
    path.write_text(f"---\nlabels: [A, B]\nanswer: 'So: '\n---\n{body}")
    with pytest.raises(RlaifError, match="white space"):
        load_judge_template(str(path))
