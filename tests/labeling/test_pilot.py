"""Runs that ask less: the same decisions, whatever the cache holds, and an account of it."""

from __future__ import annotations

import json
import random
import re
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from rlaif.cli.main import cli
from rlaif.engines.scripted import ScriptedEngine
from rlaif.errors import RlaifError
from rlaif.judging.aggregation import AggregationSettings
from rlaif.labeling import job as labeling
from rlaif.runs.tally import read_positions
from tests.labeling.helpers import contents, label, rows

TIERS = """\
schema: 1
name: tiers
version: "1"
principles:
  - {id: one, tier: 1, preference: "Which response is one?"}
  - {id: two, tier: 2, preference: "Which response is two?"}
  - {id: three, tier: 2, weight: 2.0, preference: "Which response is three, and more?"}
  - {id: four, tier: 3, preference: "Which response is four?"}
  - {id: short, tier: 3, check: {kind: max_length, words: 3}}
"""


def inputs(folder: Path, n: int = 150) -> tuple[Path, Path]:
    data, constitution = folder / "pairs.jsonl", folder / "c.yaml"
    constitution.write_text(TIERS)
    lines = [
        json.dumps(
            {
                "prompt": f"q {i % 90}",
                "response_a": "x" * (i % 7) + str((i % 90) ** 5),
                "response_b": "y" * (i % 11) + str(i % 90),
            }
        )
        for i in range(n)
    ]
    data.write_text("\n".join(lines) + "\n")
    return data, constitution


def decisions(run: Path) -> dict[tuple[int, str], str]:
    return {
        (row["provenance"]["row"], row["provenance"]["id"]): row["provenance"]["winner"]
        for name in ("preferences.jsonl", "undecided.jsonl")
        for row in rows(run, name)
    }


@pytest.mark.parametrize("in_flight", [1, 7, 64])
def test_exact_stops_decide_as_the_whole_run(tmp_path: Path, in_flight: int) -> None:
    data, constitution = inputs(tmp_path)
    whole = label(data, constitution, tmp_path / "whole")
    less = label(data, constitution, tmp_path / "less", stop="exact", max_in_flight=in_flight)
    assert decisions(tmp_path / "less") == decisions(tmp_path / "whole")
    assert less.tally.verdicts + less.tally.spared == whole.tally.verdicts
    assert less.tally.spared > 0.3 * whole.tally.verdicts
    assert less.manifest["stopping"]["verdicts_spared"] == less.tally.spared
    # Every verdict that was given is the whole run's.
    full = {
        (r["row"], r["principle"], r["order"]): r
        for r in rows(tmp_path / "whole", "verdicts.jsonl")
    }
    given = rows(tmp_path / "less", "verdicts.jsonl")
    assert all(full[r["row"], r["principle"], r["order"]] == r for r in given)
    assert len(given) == less.tally.verdicts


@pytest.mark.slow
def test_what_the_cache_holds_changes_nothing(tmp_path: Path) -> None:
    """Cold, warm with everything, and warm with half of it: the same bytes."""
    data, constitution = inputs(tmp_path)
    for stop, orders in (("exact", "both"), ("likely", "both"), ("never", "adaptive")):
        changes = {"stop": stop, "orders": orders, "pilot": 100, "stop_error": 0.1}
        name = f"{stop}-{orders}"
        label(data, constitution, tmp_path / f"{name}-cold", **changes)
        label(data, constitution, tmp_path / f"{name}-full")
        half = tmp_path / f"{name}-half.jsonl"
        half.write_text("".join(data.read_text().splitlines(keepends=True)[::2]))
        label(half, constitution, tmp_path / f"{name}-halved")
        cold = contents(tmp_path / f"{name}-cold")
        for warm in ("full", "halved"):
            cache = tmp_path / f"{name}-{warm}.sqlite"
            label(data, constitution, tmp_path / f"{name}-{warm}-again", cache=cache, **changes)
            assert contents(tmp_path / f"{name}-{warm}-again") == cold


@pytest.mark.slow
def test_adaptive_orders_say_what_they_saved_and_risked(tmp_path: Path) -> None:
    data, constitution = inputs(tmp_path, 300)
    found = label(
        data, constitution, tmp_path / "run", orders="adaptive", pilot=200, stop_error=0.2
    )
    facts = found.manifest["stopping"]
    assert facts["kind"] == "orders"
    # What the pilot asked beyond that is no saving: what was asked in all says so.
    database = sqlite3.connect(tmp_path / "run.sqlite" / "verdicts.v1.sqlite")
    (asked,) = database.execute("select count(*) from answers").fetchone()
    whole_run = found.tally.verdicts + found.tally.spared
    duplicates = (
        whole_run
        - label(data, constitution, tmp_path / "w2").manifest["last_process"]["verdicts_asked"]
    )
    assert facts["verdicts_spared"] <= whole_run - asked <= facts["verdicts_spared"] + duplicates
    assert facts["decisions_changed_at_most"] <= 0.2
    assert 0 < facts["share_spared"] < 0.5
    whole = label(data, constitution, tmp_path / "whole")
    changed = sum(
        decisions(tmp_path / "run")[k] != v for k, v in decisions(tmp_path / "whole").items()
    )
    assert changed / whole.tally.pairs <= 0.2


def leaning_rule(text: str) -> tuple[float, float]:
    """A judge that sees quality, leans to what is shown first, and is noisy: of pairs that are
    close in quality its orders disagree, of others hardly ever.
    """
    first, second = (int(found) for found in re.findall(r"quality (\d+)", text)[:2])
    noise = (zlib.crc32(text.encode()) / 0xFFFFFFFF - 0.5) * 1.5
    return (first - second) * 0.9 + 0.5 + noise, 0.99


def test_position_figures_of_adaptive_orders_are_those_of_all_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Second orders are asked of unclear pairs: their own agreement says nothing of the rest."""
    draws = random.Random(3)
    lines = [
        {"prompt": f"q {i}", "response_a": f"quality {draws.randint(0, 9)} a{i}"}
        | {"response_b": f"quality {draws.randint(0, 9)} b{i}"}
        for i in range(500)
    ]
    data, constitution = tmp_path / "pairs.jsonl", tmp_path / "c.yaml"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    constitution.write_text(TIERS)
    monkeypatch.setattr(
        labeling, "create_engine", lambda _: ScriptedEngine(leaning_rule, max_in_flight=16)
    )
    changes = {"cache": tmp_path / "cache", "aggregation": AggregationSettings(tie_margin=0.2)}
    whole = label(data, constitution, tmp_path / "whole", **changes)
    truth = read_positions(whole.tally, whole.manifest.get("stopping"))
    assert truth.pilot_pairs == 0
    pilot = 200
    less = label(
        *(data, constitution, tmp_path / "less"),
        **{**changes, "cache": tmp_path / "other"},
        orders="adaptive",
        pilot=pilot,
        stop_error=0.3,
    )
    assert less.tally.spared > 0.1 * whole.tally.verdicts
    own = less.tally.self_agreement
    found = read_positions(less.tally, json.loads(json.dumps(less.manifest["stopping"])))
    assert truth.consistency is not None
    assert found.consistency is not None
    assert own is not None
    # The pilot's is right within what 200 pairs can say; the asked pairs' own is far off.
    spread = 3 * (truth.consistency * (1 - truth.consistency) / pilot) ** 0.5
    assert abs(found.consistency - truth.consistency) <= spread
    assert truth.consistency - own > 0.1 > spread
    assert 100 < found.pilot_pairs <= pilot
    for name, expected in truth.principles.items():
        if expected.position_offset is not None:
            offset = found.principles[name].position_offset
            assert offset == pytest.approx(expected.position_offset, abs=0.12)
    # What people read says which pairs the figures are of.
    shown = CliRunner().invoke(cli, ["report", str(tmp_path / "less")], catch_exceptions=False)
    assert shown.exit_code == 0
    page = (tmp_path / "less" / "report.html").read_text()
    assert f"of the {found.pilot_pairs} pairs of the pilot" in page
    assert f"{100 * found.consistency:.1f}%</b>of clear opinions" in page
    assert "second orders were asked only where the first left a pair unclear" in page
    assert "pairs of the pilot" not in _page_of(tmp_path / "whole")


def _page_of(run: Path) -> str:
    CliRunner().invoke(cli, ["report", str(run)], catch_exceptions=False)
    return (run / "report.html").read_text()


def test_failing_questions_stop_nothing_and_invent_nothing(tmp_path: Path) -> None:
    data, constitution = inputs(tmp_path)
    for pooling in ("share", "mean"):
        aggregation = AggregationSettings(pooling=pooling)  # type: ignore[arg-type]
        broken = {"options": {"fail_every": 9}, "aggregation": aggregation}
        label(data, constitution, tmp_path / f"whole-{pooling}", **broken)
        label(data, constitution, tmp_path / f"less-{pooling}", stop="exact", **broken)
        assert decisions(tmp_path / f"less-{pooling}") == decisions(tmp_path / f"whole-{pooling}")
    found = label(data, constitution, tmp_path / "run", stop="exact", options={"fail_every": 5})
    assert found.tally.invalid_verdicts > 20
    for row in rows(tmp_path / "run", "preferences.jsonl"):
        valid = [p for p in row["provenance"]["principles"] if not p["invalid"]]
        assert valid


def test_what_can_not_be_learned_is_refused(tmp_path: Path) -> None:
    data, constitution = inputs(tmp_path, 30)
    with pytest.raises(RlaifError, match="only 29 pairs could be judged for the pilot"):
        label(data, constitution, tmp_path / "run", orders="adaptive")
    with pytest.raises(RlaifError, match="cannot be combined"):
        label(data, constitution, tmp_path / "run", orders="adaptive", stop="exact")


def test_the_pilot_is_a_part_of_the_cost(tmp_path: Path) -> None:
    data, constitution = inputs(tmp_path)
    changes = {"orders": "adaptive", "pilot": 100, "stop_error": 0.3}
    run = label(data, constitution, tmp_path / "run", cache=tmp_path / "new.sqlite", **changes)
    last = run.manifest["last_process"]
    with closing(sqlite3.connect(tmp_path / "new.sqlite" / "verdicts.v1.sqlite")) as cache:
        (answers,) = cache.execute("SELECT count(*) FROM answers").fetchone()
    # The scripted engine answers once for each answer in the cache.
    assert last["verdicts_asked"] == answers > run.tally.verdicts - last["verdicts_from_cache"]
    assert last["verdicts_from_cache"] == 0
    assert last["tokens"]["from_scratch"] == run.manifest["tokens"]["computed"]
