"""Quotas of slices, and how many rows of what are drawn."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlaif.errors import RlaifError
from rlaif.mixing import allocation
from rlaif.mixing.allocation import InfeasibleShares, RowSupply, allocate, most_rows
from rlaif.mixing.settings import MixPart, Quota
from tests.generation.helpers import write_rows
from tests.mixing.helpers import HUMAN, mixed, pairs, run, text


@pytest.mark.slow
def test_quotas_hold_a_slice_whatever_its_share_was(tmp_path: Path) -> None:
    rng = random.Random(1)
    rows = [
        {
            "prompt": text(rng),
            "completion": text(rng),
            "origin": HUMAN,
            "tags": ["welsh"] if i < 30 else ["irish"] if i < 50 else [],
            "topic": "law" if i % 2 else "art",
        }
        for i in range(1000)
    ]
    data = write_rows(tmp_path / "a.jsonl", rows)
    quotas = [Quota(slice="tag:welsh", share=0.05), Quota(slice="topic:law", share=0.5)]
    report, found = mixed(tmp_path / "m", [MixPart(data=data, share=1)], quotas=quotas, total=400)
    welsh = [row for row in found if "welsh" in row["provenance"]["tags"]]
    assert len(welsh) == 20
    assert report.slices[0] | {"rows": 20, "share": 0.05, "before": 0.03} == report.slices[0]
    assert report.slices[1]["rows"] == 200
    # All there is, without --total: 30 Welsh rows are 5% of 600.
    assert mixed(tmp_path / "n", [MixPart(data=data, share=1)], quotas=quotas)[0].rows == 600
    with pytest.raises(RlaifError, match=r"slice tag:welsh' has 30 rows .*; 900.*need 45.*600"):
        mixed(tmp_path / "o", [MixPart(data=data, share=1)], quotas=quotas, total=900)
    with pytest.raises(RlaifError, match="no row is in the slice 'tag:manx'"):
        mixed(
            tmp_path / "p",
            [MixPart(data=data, share=1)],
            quotas=[Quota(slice="tag:manx", share=0.1)],
        )


@pytest.mark.slow
def test_allocations_fulfil_what_they_must() -> None:
    """Against the constraints themselves, and the largest total against a search."""
    rng = np.random.default_rng(3)
    for _ in range(30):
        parts, strata = int(rng.integers(1, 4)), int(rng.integers(2, 5))
        supply = RowSupply(rng.integers(0, 40, (parts, strata)), rng.random((2, strata)) < 0.5)
        shares = (w := rng.random(parts) + 0.1) / w.sum()
        quotas = [float(rng.uniform(0.05, 0.5)), float(rng.uniform(0.05, 0.5))]
        most = most_rows(supply, list(shares), quotas)
        reached = 0
        for total in range(1, int(supply.rows.sum()) + 1):
            try:
                taken = allocate(supply, list(shares), quotas, total)
            except InfeasibleShares:
                continue
            reached = total
            assert taken.sum() == total
            assert (taken >= 0).all()
            assert (taken <= supply.rows).all()
            assert np.abs(taken.sum(axis=1) - shares * total).max() < 1
            for q, share in enumerate(quotas):
                assert abs(taken[:, supply.slices[q]].sum() - share * total) < 1
        # Rounding by one row can reach a little further than shares that hold exactly.
        assert most <= reached


def test_a_slice_that_holds_every_row_can_hold_no_less(tmp_path: Path) -> None:
    data = pairs(tmp_path / "a.jsonl", 10, 1, tags=["all"], origin=HUMAN)
    with pytest.raises(RlaifError, match="these shares and quotas cannot be met"):
        mixed(
            tmp_path / "m",
            [MixPart(data=data, share=1)],
            quotas=[Quota(slice="tag:all", share=0.5)],
        )


@pytest.mark.slow
def test_quotas_hold_for_what_is_trained(tmp_path: Path) -> None:
    """Human rows weigh more, and all Welsh rows but two are human."""
    model = {"kind": "model", "model": "m", "depth": 1}
    rows = [
        {
            "prompt": f"q {i} {text(random.Random(i))}",
            "completion": f"a {i} {text(random.Random(1000 + i))}",
            "origin": HUMAN if i < 60 else model,
            "tags": ["welsh"] if i < 30 or 100 <= i < 102 else [],
            "weight": 2 if i % 3 == 0 else 1,
        }
        for i in range(1000)
    ]
    data = write_rows(tmp_path / "a.jsonl", rows)
    for number, share in enumerate((0.02, 0.06)):
        quotas = [Quota(slice="tag:welsh", share=share)]
        out = tmp_path / str(number)
        report, found = mixed(out, [MixPart(data=data, share=1)], quotas=quotas, total=600)
        assert report.human_factor > 1
        (welsh,) = report.slices
        weights = {True: 0.0, False: 0.0}
        for row in found:
            weights["welsh" in row["provenance"]["tags"]] += row["weight"]
        total = sum(weights.values())
        assert welsh["by weight"] == pytest.approx(weights[True] / total)
        heaviest = max(row["weight"] for row in found)
        assert abs(weights[True] - share * total) < heaviest
        own = sum(row["weight"] for row in found if row["provenance"]["human_written"])
        assert own / total == pytest.approx(report.human_written)
        assert 0.1 - 1e-9 <= report.human_written < 0.1 + 2 * heaviest / total
        assert welsh["share"] < share, "Welsh rows weigh more than others, so fewer are taken"
        assert f"| {welsh['by weight']:.1%} | {welsh['rows']} |" in (out / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.0, 1.0, 1.5])
def test_quotas_hold_for_weights_of_any_spread(tmp_path: Path, spread: float) -> None:
    """Weights by the lognormal law, each of its own: within two rows of the mean weight."""
    rng = np.random.default_rng(3)
    rows = [
        {
            "prompt": f"q {i} {text(random.Random(i))}",
            "completion": f"a {i} {text(random.Random(900 + i))}",
            "origin": HUMAN,
            "tags": ["x"] if i % 3 == 0 else [],
            "weight": float(np.exp(spread * rng.normal())),
        }
        for i in range(600)
    ]
    data = write_rows(tmp_path / "a.jsonl", rows)
    found = []
    for seed in range(6):
        quotas = [Quota(slice="tag:x", share=0.2)]
        parts = [MixPart(data=data, share=1)]
        report, _ = mixed(tmp_path / str(seed), parts, quotas=quotas, total=100, seed=seed)
        found.append(report.slices[0]["by weight"])
    assert max(abs(share - 0.2) for share in found) < 0.06


def test_a_slice_without_weight_can_have_no_share(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"q {i}", "completion": f"a {i}", "origin": HUMAN, "tags": ["x"] * (i < 10)}
        | {"weight": 0 if i < 10 else 1}
        for i in range(20)
    ]
    data = write_rows(tmp_path / "a.jsonl", rows)
    with pytest.raises(RlaifError, match="all rows of the slice 'tag:x' have a weight of 0"):
        mixed(
            tmp_path / "m",
            [MixPart(data=data, share=1)],
            quotas=[Quota(slice="tag:x", share=0.3)],
        )


def test_a_quota_that_heavy_human_rows_would_break_is_met_by_lighter_ones(tmp_path: Path) -> None:
    """All human rows are in the slice: at four times their weight they are too much of it."""
    model = {"kind": "model", "model": "m", "depth": 1}

    def rows(name: str, count: int, origin: dict[str, Any], in_slice: int) -> str:
        return write_rows(
            tmp_path / name,
            [
                {"prompt": f"{name} {i} {text(random.Random(i))}", "completion": f"{name} {i} a"}
                | {"origin": origin, "tags": ["x"] if i < in_slice else []}
                for i in range(count)
            ],
        )

    parts = [
        MixPart(data=rows("h.jsonl", 40, HUMAN, 40), share=0.1),
        MixPart(data=rows("m.jsonl", 400, model, 20), share=0.9),
    ]
    report, _ = mixed(
        tmp_path / "m",
        parts,
        quotas=[Quota(slice="tag:x", share=0.2)],
        total=100,
        min_human=0.13,
    )
    assert report.human_written >= 0.13
    assert 1.3 < report.human_factor < 2.0
    assert abs(report.slices[0]["by weight"] - 0.2) < 0.02
    with pytest.raises(RlaifError, match=r"below the minimum of 50\.0%.*--min-human"):
        mixed(
            tmp_path / "n",
            parts,
            quotas=[Quota(slice="tag:x", share=0.2)],
            total=100,
            min_human=0.5,
        )


def test_what_the_solver_prints_is_kept_off_the_result(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lines go to the process's own standard output, behind Python's back."""
    solve = allocation.milp

    def loud(*given: Any, **more: Any) -> Any:
        os.write(1, b"HighsMipSolverData\n")
        return solve(*given, **more)

    monkeypatch.setattr(allocation, "milp", loud)
    data = pairs(tmp_path / "a.jsonl", 30, 1, origin=HUMAN, tags=["x"])
    more = pairs(tmp_path / "b.jsonl", 30, 2, origin=HUMAN)
    parts = (f"{data}=1", f"{more}=1", "--quota", "tag:x=0.5")
    assert run(monkeypatch, "mix", *parts, "--json", "-o", str(tmp_path / "m")) == 0
    assert json.loads(capfd.readouterr().out)["rows"] == 60
