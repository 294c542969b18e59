"""What a labeling run in a mix says about its labels, for the data card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from rlaif.data.mixes import read_mix
from rlaif.errors import RlaifError
from rlaif.evaluation.bias.report import bias_report
from rlaif.evaluation.bias.style import measure_style
from rlaif.evaluation.outcomes import read_outcomes
from rlaif.runs.directory import has_rows, read_manifest, read_review
from rlaif.runs.tally import load_tally, read_positions
from rlaif.util.validation import describe_problem


@dataclass(frozen=True)
class RunEvidence:
    """What is known of a run's labels.

    Attributes:
        self_agreement: share of the judge's clear opinions that both orders share; None where one
            order was asked.
        review: what people found of its labels, as `rlaif labels report` and `labels apply` keep
            it; None where nobody did.
        biases: what the judge's verdicts follow, flagged first, a sentence each.
        warnings: what could not be measured.
    """

    run: str
    judge: str
    constitution: str
    decided: int
    self_agreement: float | None
    review: dict[str, Any] | None
    biases: list[str]
    warnings: list[str]


_EVIDENCE = TypeAdapter(list[RunEvidence])


def evidence(data: str) -> list[RunEvidence]:
    """Of a labeling run, or of those that a mix was made of."""
    path = Path(data)
    mixed = read_mix(path if path.is_dir() else path.parent.parent)
    if mixed is not None:
        try:
            return _EVIDENCE.validate_python(mixed.get("runs", []))
        except ValidationError as error:
            raise RlaifError(
                f"the report of the mix {data!r} is damaged (runs.{describe_problem(error)})",
                hint="Mix again.",
            ) from None
    found = _run_evidence(data)
    return [] if found is None else [found]


def _run_evidence(data: str) -> RunEvidence | None:
    """Of a labeling run, or of one of its files; None for other data."""
    path = Path(data)
    run = path if path.is_dir() else path.parent
    try:
        manifest = read_manifest(run)
        if "constitution" not in manifest["config"] or not has_rows(run / "verdicts.jsonl"):
            return None
        tally = load_tally(manifest["counts"])
        outcomes = read_outcomes(run, measure=measure_style)
        found = bias_report(outcomes, groups=outcomes.groups)
    except (RlaifError, ValueError):
        return None
    constitution = manifest["config"]["constitution"]
    ordered = sorted(found.findings, key=lambda f: not f.flagged)
    return RunEvidence(
        run=data,
        judge=str(manifest["config"]["judge"]["model"]),
        constitution=f"{constitution['name']}@{constitution['version']}",
        decided=tally.decided,
        self_agreement=read_positions(tally, manifest.get("stopping")).consistency,
        review=read_review(run),
        biases=[
            (
                f"{f'**{f.name}**' if f.flagged else f.name} {f.point} {f.unit} (95% CI "
                f"{f.low:+.3f} to {f.high:+.3f})"
            )
            for f in ordered
        ],
        warnings=list(found.warnings),
    )
