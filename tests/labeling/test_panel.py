"""Panels and cascades, against aggregation the members' own runs by hand."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from rlaif.cli.common.judges import panel_of_run
from rlaif.cli.main import cli
from rlaif.errors import RlaifError
from rlaif.evaluation.outcomes import Outcomes, read_outcomes
from rlaif.evaluation.panels import (
    effective_judges,
    error_correlation,
    panel_outcomes,
    panel_report,
    shared_errors,
)
from rlaif.judging.calibration import FEATURES
from rlaif.judging.panel import JudgeVote, aggregate_panel
from rlaif.labeling.panel import Panel, PanelMember, run_panel
from rlaif.records import Preference
from rlaif.reporting.fill_page import write_report
from rlaif.runs.context import RunContext
from tests.labeling.helpers import contents, label, rows, settings, write_inputs


def opinion(p: float, status: str = "decided", weight: float = 1.0) -> JudgeVote:
    winner = ("a" if p > 0.5 else "b") if status == "decided" else None
    return JudgeVote(judge="j", p_a=p, winner=winner, status=status, weight=weight)  # type: ignore[arg-type]


def test_folds_by_hand() -> None:
    def aggregate(*opinions: JudgeVote, mode: str) -> Preference:
        return aggregate_panel(opinions, mode, tie_margin=0.05)  # type: ignore[arg-type]

    three = (opinion(0.9), opinion(0.4), opinion(0.45))
    assert aggregate(*three, mode="mean").p_a == pytest.approx(1.75 / 3)
    assert aggregate(*three, mode="mean").winner == "a"
    assert aggregate(*three, mode="majority").winner == "b"
    assert aggregate(*three, mode="majority").p_a == pytest.approx(1 / 3)
    heavy = (opinion(0.9, weight=1), opinion(0.2, weight=3))
    assert aggregate(*heavy, mode="weighted").p_a == pytest.approx((0.9 + 0.6) / 4)
    assert aggregate(opinion(0.9), opinion(0.5, "abstained"), mode="mean").p_a == 0.9
    gone = aggregate(
        opinion(0.9), opinion(0.5, "abstained"), opinion(0.5, "abstained"), mode="mean"
    )
    assert (gone.status, gone.reason) == ("abstained", "2 of 3 judges abstained")
    assert aggregate(opinion(0.7), opinion(0.3), mode="mean").status == "tie"
    assert aggregate(opinion(0.6), opinion(0.1), mode="cascade").winner == "b"


@pytest.mark.parametrize(("n", "r"), [(3, 0.0), (9, 0.55), (5, 1.0), (1, 0.3)])
def test_effective_judges_are_as_many_as_average_as_well(n: int, r: float) -> None:
    """The variance of a mean of n correlated errors is that of n_eff independent ones."""
    covariance = np.full((n, n), r) + (1 - r) * np.eye(n)
    variance = float(np.ones(n) @ covariance @ np.ones(n)) / n**2
    assert effective_judges(n, r) == pytest.approx(1 / variance)


def simulated(seed: int, shared: float, n: int = 800) -> tuple[list[Outcomes], np.ndarray]:
    """Three judges of like accuracy; `shared` of their noise is common."""
    rng = np.random.default_rng(seed)
    label = np.where(rng.random(n) < 0.5, 1, -1)
    common = rng.normal(0, 1.3, n)
    found = []
    for k in range(3):
        noise = np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.normal(0, 1.3, n)
        p = 1 / (1 + np.exp(-(label + noise)))
        found.append(
            Outcomes(
                ids=[str(i) for i in range(n)],
                rows=np.arange(n),
                p_a=p,
                winner=np.where(p > 0.5, 1, -1),
                status=["decided"] * n,
                principles={},
                origins=([""] * n, [""] * n),
                texts={},
                name=f"j{k}",
                judge=f"j{k}",
            )
        )
    return found, label


def test_a_panel_is_better_where_errors_differ_and_not_where_they_are_shared() -> None:
    groups = [str(i) for i in range(800)]
    members, label = simulated(1, 0.0)
    panel, _ = panel_outcomes(members, "mean")
    report = panel_report(members, panel, label, groups, mode="mean")
    assert report.verdict.startswith("better than its best member")
    assert report.test.p < 0.05
    assert report.effective_judges > 2.5
    said = 0
    for seed in range(60):
        members, label = simulated(seed, 1.0)
        panel, _ = panel_outcomes(members, "mean")
        report = panel_report(members, panel, label, groups, mode="mean")
        said += report.test.better == 1
        assert report.effective_judges == pytest.approx(1.0, abs=0.01)
    assert said / 60 <= 0.05 + 2 * (0.05 * 0.95 / 60) ** 0.5
    right = [np.array([1.0, 0, 1, 0]), np.array([1.0, 0, 0, 1])]
    assert error_correlation(right) == pytest.approx(0.0)


def test_a_judge_that_errs_wherever_another_does_adds_nothing() -> None:
    """Errors of 10%, and of 40% that hold all of these: two judges worth one."""
    rng = np.random.default_rng(0)
    draw = rng.random(20_000)
    nested = [(draw > 0.1).astype(float), (draw > 0.4).astype(float)]
    assert error_correlation(nested) < 0.5
    assert shared_errors(nested) == pytest.approx(1.0)
    assert effective_judges(2, shared_errors(nested)) == pytest.approx(1.0)
    apart = [(rng.random(20_000) > e).astype(float) for e in (0.1, 0.4)]
    assert shared_errors(apart) == pytest.approx(0.0, abs=0.06)
    assert shared_errors([nested[0], nested[0]]) == pytest.approx(1.0)
    assert shared_errors([nested[0], np.ones(20_000)]) == 0.0


def judges(folder: Path) -> list[PanelMember]:
    """Two judges of the scripted engine that read different layouts."""
    other = folder / "other.txt"
    other.write_text(
        "---\nlabels: [A, B]\n---\nTalk: {{ conversation }}\nA: {{ first }}\nB: {{ second }}\n"
        "Say which. {{ principle }}\nAnswer A or B."
    )
    return [PanelMember(settings()), PanelMember(settings(template=str(other)), weight=3.0)]


def by_pair(run: Path) -> dict[tuple[int, str], tuple[float, str, float]]:
    """p of `a`, status and margin of every pair."""
    found = {}
    for name, key in (("preferences.jsonl", "p_chosen"), ("undecided.jsonl", "p_a")):
        for row in rows(run, name):
            e, p = row["provenance"], row[key]
            found[e["row"], e["id"]] = (
                1 - p if e["winner"] == "b" else p,
                e["status"],
                e["margin"],
            )
    return found


@pytest.mark.parametrize("mode", ["mean", "weighted", "majority", "cascade"])
def test_a_panel_folds_what_its_members_said(tmp_path: Path, mode: Any) -> None:
    data, constitution = write_inputs(tmp_path, 90)
    one, two = judges(tmp_path)
    label(data, constitution, tmp_path / "one")
    label(data, constitution, tmp_path / "two", template=two.settings.template)
    panel = Panel([one, two], mode, 0.6)
    cache = tmp_path / "cache.sqlite"
    found = run_panel(
        str(data), str(constitution), panel, tmp_path / "panel", context=RunContext(cache_dir=cache)
    )
    first, second = by_pair(tmp_path / "one"), by_pair(tmp_path / "two")
    got = by_pair(tmp_path / "panel")
    assert got.keys() == first.keys()
    asked = 0
    for key, (p1, status1, margin1) in first.items():
        p2, status2, _ = second[key]
        p, status, _ = got[key]
        if mode == "cascade":
            goes_on = status1 != "decided" or margin1 < 0.6
            settled = p1 == 0.5 == p2 and status1 == status2
            asked += goes_on and not settled
            assert (p, status) == pytest.approx((p2, status2) if goes_on else (p1, status1))
        elif status1 == "decided" == status2:
            expected = {
                "mean": (p1 + p2) / 2,
                "weighted": (p1 + 3 * p2) / 4,
                "majority": ((p1 > 0.5) + (p2 > 0.5)) / 2,
            }[mode]
            assert p == pytest.approx(expected, abs=2e-5)
    members = found.manifest["members"]
    assert members[0]["pairs"] == len(first)
    if mode == "cascade":
        assert members[1]["pairs"] == asked
        assert 0 < asked < len(first)
    # The rows stand in input order, and train like those of any run.
    order = [row["provenance"]["row"] for row in rows(tmp_path / "panel", "preferences.jsonl")]
    assert order == sorted(order)
    some = rows(tmp_path / "panel", "preferences.jsonl")[0]["provenance"]
    assert {j["judge"] for j in some["judges"]} <= {"1-hashed", "2-hashed"}
    # What reads runs reads a panel's: every verdict has its pair, and opinions are means.
    outcomes = read_outcomes(tmp_path / "panel")
    assert len(outcomes.ids) == len(first)
    if mode != "cascade":
        alone = [read_outcomes(tmp_path / name) for name in ("one", "two")]
        mean = (alone[0].principles["one"].ab + alone[1].principles["one"].ab) / 2
        np.testing.assert_allclose(outcomes.principles["one"].ab, mean, atol=1e-4)
    assert "<h2>Principles" in write_report(tmp_path / "panel").read_text()
    # A run that goes on after a stop ends with the same bytes.
    whole = contents(tmp_path / "panel")
    for lost in ("manifest.json", "members/2-hashed"):
        path = tmp_path / "panel" / lost
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (tmp_path / "panel" / "journal.json").unlink()
    again = run_panel(
        str(data), str(constitution), panel, tmp_path / "panel", context=RunContext(cache_dir=cache)
    )
    assert again.fresh
    assert contents(tmp_path / "panel") == whole
    done = run_panel(
        str(data), str(constitution), panel, tmp_path / "panel", context=RunContext(cache_dir=cache)
    )
    assert not done.fresh


def test_every_judge_of_a_panel_sees_the_tools(tmp_path: Path) -> None:
    data, constitution = write_inputs(tmp_path, 8)
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
    lines = [json.dumps(json.loads(line) | {"tools": [tool]}) for line in data.open()]
    with_tools = tmp_path / "tools.jsonl"
    with_tools.write_text("\n".join(lines))
    one, two = judges(tmp_path)
    label(with_tools, constitution, tmp_path / "two", template=two.settings.template)
    for name, source in (("with", with_tools), ("without", data)):
        run_panel(
            data=str(source),
            constitution=str(constitution),
            panel=Panel([one, two], "cascade", 1.0),  # every pair goes on to the second judge
            out=tmp_path / name,
            context=RunContext(cache_dir=tmp_path / "cache.sqlite"),
        )
    pairs = {name: by_pair(tmp_path / name) for name in ("with", "without", "two")}
    found = {name: {k: v[:2] for k, v in held.items()} for name, held in pairs.items()}
    assert found["with"] == found["two"]
    assert found["with"] != found["without"]
    for row in rows(tmp_path / "with", "preferences.jsonl"):
        assert row["tools"] == [tool]


def test_from_the_command_line_and_from_yaml(tmp_path: Path) -> None:
    data, constitution = write_inputs(tmp_path, 30)
    other = judges(tmp_path)[1].settings.template
    base = ["label", str(data), "-c", str(constitution), "--engine", "scripted"]
    pair = ["-j", "hashed", "-j", f"hashed,template={other},weight=3"]
    done = CliRunner().invoke(
        cli,
        [*base, *pair, "--panel", "weighted", "-o", str(tmp_path / "flags"), "--json"],
        catch_exceptions=False,
    )
    assert json.loads(done.stdout)["config"]["panel"] == {"mode": "weighted", "weights": [1.0, 3.0]}
    file = tmp_path / "panel.yaml"
    file.write_text(
        f"mode: weighted\njudges:\n  - hashed\n  - {{model: hashed, template: {other}, weight: 3}}\n"
    )
    CliRunner().invoke(
        cli, [*base, "--panel", str(file), "-o", str(tmp_path / "yaml")], catch_exceptions=False
    )
    assert contents(tmp_path / "yaml") == contents(tmp_path / "flags")
    for text, message in (
        ("mode: best\njudges: [a, b]\n", r"panel.yaml:1:7: unknown panel mode 'best'"),
        ("modes: mean\n", "unknown key 'modes'"),
        ("judges: [hashed]\n", "at least two judges"),
        ("mode: mean\n", "is not a list of judges"),
        ("judges: [a, {model: b, weight: 2}]\n", "a mean panel does not use"),
        ("mode: weighted\njudges: [a, {model: b, weight: -1}]\n", "has an invalid weight: '-1'"),
    ):
        file.write_text(text)
        with pytest.raises(RlaifError, match=message):
            CliRunner().invoke(
                cli,
                [*base, "--panel", str(file), "-o", str(tmp_path / "x")],
                catch_exceptions=False,
            )


def test_eval_measures_a_panel(tmp_path: Path) -> None:
    data = tmp_path / "labeled.jsonl"
    data.write_text(
        "".join(
            json.dumps(
                {
                    "prompt": f"q {i * i}",
                    "chosen": "x" * (i % 7) + str(i**5),
                    "rejected": "y" * (i % 11) + str(i**3),
                }
            )
            + "\n"
            for i in range(3, 63)
        )
    )
    _, constitution = write_inputs(tmp_path, 1)
    other = judges(tmp_path)[1].settings.template
    done = CliRunner().invoke(
        cli,
        [
            "eval",
            str(data),
            "-c",
            str(constitution),
            "--engine",
            "scripted",
            "-j",
            "hashed",
            "-j",
            f"hashed,template={other}",
            "--panel",
            "mean",
            "--panel",
            "cascade",
            "-o",
            str(tmp_path / "out"),
        ],
        catch_exceptions=False,
    )
    assert "panel (mean): accuracy" in done.stdout
    assert "reached the last" in done.stdout
    assert "independent ones" in (tmp_path / "out" / "eval.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["mean", "cascade"])
def test_a_panel_is_calibrated_as_one_judge(tmp_path: Path, mode: Any) -> None:
    """People agree with a panel less often than it is sure; its own calibration says so."""
    data, constitution = write_inputs(tmp_path, 300)
    one, two = judges(tmp_path)
    panel = Panel([one, two], mode, 0.6)
    context = RunContext(cache_dir=tmp_path / "cache.sqlite")
    inputs = {"data": str(data), "constitution": str(constitution), "context": context}
    run_panel(panel=panel, out=tmp_path / "plain", **inputs)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    lines = []
    for row in rows(tmp_path / "plain", "preferences.jsonl"):
        z = math.log(row["p_chosen"] / (1 - row["p_chosen"])) / 3
        agrees = rng.random() < 1 / (1 + math.exp(-z))
        side = row["provenance"]["winner"]
        said = side if agrees else {"a": "b", "b": "a"}[side]
        sides = {side: "chosen", {"a": "b", "b": "a"}[side]: "rejected"}
        other = {"a": "b", "b": "a"}[said]
        chosen, rejected = row[sides[said]], row[sides[other]]
        lines.append({"prompt": row["prompt"], "chosen": chosen, "rejected": rejected})
    human = tmp_path / "human.jsonl"
    human.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def calibrate(run: str, *flags: str) -> Any:
        return CliRunner().invoke(
            cli, ["calibrate", str(tmp_path / run), "--human-labels", str(human), "--json", *flags]
        )

    done = calibrate("plain")
    assert done.exit_code == 0, done.output
    temperature = json.loads(done.stdout)["temperature"]
    assert 1.5 < temperature < 7
    file = str(tmp_path / "plain" / "calibration.json")
    own = replace(panel, calibration=file)
    run_panel(panel=own, out=tmp_path / "new", **inputs)  # type: ignore[arg-type]
    before, after = by_pair(tmp_path / "plain"), by_pair(tmp_path / "new")
    assert before.keys() == after.keys()
    for key, (p, status, _) in before.items():
        if status == "decided":
            z = math.log(p / (1 - p)) / temperature
            assert after[key][0] == pytest.approx(1 / (1 + math.exp(-z)), abs=2e-4)
        assert after[key][1] == status
    (some, *_) = rows(tmp_path / "new", "preferences.jsonl")
    assert some["provenance"]["calibration"]
    # How far the judges agree is learned too, and applied as it was learned.
    done = calibrate("plain", "--method", "features", "-o", str(tmp_path / "features.json"))
    assert done.exit_code == 0, done.output
    learned = json.loads(done.stdout)
    assert learned["features"].keys() == set(FEATURES)
    fitted = replace(panel, calibration=str(tmp_path / "features.json"))
    run_panel(panel=fitted, out=tmp_path / "featured", **inputs)  # type: ignore[arg-type]
    featured = by_pair(tmp_path / "featured")
    dissents = set()
    for row in rows(tmp_path / "plain", "preferences.jsonl"):
        asked = [j["p_chosen"] for j in row["provenance"]["judges"]]
        dissent = sum(1.0 if p < 0.5 else 0.5 if p == 0.5 else 0.0 for p in asked) / len(asked)
        dissents.add(dissent)
        z = math.log(row["p_chosen"] / (1 - row["p_chosen"])) * learned["slope"]
        z += learned["intercept"] + learned["features"]["dissenting_judges"] * dissent
        expected = max(0.5, 1 / (1 + math.exp(-z)))
        evidence = row["provenance"]
        p = featured[evidence["row"], evidence["id"]][0]
        p = 1 - p if evidence["winner"] == "b" else p
        assert p == pytest.approx(expected, abs=2e-4)
    assert len(dissents) > 1
    # What judges said alone is as before, and the run's own file reproduces the panel.
    for name in ("1-hashed", "2-hashed"):
        assert by_pair(tmp_path / "new/members" / name) == by_pair(
            tmp_path / "plain/members" / name
        )
    again = panel_of_run(str(tmp_path / "new" / "run.yaml"), {})
    assert again is not None
    assert again.calibration == file
    # It is this panel's: no other's, and not of runs that have one already.
    heavier = replace(own, members=[one, PanelMember(two.settings, weight=2.0)])
    with pytest.raises(RlaifError, match="was fitted for a different judge"):
        run_panel(panel=heavier, out=tmp_path / "other", **inputs)  # type: ignore[arg-type]
    for run, flags, said in (
        ("new", (), "already uses a calibration"),
        ("plain", ("--per-principle",), "is for one judge"),
    ):
        assert said in str(calibrate(run, *flags).exception)
