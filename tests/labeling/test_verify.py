"""`rlaif verify`: an honest run never trips, and whatever was altered is named."""

from __future__ import annotations

import json
import math
import random
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rlaif.cli.main import cli
from rlaif.engines import registry
from rlaif.engines.scripted import ScriptedEngine, hashed_rule
from rlaif.errors import RlaifError
from rlaif.labeling import job as labeling
from rlaif.labeling import verifying
from rlaif.labeling.job import prepare, run_label
from rlaif.labeling.verifying import Verification, verify_run
from rlaif.runs.context import RunContext
from tests.labeling.helpers import contents, label, rows, settings, write_inputs

Edit = Callable[[Path], None]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    data, constitution = write_inputs(tmp_path, 120)
    label(data, constitution, tmp_path / "run", cache=tmp_path / "cache")
    return tmp_path / "run"


def verify(run: Path, *, cache: str = "cache", **changes: Any) -> Verification:
    folder = run.parent
    own = {k: v for k, v in changes.items() if k not in ("ask", "seed", "tolerance")}
    checked = prepare(str(folder / "pairs.jsonl"), str(run / "constitution.yaml"), settings(**own))
    more = {k: v for k, v in changes.items() if k in ("ask", "seed", "tolerance")}
    return verify_run(run, checked, RunContext(cache_dir=folder / cache), **more)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"stop": "exact"},
        {"stop": "likely", "pilot": 100},
        {"orders": "adaptive", "pilot": 100},
        {"orders": "one"},
        {"principles": "sample"},
        {"options": {"fail_every": 5}},
        {"prompt_injection": "hold"},
        {"limit": 40},
    ],
)
@pytest.mark.parametrize("cache", ["cache", "another"])
def test_an_honest_run_never_trips(tmp_path: Path, changes: dict[str, Any], cache: str) -> None:
    data, constitution = write_inputs(tmp_path, 120)
    label(data, constitution, tmp_path / "run", cache=tmp_path / "cache", **changes)
    found = verify(tmp_path / "run", cache=cache, ask=100, **changes)
    assert found.findings == []
    assert found.rows == (40 if changes.get("limit") else 120)
    written = len(rows(tmp_path / "run", "verdicts.jsonl"))
    assert found.verdicts == written > 50
    assert (found.uncached > 0) == (cache == "another")
    assert found.asked == min(100, written) or "fail_every" in str(changes)


def rewrite(name: str, number: int, change: Callable[[dict[str, Any]], None]) -> Edit:
    def edit(run: Path) -> None:
        lines = (run / name).read_text().splitlines()
        row = json.loads(lines[number])
        change(row)
        lines[number] = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
        (run / name).write_text("\n".join(lines) + "\n")

    return edit


def swap_sides(row: dict[str, Any]) -> None:
    row["chosen"], row["rejected"] = row["rejected"], row["chosen"]


def turn(row: dict[str, Any]) -> None:
    row["logit"], row["p_first"] = -row["logit"], round(1 - row["p_first"], 5)


def drop(name: str, number: int) -> Edit:
    def edit(run: Path) -> None:
        lines = (run / name).read_text().splitlines()
        del lines[number]
        (run / name).write_text("".join(line + "\n" for line in lines))

    return edit


def double(run: Path) -> None:
    lines = (run / "preferences.jsonl").read_text().splitlines()
    (run / "preferences.jsonl").write_text("\n".join([*lines, lines[-1]]) + "\n")


def add_bare(run: Path) -> None:
    """A made-up pair that says nothing of where it comes from."""
    row = {"prompt": "p", "chosen": "good", "rejected": "bad", "p_chosen": 0.9}
    with (run / "preferences.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def double_key(run: Path) -> None:
    lines = (run / "preferences.jsonl").read_text().splitlines()
    lines[0] = lines[0].replace('"p_chosen":', '"p_chosen":0.99999,"p_chosen":', 1)
    (run / "preferences.jsonl").write_text("\n".join(lines) + "\n")


def miscount(name: str) -> Edit:
    def edit(run: Path) -> None:
        manifest = json.loads((run / "manifest.json").read_text())
        manifest["counts"][name] += 1
        (run / "manifest.json").write_text(json.dumps(manifest))

    return edit


def count(change: Callable[[dict[str, Any]], object]) -> Edit:
    def edit(run: Path) -> None:
        manifest = json.loads((run / "manifest.json").read_text())
        change(manifest["counts"])
        (run / "manifest.json").write_text(json.dumps(manifest))

    return edit


def forget(name: str) -> Edit:
    def edit(run: Path) -> None:
        manifest = json.loads((run / "manifest.json").read_text())
        del manifest[name]
        (run / "manifest.json").write_text(json.dumps(manifest))

    return edit


def move(run: Path) -> None:
    """A tie that is sold as a decision."""
    lines = (run / "undecided.jsonl").read_text().splitlines()
    row = json.loads(lines.pop(0))
    row["chosen"], row["rejected"], row["p_chosen"] = row.pop("a"), row.pop("b"), row.pop("p_a")
    (run / "undecided.jsonl").write_text("".join(line + "\n" for line in lines))
    kept = (run / "preferences.jsonl").read_text()
    (run / "preferences.jsonl").write_text(json.dumps(row) + "\n" + kept)


def recount(run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["counts"]["decided"] += 1
    (run / "manifest.json").write_text(json.dumps(manifest))


def alter_cache(run: Path) -> None:
    with sqlite3.connect(run.parent / "cache" / "verdicts.v1.sqlite") as db:
        key, blob = db.execute("SELECT key, logprobs FROM answers LIMIT 1").fetchone()
        one, two = struct.unpack("<2d", blob)
        db.execute(
            "UPDATE answers SET logprobs = ? WHERE key = ?", (struct.pack("<2d", two, one), key)
        )


def other_principle(run: Path) -> None:
    path = run / "constitution.yaml"
    path.write_text(path.read_text().replace("is one?", "is won?"))


def other_data(run: Path) -> None:
    path = run.parent / "pairs.jsonl"
    path.write_text(path.read_text().replace('q 2"', 'q two"'))


def provenance(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(row: dict[str, Any]) -> None:
        assert row["provenance"][name] != value
        row["provenance"][name] = value

    return change


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edit", "file", "line"),
    [
        (rewrite("preferences.jsonl", 3, lambda r: r.update(p_chosen=0.9999)), "preferences", 4),
        (rewrite("preferences.jsonl", 5, swap_sides), "preferences", 6),
        (rewrite("preferences.jsonl", 7, provenance("margin", 0.99)), "preferences", 8),
        (rewrite("preferences.jsonl", 2, provenance("judge", "better-judge")), "preferences", 3),
        (rewrite("preferences.jsonl", 2, provenance("weight", 7.0)), "preferences", 3),
        (
            rewrite("preferences.jsonl", 9, lambda r: r["chosen"][0].update(content="other")),
            "preferences",
            10,
        ),
        (
            rewrite("preferences.jsonl", 1, lambda r: r["prompt"][0].update(content="other")),
            "preferences",
            2,
        ),
        (rewrite("undecided.jsonl", 0, provenance("reason", "no opinion")), "undecided", 1),
        (rewrite("verdicts.jsonl", 11, turn), "verdicts", 12),
        (rewrite("verdicts.jsonl", 4, lambda r: r.update(p_first=0.77777)), "verdicts", 5),
        (rewrite("verdicts.jsonl", 4, lambda r: r.update(request="00" * 16)), "verdicts", 5),
        (rewrite("verdicts.jsonl", 6, lambda r: r.update(invalid="refused")), "verdicts", 7),
        (rewrite("rejected.jsonl", 0, lambda r: r.update(reason="it was bad")), "rejected", 1),
        (drop("preferences.jsonl", 4), "preferences", 0),
        (drop("verdicts.jsonl", 8), "verdicts", 0),
        (drop("rejected.jsonl", 0), "rejected", 1),
        (double, "preferences", None),
        (move, "preferences", 1),
        (recount, "manifest", 0),
        (miscount("verdicts"), "manifest", 0),
        (miscount("invalid_verdicts"), "manifest", 0),
        (miscount("pairs"), "manifest", 0),
        (count(lambda c: c["margins"].append(c["margins"].pop(0))), "manifest", 0),
        (count(lambda c: c["tiers"].update({"7": 1})), "manifest", 0),
        (count(lambda c: c["reasons"].clear()), "manifest", 0),
        (count(lambda c: c.pop("principles")), "manifest", 0),
        (count(lambda c: c["principles"]["one"].update(flipped=77)), "manifest", 0),
        (forget("bytes"), "manifest", 0),
        (forget("judges"), "manifest", 0),
        (rewrite("verdicts.jsonl", 4, lambda r: r.update(logit=math.nan)), "verdicts", 5),
        (rewrite("verdicts.jsonl", 4, lambda r: r.update(logit=str(r["logit"]))), "verdicts", 5),
        (rewrite("verdicts.jsonl", 4, lambda r: r.update(p_first=math.nan)), "verdicts", 5),
        (rewrite("verdicts.jsonl", 4, lambda r: r.update(label_mass=math.nan)), "verdicts", 5),
        (rewrite("verdicts.jsonl", 4, lambda r: r.update(label_mass=1.5)), "verdicts", 5),
        (add_bare, "preferences", None),
        (alter_cache, "verdicts", None),
        (other_principle, "run", 0),
        (other_data, "run", 0),
    ],
)
@pytest.mark.parametrize("cache", ["cache", "another"])
def test_whatever_was_altered_is_named(
    run: Path, edit: Edit, file: str, line: int | None, cache: str
) -> None:
    if edit is alter_cache and cache == "another":
        return
    edit(run)
    found = verify(run, cache=cache, ask=0)
    places = {(f.file.split(".")[0], f.line) for f in found.findings}
    named = {name for name, _ in places}
    if file == "verdicts" and cache == "another" and line not in (0, 5):
        # Nothing else holds the answer: what does not follow is the label that rests on it.
        assert places
        return
    assert (file, line) in places if line is not None else file in named


@pytest.mark.parametrize("changes", [{"stop": "exact"}, {"orders": "adaptive", "pilot": 100}])
def test_a_verdict_that_was_asked_and_left_out_is_missed(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    """Where fewer questions may have been asked, those that the rule asks must be there; the label
    and the counts are made to fit, as somebody would who wants the verdict gone.
    """
    data, constitution = write_inputs(tmp_path, 120)
    label(data, constitution, tmp_path / "run", cache=tmp_path / "cache", **changes)
    run = tmp_path / "run"
    assert verify(run, ask=0, **changes).findings == []
    told = rows(run, "verdicts.jsonl")
    gone = told[3]
    (run / "verdicts.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in told if row is not gone)
    )
    found = verify(run, ask=0, **changes)
    assert any("other questions were asked" in f.what for f in found.findings)


def test_an_answer_that_was_called_none_is_asked_again(run: Path) -> None:
    """With all that rests on it made to fit: only the judge can tell."""

    def hide(row: dict[str, Any]) -> None:
        row.update(invalid="low label mass (0.1 < 0.5)", logit=0.0, p_first=0.5, label_mass=0.1)

    rewrite("verdicts.jsonl", 4, hide)(run)
    found = verify(run, cache="another", ask=10**6)
    assert any(
        f.line == 5 and "the judge answers this" in f.what and "low label mass" in f.what
        for f in found.findings
    )
    rewrite("verdicts.jsonl", 4, lambda row: row.update(invalid="status 500: down"))(run)
    assert verify(run, cache="another", ask=10**6).answered_now == 1


@pytest.mark.parametrize(
    "changes", [{"stop": "likely", "pilot": 100}, {"orders": "adaptive", "pilot": 100}]
)
def test_a_run_that_keeps_no_rule_of_stopping_is_named(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    data, constitution = write_inputs(tmp_path, 120)
    label(data, constitution, tmp_path / "run", cache=tmp_path / "cache", **changes)
    forget("stopping")(tmp_path / "run")
    found = verify(tmp_path / "run", ask=0, **changes)
    assert any("by what rule the run stopped" in f.what for f in found.findings)


def test_many_failures_that_the_judge_answers_are_named(run: Path) -> None:
    for number in range(3, 13):
        rewrite(
            "verdicts.jsonl",
            number,
            lambda r: r.update(invalid="ReadTimeout", logit=0.0, p_first=0.5, label_mass=0.0),
        )(run)
    found = verify(run, cache="another", ask=10**6)
    assert found.answered_now == 10
    assert any("10 of" in f.what and "judge answers them" in f.what for f in found.findings)


@pytest.mark.parametrize(
    "change",
    [{"row": 0}, {"row": True}, {"judge": "gpt-5"}, {"note": "x"}, {"pair": "n2"}, {"order": "aa"}],
)
def test_any_field_of_a_verdict_that_was_edited_is_named(run: Path, change: dict[str, Any]) -> None:
    rewrite("verdicts.jsonl", 0, lambda r: r.update(change))(run)
    for cache in ("cache", "another"):
        assert verify(run, cache=cache, ask=0).findings


def test_a_text_in_a_row_keeps_nobody_from_asking_again(run: Path) -> None:
    """Of a judge that writes nothing, a forged answer with a reasoning is asked like any other."""
    rewrite("verdicts.jsonl", 4, turn)(run)
    rewrite("verdicts.jsonl", 4, lambda r: r.update(reasoning="A is unsafe."))(run)
    rewrite("verdicts.jsonl", 9, lambda r: r.update(reasoning="So it is."))(run)
    found = verify(run, cache="another", ask=10**6)
    told = {(f.line, f.what.split(" (")[0]) for f in found.findings if f.file == "verdicts.jsonl"}
    assert (5, "the judge answers otherwise") in told
    assert {(n, "`reasoning` is not what the judge's engine says") for n in (5, 10)} <= told


@pytest.mark.parametrize("change", [{"row": True}, {"reason": "( ( )"}, {"margin": True}])
def test_any_field_of_a_label_that_was_edited_is_named(run: Path, change: dict[str, Any]) -> None:
    rewrite("preferences.jsonl", 0, lambda r: r["provenance"].update(change))(run)
    assert verify(run, ask=0).findings


@pytest.mark.parametrize("cache", ["cache", "another"])
def test_an_honest_run_of_a_judge_that_reasons_never_trips(tmp_path: Path, cache: str) -> None:
    data, constitution = write_inputs(tmp_path, 120)
    label(data, constitution, tmp_path / "run", cache=tmp_path / "cache", template="reasoned")
    assert verify(tmp_path / "run", cache=cache, ask=0, template="reasoned").findings == []


def test_a_key_that_comes_twice_is_damage(run: Path) -> None:
    double_key(run)
    with pytest.raises(RlaifError, match=r"key '.*' comes twice"):
        verify(run)


@pytest.mark.slow
def test_an_answer_that_was_forged_everywhere_is_found_by_asking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows, verdicts and cache agree: only the judge knows better.  One pair in a hundred was
    judged by a liar; a question again in five hundred finds it as often as drawing says.
    """
    count, ask = 1000, 300
    data = tmp_path / "pairs.jsonl"
    data.write_text(
        "".join(
            json.dumps({"prompt": f"q {i}", "responses": [f"a {i}", f"b {i}"]}) + "\n"
            for i in range(count)
        )
    )
    (tmp_path / "c").mkdir()
    _, constitution = write_inputs(tmp_path / "c", 1)
    forged = {f"q {i}\n" for i in random.Random(1).sample(range(count), count // 100)}

    def lying(text: str) -> Any:
        told = hashed_rule(text)
        assert isinstance(told, tuple)
        return (-told[0], told[1]) if any(mark in text for mark in forged) else told

    liar = ScriptedEngine(lying, max_in_flight=16)
    liar.fingerprint = registry.create_engine(settings().judge).fingerprint
    monkeypatch.setattr(labeling, "create_engine", lambda _: liar)
    checked = prepare(str(data), str(constitution), settings())
    context = RunContext(cache_dir=tmp_path / "cache")
    run_label(checked, tmp_path / "run", context=context)
    honest = registry.create_engine(settings().judge)
    monkeypatch.setattr(verifying, "create_engine", lambda _: honest)
    monkeypatch.setattr(honest, "close", lambda: None)
    caught, total, lies = 0, 0, 0
    for seed in range(20):
        found = verify_run(tmp_path / "run", checked, context, ask=ask, seed=seed)
        assert found.asked == ask
        caught += bool(found.findings)
        total, lies = found.verdicts, lies + len(found.findings)
        assert all("answers otherwise" in f.what for f in found.findings)
    altered = total // 100
    # Without replacement, as it is drawn: the chance that none of the altered is among them.
    missed = math.exp(sum(math.log(total - altered - k) - math.log(total - k) for k in range(ask)))
    assert caught >= 20 * (1 - missed) - 3 * math.sqrt(20 * missed * (1 - missed)) - 1
    assert lies == pytest.approx(20 * ask * 0.01, abs=4 * math.sqrt(20 * ask * 0.01))


def test_the_share_that_is_found_is_that_of_the_formula() -> None:
    found = Verification(asked=500)
    share = found.detectable()
    assert 1 - (1 - share) ** 500 == pytest.approx(0.95)
    assert Verification().detectable() == 1.0


def test_the_command_names_places_and_ends_with_1(run: Path) -> None:
    cache = ["--cache-dir", str(run.parent / "cache")]
    fine = CliRunner().invoke(cli, ["verify", str(run), *cache], catch_exceptions=False)
    assert fine.exit_code == 0
    assert "no findings: the run is consistent" in fine.stdout
    assert contents(run) == contents(run)
    rewrite("preferences.jsonl", 3, lambda r: r.update(p_chosen=0.9999))(run)
    bad = CliRunner().invoke(cli, ["verify", str(run), *cache], catch_exceptions=False)
    assert bad.exit_code == 1
    assert (
        "preferences.jsonl:4: does not follow from its verdicts: p_chosen is 0.9999" in bad.stdout
    )
    told = CliRunner().invoke(cli, ["verify", str(run), "--json", *cache], catch_exceptions=False)
    assert json.loads(told.stdout)["findings"][0]["line"] in (0, 4)


def test_what_is_no_finished_labeling_run_is_refused(run: Path, tmp_path: Path) -> None:
    (run / "manifest.json").unlink()
    for folder, message in ((run, "is not complete"), (tmp_path, "not a run directory")):
        done = CliRunner().invoke(cli, ["verify", str(folder)])
        assert message in str(done.exception)
