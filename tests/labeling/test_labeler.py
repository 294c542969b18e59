"""The labeling loop on the scripted engine, against values computed independently here."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import pytest

from rlaif.engines.scripted import hashed_rule
from rlaif.errors import RlaifError
from rlaif.labeling.job import prepare, run_label
from rlaif.runs.context import RunContext
from rlaif.templates.judge import load_judge_template
from tests.labeling.helpers import contents, label, rows, settings, write_inputs


def asked(prompt: str, first: str, second: str, principle: str) -> float:
    """The scripted judge's log-odds for a question, from the prompt text written out here."""
    template = load_judge_template("pairwise")
    body = template.body
    for slot, value in (
        ("conversation", f"User: {prompt}"),
        ("first", first),
        ("second", second),
        ("principle", principle),
    ):
        body = body.replace("{{" + slot + "}}", value)
    logit, mass = hashed_rule(f"user: {body}\nassistant: {template.prefill}")
    first_p = mass / (1 + math.exp(-logit))
    return math.log(first_p / (mass - first_p))


def test_every_row_is_accounted_for_and_preferences_follow_from_verdicts(tmp_path: Path) -> None:
    data, constitution = write_inputs(tmp_path, 120)
    summary = label(data, constitution, tmp_path / "run")
    run = tmp_path / "run"
    decided, undecided = rows(run, "preferences.jsonl"), rows(run, "undecided.jsonl")
    inputs = data.read_text().splitlines()
    broken = sum(line == "{broken" for line in inputs)
    triples = sum('"z ' in line for line in inputs)
    assert len(rows(run, "rejected.jsonl")) == broken == summary.tally.rejected
    assert summary.tally.rows == len(inputs)
    assert len(decided) + len(undecided) == len(inputs) - broken + 2 * triples
    assert summary.tally.pairs == len(decided) + len(undecided)

    good, heard = None, []
    for row in decided:
        evidence = row["provenance"]
        assert row["chosen"] != row["rejected"]
        assert 0.5 < row["p_chosen"] <= 1
        prompt, a, b = (row[k][0]["content"] for k in ("prompt", "chosen", "rejected"))
        for opinion in evidence["principles"]:
            if opinion["source"] == "check":
                passes = [len(text.split()) <= 3 for text in (a, b)]
                expected = 0.5 + 0.49 * (passes[0] - passes[1])
            else:
                question = f"Which response is {opinion['principle']}?"
                good = (asked(prompt, a, b, question) - asked(prompt, b, a, question)) / 2
                expected = 1 / (1 + math.exp(-good))
            assert opinion["p_chosen"] == pytest.approx(expected, abs=2e-5)
        one, two, short = (2 * o["p_chosen"] - 1 for o in evidence["principles"])
        below = pooled(two, short)
        if one * below >= 0:  # the surer of two tiers that agree
            expected = max(one, below, key=abs)
        else:  # from a margin of 0.2 on, tier 1 hears nothing of what contradicts it
            expected = one + max(0.0, 1 - abs(one) / 0.2) * below
        if abs(one) >= 0.21:
            assert evidence["deciding_tier"] == 1
            heard.append(one * below)
        assert row["p_chosen"] == pytest.approx((1 + expected) / 2, abs=1e-4)
    assert good is not None
    assert min(heard) < 0 < max(heard)


def pooled(two: float, short: float) -> float:
    """Tier 2: a judge's principle of weight 1, and a check of weight 0.5."""
    if two * short >= 0:
        return max(two, short, key=abs)
    return (two * abs(two) + short * abs(short) * 0.5) / (abs(two) + 0.5 * abs(short))


def test_settled_pairs_have_their_reason_and_cost_nothing(tmp_path: Path) -> None:
    data, constitution = write_inputs(tmp_path, 120)
    label(data, constitution, tmp_path / "run")
    reasons = Counter(r["provenance"]["reason"] for r in rows(tmp_path / "run", "undecided.jsonl"))
    same = [i for i in range(120) if i % 11 == 3 and i % 13 != 5 and i % 17 != 7 and i % 19 != 9]
    empty = [i for i in range(120) if i % 13 == 5 and i % 17 != 7 and i % 19 != 9]
    assert reasons["identical completions"] == len(same)
    assert reasons["completion a is empty"] == len(empty)
    verdicts = rows(tmp_path / "run", "verdicts.jsonl")
    assert {v["pair"] for v in verdicts}.isdisjoint({f"row-{i + 1}" for i in (*same, *empty)})


def test_preferences_load_with_datasets_and_trl_sees_a_conversation(tmp_path: Path) -> None:
    import datasets
    from trl.data_utils import is_conversational

    data, constitution = write_inputs(tmp_path, 60)
    label(data, constitution, tmp_path / "run")
    loaded = datasets.load_dataset(
        "json",
        data_files=str(tmp_path / "run" / "preferences.jsonl"),
        split="train",
        cache_dir=str(tmp_path / "hf"),
    )
    assert set(loaded.column_names) == {"prompt", "chosen", "rejected", "p_chosen", "provenance"}
    assert all(is_conversational(row) for row in loaded)
    assert len(loaded) == len(rows(tmp_path / "run", "preferences.jsonl"))


def test_same_verdicts_whatever_the_batching(tmp_path: Path) -> None:
    data, constitution = write_inputs(tmp_path, 80)
    for name, size in (("a", 1), ("b", 7), ("c", 500)):
        label(data, constitution, tmp_path / name, max_in_flight=size)
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == contents(tmp_path / "c")


def test_editing_one_principle_asks_only_about_it(tmp_path: Path) -> None:
    data, constitution = write_inputs(tmp_path, 80)
    cache = tmp_path / "shared.sqlite"
    first = label(data, constitution, tmp_path / "one", cache=cache)
    total = first.manifest["last_process"]["verdicts_asked"]
    constitution.write_text(constitution.read_text().replace("is two?", "is the second?"))
    second = label(data, constitution, tmp_path / "two", cache=cache)
    last = second.manifest["last_process"]
    assert last["verdicts_asked"] == total // 2
    assert last["verdicts_from_cache"] == total // 2
    verdicts = rows(tmp_path / "two", "verdicts.jsonl")
    before = {v["request"] for v in rows(tmp_path / "one", "verdicts.jsonl")}
    assert {v["principle"] for v in verdicts if v["request"] in before} == {"one"}


def test_equal_questions_are_asked_once(tmp_path: Path) -> None:
    _, constitution = write_inputs(tmp_path, 1)
    data = tmp_path / "same.jsonl"
    row = json.dumps({"prompt": "q", "response_a": "x", "response_b": "y"})
    data.write_text((row + "\n") * 10)
    summary = label(data, constitution, tmp_path / "run")
    assert summary.manifest["last_process"]["verdicts_asked"] == 4
    assert summary.tally.verdicts == 40


def test_failed_requests_are_invalid_verdicts_and_abstentions(tmp_path: Path) -> None:
    data, constitution = write_inputs(tmp_path, 100)
    summary = label(data, constitution, tmp_path / "run", options={"fail_every": 5})
    verdicts = rows(tmp_path / "run", "verdicts.jsonl")
    failed = [v for v in verdicts if v["invalid"]]
    assert summary.tally.invalid_verdicts == len(failed) > 0
    assert {v["invalid"] for v in failed} == {"scripted failure"}
    broken = {v["pair"] for v in failed if v["principle"] == "one"}
    for row in rows(tmp_path / "run", "preferences.jsonl"):
        assert row["provenance"]["id"] not in broken
    abstained = [
        r
        for r in rows(tmp_path / "run", "undecided.jsonl")
        if r["provenance"]["status"] == "abstained" and "scripted" in r["provenance"]["reason"]
    ]
    assert abstained


def test_complete_run_is_reported_without_work_and_another_config_refused(tmp_path: Path) -> None:
    data, constitution = write_inputs(tmp_path, 30)
    label(data, constitution, tmp_path / "run")
    before = contents(tmp_path / "run")
    again = label(data, constitution, tmp_path / "run")
    assert again.fresh is False
    with pytest.raises(RlaifError, match=r"orders: 'both' -> 'one'"):
        label(data, constitution, tmp_path / "run", orders="one")
    with data.open("a") as file:
        file.write('{"prompt": "new", "responses": ["a", "b"]}\n')
    with pytest.raises(RlaifError, match=r"input\.hash"):
        label(data, constitution, tmp_path / "run")
    assert contents(tmp_path / "run") == before


def test_unreadable_input_is_an_error_with_a_next_step(tmp_path: Path) -> None:
    _, constitution = write_inputs(tmp_path, 1)
    data = tmp_path / "odd.jsonl"
    data.write_text('{"frage": "q", "antworten": ["x", "y"]}\n' * 3)
    with pytest.raises(RlaifError, match=r"no column looks like a prompt.*'frage'.*--map"):
        label(data, constitution, tmp_path / "run")
    data.write_text("")
    with pytest.raises(RlaifError, match="no rows"):
        label(data, constitution, tmp_path / "empty")


def test_bad_input_is_known_before_anything_is_written(tmp_path: Path) -> None:
    data, constitution = write_inputs(tmp_path, 5)
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    for source, changes in ((bad, {}), (data, {"layout": {"responses": "nope"}})):
        with pytest.raises(RlaifError):
            label(source, constitution, tmp_path / "run", **changes)
        assert not (tmp_path / "run").exists()


def test_edited_check_function_is_another_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib
    import sys

    from rlaif.util.user_functions import _import, allow_functions

    allow_functions("my_checks")

    data, constitution = write_inputs(tmp_path, 12)
    module = tmp_path / "my_checks.py"
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    text = constitution.read_text().replace(
        "{kind: max_length, words: 3}", "{kind: python, function: 'my_checks:good'}"
    )
    constitution.write_text(text)
    module.write_text("def good(prompt, completion):\n    return 'a' in completion\n")
    label(data, constitution, tmp_path / "run")
    module.write_text("def good(prompt, completion):\n    return 'a' not in completion\n\n")
    _import.cache_clear()
    importlib.reload(sys.modules["my_checks"])
    with pytest.raises(RlaifError, match=r"checks\.my_checks:good"):
        label(data, constitution, tmp_path / "run")


def test_torn_manifest_is_written_again(tmp_path: Path) -> None:
    data, constitution = write_inputs(tmp_path, 20)
    label(data, constitution, tmp_path / "run")
    manifest = tmp_path / "run" / "manifest.json"
    before = contents(tmp_path / "run")
    manifest.write_text(manifest.read_text()[:50])
    assert label(data, constitution, tmp_path / "run").fresh is True
    assert json.loads(manifest.read_text())["counts"]["rows"] == 20
    assert contents(tmp_path / "run") == before


def test_engine_that_breaks_keeps_what_was_answered(tmp_path: Path) -> None:
    data, constitution = write_inputs(tmp_path, 60)
    job = prepare(str(data), str(constitution), settings())

    class Stop(Exception):
        pass

    def stop(progress) -> None:
        if progress.verdicts > 50:
            raise Stop

    with pytest.raises(Stop):
        run_label(
            job,
            tmp_path / "run",
            context=RunContext(cache_dir=tmp_path / "c.sqlite", on_progress=stop),
        )
    resumed = run_label(job, tmp_path / "run", context=RunContext(cache_dir=tmp_path / "c.sqlite"))
    assert resumed.manifest["last_process"]["verdicts_from_cache"] > 50
    whole = label(data, constitution, tmp_path / "whole")
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    assert resumed.tally == whole.tally
