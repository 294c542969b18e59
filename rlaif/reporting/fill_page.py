"""Renders `report.html`: counts, margins, principles, position bias, contested pairs.

Everything is inline, and every text from data is escaped: the page runs nothing and loads
nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from rlaif.evaluation.bias.report import BiasReport, bias_report
from rlaif.evaluation.bias.style import measure_style
from rlaif.evaluation.outcomes import read_outcomes
from rlaif.reporting.contested import most_contested
from rlaif.runs.directory import read_manifest, read_review
from rlaif.runs.tally import MARGIN_BINS, PrincipleTally, Tally, load_tally, read_positions
from rlaif.templates.messages import message_text
from rlaif.util.files import write_atomically

REPORT = "report.html"


def write_report(run: Path, *, contested: int = 20) -> Path:
    """Write the page of a complete run into its folder.

    Raises:
        RlaifError: `run` is not a complete run directory.
    """
    manifest = read_manifest(run)
    tally = load_tally(manifest["counts"])
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            run=run.name,
            manifest=manifest,
            tally=tally,
            bars=margin_bars(tally),
            principles=[(name, _shares(t)) for name, t in tally.principles.items()],
            contested=most_contested(run, most=contested),
            positions=read_positions(tally, manifest.get("stopping")),
            nothing=PrincipleTally(),
            biases=_biases(run),
            review=read_review(run),
        )
    )
    path = run / REPORT
    write_atomically(path, page)
    return path


def _biases(run: Path) -> BiasReport:
    """What the verdicts follow; pairs of one prompt hang together, whatever row they are from."""
    outcomes = read_outcomes(run, measure=measure_style)
    return bias_report(outcomes, groups=outcomes.groups)


def environment() -> Environment:
    """Where pages are made: everything from data is escaped."""
    made = Environment(
        loader=PackageLoader("rlaif.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["said"] = message_text
    made.filters["percent"] = lambda v: "–" if v is None else f"{100 * v:.1f}%"
    return made


def margin_bars(tally: Tally, *, width: int = 640, height: int = 150) -> list[dict[str, Any]]:
    """The margin histogram as rectangles: x, y, width, height in pixels, with count and range."""
    top = max([*tally.margins, 1])
    step = width / MARGIN_BINS
    bars = []
    for i, n in enumerate(tally.margins):
        tall = height * n / top
        bars.append(
            {
                "x": round(i * step + 1, 1),
                "y": round(height - tall, 1),
                "width": round(step - 2, 1),
                "height": round(tall, 1),
                "count": n,
                "range": f"{i / MARGIN_BINS:.2f} to {(i + 1) / MARGIN_BINS:.2f}",
            }
        )
    return bars


def _shares(t: Any) -> dict[str, Any]:
    total = max(1, t.agrees + t.disagrees + t.silent)
    return {
        "tally": t,
        "agrees": t.agrees / total,
        "disagrees": t.disagrees / total,
        "silent": t.silent / total,
    }
