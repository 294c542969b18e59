"""What labels cost: token arithmetic done anew, over processes that are killed too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from rlaif.cli.main import cli
from rlaif.data.messages import BadRow
from rlaif.data.reading import Reader
from rlaif.engines.registry import codec_for
from rlaif.errors import RlaifError
from rlaif.judging.questions import plan_questions, principles_for, screen
from rlaif.judging.rendering import Renderer
from rlaif.labeling.job import prepare, run_label
from rlaif.labeling.labeler import LabelProgress
from rlaif.labeling.planner import pairs_of
from rlaif.reporting.fill_page import write_report
from rlaif.runs.context import RunContext
from rlaif.runs.cost import Prices, TokenUsage, cost_of
from tests.labeling.helpers import label, settings, write_inputs


def test_arithmetic_by_hand() -> None:
    prices = Prices(per_hour=3.6, computed=2.0, cached=0.5, written=8.0, human=0.25)
    found = cost_of(
        prices, seconds=100, tokens=TokenUsage(3_000_000, 1_000_000, 500_000), labels=40
    )
    assert found is not None
    assert found["machine"] == pytest.approx(0.1)
    assert found["tokens"] == pytest.approx(6.0 + 0.5 + 4.0)
    assert found["per_label"] == pytest.approx(10.6 / 40)
    assert found["human_total"] == pytest.approx(10.0)
    plain = cost_of(Prices(computed=2.0), seconds=9, tokens=TokenUsage(1000, 1000, 1000), labels=0)
    assert plain is not None
    assert plain["total"] == pytest.approx(0.006)
    assert plain["per_label"] is None
    assert cost_of(Prices(), seconds=9, tokens=TokenUsage(1), labels=1) is None


def prompt_tokens(data: Path, constitution: Path) -> int:
    """Tokens of every question of a job, each rendered and counted by itself."""
    job = prepare(str(data), str(constitution), settings())
    renderer = Renderer(job.template, codec_for(job.settings.judge))
    total = 0
    asked: set[tuple[int, ...]] = set()
    for number, (_, row) in enumerate(job.source.rows()):
        try:
            pairs = list(pairs_of(row, number, job.settings, Reader(job.settings.layout)))
        except BadRow:
            continue
        for pair in pairs:
            if screen(pair):
                continue
            principles = principles_for(pair, job.constitution, mode="all", seed=0)
            for branch in renderer.branches(
                pair, plan_questions(pair, principles, orders="both", seed=0)
            ):
                for _, tail in branch.tails:
                    ids = (*branch.context, *tail)
                    if ids not in asked:
                        total += len(ids)
                        asked.add(ids)
    return total


def test_a_run_costs_what_its_tokens_do(tmp_path: Path) -> None:
    data, constitution = write_inputs(tmp_path, 60)
    out = tmp_path / "run"
    args = [
        "label",
        str(data),
        "-c",
        str(constitution),
        "-o",
        str(out),
        "--engine",
        "scripted",
        "--judge",
        "hashed",
        "--cache-dir",
        str(tmp_path / "c.sqlite"),
    ]
    prices = ["--price-tokens", "3", "--human-price", "0.5"]
    done = CliRunner().invoke(cli, [*args, *prices])
    assert "per label (human labels at 0.5 each" in done.output
    manifest = json.loads((out / "manifest.json").read_text())
    expected = prompt_tokens(data, constitution)
    assert manifest["tokens"]["computed"] == pytest.approx(expected, rel=0.01)
    assert manifest["cost"]["total"] == pytest.approx(3 * expected / 1e6, rel=0.01)
    assert manifest["cost"]["human_total"] == 0.5 * manifest["counts"]["decided"]
    page = write_report(out).read_text()
    assert "per label; human labels at 0.5 each" in page
    assert "are the same with the responses swapped" in page


def test_what_the_cache_spares_is_not_paid_again(tmp_path: Path) -> None:
    data, constitution = write_inputs(tmp_path, 60)
    whole = label(data, constitution, tmp_path / "whole")
    half = tmp_path / "half.jsonl"
    half.write_text("".join(f"{line}\n" for line in data.read_text().splitlines()[:30]))
    cache = tmp_path / "shared.sqlite"
    first = label(half, constitution, tmp_path / "first", cache=cache)
    second = label(data, constitution, tmp_path / "second", cache=cache)
    total = first.manifest["tokens"]["computed"] + second.manifest["tokens"]["computed"]
    assert total == whole.manifest["tokens"]["computed"]
    assert second.manifest["tokens"]["computed"] < total


def test_a_stop_before_the_first_row_loses_nothing_that_was_paid(tmp_path: Path) -> None:
    """Stopped by its own progress after 60 answers, then ended: the same tokens as in one go."""
    data, constitution = write_inputs(tmp_path, 60)
    whole = label(data, constitution, tmp_path / "whole")
    job = prepare(str(data), str(constitution), settings())
    out, cache = tmp_path / "run", tmp_path / "own.sqlite"

    def stop(progress: LabelProgress) -> None:
        if progress.verdicts > 60:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_label(job, out, context=RunContext(cache_dir=cache, on_progress=stop))
    ended = run_label(job, out, context=RunContext(cache_dir=cache))
    paid = whole.manifest["tokens"]["computed"]
    assert paid <= ended.manifest["tokens"]["computed"] <= 1.2 * paid  # what was in flight, twice
    assert ended.manifest["last_process"]["tokens"]["computed"] < paid


@pytest.mark.parametrize("prices", ["x", "1,,2", "-1", "nan", "1,2,3,4"])
def test_prices_that_are_none(tmp_path: Path, prices: str) -> None:
    data, constitution = write_inputs(tmp_path, 3)
    args = [
        "label",
        str(data),
        "-c",
        str(constitution),
        "-o",
        str(tmp_path / "run"),
        "--price-tokens",
        prices,
    ]
    error = CliRunner().invoke(cli, args).exception
    assert isinstance(error, RlaifError)
    assert "--price-tokens" in str(error)


def test_a_report_shows_what_people_found(tmp_path: Path) -> None:
    data, constitution = write_inputs(tmp_path, 20)
    label(data, constitution, tmp_path / "run")
    assert "pairs reviewed" not in write_report(tmp_path / "run").read_text()
    found = {"labels": 12, "corrected": 3, "minutes": 4.2, "agreement": {"total": 5, "rate": 0.8}}
    (tmp_path / "run" / "review.json").write_text(json.dumps(found))
    page = write_report(tmp_path / "run").read_text()
    assert (
        "12 pairs reviewed, 3 judge labels overturned; humans agree with the judge on 80.0% of 5"
        in page
    )
