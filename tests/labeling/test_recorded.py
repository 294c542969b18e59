"""Verdicts that were recorded elsewhere become a run like any other."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rlaif.cli.main import cli
from rlaif.errors import RlaifError
from rlaif.labeling.recorded import read_recorded
from tests.labeling.helpers import rows

PAIRS = [
    {"id": f"n-{k}", "prompt": f"q {k}", "response_a": f"one {k}", "response_b": f"two {k}"}
    for k in range(6)
]
CONSTITUTION = """\
schema: 1
name: two
version: "1"
principles:
  - {id: kind, preference: "Which response is kinder?"}
  - {id: truth, preference: "Which response is true?"}
"""


def write(path: Path, lines: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def imported(folder: Path, verdicts: str, *flags: str) -> Result:
    pairs = write(folder / "pairs.jsonl", PAIRS)
    line = ["import-verdicts", verdicts, "--pairs", pairs, "-o", str(folder / "run")]
    return CliRunner().invoke(cli, [*line, "--cache-dir", str(folder / "cache"), *flags])


def outcome(folder: Path) -> dict[str, str]:
    """Who won each pair, or why nobody did."""
    found = {}
    for name in ("preferences.jsonl", "undecided.jsonl"):
        for row in rows(folder / "run", name):
            told = row["provenance"]
            found[told["id"]] = told["winner"] or told["status"]
    return found


def test_winners_of_both_orders(tmp_path: Path) -> None:
    told = ["a", "b", "tie", "", "a", "b"], ["a", "b", "tie", "b", "b", ""]
    file = tmp_path / "v.csv"
    lines = [f"n-{k},x,{ab},{ba}" for k, (ab, ba) in enumerate(zip(*told, strict=True))]
    lines += ["n-0,y,b,b", "n-9,x,a,a"]
    file.write_text("\n".join(["id,judge,shown_ab,shown_ba", *lines]) + "\n")
    done = imported(tmp_path, str(file), "--where", "judge=x", "-j", "x")
    assert done.exit_code == 0, done.exception
    assert "12 verdicts, of which 2 say nothing; 2 of pairs" in done.stderr
    assert outcome(tmp_path) == {
        "n-0": "a",
        "n-1": "b",
        "n-2": "tie",
        "n-3": "abstained",
        "n-4": "tie",
        "n-5": "abstained",
    }
    assert CliRunner().invoke(cli, ["report", str(tmp_path / "run")]).exit_code == 0
    checked = ["verify", str(tmp_path / "run"), "--cache-dir", str(tmp_path / "cache")]
    found = CliRunner().invoke(cli, checked)
    assert found.exit_code == 0, found.output


def test_probabilities_by_order_and_principle(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(CONSTITUTION)
    p = {"kind": (0.8, 0.6), "truth": (0.3, 0.4)}
    told = [
        {"id": pair["id"], "principle": name, "order": order, "p_a": p[name][k]}
        for pair in PAIRS
        for name in p
        for k, order in enumerate(("ab", "ba"))
    ]
    file = write(tmp_path / "v.jsonl", told)
    done = imported(tmp_path, file, "-c", str(tmp_path / "c.yaml"))
    assert done.exit_code == 0, done.exception
    row = rows(tmp_path / "run", "preferences.jsonl")[0]
    for opinion in row["provenance"]["principles"]:
        logits = [math.log(x / (1 - x)) for x in p[opinion["principle"]]]
        mean = 1 / (1 + math.exp(-sum(logits) / 2))
        own = mean if row["provenance"]["winner"] == "a" else 1 - mean
        assert opinion["p_chosen"] == pytest.approx(own, abs=2e-5)


def test_eval_finds_the_verdicts_though_it_turns_pairs_around(tmp_path: Path) -> None:
    file = write(
        tmp_path / "v.jsonl", [{"id": p["id"], "shown_ab": "a", "shown_ba": "a"} for p in PAIRS]
    )
    gold = [{**p, "winner": "ab"[k < 2]} for k, p in enumerate(PAIRS)]
    labeled = write(tmp_path / "labeled.jsonl", gold)
    options = [f"--option=verdicts={file}", f"--option=pairs={labeled}"]
    line = ["eval", labeled, "-c", "overall", "-j", "x", "--engine", "recorded", *options]
    done = CliRunner().invoke(
        cli, [*line, "--template", "demo", "-o", str(tmp_path / "eval"), "--json"]
    )
    assert done.exit_code == 0, done.exception
    found = json.loads(done.stdout)
    assert json.dumps(found).count("0.666") >= 1


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ({"shown_ab": "a"}, "no `id`"),
        ({"id": "n-1", "verdict": "a"}, "no verdict; columns are id, verdict"),
        ({"id": "n-1", "winner": "left"}, "winner is 'left'"),
        ({"id": "n-1", "p_a": 1.5}, "p_a is '1.5'"),
        ({"id": "n-1", "order": "aa", "winner": "a"}, "order is 'aa'"),
        ({"id": "other", "winner": "a"}, "none of the 1 verdicts is of a pair"),
        ({"id": "n-1", "winner": "a", "principle": "kind"}, "the verdict's principle is 'kind'"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, row: dict[str, Any], match: str) -> None:
    done = imported(tmp_path, write(tmp_path / "v.jsonl", [row]))
    with pytest.raises(RlaifError, match=match):
        raise done.exception or AssertionError(done.output)


def test_two_verdicts_on_one_question_are_not_chosen_from(tmp_path: Path) -> None:
    told = [{"id": "n-1", "winner": "a", "way": "x"}, {"id": "n-1", "winner": "b", "way": "y"}]
    file = write(tmp_path / "v.jsonl", told)
    done = imported(tmp_path, file, "--orders", "one")
    with pytest.raises(RlaifError, match=r"two verdicts on overall ab.*--where"):
        raise done.exception or AssertionError(done.output)
    assert len(list(read_recorded(file, {"way": "y"}))) == 1
