"""A run whose judge can't be read, or follows the position alone, stops soon."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rlaif.cli.main import cli
from rlaif.errors import RlaifError
from rlaif.labeling.first_look import FirstLook
from rlaif.records import Verdict
from rlaif.runs.tally import load_tally
from tests.labeling.helpers import rows, write_inputs


def run(tmp_path: Path, *flags: str, count: int = 120) -> Result:
    data, constitution = write_inputs(tmp_path, count)
    line = ["label", str(data), "-c", str(constitution), "-o", str(tmp_path / "run")]
    line += ["-j", "hashed", "--engine", "scripted", "--cache-dir", str(tmp_path / "cache")]
    return CliRunner().invoke(cli, [*line, *flags])


@pytest.mark.parametrize("more", [[], ["--shard-rows", "40"]])
def test_a_judge_that_does_not_answer_with_a_label_stops_with_the_figures(
    tmp_path: Path, more: list[str]
) -> None:
    done = run(tmp_path, "--option", "label_mass=0.07", *more)
    assert isinstance(done.exception, RlaifError)
    said = f"{done.exception.message} {done.exception.hint}"
    assert "of the first 100 verdicts are invalid: label mass 0.07 in the median" in said
    assert f"rlaif judge check hashed -c {tmp_path}/constitution.yaml --engine scripted" in said
    assert "--keep-going" in said
    assert not (tmp_path / "run" / "manifest.json").exists()


@pytest.mark.parametrize(("position", "side"), [(20, "first"), (-20, "second")])
@pytest.mark.parametrize("orders", ["both", "one"])
def test_a_judge_that_follows_the_position_stops(
    tmp_path: Path, position: int, side: str, orders: str
) -> None:
    done = run(tmp_path, "--option", f"position={position}", "--orders", orders)
    assert isinstance(done.exception, RlaifError)
    assert f"the response that is shown {side}, whichever it is" in done.exception.message


def test_keep_going_goes_on_where_it_stopped_and_the_summary_keeps_the_numbers(
    tmp_path: Path,
) -> None:
    assert run(tmp_path, "--option", "label_mass=0.07").exit_code
    done = run(tmp_path, "--option", "label_mass=0.07", "--keep-going")
    assert done.exit_code == 0, done.output
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["counts"]["invalid_verdicts"] == manifest["counts"]["verdicts"] > 100
    reasons = " ".join(load_tally(manifest["counts"]).reasons_in_words)
    assert "low label mass (0.07 < 0.5)" in reasons


@pytest.mark.parametrize("option", ["label_mass=0.6", "position=2", "fail_every=3"])
def test_a_judge_with_faults_goes_on(tmp_path: Path, option: str) -> None:
    assert run(tmp_path, "--option", option).exit_code == 0


def test_reasons_show_the_range_of_their_numbers(tmp_path: Path) -> None:
    done = run(tmp_path, "--tie-margin", "0.5")
    ties = [r["provenance"]["reason"] for r in rows(tmp_path / "run", "undecided.jsonl")]
    margins = sorted(
        float(reason.split("margin ")[1].split(" <")[0]) for reason in ties if "near tie" in reason
    )
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    wanted = f"near tie (margin {margins[0]:.3f} to {margins[-1]:.3f} < 0.5)"
    assert load_tally(manifest["counts"]).reasons_in_words[wanted] == len(margins)
    assert wanted.split(" (")[0] in done.output


def verdict(order: str, logit: float, *, invalid: str = "") -> Verdict:
    return Verdict("one", order, logit, 0.0 if invalid else 0.9, invalid=invalid)  # type: ignore[arg-type]


def test_one_order_alone_says_nothing_of_the_position() -> None:
    """Where the better response is always `a`, a good judge prefers the first in order ab."""
    look = FirstLook("check")
    for _ in range(150):
        look.take(verdict("ab", 3.0))
    assert not look.done
    for _ in range(20):
        look.take(verdict("ba", -3.0))
    assert look.done


def test_failures_that_have_no_mass_are_told_by_their_reason() -> None:
    look = FirstLook("check")
    for k in range(99):
        look.take(verdict("ab", 1.0, invalid="reasoning was truncated" if k < 60 else ""))
    with pytest.raises(RlaifError, match=r"60 of the first 100 .*: reasoning was truncated"):
        look.take(verdict("ab", 1.0))
