"""Renders an evaluation: as plain data for machines, and as one self-contained page."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from rlaif.evaluation.judge_report import JudgeReport
from rlaif.evaluation.run import Evaluation
from rlaif.reporting.fill_page import environment
from rlaif.util.files import write_atomically

PAGE = "eval.html"
SIDE = 240


def as_data(found: Evaluation) -> dict[str, Any]:
    """Everything measured, as JSON has it: what is not a number is null."""
    return {
        "judges": [_plain(report) for report in found.reports],
        "comparisons": [{**_plain(c), "verdict": c.verdict} for c in found.comparisons],
        "panels": [{**_plain(p), "verdict": p.verdict} for p in found.panels],
        "attacks": {name: _plain(results) for name, results in found.attacks.items()},
        "biases": {name: _plain(report) for name, report in found.biases.items()},
        "runs": {name: str(path) for name, path in found.folders.items()},
        "rows_left_out": found.rejected,
    }


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_evaluation(found: Evaluation, folder: Path) -> Path:
    """Write `eval.html` into the folder of an evaluation."""
    page = (
        environment()
        .get_template("evaluation.html.j2")
        .render(
            title=folder.name,
            found=found,
            reports=[(report, _reliability(report), _curve(report)) for report in found.reports],
            side=SIDE,
        )
    )
    path = folder / PAGE
    write_atomically(path, page)
    return path


def _reliability(report: JudgeReport) -> list[dict[str, float]]:
    """Circles of the reliability plot: confidence to the right, accuracy upwards, both from 0.5
    (accuracy from 0) to 1; the area follows the number of pairs.
    """
    most = max((b.count for b in report.probabilities.bins), default=1)
    return [
        {
            "x": round(SIDE * (b.confidence - 0.5) * 2, 1),
            "y": round(SIDE * (1 - b.right), 1),
            "r": round(2 + 8 * math.sqrt(b.count / most), 1),
            "count": b.count,
            "confidence": b.confidence,
            "right": b.right,
        }
        for b in report.probabilities.bins
    ]


def _curve(report: JudgeReport) -> str:
    """Points of the abstention curve: coverage to the right, accuracy from 0.5 upwards."""
    return " ".join(
        f"{SIDE * p.coverage:.1f},{SIDE * (1 - max(0.0, p.accuracy - 0.5) * 2):.1f}"
        for p in report.curve
    )
