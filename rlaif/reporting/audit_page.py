"""Renders an audit: `audit.html` for people, `audit.json` for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlaif.audits.audit import AuditReport
from rlaif.audits.checks import AuditCheck
from rlaif.reporting.fill_page import environment
from rlaif.util.files import write_atomically
from rlaif.util.numerics import finite
from rlaif.util.output import explain_failure

PAGE, DATA = "audit.html", "audit.json"
WIDTH = 240
_GROUPS = {
    "diversity": "Diversity at equal length",
    "tail": "Tails: rare words",
    "perplexity": "Perplexity",
    "duplicates": "Duplicates",
    "slices": "Slices",
    "drift": "Tone, format and attributes",
}


def write_audit(out: Path, report: AuditReport, facts: Mapping[str, Any]) -> Path:
    """Write both files into `out`; gives the page.

    Raises:
        RlaifError: the folder can't be written.
    """
    groups = [
        (title, [_drawn(check) for check in report.checks if check.group == name])
        for name, title in _GROUPS.items()
    ]
    page = (
        environment()
        .get_template("audit.html.j2")
        .render(report=report, facts=facts, groups=[g for g in groups if g[1]], width=WIDTH)
    )
    with explain_failure(out, "Use another folder with -o."):
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / DATA, json.dumps(finite(dict(facts)), indent=2) + "\n")
        write_atomically(out / PAGE, page)
    return out / PAGE


def _drawn(check: AuditCheck) -> dict[str, Any]:
    """A check with the places of its value, interval and limit on a line, in pixels."""
    marks = [m for m in (check.low, check.high, check.value, check.limit) if m is not None]
    neutral = 1.0 if "of the reference's" in check.unit or "of its share" in check.unit else 0.0
    marks.append(neutral)
    low, high = min(marks), max(marks)
    room = 0.08 * (high - low or 1.0)
    low, high = low - room, high + room

    def at(value: float) -> float:
        return round(WIDTH * (value - low) / (high - low), 1)

    return {
        "check": check,
        "value": at(check.value),
        "low": at(check.low),
        "high": at(check.high),
        "limit": None if check.limit is None else at(check.limit),
        "neutral": at(neutral),
    }
