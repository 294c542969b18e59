"""`rlaif eval` on real vLLM and with the scripted engine, against an independent count."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rlaif.cli.main import cli
from rlaif.demo.oracle import prefer
from rlaif.demo.world import World
from rlaif.errors import RlaifError

C1 = 'schema: 1\nname: one\nversion: "1"\nprinciples:\n  - {id: p, preference: "Which response is one?"}\n'
C2 = C1.replace("name: one", "name: two").replace("one?", "two?")


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def run(*args: str) -> Any:
    wide = {"COLUMNS": "200"}  # no cell is wrapped
    done = CliRunner().invoke(cli, ["eval", *args], catch_exceptions=False, env=wide)
    assert done.exit_code == 0, done.output
    return done


def oracle_rows(n: int) -> list[dict[str, Any]]:
    rows = []
    for i, p in enumerate(World(77, "test").pairs(n)):
        label = {1: "A>B", -1: "B>A", 0: "A=B"}[prefer(p.prompt, p.response_a, p.response_b)]
        rows.append(
            {
                "question": p.prompt,
                "response_A": p.response_a,
                "response_B": p.response_b,
                "label": label,
                "source": f"part {i % 2}",
            }
        )
    return rows


@pytest.mark.slow
def test_agreement_with_the_oracle_is_what_the_rows_say(tmp_path: Path) -> None:
    """The demo judge on vLLM; accuracy, kappa and Brier counted anew from the run's rows."""
    rows = oracle_rows(40)
    data = write(tmp_path / "labeled.jsonl", rows)
    done = run(data, "-c", "demo", "-o", str(tmp_path / "out"), "--bias", "--json")
    (judge,) = json.loads(done.stdout)["judges"]
    (folder,) = [p for p in (tmp_path / "out").iterdir() if p.is_dir() and "-probes" not in p.name]
    said: dict[int, tuple[str, float]] = {}
    for name, p in (("preferences", "p_chosen"), ("undecided", "p_a")):
        for line in (folder / f"{name}.jsonl").read_text().splitlines():
            row = json.loads(line)
            chosen = (row.get("chosen") or row["a"])[0]["content"]
            original = rows[row["provenance"]["row"] - 1]
            side = "A" if chosen == original["response_A"] else "B"
            said[row["provenance"]["row"]] = (side if name == "preferences" else "", row[p])
    right, squares = [], []
    for i, row in enumerate(rows, 1):
        if row["label"] == "A=B":
            continue
        side, p = said[i]
        right.append(0.5 if not side else float(row["label"].startswith(side)))
        p_label = p if row["label"].startswith(side or "A") else 1 - p
        squares.append((1 - p_label) ** 2)
    agreement = judge["agreement"]
    assert agreement["accuracy"]["value"] == pytest.approx(sum(right) / len(right))
    assert agreement["accuracy"]["n"] == len(right)
    assert agreement["accuracy"]["value"] > 0.9
    assert judge["probabilities"]["brier"] == pytest.approx(sum(squares) / len(squares), abs=1e-6)
    assert set(judge["subsets"]) == {"part 0", "part 1"}
    page = (tmp_path / "out" / "eval.html").read_text()
    for text in ("Reliability plot", "part 1", "position: be-polite"):
        assert text in page
    # Measuring again costs nothing and says the same.
    again = json.loads(run(data, "-c", "demo", "-o", str(tmp_path / "out"), "--json").stdout)
    assert again["judges"][0]["agreement"] == agreement


def test_two_constitutions_are_compared_on_the_same_pairs(tmp_path: Path) -> None:
    """Labels made from what the first constitution says: it is better, and the test says so."""
    for name, text in (("one.yaml", C1), ("two.yaml", C2)):
        (tmp_path / name).write_text(text)
    rows: list[dict[str, Any]] = [
        {
            "id": str(i),
            "prompt": f"q {i * i}",
            "response_a": "x" * (i % 7) + str(i**5),
            "response_b": "y" * (i % 11) + str(i**3),
            "label": "a",
        }
        for i in range(3, 93)
    ]
    engine = ["--engine", "scripted", "--judge", "hashed"]
    data = write(tmp_path / "plain.jsonl", rows)
    first = run(
        data, "-c", str(tmp_path / "one.yaml"), *engine, "-o", str(tmp_path / "first"), "--json"
    )
    (path,) = json.loads(first.stdout)["runs"].values()
    for line in (Path(path) / "preferences.jsonl").read_text().splitlines():
        provenance = json.loads(line)["provenance"]
        rows[provenance["row"] - 1]["label"] = provenance["winner"]
    data = write(tmp_path / "labeled.jsonl", rows)
    both = ["-c", str(tmp_path / "one.yaml"), "-c", str(tmp_path / "two.yaml")]
    done = run(data, *both, *engine, "-o", str(tmp_path / "both"))
    assert "hashed with one 1 is better" in done.stdout
    result = json.loads((tmp_path / "both" / "eval.json").read_text())
    (comparison,) = result["comparisons"]
    assert comparison["p_adjusted"] < 0.001
    assert comparison["verdict"] == "hashed with one 1 is better"
    # An edited constitution is measured into the same folder, beside the old run.
    (tmp_path / "two.yaml").write_text(C2.replace("two?", "second?"))
    run(data, *both, *engine, "-o", str(tmp_path / "both"))
    assert len([p for p in (tmp_path / "both").iterdir() if p.is_dir()]) == 3


def test_nothing_of_the_user_s_is_overwritten(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "chosen": "x", "rejected": "y"}, {"prompt": "q", "other": "lost"}]
    data = write(tmp_path / "pairs.jsonl", rows)
    before = Path(data).read_bytes()
    with pytest.raises(RlaifError, match="holds files but no evaluation"):
        run(data, "-c", "demo", "--engine", "scripted", "-o", str(tmp_path))
    with pytest.raises(RlaifError, match="is a file"):
        run(data, "-c", "demo", "--engine", "scripted", "-o", data)
    assert Path(data).read_bytes() == before


def test_rows_of_one_prompt_are_one_piece_of_evidence(tmp_path: Path) -> None:
    """The same eighty rows, once and eight times: intervals and tests say the same."""
    for name, text in (("one.yaml", C1), ("two.yaml", C2)):
        (tmp_path / name).write_text(text)
    rows = [
        {
            "id": str(i),
            "prompt": f"q {i * i}",
            "response_a": "x" * (i % 7) + str(i**5),
            "response_b": "y" * (i % 11) + str(i**3),
            "label": "ab"[i % 2],
        }
        for i in range(80)
    ]
    found = []
    for times in (1, 8):
        data = write(tmp_path / f"x{times}.jsonl", rows * times)
        done = run(
            data,
            "-c",
            str(tmp_path / "one.yaml"),
            "-c",
            str(tmp_path / "two.yaml"),
            "--engine",
            "scripted",
            "--judge",
            "hashed",
            "-o",
            str(tmp_path / f"o{times}"),
            "--json",
        )
        result = json.loads(done.stdout)
        found.append(
            (result["judges"][0]["agreement"]["accuracy"], result["comparisons"][0]["p_adjusted"])
        )
    (once, p_once), (often, p_often) = found
    assert once["value"] == pytest.approx(often["value"])
    assert often["high"] - often["low"] == pytest.approx(once["high"] - once["low"], abs=0.02)
    assert p_often == pytest.approx(p_once, abs=0.03)


def test_a_judge_that_says_nothing_has_no_good_score(tmp_path: Path) -> None:
    rows = [{"prompt": f"q {i}", "chosen": f"x {i}", "rejected": f"y {i}"} for i in range(30)]
    data = write(tmp_path / "data.jsonl", rows)
    (tmp_path / "one.yaml").write_text(C1)
    done = run(
        data,
        "-c",
        str(tmp_path / "one.yaml"),
        "--engine",
        "scripted",
        "--judge",
        "hashed",
        "--label-mass-floor",
        "1",
        "-o",
        str(tmp_path / "out"),
        "--json",
    )
    (judge,) = json.loads(done.stdout)["judges"]
    assert judge["agreement"]["coverage"] == 0.0
    assert judge["probabilities"]["brier"] == pytest.approx(0.25)


@pytest.mark.parametrize("values", [[0, 1, 1, 0], ["0", "1", "0", "1"]])
def test_zero_and_one_are_not_guessed(tmp_path: Path, values: list[Any]) -> None:
    rows = [
        {"prompt": f"q {i}", "response_a": "x", "response_b": "y", "preference": v}
        for i, v in enumerate(values)
    ]
    data = write(tmp_path / "data.jsonl", rows)
    with pytest.raises(RlaifError, match="can count the responses from 0 or from 1"):
        run(data, "-c", "demo", "--engine", "scripted", "-o", str(tmp_path / "out"))


def test_unlabeled_data_is_refused_with_the_next_step(tmp_path: Path) -> None:
    data = write(tmp_path / "x.jsonl", [{"prompt": "q", "response_a": "x", "response_b": "y"}])
    with pytest.raises(
        RlaifError, match=r"no column says which response is better.*--map label=COLUMN"
    ):
        run(data, "-c", "demo", "-o", str(tmp_path / "out"))


def test_a_planted_position_bias_reaches_the_report(tmp_path: Path) -> None:
    """Through the whole pipeline: a server-like scripted rule is not needed, verdict files are."""
    from rlaif.evaluation.bias.report import bias_report
    from rlaif.evaluation.bias.style import measure_style
    from rlaif.evaluation.outcomes import read_outcomes
    from tests.labeling.helpers import label, write_inputs

    data, constitution = write_inputs(tmp_path, 200)
    label(data, constitution, tmp_path / "run")
    outcomes = read_outcomes(tmp_path / "run", measure=measure_style)
    by_hand: dict[str, list[float]] = {}
    for line in (tmp_path / "run" / "verdicts.jsonl").read_text().splitlines():
        row = json.loads(line)
        by_hand.setdefault(row["principle"], []).append(row["logit"])
    report = bias_report(outcomes)
    for finding in report.findings:
        if finding.name.startswith("position"):
            values = by_hand[finding.name.split(": ")[1]]
            assert finding.value == pytest.approx(sum(values) / len(values), abs=1e-4)
    # Aggregating again gives what the run aggregated.
    for i, p in enumerate(outcomes.p_a):
        if outcomes.status[i] != "abstained" and outcomes.scores(i):
            assert outcomes.aggregated(i).p_a == pytest.approx(p, abs=2e-5)
            assert not math.isnan(p)
